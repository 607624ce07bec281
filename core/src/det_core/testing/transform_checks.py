"""Contract checks of transforms.

Letters: N images, n objects of one image, H W its size, K classes. Boxes are xyxy in pixels of the image.
"""

from __future__ import annotations

import copy

import attrs
import torch
from attrs import frozen
from torch import Tensor

from det_core.contracts import Sample, Transform
from det_core.data.transforms import apply_transforms
from det_core.slots import TransformConfig
from det_core.structures import Key
from det_core.testing.config_checks import check_config, equal, who
from det_core.testing.sample_checks import bitmaps, check_pickled, check_same, check_tensor
from det_core.testing.tiny_dataset import CROWD, make_sample

KEYS = 6  # random choices of a transform that are checked
ROUNDING = 1.5  # pixels by which a box and the box of its mask may differ
CONTRAST = 30.0  # least difference of objects and background after a transform, of 157 before
MIN_PIXELS = 25  # smaller masks say little about the pixels below


def check_transform(config: TransformConfig) -> None:
    """Check that a transform keeps image, boxes, labels, masks and semantic map together, and is random in its key.

    Its samples have light objects on a dark background, with a label each. Transforms that mix get others of the kind.
    """
    check_config(config)
    transform = config.build()
    found = [_check_call(config, transform, make_sample(), Key(index=index)) for index in range(KEYS)]
    assert any(len(sample.boxes) for sample in found), f"{who(config)}: it drops every object of {KEYS} samples"
    samples = [make_sample(empty=True)]
    if not config.needs_masks():
        samples += [make_sample(masks=False), attrs.evolve(make_sample(), semantic=None)]
    for sample in samples:
        _check_call(config, transform, sample, Key(index=1))
    check_pickled(config, transform)


@frozen(eq=False)
class _Same:
    """Samples for a transform that mixes: all are the same one."""

    sample: Sample

    def __len__(self) -> int:
        return 3

    def load(self, index: int, /) -> Sample:
        return copy.deepcopy(self.sample)


def _check_call(config: TransformConfig, transform: Transform, sample: Sample, key: Key) -> Sample:
    """Check one call: shapes, alignment, the same result with the same key, and an unchanged input."""
    before = copy.deepcopy(sample)
    others = _Same(sample) if config.mixes() else None
    torch.manual_seed(0)
    first = apply_transforms(sample, [transform], key, others)
    check_same(config, "it changes its input; make a new sample (attrs.evolve), which has", sample, before)
    again = apply_transforms(sample, [transform], key, others)
    check_same(config, "with the same key it gives", first, again)
    _check_transformed(config, sample, first)
    _check_alignment(config, first)
    return first


def _check_transformed(config: object, before: Sample, after: Sample) -> None:
    """Check shapes and types of a transformed sample, and that it has the parts that it had."""
    n, size = len(after.boxes), after.size
    equal(config, "channels of the image", after.image.shape[0], 3)
    types = (torch.uint8, torch.float32)
    assert after.image.dtype in types, (
        f"{who(config)}: type of the image is {after.image.dtype}, expected one of {types}"
    )
    check_tensor(config, "boxes", after.boxes, (n, 4), torch.float32)
    check_tensor(config, "labels", after.labels, (n,), torch.int64)
    check_tensor(config, "ignored", after.ignored, (n,), torch.bool)
    for name in ("masks", "semantic"):
        had, has = getattr(before, name) is not None, getattr(after, name) is not None
        equal(config, f"that it has {name}", has, had)
    if after.masks is not None:
        check_tensor(config, "masks", bitmaps(after), (n, *size), torch.uint8)
    if after.semantic is not None:
        check_tensor(config, "the semantic map", after.semantic, size, torch.uint8)
    equal(config, "image_id and file", (after.image_id, after.file), (before.image_id, before.file))


def _check_alignment(config: object, sample: Sample) -> None:
    """Check that each object still has its own box, label, mask, pixels, and area of the semantic map."""
    equal(config, "which objects are ignored", sample.ignored.tolist(), (sample.labels == CROWD).tolist())
    if sample.masks is None or not len(sample.boxes):
        return
    masks = bitmaps(sample).bool()
    for bitmap, box, label in zip(masks, sample.boxes, sample.labels.tolist(), strict=True):
        if int(bitmap.sum()) < MIN_PIXELS:
            continue
        rows, columns = bitmap.any(1).nonzero(), bitmap.any(0).nonzero()
        around = [float(v) for v in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]
        apart = max(abs(a - b) for a, b in zip(around, box.tolist(), strict=True))
        assert apart <= ROUNDING, (
            f"{who(config)}: the mask of label {label} is in {around}, but its box is "
            f"{[round(v, 1) for v in box.tolist()]}; move masks and boxes together"
        )
        if sample.semantic is not None:
            share = float((sample.semantic[bitmap] == label).float().mean())
            assert share > 0.5, (
                f"{who(config)}: {share:.0%} of the pixels of label {label} have its id in the semantic map; move it "
                "with the masks"
            )
    _check_pixels(config, sample.image, masks.any(0))


def _check_pixels(config: object, image: Tensor, objects: Tensor) -> None:
    """Check that the image (3, H, W) differs where there are objects (H, W) bool."""
    if int(objects.sum()) < MIN_PIXELS or int((~objects).sum()) < MIN_PIXELS:
        return
    values = image.float()
    inside, outside = values[:, objects].mean(), values[:, ~objects].mean()
    assert abs(float(inside - outside)) >= CONTRAST, (
        f"{who(config)}: the pixels of the objects are not below their masks any more (mean {inside:.0f}, elsewhere "
        f"{outside:.0f}); move the image with the annotations"
    )
