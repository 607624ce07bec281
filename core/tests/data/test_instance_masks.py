"""Polygons and run-length codes in flat arrays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from det_core.data.instance_masks import SegmentationBuilder, code_pixels, segmentation_problem

SIZES = st.tuples(st.integers(1, 24), st.integers(1, 24))
MASKS = SIZES.flatmap(lambda size: arrays(np.uint8, size, elements=st.integers(0, 1)))


def compressed(mask: np.ndarray) -> str:
    text: str = coco_mask.encode(np.asfortranarray(mask))["counts"].decode()
    return text


def runs(mask: np.ndarray) -> list[int]:
    flat = mask.T.reshape(-1)
    changes = np.flatnonzero(np.diff(np.concatenate(([0], flat))))
    return np.diff(np.concatenate(([0], changes, [len(flat)]))).tolist()


@given(st.lists(MASKS, min_size=1, max_size=5), st.booleans())
@settings(max_examples=60, deadline=None)
def test_codes_come_back_as_the_masks(masks: list[np.ndarray], text: bool) -> None:
    builder = SegmentationBuilder()
    for mask in masks:
        code = {"size": list(mask.shape), "counts": compressed(mask) if text else runs(mask)}
        assert segmentation_problem(code, *mask.shape) == ""
        builder.add(code, *mask.shape)
    segments = builder.build()
    for index, mask in enumerate(masks):
        assert np.array_equal(segments.masks(np.array([index]), *mask.shape).bitmaps()[0], mask)
        plain = segments.plain(index, *mask.shape)
        assert isinstance(plain, dict)
        assert np.array_equal(coco_mask.decode(plain), mask)


@given(MASKS)
@settings(max_examples=100, deadline=None)
def test_code_pixels_counts_the_image(mask: np.ndarray) -> None:
    assert code_pixels(compressed(mask)) == mask.size


def test_damaged_codes_are_found() -> None:
    mask = (np.random.default_rng(0).random((40, 50)) > 0.5).astype(np.uint8)
    text = compressed(mask)
    wrong = [code_pixels(text[:cut]) for cut in range(len(text))]
    assert 2000 not in wrong
    assert code_pixels("") is None
    assert code_pixels("5\x7f") is None
    assert code_pixels("é") == 15  # "?" stands for what is not ASCII: a count of 15, which no image of another size has
    assert code_pixels("o" * 30 + "0") is None


def test_polygons_are_pycocotools_own() -> None:
    rings = [[3.7, 2.1, 20.3, 4.9, 11.5, 17.9], [22.1, 20.7, 28.9, 21.3, 25.5, 28.1, 22.3, 27.7]]
    builder = SegmentationBuilder()
    builder.add([[0.0, 0.0, 5.0, 0.0, 5.0, 5.0]], 30, 32)
    builder.add([*rings, [1.0, 2.0]], 30, 32)
    builder.add({"size": [30, 32], "counts": [960]}, 30, 32)
    segments = builder.build()
    expected = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(rings, 30, 32)))
    decoded = segments.masks(np.array([2, 1]), 30, 32).bitmaps()
    assert decoded.shape == (2, 30, 32)
    assert not decoded[0].any()
    assert np.array_equal(decoded[1], expected)
    assert segments.plain(1, 30, 32) == rings
    assert segments.masks(np.array([], np.int64), 30, 32).bitmaps().shape == (0, 30, 32)


@pytest.mark.parametrize("value", [None, [], {}])
def test_nothing_is_a_problem(value: object) -> None:
    assert segmentation_problem(value, 4, 4) == "has no segmentation, but the model trains on masks"
