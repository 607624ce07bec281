"""Tiny heads of Hybrid Task Cascade of every kind, with images, targets and gradients to try them on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from attrs import evolve

from det_core.boxes.box_config import GridAnchorsConfig
from det_core.model.detector import Detector
from det_core.model.detector_config import DetectorConfig
from det_core.model.layer_config import GroupNormConfig, RoIAlignConfig
from det_core.specs import ProposalLimits
from det_core.structures import Batch, Targets
from det_core.testing import contract_checks, tiny_inputs
from det_plugin_cascade.config import THREE_STAGES, iou_stage
from det_plugin_fpn.config import FPNConfig
from det_plugin_htc.config import HTCHeadConfig, SemanticBranchConfig
from det_plugin_rcnn.config import ConvMaskHeadConfig, FCBoxHeadConfig, RPNConfig
from det_plugin_resnet.config import ResNetConfig

WIDTH = tiny_inputs.PYRAMID.channels[0]
NORM = GroupNormConfig(groups=8)
SEMANTIC = SemanticBranchConfig(classes=6, num_convs=2)
HTC = HTCHeadConfig(
    box_head=FCBoxHeadConfig(fc_channels=32, class_agnostic=True),
    mask_head=ConvMaskHeadConfig(num_convs=2, channels=8),
    semantic=SEMANTIC,
    score_threshold=0.0,
)
WITHOUT = evolve(HTC, semantic=None)
FOUR = (*THREE_STAGES, iou_stage(0.75, (0.025, 0.05), 0.125))
HEADS = {
    "htc": HTC,
    "without semantic": WITHOUT,
    "without interleaving": evolve(HTC, interleaved=False),
    "without flow": evolve(HTC, information_flow=False),
    "the last stage's masks": evolve(HTC, masks_of="last"),
    "a box for each class": evolve(HTC, box_head=FCBoxHeadConfig(fc_channels=32)),
    "semantic for boxes": evolve(HTC, semantic=evolve(SEMANTIC, fuse_masks=False)),
    "semantic for masks": evolve(HTC, semantic=evolve(SEMANTIC, fuse_boxes=False)),
    "semantic beside all": evolve(HTC, semantic=evolve(SEMANTIC, fuse_boxes=False, fuse_masks=False)),
    "masks from the boxes' pooling": evolve(HTC, mask_roi_pool=None),
    "semantic at stride 16": evolve(
        HTC, semantic=evolve(SEMANTIC, stride=16, norm=NORM, roi_pool=RoIAlignConfig(size=7, strides=(16,)))
    ),
    "one stage": evolve(HTC, stages=THREE_STAGES[:1]),
    "four stages": evolve(HTC, stages=FOUR),
    "without the objects' own boxes": evolve(
        HTC, stages=tuple(evolve(s, add_ground_truth=False) for s in THREE_STAGES)
    ),
}


def build(head: HTCHeadConfig, num_classes: int = 3) -> Detector:
    """A whole detector around the head."""
    rpn = RPNConfig(
        channels=WIDTH,
        anchors=GridAnchorsConfig(scales=(4.0,)),
        train_limits=ProposalLimits(before_nms=100, after_nms=50),
        test_limits=ProposalLimits(before_nms=60, after_nms=30),
    )
    config = DetectorConfig(
        backbone=ResNetConfig(depth=18, norm=NORM, frozen_stages=-1),
        neck=FPNConfig(channels=WIDTH),
        dense_head=rpn,
        roi_head=head,
    )
    torch.manual_seed(0)
    return config.build(num_classes=num_classes).train()


def make_targets(batch: Batch, counts: tuple[int, ...], num_classes: int = 3) -> list[Targets]:
    """That many objects in each image, with masks and maps of their classes; the rest is 5."""
    return tiny_inputs.random_targets(batch, counts, num_classes, semantic_background=5)


@pytest.fixture(scope="session")
def tiny() -> Any:
    """The helpers of this file, since tests are no package to import them from."""
    return _Tiny


class _Tiny:
    levels, htc, without, semantic, heads = tiny_inputs.PYRAMID, HTC, WITHOUT, SEMANTIC, HEADS
    build, backward = staticmethod(build), staticmethod(contract_checks.check_backward)
    targets = staticmethod(make_targets)
    batch = staticmethod(tiny_inputs.make_batch)
    features = staticmethod(tiny_inputs.make_features)
    proposals = staticmethod(tiny_inputs.make_proposals)
