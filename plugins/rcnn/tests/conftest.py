"""Tiny detectors of every kind here, with images, targets and gradients to try them on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from attrs import evolve
from torch import Tensor

from det_core.boxes.config import GridAnchorsConfig
from det_core.model.detector import Detector
from det_core.model.detector_config import DetectorConfig
from det_core.model.layer_config import GroupNormConfig, RoIAlignConfig
from det_core.specs import FeatureSpec, ProposalLimits
from det_core.structures import Batch, ImageInfo, Key, LossTerm, Targets
from det_plugin_fpn.config import FPNConfig
from det_plugin_rcnn.config import ConvMaskHeadConfig, FCBoxHeadConfig, RCNNHeadConfig, RPNConfig
from det_plugin_resnet.config import ResNetConfig

WIDTH = 16
LEVELS = FeatureSpec(channels=(WIDTH,) * 5, strides=(4, 8, 16, 32, 64))
RPN = RPNConfig(
    channels=WIDTH,
    anchors=GridAnchorsConfig(scales=(4.0,)),
    train_limits=ProposalLimits(before_nms=100, after_nms=50),
    test_limits=ProposalLimits(before_nms=60, after_nms=30),
)
FASTER = RCNNHeadConfig(box_head=FCBoxHeadConfig(fc_channels=32), score_threshold=0.0)
MASK = evolve(FASTER, mask_roi_pool=RoIAlignConfig(size=14), mask_head=ConvMaskHeadConfig(num_convs=2, channels=8))
ROI_HEADS = {"rpn": None, "faster": FASTER, "mask": MASK}


def tiny_config(kind: str, *, roi_head: RCNNHeadConfig | None = None, rpn: RPNConfig = RPN) -> DetectorConfig:
    return DetectorConfig(
        backbone=ResNetConfig(depth=18, norm=GroupNormConfig(groups=8)),
        neck=FPNConfig(channels=WIDTH),
        dense_head=rpn,
        roi_head=roi_head or ROI_HEADS[kind],
    )


def build(config: DetectorConfig, num_classes: int = 3) -> Detector:
    torch.manual_seed(0)
    return config.build(num_classes=num_classes).train()


def make_batch(count: int = 2) -> Batch:
    """Images of a non-square padded size, the last one smaller, each at its own scale of the original."""
    sizes = [(64, 96)] * (count - 1) + [(56, 80)]
    infos = tuple(
        ImageInfo(size=(h, w), original_size=(2 * h, 4 * w), scale=(0.5, 0.25), key=Key(index=i), image_id=i)
        for i, (h, w) in enumerate(sizes)
    )
    return Batch(images=torch.randn(count, 3, 64, 96, generator=torch.Generator().manual_seed(1)), infos=infos)


def make_targets(batch: Batch, counts: tuple[int, ...], num_classes: int = 3) -> list[Targets]:
    """That many objects in each image, with masks that fill their boxes."""
    generator, targets = torch.Generator().manual_seed(2), []
    for info, count in zip(batch.infos, counts, strict=True):
        height, width = info.size
        size = 12 + torch.rand(count, 2, generator=generator) * 24
        corner = torch.rand(count, 2, generator=generator) * (torch.tensor([width, height]) - size)
        boxes = torch.cat([corner, corner + size], 1)
        masks = torch.zeros(count, height, width, dtype=torch.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.round().int().tolist(), strict=True):
            mask[y1:y2, x1:x2] = 1
        targets.append(Targets(boxes=boxes, labels=torch.arange(count) % num_classes, masks=masks))
    return targets


def make_features(batch: Batch, spec: FeatureSpec = LEVELS) -> list[Tensor]:
    generator, (height, width) = torch.Generator().manual_seed(3), batch.padded_size
    return [
        torch.randn(len(batch), c, -(-height // s), -(-width // s), generator=generator)
        for c, s in zip(spec.channels, spec.strides, strict=True)
    ]


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
    levels, rpn, faster, mask = LEVELS, RPN, FASTER, MASK
    config: Callable[..., DetectorConfig] = staticmethod(tiny_config)
    build: Callable[..., Detector] = staticmethod(build)
    batch: Callable[..., Batch] = staticmethod(make_batch)
    targets: Callable[..., list[Targets]] = staticmethod(make_targets)
    features: Callable[..., list[Tensor]] = staticmethod(make_features)
    backward: Callable[..., dict[str, float]] = staticmethod(backward)
