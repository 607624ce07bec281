"""Where the bundled sample of real images lies."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from det_core.errors import DataError


def sample_folder() -> Path:
    """The folder of the bundled sample; DataError if this installation lacks it."""
    folder = Path(str(resources.files("det_core.data").joinpath("sample")))
    if not (folder / "instances_train.json").is_file():
        raise DataError(
            f"{folder}: the bundled sample is not part of this installation; reinstall det-core, or pass "
            "a data set of your own with --data"
        )
    return folder
