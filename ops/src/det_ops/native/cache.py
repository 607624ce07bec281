"""Built libraries on disk: the contents of an entry, and which entries can be used here.

    ROOT/NAME-DIGEST-TOOLS/           an entry, created by one rename
        NAME.so, manifest.json, build.log
    ROOT/NAME-DIGEST-TOOLS.failed.log a failed build: the reason, then the log
    ROOT/NAME.lock                    held while building
    ROOT/.building-NAME-XXXXXXXX/     a running build, or the remains of a killed one

A cache hit must not start a program, so the compiler is identified by the fingerprint of its file (see
`det_ops.native.probe`), which the manifest stores beside its version. If the fingerprints are equal, so are the
compilers. If they differ, the compiler here is run for its version, and an entry of the same version is used. If no
compiler works here, any entry of equal digest is used: the stable ABI permits different compilers. This also applies to
prebuilt entries, which were compiled elsewhere on purpose.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import det_ops.native.roots as roots
from det_ops.native import packaged, probe
from det_ops.native.archs import Archs
from det_ops.native.key import Snapshot, Tools, libc
from det_ops.native.library import NativeLibrary
from det_ops.native.outcome import CannotBuild, Origin
from det_ops.native.settings import Settings
from det_ops.native.trust import distrust

STALE = 24 * 3600.0  # seconds after which a temporary folder is considered abandoned
PREBUILT = Path(__file__).parents[1] / "prebuilt"
_ENTRY = re.compile(r"[a-z0-9_]+-[0-9a-f]{16}-[0-9a-f]{8}")


@dataclass(frozen=True)
class Entry:
    """A built library on disk."""

    folder: Path
    library: Path
    digest: str
    tools: Tools
    fingerprint: str
    origin: Origin = "cache"


@dataclass(frozen=True)
class Found:
    """Usable entries, best first; those of another compiler, for when building fails; why others are not trusted.

    `unfit`: why the package that should contain the library does not help, and what to do.
    """

    fitting: list[Entry]
    spare: list[Entry]
    refused: list[str]
    unfit: str = ""


def search(library: NativeLibrary, snapshot: Snapshot, archs: Archs, settings: Settings) -> Found:
    """The library of a package, and all entries with this digest."""
    made_elsewhere, made_here = [], []
    for folder in settings.prebuilt:
        made_elsewhere += _matching(folder, library, snapshot, archs, "prebuilt")
    made = packaged.find(library, snapshot, archs)
    if made.library is not None:
        tools = Tools(compiler=packaged.label(library.package))
        made_elsewhere.append(Entry(made.library.parent, made.library, snapshot.digest, tools, "", "prebuilt"))
    made_elsewhere += _matching(PREBUILT, library, snapshot, archs, "prebuilt")
    for folder in roots.searchable(settings):
        made_here += _matching(folder, library, snapshot, archs, "cache")
    problems = {entry.folder: distrust(entry.library) for entry in (*made_elsewhere, *made_here)}
    fitting, spare = _by_compiler([e for e in made_here if not problems[e.folder]], library.cuda)
    trusted = [e for e in made_elsewhere if not problems[e.folder]]
    unfit = f"{made.reason}; {made.remedy}" if made.reason else ""
    return Found(trusted + fitting, spare, list(dict.fromkeys(p for p in problems.values() if p)), unfit)


def _by_compiler(entries: list[Entry], cuda: bool) -> tuple[list[Entry], list[Entry]]:
    here = probe.fingerprint(cuda) if entries else ""
    if not here:
        return entries, []
    same = [e for e in entries if e.fingerprint == here]
    if not same and entries:
        try:
            compiler, nvcc = probe.identify(cuda)
        except CannotBuild:
            return entries, []
        same = [e for e in entries if (e.tools.compiler, e.tools.nvcc, e.tools.libc) == (compiler, nvcc, libc())]
    return same, [e for e in entries if e not in same]


def _matching(root: Path, library: NativeLibrary, snapshot: Snapshot, archs: Archs, origin: Origin) -> list[Entry]:
    try:
        names = sorted(os.listdir(root))
    except OSError:
        return []
    start = f"{library.name}-{snapshot.digest[:16]}-"
    entries = [read_entry(root / name, origin) for name in names if name.startswith(start) and _ENTRY.fullmatch(name)]
    return [e for e in entries if e and e.digest == snapshot.digest and archs.covered_by(e.tools.archs)]


def read_entry(folder: Path, origin: Origin = "cache") -> Entry | None:
    """The entry in a folder, or None if there is none or it is incomplete."""
    try:
        with open(folder / "manifest.json", encoding="utf-8") as file:
            manifest = json.load(file)
        library = folder / str(manifest["library"])
        tools = Tools(**{name: str(text) for name, text in manifest["tools"].items()})
        digest, fingerprint = str(manifest["digest"]), str(manifest["fingerprint"])
        whole = library.parent == folder and library.stat().st_size == manifest["size"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return Entry(folder, library, digest, tools, fingerprint, origin) if whole else None


def write_manifest(folder: Path, library: Path, snapshot: Snapshot, tools: Tools, fingerprint: str) -> None:
    """Writes the description of an entry before it is moved into place."""
    manifest = {
        "library": library.name,
        "size": library.stat().st_size,
        "digest": snapshot.digest,
        "tools": asdict(tools),
        "fingerprint": fingerprint,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def failure_path(root: Path, entry_name: str) -> Path:
    """The file that records a failed build of this entry, with the log of the compiler."""
    return root / f"{entry_name}.failed.log"


def read_failure(root: Path, entry_name: str) -> tuple[float, str, str] | None:
    """(time, reason, log) of a recorded failure."""
    path = failure_path(root, entry_name)
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
        when = path.stat().st_mtime
    except OSError:
        return None
    reason, _, log = text.partition("\n")
    return when, reason, log


def write_failure(root: Path, entry_name: str, reason: str, log: str) -> None:
    """Records a failure, so that other ranks and later runs do not repeat the build."""
    path = failure_path(root, entry_name)
    aside = root / f"{path.name}.{os.getpid()}"
    aside.write_text(f"{reason}\n{log}", encoding="utf-8")
    os.replace(aside, path)


def sweep(root: Path, name: str, locked: bool) -> None:
    """Removes the folders of killed builders: all of this library if its lock is held, else those older than a day."""
    for folder in root.glob(f".building-{name}-*"):
        if locked or _old(folder):
            shutil.rmtree(folder, ignore_errors=True)


def clean(settings: Settings) -> list[Path]:
    """Removes libraries and recorded failures from all cache folders, but not prebuilt ones; returns the paths."""
    gone = []
    for root in roots.searchable(settings):
        for path in sorted(root.iterdir()):
            if _is_ours(path):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
                gone += [] if path.exists() else [path]
    return gone


def _is_ours(path: Path) -> bool:
    if path.name.startswith((".building-", ".writable-")):
        return _old(path)
    if path.name.endswith(".failed.log"):
        return _ENTRY.fullmatch(path.name.removesuffix(".failed.log")) is not None
    return _ENTRY.fullmatch(path.name) is not None and (path / "manifest.json").exists()


def _old(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > STALE
    except OSError:
        return False
