"""Configurations of stronger augmentation: scale jitter, crops of a fixed size, copy-paste. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from det_core.conventions import ANY
from det_core.settings import configclass, setting
from det_core.slots import TransformConfig

if TYPE_CHECKING:
    from det_core.contracts import Transform


def _check_range(ends: tuple[float, float]) -> str:
    """The problem of a range, or nothing."""
    return "" if ends[0] <= ends[1] else "the first value must be at most the second"


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
        "range of the factor on that scale", default=(0.1, 2.0), above=0, check=_check_range
    )
    rounding: Literal["nearest", "down"] = setting(
        "rounding of a new side; torchvision rounds down", default="nearest", conventions={"torchvision": "down"}
    )
    arithmetic: Literal["fixed_point", "float", "antialiased"] = setting(
        "as of `resize`; detectron2 and torchvision train with antialiased",
        default="fixed_point",
        conventions={"torchvision": ANY, "detectron2": "antialiased"},
    )

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

    def build(self) -> Transform:
        from det_core.data.copy_paste import CopyPaste

        return CopyPaste(self)
