"""Configurations of guided anchors and of the heads that work with them. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from det_core.boxes.box_config import DeltaCoderConfig, GridAnchorsConfig, MaxIoUAssignerConfig, RandomSamplerConfig
from det_core.errors import ConfigError
from det_core.model.detection_config import DetectingHeadConfig
from det_core.model.layer_config import Conv2dConfig
from det_core.model.loss_config import BoundedIoUConfig, FocalConfig, SmoothL1Config
from det_core.settings import configclass, evolve, setting
from det_core.slots import (
    AssignerConfig,
    CoderConfig,
    ConvConfig,
    LossConfig,
    NormConfig,
    SamplerConfig,
)
from det_core.specs import FeatureSpec, ProposalLimits
from det_plugin_rcnn.config import RegionProposalConfig

if TYPE_CHECKING:
    from det_plugin_guided_anchoring.retinanet import GARetinaNetHead
    from det_plugin_guided_anchoring.rpn import GARPN


# Predicted sides may be a million times those of a square, so that clipping decides nothing.
ANCHOR_CODER = DeltaCoderConfig(stds=(0.07, 0.07, 0.14, 0.14), max_ratio=1e-6)
FEW = ProposalLimits(before_nms=2000, after_nms=300)  # fewer than an RPN's: they are better


@configclass
class GuidedAnchorsConfig:
    """Where anchors are and how large (Wang et al., Guided Anchoring, 2019, section 3), as GA-RPN has it."""

    base_scale: float = setting("side, in strides, of the square that an anchor begins as", default=8.0, above=0)
    scales_per_octave: int = setting("sizes of the approximate anchors, base_scale and larger", default=3, least=1)
    ratios: tuple[float, ...] = setting(
        "height over width of the approximate anchors", default=(0.5, 1.0, 2.0), min_items=1, above=0
    )
    coder: CoderConfig = setting("predicted shapes to anchors", default=ANCHOR_CODER)
    offset_groups: int = setting("groups of channels that the adaption moves on their own", default=4, least=1)
    location_prior: float = setting("location score that a fresh head gives every cell", default=0.01, above=0, below=1)
    location_threshold: float = setting(
        "location score from which a cell has an anchor at test", default=0.01, least=0, most=1
    )
    location_labels: Literal["centre", "inverted"] = setting(
        "what the location loss learns as 1: centres of objects, or (mmdet 2.x and 3.x) all else", default="centre"
    )
    centre_ratio: float = setting(
        "share of an object's sides around its centre that is positive", default=0.2, least=0, most=1
    )
    ignore_ratio: float = setting("share of them up to which cells are not negative", default=0.5, least=0, most=1)
    negative_weight: float = setting("of a negative cell in the location loss", default=0.1, least=0)
    location_cells: int = setting(
        "the location loss is divided by the cells of a batch over this", default=200, least=1
    )
    location_loss: FocalConfig = setting("cells with an anchor or without", default=FocalConfig())
    shape_assigner: MaxIoUAssignerConfig = setting(
        "which cells' shapes learn from an object, by the best of a cell's approximate anchors",
        default=MaxIoUAssignerConfig(positive=0.7, negative=0.3, low_quality=True, min_positive=0.3),
    )
    shape_sampler: SamplerConfig = setting(
        "which of them", default=RandomSamplerConfig(count=256, positive_fraction=0.5)
    )
    shape_loss: LossConfig = setting("anchors against their objects", default=BoundedIoUConfig())
    allowed_border: int = setting(
        "cells train where an approximate anchor reaches at most this many pixels out of the image; -1 = all do",
        default=-1,
        least=-1,
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


@configclass
class RetinaNetGuidedAnchorsConfig(GuidedAnchorsConfig):
    """Where anchors are and how large, as GA-RetinaNet has it."""

    base_scale: float = setting("side, in strides, of the square that an anchor begins as", default=4.0, above=0)
    coder: CoderConfig = setting("predicted shapes to anchors", default=evolve(ANCHOR_CODER, stds=(1.0,) * 4))
    shape_assigner: MaxIoUAssignerConfig = setting(
        "which cells' shapes learn from an object, by the best of a cell's approximate anchors",
        default=MaxIoUAssignerConfig(positive=0.5, negative=0.4, low_quality=True, min_positive=0.4),
    )


@configclass
class GARPNConfig(RegionProposalConfig):
    """Region proposals from guided anchors, one per cell (Wang et al., 2019, section 3.5)."""

    type: ClassVar[str] = "ga_rpn"

    train_limits: ProposalLimits = setting("proposals that a RoI head trains on", default=FEW)
    test_limits: ProposalLimits = setting("proposals at test time", default=FEW)
    guided: GuidedAnchorsConfig = setting("where anchors are, how large", default=GuidedAnchorsConfig())
    coder: CoderConfig = setting("box regression targets", default=DeltaCoderConfig(stds=(0.07, 0.07, 0.11, 0.11)))
    box_loss: LossConfig = setting("box regression", default=SmoothL1Config(beta=1.0))

    def check(self, features: FeatureSpec) -> None:
        features.same_channels(f"dense_head {self.type!r}")
        self.guided.check(self.channels)

    def build(self, features: FeatureSpec, num_classes: int) -> GARPN:
        from det_plugin_guided_anchoring.rpn import GARPN

        return GARPN(self, features)


@configclass
class GARetinaNetHeadConfig(DetectingHeadConfig):
    """RetinaNet's head with one guided anchor per cell (Wang et al., 2019, section 4.1)."""

    type: ClassVar[str] = "ga_retinanet"

    channels: int = setting("of both towers", default=256, least=1)
    num_convs: int = setting("3x3 convolutions of each tower", default=4, least=0)
    guided: RetinaNetGuidedAnchorsConfig = setting(
        "where anchors are, how large", default=RetinaNetGuidedAnchorsConfig()
    )
    coder: CoderConfig = setting("box regression targets", default=DeltaCoderConfig())
    assigner: AssignerConfig = setting(
        "which guided anchors stand for objects; all others below `negative` are background",
        default=MaxIoUAssignerConfig(positive=0.5, negative=0.5, low_quality=True, min_positive=0.0),
    )
    cls_loss: LossConfig = setting("classification, of all anchors", default=FocalConfig())
    box_loss: LossConfig = setting("box regression, of positive anchors", default=SmoothL1Config(beta=0.04))
    prior: float = setting(
        "score that a fresh head gives everything, so that background does not drown the first steps",
        default=0.01,
        above=0,
        below=1,
    )
    before_nms: int = setting("anchors of each level that stay, best by their best class", default=1000, least=1)
    min_size: float = setting(
        "a detection whose width or height, in the network's input, is not above this goes; -1 = none",
        default=-1.0,
        least=-1,
    )
    norm: NormConfig | None = setting(
        "after every convolution of the towers; shared by levels, so none that counts them", default=None
    )
    conv: ConvConfig = setting("the towers' convolutions", default=Conv2dConfig())

    def check(self, features: FeatureSpec) -> None:
        channels = features.same_channels(f"dense_head {self.type!r}")
        self.guided.check(self.channels if self.num_convs else channels)

    def build(self, features: FeatureSpec, num_classes: int) -> GARetinaNetHead:
        from det_plugin_guided_anchoring.retinanet import GARetinaNetHead

        return GARetinaNetHead(self, features, num_classes)
