"""Configurations of the cascade: its stages, and heads that run them. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from det_core.boxes.box_config import DeltaCoderConfig, MaxIoUAssignerConfig
from det_core.errors import ConfigError
from det_core.model.loss_config import SmoothL1Config
from det_core.settings import configclass, setting
from det_core.slots import BoxHeadConfig, LossConfig
from det_core.specs import FeatureSpec
from det_plugin_rcnn.config import BoxStageConfig, FCBoxHeadConfig, RegionHeadConfig

if TYPE_CHECKING:
    from det_plugin_cascade.roi_head import CascadeHead


@configclass
class CascadeStageConfig(BoxStageConfig):
    """One stage of a cascade: which regions train, as what, by which losses, and how much these count."""

    box_loss: LossConfig = setting("box regression", default=SmoothL1Config())
    loss_weight: float = setting("factor on all losses of the stage, its masks' too", default=1.0, least=0)


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


@configclass
class StagedHeadConfig(RegionHeadConfig):
    """What heads with several second stages in a row have in common, over what those with one have.

    Every stage has a box head and, where there are masks, a mask head of its own, built from one configuration.
    """

    box_head: BoxHeadConfig = setting(
        "scores and deltas; one is built for each stage", default=FCBoxHeadConfig(class_agnostic=True)
    )
    stages: tuple[CascadeStageConfig, ...] = setting(
        "how each stage's boxes learn, first to last; at least one", default=THREE_STAGES
    )

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if not self.stages:
            message = "a cascade needs at least one stage; leave `stages` out for the three of Cascade R-CNN"
            raise ConfigError.at("stages", message)


@configclass
class CascadeHeadConfig(StagedHeadConfig):
    """Several second stages in a row, each on the boxes that the one before it refined (Cai and Vasconcelos, 2018).

    Pooling and trunk are shared by all stages.
    """

    type: ClassVar[str] = "cascade"

    def build(self, features: FeatureSpec, num_classes: int) -> CascadeHead:
        from det_plugin_cascade.roi_head import build_cascade_head

        return build_cascade_head(self, features, num_classes)
