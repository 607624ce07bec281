"""Tiny cascades of every kind, with images, targets and gradients to try them on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from attrs import evolve

from det_core.boxes.box_config import GridAnchorsConfig, RandomSamplerConfig
from det_core.model.detector import Detector
from det_core.model.detector_config import DetectorConfig
from det_core.model.layer_config import GroupNormConfig, RoIAlignConfig
from det_core.specs import ProposalLimits
from det_core.testing import contract_checks, tiny_inputs
from det_plugin_cascade.config import THREE_STAGES, CascadeHeadConfig, iou_stage
from det_plugin_fpn.config import FPNConfig
from det_plugin_rcnn.config import ConvMaskHeadConfig, FCBoxHeadConfig, RPNConfig
from det_plugin_resnet.config import ResNetConfig, ResNetStageConfig

WIDTH = tiny_inputs.PYRAMID.channels[0]
NORM = GroupNormConfig(groups=8)
RPN = RPNConfig(
    channels=WIDTH,
    anchors=GridAnchorsConfig(scales=(4.0,)),
    train_limits=ProposalLimits(before_nms=100, after_nms=50),
    test_limits=ProposalLimits(before_nms=60, after_nms=30),
)
BOX = CascadeHeadConfig(box_head=FCBoxHeadConfig(fc_channels=32, class_agnostic=True), score_threshold=0.0)
MASK = evolve(BOX, mask_roi_pool=RoIAlignConfig(size=14), mask_head=ConvMaskHeadConfig(num_convs=2, channels=8))
FEWER = tuple(evolve(s, sampler=RandomSamplerConfig(count=64, positive_fraction=0.25)) for s in THREE_STAGES)
C4 = CascadeHeadConfig(
    roi_pool=RoIAlignConfig(size=8, strides=(16,)),
    trunk=ResNetStageConfig(depth=18, norm=NORM),
    box_head=FCBoxHeadConfig(num_fcs=0, class_agnostic=True),
    stages=FEWER,
    score_threshold=0.0,
)
C4_MASK = evolve(C4, mask_head=ConvMaskHeadConfig(num_convs=0, channels=8))
# One stage, and four: the fourth as strict as the paper's ablation goes.
ONE, FOUR = THREE_STAGES[:1], (*THREE_STAGES, iou_stage(0.75, (0.025, 0.05), 0.125))
HEADS = {
    "box": BOX,
    "mask": MASK,
    "c4": C4,
    "c4 mask": C4_MASK,
    "one stage": evolve(MASK, stages=ONE),
    "four stages": evolve(MASK, stages=FOUR),
    "a box for each class": evolve(MASK, box_head=FCBoxHeadConfig(fc_channels=32)),
    "without the objects' own boxes": evolve(
        MASK, stages=tuple(evolve(s, add_ground_truth=False) for s in THREE_STAGES)
    ),
}


def build(head: CascadeHeadConfig, num_classes: int = 3) -> Detector:
    """A whole detector around the head, on a pyramid, or on one level where the head has a trunk."""
    config = DetectorConfig(
        backbone=ResNetConfig(depth=18, norm=NORM, frozen_stages=-1, stages=(3,) if head.trunk else (1, 2, 3, 4)),
        neck=None if head.trunk else FPNConfig(channels=WIDTH),
        dense_head=RPN,
        roi_head=head,
    )
    torch.manual_seed(0)
    return config.build(num_classes=num_classes).train()


@pytest.fixture(scope="session")
def tiny() -> Any:
    """The helpers of this file, since tests are no package to import them from."""
    return _Tiny


class _Tiny:
    levels, box, mask, c4, c4_mask, heads = tiny_inputs.PYRAMID, BOX, MASK, C4, C4_MASK, HEADS
    build, backward = staticmethod(build), staticmethod(contract_checks.check_backward)
    targets = staticmethod(tiny_inputs.random_targets)
    batch = staticmethod(tiny_inputs.make_batch)
    features = staticmethod(tiny_inputs.make_features)
    proposals = staticmethod(tiny_inputs.make_proposals)
