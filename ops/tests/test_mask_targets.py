"""Targets of a mask head from compressed masks: codes by hand, equality with bitmaps bit by bit, errors."""

import itertools

import pytest
import torch
from op_samples import WRONG_DATA, boxes, codes, native, reference

import det_ops
from det_ops.reference import masks

EMPTY, WHOLE, RUNS = range(3)


def test_codes_by_hand():
    text, offsets, *_ = codes()
    assert [masks.run_lengths(text[a:b]).tolist() for a, b in itertools.pairwise(offsets)] == [
        [12],
        [0, 12],
        [2, 4, 0, 6],
    ]
    stored = masks.decode(text, offsets, 4, 3, torch.arange(4), torch.arange(3))
    assert stored[EMPTY].sum() == 0
    assert stored[WHOLE].sum() == 12
    assert stored[RUNS].T.flatten().tolist() == [0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("call", [native, reference])
def test_a_region_of_the_whole_image_shows_the_mask(native_library, call):
    text, offsets, height, width, *_ = codes()
    rows, columns = torch.arange(4), torch.arange(3)
    given = (torch.tensor([EMPTY, WHOLE, RUNS]), torch.tensor([[0.0, 0.0, 3.0, 4.0]]).repeat(3, 1), [4, 3])
    found = call("mask_targets", text, offsets, height, width, rows, columns, *given)
    assert torch.equal(found, masks.decode(text, offsets, 4, 3, rows, columns).float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("side", [3.0, 20.0, 60.0])
def test_the_kernel_equals_roi_align_of_bitmaps(native_library, dtype, side):
    text, offsets, height, width, rows, columns = codes()
    regions, objects = boxes(50, side=side, dtype=dtype), torch.arange(50) % 3
    found = native("mask_targets", text, offsets, height, width, rows, columns, objects, regions, [14, 7])
    bitmaps = masks.decode(text, offsets, height, width, rows, columns)[:, None].to(found.dtype)
    rois = torch.cat([objects[:, None].to(dtype), regions], 1)
    expected = (det_ops.roi_align(bitmaps, rois, (14, 7), 1.0)[:, 0] >= 0.5).to(dtype)
    assert found.dtype == dtype
    assert torch.equal(found, expected)


@pytest.mark.parametrize("call", [native, reference])
@pytest.mark.parametrize("code", [b"", b"2403", b"~~~~~~~~~~~~~~~~", b"0", b"00<<", b"o"])
def test_damaged_codes(native_library, call, code):
    _, _, height, width, rows, columns = codes()
    text = torch.tensor(list(code), dtype=torch.uint8)
    given = (torch.zeros(1, dtype=torch.int64), torch.tensor([[0.0, 0.0, 3.0, 4.0]]), [2, 2])
    with pytest.raises(WRONG_DATA, match="a damaged run-length code, or one of another size"):
        call("mask_targets", text, torch.tensor([0, len(code)]), height, width, rows, columns, *given)


def given(**changes):
    text, offsets, height, width, rows, columns = codes()
    values = {
        "codes": text,
        "offsets": offsets,
        "stored_size": (height, width),
        "rows": rows,
        "columns": columns,
        "objects": torch.tensor([1]),
        "boxes": torch.tensor([[0.0, 0.0, 3.0, 4.0]]),
        "output_size": (2, 2),
    }
    return values | changes


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"rows": torch.zeros(2, 2).long()}, ValueError, r"rows have shape \(2, 2\), expected one dimension"),
        ({"columns": torch.zeros(2)}, TypeError, "columns have dtype torch.float32, expected torch.int64"),
        ({"codes": torch.zeros(2)}, TypeError, "codes have dtype torch.float32, expected torch.uint8"),
        ({"offsets": torch.zeros(0).long()}, ValueError, r"codes and offsets have shapes .*expected \(c,\) and \(n"),
        ({"boxes": torch.zeros(1, 5)}, ValueError, r"boxes have shape \(1, 5\), expected \(N, 4\)"),
        ({"objects": torch.zeros(2).long()}, ValueError, r"objects have shape \(2,\), expected \(1,\) to match boxes"),
        ({"output_size": (0, 2)}, ValueError, r"output_size is \(0, 2\) and stored_size \(4, 3\), expected at least 1"),
    ],
)
def test_bad_arguments(changes, error, message):
    with pytest.raises(error, match=message):
        det_ops.mask_targets(**given(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objects": torch.tensor([3])}, r"objects name one outside 0\.\.2: row 0 has 3"),
        ({"rows": torch.tensor([4])}, r"rows or columns name one outside masks of 4 x 3"),
        ({"offsets": torch.tensor([0, 5, 90])}, "offsets of mask 1 are outside the codes"),
    ],
)
def test_bad_indices(native_library, changes, message):
    with pytest.raises(WRONG_DATA, match=message):
        det_ops.mask_targets(**given(**changes))
