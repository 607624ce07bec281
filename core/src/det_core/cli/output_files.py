"""Files that a command will write, checked before anything is computed."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from det_core.errors import DetError, first_few


def check_outputs(option: str, outputs: Iterable[Path], inputs: Iterable[str | Path]) -> None:
    """Raise DetError if an output is an input, also through links, or a folder of outputs is a file.

    option: the command-line option that says where the outputs go.
    """
    outputs = list(outputs)
    for folder in dict.fromkeys(path.parent for path in outputs):
        above = next((part for part in (folder, *folder.parents) if part.exists()), folder)
        if above.exists() and not above.is_dir():
            raise DetError(f"{option}: {above} is a file, expected a folder; choose another {option}")
    there = [path for path in outputs if path.exists()]
    if not there:
        return
    read = {os.path.realpath(path) for path in inputs}
    same = [str(path) for path in there if os.path.realpath(path) in read]
    if same:
        raise DetError(f"{option}: {first_few(same)} would be overwritten, but is an input; choose another {option}")
