"""Pictures and crops of predictions, below the folder of results and nowhere else.

Letters: h w size of an image.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from attrs import define, field
from torch import Tensor

from det_core.errors import DetError
from det_core.reports.drawing import draw, save_png, shown
from det_core.structures import Classes, Detections

PICTURES, CROPS, VIDEOS = "pictures", "crops", "videos"


@define(eq=False)
class PredictionPictures:
    """Draws detections of at least a score, and cuts them out.

    folder: of the results. classes: of the detections.
    """

    folder: Path
    classes: Classes
    threshold: float
    _checked: set[Path] = field(factory=set)

    def draw(self, name: str, pixels: Tensor, found: Detections) -> str:
        """Draw an image (C, h, w) with its detections; returns the picture's path below the folder."""
        relative = f"{PICTURES}/{name}.png"
        save_png(draw(shown(pixels), found, self.classes, self.threshold), self._inside(relative))
        return relative

    def crop(self, name: str, pixels: Tensor, found: Detections) -> None:
        """Write the boxes of an image (C, h, w) as pictures, a folder for each class.

        A crop has all pixels that its box touches; its name ends with its place among the image's detections.
        """
        height, width = pixels.shape[-2:]
        picture = shown(pixels)
        for number, (box, score, label) in enumerate(
            zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True), 1
        ):
            if score < self.threshold:
                continue
            left, top = min(max(int(box[0]), 0), width - 1), min(max(int(box[1]), 0), height - 1)
            right, bottom = min(max(-int(-box[2] // 1), left + 1), width), min(max(-int(-box[3] // 1), top + 1), height)
            cut = picture[:, top:bottom, left:right]
            save_png(cut, self._inside(f"{CROPS}/{_folder_of(self.classes.names[label])}/{name}-{number}.png"))

    def _inside(self, relative: str) -> Path:
        """The path of an output; its folder is looked at once."""
        path = self.folder / relative
        if path.parent not in self._checked:
            inside(self.folder, relative)
            if len(self._checked) < 10_000:  # each costs memory
                self._checked.add(path.parent)
        return path


def inside(folder: Path, relative: str) -> Path:
    """The path of an output, whose folder is made; DetError if links lead outside of the folder of results."""
    path = folder / relative
    root, place = os.path.realpath(folder), os.path.realpath(path.parent)
    if os.path.commonpath([root, place]) != root:
        raise DetError(f"--out: {path.parent} is outside of {folder}, by a link; choose another --out")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _folder_of(name: str) -> str:
    """A class's name as the name of a folder."""
    return re.sub(r"[^\w .+-]", "_", name).strip(". ") or "class"


def check_no_input_is_overwritten(folder: Path, inputs: set[str]) -> None:
    """Raise DetError if images lie where pictures or crops are written. inputs: the folders of the images."""
    for name in (PICTURES, CROPS, VIDEOS):
        own = os.path.realpath(folder / name)
        for given in inputs:
            if os.path.commonpath([own, os.path.realpath(given or ".")]) == own:
                raise DetError(
                    f"--out: images of {given or '.'} could be overwritten by {folder / name}; choose another --out"
                )
