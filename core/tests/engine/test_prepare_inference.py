"""A detector made for inference: the same parts and tensors, convolutions fixed, what cannot be fixed left alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from det_core import Detector, DetectorConfig, for_inference
from det_core.model.fold_batch_norm import FixedConv2d
from det_core.structures import Batch, ImageInfo
from det_plugin_fpn import FPNConfig
from det_plugin_rcnn import RPNConfig
from det_plugin_resnet import ResNetConfig


@pytest.fixture
def detector() -> Detector:
    torch.manual_seed(0)
    config = DetectorConfig(
        backbone=ResNetConfig(depth=18, pretrained=None), neck=FPNConfig(channels=16), dense_head=RPNConfig(channels=16)
    )
    return config.build(num_classes=3)


def batch_of(*sizes: tuple[int, int]) -> Batch:
    infos = tuple(ImageInfo(size=size, original_size=size) for size in sizes)
    return Batch(images=torch.randn(len(sizes), 3, 96, 128), infos=infos)


def test_the_same_detections_in_turns_with_other_sizes(detector: Detector) -> None:
    fixed = for_inference(detector)
    for batch in (batch_of((90, 128)), batch_of((96, 100), (64, 128)), batch_of((90, 128))):
        for one, other in zip(detector.predict(batch), fixed.predict(batch), strict=True):
            torch.testing.assert_close(one.boxes, other.boxes, atol=1e-3, rtol=1e-4)
            torch.testing.assert_close(one.scores, other.scores, atol=1e-5, rtol=1e-4)


def test_it_shares_all_tensors_and_leaves_the_detector_as_it_was(detector: Detector) -> None:
    kinds = [type(m) for m in detector.modules()]
    fixed = for_inference(detector)
    assert [type(m) for m in detector.modules()] == kinds
    assert not detector.training
    ours, theirs = detector.state_dict(), fixed.state_dict()
    assert list(ours) == list(theirs)
    assert all(ours[name].data_ptr() == theirs[name].data_ptr() for name in ours)
    assert {type(m) for m in fixed.modules() if isinstance(m, nn.Conv2d)} == {FixedConv2d}
    detector.train()
    with pytest.raises(TypeError, match="made for inference"):
        fixed.train()


def test_watched_compiled_and_shared_parts(detector: Detector) -> None:
    assert isinstance(detector.backbone.conv1, nn.Conv2d)
    seen: list[object] = []
    detector.backbone.conv1.register_forward_hook(lambda *_: seen.append(1))
    assert detector.neck is not None
    detector.neck.compile(backend="eager")
    detector.backbone.again = detector.backbone.layer1
    fixed = for_inference(detector)
    assert fixed.backbone.conv1 is detector.backbone.conv1
    assert fixed.neck is detector.neck
    assert fixed.backbone.again is fixed.backbone.layer1 is not detector.backbone.layer1
    with torch.no_grad():
        fixed.backbone(torch.randn(1, 3, 64, 64))
    assert seen


def test_making_it_twice_changes_nothing(detector: Detector) -> None:
    once = for_inference(detector)
    batch = batch_of((96, 128))
    again = for_inference(once)
    assert torch.equal(once.predict(batch)[0].boxes, again.predict(batch)[0].boxes)
