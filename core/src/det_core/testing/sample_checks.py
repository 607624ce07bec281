"""Contract checks of samples, for those of data sets and transforms.

Letters: N images, n objects of one image, H W its size, K classes. Boxes are xyxy in pixels of the image.
"""

from __future__ import annotations

import pickle
from typing import TypeVar

import attrs
import torch
from torch import Tensor

from det_core.compressed_masks import bitmaps_of
from det_core.contracts import Sample
from det_core.testing.config_checks import equal, who

Part = TypeVar("Part")


def check_tensor(config: object, what: str, found: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Check shape and type of a tensor (...). what: for the message."""
    equal(config, f"shape of {what}", tuple(found.shape), shape)
    equal(config, f"type of {what}", found.dtype, dtype)


def bitmaps(sample: Sample) -> Tensor:
    """The masks of a sample that has them, as (n, H, W) uint8."""
    found = bitmaps_of(sample.masks)
    assert found is not None
    return found


def check_same(config: object, what: str, one: Sample, two: Sample) -> None:
    """Check that two samples are equal. what: for the message."""
    for name in (field.name for field in attrs.fields(Sample)):
        a, b = getattr(one, name), getattr(two, name)
        if name == "masks" and a is not None:
            a, b = bitmaps(one), bitmaps_of(b)
        same = torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else a == b
        assert same, f"{who(config)}: {what} another {name}"


def check_pickled(config: object, part: Part) -> Part:
    """Check that a data set or transform can be pickled, as for loader processes; returns the copy."""
    try:
        copy: Part = pickle.loads(pickle.dumps(part))
    except Exception as error:
        raise AssertionError(
            f"{who(config)}: it cannot be pickled, so loader processes cannot be sent it: {error}"
        ) from error
    return copy
