"""SSD's augmentation as toolboxes did it before: each step of OpenCV or numpy on the whole float32 image.

The decisions, and the order of the steps, are those of this project's transforms for a key, so that both have the same
work. The arithmetic is that of Liu et al.'s augmentation (SSD, 2016, section 2.2): saturation and hue are changed in
HSV. Images are converted to it only if one of the two changes, though the toolboxes did so always. Letters: H W size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np

from det_core.contracts import Sample, Transform
from det_core.data.transforms import apply_transforms, joined
from det_core.structures import Key

Image = np.ndarray[Any, np.dtype[Any]]
Decision = tuple[str, Any]  # the name of a transform's class, and what it has drawn


def decisions(transforms: Sequence[Transform], sample: Sample, key: Key) -> list[Decision]:
    """What the transforms draw for a key, in their order. Those that leave the image as it is are not listed."""
    made: list[Decision] = []
    applied = joined(transforms)  # a flip draws inside the resize before it
    drawing = {id(transform): transform for transform in (*transforms, *applied)}.values()
    for transform in drawing:
        transform.draw = _noting(transform, made)  # type: ignore[attr-defined]
    try:
        apply_transforms(sample, applied, key)
    finally:
        for transform in drawing:
            del transform.draw  # type: ignore[attr-defined]
    return made


def _noting(transform: Any, made: list[Decision]) -> Callable[..., object]:
    """The method `draw` of a transform, which notes what it returns."""
    draw, name = transform.draw, type(transform).__name__

    def noting(*given: Any) -> object:
        value = draw(*given)
        if value is not None:
            made.append((name, value))
        return value

    return noting


def augmented(image: Image, made: Sequence[Decision]) -> Image:
    """A decoded image (H, W, 3) uint8 BGR to (3, h, w) float32 of 0..255."""
    steps = {"ZoomOut": zoom_out, "IoUCrop": crop, "Resize": resize, "Flip": flip, "PhotometricDistort": distort}
    pixels = image.astype(np.float32)
    for name, decision in made:
        pixels = steps[name](pixels, decision)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def zoom_out(image: Image, canvas: Any) -> Image:
    """On a canvas of one colour."""
    height, width = image.shape[:2]
    drawn = np.full((canvas.height, canvas.width, 3), canvas.fill[::-1], np.float32)
    drawn[canvas.top : canvas.top + height, canvas.left : canvas.left + width] = image
    return drawn


def crop(image: Image, window: tuple[int, int, int, int]) -> Image:
    """The part of x1, y1, x2, y2."""
    x1, y1, x2, y2 = window
    return image[y1:y2, x1:x2]


def resize(image: Image, scale: tuple[int, int]) -> Image:
    """To a width and height."""
    return cv2.resize(image, scale, interpolation=cv2.INTER_LINEAR)


def flip(image: Image, flips: tuple[bool, bool]) -> Image:
    """Left and right, top and bottom."""
    code = {(True, False): 1, (False, True): 0, (True, True): -1}.get(flips)
    return image if code is None else cv2.flip(image, code)


def distort(image: Image, change: tuple[list[tuple[str, float]], list[int] | None]) -> Image:
    """The changes of colours, then the order of channels."""
    steps, order = dict(change[0]), change[1]
    contrast_last = "contrast" in steps and list(steps)[-1] == "contrast"
    if "brightness" in steps:
        image = image * np.float32(steps["brightness"])
    if "contrast" in steps and not contrast_last:
        image = image * np.float32(steps["contrast"])
    if "saturation" in steps or "hue" in steps:
        hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)  # hue in degrees
        hsv[..., 1] *= np.float32(steps.get("saturation", 1.0))
        if "hue" in steps:
            hsv[..., 0] += np.float32(360 * steps["hue"])
            hsv[..., 0][hsv[..., 0] > 360] -= 360
            hsv[..., 0][hsv[..., 0] < 0] += 360
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
    if contrast_last:
        image = image * np.float32(steps["contrast"])
    return image if order is None else image[..., [2 - channel for channel in reversed(order)]]  # numbers are of RGB
