"""A small RetinaNet that learns the bundled sample from random weights on a CPU in minutes."""

from __future__ import annotations

from det_core.boxes.config import GridAnchorsConfig
from det_core.model.detector_config import DetectorConfig
from det_core.model.layer_config import GroupNormConfig
from det_core.recipe import Recipe
from det_core.settings import evolve
from det_core.zoo import sample_recipe
from det_plugin_fpn.config import FPNConfig
from det_plugin_resnet.config import ResNetConfig
from det_plugin_resnet.zoo import BOXES
from det_plugin_retinanet.config import RetinaNetHeadConfig


def demo_recipe() -> Recipe:
    """Two convolutions per tower, with group norm, on P3-P6; nuclei are small, so are the anchors."""
    norm = GroupNormConfig(groups=16)
    return sample_recipe(
        "retinanet/r18-fpn-demo",
        DetectorConfig(
            backbone=ResNetConfig(depth=18, norm=norm, frozen_stages=-1),
            neck=FPNConfig(channels=64, start=1, levels=4, extra="conv_input", norm=norm),
            dense_head=RetinaNetHeadConfig(
                channels=64,
                num_convs=2,
                norm=norm,
                anchors=GridAnchorsConfig(scales=(2.0, 2.0 * 2 ** (1 / 2))),
            ),
        ),
        evolve(BOXES, every_epochs=10),
        lr=0.01,
    )
