"""The pooling layer that returns its rois."""

from __future__ import annotations

import torch

from det_core.testing.echo_pool import EchoPool


def test_regions_are_the_rois():
    pool = EchoPool()
    rois = torch.tensor([[0.0, 1.0, 2.0, 3.0, 4.0], [1.0, 5.0, 6.0, 7.0, 8.0]])
    regions = pool([], rois)
    assert regions.shape == (2, pool.out.channels, *pool.out.size)
    assert torch.equal(regions[:, :, 0, 0], rois)
    assert pool([], rois[:0]).shape == (0, 5, 1, 1)
