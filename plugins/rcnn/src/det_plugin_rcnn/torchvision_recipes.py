"""torchvision's `fasterrcnn_resnet50_fpn` and `maskrcnn_resnet50_fpn` as recipes, for weights that it trained.

Every convention in which torchvision's detectors depart from the published baselines' is set here, so that imported
weights find what they find there (torchvision/models/detection, read in version 0.29). In training one thing differs:
an anchor that several objects tie for goes to the last of them, there to the one it overlaps most.
"""

from __future__ import annotations

from det_core.boxes.config import DeltaCoderConfig, GridAnchorsConfig, MaxIoUAssignerConfig
from det_core.data.config import FlipConfig, ResizeConfig
from det_core.model.detector_config import DetectorConfig
from det_core.model.layer_config import FrozenBatchNormConfig, RoIAlignConfig
from det_core.model.loss_config import SmoothL1Config
from det_core.offers import RecipeEntry
from det_core.recipe import OptimizerConfig, Recipe, ScheduleConfig
from det_core.settings import evolve
from det_core.specs import ProposalLimits
from det_plugin_fpn.config import FPNConfig
from det_plugin_rcnn.config import ConvMaskHeadConfig, RCNNHeadConfig, RPNConfig
from det_plugin_rcnn.zoo import EVALUATIONS
from det_plugin_resnet.config import ResNetConfig
from det_plugin_resnet.zoo import COCO

RESIZE = ResizeConfig(scales=((1333, 800),), rounding="down", arithmetic="float")
BOX_LOSS = SmoothL1Config(beta=1 / 9)


def _roi_align(size: int) -> RoIAlignConfig:
    return RoIAlignConfig(size=size, sampling=2, alignment="unaligned", level_rule="torchvision")


def _roi_head(model: str) -> RCNNHeadConfig:
    masks = model == "mask-rcnn"
    return RCNNHeadConfig(
        roi_pool=_roi_align(7),
        mask_roi_pool=_roi_align(14) if masks else None,
        mask_head=ConvMaskHeadConfig() if masks else None,
        coder=DeltaCoderConfig(stds=(0.1, 0.1, 0.2, 0.2), clip_shrinking=False),
        box_loss=BOX_LOSS,
        min_size=0.01,
        nms_in="network",
        mask_paste="resized",
    )


def torchvision_recipe(model: str) -> Recipe:
    """The model as torchvision has it. Its first COCO weights (COCO_V1) want a norm with eps 0, others 1e-5."""
    return Recipe(
        name=f"{model}/torchvision-r50-fpn",
        detector=DetectorConfig(
            backbone=ResNetConfig(
                depth=50, frozen_stages=1, norm=FrozenBatchNormConfig(eps=0.0), pretrained="torchvision:resnet50"
            ),
            neck=FPNConfig(),
            dense_head=RPNConfig(
                anchors=GridAnchorsConfig(rounded=True, spacing="image"),
                coder=DeltaCoderConfig(clip_shrinking=False),
                assigner=MaxIoUAssignerConfig(positive=0.7, negative=0.3, low_quality=True, min_positive=0.0),
                box_loss=BOX_LOSS,
                min_size=0.001,
                train_limits=ProposalLimits(before_nms=2000, after_nms=2000),
                test_limits=ProposalLimits(before_nms=1000, after_nms=1000),
            ),
            roi_head=_roi_head(model),
        ),
        data=evolve(COCO, train_transforms=(RESIZE, FlipConfig()), test_transforms=(RESIZE,)),
        optimizer=OptimizerConfig(lr=0.02, lr_batch=16),
        schedule=ScheduleConfig(epochs=26, milestones=(16, 22)),
        evaluation=EVALUATIONS[model],
    )


def _faster_rcnn() -> Recipe:
    return torchvision_recipe("faster-rcnn")


def _mask_rcnn() -> Recipe:
    return torchvision_recipe("mask-rcnn")


TORCHVISION_ENTRIES = (
    RecipeEntry(
        name="faster-rcnn/torchvision-r50-fpn",
        make=_faster_rcnn,
        summary="boxes, with torchvision's conventions, for its weights",
    ),
    RecipeEntry(
        name="mask-rcnn/torchvision-r50-fpn",
        make=_mask_rcnn,
        summary="boxes and masks, with torchvision's conventions, for its weights",
    ),
)
