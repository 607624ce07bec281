"""Pasting masks: by hand, equality of kernel, definition and codes, closeness to torch's own resampling, errors."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from op_samples import generator, native, reference
from torch.nn import functional as F

import det_ops
from det_ops.reference import masks as codes_of

INF, NAN = math.inf, math.nan
RULES = ("sampled", "resized", "quantised")
edge = st.one_of(
    st.floats(-20, 60, width=16),
    st.integers(-3, 50).map(float),
    st.integers(-3, 50).map(lambda x: x + 0.5),
    st.sampled_from([NAN, INF, -INF, 1e8, -1e8, 1e30, -3e38, 3e38]),
)


def with_grid_sample(masks, boxes, size, threshold):
    """The "sampled" rule as torch's `grid_sample` computes it: its values, nan outside the boxes."""
    height, width = size
    out = torch.full((len(masks), height, width), NAN, dtype=masks.dtype)
    corners = torch.stack([boxes[:, :2].floor() - 1, boxes[:, 2:].ceil() + 1], 1).long().tolist()
    for i, ((left, top), (right, bottom)) in enumerate(corners):
        left, right, top, bottom = max(left, 0), min(right, width), max(top, 0), min(bottom, height)
        x1, y1, x2, y2 = boxes[i].unbind()
        if left >= right or top >= bottom or not (x2 > x1 and y2 > y1):
            continue
        x, y = torch.arange(left, right, dtype=masks.dtype) + 0.5, torch.arange(top, bottom, dtype=masks.dtype) + 0.5
        x, y = (x - x1) / (x2 - x1) * 2 - 1, (y - y1) / (y2 - y1) * 2 - 1
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)[None]
        out[i, top:bottom, left:right] = F.grid_sample(masks[i][None, None], grid, align_corners=False)[0, 0]
    return out, out >= threshold


def with_interpolate(masks, boxes, size, threshold):
    """The "resized" rule as torch's `interpolate` computes it: its values, nan outside the boxes."""
    height, width = size
    side = masks.shape[-1]
    out = torch.full((len(masks), height, width), NAN, dtype=masks.dtype)
    middle, half = (boxes[:, :2] + boxes[:, 2:]) * 0.5, (boxes[:, 2:] - boxes[:, :2]) * (0.5 * ((side + 2) / side))
    padded = F.pad(masks, (1, 1, 1, 1))
    for i, (x1, y1, x2, y2) in enumerate(torch.cat([middle - half, middle + half], 1).long().tolist()):
        cells = (max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1))
        left, right, top, bottom = max(x1, 0), min(x2 + 1, width), max(y1, 0), min(y2 + 1, height)
        if left >= right or top >= bottom:
            continue
        resized = F.interpolate(padded[i][None, None], cells, mode="bilinear", align_corners=False)[0, 0]
        out[i, top:bottom, left:right] = resized[top - y1 : bottom - y1, left - x1 : right - x1]
    return out, out > threshold


def with_whole_pixels(masks, boxes, size, threshold):
    """The "quantised" rule as torch's `interpolate` computes it, which is OpenCV's: its values, nan outside."""
    height, width = size
    out = torch.full((len(masks), height, width), NAN, dtype=masks.dtype)
    for i, (x1, y1, x2, y2) in enumerate((boxes - boxes.new_tensor([0, 0, 1, 1])).long().tolist()):
        x2, y2 = max(x1, x2), max(y1, y2)
        left, right, top, bottom = max(x1, 0), min(x2 + 1, width), max(y1, 0), min(y2 + 1, height)
        if left >= right or top >= bottom:
            continue
        cells = (y2 - y1 + 1, x2 - x1 + 1)
        resized = F.interpolate(masks[i][None, None], cells, mode="bilinear", align_corners=False)[0, 0]
        out[i, top:bottom, left:right] = resized[top - y1 : bottom - y1, left - x1 : right - x1]
    return out, out > threshold


BY_TORCH = {"sampled": with_grid_sample, "resized": with_interpolate, "quantised": with_whole_pixels}


def scene(count, side, dtype=torch.float32, seed=0):
    """Random probabilities and boxes, some partly outside 40 x 50 pixels."""
    rng = generator(seed)
    masks = torch.rand(count, side, side, generator=rng, dtype=torch.float64).to(dtype)
    corner = torch.rand(count, 2, generator=rng, dtype=torch.float64) * 60 - 12
    extent = torch.rand(count, 2, generator=rng, dtype=torch.float64) * 30
    return masks, torch.cat([corner, corner + extent], 1).to(dtype)


def texts(codes, offsets):
    return [bytes(codes[a:b].tolist()) for a, b in itertools.pairwise(offsets.tolist())]


def coco_texts(bitmaps):
    coco_mask = pytest.importorskip("pycocotools.mask")
    return [coco_mask.encode(np.asfortranarray(bitmap.numpy().view(np.uint8)))["counts"] for bitmap in bitmaps]


def check(*arguments):
    """Kernel and definition agree, and codes are those of the bitmaps as COCO's library writes them."""
    found = native("paste_masks", *arguments)
    assert torch.equal(found, reference("paste_masks", *arguments))
    codes, offsets = native("paste_mask_codes", *arguments)
    assert texts(codes, offsets) == coco_texts(found)
    expected = reference("paste_mask_codes", *arguments)
    assert torch.equal(codes, expected[0])
    assert torch.equal(offsets, expected[1])
    assert (codes.dtype, offsets.dtype) == (torch.uint8, torch.int64)
    return found


@pytest.mark.parametrize("call", [native, reference])
@pytest.mark.parametrize("rule", RULES)
def test_by_hand(native_library, call, rule):
    masks = torch.tensor([[[1.0, 0.0], [1.0, 1.0]]])
    found = call("paste_masks", masks, torch.tensor([[1.0, 0.0, 3.0, 2.0]]), None, 3, 4, 0.5, rule)
    expected = {
        "sampled": [[0, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]],
        # 4 x 4 values with their border become pixels 0..4 and -1..3; those of one value have 0.7 of it.
        "resized": [[0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 1, 0]],
        "quantised": [[0, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]],  # the values themselves
    }[rule]
    assert found.dtype == torch.bool
    assert found[0].int().tolist() == expected


def by_centre(box, size):
    """(h, w) bool: the pixels whose centre lies inside the box, its edge included."""
    x1, y1, x2, y2 = box
    x, y = torch.arange(size[1]) + 0.5, torch.arange(size[0]) + 0.5
    return ((y >= y1) & (y <= y2))[:, None] & ((x >= x1) & (x <= x2))


@pytest.mark.parametrize(
    "box",
    [
        (2.0, 3.0, 9.0, 7.0),
        (2.4, 3.6, 9.6, 7.4),
        (-3.0, -2.0, 5.0, 4.0),
        (10.0, 5.0, 25.0, 14.0),
        (-5.0, -4.0, 30.0, 20.0),
        (3.2, 4.2, 3.9, 4.9),  # inside one pixel
    ],
)
def test_a_full_mask_fills_the_pixels_whose_centre_is_in_the_box(box):
    size = (10, 17)
    found = det_ops.paste_masks(torch.ones(1, 28, 28), torch.tensor([box]), size)
    assert found.shape == (1, *size)
    assert found.dtype == torch.bool
    assert torch.equal(found[0], by_centre(box, size))


def test_a_mask_of_the_boxs_size_comes_back_as_it_is():
    generator = torch.Generator().manual_seed(3)
    mask = torch.rand(8, 8, generator=generator)
    found = det_ops.paste_masks(mask[None], torch.tensor([[5.0, 2.0, 13.0, 10.0]]), (12, 20))[0]
    assert torch.equal(found[2:10, 5:13], mask >= 0.5)
    assert found.sum() == (mask >= 0.5).sum()


def test_rows_of_a_mask_go_down_and_columns_go_right():
    mask = torch.zeros(1, 2, 2)
    mask[0, 0, 1] = 1.0  # top right
    found = det_ops.paste_masks(mask, torch.tensor([[0.0, 0.0, 8.0, 4.0]]), (4, 8))[0].nonzero()
    assert (found[:, 0] < 2).all()
    assert (found[:, 1] >= 4).all()
    assert len(found) > 0


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.75])
def test_a_pixel_at_the_threshold_belongs_to_the_object(threshold):
    box = torch.tensor([[1.0, 1.0, 3.0, 3.0]])
    at = torch.full((1, 2, 2), threshold)
    assert det_ops.paste_masks(at, box, (4, 4), threshold).sum() == 4
    assert det_ops.paste_masks(at - 1e-3, box, (4, 4), threshold).sum() == 0


@pytest.mark.parametrize(
    "box",
    [(3.0, 3.0, 3.0, 6.0), (3.0, 3.0, 6.0, 3.0), (6.0, 6.0, 3.0, 3.0), (40.0, 3.0, 50.0, 6.0), (3.0, -9.0, 6.0, -4.0)],
)
def test_a_box_without_area_or_outside_the_image_has_no_pixels(box):
    found = det_ops.paste_masks(torch.ones(2, 28, 28), torch.tensor([box, (0.0, 0.0, 2.0, 2.0)]), (10, 17))
    assert found.flatten(1).sum(1).tolist() == [0, 4]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("side", [1, 2, 7, 28])
def test_torch_itself_decides_otherwise_only_at_the_threshold(native_library, side, dtype, rule):
    masks, boxes = scene(60, side, dtype)
    found = native("paste_masks", masks, boxes, None, 40, 50, 0.5, rule)
    values, expected = BY_TORCH[rule](masks, boxes, (40, 50), 0.5)
    differing = found != expected
    assert found.float().mean() > 0.005
    assert differing.float().mean() < 1e-4
    assert (values[differing] - 0.5).abs().max() < 1e-6 if differing.any() else True


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("side", [1, 2, 7, 28])
@pytest.mark.parametrize("threshold", [-0.1, 0.0, 0.5, 0.999, 1.0])
def test_kernel_definition_and_codes_are_equal(native_library, threshold, side, dtype, rule):
    masks, boxes = scene(20, side, dtype)
    masks[3:7] = (masks[3:7] > 0.5).to(dtype)
    masks[7], masks[8], masks[9], masks[10, 0, 0] = 0, 1, 0.5, NAN
    check(masks, boxes, None, 40, 50, threshold, rule)
    check(masks, boxes, torch.arange(20) % 2 == 0, 40, 50, threshold, rule)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(edge, edge, edge, edge), max_size=4),
    wide=st.booleans(),
    side=st.sampled_from([1, 2, 5]),
    size=st.sampled_from([(1, 1), (7, 50), (33, 20)]),
    threshold=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    rule=st.sampled_from(RULES),
    seed=st.integers(0, 99),
)
def test_hostile_boxes(native_library, rows, wide, side, size, threshold, rule, seed):
    boxes = torch.tensor(rows, dtype=torch.float64).reshape(-1, 4).to(torch.float64 if wide else torch.float32)
    masks = torch.rand(len(rows), side, side, generator=generator(seed))
    found = check(masks, boxes, None, *size, threshold, rule)
    assert not found[~boxes.isfinite().all(1)].any()


@pytest.mark.parametrize("call", [native, reference])
@pytest.mark.parametrize("rule", RULES)
def test_without_masks(native_library, call, rule):
    nothing = (torch.zeros(0, 28, 28), torch.zeros(0, 4), None, 5, 6, 0.5, rule)
    assert call("paste_masks", *nothing).shape == (0, 5, 6)
    codes, offsets = call("paste_mask_codes", *nothing)
    assert (codes.shape, offsets.tolist()) == ((0,), [0])


@pytest.mark.parametrize("rule", RULES)
def test_a_mirrored_mask_is_the_mirror_image(native_library, rule):
    masks, boxes = scene(20, 7)
    plain = det_ops.paste_masks(masks, boxes, (40, 50), 0.5, rule)
    mirrored = det_ops.paste_masks(masks, boxes, (40, 50), 0.5, rule, mirrored=torch.ones(20, dtype=torch.bool))
    assert torch.equal(mirrored, plain.flip(2))


@pytest.mark.parametrize(
    "bitmap", [[[0]], [[1]], [[0, 1], [1, 0]], [[1, 1], [0, 0]], [[0] * 300] * 40, [[1] * 300] * 40]
)
def test_the_definition_of_codes_is_cocos(bitmap):
    table = torch.tensor(bitmap, dtype=torch.bool)
    code = codes_of.encode(table)
    assert [bytes(code.tolist())] == coco_texts(table[None])


def test_codes_of_random_bitmaps_decode_to_them():
    table = torch.rand(30, 40, generator=generator()) > 0.9
    code = codes_of.encode(table)
    runs = codes_of.run_lengths(code)
    assert torch.equal(torch.repeat_interleave(torch.arange(len(runs)) % 2 == 1, runs).reshape(40, 30).T, table)


def test_nothing_is_differentiated(native_library):
    masks, boxes = scene(3, 7)
    assert not det_ops.paste_masks(masks.requires_grad_(), boxes, (40, 50)).requires_grad


def arguments(**changes):
    masks, boxes = scene(2, 7)
    return {"masks": masks, "boxes": boxes, "size": (40, 50)} | changes


@pytest.mark.parametrize("call", [det_ops.paste_masks, det_ops.paste_mask_codes])
@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"masks": torch.zeros(2, 7, 6)}, ValueError, r"masks have shape \(2, 7, 6\), expected \(n, S, S\) with S at"),
        ({"masks": torch.zeros(2, 0, 0)}, ValueError, r"masks have shape \(2, 0, 0\), expected \(n, S, S\) with S at"),
        ({"masks": torch.zeros(2, 7, 7).int()}, TypeError, "masks have dtype torch.int32, expected a floating-point"),
        ({"boxes": torch.zeros(2, 5)}, ValueError, r"boxes have shape \(2, 5\), expected \(N, 4\)"),
        ({"boxes": torch.zeros(3, 4)}, ValueError, r"boxes have shape \(3, 4\), expected \(2, 4\) to match masks"),
        ({"size": (0, 5)}, ValueError, r"size is \(0, 5\), expected at least 1 each"),
        ({"rule": "nearest"}, ValueError, "rule is 'nearest', expected 'sampled', 'resized' or 'quantised'"),
        ({"mirrored": torch.zeros(3)}, ValueError, r"mirrored has shape \(3,\), expected \(2,\) to match masks"),
        ({"mirrored": torch.zeros(2)}, TypeError, "mirrored has dtype torch.float32, expected torch.bool"),
    ],
)
def test_bad_arguments(call, changes, error, message):
    with pytest.raises(error, match=message):
        call(**arguments(**changes))
