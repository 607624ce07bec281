"""A small Hybrid Task Cascade that learns the bundled sample from random weights on a CPU in minutes."""

from __future__ import annotations

from det_core.recipe import Recipe
from det_core.settings import evolve
from det_plugin_cascade.config import CascadeHeadConfig
from det_plugin_cascade.demos import demo_recipe as cascade_demo
from det_plugin_htc.config import HTCHeadConfig, SemanticBranchConfig


def demo_recipe(model: str) -> Recipe:
    """The demo of Cascade Mask R-CNN, interleaved, with information flow and (`htc`) nuclei against background."""
    cascade = cascade_demo("cascade-mask-rcnn")
    head = cascade.detector.roi_head
    assert isinstance(head, CascadeHeadConfig)
    htc = HTCHeadConfig(
        box_head=head.box_head,
        mask_roi_pool=head.mask_roi_pool,
        mask_head=head.mask_head,
        stages=head.stages,
        semantic=SemanticBranchConfig(classes=2, num_convs=2) if model == "htc" else None,
    )
    return evolve(cascade, name=f"{model}/r18-fpn-demo", detector=evolve(cascade.detector, roi_head=htc))
