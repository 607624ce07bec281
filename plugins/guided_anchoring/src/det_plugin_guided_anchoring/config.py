"""Configurations of guided anchors and of the heads that work with them. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from attrs import evolve, field, frozen, validators

from det_core.boxes.config import DeltaCoderConfig, GridAnchorsConfig, MaxIoUAssignerConfig, RandomSamplerConfig
from det_core.config.base import (
    AssignerConfig,
    CoderConfig,
    ConfigError,
    ConvConfig,
    FeatureSpec,
    LossConfig,
    NormConfig,
    ProposalHeadConfig,
    ProposalLimits,
    SamplerConfig,
    doc,
)
from det_core.model.dense_config import FRACTION, DetectingHeadConfig
from det_core.model.layer_config import Conv2dConfig
from det_core.model.loss_config import BinaryCrossEntropyConfig, BoundedIoUConfig, FocalConfig, SmoothL1Config

if TYPE_CHECKING:
    from det_plugin_guided_anchoring.retinanet import GARetinaNetHead
    from det_plugin_guided_anchoring.rpn import GARPN

POSITIVE = validators.gt(0.0)
AT_LEAST_1 = validators.ge(1)
PROBABILITY = [validators.gt(0.0), validators.lt(1.0)]

# Predicted sides may be a million times those of a square, so that clipping decides nothing.
ANCHOR_CODER = DeltaCoderConfig(stds=(0.07, 0.07, 0.14, 0.14), max_ratio=1e-6)
FEW = ProposalLimits(before_nms=2000, after_nms=300)  # fewer than an RPN's: they are better


@frozen(kw_only=True)
class GuidedAnchorsConfig:
    """Where anchors are and how large (Wang et al., Guided Anchoring, 2019, section 3), as GA-RPN has it."""

    base_scale: float = field(
        default=8.0, validator=POSITIVE, metadata=doc("side, in strides, of the square that an anchor begins as")
    )
    scales_per_octave: int = field(
        default=3, validator=AT_LEAST_1, metadata=doc("sizes of the approximate anchors, base_scale and larger")
    )
    ratios: tuple[float, ...] = field(
        default=(0.5, 1.0, 2.0),
        validator=[validators.min_len(1), validators.deep_iterable(POSITIVE)],
        metadata=doc("height over width of the approximate anchors"),
    )
    coder: CoderConfig = field(default=ANCHOR_CODER, metadata=doc("predicted shapes to anchors"))
    offset_groups: int = field(
        default=4, validator=AT_LEAST_1, metadata=doc("groups of channels that the adaption moves on their own")
    )
    location_prior: float = field(
        default=0.01, validator=PROBABILITY, metadata=doc("location score that a fresh head gives every cell")
    )
    location_threshold: float = field(
        default=0.01, validator=FRACTION, metadata=doc("location score from which a cell has an anchor at test")
    )
    location_labels: Literal["centre", "inverted"] = field(
        default="centre",
        validator=validators.in_(("centre", "inverted")),
        metadata=doc("what the location loss learns as 1: centres of objects, or (mmdet 2.x and 3.x) all else"),
    )
    centre_ratio: float = field(
        default=0.2, validator=FRACTION, metadata=doc("share of an object's sides around its centre that is positive")
    )
    ignore_ratio: float = field(
        default=0.5, validator=FRACTION, metadata=doc("share of them up to which cells are not negative")
    )
    negative_weight: float = field(
        default=0.1, validator=validators.ge(0.0), metadata=doc("of a negative cell in the location loss")
    )
    location_cells: int = field(
        default=200,
        validator=AT_LEAST_1,
        metadata=doc("the location loss is divided by the cells of a batch over this"),
    )
    location_loss: FocalConfig = field(default=FocalConfig(), metadata=doc("cells with an anchor or without"))
    shape_assigner: MaxIoUAssignerConfig = field(
        default=MaxIoUAssignerConfig(positive=0.7, negative=0.3, low_quality=True, min_positive=0.3),
        metadata=doc("which cells' shapes learn from an object, by the best of a cell's approximate anchors"),
    )
    shape_sampler: SamplerConfig = field(
        default=RandomSamplerConfig(count=256, positive_fraction=0.5), metadata=doc("which of them")
    )
    shape_loss: LossConfig = field(default=BoundedIoUConfig(), metadata=doc("anchors against their objects"))
    allowed_border: int = field(
        default=-1,
        validator=validators.ge(-1),
        metadata=doc(
            "cells train where an approximate anchor reaches at most this many pixels out of the image; -1 = all do"
        ),
    )

    def __attrs_post_init__(self) -> None:
        if self.centre_ratio > self.ignore_ratio:
            raise ConfigError.at(
                "centre_ratio",
                f"found {self.centre_ratio}, which must not be above ignore_ratio ({self.ignore_ratio}): the cells "
                "between them are neither positive nor negative",
            )

    def squares(self) -> GridAnchorsConfig:
        """One square per cell: what predicted shapes are relative to."""
        return GridAnchorsConfig(scales=(self.base_scale,), ratios=(1.0,))

    def approximate(self) -> GridAnchorsConfig:
        """The anchors of every cell that stand for all shapes it may predict."""
        octave = (self.base_scale * 2 ** (i / self.scales_per_octave) for i in range(self.scales_per_octave))
        return GridAnchorsConfig(scales=tuple(octave), ratios=self.ratios)

    def check(self, channels: int) -> None:
        """ConfigError if features of so many channels cannot be adapted."""
        if channels % self.offset_groups:
            raise ConfigError.at(
                "guided.offset_groups",
                f"{self.offset_groups} groups do not divide {channels} channels; choose a divisor of {channels}",
            )


@frozen(kw_only=True)
class RetinaNetGuidedAnchorsConfig(GuidedAnchorsConfig):
    """Where anchors are and how large, as GA-RetinaNet has it."""

    base_scale: float = field(
        default=4.0, validator=POSITIVE, metadata=doc("side, in strides, of the square that an anchor begins as")
    )
    coder: CoderConfig = field(
        default=evolve(ANCHOR_CODER, stds=(1.0,) * 4), metadata=doc("predicted shapes to anchors")
    )
    shape_assigner: MaxIoUAssignerConfig = field(
        default=MaxIoUAssignerConfig(positive=0.5, negative=0.4, low_quality=True, min_positive=0.4),
        metadata=doc("which cells' shapes learn from an object, by the best of a cell's approximate anchors"),
    )


@frozen(kw_only=True)
class GARPNConfig(ProposalHeadConfig):
    """Region proposals from guided anchors, one per cell (Wang et al., 2019, section 3.5)."""

    type: ClassVar[str] = "ga_rpn"

    channels: int = field(default=256, validator=AT_LEAST_1, metadata=doc("of the shared 3x3 convolution"))
    train_limits: ProposalLimits = field(default=FEW, metadata=doc("proposals that a RoI head trains on"))
    test_limits: ProposalLimits = field(default=FEW, metadata=doc("proposals at test time"))
    guided: GuidedAnchorsConfig = field(default=GuidedAnchorsConfig(), metadata=doc("where anchors are, how large"))
    coder: CoderConfig = field(
        default=DeltaCoderConfig(stds=(0.07, 0.07, 0.11, 0.11)), metadata=doc("box regression targets")
    )
    assigner: AssignerConfig = field(
        default=MaxIoUAssignerConfig(positive=0.7, negative=0.3, low_quality=True, min_positive=0.3),
        metadata=doc("which guided anchors stand for objects"),
    )
    sampler: SamplerConfig = field(
        default=RandomSamplerConfig(count=256, positive_fraction=0.5), metadata=doc("which of them the losses look at")
    )
    cls_loss: LossConfig = field(default=BinaryCrossEntropyConfig(), metadata=doc("object or not"))
    box_loss: LossConfig = field(default=SmoothL1Config(beta=1.0), metadata=doc("box regression"))
    nms_threshold: float = field(default=0.7, validator=FRACTION, metadata=doc("IoU above which a proposal goes"))
    min_size: float = field(
        default=0.0,
        validator=validators.ge(0.0),
        metadata=doc("a proposal whose width or height is not above this goes"),
    )
    conv: ConvConfig = field(default=Conv2dConfig(), metadata=doc("the shared convolution"))

    def check(self, features: FeatureSpec) -> None:
        features.same_channels(f"dense_head {self.type!r}")
        self.guided.check(self.channels)

    def build(self, features: FeatureSpec, num_classes: int) -> GARPN:
        from det_plugin_guided_anchoring.rpn import GARPN

        return GARPN(self, features)


@frozen(kw_only=True)
class GARetinaNetHeadConfig(DetectingHeadConfig):
    """RetinaNet's head with one guided anchor per cell (Wang et al., 2019, section 4.1)."""

    type: ClassVar[str] = "ga_retinanet"

    channels: int = field(default=256, validator=AT_LEAST_1, metadata=doc("of both towers"))
    num_convs: int = field(default=4, validator=validators.ge(0), metadata=doc("3x3 convolutions of each tower"))
    guided: RetinaNetGuidedAnchorsConfig = field(
        default=RetinaNetGuidedAnchorsConfig(), metadata=doc("where anchors are, how large")
    )
    coder: CoderConfig = field(default=DeltaCoderConfig(), metadata=doc("box regression targets"))
    assigner: AssignerConfig = field(
        default=MaxIoUAssignerConfig(positive=0.5, negative=0.5, low_quality=True, min_positive=0.0),
        metadata=doc("which guided anchors stand for objects; all others below `negative` are background"),
    )
    cls_loss: LossConfig = field(default=FocalConfig(), metadata=doc("classification, of all anchors"))
    box_loss: LossConfig = field(default=SmoothL1Config(beta=0.04), metadata=doc("box regression, of positive anchors"))
    prior: float = field(
        default=0.01,
        validator=PROBABILITY,
        metadata=doc("score that a fresh head gives everything, so that background does not drown the first steps"),
    )
    before_nms: int = field(
        default=1000, validator=AT_LEAST_1, metadata=doc("anchors of each level that stay, best by their best class")
    )
    min_size: float = field(
        default=-1.0,
        validator=validators.ge(-1.0),
        metadata=doc("a detection whose width or height, in the network's input, is not above this goes; -1 = none"),
    )
    norm: NormConfig | None = field(
        default=None, metadata=doc("after every convolution of the towers; shared by levels, so none that counts them")
    )
    conv: ConvConfig = field(default=Conv2dConfig(), metadata=doc("the towers' convolutions"))

    def check(self, features: FeatureSpec) -> None:
        channels = features.same_channels(f"dense_head {self.type!r}")
        self.guided.check(self.channels if self.num_convs else channels)

    def build(self, features: FeatureSpec, num_classes: int) -> GARetinaNetHead:
        from det_plugin_guided_anchoring.retinanet import GARetinaNetHead

        return GARetinaNetHead(self, features, num_classes)
