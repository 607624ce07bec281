"""Indices and tensors to a device and masks from it: which rows, and one copy of several arrays."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from det_core.boxes.device_copies import Parcel, rows_of, send, send_indices

NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, NO_GPU])]


@pytest.mark.parametrize("device", DEVICES)
def test_rows_of_masks_of_several_lengths(device):
    masks = [torch.tensor(m, dtype=torch.bool, device=device) for m in ([1, 0, 1], [], [0, 0], [1])]
    found = rows_of(masks)
    assert [f.tolist() for f in found] == [[0, 2], [], [], [0]]
    assert all(f.dtype == torch.int64 and f.device.type == device for f in found)


@pytest.mark.parametrize("device", DEVICES)
def test_arrays_arrive_as_they_were(device):
    found = send_indices([np.array([3, 1]), np.zeros(0, np.int64), np.array([7])], torch.device(device))
    assert [f.tolist() for f in found] == [[3, 1], [], [7]]
    assert send_indices([], torch.device(device)) == []
    assert send(torch.tensor([1.5]), torch.device(device)).tolist() == [1.5]


@pytest.mark.parametrize("device", DEVICES)
def test_a_parcel_gives_back_tensors_of_all_types_and_shapes(device):
    given = [
        torch.tensor([True, False, True]),
        torch.arange(6.0).reshape(2, 3).T,
        torch.zeros(0, 4),
        torch.tensor([7, -1]),
        torch.tensor(3, dtype=torch.uint8),
        torch.arange(4, dtype=torch.float64)[::2],
        torch.tensor([1.5], dtype=torch.float16),
        torch.zeros(0, dtype=torch.uint8),
    ]
    parcel = Parcel.of(given, pinned=device == "cuda").sent(torch.device(device))
    assert parcel.buffer.device.type == device
    for parts in (parcel.tensors(), parcel.on_host().tensors()):
        assert [x.dtype for x in parts] == [x.dtype for x in given]
        assert all(torch.equal(a.cpu(), b) and a.shape == b.shape for a, b in zip(parts, given, strict=True))
    assert Parcel.of([]).tensors() == []


def test_a_parcel_is_a_copy():
    given = torch.ones(3)
    parcel = Parcel.of([given])
    given.zero_()
    assert parcel.tensors()[0].tolist() == [1.0, 1.0, 1.0]
