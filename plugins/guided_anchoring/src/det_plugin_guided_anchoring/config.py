"""Configurations of guided anchors and of the heads that use them. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from det_core.boxes.box_config import (
    ANCHOR_RULE,
    AnchorRule,
    DeltaCoderConfig,
    GridAnchorsConfig,
    MaxIoUAssignerConfig,
    RandomSamplerConfig,
)
from det_core.errors import ConfigError
from det_core.model.detection_config import TowerHeadConfig
from det_core.model.loss_config import BoundedIoUConfig, FocalConfig, SmoothL1Config
from det_core.settings import configclass, evolve, setting
from det_core.slots import (
    AssignerConfig,
    CoderConfig,
    LossConfig,
    SamplerConfig,
)
from det_core.specs import FeatureSpec, ProposalLimits
from det_plugin_rcnn.config import RegionProposalConfig

if TYPE_CHECKING:
    from det_plugin_guided_anchoring.retinanet import GARetinaNetHead
    from det_plugin_guided_anchoring.rpn import GARPN


# The limit of a million is far above any predicted size, so shapes are not clipped.
ANCHOR_CODER = DeltaCoderConfig(stds=(0.07, 0.07, 0.14, 0.14), max_ratio=1e-6)
PROPOSALS = ProposalLimits(before_nms=2000, after_nms=300)  # fewer than for an RPN, because recall is higher


@configclass
class GuidedAnchorsConfig:
    """Locations and shapes of anchors (Wang et al., Guided Anchoring, 2019, section 3), with GA-RPN's defaults."""

    base_scale: float = setting("side, in strides, of the square that shapes are relative to", default=8.0, above=0)
    scales_per_octave: int = setting(
        "number of sizes of the approximate anchors, from base_scale up", default=3, least=1, most=64
    )
    ratios: tuple[float, ...] = setting(
        "height over width of the approximate anchors", default=(0.5, 1.0, 2.0), min_items=1, above=0
    )
    coder: CoderConfig = setting("decodes predicted shapes to anchors", default=ANCHOR_CODER)
    offset_groups: int = setting("channel groups with separate offsets in the feature adaption", default=4, least=1)
    location_prior: float = setting("initial location score of every cell", default=0.01, above=0, below=1)
    location_threshold: float = setting(
        "minimum location score of cells with an anchor at test time", default=0.01, least=0, most=1
    )
    location_labels: Literal["centre", "inverted"] = setting(
        "cells with label 1 in the location loss: centres of objects, or all others (mmdet 2.x and 3.x)",
        default="centre",
    )
    centre_ratio: float = setting(
        "share of an object's sides, around its centre, whose cells are positive", default=0.2, least=0, most=1
    )
    ignore_ratio: float = setting(
        "share of an object's sides whose cells are ignored if not positive", default=0.5, least=0, most=1
    )
    negative_weight: float = setting("weight of negative cells in the location loss", default=0.1, least=0)
    location_cells: int = setting(
        "the normaliser of the location loss is the number of cells of the batch over this", default=200, least=1
    )
    location_loss: FocalConfig = setting("location loss", default=FocalConfig())
    shape_assigner: MaxIoUAssignerConfig = setting(
        "assigns cells to objects for the shape loss, by the best IoU of a cell's approximate anchors",
        default=MaxIoUAssignerConfig(positive=0.7, negative=0.3, low_quality=True, min_positive=0.3),
    )
    shape_sampler: SamplerConfig = setting(
        "selects the cells for the shape loss", default=RandomSamplerConfig(count=256, positive_fraction=0.5)
    )
    shape_loss: LossConfig = setting("shape loss, between anchors and objects", default=BoundedIoUConfig())
    allowed_border: int = setting(
        "in training, ignore cells whose approximate anchors all extend more than this many pixels outside the image "
        "(-1: none)",
        default=-1,
        least=-1,
    )
    touching: bool = setting(
        "with allowed_border, an anchor may end exactly at the limit on the right and below (mmdet 0.x and 1.x)",
        default=False,
        conventions={"mmdet1": True},
    )
    anchor_rule: AnchorRule = setting(ANCHOR_RULE, default="corner", conventions={"mmdet1": "mmdet1"})

    def __attrs_post_init__(self) -> None:
        if self.centre_ratio > self.ignore_ratio:
            raise ConfigError.at(
                "centre_ratio",
                f"found {self.centre_ratio}, must be at most ignore_ratio ({self.ignore_ratio}): cells between the two "
                "are ignored",
            )

    def squares(self) -> GridAnchorsConfig:
        """One square per cell, which predicted shapes are relative to."""
        return GridAnchorsConfig(scales=(self.base_scale,), ratios=(1.0,), rule=self.anchor_rule)

    def approximate(self) -> GridAnchorsConfig:
        """The anchors of every cell that approximate all shapes it may predict."""
        octave = (self.base_scale * 2 ** (i / self.scales_per_octave) for i in range(self.scales_per_octave))
        return GridAnchorsConfig(scales=tuple(octave), ratios=self.ratios, rule=self.anchor_rule)

    def check(self, channels: int) -> None:
        """Raise ConfigError if the channels cannot be divided into offset groups."""
        if channels % self.offset_groups:
            raise ConfigError.at(
                "guided.offset_groups",
                f"{self.offset_groups} groups do not divide {channels} channels; choose a divisor of {channels}",
            )


@configclass
class RetinaNetGuidedAnchorsConfig(GuidedAnchorsConfig):
    """Locations and shapes of anchors, with GA-RetinaNet's defaults."""

    base_scale: float = setting("side, in strides, of the square that shapes are relative to", default=4.0, above=0)
    coder: CoderConfig = setting("decodes predicted shapes to anchors", default=evolve(ANCHOR_CODER, stds=(1.0,) * 4))
    shape_assigner: MaxIoUAssignerConfig = setting(
        "assigns cells to objects for the shape loss, by the best IoU of a cell's approximate anchors",
        default=MaxIoUAssignerConfig(positive=0.5, negative=0.4, low_quality=True, min_positive=0.4),
    )


@configclass
class GARPNConfig(RegionProposalConfig):
    """Region proposals from guided anchors, one per cell (Wang et al., 2019, section 3.5)."""

    type: ClassVar[str] = "ga_rpn"

    train_limits: ProposalLimits = setting("numbers of proposals for training a RoI head", default=PROPOSALS)
    test_limits: ProposalLimits = setting("numbers of proposals at test time", default=PROPOSALS)
    guided: GuidedAnchorsConfig = setting("locations and shapes of anchors", default=GuidedAnchorsConfig())
    coder: CoderConfig = setting("box regression targets", default=DeltaCoderConfig(stds=(0.07, 0.07, 0.11, 0.11)))
    box_loss: LossConfig = setting("box regression", default=SmoothL1Config(beta=1.0))

    def check(self, features: FeatureSpec) -> None:
        features.same_channels(f"dense_head {self.type!r}")
        self.guided.check(self.channels)

    def build(self, features: FeatureSpec, num_classes: int) -> GARPN:
        from det_plugin_guided_anchoring.rpn import GARPN

        return GARPN(self, features)


@configclass
class GARetinaNetHeadConfig(TowerHeadConfig):
    """RetinaNet's head with one guided anchor per cell (Wang et al., 2019, section 4.1)."""

    type: ClassVar[str] = "ga_retinanet"

    guided: RetinaNetGuidedAnchorsConfig = setting(
        "locations and shapes of anchors", default=RetinaNetGuidedAnchorsConfig()
    )
    assigner: AssignerConfig = setting(
        "assigns guided anchors to objects; all other anchors below `negative` are background",
        default=MaxIoUAssignerConfig(positive=0.5, negative=0.5, low_quality=True, min_positive=0.0),
    )
    box_loss: LossConfig = setting("box regression, over positive anchors", default=SmoothL1Config(beta=0.04))
    before_nms: int | None = setting(
        "maximum anchors per level before NMS, ranked by their best class (null: all)", default=1000, least=1
    )
    min_size: float = setting(
        "discard boxes with a side of this many pixels of the network's input or less (-1: keep all)",
        default=-1.0,
        least=-1,
    )

    def check(self, features: FeatureSpec) -> None:
        channels = features.same_channels(f"dense_head {self.type!r}")
        self.guided.check(self.channels if self.num_convs else channels)

    def build(self, features: FeatureSpec, num_classes: int) -> GARetinaNetHead:
        from det_plugin_guided_anchoring.retinanet import GARetinaNetHead

        return GARetinaNetHead(self, features, num_classes)
