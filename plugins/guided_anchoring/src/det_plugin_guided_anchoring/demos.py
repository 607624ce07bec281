"""A small GA-RetinaNet that learns the bundled sample from random weights on a CPU in minutes."""

from __future__ import annotations

from det_core.model.detector_config import DetectorConfig
from det_core.model.layer_config import GroupNormConfig
from det_core.recipe import Recipe
from det_core.settings import evolve
from det_core.zoo import sample_recipe
from det_plugin_fpn.config import FPNConfig
from det_plugin_guided_anchoring.config import GARetinaNetHeadConfig, RetinaNetGuidedAnchorsConfig
from det_plugin_resnet.config import ResNetConfig
from det_plugin_resnet.zoo import BOXES


def demo_recipe() -> Recipe:
    """Two convolutions per tower, with group norm, on P3-P6; nuclei are small, so are the squares."""
    norm = GroupNormConfig(groups=16)
    return sample_recipe(
        "ga-retinanet/r18-fpn-demo",
        DetectorConfig(
            backbone=ResNetConfig(depth=18, norm=norm, frozen_stages=-1),
            neck=FPNConfig(channels=64, start=1, levels=4, extra="conv_input", norm=norm),
            dense_head=GARetinaNetHeadConfig(
                channels=64,
                num_convs=2,
                norm=norm,
                guided=RetinaNetGuidedAnchorsConfig(base_scale=2.0),
            ),
        ),
        evolve(BOXES, every_epochs=10),
        lr=0.01,
    )
