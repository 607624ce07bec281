"""Copy-paste augmentation (Ghiasi et al., Simple Copy-Paste, 2021, section 3).

Letters: n objects of the image, p pasted ones, C channels, H W size of both images.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import attrs
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from det_core.compressed_masks import bitmaps_of, mask_boxes
from det_core.contracts import Sample
from det_core.data.augmentation_config import CopyPasteConfig
from det_core.data.transforms import resize
from det_core.errors import DataError


class CopyPaste:
    """Pastes a random subset of the objects of another image. Ignored objects are not pasted.

    Masks lose the pixels that pasted objects cover. Of objects that lost pixels, the box is that of the pixels that are
    left; all others keep theirs. (torchvision's reference takes all boxes from masks, which only rounds them.) An image
    of another size is resized, as by torchvision.
    """

    takes_compressed_masks = True

    def __init__(self, config: CopyPasteConfig) -> None:
        self.config = config

    def __call__(self, sample: Sample, /) -> Sample:
        raise DataError(
            "copy_paste pastes objects of another image, but only training on a data set gives it one; use it in "
            "`data.train_transforms` only"
        )

    def mix(self, sample: Sample, another: Callable[[], Sample], /) -> Sample:
        """The sample with objects of `another()` pasted."""
        if torch.rand(1) >= self.config.probability:
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

    def __repr__(self) -> str:
        return f"CopyPaste({self.config!r})"


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
    """The sample with some objects of another one of the same size pasted, as bitmaps, after its own objects.

    Args:
        chosen: (p,) int64, objects of `other`. Those without pixels are not pasted.
        min_visible: objects that lost pixels are dropped if less than this fraction of them is left, or none.
        blur: standard deviation of the Gaussian that blends the border between the images; 0: no blending.
    """
    assert sample.masks is not None
    assert other.masks is not None
    if len(chosen) == 0:
        return sample
    pasted, masks = bitmaps_of(other.masks[chosen]) != 0, bitmaps_of(sample.masks) != 0
    seen = pasted.any(dim=2).any(dim=1)
    chosen, pasted = chosen[seen], pasted[seen]
    covering = pasted.any(dim=0)
    left = masks & ~covering
    before, after = masks.sum((1, 2)), left.sum((1, 2))
    lost = after < before
    keep = ~lost | ((after > 0) & (after >= min_visible * before))
    boxes = sample.boxes.clone()
    boxes[lost] = mask_boxes(left[lost]).to(boxes.dtype)
    semantic = sample.semantic
    if semantic is not None and other.semantic is not None:
        semantic = torch.where(covering, other.semantic, semantic)
    return attrs.evolve(
        sample,
        image=blended(sample.image, other.image, covering, blur),
        boxes=torch.cat([boxes[keep], other.boxes[chosen]]),
        labels=torch.cat([sample.labels[keep], other.labels[chosen]]),
        ignored=torch.cat([sample.ignored[keep], other.ignored[chosen]]),
        masks=torch.cat([left[keep], pasted]).to(torch.uint8),
        semantic=semantic,
    )


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
