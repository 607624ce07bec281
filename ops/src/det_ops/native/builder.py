"""Builds a library: one process at a time, in a private folder that is renamed when it is complete."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from det_ops.native import cache, lock, roots, staging
from det_ops.native.cache import Entry
from det_ops.native.key import Snapshot
from det_ops.native.library import NativeLibrary
from det_ops.native.outcome import CannotBuild, say
from det_ops.native.probe import Toolchain
from det_ops.native.settings import Settings

CHILD = Path(__file__).with_name("child.py")
FAILED, UNUSABLE = 3, 4  # exit codes of the child
_GRACE = 5.0  # seconds between SIGTERM and SIGKILL
TAIL = 25  # last lines of the log that messages contain
# temporary failures that the sources do not cause: another attempt may succeed
_PASSING = ("No space left on device", "Killed signal", "Cannot allocate memory", "memory exhausted")
_ERROR = re.compile(r"\berror:|\bfatal\s*:|undefined (symbol|reference)|cannot find")
_CRASHES = (signal.SIGABRT, signal.SIGSEGV, signal.SIGILL, signal.SIGFPE)
_NO_EXEC = "failed to map segment from shared object"


class CompileFailed(CannotBuild):
    """The tools ran and failed. `lasting` if another attempt would fail, too."""

    def __init__(self, reason: str, remedy: str, log: str, lasting: bool) -> None:
        super().__init__(reason, remedy, log)
        self.lasting = lasting


def build(
    library: NativeLibrary,
    snapshot: Snapshot,
    toolchain: Toolchain,
    settings: Settings,
    unusable: frozenset[Path] = frozenset(),
) -> tuple[Entry, float | None]:
    """The entry for these tools, and the build time in seconds if this call built it.

    Args:
        library: the library to build.
        snapshot: its files.
        toolchain: the tools to build it with.
        settings: roots, lock timeout, retry, verbose.
        unusable: folders of entries to replace.

    Raises:
        CannotBuild: with the reason.
    """
    asked = time.time()
    root = roots.writable(settings)
    name = snapshot.entry_name(library, toolchain.tools)
    try:
        with lock.held(root / f"{library.name}.lock", library.name, settings.lock_timeout) as locked:
            ready = cache.read_entry(root / name)
            if ready and ready.folder not in unusable:
                return ready, None
            heed_failure(root, name, settings.retry, asked)
            cache.sweep(root, library.name, locked)
            return _build_in(root, name, library, snapshot, toolchain, settings)
    except OSError as error:
        raise CannotBuild(f"{root}: {error.strerror or error}", "set DET_OPS_CACHE to another folder") from None


def heed_failure(root: Path, name: str, retry: bool, asked: float) -> None:
    """Raises for a remembered failure; with `retry`, only if it happened while this process waited for the lock."""
    failure = cache.read_failure(root, name)
    if failure and not (retry and failure[0] < asked):
        raise CannotBuild(failure[1], _remedy(root, name), _tail(failure[2]))


def _build_in(
    root: Path, name: str, library: NativeLibrary, snapshot: Snapshot, toolchain: Toolchain, settings: Settings
) -> tuple[Entry, float]:
    start = time.monotonic()
    real = Path(tempfile.mkdtemp(prefix=f".building-{library.name}-", dir=root))
    try:
        with staging.opened(real) as stage:
            arguments = staging.fill(stage, library, snapshot, toolchain)
            (stage / "spec.json").write_text(json.dumps(arguments), encoding="utf-8")
            environment = staging.environment(stage, toolchain)
            code = _run_child(stage, library.name, environment, settings.build_timeout)
            log = _log(stage, snapshot, toolchain)
        if settings.verbose:
            sys.stderr.write(log)
        if code != 0:
            failed = _failure(root, name, library.name, code, log)
            if failed.lasting:
                cache.write_failure(root, name, failed.reason, log)
            raise failed
        entry = _publish(root, name, real, library, snapshot, toolchain, log)
    finally:
        shutil.rmtree(real, ignore_errors=True)
    return entry, time.monotonic() - start


def _run_child(stage: Path, name: str, environment: dict[str, str], timeout: float) -> int:
    # -P keeps the folder of child.py off sys.path, where its files would shadow modules of other packages
    command = [sys.executable, "-P", str(CHILD), str(stage / "spec.json")]
    with open(stage / "log", "wb") as log:
        child = subprocess.Popen(  # noqa: S603
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment,
            cwd=stage, start_new_session=True,
        )  # fmt: skip
        try:
            try:
                return child.wait(min(lock.SAY_AFTER, timeout))
            except subprocess.TimeoutExpired:
                say(f"building {name}, once per machine")
            return child.wait(max(timeout - lock.SAY_AFTER, 0))
        except subprocess.TimeoutExpired:
            _end(child)
            reason = f"building {name} took more than {timeout:g} seconds"
            remedy = "check the compiler, or set DET_OPS_BUILD_TIMEOUT to more seconds"
            raise CompileFailed(reason, remedy, _tail(_text(stage)), lasting=False) from None
        except BaseException:  # Ctrl-C reaches only this process: the builder runs in its own session
            os.killpg(child.pid, signal.SIGTERM)  # ninja forwards it to the compilers, unlike SIGKILL
            child.wait()
            raise


def _end(child: subprocess.Popen[bytes]) -> None:
    """Ends the builder and its compilers, at first by SIGTERM, which ninja forwards to them."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with suppress(subprocess.TimeoutExpired):
            child.wait(_GRACE)
            return


def _text(stage: Path) -> str:
    return (stage / "log").read_text(encoding="utf-8", errors="replace")


def _log(stage: Path, snapshot: Snapshot, toolchain: Toolchain) -> str:
    """The log, with the user's paths of the sources."""
    return f"{toolchain}\n" + _text(stage).replace(str(stage / "sources"), str(snapshot.base))


def _failure(root: Path, name: str, library: str, code: int, log: str) -> CompileFailed:
    tail = _tail(log)
    if _NO_EXEC in log:
        remedy = "set DET_OPS_CACHE to a folder on a file system that is not mounted noexec"
        return CompileFailed(f"{root} does not allow executables", remedy, tail, lasting=False)
    if code == UNUSABLE:
        reason = log.strip().splitlines()[-1]
        return CompileFailed(reason, "pip install --upgrade setuptools, and check torch", tail, lasting=False)
    if -code in _CRASHES:
        reason = f"{library} crashes when it is loaded ({signal.Signals(-code).name})"
        return CompileFailed(reason, _remedy(root, name), tail, lasting=True)
    passing = next((text for text in _PASSING if text in log), "")
    if code != FAILED or passing:
        reason = f"the build was interrupted ({passing or f'exit code {code}'})"
        return CompileFailed(reason, "check memory and disk space, then try again", tail, lasting=False)
    return CompileFailed(f"building {library} failed: {_first_error(log)}", _remedy(root, name), tail, lasting=True)


def _remedy(root: Path, name: str) -> str:
    log = cache.failure_path(root, name)
    return f"read {log}; then set DET_OPS_RETRY=1 or run `python -m det_ops build` to try again"


def _first_error(log: str) -> str:
    lines = log.splitlines()
    found = next((line for line in lines if _ERROR.search(line)), "")
    return (found or lines[-1]).strip()[:300]


def _tail(log: str) -> str:
    return "\n".join(line[:500] for line in log.strip().splitlines()[-TAIL:])


def _publish(
    root: Path, name: str, real: Path, library: NativeLibrary, snapshot: Snapshot, toolchain: Toolchain, log: str
) -> Entry:
    """Moves library, manifest and log into place in one step."""
    done = real / "done"
    done.mkdir()
    built = done / f"{library.name}.so"
    shutil.move(real / "objects" / built.name, built)
    (done / "build.log").write_text(log, encoding="utf-8")
    cache.write_manifest(done, built, snapshot, toolchain.tools, toolchain.fingerprint)
    target = root / name
    if target.exists():  # a rename cannot replace a folder that is not empty
        os.rename(target, real / "replaced")
    # without a lock, another process may have been first; its entry is equivalent
    with suppress(OSError):
        os.rename(done, target)
    entry = cache.read_entry(target)
    if entry is None:
        raise CannotBuild(f"{target} could not be moved into place", "set DET_OPS_CACHE to another folder")
    cache.failure_path(root, name).unlink(missing_ok=True)
    return entry
