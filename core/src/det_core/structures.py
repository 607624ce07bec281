"""The values that the parts of a detector exchange.

Letters: N images in a batch, n boxes of one image, H W the padded size of a batch, h w the valid size of one image.
Boxes are xyxy. Sizes are `(height, width)`. Importing this module does not import torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import attrs
from attrs import frozen

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from det_core.compressed_masks import CompressedMasks, RegionMasks

UNLABELLED = 255  # the id of ignored pixels in semantic maps


@frozen
class Key:
    """The seed of all random choices for one image: equal keys give equal choices on every rank and worker.

    Each consumer adds its name, so that flipping an image and sampling its anchors use different random numbers.
    """

    seed: int = 0
    epoch: int = 0
    repeat: int = 0
    index: int = 0

    def number(self, consumer: str) -> int:
        """A 63-bit hash of this key and the consumer's name."""
        text = f"{self.seed}/{self.epoch}/{self.repeat}/{self.index}/{consumer}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1

    def generator(self, consumer: str) -> torch.Generator:
        """A new CPU generator for this consumer."""
        import torch

        return torch.Generator().manual_seed(self.number(consumer))


@frozen(kw_only=True)
class ImageInfo:
    """Metadata of one image in a batch.

    size: valid (h, w) in the padded network input. original_size: (height, width) of the file.
    scale: (y, x) factors from original to network pixels. inclusive: the factors are those of a box's first and last
    pixels, as in mmdet 0.x and 1.x, so that it ends at (x2 - 1) * scale + 1.
    """

    size: tuple[int, int]
    original_size: tuple[int, int]
    scale: tuple[float, float] = (1.0, 1.0)
    inclusive: bool = False
    key: Key = Key()
    image_id: int = 0
    file: str = ""


@frozen(eq=False, kw_only=True)
class Batch:
    """Padded, normalised images (N, 3, H, W) with an `ImageInfo` each.

    proposals: per image (n, 4) boxes in network pixels, best first, if they are precomputed (Fast R-CNN).
    """

    images: Tensor
    infos: tuple[ImageInfo, ...]
    proposals: tuple[Tensor, ...] | None = None

    @property
    def padded_size(self) -> tuple[int, int]:
        """The (H, W) of all images."""
        return int(self.images.shape[-2]), int(self.images.shape[-1])

    def __len__(self) -> int:
        return len(self.infos)


@frozen(eq=False, kw_only=True)
class Targets:
    """Ground truth of one image, in network pixels.

    boxes (n, 4) float xyxy; labels (n,) int64 in 0..K-1; masks: compressed, or bitmaps (n, h, w) uint8, or None;
    ignored (n,) bool: crowd regions and difficult objects, which train neither as objects nor as background; semantic
    (h, w) class ids of the unpadded image, `UNLABELLED` ignored, or None: uint8 as loaded, int64 after `to`;
    `semantic_batch` pads it.
    """

    boxes: Tensor
    labels: Tensor
    masks: Tensor | CompressedMasks | None = None
    ignored: Tensor | None = None
    semantic: Tensor | None = None

    def __len__(self) -> int:
        return int(self.boxes.shape[0])

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Targets:
        """The targets on another device, with boxes of type `dtype` if given, and semantic ids as int64."""

        def move(x: Tensor | None) -> Tensor | None:
            return None if x is None else x.to(device, non_blocking=True)

        semantic = move(self.semantic)

        return Targets(
            boxes=self.boxes.to(device, dtype or self.boxes.dtype),
            labels=self.labels.to(device),
            masks=None if self.masks is None else self.masks.to(device, non_blocking=True),
            ignored=move(self.ignored),
            semantic=None if semantic is None else semantic.long(),
        )

    def objects(self) -> Targets:
        """The targets without the ignored ones, for training (the reference's `ignore_iof_thr=-1`)."""
        if self.ignored is None or not bool(self.ignored.any()):
            return attrs.evolve(self, ignored=None)
        keep = ~self.ignored
        masks = None if self.masks is None else self.masks[keep]
        return Targets(boxes=self.boxes[keep], labels=self.labels[keep], masks=masks, semantic=self.semantic)


def semantic_batch(targets: Sequence[Targets], size: tuple[int, int]) -> Tensor:
    """The semantic maps of a batch, padded with `UNLABELLED` to its (H, W): (N, H, W) int64.

    Raises:
        ValueError: if an image has no map.
    """
    import torch

    padded = []
    for row, target in enumerate(targets):
        if target.semantic is None:
            raise ValueError(
                f"image {row} of the batch has no semantic map; data sets load them only if the RoI head's "
                "configuration requires them (semantic_classes)"
            )
        ids = target.semantic.long()
        below, right = size[0] - ids.shape[0], size[1] - ids.shape[1]
        padded.append(torch.nn.functional.pad(ids, (0, right, 0, below), value=UNLABELLED))
    return torch.stack(padded)


@frozen(eq=False, kw_only=True)
class Detections:
    """The detections of one image, best first, in pixels of the original image.

    boxes (n, 4) float xyxy; scores (n,) float; labels (n,) int64 in 0..K-1 (all 0 for proposals);
    masks (n, height, width) bool of the original image, or None. A detector may give masks as `RegionMasks`, which are
    pasted into the image when `masks` is first used, and which `region_masks` returns.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    _masks: Tensor | RegionMasks | None = None

    @cached_property
    def masks(self) -> Tensor | None:
        """(n, height, width) bool, or None."""
        from det_core.compressed_masks import RegionMasks

        return self._masks.bitmaps() if isinstance(self._masks, RegionMasks) else self._masks

    @property
    def region_masks(self) -> RegionMasks | None:
        """The masks as the detector gave them, of kilobytes; None if it gave bitmaps, or none."""
        from det_core.compressed_masks import RegionMasks

        return self._masks if isinstance(self._masks, RegionMasks) else None

    def __len__(self) -> int:
        return int(self.boxes.shape[0])

    def __getitem__(self, index: Tensor | slice) -> Detections:
        masks = None if self._masks is None else self._masks[index]
        return Detections(boxes=self.boxes[index], scores=self.scores[index], labels=self.labels[index], masks=masks)

    def to(self, device: torch.device | str) -> Detections:
        """The detections on another device."""
        masks = None if self._masks is None else self._masks.to(device)
        return Detections(
            boxes=self.boxes.to(device), scores=self.scores.to(device), labels=self.labels.to(device), masks=masks
        )


def full_precision(x: Tensor) -> Tensor:
    """A tensor (...) as float32 if it is float16 or bfloat16, otherwise unchanged."""
    import torch

    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


@frozen(eq=False)
class LossTerm:
    """A loss as a sum and its normaliser, so that it can be divided by the count of a global batch.

    total: () float with gradient. count: () float without gradient, or a number; counts below 1 count as 1.
    """

    total: Tensor
    count: Tensor | float

    def value(self) -> Tensor:
        """total / max(count, 1), the loss on one process."""
        if isinstance(self.count, (int, float)):
            return self.total / max(float(self.count), 1.0)
        return self.total / self.count.clamp(min=1)


@frozen(kw_only=True)
class Classes:
    """The classes of a data set: names of labels 0..K-1 and their ids in the annotation file."""

    names: tuple[str, ...]
    ids: tuple[int, ...]

    def __attrs_post_init__(self) -> None:
        if len(self.names) != len(self.ids):
            raise ValueError(f"{len(self.names)} class names but {len(self.ids)} ids")

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def numbered(cls, count: int) -> Classes:
        """Classes named `class 0`, `class 1`, ..., if only their number is known."""
        return cls(names=tuple(f"class {i}" for i in range(count)), ids=tuple(range(1, count + 1)))
