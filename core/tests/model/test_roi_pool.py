"""RoIAlign over levels: which level a region is pooled from, and what comes out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import det_ops
from det_core.errors import ConfigError
from det_core.model.layer_config import RoIAlignConfig
from det_core.model.roi_pool import RoIAlign
from det_core.settings import evolve
from det_core.specs import FeatureSpec, RegionSpec

PYRAMID = FeatureSpec(channels=(2,) * 5, strides=(4, 8, 16, 32, 64))


def rois(*boxes: tuple[float, float, float, float], image: int = 0) -> Tensor:
    return torch.tensor([[image, *box] for box in boxes], dtype=torch.float32)


def constant_maps(height: int = 512, width: int = 1024, images: int = 2) -> list[Tensor]:
    """Each level holds its number from 1 on, and ten times that in the second image."""
    maps = [torch.full((images, 2, height // s, width // s), level + 1.0) for level, s in enumerate(PYRAMID.strides)]
    for x in maps:
        x[1:] *= 10
    return maps


@pytest.mark.parametrize(
    ("side", "level"),
    [
        (0.0, 0),
        (1.0, 0),
        (56.0, 0),
        (111.9, 0),
        (112.0, 1),
        (223.9, 1),
        (224.0, 2),
        (447.9, 2),
        (448.0, 3),
        (5000.0, 3),
    ],
)
def test_the_level_of_a_square(side, level):
    pool = RoIAlignConfig().build(PYRAMID)
    assert pool.level_of(rois((10, 20, 10 + side, 20 + side))).tolist() == [level]


def test_the_level_goes_by_the_geometric_mean_of_the_sides():
    pool = RoIAlignConfig().build(PYRAMID)
    assert pool.level_of(rois((0, 0, 448, 28), (0, 0, 28, 448), (0, 0, 447, 28))).tolist() == [1, 1, 0]


def test_a_box_turned_inside_out_goes_to_the_finest_level():
    assert RoIAlignConfig().build(PYRAMID).level_of(rois((50, 50, 10, 60))).tolist() == [0]


def test_the_finest_scale_moves_the_borders():
    pool = RoIAlignConfig(finest_scale=28.0, strides=(4, 8)).build(PYRAMID)
    assert pool.level_of(rois((0, 0, 55.9, 55.9), (0, 0, 56, 56), (0, 0, 500, 500))).tolist() == [0, 1, 1]


def test_each_region_is_pooled_from_its_level_and_image_in_its_place():
    pool = RoIAlignConfig(size=3).build(PYRAMID)
    boxes = [(300, 20, 748, 468), (10, 10, 30, 50), (100, 100, 324, 324), (40, 40, 160, 160)]
    found = pool(constant_maps(), torch.cat([rois(*boxes), rois(*reversed(boxes), image=1)]))
    assert found.shape == (8, 2, 3, 3)
    expected = torch.tensor([4.0, 1, 3, 2, 20, 30, 10, 40])
    assert_close(found, expected[:, None, None, None].expand_as(found))


def test_levels_without_a_region_keep_a_gradient_path():
    maps = [x.requires_grad_() for x in constant_maps()]
    RoIAlignConfig().build(PYRAMID)(maps, rois((10, 10, 30, 50))).sum().backward()
    assert [x.grad is not None for x in maps] == [True, True, True, True, False]
    assert [bool((x.grad != 0).any()) for x in maps[:4]] == [True, False, False, False]


def test_no_regions_give_nothing_with_a_gradient_path():
    maps = [x.requires_grad_() for x in constant_maps()]
    found = RoIAlignConfig(size=5).build(PYRAMID)(maps, torch.zeros(0, 5))
    assert found.shape == (0, 2, 5, 5)
    found.sum().backward()
    assert all(x.grad is not None for x in maps[:4])


def test_one_level_takes_all_sizes():
    pool = RoIAlignConfig(strides=(16,), size=2).build(PYRAMID)
    found = pool(constant_maps(), rois((10, 10, 30, 50), (20, 20, 500, 500)))
    assert_close(found, torch.full_like(found, 3))


def test_x_goes_along_the_columns():
    ramp = torch.arange(8.0).expand(6, 8)[None, None]  # value = column
    pool = RoIAlignConfig(strides=(4,), size=2).build(FeatureSpec(channels=(1,), strides=(4,)))
    # x 8..24 in pixels is 2..6 in cells: bin centres at 3 and 5, less the half cell.
    assert pool([ramp], rois((8, 4, 24, 20)))[0, 0].tolist() == [[2.5, 4.5], [2.5, 4.5]]
    shifted = RoIAlignConfig(strides=(4,), size=2, alignment="unaligned").build(
        FeatureSpec(channels=(1,), strides=(4,))
    )
    assert shifted([ramp], rois((8, 4, 24, 20)))[0, 0].tolist() == [[3.0, 5.0], [3.0, 5.0]]


def test_the_maximum_of_a_bin_where_asked():
    ramp = torch.arange(8.0).expand(6, 8)[None, None]
    spec = FeatureSpec(channels=(1,), strides=(4,))
    found = RoIAlignConfig(strides=(4,), size=1, sampling=2, mode="max").build(spec)([ramp], rois((8, 4, 24, 20)))
    assert found.item() == 4.5  # samples at columns 3 and 5, less the half cell


def test_the_module_and_the_configuration_agree_on_what_comes_out():
    config = RoIAlignConfig(size=14)
    pool = config.build(PYRAMID)
    assert isinstance(pool, RoIAlign)
    assert pool.out == config.region_spec(PYRAMID) == RegionSpec(channels=2, size=(14, 14))


def test_a_stride_that_no_level_has_is_refused_with_those_there_are():
    with pytest.raises(ConfigError) as caught:
        RoIAlignConfig(strides=(4, 128)).region_spec(PYRAMID)
    assert str(caught.value) == (
        "roi_pool 'roi_align' requires a feature level of stride 128, but the levels have strides [4, 8, 16, 32, 64]"
    )


def test_levels_of_different_channels_are_refused():
    with pytest.raises(ConfigError, match="roi_pool 'roi_align' requires the same channel count at all levels"):
        RoIAlignConfig(strides=(4, 8)).region_spec(FeatureSpec(channels=(8, 16), strides=(4, 8)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0}, r"size\S*: found .+, expected .*at least 1"),
        ({"strides": ()}, r"strides: found \d values, expected at least 1"),
        ({"sampling": -1}, r"sampling\S*: found .+, expected .*at least 0"),
        ({"mode": "mean"}, r"mode\S*: found .+, allowed: "),
        ({"finest_scale": 0.0}, r"finest_scale\S*: found .+, expected .*above 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        RoIAlignConfig(**settings)


def test_v1_pools_the_same_points_without_a_least_size():
    """Of regions of at least a feature pixel, as `unaligned`; of smaller ones, only the points inside."""
    maps = [torch.arange(64 * 64.0).reshape(1, 1, 64, 64)]
    one = FeatureSpec(channels=(1,), strides=(4,))
    config = RoIAlignConfig(size=2, strides=(4,), sampling=2)
    pools = {name: evolve(config, alignment=name).build(one) for name in ("v1", "unaligned")}
    large, thin = rois((10, 20, 50, 90)), rois((40.0, 40.0, 41.0, 72.0))
    assert_close(pools["v1"](maps, large), pools["unaligned"](maps, large))
    left, right = pools["v1"](maps, thin)[0, 0, 0]
    assert_close(right - left, torch.tensor(0.125))  # half of a quarter of a feature pixel


def test_detectron_pools_up_to_the_last_pixel():
    """As `unaligned` of regions that end a pixel earlier; the level is that of the whole region."""
    maps = [torch.rand(1, 2, 64, 64), torch.rand(1, 2, 32, 32)]
    two = FeatureSpec(channels=(2, 2), strides=(4, 8))
    config = RoIAlignConfig(size=3, strides=(4, 8), sampling=2, level_rule="detectron")
    regions = rois((10, 20, 51, 91), (3, 4, 5, 6), (8.0, 8.0, 120.0, 120.0))  # the last is on the border of levels
    pool = evolve(config, alignment="detectron").build(two)
    assert pool.level_of(regions).tolist() == [0, 0, 1]
    shorter = regions - torch.tensor([0, 0, 0, 1.0, 1.0])
    expected = det_ops.multi_level_roi_align(
        maps, shorter, pool.level_of(regions), (3, 3), [1 / 4, 1 / 8], 2, "unaligned", "avg"
    )
    assert_close(pool(maps, regions), expected)
