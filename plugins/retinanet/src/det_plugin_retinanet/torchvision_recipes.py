"""torchvision's `retinanet_resnet50_fpn` as a recipe, for weights that it trained.

Every convention in which it departs from the published baselines is set here (torchvision/models/detection, read in
version 0.29). In training one thing differs: an anchor that several objects tie for goes to the last of them, there to
the one it overlaps most.
"""

from __future__ import annotations

from det_core.boxes.config import DeltaCoderConfig, GridAnchorsConfig
from det_core.data.config import FlipConfig, ResizeConfig
from det_core.model.detector_config import DetectorConfig
from det_core.model.layer_config import FrozenBatchNormConfig
from det_core.offers import RecipeEntry
from det_core.recipe import OptimizerConfig, Recipe, ScheduleConfig
from det_core.settings import evolve
from det_plugin_fpn.config import FPNConfig
from det_plugin_resnet.config import ResNetConfig
from det_plugin_resnet.zoo import BOXES, COCO
from det_plugin_retinanet.config import OCTAVE, RetinaNetHeadConfig

RESIZE = ResizeConfig(scales=((1333, 800),), rounding="down", arithmetic="float")


def torchvision_recipe() -> Recipe:
    """Of the `COCO_V1` weights, whose norms have eps 0."""
    return Recipe(
        name="retinanet/torchvision-r50-fpn",
        detector=DetectorConfig(
            backbone=ResNetConfig(
                depth=50, frozen_stages=1, norm=FrozenBatchNormConfig(eps=0.0), pretrained="torchvision:resnet50"
            ),
            neck=FPNConfig(start=1, levels=5, extra="conv_output", extra_relu=True),  # P6 from P5
            dense_head=RetinaNetHeadConfig(
                anchors=GridAnchorsConfig(scales=OCTAVE, whole_sides=True, rounded=True, spacing="image"),
                coder=DeltaCoderConfig(clip_shrinking=False),
                min_size=-1.0,
                max_detections=300,
                nms_in="network",
            ),
        ),
        data=evolve(COCO, train_transforms=(RESIZE, FlipConfig()), test_transforms=(RESIZE,)),
        optimizer=OptimizerConfig(lr=0.01, lr_batch=16),
        schedule=ScheduleConfig(epochs=26, milestones=(16, 22)),
        evaluation=BOXES,
    )


TORCHVISION_ENTRY = RecipeEntry(
    name="retinanet/torchvision-r50-fpn",
    make=torchvision_recipe,
    summary="boxes, with torchvision's conventions, for its weights",
)
