"""Tiny cascades of every kind, with images, targets and gradients to try them on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from attrs import evolve

from det_core.boxes.config import GridAnchorsConfig, RandomSamplerConfig
from det_core.model.detector import Detector
from det_core.model.detector_config import DetectorConfig
from det_core.model.layer_config import GroupNormConfig, RoIAlignConfig
from det_core.specs import FeatureSpec, ProposalLimits
from det_core.structures import Batch, LossTerm, Targets
from det_core.testing import contracts
from det_plugin_cascade.config import THREE_STAGES, CascadeHeadConfig, iou_stage
from det_plugin_fpn.config import FPNConfig
from det_plugin_rcnn.config import ConvMaskHeadConfig, FCBoxHeadConfig, RPNConfig
from det_plugin_resnet.config import ResNetConfig, ResNetStageConfig

WIDTH = 16
LEVELS = FeatureSpec(channels=(WIDTH,) * 5, strides=(4, 8, 16, 32, 64))
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


def make_targets(batch: Batch, counts: tuple[int, ...], num_classes: int = 3) -> list[Targets]:
    """That many objects in each image, with masks that fill their boxes."""
    generator, targets = torch.Generator().manual_seed(2), []
    for info, count in zip(batch.infos, counts, strict=True):
        height, width = info.size
        size = 12 + torch.rand(count, 2, generator=generator) * 24
        corner = torch.rand(count, 2, generator=generator) * (torch.tensor([width, height]) - size)
        boxes = torch.cat([corner, corner + size], 1)
        masks = torch.zeros(count, *batch.padded_size, dtype=torch.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.round().int().tolist(), strict=True):
            mask[y1:y2, x1:x2] = 1
        targets.append(Targets(boxes=boxes, labels=torch.arange(count) % num_classes, masks=masks))
    return targets


def backward(module: torch.nn.Module, terms: Mapping[str, LossTerm]) -> dict[str, float]:
    """The losses as numbers, all finite, after checking that every trainable parameter got a finite gradient."""
    module.zero_grad(set_to_none=True)
    values = {name: term.value() for name, term in terms.items()}
    assert all(value.isfinite() for value in values.values()), values
    torch.stack(list(values.values())).sum().backward()
    trainable = {name: p for name, p in module.named_parameters() if p.requires_grad}
    assert [name for name, p in trainable.items() if p.grad is None] == []
    assert [name for name, p in trainable.items() if p.grad is not None and not p.grad.isfinite().all()] == []
    return {name: value.item() for name, value in values.items()}


@pytest.fixture(scope="session")
def tiny() -> Any:
    """The helpers of this file, since tests are no package to import them from."""
    return _Tiny


class _Tiny:
    levels, box, mask, c4, c4_mask, heads = LEVELS, BOX, MASK, C4, C4_MASK, HEADS
    build, targets, backward = staticmethod(build), staticmethod(make_targets), staticmethod(backward)
    batch = staticmethod(contracts.make_batch)
    features = staticmethod(contracts.make_features)
    proposals = staticmethod(contracts.make_proposals)
