"""The reference of the assignment works in chunks of boxes, which change nothing but the memory it needs."""

import pytest
import torch
from hypothesis import given, strategies as st

from det_ops.reference import boxes as reference


def grid_boxes(count: int, seed: int) -> torch.Tensor:
    """Boxes on a coarse grid, so that many overlaps tie."""
    corner = torch.randint(0, 6, (count, 2), generator=torch.Generator().manual_seed(seed)).float()
    return torch.cat([corner, corner + 1 + torch.randint(0, 3, (count, 2)).float()], 1)


@given(
    st.integers(0, 30), st.integers(0, 6), st.integers(0, 99), st.booleans(), st.booleans(), st.sampled_from([1, 3, 7])
)
def test_chunks_change_nothing(boxes, objects, seed, low_quality, all_ties, chunk):
    arguments = (grid_boxes(boxes, seed), grid_boxes(objects, seed + 1), 0.5, 0.4, 0.2, low_quality, all_ties)
    whole = reference.max_iou_assign(*arguments)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "CHUNK", chunk)
        parts = reference.max_iou_assign(*arguments)
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))


@pytest.mark.parametrize("all_ties", [True, False])
def test_1000_objects_need_no_matrix_of_all_overlaps(monkeypatch, all_ties):
    shapes = []
    overlaps = reference.box_overlaps

    def recorded(boxes, others, *rest):
        shapes.append((len(boxes), len(others)))
        return overlaps(boxes, others, *rest)

    monkeypatch.setattr(reference, "box_overlaps", recorded)
    corner = torch.rand(20_000, 2, generator=torch.Generator().manual_seed(0)) * 1000
    boxes = torch.cat([corner, corner + 20], 1)
    assigned, _ = reference.max_iou_assign(boxes, boxes[:1000], 0.5, 0.4, 0.0, True, all_ties)
    assert assigned[:1000].tolist() == list(range(1, 1001))
    assert max(n * m for n, m in shapes) <= reference.CHUNK == 1 << 22
    assert sum(n for n, _ in shapes) == 20_000 * (2 if all_ties else 1)
