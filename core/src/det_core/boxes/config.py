"""Configurations of the box toolkit. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from attrs import field, frozen, validators

from det_core.config.base import AnchorConfig, AssignerConfig, CoderConfig, SamplerConfig, doc

if TYPE_CHECKING:
    from det_core.boxes.anchors import GridAnchors
    from det_core.boxes.assign import MaxIoUAssigner
    from det_core.boxes.coder import DeltaCoder
    from det_core.boxes.sample import RandomSampler

FRACTION = [validators.ge(0.0), validators.le(1.0)]


@frozen(kw_only=True)
class GridAnchorsConfig(AnchorConfig):
    """Anchors of every scale and ratio at every cell; their size grows with the level's stride."""

    type: ClassVar[str] = "grid_anchors"

    scales: tuple[float, ...] = field(
        default=(8.0,),
        validator=[validators.min_len(1), validators.deep_iterable(validators.gt(0))],
        metadata=doc("side of an anchor of ratio 1, in strides"),
    )
    ratios: tuple[float, ...] = field(
        default=(0.5, 1.0, 2.0),
        validator=[validators.min_len(1), validators.deep_iterable(validators.gt(0))],
        metadata=doc("height over width"),
    )
    whole_sides: bool = field(
        default=False, metadata=doc("the side of a scale is cut to whole pixels before ratios apply (torchvision)")
    )
    rounded: bool = field(default=False, metadata=doc("corners of an anchor around its centre are whole pixels"))
    spacing: Literal["stride", "image"] = field(
        default="stride",
        validator=validators.in_(("stride", "image")),
        metadata=doc(
            "pixels between cells: the level's stride, or the padded image's side over the cells, rounded down "
            "(differs on levels whose stride does not divide the side)"
        ),
    )

    def anchors_per_cell(self) -> int:
        return len(self.scales) * len(self.ratios)

    def build(self, strides: tuple[int, ...]) -> GridAnchors:
        from det_core.boxes.anchors import GridAnchors

        return GridAnchors(self, strides)


@frozen(kw_only=True)
class DeltaCoderConfig(CoderConfig):
    """Boxes as shifts and log-scales relative to an anchor (Girshick et al., R-CNN, 2014, appendix C)."""

    type: ClassVar[str] = "delta"

    means: tuple[float, float, float, float] = field(default=(0.0,) * 4, metadata=doc("subtracted from dx dy dw dh"))
    stds: tuple[float, float, float, float] = field(
        default=(1.0,) * 4, validator=validators.deep_iterable(validators.gt(0)), metadata=doc("divided by")
    )
    max_ratio: float = field(
        default=16 / 1000,
        validator=[validators.gt(0.0), validators.lt(1.0)],
        metadata=doc("decoding clips dw and dh to +-|log(max_ratio)|"),
    )
    clip_shrinking: bool = field(
        default=True, metadata=doc("clip dw and dh on both sides; false clips only what makes a box larger")
    )

    def build(self) -> DeltaCoder:
        from det_core.boxes.coder import DeltaCoder

        return DeltaCoder(self)


@frozen(kw_only=True)
class MaxIoUAssignerConfig(AssignerConfig):
    """A box stands for the object it overlaps most, if it overlaps it enough."""

    type: ClassVar[str] = "max_iou"

    positive: float = field(default=0.5, validator=FRACTION, metadata=doc("IoU from which a box is an object"))
    negative: float = field(default=0.5, validator=FRACTION, metadata=doc("IoU below which it is background"))
    low_quality: bool = field(
        default=False, metadata=doc("every object also takes the boxes that overlap it most, if by min_positive")
    )
    min_positive: float = field(default=0.5, validator=FRACTION, metadata=doc("least IoU of a low-quality match"))
    all_ties: bool = field(default=True, metadata=doc("a low-quality match takes every box tying the best IoU"))

    def __attrs_post_init__(self) -> None:
        if self.negative > self.positive:
            raise ValueError(f"negative ({self.negative}) must not be above positive ({self.positive})")

    def build(self) -> MaxIoUAssigner:
        from det_core.boxes.assign import MaxIoUAssigner

        return MaxIoUAssigner(self)


@frozen(kw_only=True)
class RandomSamplerConfig(SamplerConfig):
    """A fixed number of candidates, at most a share of them positive, drawn without replacement."""

    type: ClassVar[str] = "random"

    count: int = field(default=256, validator=validators.ge(1), metadata=doc("candidates per image"))
    positive_fraction: float = field(default=0.5, validator=FRACTION, metadata=doc("at most this share is positive"))

    def build(self) -> RandomSampler:
        from det_core.boxes.sample import RandomSampler

        return RandomSampler(self)
