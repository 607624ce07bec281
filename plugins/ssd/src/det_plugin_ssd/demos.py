"""A small SSD that learns the bundled sample from random weights on a CPU in minutes."""

from __future__ import annotations

from det_core.data.config import FlipConfig, ResizeConfig, SampleConfig
from det_core.evaluation.config import CocoEvaluatorConfig
from det_core.model.detector_config import DetectorConfig
from det_core.model.layer_config import GroupNormConfig
from det_core.recipe import DataConfig, EvaluationConfig, OptimizerConfig, Recipe, ScheduleConfig
from det_plugin_ssd.config import ExtraLevelConfig, SSDAnchorsConfig, SSDHeadConfig, SSDNeckConfig, VGGConfig

# Nuclei are small.
ANCHORS = SSDAnchorsConfig(sizes=(14.0, 28.0, 56.0, 112.0), ratios=((2.0,), (2.0,), (2.0,)))


def demo_recipe() -> Recipe:
    """A quarter of VGG's width, with group norm, and three levels."""
    norm = GroupNormConfig(groups=16)
    resize = ResizeConfig(scales=((320, 320),), keep_ratio=False)
    return Recipe(
        name="ssd/vgg16-demo",
        detector=DetectorConfig(
            backbone=VGGConfig(channels=16, norm=norm),
            neck=SSDNeckConfig(extra=(ExtraLevelConfig(channels=128, spacing=32),), norm=norm),
            dense_head=SSDHeadConfig(anchors=ANCHORS),
        ),
        data=DataConfig(
            train=SampleConfig(split="train"),
            val=SampleConfig(split="val"),
            train_transforms=(resize, FlipConfig(vertical_probability=0.5)),
            test_transforms=(resize,),
        ),
        optimizer=OptimizerConfig(lr=0.005, lr_batch=0, weight_decay=5e-4),
        schedule=ScheduleConfig(epochs=40, milestones=(30, 36), warmup_steps=20, warmup_factor=0.01, clip_norm=10.0),
        evaluation=EvaluationConfig(evaluators=(CocoEvaluatorConfig(kinds=("box",)),), every_epochs=20),
    )
