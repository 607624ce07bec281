"""Data sets in COCO format, stored in flat arrays that loader processes share.

Letters: N images, M annotations, n annotations of one image, H W its size. Boxes in the file are (x, y, width,
height), boxes of samples are xyxy, both in pixels of the image.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from attrs import frozen
from numpy.typing import NDArray
from torch import Tensor

from det_core.compressed_masks import CompressedMasks
from det_core.contracts import DetectionDataset, Sample
from det_core.data.bad_samples import check_on_bad_sample, check_part, no_image_left, raise_or_log
from det_core.data.class_choice import class_entries
from det_core.data.coco_checks import CocoRecords, check_sections
from det_core.data.coco_columns import RULES, Record
from det_core.data.coco_json import read_sections, without_collecting
from det_core.data.coco_repair import repaired
from det_core.data.coco_sections import Sections, choose_classes
from det_core.data.file_names import Names
from det_core.data.image_content import is_in_part
from det_core.data.images import read_image_of
from det_core.data.instance_masks import SegmentationBuilder, Segmentations, has_pixels, segmentation_problem
from det_core.data.proposals_file import DatasetProposals
from det_core.data.semantic_maps import SemanticFolder, map_of_masks
from det_core.specs import OnBadSample, PixelFormat


@frozen(eq=False, kw_only=True)
class Annotations:
    """M annotations ordered by image: those of image i are offsets[i]..offsets[i + 1].

    offsets (N + 1,) int64. ids (M,) int64. boxes (M, 4) float64 as in the file. labels (M,) int64 in 0..K-1.
    areas (M,) float64. crowd (M,) bool. trained (M,) bool: False if the reference's rules exclude it from training (it
    still counts in evaluation). segmentations: of all annotations, or None.
    """

    offsets: NDArray[np.int64]
    ids: NDArray[np.int64]
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    areas: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    trained: NDArray[np.bool_]
    segmentations: Segmentations | None

    def of_image(self, index: int) -> NDArray[np.int64]:
        """Positions of an image's annotations that are used in training."""
        start, end = int(self.offsets[index]), int(self.offsets[index + 1])
        return start + np.flatnonzero(self.trained[start:end])


class CocoDataset(DetectionDataset):
    """Annotations in COCO's terms and their folder of images. All records are checked when it is opened.

    Args:
        annotations: a COCO annotation file, or what the reader of another format returned.
        images: the folder that the names of images are relative to.
        masks: load segmentations, which are then required.
        semantic: a folder with a semantic map of each image, or "masks" to make maps from the segmentations: things
            have the ids of their labels, other pixels the id after the last label.
        on_bad_sample: "error" raises BadSamplesError; "skip" skips bad images and annotations; "repair" first clips
            annotations to their images.
        filter_empty: exclude images without annotations.
        min_size: exclude images with a shorter side below this.
        allow_outside: take names of files that are outside the folder, too; by default they are bad samples.
        proposals: a proposals file with all images of this data set.
        max_proposals: maximum proposals per image, best first.
        classes: names, or OLD=NEW, in the order of labels; None: all, in the order of their ids.
        part: (low, high): only images whose `content_share` is in [low, high). None: all.

    Raises:
        BadSamplesError: lists the bad images and annotations.
        NoMasksError: if masks are asked for and no annotation has one.
        DataError: if a file as a whole cannot be used.
    """

    def __init__(
        self,
        annotations: str | Path | Sections,
        images: str | Path,
        *,
        masks: bool = False,
        semantic: SemanticFolder | Literal["masks"] | None = None,
        on_bad_sample: OnBadSample = "error",
        filter_empty: bool = False,
        min_size: int = 0,
        allow_outside: bool = False,
        name: str = "",
        proposals: str | Path | None = None,
        max_proposals: int | None = None,
        classes: Sequence[str] | None = None,
        part: tuple[float, float] | None = None,
    ) -> None:
        check_on_bad_sample(on_bad_sample)
        sections = _prepared(annotations, classes, on_bad_sample)
        self.annotation_file, self.folder = sections.path, Path(images)
        self.semantic = semantic
        self.name = name or str(self.annotation_file)
        self.on_bad_sample = on_bad_sample
        self.has_masks = masks
        maps = semantic.folder if isinstance(semantic, SemanticFolder) else None
        masks = masks or semantic == "masks"
        with without_collecting():
            records = check_sections(sections, self.folder, masks, maps, allow_outside=allow_outside)
        raise_or_log(self.name, records.bad, on_bad_sample)
        self.classes = records.classes
        if semantic is not None:
            self.semantic_classes = semantic.classes if isinstance(semantic, SemanticFolder) else len(self.classes) + 1
        self.skipped = list(records.bad)
        inside = [r for r in records.images if part is None or is_in_part(str(self.folder / r["file_name"]), part)]
        check_part(self.name, len(records.images), len(inside), part)
        kept = _kept_images(inside, records, filter_empty, min_size)
        if not kept:
            count = len(records.images) + len(records.bad)
            raise no_image_left(self.name, f"{count} records", records.bad, filter_empty, min_size)
        self.sizes = np.array([(r["height"], r["width"]) for r in kept], np.int64)
        self.image_ids = np.array([r["id"] for r in kept], np.int64)
        self._names = Names.of([r["file_name"] for r in kept])
        self.table, unused = _table(records, self.image_ids)
        self.dropped = {**sections.dropped, **unused}
        self.notes = sections.notes
        self.trained = int((self.table.trained & ~self.table.crowd).sum())
        self.filtered = len(inside) - len(kept)
        self.proposals = None if proposals is None else DatasetProposals.open(proposals, self, max_proposals)

    def read_as(self, pixels: PixelFormat) -> None:
        """Read images in a format from now on, as `read_image`."""
        self.pixels = pixels

    def file(self, index: int) -> str:
        return str(self.folder / self._names[index])

    def load(self, index: int) -> Sample:
        """Read an image with its annotations; boxes are clipped to the image. BadImage if it cannot be used."""
        file, image_id = self.file(index), int(self.image_ids[index])
        height, width = map(int, self.sizes[index])
        image = read_image_of(file, image_id, (height, width), self.annotation_file, self.pixels)
        chosen = self.table.of_image(index)
        labels = torch.from_numpy(self.table.labels[chosen])
        ignored = torch.from_numpy(self.table.crowd[chosen])
        masks = self._masks(chosen, height, width)
        semantic = None
        if isinstance(self.semantic, SemanticFolder):
            semantic = self.semantic.load(self._names[index], (height, width), image_id)
        elif masks is not None and self.semantic == "masks":
            semantic = map_of_masks(masks.bitmaps(), labels, ignored, stuff=len(self.classes))
        return Sample(
            image=image,
            boxes=_corners(self.table.boxes[chosen], height, width),
            labels=labels,
            ignored=ignored,
            masks=masks if self.has_masks else None,
            semantic=semantic,
            proposals=None if self.proposals is None else self.proposals.of_image(index),
            file=file,
            image_id=image_id,
        )

    def _masks(self, chosen: NDArray[np.int64], height: int, width: int) -> CompressedMasks | None:
        return None if self.table.segmentations is None else self.table.segmentations.masks(chosen, height, width)

    def ground_truth(self) -> dict[str, Any]:
        return {
            "info": {},
            "licenses": [],
            "categories": self.classes.categories(),
            "images": [self._image_record(i) for i in range(len(self))],
            "annotations": [a for i in range(len(self)) for a in self._annotation_records(i)],
        }

    def object_labels(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """As in `DetectionDataset`; no record is made."""
        images = np.repeat(np.arange(len(self)), np.diff(self.table.offsets))
        return images[~self.table.crowd], self.table.labels[~self.table.crowd]

    def _image_record(self, index: int) -> Record:
        height, width = map(int, self.sizes[index])
        return {"id": int(self.image_ids[index]), "file_name": self._names[index], "height": height, "width": width}

    def _annotation_records(self, index: int) -> list[Record]:
        table, (height, width) = self.table, map(int, self.sizes[index])
        records = []
        for k in range(int(table.offsets[index]), int(table.offsets[index + 1])):
            record: Record = {
                "id": int(table.ids[k]),
                "image_id": int(self.image_ids[index]),
                "category_id": self.classes.ids[int(table.labels[k])],
                "bbox": table.boxes[k].tolist(),
                "area": float(table.areas[k]),
                "iscrowd": int(table.crowd[k]),
            }
            if table.segmentations is not None:
                record["segmentation"] = table.segmentations.plain(k, height, width)
            records.append(record)
        return records


def _prepared(
    annotations: str | Path | Sections, classes: Sequence[str] | None, on_bad_sample: OnBadSample
) -> Sections:
    """The data set with the chosen classes, and repaired if asked for; not checked yet."""
    sections = annotations if isinstance(annotations, Sections) else read_sections(Path(annotations))
    if classes is not None:
        sections = choose_classes(sections, class_entries(classes))
    return repaired(sections) if on_bad_sample == "repair" else sections


def _kept_images(images: list[Record], records: CocoRecords, filter_empty: bool, min_size: int) -> list[Record]:
    """The image records that the settings do not exclude, in the file's order."""
    annotated = set(np.unique(records.columns.images).tolist()) if filter_empty else set()
    return [
        r for r in images if min(r["width"], r["height"]) >= min_size and (not filter_empty or r["id"] in annotated)
    ]


def _table(records: CocoRecords, image_ids: NDArray[np.int64]) -> tuple[Annotations, dict[str, int]]:
    """The annotations of these images in flat arrays, and the numbers of those that do not train, by what they are."""
    order = np.argsort(image_ids)
    place = np.minimum(np.searchsorted(image_ids[order], records.columns.images), len(order) - 1)
    position = order[place]
    (rows,) = np.nonzero(image_ids[position] == records.columns.images)
    rows = rows[np.argsort(position[rows], kind="stable")]  # so that an image's annotations keep the file's order
    columns, rules = records.columns.take(rows), records.columns.rules[rows]
    segmentations = None
    if records.segmentations is not None:
        segmentations = _segmentations(records, rows, rules)
    unused = Counter(RULES[rule] for rule in rules[(rules > 0) & ~columns.crowd].tolist())
    if columns.crowd.any():
        unused["crowd regions"] = int(columns.crowd.sum())
    table = Annotations(
        offsets=np.concatenate([[0], np.bincount(position[rows], minlength=len(image_ids)).cumsum()]).astype(np.int64),
        ids=columns.ids,
        boxes=columns.boxes,
        labels=_labels(records.classes.ids, columns.categories),
        areas=columns.areas,
        crowd=columns.crowd,
        trained=rules == 0,
        segmentations=segmentations,
    )
    return table, dict(unused)


def _labels(ids: Sequence[int], categories: NDArray[np.int64]) -> NDArray[np.int64]:
    """(M,) labels of the annotations' category ids, all of which are in `ids`, the ids of labels 0..K-1."""
    known = np.array(ids, np.int64)
    order = np.argsort(known)
    return np.asarray(order[np.searchsorted(known[order], categories)])


def _segmentations(records: CocoRecords, rows: NDArray[np.int64], rules: NDArray[np.uint8]) -> Segmentations:
    """The masks of these annotations; sets the rule of those that have no pixels."""
    assert records.segmentations is not None
    sizes, builder = records.sizes(), SegmentationBuilder()
    for index, (row, image) in enumerate(zip(rows.tolist(), records.columns.images[rows].tolist(), strict=True)):
        size, value = sizes[image], records.segmentations[row]
        if rules[index] and segmentation_problem(value, *size):
            value = {"size": list(size), "counts": [size[0] * size[1]]}  # it does not train, so none was required
        elif not rules[index] and not has_pixels(value, *size):
            rules[index] = RULES.index("with a mask without pixels")
        builder.add(value, *size)
    return builder.build()


def _corners(boxes: NDArray[np.float64], height: int, width: int) -> Tensor:
    """(n, 4) float64 xywh to float32 xyxy, clipped to the image."""
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    limits = np.array([width, height, width, height], np.float64)
    return torch.from_numpy(np.clip(corners, 0, limits).astype(np.float32))
