"""A small model with these layers that learns the bundled sample from random weights on a CPU in minutes."""

from __future__ import annotations

from det_core.recipe import Recipe
from det_core.settings import evolve
from det_plugin_fpn.config import FPNConfig
from det_plugin_gn_ws_dcn.config import DeformConv2dConfig, WSConv2dConfig
from det_plugin_rcnn import demos
from det_plugin_resnet.config import ResNetConfig


def demo_recipe() -> Recipe:
    """Faster R-CNN's demo, which has group norm, with standardised weights and modulated deformable convolutions."""
    plain = demos.demo_recipe("faster-rcnn")
    backbone, neck = plain.detector.backbone, plain.detector.neck
    assert isinstance(backbone, ResNetConfig)
    assert isinstance(neck, FPNConfig)
    conv = WSConv2dConfig()
    detector = evolve(
        plain.detector,
        backbone=evolve(backbone, conv=conv, spatial_conv=DeformConv2dConfig(modulated=True)),
        neck=evolve(neck, conv=conv),
    )
    return evolve(plain, name="faster-rcnn/r18-fpn-gn-ws-mdconv-demo", detector=detector)
