"""Tiny detectors of every kind here, with images, targets and gradients to try them on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from attrs import evolve
from torch import Tensor

from det_core.boxes.box_config import GridAnchorsConfig
from det_core.model.detector import Detector
from det_core.model.detector_config import DetectorConfig
from det_core.model.layer_config import GroupNormConfig, RoIAlignConfig
from det_core.specs import FeatureSpec, ProposalLimits
from det_core.structures import Batch, Targets
from det_core.testing import contract_checks, tiny_inputs
from det_plugin_fpn.config import FPNConfig
from det_plugin_rcnn.config import ConvMaskHeadConfig, FCBoxHeadConfig, RCNNHeadConfig, RPNConfig
from det_plugin_resnet.config import ResNetConfig

WIDTH = tiny_inputs.PYRAMID.channels[0]
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
    return tiny_inputs.make_batch(count, (64, 96), last_size=(56, 80), scale=(0.5, 0.25), seed=1)


def make_features(batch: Batch, spec: FeatureSpec = tiny_inputs.PYRAMID) -> list[Tensor]:
    return tiny_inputs.make_features(spec, batch, seed=3)


@pytest.fixture(scope="session")
def tiny() -> Any:
    """The helpers of this file, since tests are no package to import them from."""
    return _Tiny


class _Tiny:
    levels, rpn, faster, mask = tiny_inputs.PYRAMID, RPN, FASTER, MASK
    config: Callable[..., DetectorConfig] = staticmethod(tiny_config)
    build: Callable[..., Detector] = staticmethod(build)
    batch: Callable[..., Batch] = staticmethod(make_batch)
    targets: Callable[..., list[Targets]] = staticmethod(tiny_inputs.random_targets)
    features: Callable[..., list[Tensor]] = staticmethod(make_features)
    backward: Callable[..., dict[str, float]] = staticmethod(contract_checks.check_backward)
