"""SSD's anchors: by hand, in number, and where they do not fit."""

from __future__ import annotations

import math

import pytest
import torch
from attrs import evolve

from det_core.errors import ConfigError
from det_core.load import load_recipe
from det_core.testing import contract_checks
from det_plugin_ssd.config import COCO_300, COCO_512, VOC_300, VOC_512, SSDAnchorsConfig

CPU = torch.device("cpu")
STRIDES_300, SIZES_300 = (8, 16, 32, 64, 100, 300), (38, 19, 10, 5, 3, 1)
STRIDES_512, SIZES_512 = (8, 16, 32, 64, 128, 256, 512), (64, 32, 16, 8, 4, 2, 1)


def square(sizes: tuple[int, ...]) -> list[tuple[int, int]]:
    return [(size, size) for size in sizes]


@pytest.mark.parametrize(
    ("config", "strides", "sizes", "per_cell", "count"),
    [
        (COCO_300, STRIDES_300, SIZES_300, (4, 6, 6, 6, 4, 4), 8_732),
        (VOC_300, STRIDES_300, SIZES_300, (4, 6, 6, 6, 4, 4), 8_732),
        (COCO_512, STRIDES_512, SIZES_512, (4, 6, 6, 6, 6, 4, 4), 24_564),
        (VOC_512, STRIDES_512, SIZES_512, (4, 6, 6, 6, 6, 4, 4), 24_564),
    ],
    ids=["coco 300", "voc 300", "coco 512", "voc 512"],
)
def test_anchors_of_the_published_models(
    config: SSDAnchorsConfig,
    strides: tuple[int, ...],
    sizes: tuple[int, ...],
    per_cell: tuple[int, ...],
    count: int,
) -> None:
    contract_checks.check_config(config)
    levels = config.build(strides)(square(sizes), CPU)
    assert config.anchors_per_level(len(strides)) == per_cell
    assert [len(x.boxes) for x in levels] == [a * size * size for a, size in zip(per_cell, sizes, strict=True)]
    assert sum(len(x.boxes) for x in levels) == count
    assert all(level.boxes.dtype == torch.float32 for level in levels)
    side = strides[-1]
    assert all(level.valid((side, side), s).all() for level, s in zip(levels, strides, strict=True))
    smallest = [(level.boxes[0, 2] - level.boxes[0, 0]).item() for level in levels]
    assert smallest == pytest.approx(config.sizes[:-1])


def test_one_cell_by_hand() -> None:
    """Sizes 20 and 45 (their middle is 30), ratio 4: two squares, 40 x 10, 10 x 40, around (8, 8)."""
    config = SSDAnchorsConfig(sizes=(20.0, 45.0), ratios=((4.0,),))
    (level,) = config.build((16,))([(1, 1)], CPU)
    assert level.boxes.tolist() == [
        pytest.approx(box) for box in ([-2, -2, 18, 18], [-7, -7, 23, 23], [-12, 3, 28, 13], [3, -12, 13, 28])
    ]


def test_the_order_of_ratios_and_of_cells() -> None:
    """Wide before high, ratio after ratio; in a map of 2 x 3 row after row, each around its cell's middle."""
    config = SSDAnchorsConfig(sizes=(12.0, 12.0), ratios=((2.0, 3.0),))
    (level,) = config.build((10,))([(2, 3)], CPU)
    sides = (level.boxes[:, 2:] - level.boxes[:, :2])[:6]
    assert (sides[:, 0] / sides[:, 1]).tolist() == pytest.approx([1, 1, 2, 1 / 2, 3, 1 / 3])
    assert sides.prod(1).tolist() == pytest.approx([144.0] * 6, rel=1e-5)
    centres = (level.boxes[::6, :2] + level.boxes[::6, 2:]) / 2
    assert centres.tolist() == [[5, 5], [15, 5], [25, 5], [5, 15], [15, 15], [25, 15]]
    assert level.cells[::6].tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]


def test_longer_sides_are_cut() -> None:
    config = SSDAnchorsConfig(sizes=(20.0, 45.0), ratios=((4.0,),), longest=25.0)
    boxes = config.build((16,))([(1, 1)], CPU)[0].boxes
    sides = (boxes[:, 2:] - boxes[:, :2]).tolist()
    assert sides == [pytest.approx(side) for side in ([20, 20], [25, 25], [25, 10], [10, 25])]


def test_cells_may_divide_the_image() -> None:
    """Three columns of 320 pixels are 106.7 apart, whatever the level's stride; rows of 160 pixels 53.3."""
    config = SSDAnchorsConfig(sizes=(8.0, 16.0, 32.0), ratios=((), ()), spacing="image")
    fine, coarse = config.build((16, 107))([(10, 20), (3, 3)], CPU)
    centres = (coarse.boxes[::2, :2] + coarse.boxes[::2, 2:]) / 2
    assert centres[:3, 0].tolist() == pytest.approx([320 / 6, 160, 320 * 5 / 6])
    assert centres[::3, 1].tolist() == pytest.approx([160 / 6, 80, 160 * 5 / 6])
    plain = evolve(config, spacing="stride").build((16, 107))([(10, 20), (3, 3)], CPU)[0]
    assert torch.equal(fine.boxes, plain.boxes)


def test_a_level_may_have_squares_alone() -> None:
    config = SSDAnchorsConfig(sizes=(8.0, 18.0), ratios=((),))
    assert config.anchors_per_cell() == 2
    boxes = config.build((16,))([(1, 1)], CPU)[0].boxes
    assert (boxes[:, 2] - boxes[:, 0]).tolist() == pytest.approx([8, math.sqrt(8 * 18)])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sizes": (8.0, 16.0), "ratios": ((2.0,), (2.0,))}, r"sizes: found 2 sizes for 2 levels; give one per level"),
        ({"sizes": (8.0,), "ratios": ()}, r"sizes: found \d values, expected at least 2"),
        ({"sizes": (8.0, 0.0), "ratios": ((2.0,),)}, r"sizes\S*: found .+, expected .*above 0"),
        ({"sizes": (8.0, 16.0), "ratios": ((0.5,),)}, r"ratios\S*: found .+, expected .*above 1"),
        (
            {"sizes": (8.0, 16.0), "ratios": ((2.0,),), "spacing": "image", "rule": "mmdet1"},
            r"spacing: found 'image', but rule: mmdet1 requires whole strides; use 'stride'",
        ),
        ({"sizes": (8.0, 16.0), "ratios": ((2.0,),), "longest": 0.0}, r"longest\S*: found .+, expected .*above 0"),
    ],
)
def test_settings_that_make_no_anchors_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises((ValueError, ConfigError), match=message):
        SSDAnchorsConfig(**settings)  # type: ignore[arg-type]


def test_anchors_for_another_number_of_levels_are_refused() -> None:
    few = "detector.dense_head.anchors={type: ssd_anchors, sizes: [20, 40, 80], ratios: [[2], [2]]}"
    message = (
        r"detector\.dense_head\.anchors: 'ssd_anchors' has anchors for 2 levels, but there are 6; give `ratios` and"
    )
    with pytest.raises(ConfigError, match=message):
        load_recipe("ssd/vgg16-300-coco-120e", [few])


def test_a_head_that_shares_its_layers_takes_as_many_anchors_on_every_level() -> None:
    with pytest.raises(
        ConfigError, match=r"^anchors: 'ssd_anchors' has \[4, 6\] anchors per cell on different levels, b"
    ):
        COCO_300.anchors_per_cell()
    alike = SSDAnchorsConfig(sizes=(8.0, 16.0, 32.0), ratios=((2.0,), (3.0,)))
    assert alike.anchors_per_cell() == 4


def test_no_anchors_without_levels() -> None:
    with pytest.raises(ConfigError, match="anchors for 6 levels, but there are 1"):
        evolve(COCO_300, longest=300.0).build((8,))
