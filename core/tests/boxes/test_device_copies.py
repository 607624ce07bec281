"""Indices to a device and masks from it: which rows, and one copy of arrays of several lengths."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from det_core.boxes.device_copies import rows_of, send, send_indices

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
