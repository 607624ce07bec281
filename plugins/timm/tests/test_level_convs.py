"""ViTDet's neck: its contract, its arithmetic, its errors, and a detector with it."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from det_core.errors import ConfigError
from det_core.load import load_recipe
from det_core.settings import evolve
from det_core.specs import FeatureSpec
from det_core.testing import contract_checks
from det_core.testing.tiny_inputs import STAGES, make_batch, make_targets
from det_plugin_timm.config import LevelConvsConfig, TimmConfig


@pytest.mark.parametrize("levels", [4, 6])
def test_the_contract_of_necks(levels: int) -> None:
    contract_checks.check_neck(LevelConvsConfig(channels=12, levels=levels), STAGES)


def test_each_map_is_convolved_alone() -> None:
    torch.manual_seed(0)
    neck = LevelConvsConfig(channels=6, levels=3).build(FeatureSpec(channels=(4, 8), strides=(8, 16)))
    features = [torch.randn(1, 4, 8, 6), torch.randn(1, 8, 4, 3)]
    fine, coarse, extra = neck(features)
    reduce, first, mix, second = neck.levels[1]
    wanted = second(F.conv2d(first(F.conv2d(features[1], reduce.weight)), mix.weight, padding=1))
    torch.testing.assert_close(coarse, wanted)
    torch.testing.assert_close(extra, coarse[:, :, ::2, ::2])
    changed = neck([features[0], features[1] + 1])
    assert torch.equal(changed[0], fine)  # no top-down path


def test_too_few_levels() -> None:
    message = r"levels: 3 output levels from 4 inputs \(strides \[4, 8, 16, 32\]\); give at least 4 levels"
    with pytest.raises(ConfigError, match=message):
        LevelConvsConfig(levels=3).feature_spec(STAGES)


def test_a_vit_with_it_trains_a_step() -> None:
    detector = evolve(
        load_recipe("faster-rcnn/r18-fpn-demo").detector,
        backbone=TimmConfig(name="vit_tiny_patch16_dinov3_qkvb"),
        neck=LevelConvsConfig(channels=64),
    )
    assert detector.feature_spec().strides == (4, 8, 16, 32, 64)
    torch.manual_seed(0)
    module = detector.build(num_classes=2).train()
    batch = make_batch()
    contract_checks.check_backward(module, module.losses(batch, make_targets(batch, 2)))
