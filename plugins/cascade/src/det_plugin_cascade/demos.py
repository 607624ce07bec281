"""Small cascades that learn the bundled sample from random weights on a CPU in minutes."""

from __future__ import annotations

from det_core.recipe import Recipe
from det_core.settings import evolve
from det_plugin_cascade.config import THREE_STAGES, CascadeHeadConfig
from det_plugin_rcnn import demos
from det_plugin_rcnn.config import FCBoxHeadConfig, RCNNHeadConfig


def demo_recipe(model: str) -> Recipe:
    """The demo of Faster or Mask R-CNN with three second stages in the place of one."""
    single = demos.demo_recipe({"cascade-rcnn": "faster-rcnn", "cascade-mask-rcnn": "mask-rcnn"}[model])
    head = single.detector.roi_head
    assert isinstance(head, RCNNHeadConfig)
    assert isinstance(head.box_head, FCBoxHeadConfig)
    cascade = CascadeHeadConfig(
        box_head=evolve(head.box_head, class_agnostic=True),
        mask_roi_pool=head.mask_roi_pool,
        mask_head=head.mask_head,
        stages=tuple(evolve(stage, sampler=head.sampler) for stage in THREE_STAGES),
    )
    return evolve(single, name=f"{model}/r18-fpn-demo", detector=evolve(single.detector, roi_head=cascade))
