"""Configurations of SSD's augmentation (Liu et al., SSD, 2016, section 2.2). Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from attrs import field, frozen, validators

from det_core.config.base import TransformConfig, doc

if TYPE_CHECKING:
    from det_core.data.transforms import Transform

PROBABILITY = [validators.ge(0.0), validators.le(1.0)]
POSITIVE = validators.gt(0.0)


def _rising(instance: object, attribute: object, value: tuple[float, float]) -> None:
    if value[0] > value[1]:
        raise ValueError(f"{getattr(attribute, 'name', '')!r} must be (least, most), got {list(value)}")


def _ends(instance: object, attribute: object, value: tuple[float, ...]) -> None:
    if not any(overlap >= 1 for overlap in value):
        raise ValueError(
            f"'overlaps' must have a value of 1 or more, which keeps the image whole: without it no crop may fit some "
            f"images, and drawing would not end; got {list(value)}"
        )


@frozen(kw_only=True)
class PhotometricDistortConfig(TransformConfig):
    """Brightness, contrast, saturation, hue and the order of channels, each changed with a probability."""

    type: ClassVar[str] = "photometric_distort"

    brightness: tuple[float, float] = field(
        default=(0.875, 1.125), validator=[validators.deep_iterable(POSITIVE), _rising], metadata=doc("factor")
    )
    contrast: tuple[float, float] = field(
        default=(0.5, 1.5), validator=[validators.deep_iterable(POSITIVE), _rising], metadata=doc("factor")
    )
    saturation: tuple[float, float] = field(
        default=(0.5, 1.5), validator=[validators.deep_iterable(POSITIVE), _rising], metadata=doc("factor")
    )
    hue: tuple[float, float] = field(
        default=(-0.05, 0.05),
        validator=[validators.deep_iterable([validators.ge(-0.5), validators.le(0.5)]), _rising],
        metadata=doc("shift, of the colour circle"),
    )
    probability: float = field(default=0.5, validator=PROBABILITY, metadata=doc("of each of the changes"))

    def build(self) -> Transform:
        from det_plugin_ssd.augment import photometric_distort

        return photometric_distort(self)


@frozen(kw_only=True)
class ZoomOutConfig(TransformConfig):
    """The image somewhere on a larger canvas, so that its objects become small."""

    type: ClassVar[str] = "zoom_out"

    fill: tuple[float, float, float] = field(
        default=(123.675, 116.28, 103.53), metadata=doc("colour of the canvas, RGB 0..255: the mean")
    )
    sides: tuple[float, float] = field(
        default=(1.0, 4.0),
        validator=[validators.deep_iterable(validators.ge(1.0)), _rising],
        metadata=doc("of the canvas over those of the image"),
    )
    probability: float = field(default=0.5, validator=PROBABILITY, metadata=doc("of zooming out"))

    def build(self) -> Transform:
        from det_plugin_ssd.augment import zoom_out

        return zoom_out(self)


@frozen(kw_only=True)
class IoUCropConfig(TransformConfig):
    """A crop that overlaps objects by a drawn IoU; objects whose centre is outside of it go."""

    type: ClassVar[str] = "iou_crop"

    overlaps: tuple[float, ...] = field(
        default=(0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0),
        validator=[validators.deep_iterable(validators.ge(0.0)), _ends],
        metadata=doc("least IoU that is drawn; 1 and more keeps the image whole"),
    )
    sides: tuple[float, float] = field(
        default=(0.3, 1.0),
        validator=[validators.deep_iterable([POSITIVE, validators.le(1.0)]), _rising],
        metadata=doc("of the crop over those of the image"),
    )
    aspects: tuple[float, float] = field(
        default=(0.5, 2.0),
        validator=[validators.deep_iterable(POSITIVE), _rising],
        metadata=doc("width over height of the crop"),
    )
    tries: int = field(default=50, validator=validators.ge(1), metadata=doc("for an IoU, before another is drawn"))

    def build(self) -> Transform:
        from det_plugin_ssd.augment import IoUCrop

        return IoUCrop(self)
