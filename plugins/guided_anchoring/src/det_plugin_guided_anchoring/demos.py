"""A small GA-RetinaNet that learns the bundled sample from random weights on a CPU in minutes."""

from __future__ import annotations

from attrs import evolve

from det_core.data.config import FlipConfig, ResizeConfig, SampleConfig
from det_core.model.detector_config import DetectorConfig
from det_core.model.layer_config import GroupNormConfig
from det_core.recipe import DataConfig, OptimizerConfig, Recipe, ScheduleConfig
from det_plugin_fpn.config import FPNConfig
from det_plugin_guided_anchoring.config import GARetinaNetHeadConfig, RetinaNetGuidedAnchorsConfig
from det_plugin_resnet.config import ResNetConfig
from det_plugin_resnet.zoo import BOXES


def demo_recipe() -> Recipe:
    """Two convolutions per tower, with group norm, on P3-P6; nuclei are small, so are the squares."""
    norm = GroupNormConfig(groups=16)
    resize = ResizeConfig(scales=((320, 320),))
    return Recipe(
        name="ga-retinanet/r18-fpn-demo",
        detector=DetectorConfig(
            backbone=ResNetConfig(depth=18, norm=norm, frozen_stages=-1),
            neck=FPNConfig(channels=64, start=1, levels=4, extra="conv_input", norm=norm),
            dense_head=GARetinaNetHeadConfig(
                channels=64,
                num_convs=2,
                norm=norm,
                guided=RetinaNetGuidedAnchorsConfig(base_scale=2.0),
            ),
        ),
        data=DataConfig(
            train=SampleConfig(split="train"),
            val=SampleConfig(split="val"),
            train_transforms=(resize, FlipConfig(vertical_probability=0.5)),
            test_transforms=(resize,),
        ),
        optimizer=OptimizerConfig(lr=0.01, lr_batch=0),
        schedule=ScheduleConfig(epochs=30, milestones=(22, 27), warmup_steps=20, warmup_factor=0.01, clip_norm=10.0),
        evaluation=evolve(BOXES, every_epochs=10),
    )
