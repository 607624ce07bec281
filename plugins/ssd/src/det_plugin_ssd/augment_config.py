"""Configurations of SSD's augmentation (Liu et al., SSD, 2016, section 2.2). Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from det_core.settings import configclass, setting
from det_core.slots import TransformConfig
from det_core.specs import PixelFormat

if TYPE_CHECKING:
    from det_core.contracts import Transform


def _check_range(ends: tuple[float, float]) -> str:
    """The problem of a range, or nothing."""
    return "" if ends[0] <= ends[1] else "the first value must be at most the second"


def _check_overlaps(overlaps: tuple[float, ...]) -> str:
    """The problem of a list of IoUs, or nothing. Without a value of 1, drawing might never end."""
    return (
        "" if any(overlap >= 1 for overlap in overlaps) else "one value must be 1 or more, which keeps the image whole"
    )


@configclass
class PhotometricDistortConfig(TransformConfig):
    """Random brightness, contrast, saturation, hue and channel order, each with a probability."""

    type: ClassVar[str] = "photometric_distort"

    brightness: tuple[float, float] = setting(
        "range of the factor", default=(0.875, 1.125), above=0, check=_check_range
    )
    contrast: tuple[float, float] = setting("range of the factor", default=(0.5, 1.5), above=0, check=_check_range)
    saturation: tuple[float, float] = setting("range of the factor", default=(0.5, 1.5), above=0, check=_check_range)
    hue: tuple[float, float] = setting(
        "range of the shift, as a fraction of the colour circle",
        default=(-0.05, 0.05),
        least=-0.5,
        most=0.5,
        check=_check_range,
    )
    probability: float = setting("probability of each change", default=0.5, least=0, most=1)

    def build(self) -> Transform:
        from det_plugin_ssd.augment import PhotometricDistort

        return PhotometricDistort(self)


@configclass
class ZoomOutConfig(TransformConfig):
    """Place the image at a random position on a larger canvas, which makes its objects smaller."""

    type: ClassVar[str] = "zoom_out"

    fill: tuple[float, float, float] = setting(
        "colour of the canvas, RGB 0..255; by default the ImageNet mean", default=(123.675, 116.28, 103.53)
    )
    sides: tuple[float, float] = setting(
        "range of the canvas sides, relative to the image", default=(1.0, 4.0), least=1, check=_check_range
    )
    probability: float = setting("probability of zooming out", default=0.5, least=0, most=1)

    def build(self) -> Transform:
        from det_plugin_ssd.augment import ZoomOut

        return ZoomOut(self)


@configclass
class IoUCropConfig(TransformConfig):
    """A random crop with at least a drawn IoU with an object. Objects with their centre outside are dropped."""

    type: ClassVar[str] = "iou_crop"

    overlaps: tuple[float, ...] = setting(
        "minimum IoUs to draw from; 1 or more leaves the image uncropped",
        default=(0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0),
        least=0,
        check=_check_overlaps,
    )
    sides: tuple[float, float] = setting(
        "range of the crop's sides, relative to the image", default=(0.3, 1.0), above=0, most=1, check=_check_range
    )
    aspects: tuple[float, float] = setting(
        "range of the crop's width over height", default=(0.5, 2.0), above=0, check=_check_range
    )
    tries: int = setting("attempts per drawn IoU", default=50, least=1)

    def refusal(self, pixels: PixelFormat) -> str:
        """Why it cannot transform images of a format, or ""."""
        return ""

    def build(self) -> Transform:
        from det_plugin_ssd.augment import IoUCrop

        return IoUCrop(self)
