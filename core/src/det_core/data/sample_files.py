"""The location of the bundled sample of real images."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from det_core.errors import DataError


def sample_folder() -> Path:
    """The folder of the bundled sample; DataError if it is not installed."""
    folder = Path(str(resources.files("det_core.data").joinpath("sample")))
    if not (folder / "instances_train.json").is_file():
        raise DataError(
            f"{folder}: the bundled sample is not part of this installation; reinstall det-core, or give another data "
            "set with --data"
        )
    return folder
