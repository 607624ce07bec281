"""The values that the parts of a detector exchange.

Letters: N images in a batch, n boxes of one image, H W the padded size of a batch, h w the valid size of one image.
Boxes are xyxy. Sizes are `(height, width)`. Importing this module does not import torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

import attrs
from attrs import frozen

from det_core.errors import DetError
from det_core.optional_packages import require

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
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

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Targets:
        """The targets with `change` of every tensor."""
        return Targets(
            boxes=change(self.boxes),
            labels=change(self.labels),
            masks=None if self.masks is None else _mapped(self.masks, change),
            ignored=None if self.ignored is None else change(self.ignored),
            semantic=None if self.semantic is None else change(self.semantic),
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
    pasted into the image when `masks` is first used, and which `region_masks` returns; those that are read from a file
    or joined over tiles are `CompressedMasks`, which `masks` decodes.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    _masks: Tensor | RegionMasks | CompressedMasks | None = None

    @cached_property
    def masks(self) -> Tensor | None:
        """(n, height, width) bool, or None."""
        import torch

        if self._masks is None or isinstance(self._masks, torch.Tensor):
            return self._masks
        return self._masks.bitmaps().bool()

    @property
    def has_masks(self) -> bool:
        """Whether there are masks; asking pastes none."""
        return self._masks is not None

    def mask_codes(self) -> list[dict[str, Any]] | None:
        """The masks as COCO's compressed run-length codes {"size": [height, width], "counts": text}, or None.

        Masks that are no bitmaps never become any.
        """
        from det_core.compressed_masks import mask_codes

        return None if self._masks is None else mask_codes(self._masks)

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
        return self.mapped(lambda x: x.to(device))

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Detections:
        """The detections with `change` of every tensor."""
        masks = None if self._masks is None else _mapped(self._masks, change)
        return Detections(boxes=change(self.boxes), scores=change(self.scores), labels=change(self.labels), masks=masks)

    def to_numpy(self) -> dict[str, NDArray[Any]]:
        """The detections as arrays in host memory.

        `boxes` (n, 4) float32 xyxy in pixels of the original image; `scores` (n,) float32; `labels` (n,) int64; and,
        with masks, `masks` (n, height, width) bool.
        """
        import torch

        found = {
            "boxes": self.boxes.detach().to("cpu", torch.float32).numpy(),
            "scores": self.scores.detach().to("cpu", torch.float32).numpy(),
            "labels": self.labels.cpu().numpy(),
        }
        return found if self.masks is None else {**found, "masks": self.masks.bool().cpu().numpy()}

    @classmethod
    def from_numpy(cls, arrays: Mapping[str, NDArray[Any]]) -> Detections:
        """Detections of the arrays of `to_numpy`; other arrays are ignored.

        Raises:
            DetError: if an array is missing, or the arrays are not of one length.
        """
        import numpy as np
        import torch

        missing = [name for name in ("boxes", "scores", "labels") if name not in arrays]
        if missing:
            raise DetError(f"arrays of detections: found {', '.join(arrays) or 'none'}, missing: {', '.join(missing)}")
        boxes = torch.from_numpy(np.array(arrays["boxes"], np.float32)).reshape(-1, 4)
        scores = torch.from_numpy(np.array(arrays["scores"], np.float32))
        labels = torch.from_numpy(np.array(arrays["labels"], np.int64))
        masks = torch.from_numpy(np.array(arrays["masks"], np.bool_)) if "masks" in arrays else None
        lengths = {len(x) for x in (boxes, scores, labels, *(() if masks is None else (masks,)))}
        if len(lengths) > 1:
            raise DetError(f"arrays of detections have lengths {sorted(lengths)}, expected one length")
        return cls(boxes=boxes, scores=scores, labels=labels, masks=masks)

    def to_coco(self, image_id: int, classes: Classes | None = None, *, masks: bool = True) -> list[dict[str, Any]]:
        """Records in COCO's results format: `image_id`, `category_id`, `bbox`, `score` and, with masks, `segmentation`.

        Args:
            image_id: the image's id in its annotation file.
            classes: of the detector (`detector.found_classes`), whose ids are the categories'; without them, the
                categories are numbered from 1: label + 1.
            masks: whether to add masks, if there are any, as compressed run-length codes.

        Boxes are [x, y, width, height] in pixels of the original image.

        Raises:
            DetError: if a label has no class.
        """
        boxes = self.boxes.detach().to("cpu", copy=True).double()
        boxes[:, 2:] -= boxes[:, :2]
        labels = self.labels.tolist()
        wrong = [label for label in labels if classes is not None and not 0 <= label < len(classes)]
        if classes is not None and wrong:
            raise DetError(f"a detection has label {wrong[0]}, but there are {len(classes)} classes")
        ids = [label + 1 for label in labels] if classes is None else [classes.ids[label] for label in labels]
        records: list[dict[str, Any]] = [
            {"image_id": image_id, "category_id": number, "bbox": box, "score": score}
            for number, box, score in zip(
                ids, boxes.tolist(), self.scores.detach().cpu().double().tolist(), strict=True
            )
        ]
        codes = self.mask_codes() if masks else None
        for record, code in zip(records, codes or (), strict=False):
            record["segmentation"] = code
        return records

    @classmethod
    def from_coco(cls, records: Sequence[Mapping[str, Any]], classes: Classes | None = None) -> Detections:
        """The detections of one image from records as `to_coco` returns them, best first.

        classes: as given to `to_coco`. The image ids of the records are ignored.

        Raises:
            DetError: if a record has no usable `bbox`, `score`, `category_id` or `segmentation`.
        """
        import torch

        from det_core.compressed_masks import decode_masks

        numbers = None if classes is None else {number: label for label, number in enumerate(classes.ids)}
        rows = [_of_coco(record, numbers) for record in records]
        coded = [record["segmentation"] for record in records if "segmentation" in record]
        if coded and len(coded) != len(records):
            raise DetError(f"{len(coded)} of {len(records)} records have a segmentation, expected all or none")
        try:
            masks = decode_masks(coded) if coded else None
        except ValueError as error:
            raise DetError(f"segmentation: {error}") from None
        boxes = torch.tensor([box for box, _, _ in rows], dtype=torch.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        found = cls(
            boxes=boxes.float(),
            scores=torch.tensor([score for _, score, _ in rows], dtype=torch.float32),
            labels=torch.tensor([label for _, _, label in rows], dtype=torch.int64),
            masks=masks,
        )
        return found[found.scores.argsort(descending=True, stable=True)]

    def to_supervision(self, classes: Classes | None = None) -> Any:
        """The detections as `supervision.Detections`.

        classes: of the detector; their names become `data["class_name"]`.

        Raises:
            DetError: if supervision is not installed.
        """
        supervision: Any = require("supervision", "converting to supervision", "supervision")
        arrays = self.to_numpy()
        names = {} if classes is None else {"class_name": _names(classes, arrays["labels"])}
        return supervision.Detections(
            xyxy=arrays["boxes"],
            mask=arrays.get("masks"),
            confidence=arrays["scores"],
            class_id=arrays["labels"].astype(int),
            data=names,
        )

    @classmethod
    def from_supervision(cls, found: Any) -> Detections:
        """Detections of `supervision.Detections`; without confidence every score is 1, without class every label 0."""
        import numpy as np

        count = len(found.xyxy)
        arrays = {
            "boxes": found.xyxy,
            "scores": np.ones(count, np.float32) if found.confidence is None else found.confidence,
            "labels": np.zeros(count, np.int64) if found.class_id is None else found.class_id,
        }
        return cls.from_numpy(arrays if found.mask is None else {**arrays, "masks": found.mask})


def _of_coco(record: Mapping[str, Any], numbers: Mapping[int, int] | None) -> tuple[list[float], float, int]:
    """The box [x, y, width, height], score and label of a record. numbers: labels by category id, or None."""
    box, score, category = (record.get(name) for name in ("bbox", "score", "category_id"))
    if not (isinstance(box, (list, tuple)) and len(box) == 4 and all(isinstance(v, (int, float)) for v in box)):
        raise DetError(f"bbox: found {box!r}, expected four numbers [x, y, width, height]")
    if not isinstance(score, (int, float)):
        raise DetError(f"score: found {score!r}, expected a number")
    label = -1
    if isinstance(category, int):
        label = category - 1 if numbers is None else numbers.get(category, -1)
    if label < 0:
        known = "" if numbers is None else f"; the classes have {', '.join(map(str, list(numbers)[:8]))}"
        raise DetError(f"category_id: found {category!r}, which is of no class{known}")
    return list(box), float(score), label


@overload
def _mapped(masks: Tensor | CompressedMasks, change: Callable[[Tensor], Tensor]) -> Tensor | CompressedMasks: ...
@overload
def _mapped(
    masks: Tensor | RegionMasks | CompressedMasks, change: Callable[[Tensor], Tensor]
) -> Tensor | RegionMasks | CompressedMasks: ...
def _mapped(
    masks: Tensor | RegionMasks | CompressedMasks, change: Callable[[Tensor], Tensor]
) -> Tensor | RegionMasks | CompressedMasks:
    """Masks with `change` of every tensor."""
    import torch

    return change(masks) if isinstance(masks, torch.Tensor) else masks.mapped(change)


def _names(classes: Classes, labels: NDArray[Any]) -> NDArray[Any]:
    import numpy as np

    return np.array([classes.names[label] for label in labels.tolist()], dtype=np.str_)


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

    def categories(self) -> list[dict[str, Any]]:
        """The records of a COCO file."""
        return [{"id": number, "name": name} for number, name in zip(self.ids, self.names, strict=True)]

    @classmethod
    def numbered(cls, count: int) -> Classes:
        """Classes named `class 0`, `class 1`, ..., if only their number is known."""
        return cls(names=tuple(f"class {i}" for i in range(count)), ids=tuple(range(1, count + 1)))
