"""Configurations of the cascade: its stages, and heads that run them. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from attrs import field, frozen, validators

from det_core.boxes.config import DeltaCoderConfig, MaxIoUAssignerConfig
from det_core.config.base import BoxHeadConfig, ConfigError, FeatureSpec, LossConfig, doc
from det_core.model.loss_config import SmoothL1Config
from det_plugin_rcnn.config import BoxStageConfig, FCBoxHeadConfig, RegionHeadConfig

if TYPE_CHECKING:
    from det_plugin_cascade.roi_head import CascadeHead


@frozen(kw_only=True)
class CascadeStageConfig(BoxStageConfig):
    """One stage of a cascade: which regions train, as what, by which losses, and how much these count."""

    box_loss: LossConfig = field(default=SmoothL1Config(), metadata=doc("box regression"))
    loss_weight: float = field(
        default=1.0, validator=validators.ge(0.0), metadata=doc("factor on all losses of the stage, its masks' too")
    )


def iou_stage(iou: float, std: tuple[float, float], weight: float) -> CascadeStageConfig:
    """A stage for proposals that overlap objects by `iou`, whose deltas spread by `std`: of centres, of sizes."""
    return CascadeStageConfig(
        assigner=MaxIoUAssignerConfig(positive=iou, negative=iou, min_positive=iou),
        coder=DeltaCoderConfig(stds=(std[0], std[0], std[1], std[1])),
        loss_weight=weight,
    )


# IoUs of Cai and Vasconcelos, Cascade R-CNN, 2018, section 4.2; spreads and weights as the reference has them.
THREE_STAGES = (
    iou_stage(0.5, (0.1, 0.2), 1.0),
    iou_stage(0.6, (0.05, 0.1), 0.5),
    iou_stage(0.7, (0.033, 0.067), 0.25),
)


@frozen(kw_only=True)
class StagedHeadConfig(RegionHeadConfig):
    """What heads with several second stages in a row have in common, over what those with one have.

    Every stage has a box head and, where there are masks, a mask head of its own, built from one configuration.
    """

    box_head: BoxHeadConfig = field(
        default=FCBoxHeadConfig(class_agnostic=True), metadata=doc("scores and deltas; one is built for each stage")
    )
    stages: tuple[CascadeStageConfig, ...] = field(
        default=THREE_STAGES, metadata=doc("how each stage's boxes learn, first to last; at least one")
    )

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if not self.stages:
            message = "a cascade needs at least one stage; leave `stages` out for the three of Cascade R-CNN"
            raise ConfigError.at("stages", message)


@frozen(kw_only=True)
class CascadeHeadConfig(StagedHeadConfig):
    """Several second stages in a row, each on the boxes that the one before it refined (Cai and Vasconcelos, 2018).

    Pooling and trunk are shared by all stages.
    """

    type: ClassVar[str] = "cascade"

    def build(self, features: FeatureSpec, num_classes: int) -> CascadeHead:
        from det_plugin_cascade.roi_head import build_cascade_head

        return build_cascade_head(self, features, num_classes)
