"""Configurations of the box toolkit. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from det_core.conventions import ANY, of_detectron
from det_core.settings import configclass, setting
from det_core.slots import AnchorConfig, AssignerConfig, CoderConfig, SamplerConfig

if TYPE_CHECKING:
    from det_core.boxes.anchors import GridAnchors
    from det_core.boxes.assigners import MaxIoUAssigner
    from det_core.boxes.coders import DeltaCoder
    from det_core.boxes.samplers import AllSampler, RandomSampler


AnchorRule = Literal["corner", "mmdet1"]
ANCHOR_RULE = (
    "corner: around the corner of the cell's first pixel; mmdet1: around the middle of the cell's pixels, rounded to "
    "whole pixels, half to even (mmdet 0.x and 1.x)"
)


@configclass
class GridAnchorsConfig(AnchorConfig):
    """Anchors of every scale and ratio at every cell.

    Their size is proportional to the level's stride, or with `sides` the same on all levels.
    """

    type: ClassVar[str] = "grid_anchors"

    scales: tuple[float, ...] = setting(
        "side of an anchor of ratio 1, in strides", default=(8.0,), min_items=1, above=0
    )
    sides: tuple[float, ...] | None = setting(
        "side in pixels of an anchor of ratio 1, on every level, in place of `scales` (null: `scales`)",
        default=None,
        min_items=1,
        above=0,
    )
    ratios: tuple[float, ...] = setting("height over width", default=(0.5, 1.0, 2.0), min_items=1, above=0)
    whole_sides: bool = setting(
        "truncate the side of a scale to whole pixels before ratios apply (torchvision)",
        default=False,
        conventions={"torchvision": ANY},  # RetinaNet's; an RPN's sides are whole
    )
    rounded: bool = setting(
        "round an anchor's corners, relative to its centre, to whole pixels",
        default=False,
        conventions={"torchvision": True},
    )
    rule: Literal["corner", "mmdet1", "detectron"] = setting(
        f"{ANCHOR_RULE}; detectron: likewise, but sides at the stride's scale are whole, and corners are not rounded "
        "(Detectron and maskrcnn-benchmark)",
        default="corner",
        conventions={"mmdet1": "mmdet1", **of_detectron("detectron")},
    )
    spacing: Literal["stride", "image"] = setting(
        "pixels between cells; stride: the level's stride; image: the padded image's side divided by the number of "
        "cells, rounded down (differs if the stride does not divide the side)",
        default="stride",
        conventions={"torchvision": "image"},
    )

    def __attrs_post_init__(self) -> None:
        if self.rule != "corner" and (self.rounded or self.whole_sides):
            raise ValueError(f"rule: {self.rule} rounds in its own way, so rounded and whole_sides must be false")

    def anchors_per_cell(self) -> int:
        return self.sizes() * len(self.ratios)

    def sizes(self) -> int:
        """Number of anchors of one ratio at every cell."""
        return len(self.scales if self.sides is None else self.sides)

    def build(self, strides: tuple[int, ...]) -> GridAnchors:
        from det_core.boxes.anchors import GridAnchors

        return GridAnchors(self, strides)


@configclass
class DeltaCoderConfig(CoderConfig):
    """Boxes as shifts and log-scales relative to an anchor (Girshick et al., R-CNN, 2014, appendix C)."""

    type: ClassVar[str] = "delta"

    means: tuple[float, float, float, float] = setting("means to subtract from dx dy dw dh", default=(0.0,) * 4)
    stds: tuple[float, float, float, float] = setting(
        "standard deviations to divide dx dy dw dh by", default=(1.0,) * 4, above=0
    )
    max_ratio: float = setting("decoding clips dw and dh to +-|log(max_ratio)|", default=16 / 1000, above=0, below=1)
    clip_shrinking: bool = setting(
        "clip dw and dh on both sides; false: only from above",
        default=True,
        conventions={"torchvision": False, "detectron2": False, **of_detectron(False)},
    )
    border: Literal["edge", "pixel"] = setting(
        "boxes are clipped to the image; edge: corners to 0..side; pixel: low corners to 0..side-1 and high ones to "
        "1..side, so that a pixel remains (mmdet 0.x and 1.x, Detectron, maskrcnn-benchmark)",
        default="edge",
        conventions={"mmdet1": "pixel", **of_detectron("pixel")},
    )

    def build(self) -> DeltaCoder:
        from det_core.boxes.coders import DeltaCoder

        return DeltaCoder(self)


@configclass
class MaxIoUAssignerConfig(AssignerConfig):
    """Assigns a box to the object with the highest IoU, if it is high enough."""

    type: ClassVar[str] = "max_iou"

    positive: float = setting("minimum IoU of a positive box", default=0.5, least=0, most=1)
    negative: float = setting("IoU below which a box is background", default=0.5, least=0, most=1)
    low_quality: bool = setting(
        "also assign to each object the boxes with the highest IoU, if at least min_positive", default=False
    )
    min_positive: float = setting("minimum IoU of a low-quality match", default=0.5, least=0, most=1)
    all_ties: bool = setting("a low-quality match includes every box with the highest IoU", default=True)
    low_quality_object: Literal["its", "nearest"] = setting(
        "the object of a low-quality match; its: the one whose best box it is, the last of several; nearest: the one "
        "that the box overlaps most (detectron2; torchvision, except in SSD)",
        default="its",
        conventions={
            "detectron2": "nearest",
            **of_detectron("nearest"),
            "torchvision": ANY,
        },
    )

    def __attrs_post_init__(self) -> None:
        if self.negative > self.positive:
            raise ValueError(f"negative ({self.negative}) must not be above positive ({self.positive})")

    def build(self) -> MaxIoUAssigner:
        from det_core.boxes.assigners import MaxIoUAssigner

        return MaxIoUAssigner(self)


@configclass
class AllSamplerConfig(SamplerConfig):
    """Takes every candidate that is positive or negative."""

    type: ClassVar[str] = "all"

    def build(self) -> AllSampler:
        from det_core.boxes.samplers import AllSampler

        return AllSampler()


@configclass
class RandomSamplerConfig(SamplerConfig):
    """Samples a fixed number of candidates without replacement, with a maximum fraction of positives."""

    type: ClassVar[str] = "random"

    count: int = setting("candidates per image", default=256, least=1)
    positive_fraction: float = setting("maximum fraction of positives", default=0.5, least=0, most=1)

    def build(self) -> RandomSampler:
        from det_core.boxes.samplers import RandomSampler

        return RandomSampler(self)
