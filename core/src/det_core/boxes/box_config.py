"""Configurations of the box toolkit. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from det_core.settings import configclass, setting
from det_core.slots import AnchorConfig, AssignerConfig, CoderConfig, SamplerConfig

if TYPE_CHECKING:
    from det_core.boxes.anchors import GridAnchors
    from det_core.boxes.assigners import MaxIoUAssigner
    from det_core.boxes.coders import DeltaCoder
    from det_core.boxes.samplers import RandomSampler


@configclass
class GridAnchorsConfig(AnchorConfig):
    """Anchors of every scale and ratio at every cell; their size grows with the level's stride."""

    type: ClassVar[str] = "grid_anchors"

    scales: tuple[float, ...] = setting(
        "side of an anchor of ratio 1, in strides", default=(8.0,), min_items=1, above=0
    )
    ratios: tuple[float, ...] = setting("height over width", default=(0.5, 1.0, 2.0), min_items=1, above=0)
    whole_sides: bool = setting(
        "the side of a scale is cut to whole pixels before ratios apply (torchvision)", default=False
    )
    rounded: bool = setting("corners of an anchor around its centre are whole pixels", default=False)
    spacing: Literal["stride", "image"] = setting(
        "pixels between cells: the level's stride, or the padded image's side over the cells, rounded down "
        "(differs on levels whose stride does not divide the side)",
        default="stride",
    )

    def anchors_per_cell(self) -> int:
        return len(self.scales) * len(self.ratios)

    def build(self, strides: tuple[int, ...]) -> GridAnchors:
        from det_core.boxes.anchors import GridAnchors

        return GridAnchors(self, strides)


@configclass
class DeltaCoderConfig(CoderConfig):
    """Boxes as shifts and log-scales relative to an anchor (Girshick et al., R-CNN, 2014, appendix C)."""

    type: ClassVar[str] = "delta"

    means: tuple[float, float, float, float] = setting("subtracted from dx dy dw dh", default=(0.0,) * 4)
    stds: tuple[float, float, float, float] = setting("divided by", default=(1.0,) * 4, above=0)
    max_ratio: float = setting("decoding clips dw and dh to +-|log(max_ratio)|", default=16 / 1000, above=0, below=1)
    clip_shrinking: bool = setting(
        "clip dw and dh on both sides; false clips only what makes a box larger", default=True
    )

    def build(self) -> DeltaCoder:
        from det_core.boxes.coders import DeltaCoder

        return DeltaCoder(self)


@configclass
class MaxIoUAssignerConfig(AssignerConfig):
    """A box stands for the object it overlaps most, if it overlaps it enough."""

    type: ClassVar[str] = "max_iou"

    positive: float = setting("IoU from which a box is an object", default=0.5, least=0, most=1)
    negative: float = setting("IoU below which it is background", default=0.5, least=0, most=1)
    low_quality: bool = setting(
        "every object also takes the boxes that overlap it most, if by min_positive", default=False
    )
    min_positive: float = setting("least IoU of a low-quality match", default=0.5, least=0, most=1)
    all_ties: bool = setting("a low-quality match takes every box tying the best IoU", default=True)

    def __attrs_post_init__(self) -> None:
        if self.negative > self.positive:
            raise ValueError(f"negative ({self.negative}) must not be above positive ({self.positive})")

    def build(self) -> MaxIoUAssigner:
        from det_core.boxes.assigners import MaxIoUAssigner

        return MaxIoUAssigner(self)


@configclass
class RandomSamplerConfig(SamplerConfig):
    """A fixed number of candidates, at most a share of them positive, drawn without replacement."""

    type: ClassVar[str] = "random"

    count: int = setting("candidates per image", default=256, least=1)
    positive_fraction: float = setting("at most this share is positive", default=0.5, least=0, most=1)

    def build(self) -> RandomSampler:
        from det_core.boxes.samplers import RandomSampler

        return RandomSampler(self)
