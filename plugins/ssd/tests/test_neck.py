"""The neck: levels of the published models, the normalised map by hand."""

from __future__ import annotations

import pytest
import torch

from det_core.errors import DetError
from det_core.model.layer_config import GroupNormConfig
from det_core.specs import FeatureSpec
from det_core.testing import contract_checks
from det_plugin_ssd.config import EXTRA_300, EXTRA_512, ExtraLevelConfig, SSDNeckConfig
from det_plugin_ssd.neck import L2Norm

INPUTS = FeatureSpec(channels=(8, 16), strides=(8, 16))
EXTRA = (ExtraLevelConfig(channels=8, spacing=32), ExtraLevelConfig(channels=4, spacing=64))


@pytest.mark.parametrize(
    "config",
    [
        SSDNeckConfig(extra=EXTRA),
        SSDNeckConfig(extra=EXTRA, norm=GroupNormConfig(groups=2)),
        SSDNeckConfig(extra=()),
        SSDNeckConfig(extra=EXTRA, separable=True, scale=None),
        SSDNeckConfig(extra=EXTRA, separable=True, norm=GroupNormConfig(groups=2)),
    ],
    ids=["plain", "group norm", "no further levels", "separable", "separable, group norm"],
)
def test_the_contract_of_necks(config: SSDNeckConfig) -> None:
    contract_checks.check_neck(config, INPUTS)


@pytest.mark.parametrize(
    ("extra", "sizes", "strides"),
    [
        (EXTRA_300, (38, 19, 10, 5, 3, 1), (8, 16, 32, 64, 100, 300)),
        (EXTRA_512, (64, 32, 16, 8, 4, 2, 1), (8, 16, 32, 64, 128, 256, 512)),
    ],
    ids=["300", "512"],
)
def test_levels_of_the_published_models(
    extra: tuple[ExtraLevelConfig, ...], sizes: tuple[int, ...], strides: tuple[int, ...]
) -> None:
    spec = FeatureSpec(channels=(512, 1024), strides=(8, 16))
    config = SSDNeckConfig(extra=extra)
    with torch.device("meta"):
        maps = config.build(spec)([torch.zeros(1, 512, sizes[0], sizes[0]), torch.zeros(1, 1024, sizes[1], sizes[1])])
    assert [x.shape[-1] for x in maps] == list(sizes)
    assert config.feature_spec(spec).strides == strides
    assert config.feature_spec(spec).channels == (512, 1024, 512, *[256] * (len(sizes) - 3))


def test_an_input_too_small_for_the_last_levels_is_refused() -> None:
    neck = SSDNeckConfig().build(INPUTS)
    message = r"the neck's extra\[2\] has a kernel of 3, but its input is 2 x 5; resize to larger images, or rem"
    with pytest.raises(DetError, match=message):
        neck([torch.zeros(1, 8, 16, 36), torch.zeros(1, 16, 8, 18)])
    assert [x.shape[-1] for x in neck([torch.zeros(1, 8, 34, 34), torch.zeros(1, 16, 17, 17)])] == [34, 17, 9, 5, 3, 1]


def test_the_finest_map_is_normalised_and_the_next_is_not() -> None:
    """A pixel (3, 4) has length 5: (.6, .8) remain, times 20."""
    neck = SSDNeckConfig(extra=()).build(FeatureSpec(channels=(2, 1), strides=(8, 16)))
    fine = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1).expand(1, 2, 2, 3)
    coarse = torch.randn(1, 1, 1, 2)
    first, second = neck([fine, coarse])
    assert torch.allclose(first, torch.tensor([12.0, 16.0]).view(1, 2, 1, 1).expand(1, 2, 2, 3))
    assert torch.equal(second, coarse)


def test_without_a_scale_the_finest_map_stays() -> None:
    neck = SSDNeckConfig(extra=(), scale=None).build(INPUTS)
    maps = [torch.randn(1, 8, 4, 6), torch.randn(1, 16, 2, 3)]
    assert all(ours is given for ours, given in zip(neck(maps), maps, strict=True))
    assert list(neck.parameters()) == []


def test_a_separable_level_by_hand() -> None:
    """1x1 to half the channels, a depthwise convolution with the level's stride, 1x1; ReLUs end at 6."""
    neck = SSDNeckConfig(extra=EXTRA[:1], separable=True, scale=None).build(INPUTS)
    narrow, depthwise, wide = (layer.conv for layer in neck.extra[0])
    assert [(c.in_channels, c.out_channels, c.groups, c.stride[0]) for c in (narrow, depthwise, wide)] == [
        (16, 4, 1, 1),
        (4, 4, 4, 2),
        (4, 8, 1, 1),
    ]
    x = 40 * torch.randn(1, 16, 5, 7, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for conv in (narrow, depthwise, wide):
            conv.weight *= 20
        by_hand = x
        for conv in (narrow, depthwise, wide):
            by_hand = conv(by_hand).clamp(0, 6)
        found = neck([torch.zeros(1, 8, 10, 14), x])[-1]
    assert found.shape == (1, 8, 3, 4)
    assert found.max() == 6
    torch.testing.assert_close(found, by_hand)


def test_each_channel_has_its_factor() -> None:
    norm = L2Norm(2, scale=10.0)
    with torch.no_grad():
        norm.weight[1] = 5.0
    assert norm(torch.tensor([3.0, 4.0]).view(1, 2, 1, 1)).flatten().tolist() == pytest.approx([6.0, 4.0])


def test_a_pixel_of_zeros_stays_and_has_a_gradient() -> None:
    x = torch.zeros(1, 2, 1, 1, requires_grad=True)
    out = L2Norm(2, scale=20.0)(x)
    out.sum().backward()
    assert out.flatten().tolist() == [0.0, 0.0]
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precisions_are_normalised_in_float32(dtype: torch.dtype) -> None:
    """The length of such a pixel, 90510, is beyond float16."""
    x = torch.full((1, 512, 1, 1), 4000.0, dtype=dtype)
    with torch.autocast("cpu", torch.bfloat16):
        out = L2Norm(512, scale=20.0)(x)
    assert out.dtype == dtype
    assert torch.allclose(out.float(), torch.full((1, 512, 1, 1), 20 / 512**0.5), rtol=5e-3)


def test_double_precision_stays() -> None:
    assert L2Norm(2, scale=1.0).double()(torch.rand(1, 2, 1, 1).double()).dtype == torch.float64
