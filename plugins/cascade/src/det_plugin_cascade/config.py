"""Configurations of cascades: their stages, and the heads that run them. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

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
    """Settings of one cascade stage: those of a box stage, and the weight of its losses."""

    box_loss: LossConfig = setting("box regression", default=SmoothL1Config())
    loss_weight: float = setting("factor on all losses of the stage, including the mask loss", default=1.0, least=0)


def iou_stage(iou: float, std: tuple[float, float], weight: float) -> CascadeStageConfig:
    """A stage with IoU threshold `iou` and standard deviations `std` of the deltas: of centres, of sizes."""
    return CascadeStageConfig(
        assigner=MaxIoUAssignerConfig(positive=iou, negative=iou, min_positive=iou),
        coder=DeltaCoderConfig(stds=(std[0], std[0], std[1], std[1])),
        loss_weight=weight,
    )


# IoUs: Cai and Vasconcelos, Cascade R-CNN, 2018, section 4.2. Deviations and weights: the reference.
THREE_STAGES = (
    iou_stage(0.5, (0.1, 0.2), 1.0),
    iou_stage(0.6, (0.05, 0.1), 0.5),
    iou_stage(0.7, (0.033, 0.067), 0.25),
)


@configclass
class StagedHeadConfig(RegionHeadConfig):
    """Settings that heads with several box stages share.

    Each stage has its own box head and, if the model has masks, its own mask head, built from the same configuration.
    """

    box_head: BoxHeadConfig = setting(
        "class scores and box deltas; one head is built per stage", default=FCBoxHeadConfig(class_agnostic=True)
    )
    stages: tuple[CascadeStageConfig, ...] = setting("the stages, first to last; at least one", default=THREE_STAGES)
    mean_of: Literal["logits", "probabilities"] = setting(
        "what the scores of a detection are the mean of, over the stages; logits: their softmax",
        default="logits",
        conventions={"detectron2": "probabilities"},
    )

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if not self.stages:
            message = "a cascade requires at least one stage; leave `stages` out for the three stages of Cascade R-CNN"
            raise ConfigError.at("stages", message)


@configclass
class CascadeHeadConfig(StagedHeadConfig):
    """Several box stages in sequence, each on the boxes refined by the previous one (Cai and Vasconcelos, 2018).

    All stages share the pooling layers and the trunk.
    """

    type: ClassVar[str] = "cascade"

    masks_by: Literal["stages", "one"] = setting(
        "a mask head for each stage, whose masks are averaged; or one, trained on the regions of the first stage",
        default="stages",
        conventions={"detectron2": "one"},
    )

    refine_objects: bool = setting(
        "a stage passes on the refined boxes of objects that were added to its proposals, and no empty boxes; false: "
        "it passes on the proposals alone",
        default=False,
        conventions={"detectron2": True},
    )
    shared_gradient: bool = setting(
        "divide the gradient that a stage's box head sends to the pooled features by the number of stages",
        default=False,
        conventions={"detectron2": True},
    )

    def build(self, features: FeatureSpec, num_classes: int) -> CascadeHead:
        from det_plugin_cascade.roi_head import build_cascade_head

        return build_cascade_head(self, features, num_classes)
