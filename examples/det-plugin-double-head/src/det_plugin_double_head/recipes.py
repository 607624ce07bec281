"""Recipes of this plugin. Listing them does not create them."""

from __future__ import annotations

from det_core.boxes.box_config import RandomSamplerConfig
from det_core.data.data_config import FlipConfig, ResizeConfig, SampleConfig
from det_core.evaluation.metric_config import CocoEvaluatorConfig
from det_core.model.detector_config import DetectorConfig
from det_core.model.layer_config import GroupNormConfig
from det_core.offers import RecipeEntry
from det_core.optim.learning_rate_config import StepRateConfig
from det_core.optim.optimizer_config import SGDConfig
from det_core.recipe import DataConfig, EvaluationConfig, Recipe, ScheduleConfig
from det_core.specs import ProposalLimits

from det_plugin_double_head.config import DoubleHeadConfig, PlainNetConfig

DEMO = "double-head/plain-fpn-demo"


def demo() -> Recipe:
    """A small model that trains on det's bundled sample from random weights in minutes on a CPU."""
    from det_plugin_fpn import FPNConfig
    from det_plugin_rcnn import RPNConfig

    limits, resize = ProposalLimits(before_nms=400, after_nms=200), ResizeConfig(scales=((320, 320),))
    return Recipe(
        name=DEMO,
        detector=DetectorConfig(
            backbone=PlainNetConfig(width=32),
            neck=FPNConfig(channels=64, norm=GroupNormConfig(groups=16)),
            dense_head=RPNConfig(channels=64, train_limits=limits, test_limits=limits),
            roi_head=DoubleHeadConfig(
                fc_channels=256,
                conv_channels=64,
                sampler=RandomSamplerConfig(count=96, positive_fraction=0.25),
            ),
        ),
        data=DataConfig(
            train=SampleConfig(split="train"),
            val=SampleConfig(split="val"),
            train_transforms=(resize, FlipConfig(vertical_probability=0.5)),
            test_transforms=(resize,),
        ),
        optimizer=SGDConfig(lr=0.02, lr_batch=0),
        schedule=ScheduleConfig(
            epochs=24,
            learning_rate=StepRateConfig(milestones=(18, 22)),
            warmup_steps=20,
            warmup_factor=0.01,
            clip_norm=10.0,
        ),
        evaluation=EvaluationConfig(evaluators=(CocoEvaluatorConfig(kinds=("box",)),), every_epochs=6),
    )


ENTRIES = (
    RecipeEntry(
        name=DEMO,
        make=demo,
        requires=("det-plugin-fpn", "det-plugin-rcnn"),
        default=True,
        demo=True,
        summary="boxes by a double head (Wu et al., 2020) on a plain backbone, small, on the bundled sample",
    ),
)
