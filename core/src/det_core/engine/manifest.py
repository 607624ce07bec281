"""The manifest of a checkpoint folder: sizes and hashes of its files, to detect damage."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from det_core.errors import DetError

MANIFEST = "manifest.json"
FORMAT = "det manifest 1"


class DamagedError(DetError):
    """A file of a checkpoint is damaged."""


def write_manifest(folder: Path) -> None:
    """Record sizes and SHA-256 of all files in a folder."""
    files = {file.name: _facts(file) for file in sorted(folder.iterdir())}
    content = {"format": FORMAT, "files": files}
    (folder / MANIFEST).write_text(json.dumps(content, indent=1) + "\n", encoding="utf8")


def check_file(file: Path) -> None:
    """Compare a file with the manifest in its folder, if there is one.

    Raises:
        DamagedError: if the file or the manifest is damaged, or the manifest does not list the file.
    """
    manifest = file.with_name(MANIFEST)
    if not manifest.exists():  # a single file that was copied out of its folder
        return
    listed = _read(manifest)
    if file.name not in listed:
        raise DamagedError(f"{manifest}: does not list {file.name}; listed: {', '.join(listed) or 'nothing'}")
    try:
        found = _facts(file)
    except OSError as error:
        raise DamagedError(f"{file}: cannot be read ({error.strerror or error})") from None
    wanted = listed[file.name]
    if found["size"] != wanted["size"]:
        raise DamagedError(f"{file}: damaged ({found['size']} bytes, {wanted['size']} were saved)")
    if found != wanted:
        raise DamagedError(f"{file}: damaged (its SHA-256 is not that of the file that was saved)")


def check_folder(folder: Path) -> None:
    """Compare all files that a folder's manifest lists; DamagedError for the first that differs or is missing."""
    if not (folder / MANIFEST).is_file():
        raise DamagedError(f"{folder}: has no {MANIFEST}, so its files cannot be checked")
    for name in _read(folder / MANIFEST):
        check_file(folder / name)


def _facts(file: Path) -> dict[str, object]:
    with file.open("rb") as opened:
        return {"size": file.stat().st_size, "sha256": hashlib.file_digest(opened, "sha256").hexdigest()}


def _read(manifest: Path) -> dict[str, dict[str, object]]:
    try:
        content = json.loads(manifest.read_text(encoding="utf8"))
        files = {str(name): dict(facts) for name, facts in content["files"].items()}
        right = content["format"] == FORMAT and all({"size", "sha256"} == set(facts) for facts in files.values())
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DamagedError(f"{manifest}: damaged ({type(error).__name__}: {error})") from None
    if not right or any(Path(name).name != name for name in files):
        raise DamagedError(f"{manifest}: damaged (not a manifest of the form {FORMAT!r})")
    return files
