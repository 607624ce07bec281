"""Which part of a list of images a process works on: ranks of torchrun and tasks of a SLURM array share a list."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from attrs import frozen

from det_core.errors import DetError
from det_core.settings import show


@frozen
class Share:
    """Share `index` of `count`: images index, index + count, ... of a list."""

    index: int = 0
    count: int = 1

    def indices(self, total: int) -> range:
        """The indices of this share's images of a list."""
        return range(self.index, total, self.count)

    def among(self, rank: int, size: int) -> Share:
        """The share of one of several ranks that work on this share."""
        return Share(self.index * size + rank, self.count * size)


def chosen_share(text: str | None, environment: Mapping[str, str] = os.environ) -> Share:
    """The share of `--share K/N` (K counted from 1), or of a SLURM array's task, or all.

    Raises:
        DetError: for a text that is no share, or an array whose task ids have gaps.
    """
    if text is not None:
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise DetError(f"--share {text}: expected K/N, such as 1/4 for the first of four shares")
        return Share(int(match[1]) - 1, int(match[2]))
    if "SLURM_ARRAY_TASK_ID" not in environment:
        return Share()
    return _of_slurm(environment)


def _of_slurm(environment: Mapping[str, str]) -> Share:
    names = ("ID", "MIN", "MAX", "COUNT")
    texts = {name: environment.get(f"SLURM_ARRAY_TASK_{name}", "") for name in names}
    if not all(text.isdecimal() for text in texts.values()):
        found = ", ".join(f"SLURM_ARRAY_TASK_{name}={show(text)}" for name, text in texts.items())
        raise DetError(f"found {found}, expected whole numbers; name this task's share with --share K/N")
    task, least, most, count = (int(texts[name]) for name in names)
    step, rest = divmod(most - least, count - 1) if count > 1 else (1, 0)
    index, off = divmod(task - least, step or 1)
    if rest or off or not 0 <= index < count:
        raise DetError(
            f"task {task} of a SLURM array of {count} tasks from {least} to {most}: their ids have gaps; name this "
            "task's share with --share K/N"
        )
    return Share(index, count)
