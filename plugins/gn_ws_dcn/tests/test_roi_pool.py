"""Deformable RoI pooling: by the operator, level by level, and with levels or images without regions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import det_ops
from det_core.model.layer_config import RoIAlignConfig
from det_core.specs import FeatureSpec, RegionSpec
from det_core.testing import contract_checks
from det_core.weights.translate_names import translate
from det_plugin_gn_ws_dcn.config import DeformRoIPoolConfig
from det_plugin_gn_ws_dcn.roi_pool import DeformRoIPool, LevelPool
from det_plugin_rcnn.config import RCNNHeadConfig

SPEC = FeatureSpec(channels=(4, 4, 4), strides=(4, 8, 16))
STRIDES = (4, 8, 16)
# Sides of 30, 300, 130, 40 and 900: levels 0, 2, 1, 0, 2 with a finest scale of 56.
ROIS = torch.tensor(
    [
        [1, 3.0, 5.0, 33.0, 35.0],
        [0, 0.0, 0.0, 300.0, 300.0],
        [0, 10.0, 20.0, 140.0, 150.0],
        [0, 50.0, 7.0, 90.0, 47.0],
        [1, -300.0, -300.0, 600.0, 600.0],
    ],
    dtype=torch.float64,
)
LEVELS = (0, 2, 1, 0, 2)


def maps() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 4, 320 // s, 320 // s, generator=generator, dtype=torch.float64) for s in STRIDES]


def pool(*, fresh: bool = False, **settings: bool | int | float) -> DeformRoIPool:
    """A small one; its last layers random unless `fresh`."""
    torch.manual_seed(0)
    config = DeformRoIPoolConfig(size=3, strides=STRIDES, fc_channels=8, **settings)  # type: ignore[arg-type]
    module = config.build(SPEC).double()
    if not fresh:
        for part in module.modules():
            if isinstance(part, nn.Linear):
                nn.init.normal_(part.weight, std=0.3)
                nn.init.normal_(part.bias, std=0.3)
    return module


def by_hand(module: DeformRoIPool, level: int, features: Tensor, rois: Tensor) -> Tensor:
    """One level, layer by layer."""
    config, weights = module.config, dict(module.pools[level].named_parameters())

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def pooled(offset: Tensor | None) -> Tensor:
        scale = 1 / STRIDES[level]
        return det_ops.deform_roi_pool(features, rois, offset, (3, 3), scale, config.sampling, config.gamma)

    seen = pooled(None).reshape(len(rois), 4 * 9)
    offset = linear("offset_fc.4", linear("offset_fc.2", linear("offset_fc.0", seen).relu()).relu())
    out = pooled(offset.reshape(len(rois), 2, 3, 3))
    if config.modulated:
        mask = linear("mask_fc.2", linear("mask_fc.0", seen).relu()).sigmoid()
        out = out * mask.reshape(len(rois), 1, 3, 3)
    return out


def test_the_regions_are_on_the_levels_that_these_tests_think() -> None:
    assert det_ops.roi_levels(ROIS, 3, 56.0).tolist() == list(LEVELS)


@pytest.mark.parametrize("modulated", [False, True])
@pytest.mark.parametrize(("sampling", "gamma"), [(0, 0.1), (2, 0.4)])
def test_it_is_the_operator_by_level_in_the_order_of_the_regions(modulated, sampling, gamma) -> None:
    module = pool(modulated=modulated, sampling=sampling, gamma=gamma)
    features = maps()
    rows = [by_hand(module, level, features[level], ROIS[i : i + 1])[0] for i, level in enumerate(LEVELS)]
    found = module(features, ROIS)
    assert found.shape == (5, 4, 3, 3)
    torch.testing.assert_close(found, torch.stack(rows))
    order = torch.tensor([4, 2, 0, 3, 1])
    torch.testing.assert_close(module(features, ROIS[order]), found[order])


@pytest.mark.parametrize("modulated", [False, True])
def test_at_first_it_is_roi_align_modulated_half_of_it(modulated: bool) -> None:
    features = maps()
    plain = RoIAlignConfig(size=3, strides=STRIDES).build(SPEC)(features, ROIS)
    found = pool(fresh=True, modulated=modulated)(features, ROIS)
    torch.testing.assert_close(found, plain * 0.5 if modulated else plain)


def test_offsets_move_bins_by_a_share_of_the_region() -> None:
    """One pixel of the map is an offset of 1 / (gamma * 10 pixels) for a region of 10 x 10 pixels of the map."""
    module = pool(fresh=True, gamma=0.1)
    ramp = torch.arange(80.0, dtype=torch.float64).expand(1, 4, 80, 80)
    features = [ramp, *(m[:1] for m in maps()[1:])]
    roi = torch.tensor([[0, 80.0, 80.0, 120.0, 120.0]], dtype=torch.float64)
    before = module(features, roi)
    level = module.pools[0]
    assert isinstance(level, LevelPool)
    with torch.no_grad():
        level.offset_fc[-1].bias.view(2, 9)[0] = 2.0  # type: ignore[operator]
    torch.testing.assert_close(module(features, roi), before + 2.0)
    with torch.no_grad():
        level.offset_fc[-1].bias.view(2, 9)[1] = 3.0  # type: ignore[operator]
    torch.testing.assert_close(module(features, roi), before + 2.0)  # the ramp goes from left to right


@pytest.mark.parametrize("modulated", [False, True])
@pytest.mark.parametrize("rows", [(0, 1, 2, 3, 4), (0, 3), (1,), ()], ids=["all", "finest", "coarsest", "none"])
def test_gradients_reach_every_parameter_whatever_regions_there_are(modulated, rows) -> None:
    """Layers without a gradient would stop distributed training."""
    module = pool(modulated=modulated)
    features = [m.requires_grad_() for m in maps()]
    found = module(features, ROIS[list(rows)])
    assert found.shape == (len(rows), 4, 3, 3)
    found.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())
    moved = {
        level
        for level, part in enumerate(module.pools)
        if any(p.grad is not None and p.grad.any() for p in part.parameters())
    }
    assert moved == {LEVELS[row] for row in rows}


def test_gradients_are_those_of_differences() -> None:
    module = pool(modulated=True, sampling=1)
    features = [m[..., :12, :12].contiguous().requires_grad_() for m in maps()]
    assert torch.autograd.gradcheck(lambda *m: module(m, ROIS[:1]), features, fast_mode=True)


@pytest.mark.parametrize("modulated", [False, True])
def test_the_contract_of_a_roi_pool(modulated: bool) -> None:
    contract_checks.check_roi_pool(DeformRoIPoolConfig(size=3, fc_channels=8, modulated=modulated))


def test_under_autocast() -> None:
    module = pool(modulated=True).float()
    with torch.autocast("cpu", torch.bfloat16):
        assert module([m.bfloat16() for m in maps()], ROIS.float()).isfinite().all()


def test_levels_that_are_not_named_are_left_alone() -> None:
    config = DeformRoIPoolConfig(size=3, strides=(8, 16), fc_channels=8)
    module = config.build(SPEC)
    assert len(module.pools) == 2
    features = [m.float() for m in maps()]
    features[0] = features[0] * float("nan")
    assert module(features, ROIS.float()).isfinite().all()
    assert config.region_spec(SPEC) == module.out == RegionSpec(channels=4, size=(3, 3))


def test_the_reference_s_layers() -> None:
    """12544 -> 1024 -> 1024 -> 98, and -> 1024 -> 49, on each of four levels."""
    spec = FeatureSpec(channels=(256,) * 5, strides=(4, 8, 16, 32, 64))
    with torch.device("meta"):
        module = DeformRoIPoolConfig(modulated=True).build(spec)
    shapes = {name: tuple(p.shape) for name, p in module.named_parameters() if name.endswith("weight")}
    one = {
        "offset_fc.0": (1024, 12544), "offset_fc.2": (1024, 1024), "offset_fc.4": (98, 1024),
        "mask_fc.0": (1024, 12544), "mask_fc.2": (49, 1024),
    }  # fmt: skip
    assert shapes == {f"pools.{i}.{name}.weight": shape for i in range(4) for name, shape in one.items()}


def test_names_are_mmdets() -> None:
    head = RCNNHeadConfig(roi_pool=DeformRoIPoolConfig(modulated=True))
    names = {
        "roi_pool.pools.0.offset_fc.4.weight": "bbox_roi_extractor.roi_layers.0.offset_fc.4.weight",
        "roi_pool.pools.3.mask_fc.2.bias": "bbox_roi_extractor.roi_layers.3.mask_fc.2.bias",
    }
    assert {name: translate("mmdet", head, name) for name in names} == names


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0}, r"size\S*: found .+, expected .*at least 1"),
        ({"strides": ()}, r"strides: found \d values, expected at least 1"),
        ({"fc_channels": 0}, r"fc_channels\S*: found .+, expected .*at least 1"),
        ({"sampling": -1}, r"sampling\S*: found .+, expected .*at least 0"),
        ({"gamma": 0.0}, r"gamma\S*: found .+, expected .*above 0"),
        ({"finest_scale": 0.0}, r"finest_scale\S*: found .+, expected .*above 0"),
    ],
)
def test_settings_out_of_range(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        DeformRoIPoolConfig(**settings)


def test_a_stride_that_no_map_has() -> None:
    with pytest.raises(ValueError, match="deform_roi_pool"):
        DeformRoIPoolConfig(strides=(4, 128)).region_spec(SPEC)
