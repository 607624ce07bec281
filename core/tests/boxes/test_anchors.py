"""Anchors by hand: their sizes, their order, their precision, and which cells count."""

from __future__ import annotations

import math

import pytest
import torch

from det_core.boxes.anchors import KeptAnchors, tile
from det_core.boxes.box_config import GridAnchorsConfig
from det_core.contracts import LevelAnchors
from det_core.slots import AnchorConfig

CPU = torch.device("cpu")


def level(config: GridAnchorsConfig, stride: int, size: tuple[int, int]) -> LevelAnchors:
    return config.build((stride,))([size], CPU)[0]


def test_one_cell_by_hand():
    anchors = level(GridAnchorsConfig(scales=(8.0,), ratios=(0.5, 1.0, 2.0)), 4, (1, 1)).boxes
    root = math.sqrt(2)
    expected = [
        [-16 * root, -8 * root, 16 * root, 8 * root],
        [-16, -16, 16, 16],
        [-8 * root, -16 * root, 8 * root, 16 * root],
    ]
    assert anchors.tolist() == [pytest.approx(row, rel=1e-6) for row in expected]


def test_a_ratio_is_height_over_width():
    x1, y1, x2, y2 = level(GridAnchorsConfig(scales=(1.0,), ratios=(4.0,)), 10, (1, 1)).boxes[0].tolist()
    assert (x2 - x1, y2 - y1) == pytest.approx((5, 20))


def test_in_a_cell_ratios_are_the_outer_order_and_scales_the_inner():
    anchors = level(GridAnchorsConfig(scales=(1.0, 2.0), ratios=(1.0, 4.0)), 8, (1, 1)).boxes
    sizes = (anchors[:, 2:] - anchors[:, :2]).tolist()
    assert sizes == [pytest.approx(s) for s in ([8, 8], [16, 16], [4, 16], [8, 32])]


def test_cells_of_a_map_that_is_not_square_go_row_by_row():
    found = level(GridAnchorsConfig(scales=(1.0, 2.0), ratios=(1.0,)), 4, (2, 3))
    assert found.boxes.shape == (2 * 3 * 2, 4)
    centres = ((found.boxes[:, :2] + found.boxes[:, 2:]) / 2).tolist()
    xy = [(0, 0), (4, 0), (8, 0), (0, 4), (4, 4), (8, 4)]
    assert centres == [[x, y] for x, y in xy for _ in range(2)]
    assert found.cells.tolist() == [[y // 4, x // 4] for x, y in xy for _ in range(2)]


def test_cells_begin_at_the_corner_without_half_a_stride():
    assert level(GridAnchorsConfig(scales=(1.0,), ratios=(1.0,)), 16, (1, 1)).boxes.tolist() == [[-8, -8, 8, 8]]


@pytest.mark.parametrize("default", [torch.float16, torch.bfloat16, torch.float64])
def test_anchors_are_float32_whatever_the_default_precision(default):
    expected = level(GridAnchorsConfig(), 64, (3, 40)).boxes
    torch.set_default_dtype(default)
    try:
        found = level(GridAnchorsConfig(), 64, (3, 40)).boxes
    finally:
        torch.set_default_dtype(torch.float32)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_anchors_are_float32_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        found = level(GridAnchorsConfig(), 64, (3, 40)).boxes
    assert torch.equal(found, level(GridAnchorsConfig(), 64, (3, 40)).boxes)


def test_valid_cells_begin_inside_the_padded_image():
    found = level(GridAnchorsConfig(scales=(1.0,), ratios=(1.0, 2.0)), 16, (4, 5))
    # A padded image of 33 x 64: rows at 0, 16, 32, columns at 0, 16, 32, 48; row 3 and column 4 begin outside.
    valid = found.valid((33, 64), 16).view(4, 5, 2)
    expected = torch.zeros(4, 5, 2, dtype=torch.bool)
    expected[:3, :4] = True
    assert torch.equal(valid, expected)


def test_all_cells_of_a_map_of_the_padded_size_are_valid():
    assert level(GridAnchorsConfig(), 32, (2, 3)).valid((64, 96), 32).all()


def test_every_level_has_its_own_stride():
    levels = GridAnchorsConfig(scales=(8.0,), ratios=(1.0,)).build((4, 8))([(2, 2), (1, 1)], CPU)
    assert [len(found.boxes) for found in levels] == [4, 1]
    assert levels[1].boxes.tolist() == [[-32, -32, 32, 32]]


def test_a_pyramid_of_800_by_1344_has_268569_anchors():
    strides = (4, 8, 16, 32, 64)
    sizes = [(200, 336), (100, 168), (50, 84), (25, 42), (13, 21)]
    generator = GridAnchorsConfig().build(strides)
    levels = generator(sizes, CPU)
    assert sum(len(found.boxes) for found in levels) == 268_569
    assert all(found.valid((800, 1344), s).all() for found, s in zip(levels, strides, strict=True))


def test_as_many_sizes_as_strides_are_needed():
    with pytest.raises(ValueError, match="zip"):
        GridAnchorsConfig().build((4, 8))([(1, 1)], CPU)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scales": ()}, r"scales: found \d values, expected at least 1"),
        ({"ratios": ()}, r"ratios: found \d values, expected at least 1"),
        ({"scales": (8.0, 0.0)}, r"scales\S*: found .+, expected .*above 0"),
        ({"sides": ()}, r"sides: found \d values, expected at least 1"),
        ({"sides": (0.0,)}, r"sides\S*: found .+, expected .*above 0"),
        ({"ratios": (-1.0,)}, r"ratios\S*: found .+, expected .*above 0"),
    ],
)
def test_settings_that_make_no_anchors_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        GridAnchorsConfig(**settings)


def test_rounded_anchors_have_whole_corners():
    (level,) = GridAnchorsConfig(rounded=True).build((4,))([(1, 1)], torch.device("cpu"))
    assert level.boxes.tolist() == [[-23, -11, 23, 11], [-16, -16, 16, 16], [-11, -23, 11, 23]]


def test_sides_in_pixels_are_the_same_on_every_level():
    config = GridAnchorsConfig(sides=(6.0, 10.0), ratios=(1.0, 4.0))
    assert config.anchors_per_cell() == 4
    fine, coarse = config.build((4, 8))([(1, 2), (1, 1)], CPU)
    assert coarse.boxes.tolist() == [
        [-3.0, -3.0, 3.0, 3.0],
        [-5.0, -5.0, 5.0, 5.0],
        [-1.5, -6.0, 1.5, 6.0],
        [-2.5, -10.0, 2.5, 10.0],
    ]
    assert torch.equal(fine.boxes[:4], coarse.boxes)
    assert torch.equal(fine.boxes[4:], coarse.boxes + torch.tensor([4.0, 0.0, 4.0, 0.0]))


def test_cells_spread_over_the_image():
    """A map of 3 rows on an image of 160 has them 53 apart, not the stride's 64; 4 columns of 256 are 64 apart."""
    config = GridAnchorsConfig(ratios=(1.0,), spacing="image")
    fine, coarse = config.build((32, 64))([(5, 8), (3, 4)], torch.device("cpu"))
    assert torch.equal(
        fine.boxes, GridAnchorsConfig(ratios=(1.0,)).build((32,))([(5, 8)], torch.device("cpu"))[0].boxes
    )
    centres = (coarse.boxes[:, :2] + coarse.boxes[:, 2:]) / 2
    assert centres[:, 0].unique().tolist() == [0, 64, 128, 192]
    assert centres[:, 1].unique().tolist() == [0, 53, 106]


def test_tiles_of_any_base():
    """Two base anchors on a map of 2 x 3, rows 10 and columns 20 apart, in the middle of cells."""
    base = torch.tensor([[-1.0, -2, 1, 2], [-3.0, -3, 3, 3]])
    found = tile(base, (10, 20), (2, 3), offset=0.5)
    assert found.boxes.shape == (12, 4)
    assert found.boxes[0].tolist() == [9, 3, 11, 7]
    assert found.boxes[1].tolist() == [7, 2, 13, 8]
    assert found.boxes[2].tolist() == [29, 3, 31, 7]  # the next column
    assert found.boxes[6].tolist() == [9, 13, 11, 17]  # the next row
    assert found.cells[[0, 1, 2, 6, 11]].tolist() == [[0, 0], [0, 0], [0, 1], [1, 0], [1, 2]]
    corner = tile(base, (10, 20), (2, 3))
    assert torch.equal(found.boxes - corner.boxes, torch.tensor([10.0, 5, 10, 5]).expand(12, 4))


def test_a_map_without_cells_has_no_anchors():
    found = tile(torch.zeros(3, 4), (8, 8), (0, 5))
    assert found.boxes.shape == (0, 4)
    assert found.cells.shape == (0, 2)


def test_anchors_are_alike_on_every_level_unless_told():
    assert GridAnchorsConfig(scales=(4.0, 8.0)).anchors_per_level(3) == (6, 6, 6)
    with pytest.raises(
        TypeError, match=r"abstract class AnchorConfig with abstract methods '?anchors_per_cell'?, '?build"
    ):
        AnchorConfig()


def test_anchors_of_the_latest_sizes_are_kept_and_are_those_that_would_be_made():
    config = GridAnchorsConfig(scales=(8.0,))
    anchors = config.build((4, 8))
    with torch.inference_mode():  # such a tensor could not be used in training
        first = anchors([(3, 4), (2, 2)], CPU)
    second = anchors([(3, 4), (2, 2)], CPU)
    assert [a.boxes is b.boxes for a, b in zip(first, second, strict=True)] == [True, True]
    assert not second[0].boxes.is_inference()
    other = anchors([(4, 3), (2, 2)], CPU)
    assert torch.equal(other[0].boxes, config.build((4,))([(4, 3)], CPU)[0].boxes)
    for side in range(1, KeptAnchors.LIMIT + 1):
        anchors([(side, 9), (2, 2)], CPU)
    assert anchors([(3, 4), (2, 2)], CPU)[0].boxes is not first[0].boxes
