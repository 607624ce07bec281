"""A small SSD that learns the bundled sample from random weights on a CPU in minutes."""

from __future__ import annotations

from det_core.evaluation.config import CocoEvaluatorConfig
from det_core.model.detector_config import DetectorConfig
from det_core.model.layer_config import GroupNormConfig
from det_core.recipe import EvaluationConfig, Recipe
from det_core.zoo import sample_recipe
from det_plugin_ssd.config import ExtraLevelConfig, SSDAnchorsConfig, SSDHeadConfig, SSDNeckConfig, VGGConfig

# Nuclei are small.
ANCHORS = SSDAnchorsConfig(sizes=(14.0, 28.0, 56.0, 112.0), ratios=((2.0,), (2.0,), (2.0,)))


def demo_recipe() -> Recipe:
    """A quarter of VGG's width, with group norm, and three levels."""
    norm = GroupNormConfig(groups=16)
    return sample_recipe(
        "ssd/vgg16-demo",
        DetectorConfig(
            backbone=VGGConfig(channels=16, norm=norm),
            neck=SSDNeckConfig(extra=(ExtraLevelConfig(channels=128, spacing=32),), norm=norm),
            dense_head=SSDHeadConfig(anchors=ANCHORS),
        ),
        EvaluationConfig(evaluators=(CocoEvaluatorConfig(kinds=("box",)),), every_epochs=20),
        lr=0.005,
        weight_decay=5e-4,
        epochs=40,
        keep_ratio=False,
    )
