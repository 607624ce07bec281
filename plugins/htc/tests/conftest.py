"""Tiny heads of Hybrid Task Cascade of every kind, with images, targets and gradients to try them on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from attrs import evolve

from det_core.boxes.config import GridAnchorsConfig
from det_core.model.detector import Detector
from det_core.model.detector_config import DetectorConfig
from det_core.model.layer_config import GroupNormConfig, RoIAlignConfig
from det_core.specs import FeatureSpec, ProposalLimits
from det_core.structures import UNLABELLED, Batch, LossTerm, Targets
from det_core.testing import contracts
from det_plugin_cascade.config import THREE_STAGES, iou_stage
from det_plugin_fpn.config import FPNConfig
from det_plugin_htc.config import HTCHeadConfig, SemanticBranchConfig
from det_plugin_rcnn.config import ConvMaskHeadConfig, FCBoxHeadConfig, RPNConfig
from det_plugin_resnet.config import ResNetConfig

WIDTH = 16
LEVELS = FeatureSpec(channels=(WIDTH,) * 5, strides=(4, 8, 16, 32, 64))
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
    """That many objects in each image, with masks that fill their boxes, and maps of their classes; the rest is 5."""
    generator, targets = torch.Generator().manual_seed(2), []
    for info, count in zip(batch.infos, counts, strict=True):
        height, width = info.size
        size = 12 + torch.rand(count, 2, generator=generator) * 24
        corner = torch.rand(count, 2, generator=generator) * (torch.tensor([width, height]) - size)
        boxes, labels = torch.cat([corner, corner + size], 1), torch.arange(count) % num_classes
        masks = torch.zeros(count, height, width, dtype=torch.uint8)
        semantic = torch.full((height, width), 5)
        semantic[-20:] = UNLABELLED
        for mask, label, (x1, y1, x2, y2) in zip(masks, labels, boxes.round().int().tolist(), strict=True):
            mask[y1:y2, x1:x2] = 1
            semantic[y1:y2, x1:x2] = label
        targets.append(Targets(boxes=boxes, labels=labels, masks=masks, semantic=semantic))
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
    levels, htc, without, semantic, heads = LEVELS, HTC, WITHOUT, SEMANTIC, HEADS
    build, targets, backward = staticmethod(build), staticmethod(make_targets), staticmethod(backward)
    batch = staticmethod(contracts.make_batch)
    features = staticmethod(contracts.make_features)
    proposals = staticmethod(contracts.make_proposals)
