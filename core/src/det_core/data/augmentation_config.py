"""Configurations of stronger augmentation: scale jitter, crops, affine maps, images mixed of several. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from det_core.conventions import ANY
from det_core.data.pixel_rules import resize_refusal
from det_core.settings import check_range, configclass, setting
from det_core.slots import TransformConfig
from det_core.specs import PixelFormat

if TYPE_CHECKING:
    from det_core.contracts import Transform


@configclass
class ScaleJitterConfig(TransformConfig):
    """Resize by a random factor, with the aspect ratio kept: large-scale jitter (Ghiasi et al., 2021, section 3).

    The factor is min(height / h, width / w) times a number drawn from `factors`, where (height, width) is `size` and
    (h, w) that of the image. Factors from 0.1 to 2 are large-scale jitter, from 0.8 to 1.25 standard scale jitter.
    Masks and semantic maps are resized by nearest pixel.
    """

    type: ClassVar[str] = "scale_jitter"

    size: tuple[int, int] = setting("(height, width) in pixels that a factor of 1 fits", default=(1024, 1024), least=1)
    factors: tuple[float, float] = setting(
        "range of the factor on that scale", default=(0.1, 2.0), above=0, check=check_range
    )
    rounding: Literal["nearest", "down"] = setting(
        "rounding of a new side; torchvision rounds down", default="nearest", conventions={"torchvision": "down"}
    )
    arithmetic: Literal["fixed_point", "float", "antialiased"] = setting(
        "as of `resize`; detectron2 and torchvision train with antialiased",
        default="fixed_point",
        conventions={"torchvision": ANY, "detectron2": "antialiased"},
    )

    def refusal(self, pixels: PixelFormat) -> str:
        """Why it cannot transform images of a format, or ""."""
        return resize_refusal(self.arithmetic, pixels)

    def build(self) -> Transform:
        from det_core.data.scale_jitter import ScaleJitter

        return ScaleJitter(self)


@configclass
class FixedSizeCropConfig(TransformConfig):
    """A crop of a fixed size at a random place; where the image is smaller, it is padded at its right and bottom.

    Masks are padded with 0, and semantic maps with the ignored id.
    """

    type: ClassVar[str] = "fixed_size_crop"

    size: tuple[int, int] = setting("(height, width) of the result in pixels", default=(1024, 1024), least=1)
    fill: tuple[float, float, float] = setting(
        "colour of the padding, RGB 0..255; by default the ImageNet mean",
        default=(123.675, 116.28, 103.53),
        least=0,
        most=255,
    )
    boxes: Literal["clipped", "masks"] = setting(
        "boxes of objects that the crop cuts; clipped: their part in the crop (torchvision); masks: recomputed from "
        "what is left of their masks (detectron2), which the data must have",
        default="clipped",
    )

    def needs_masks(self) -> bool:
        return self.boxes == "masks"

    def build(self) -> Transform:
        from det_core.data.scale_jitter import FixedSizeCrop

        return FixedSizeCrop(self)


@configclass
class CopyPasteConfig(TransformConfig):
    """Paste objects of another training image, with their masks (Ghiasi et al., Simple Copy-Paste, 2021, section 3).

    The other image is a random one of the data set. It is transformed by the transforms that precede this one, with
    random numbers of its own. The data must have instance masks, even if the detector predicts only boxes.
    """

    type: ClassVar[str] = "copy_paste"

    probability: float = setting("probability of pasting", default=1.0, least=0, most=1)
    max_objects: int = setting(
        "maximum objects pasted; their number is drawn from 0 to this, or to the number of objects if there are fewer",
        default=100,
        least=1,
    )
    min_visible: float = setting(
        "drop objects of which less than this fraction of their pixels is left; 0: only those covered completely, as "
        "in the paper",
        default=0.1,
        least=0,
        most=1,
    )
    blur: float = setting(
        "standard deviation in pixels of the Gaussian that blends the borders of what is pasted; 0: no blending",
        default=0.0,
        least=0,
        most=100,
    )

    def needs_masks(self) -> bool:
        return True

    def mixes(self) -> bool:
        return True

    def refusal(self, pixels: PixelFormat) -> str:
        """Why it cannot transform images of a format, or ""."""
        return "" if pixels.bits == 8 else "takes only 8-bit images"

    def build(self) -> Transform:
        from det_core.data.copy_paste import CopyPaste

        return CopyPaste(self)


GRAY = (114.0, 114.0, 114.0)  # the padding of YOLO's training
MIN_VISIBLE = (
    "drop objects of which less than this fraction is left (of their pixels if there are masks, or of the box)"
)


@configclass
class RandomCropConfig(TransformConfig):
    """A crop of random size at a random place. Boxes are those of what is left of the masks, if there are masks."""

    type: ClassVar[str] = "random_crop"

    sides: tuple[float, float] = setting(
        "range of the part of each side that is kept; drawn for both sides alone",
        default=(0.5, 1.0),
        above=0,
        most=1,
        check=check_range,
    )
    min_visible: float = setting(MIN_VISIBLE, default=0.1, least=0, most=1)
    probability: float = setting("probability of cropping", default=1.0, least=0, most=1)

    def refusal(self, pixels: PixelFormat) -> str:
        """Why it cannot transform images of a format, or ""."""
        return ""

    def build(self) -> Transform:
        from det_core.data.random_crop import RandomCrop

        return RandomCrop(self)


@configclass
class AffineConfig(TransformConfig):
    """Turn, shift, scale and shear the image about its centre; the size stays.

    Masks and semantic maps follow by nearest pixel. Boxes are those of the masks; without masks, they surround the
    corners of the boxes, which is more than the object where the image is turned.
    """

    type: ClassVar[str] = "affine"

    degrees: float = setting("draw an angle from -x .. x", default=10.0, least=0, most=180)
    translate: float = setting("draw shifts from -x .. x of width and height", default=0.1, least=0, most=1)
    scale: tuple[float, float] = setting(
        "range of the factor of the size", default=(0.8, 1.25), above=0, check=check_range
    )
    shear: float = setting("draw the shear of both axes from -x .. x degrees", default=0.0, least=0, below=60)
    fill: tuple[float, float, float] = setting(
        "colour outside of the image, RGB 0..255", default=GRAY, least=0, most=255
    )
    min_visible: float = setting(MIN_VISIBLE, default=0.1, least=0, most=1)
    probability: float = setting("probability of applying the transform", default=0.5, least=0, most=1)

    def build(self) -> Transform:
        from det_core.data.affine import Affine

        return Affine(self)


@configclass
class MosaicConfig(TransformConfig):
    """Four images around a random point (Bochkovskiy et al., YOLOv4, 2020, section 3.4).

    The others are random ones of the data set. All are transformed by the transforms that precede this one, each with
    random numbers of its own, and keep their sizes: each has a corner at the point, and what does not fit is cut.
    """

    type: ClassVar[str] = "mosaic"

    size: tuple[int, int] = setting("(height, width) of the result in pixels", default=(640, 640), least=2)
    centre: tuple[float, float] = setting(
        "range of the point, as a part of both sides", default=(0.25, 0.75), above=0, below=1, check=check_range
    )
    fill: tuple[float, float, float] = setting(
        "colour where no image reaches, RGB 0..255", default=GRAY, least=0, most=255
    )
    min_visible: float = setting(MIN_VISIBLE, default=0.1, least=0, most=1)
    probability: float = setting("probability of applying the transform", default=1.0, least=0, most=1)

    def mixes(self) -> bool:
        return True

    def build(self) -> Transform:
        from det_core.data.mixed_images import Mosaic

        return Mosaic(self)


@configclass
class MixUpConfig(TransformConfig):
    """A weighted mean of the image and another one, with the objects of both (Zhang et al., 2019, section 3.1).

    The other is a random one of the data set, transformed by the transforms that precede this one. Both keep their
    sizes, and share the top-left corner. Unlike in the paper, the losses of objects are not weighted. The semantic map
    is that of the image with the larger weight, and of the other where that has no pixels.
    """

    type: ClassVar[str] = "mix_up"

    alpha: float = setting("both parameters of the Beta distribution of the weight", default=1.5, above=0)
    fill: tuple[float, float, float] = setting(
        "colour where an image has no pixels, RGB 0..255", default=GRAY, least=0, most=255
    )
    probability: float = setting("probability of applying the transform", default=0.5, least=0, most=1)

    def mixes(self) -> bool:
        return True

    def build(self) -> Transform:
        from det_core.data.mixed_images import MixUp

        return MixUp(self)
