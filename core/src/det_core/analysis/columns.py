"""Ground truth and detections of a data set as columns, and the pairs of them that overlap.

Letters: I images, M objects, N detections, P pairs of an object and a detection of one image.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from attrs import frozen
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from det_core.contracts import DetectionDataset
from det_core.errors import DetError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
Kind = Literal["box", "mask"]

NEAR = (
    0.1  # pairs with a lower IoU are not kept: below it, a detection and an object have nothing to do with each other
)
SLACK = 1e-10  # COCO's evaluation accepts an IoU that is lower than the threshold by this


@frozen(eq=False)
class Images:
    """ids (I,); sizes (I, 2) (height, width)."""

    ids: Ints
    sizes: Ints

    def __len__(self) -> int:
        return len(self.ids)


@frozen(eq=False)
class Objects:
    """Columns of the ground truth.

    images (M,): positions in `Images`, ascending. labels (M,): 0..K-1. boxes (M, 4): xyxy in pixels. areas (M,): of
    masks where the annotations have them, in square pixels. ignored (M,): crowd regions and difficult objects. masks:
    of each object a compressed run-length code, or None if boxes are compared.
    """

    images: Ints
    labels: Ints
    boxes: Floats
    areas: Floats
    ignored: Flags
    masks: list[dict[str, Any]] | None = None

    def __len__(self) -> int:
        return len(self.images)


@frozen(eq=False)
class Found:
    """Columns of detections: as `Objects`, with scores (N,). In the order of images, and best first in each."""

    images: Ints
    labels: Ints
    boxes: Floats
    scores: Floats
    areas: Floats
    masks: list[dict[str, Any]] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def chosen(self, rows: Ints | Flags) -> Found:
        """The detections of some rows."""
        masks = self.masks
        positions = np.arange(len(self))[rows]
        return Found(
            images=self.images[rows],
            labels=self.labels[rows],
            boxes=self.boxes[rows],
            scores=self.scores[rows],
            areas=self.areas[rows],
            masks=None if masks is None else [masks[position] for position in positions],
        )


@frozen(eq=False)
class Pairs:
    """found, objects (P,): rows of a detection and an object of one image; ious (P,) of at least `NEAR`.

    For an ignored object, the IoU is the intersection over the area of the detection, as in COCO's evaluation.
    """

    found: Ints
    objects: Ints
    ious: Floats

    def chosen(self, rows: Flags) -> Pairs:
        """The pairs of some rows."""
        return Pairs(self.found[rows], self.objects[rows], self.ious[rows])


@frozen(eq=False)
class Columns:
    """All that an analysis computes from. classes: the K names. kind: what IoUs are of."""

    kind: Kind
    classes: tuple[str, ...]
    images: Images
    objects: Objects
    found: Found
    pairs: Pairs


def columns_of(
    dataset: DetectionDataset,
    records: Iterable[Mapping[str, Any]],
    kind: Kind = "box",
    limit: int = 100,
    class_agnostic: bool = False,
) -> Columns:
    """The columns of a data set and of detections on it.

    Args:
        dataset: with ground truth.
        records: in COCO's results format, with category ids of the data set; those of other images are left out.
        kind: `mask` compares masks, which ground truth and records must then have.
        limit: maximum detections per class in an image, as in COCO's evaluation.
        class_agnostic: all classes count as one, named "object": for proposals.

    Raises:
        DetError: if masks are to be compared and are missing, or a category is not in the data set.
    """
    truth = dataset.ground_truth()
    images = Images(
        np.array([image["id"] for image in truth["images"]], np.int64),
        np.array([[image["height"], image["width"]] for image in truth["images"]], np.int64).reshape(-1, 2),
    )
    rows = {int(number): row for row, number in enumerate(images.ids)}
    classes = ("object",) if class_agnostic else tuple(dataset.classes.names)
    labels = {number: 0 if class_agnostic else label for label, number in enumerate(dataset.classes.ids)}
    objects = _objects(truth["annotations"], rows, labels, images, kind)
    found = _limited(_found([r for r in records if r["image_id"] in rows], rows, labels, kind), limit)
    return Columns(kind, classes, images, objects, found, pairs_of(images, objects, found))


def _objects(
    annotations: Sequence[Mapping[str, Any]],
    rows: Mapping[int, int],
    labels: Mapping[int, int],
    images: Images,
    kind: Kind,
) -> Objects:
    annotations = sorted(annotations, key=lambda annotation: rows[annotation["image_id"]])
    of_image = np.array([rows[a["image_id"]] for a in annotations], np.int64)
    masks = None
    if kind == "mask":
        sizes = images.sizes[of_image].tolist()
        masks = [_code(a.get("segmentation"), *size) for a, size in zip(annotations, sizes, strict=True)]
    return Objects(
        images=of_image,
        labels=np.array([labels[a["category_id"]] for a in annotations], np.int64),
        boxes=_corners(annotations),
        areas=np.array([a["area"] for a in annotations], np.float64),
        ignored=np.array([bool(a["iscrowd"]) for a in annotations], np.bool_),
        masks=masks,
    )


def _code(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """A segmentation of an annotation file as a compressed run-length code."""
    if segmentation is None:
        raise DetError("masks are to be compared, but an object of the ground truth has none; compare boxes")
    if isinstance(segmentation, list):
        return dict(coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width)))
    if isinstance(segmentation["counts"], list):
        return dict(coco_mask.frPyObjects(segmentation, height, width))
    return dict(segmentation)


def _found(
    records: Sequence[Mapping[str, Any]], rows: Mapping[int, int], labels: Mapping[int, int], kind: Kind
) -> Found:
    unknown = {record["category_id"] for record in records} - set(labels)
    if unknown:
        raise DetError(f"detections have category {min(unknown)}, which the data set does not have")
    if kind == "mask" and any("segmentation" not in record for record in records):
        raise DetError("masks are to be compared, but detections have none; compare boxes")
    boxes = _corners(records)
    masks = [record["segmentation"] for record in records] if kind == "mask" else None
    sides = boxes[:, 2:] - boxes[:, :2]
    found = Found(
        images=np.array([rows[record["image_id"]] for record in records], np.int64),
        labels=np.array([labels[record["category_id"]] for record in records], np.int64),
        boxes=boxes,
        scores=np.array([record["score"] for record in records], np.float64),
        areas=_mask_areas(masks) if masks else sides.prod(1),
        masks=masks,
    )
    return found.chosen(np.lexsort((-found.scores, found.images)))


def _mask_areas(codes: Sequence[dict[str, Any]]) -> Floats:
    """(n,) number of pixels of masks. pycocotools takes at most 255 at once if numpy is 2.0 or later."""
    parts = [coco_mask.area(codes[start : start + 255]) for start in range(0, len(codes), 255)]
    return np.concatenate(parts).astype(np.float64)


def _limited(found: Found, limit: int) -> Found:
    """At most `limit` detections per class and image, best first."""
    group = np.lexsort((np.arange(len(found)), found.labels, found.images))
    same = np.stack([found.images[group], found.labels[group]])
    starts = np.flatnonzero(np.r_[True, (same[:, 1:] != same[:, :-1]).any(0)]) if len(group) else np.zeros(0, np.int64)
    ranks = np.arange(len(group)) - np.repeat(starts, np.diff(np.r_[starts, len(group)]))
    keep = np.zeros(len(found), np.bool_)
    keep[group[ranks < limit]] = True
    return found if keep.all() else found.chosen(keep)


def _corners(records: Sequence[Mapping[str, Any]]) -> Floats:
    """Boxes (n, 4) xyxy of records with `bbox` (x, y, width, height)."""
    boxes = np.array([record["bbox"] for record in records], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def pairs_of(images: Images, objects: Objects, found: Found) -> Pairs:
    """The pairs of objects and detections of an image whose IoU is at least `NEAR`."""
    every = range(len(images) + 1)
    of_found, of_objects = (np.searchsorted(side.images, every) for side in (found, objects))
    overlaps = _box_ious if found.masks is None or objects.masks is None else _mask_ious
    parts: list[tuple[Ints, Ints, Floats]] = []
    for image in range(len(images)):
        ours, theirs = slice(*of_found[image : image + 2]), slice(*of_objects[image : image + 2])
        if ours.start < ours.stop and theirs.start < theirs.stop:
            ious = overlaps(found, objects, ours, theirs)
            row, column = np.nonzero(ious >= NEAR)
            parts.append((row + ours.start, column + theirs.start, ious[row, column]))
    if not parts:
        return Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    return Pairs(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _box_ious(found: Found, objects: Objects, ours: slice, theirs: slice) -> Floats:
    def xywh(boxes: Floats) -> Floats:
        return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)

    crowd = objects.ignored[theirs].astype(np.uint8)
    return np.asarray(coco_mask.iou(xywh(found.boxes[ours]), xywh(objects.boxes[theirs]), crowd), np.float64)


def _mask_ious(found: Found, objects: Objects, ours: slice, theirs: slice) -> Floats:
    assert found.masks is not None
    assert objects.masks is not None
    crowd = objects.ignored[theirs].astype(np.uint8)
    return np.asarray(coco_mask.iou(found.masks[ours], objects.masks[theirs], crowd), np.float64)
