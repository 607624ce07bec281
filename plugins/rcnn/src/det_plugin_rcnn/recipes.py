"""The zoo entries of the R-CNN family, with the figures others published for them, and small demos."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from attrs import evolve

from det_core.boxes.config import GridAnchorsConfig, MaxIoUAssignerConfig, RandomSamplerConfig
from det_core.config.base import ProposalLimits
from det_core.data.config import CocoConfig, FlipConfig, ResizeConfig, SampleConfig
from det_core.evaluation.config import CocoEvaluatorConfig
from det_core.model.detector_config import DetectorConfig
from det_core.model.layer_config import GroupNormConfig, RoIAlignConfig
from det_core.recipe import (
    DataConfig,
    EvaluationConfig,
    OptimizerConfig,
    Published,
    Recipe,
    RecipeEntry,
    ScheduleConfig,
)
from det_plugin_fpn.config import FPNConfig
from det_plugin_rcnn.config import ConvMaskHeadConfig, FCBoxHeadConfig, RCNNHeadConfig, RPNConfig
from det_plugin_resnet.config import ResNetConfig

SCHEDULES = {"1x": ScheduleConfig(epochs=12, milestones=(8, 11)), "2x": ScheduleConfig(epochs=24, milestones=(16, 22))}
RESIZE = ResizeConfig(scales=((1333, 800),))
COCO = DataConfig(
    train=CocoConfig(split="train", filter_empty=True, min_size=32),
    val=CocoConfig(split="val"),
    train_transforms=(RESIZE, FlipConfig()),
    test_transforms=(RESIZE,),
)

# The table of published settings has 1000 per level for the RPN alone; the reference results show 2000.
RPN_ALONE = RPNConfig(test_limits=ProposalLimits(before_nms=2000, after_nms=1000))
BACKBONE = ResNetConfig(depth=50, pretrained="torchvision:resnet50")
FASTER_HEAD = RCNNHeadConfig()
# The reference has low-quality matches on in Mask R-CNN's second stage, and off in Faster R-CNN's.
MASK_HEAD = RCNNHeadConfig(
    assigner=MaxIoUAssignerConfig(low_quality=True),
    mask_roi_pool=RoIAlignConfig(size=14),
    mask_head=ConvMaskHeadConfig(),
)

ROI_HEADS = {"rpn": None, "faster-rcnn": FASTER_HEAD, "mask-rcnn": MASK_HEAD}
EVALUATIONS = {
    "rpn": EvaluationConfig(evaluators=(CocoEvaluatorConfig(kinds=("proposal",)),), best="ar1000"),
    "faster-rcnn": EvaluationConfig(evaluators=(CocoEvaluatorConfig(kinds=("box",)),)),
    "mask-rcnn": EvaluationConfig(evaluators=(CocoEvaluatorConfig(kinds=("box", "mask")),)),
}
SUMMARIES = {
    "rpn": "region proposals (Ren et al., 2015)",
    "faster-rcnn": "boxes (Ren et al., 2015; Lin et al., 2017)",
    "mask-rcnn": "boxes and masks (He et al., 2017)",
}


def zoo_recipe(model: str, schedule: str, published: Published) -> Recipe:
    """`<model>/r50-fpn-<schedule>`: the published baseline under modern conventions."""
    return Recipe(
        name=f"{model}/r50-fpn-{schedule}",
        detector=DetectorConfig(
            backbone=BACKBONE,
            neck=FPNConfig(),
            dense_head=RPN_ALONE if model == "rpn" else RPNConfig(),
            roi_head=ROI_HEADS[model],
        ),
        data=COCO,
        optimizer=OptimizerConfig(lr=0.02, lr_batch=16),
        schedule=SCHEDULES[schedule],
        evaluation=EVALUATIONS[model],
        published=published,
    )


def demo_recipe(model: str) -> Recipe:
    """A small model that learns the bundled sample from random weights on a CPU in minutes."""
    norm = GroupNormConfig(groups=16)
    recipe = zoo_recipe(model, "1x", Published())
    roi_head = recipe.detector.roi_head
    if isinstance(roi_head, RCNNHeadConfig):
        roi_head = evolve(
            roi_head,
            box_head=FCBoxHeadConfig(fc_channels=256),
            sampler=RandomSamplerConfig(count=96, positive_fraction=0.25),
        )
        if roi_head.mask_head is not None:
            roi_head = evolve(roi_head, mask_head=ConvMaskHeadConfig(num_convs=2, channels=64))
    resize = ResizeConfig(scales=((320, 320),))
    return Recipe(
        name=f"{model}/r18-fpn-demo",
        detector=DetectorConfig(
            backbone=ResNetConfig(depth=18, norm=norm, frozen_stages=-1),
            neck=FPNConfig(channels=64, norm=norm),
            dense_head=RPNConfig(
                channels=64,
                anchors=GridAnchorsConfig(scales=(4.0,)),  # nuclei are small: anchors of 16 pixels and more
                train_limits=ProposalLimits(before_nms=400, after_nms=200),
                test_limits=ProposalLimits(before_nms=400, after_nms=200),
            ),
            roi_head=roi_head,
        ),
        data=DataConfig(
            train=SampleConfig(split="train"),
            val=SampleConfig(split="val"),
            train_transforms=(resize, FlipConfig(vertical_probability=0.5)),
            test_transforms=(resize,),
        ),
        optimizer=OptimizerConfig(lr=0.02, lr_batch=0),
        schedule=ScheduleConfig(epochs=30, milestones=(22, 27), warmup_steps=20, warmup_factor=0.01, clip_norm=10.0),
        evaluation=evolve(recipe.evaluation, every_epochs=10),
    )


# From the published tables: the 2019 model zoo, and its re-runs under modern conventions.
_FIGURES = {
    ("rpn", "1x"): Published(
        ar1000=57.1, memory_gb=3.5, train_s_per_iter=0.276, inference_fps=17.7, modern_ar1000=58.2, modern_memory_gb=3.8
    ),
    ("rpn", "2x"): Published(ar1000=57.6, modern_ar1000=58.6),
    ("faster-rcnn", "1x"): Published(
        box_ap=36.4, memory_gb=3.8, train_s_per_iter=0.353, inference_fps=13.6, modern_box_ap=37.4, modern_memory_gb=4.0
    ),
    ("faster-rcnn", "2x"): Published(box_ap=37.7, modern_box_ap=38.4),
    ("mask-rcnn", "1x"): Published(
        box_ap=37.3,
        mask_ap=34.2,
        memory_gb=3.9,
        train_s_per_iter=0.453,
        inference_fps=10.6,
        modern_box_ap=38.2,
        modern_mask_ap=34.7,
        modern_memory_gb=4.4,
    ),
    ("mask-rcnn", "2x"): Published(box_ap=38.5, mask_ap=35.1, modern_box_ap=39.2, modern_mask_ap=35.4),
}


def _entry(model: str, schedule: str, published: Published) -> RecipeEntry:
    make: Callable[[], Recipe] = partial(zoo_recipe, model, schedule, published)
    return RecipeEntry(
        name=f"{model}/r50-fpn-{schedule}",
        make=make,
        published=published,
        default=(model, schedule) == ("mask-rcnn", "1x"),
        summary=SUMMARIES[model],
    )


ENTRIES = (
    *(_entry(model, schedule, published) for (model, schedule), published in _FIGURES.items()),
    *(
        RecipeEntry(
            name=f"{model}/r18-fpn-demo",
            make=partial(demo_recipe, model),
            demo=model == "mask-rcnn",
            summary=f"{SUMMARIES[model]}, small, on the bundled sample",
        )
        for model in ROI_HEADS
    ),
)
