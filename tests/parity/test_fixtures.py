"""Small outputs of single functions of other projects, `fixtures.json`: anchors, boxes, pasted masks, resized sizes.

Boxes of mmdet 0.x name their last pixel, so x2 and y2 are one less than here.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import det_ops
from det_core.boxes.box_config import DeltaCoderConfig, GridAnchorsConfig
from det_core.boxes.coders import DeltaCoder
from det_core.boxes.overlaps import box_iou
from det_core.data.data_config import ResizeConfig
from det_core.data.transforms import Resize
from det_core.settings import evolve
from det_core.weights.detectron2_names import sorted_by_ratio
from det_plugin_guided_anchoring.config import GuidedAnchorsConfig, RetinaNetGuidedAnchorsConfig
from det_plugin_retinanet.config import OCTAVE
from det_plugin_ssd.anchors import SSDAnchors
from det_plugin_ssd.config import COCO_300, COCO_512, VOC_300, VOC_512

FIXTURES: dict[str, Any] = json.loads((Path(__file__).parent / "fixtures.json").read_text(encoding="utf8"))
CPU = torch.device("cpu")
ANCHORS = {
    "mmdet_rpn_fpn": GridAnchorsConfig(rule="mmdet1"),
    "mmdet_retinanet": GridAnchorsConfig(scales=OCTAVE, rule="mmdet1"),
    "mmdet_ga_square_rpn": GuidedAnchorsConfig(anchor_rule="mmdet1").squares(),
    "mmdet_ga_square_retina": RetinaNetGuidedAnchorsConfig(anchor_rule="mmdet1").squares(),
    "mmdet_ga_approx_rpn": GuidedAnchorsConfig(anchor_rule="mmdet1").approximate(),
    "detectron_rpn_fpn": GridAnchorsConfig(rule="detectron"),
}
C4 = GridAnchorsConfig(scales=(2.0, 4.0, 8.0, 16.0, 32.0), rule="mmdet1")


def half_open(boxes: object) -> Tensor:
    """Boxes (..., 4) that end after the last pixel which they name."""
    return torch.tensor(boxes, dtype=torch.float32) + torch.tensor([0.0, 0.0, 1.0, 1.0])


@pytest.mark.parametrize("name", ANCHORS)
def test_base_anchors(name: str) -> None:
    expected = FIXTURES["base_anchors"][name]
    for stride, boxes in expected.items():
        (level,) = ANCHORS[name].build((int(stride),))([(1, 1)], CPU)
        assert torch.equal(level.boxes, half_open(boxes)), stride


def test_base_anchors_of_detectron() -> None:
    (level,) = evolve(C4, rule="detectron").build((16,))([(1, 1)], CPU)
    assert torch.equal(level.boxes, half_open(FIXTURES["base_anchors"]["detectron_rpn_c4_s16"]))
    retinanet = GridAnchorsConfig(scales=OCTAVE, rule="detectron")
    (change,) = sorted_by_ratio(retinanet, (2, 0, 1))
    for stride, boxes in FIXTURES["base_anchors"]["detectron_retinanet_size_outer"].items():
        (level,) = retinanet.build((int(stride),))([(1, 1)], CPU)
        assert torch.allclose(level.boxes, change.apply(half_open(boxes))), stride
        benchmark = FIXTURES["base_anchors"]["mrb_retinanet_ratio_outer"][stride]
        assert torch.allclose(level.boxes, half_open(benchmark)), stride


@pytest.mark.parametrize(
    ("name", "order", "sizes"),
    [("c4_5x3", None, 5), ("retinanet_3x3", None, 3), ("detectron_retinanet_ratios_1_2_half", (2, 0, 1), 3)],
)
def test_orders_of_anchors(name: str, order: tuple[int, ...] | None, sizes: int) -> None:
    (change,) = sorted_by_ratio(GridAnchorsConfig(scales=tuple(range(1, sizes + 1))), order)
    assert change.apply(torch.arange(3 * sizes)).tolist() == FIXTURES["anchor_permutation"][name]


def test_base_anchors_of_c4_and_their_grid() -> None:
    (level,) = C4.build((16,))([(1, 1)], CPU)
    assert torch.equal(level.boxes, half_open(FIXTURES["base_anchors"]["mmdet_rpn_c4_s16"]))
    (level,) = ANCHORS["mmdet_rpn_fpn"].build((16,))([(2, 3)], CPU)
    assert torch.equal(level.boxes, half_open(FIXTURES["grid_mmdet_s16_2x3"]))


@pytest.mark.parametrize(
    ("name", "config", "strides"),
    [
        ("mmdet_ssd300_coco", COCO_300, (8, 16, 32, 64, 100, 300)),
        ("mmdet_ssd300_voc", VOC_300, (8, 16, 32, 64, 100, 300)),
        ("mmdet_ssd512_coco", COCO_512, (8, 16, 32, 64, 128, 256, 512)),
        ("mmdet_ssd512_voc", VOC_512, (8, 16, 32, 64, 128, 256, 512)),
    ],
)
def test_anchors_of_ssd(name: str, config: Any, strides: tuple[int, ...]) -> None:
    levels = SSDAnchors(evolve(config, rule="mmdet1"), strides)([(1, 1)] * len(strides), CPU)
    for level, boxes in zip(levels, FIXTURES["base_anchors"][name], strict=True):
        assert torch.equal(level.boxes, half_open(boxes))


def test_decoding_and_encoding_are_those_of_inclusive_boxes() -> None:
    given = FIXTURES["coder"]
    config = DeltaCoderConfig(stds=given["stds"], border="pixel")
    coder, boxes = DeltaCoder(config), half_open(given["boxes"])
    deltas, size = torch.tensor(given["deltas"]), tuple(given["image_hw"])
    assert torch.allclose(coder.decode(boxes, deltas, size), half_open(given["mmdet_decode"]), atol=1e-3)
    assert torch.allclose(coder.decode(boxes, deltas), half_open(given["mmdet_decode_noclip"]), atol=1e-3, rtol=1e-5)
    plain = DeltaCoder(evolve(config, clip_shrinking=False))
    assert torch.allclose(plain.decode(boxes, deltas, size), half_open(given["detectron_decode"]), atol=1e-3)
    assert torch.allclose(coder.encode(boxes, half_open(given["gt"])), torch.tensor(given["mmdet_encode"]), atol=1e-4)


def test_overlaps_are_those_of_inclusive_boxes() -> None:
    given = FIXTURES["iou"]
    found = box_iou(half_open(given["a"]), half_open(given["b"]))
    assert torch.allclose(found, torch.tensor(given["mmdet"]), atol=1e-6)


def test_levels_are_those_of_inclusive_boxes() -> None:
    given = FIXTURES["roi_levels"]
    rois = torch.tensor([[0.0, 0.0, 0.0, side, side] for side in given["side_plus_1"]])
    assert det_ops.roi_levels(rois, 4).tolist() == given["mmdet"]


def pasted(boxes: Tensor, rule: str) -> list[list[int]]:
    """The runs of the fixture's mask in each box, column by column, those of 0 first."""
    y, x = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    mask = (3 * torch.cos((y - 13.5) / 6) * torch.cos((x - 12) / 7) - 0.8).sigmoid()
    bitmaps = det_ops.paste_masks(mask.expand(len(boxes), 28, 28), boxes, FIXTURES["mask_paste"]["image_hw"], rule=rule)
    runs = []
    for bitmap in bitmaps:
        pixels = [0, *bitmap.T.flatten().int().tolist()]
        lengths = [len(list(same)) for _, same in itertools.groupby(pixels)]
        runs.append([lengths[0] - 1, *lengths[1:]])
    return runs


def test_masks_pasted_by_whole_pixels() -> None:
    given = FIXTURES["mask_paste"]
    assert pasted(half_open(given["boxes_original"]), "quantised") == given["mmdet1"]


@pytest.mark.parametrize("source", ["detectron", "mrb"])
def test_masks_pasted_with_a_border_up_to_the_last_pixel(source: str) -> None:
    given = FIXTURES["mask_paste"]
    assert pasted(torch.tensor(given["boxes_original"]), "resized") == given[source]


def test_resized_sizes_of_maskrcnn_benchmark() -> None:
    resize = Resize(ResizeConfig(scales=((1333, 800),), rounding="short", boxes="pixels_by_axis"))
    for case in FIXTURES["resize_hw"]:
        size, new = tuple(case["hw"]), tuple(case["mrb"])
        assert resize.target(size, (1333, 800)) == new
        assert resize.pixel_scale(size, new, (1333, 800)) == (new[0] / size[0], new[1] / size[1])


def test_resized_sizes_and_the_one_factor_of_boxes() -> None:
    resize = Resize(ResizeConfig(scales=((1333, 800),), boxes="pixels"))
    for case in FIXTURES["resize_hw"]:
        size, (height, width, factor) = tuple(case["hw"]), case["mmdet"]
        assert resize.target(size, (1333, 800)) == (height, width)
        assert resize.pixel_scale(size, (height, width), (1333, 800)) == pytest.approx((factor, factor))
