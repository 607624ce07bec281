"""Configurations of SSD's augmentation (Liu et al., SSD, 2016, section 2.2). Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from det_core.settings import configclass, setting
from det_core.slots import TransformConfig

if TYPE_CHECKING:
    from det_core.contracts import Transform


def _rising(ends: tuple[float, float]) -> str:
    """What is wrong with a range."""
    return "" if ends[0] <= ends[1] else "the first must not be above the second: (least, most)"


def _ends(overlaps: tuple[float, ...]) -> str:
    """What is wrong with the IoUs to draw from: without 1, no crop may fit some images, and drawing would not end."""
    return (
        "" if any(overlap >= 1 for overlap in overlaps) else "one value must be 1 or more, which keeps the image whole"
    )


@configclass
class PhotometricDistortConfig(TransformConfig):
    """Brightness, contrast, saturation, hue and the order of channels, each changed with a probability."""

    type: ClassVar[str] = "photometric_distort"

    brightness: tuple[float, float] = setting("factor", default=(0.875, 1.125), above=0, check=_rising)
    contrast: tuple[float, float] = setting("factor", default=(0.5, 1.5), above=0, check=_rising)
    saturation: tuple[float, float] = setting("factor", default=(0.5, 1.5), above=0, check=_rising)
    hue: tuple[float, float] = setting(
        "shift, of the colour circle", default=(-0.05, 0.05), least=-0.5, most=0.5, check=_rising
    )
    probability: float = setting("of each of the changes", default=0.5, least=0, most=1)

    def build(self) -> Transform:
        from det_plugin_ssd.augment import photometric_distort

        return photometric_distort(self)


@configclass
class ZoomOutConfig(TransformConfig):
    """The image somewhere on a larger canvas, so that its objects become small."""

    type: ClassVar[str] = "zoom_out"

    fill: tuple[float, float, float] = setting(
        "colour of the canvas, RGB 0..255: the mean", default=(123.675, 116.28, 103.53)
    )
    sides: tuple[float, float] = setting(
        "of the canvas over those of the image", default=(1.0, 4.0), least=1, check=_rising
    )
    probability: float = setting("of zooming out", default=0.5, least=0, most=1)

    def build(self) -> Transform:
        from det_plugin_ssd.augment import zoom_out

        return zoom_out(self)


@configclass
class IoUCropConfig(TransformConfig):
    """A crop that overlaps objects by a drawn IoU; objects whose centre is outside of it go."""

    type: ClassVar[str] = "iou_crop"

    overlaps: tuple[float, ...] = setting(
        "least IoU that is drawn; 1 and more keeps the image whole",
        default=(0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0),
        least=0,
        check=_ends,
    )
    sides: tuple[float, float] = setting(
        "of the crop over those of the image", default=(0.3, 1.0), above=0, most=1, check=_rising
    )
    aspects: tuple[float, float] = setting("width over height of the crop", default=(0.5, 2.0), above=0, check=_rising)
    tries: int = setting("for an IoU, before another is drawn", default=50, least=1)

    def build(self) -> Transform:
        from det_plugin_ssd.augment import IoUCrop

        return IoUCrop(self)
