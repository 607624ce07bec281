"""The folder of a data set, and the errors for files that are not found in it."""

from __future__ import annotations

from pathlib import Path

from det_core.errors import DataError, no_such


class LayoutError(DataError):
    """The files of a data set were not found."""


class SeveralFilesError(LayoutError):
    """Several files may be meant."""


def data_root(root: str | Path, explicit: bool = False) -> Path:
    """The data folder; LayoutError if there is none. explicit: paths are given, so that no folder is required."""
    if not str(root):
        if explicit:
            return Path()
        raise LayoutError(
            "no data folder was given: pass `--data ROOT` (or set `data.root`), the folder with the annotation files "
            "and images"
        )
    folder = Path(root).expanduser()
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise LayoutError(
            f"data folder {no_such(folder, what)}; `--data` (`data.root`) takes the folder with the annotation files "
            "and images"
        )
    return folder
