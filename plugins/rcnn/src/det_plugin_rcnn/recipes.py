"""The zoo entries of the R-CNN family, and small demos that learn the bundled sample."""

from __future__ import annotations

from functools import partial

from attrs import evolve

from det_core.boxes.config import GridAnchorsConfig, RandomSamplerConfig
from det_core.config.base import ProposalLimits
from det_core.data.config import FlipConfig, ResizeConfig, SampleConfig
from det_core.model.detector_config import DetectorConfig
from det_core.model.layer_config import GroupNormConfig
from det_core.recipe import DataConfig, OptimizerConfig, Recipe, RecipeEntry, ScheduleConfig
from det_plugin_fpn.config import FPNConfig
from det_plugin_rcnn.config import ConvMaskHeadConfig, FCBoxHeadConfig, RCNNHeadConfig, RPNConfig
from det_plugin_rcnn.zoo import ROWS, SUMMARIES, Row, zoo_recipe
from det_plugin_resnet.config import ResNetConfig


def demo_recipe(model: str) -> Recipe:
    """A small model that learns the bundled sample from random weights on a CPU in minutes."""
    norm = GroupNormConfig(groups=16)
    recipe = zoo_recipe(Row(model, "r50", "fpn", "1x"))
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


ENTRIES = (
    *(
        RecipeEntry(
            name=row.name,
            make=partial(zoo_recipe, row),
            published=row.published,
            default=row.name == "mask-rcnn/r50-fpn-1x",
            summary=SUMMARIES[row.model],
        )
        for row in ROWS
    ),
    *(
        RecipeEntry(
            name=f"{model}/r18-fpn-demo",
            make=partial(demo_recipe, model),
            demo=model == "mask-rcnn",
            summary=f"{SUMMARIES[model]}, small, on the bundled sample",
        )
        for model in ("rpn", "faster-rcnn", "mask-rcnn")
    ),
)
