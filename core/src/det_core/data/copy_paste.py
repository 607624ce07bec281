"""Copy-paste augmentation (Ghiasi et al., Simple Copy-Paste, 2021, section 3).

Letters: n objects of the image, p pasted ones, C channels, H W size of both images.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import attrs
import numpy as np
import torch
from attrs import frozen
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from det_core.compressed_masks import CompressedMasks
from det_core.contracts import Sample
from det_core.data.augmentation_config import CopyPasteConfig
from det_core.data.configured import Configured
from det_core.data.mask_patches import Patch, bitmaps_of_patches, masks_of, patches_of, union
from det_core.data.random_numbers import happens
from det_core.data.transforms import resize
from det_core.errors import DataError


class CopyPaste(Configured[CopyPasteConfig]):
    """Pastes a random subset of the objects of another image. Ignored objects are not pasted.

    Masks lose the pixels that pasted objects cover. Of objects that lost pixels, the box is that of the pixels that are
    left; all others keep theirs. (torchvision's reference takes all boxes from masks, which only rounds them.) An image
    of another size is resized, as by torchvision.
    """

    takes_compressed_masks = True

    def __call__(self, sample: Sample, /) -> Sample:
        raise DataError(
            "copy_paste pastes objects of another image, but only training on a data set gives it one; use it in "
            "`data.train_transforms` only"
        )

    def mix(self, sample: Sample, another: Callable[[], Sample], /) -> Sample:
        """The sample with objects of `another()` pasted."""
        if not happens(self.config.probability):
            return sample
        other = another()
        for what in (sample, other):
            _check(what)
        if other.size != sample.size:
            other = resize(other, sample.size)
        return paste(sample, other, self.draw(other.ignored), self.config.min_visible, self.config.blur)

    def draw(self, ignored: Tensor) -> Tensor:
        """(p,) int64, ascending: the objects to paste, none of the ignored ones (n,) bool."""
        candidates = (~ignored).nonzero().flatten()
        count = int(torch.randint(min(len(candidates), self.config.max_objects) + 1, ()))
        return candidates[torch.randperm(len(candidates))[:count]].sort().values


def _check(sample: Sample) -> None:
    """Raise DataError for a sample that objects cannot be pasted into or copied from."""
    if sample.masks is None:
        raise DataError(
            f"{sample.file or 'the image'}: copy_paste copies objects by their masks, but the sample has none; use "
            "data in COCO format with segmentations, or remove copy_paste from `data.train_transforms`"
        )
    if sample.proposals is not None:
        raise DataError("copy_paste does not support proposals; remove it from `data.train_transforms`")


def paste(sample: Sample, other: Sample, chosen: Tensor, min_visible: float = 0.0, blur: float = 0.0) -> Sample:
    """The sample with some objects of another one of the same size pasted after its own objects.

    Args:
        chosen: (p,) int64, objects of `other`. Those without pixels are not pasted.
        min_visible: objects that lost pixels are dropped if less than this fraction of them is left, or none.
        blur: standard deviation of the Gaussian that blends the border between the images; 0: no blending.
    """
    assert sample.masks is not None
    assert other.masks is not None
    if len(chosen) == 0:
        return sample
    pasted = patches_of(other.masks[chosen])
    seen = torch.tensor([patch.area() > 0 for patch in pasted])
    chosen, pasted = chosen[seen], [patch for patch, keep in zip(pasted, seen.tolist(), strict=True) if keep]
    covered = union(pasted, sample.size)
    own = _left(sample.boxes, patches_of(sample.masks), covered, min_visible)
    covering, semantic = torch.from_numpy(covered), sample.semantic
    if semantic is not None and other.semantic is not None:
        semantic = torch.where(covering, other.semantic, semantic)
    compressed = isinstance(sample.masks, CompressedMasks)
    return attrs.evolve(
        sample,
        image=blended(sample.image, other.image, covering, blur),
        boxes=torch.cat([own.boxes, other.boxes[chosen]]),
        labels=torch.cat([sample.labels[own.kept], other.labels[chosen]]),
        ignored=torch.cat([sample.ignored[own.kept], other.ignored[chosen]]),
        masks=(masks_of if compressed else bitmaps_of_patches)([*own.patches, *pasted], sample.size),
        semantic=semantic,
    )


@frozen(eq=False)
class Left:
    """What is left of an image's objects: kept (k,) int64, which of them, boxes (k, 4), and k patches."""

    kept: Tensor
    boxes: Tensor
    patches: list[Patch]


def _left(boxes: Tensor, patches: list[Patch], covered: NDArray[np.bool_], min_visible: float) -> Left:
    """What is left of objects with boxes (n, 4) and n patches where an (h, w) map does not cover them."""
    kept, left, boxes = [], [], boxes.clone()
    for number, patch in enumerate(patches):
        rest = patch.without(covered)
        before, after = patch.area(), rest.area()
        if after < before:
            if after == 0 or after < min_visible * before:
                continue
            boxes[number] = torch.tensor(rest.box(), dtype=boxes.dtype)
        kept.append(number)
        left.append(rest)
    chosen = torch.tensor(kept, dtype=torch.int64)
    return Left(chosen, boxes[chosen], left)


def blended(image: Tensor, other: Tensor, covering: Tensor, blur: float) -> Tensor:
    """(C, H, W) of the image's dtype: `other` where `covering` (H, W) bool, else `image`, both (C, H, W).

    With `blur`, a mean of both near the border, weighted by the mask after a Gaussian of this standard deviation, cut
    after as many pixels (5 x 5 for 2, as in torchvision).
    """
    if blur == 0:
        return torch.where(covering, other.to(image.dtype), image)
    kernel = 2 * math.ceil(blur) + 1
    weight: Tensor = F.gaussian_blur(covering[None].float(), [kernel, kernel], [blur, blur])
    mixed = torch.lerp(image.float(), other.float(), weight.expand_as(image))
    return mixed.to(image.dtype) if image.is_floating_point() else (mixed + 0.5).floor().to(image.dtype)
