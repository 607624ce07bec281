"""The folders that contain built libraries."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from pathlib import Path

from det_ops.native.outcome import CannotBuild
from det_ops.native.settings import Settings
from det_ops.native.trust import distrust


def listed(settings: Settings) -> list[Path]:
    """All candidates, best first; they need not exist."""
    own = [settings.cache] if settings.cache else []
    return [*own, *_user_cache(), *_private_temporary()]


def searchable(settings: Settings) -> list[Path]:
    """The existing folders, except one in the temporary folder that another user may have created."""
    return [root for root in listed(settings) if root.is_dir() and not refusal(root)]


def writable(settings: Settings) -> Path:
    """The first writable folder, created if necessary.

    Writing is tested, since permission bits say nothing about read-only file systems, quotas and root.

    Raises:
        CannotBuild: if there is none, with the reason for each.
    """
    problems = []
    for root in listed(settings):
        problem = _try(root)
        if not problem:
            return root
        problems.append(f"{root}: {problem}")
    reason = f"no folder for built libraries is writable ({'; '.join(problems)})"
    raise CannotBuild(reason, "set DET_OPS_CACHE to a writable folder")


def refusal(root: Path) -> str:
    """Why a folder in the temporary folder is not trusted; empty if it is trusted or is elsewhere."""
    if root not in _private_temporary():
        return ""
    try:
        found = root.lstat()
    except OSError:
        return ""  # not there yet
    if not stat.S_ISDIR(found.st_mode):
        return "is not a folder"
    if found.st_uid != _user():
        return f"belongs to user {found.st_uid}, not to you"
    if stat.S_IMODE(found.st_mode) & 0o077:
        return f"is open to other users (mode {stat.S_IMODE(found.st_mode):04o}, expected 0700)"
    return ""


def _try(root: Path) -> str:
    try:
        # 0700 matters in the temporary folder; elsewhere the user's umask decides, as caches may be shared
        if root in _private_temporary():
            root.mkdir(mode=0o700, exist_ok=True)
        else:
            root.mkdir(parents=True, exist_ok=True)
        problem = refusal(root) or distrust(root)
        if not problem:
            os.rmdir(tempfile.mkdtemp(prefix=".writable-", dir=root))
    except OSError as error:
        return error.strerror or str(error)
    return problem


def _user_cache() -> list[Path]:
    if sys.platform == "darwin":
        base = Path("~/Library/Caches")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    try:
        path = base.expanduser()
    except RuntimeError:  # no home
        return []
    return [path / "det-ops"] if path.is_absolute() else []


def _private_temporary() -> list[Path]:
    # not tempfile.gettempdir(), which writes a file: a cache hit must not require a writable folder
    path = Path(os.environ.get("TMPDIR") or "/tmp")  # noqa: S108 - owner and mode are checked
    return [path / f"det-ops-{_user()}"] if path.is_absolute() else []


def _user() -> int:
    return -1 if sys.platform == "win32" else os.getuid()
