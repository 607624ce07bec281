"""Data sets in PASCAL VOC format, stored in flat arrays that loader processes share.

Letters: N images, M objects, n objects of one image, K classes. Boxes are xyxy in pixels of the image, as continuous
coordinates. VOC's corners are pixel indices from 1, both inside the box, so VOC's (xmin, ymin, xmax, ymax) becomes
(xmin - 1, ymin - 1, xmax, ymax), xmax - xmin + 1 pixels wide. (mmdetection 2.x and 3.x subtract 1 from all four, which
drops the last column and row of the box.)
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attrs import frozen
from numpy.typing import NDArray

from det_core.contracts import DetectionDataset, Sample
from det_core.data.bad_samples import check_on_bad_sample, check_part, no_image_left, raise_or_log
from det_core.data.class_choice import class_entries
from det_core.data.coco_repair import repair_notes
from det_core.data.coco_sections import OTHER_CLASSES
from det_core.data.data_config import VOC_CLASSES
from det_core.data.file_names import Names
from det_core.data.image_content import is_in_part
from det_core.data.images import read_image_of
from det_core.data.proposals_file import DatasetProposals
from det_core.data.voc_files import VocImage, read_voc
from det_core.data.voc_layout import VocSet
from det_core.data.voc_xml import Corners, Repairs
from det_core.errors import DataError
from det_core.specs import OnBadSample, PixelFormat
from det_core.structures import Classes

log = logging.getLogger(__name__)


@frozen(eq=False, kw_only=True)
class Objects:
    """M objects ordered by image: those of image i are offsets[i]..offsets[i + 1].

    offsets (N + 1,) int64. boxes (M, 4) float64 xyxy within the image. labels (M,) int64 in 0..K-1. difficult,
    truncated (M,) bool.
    """

    offsets: NDArray[np.int64]
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    difficult: NDArray[np.bool_]
    truncated: NDArray[np.bool_]


class VocDataset(DetectionDataset):
    """The images of VOC image sets with their XML annotations. All are checked when the data set is opened.

    Image ids count from 1 over all sets. A box may extend outside its image by a pixel, and is clipped.

    Args:
        sets: the image sets.
        classes: names of labels 0..K-1, or OLD=NEW. None: all names in the annotations of the sets' folders, sorted;
            images that are in none of the sets count too, so that all sets of a folder have the same classes.
        name: for messages.
        other_classes: "error" makes objects of other classes than `classes` bad samples; "drop" leaves them out.
        difficult: "ignore" makes difficult objects `ignored` in samples and in metrics; "keep" does not.
        corners: "inclusive" as described above, or "exact" for boxes that are already xyxy.
        on_bad_sample: "error" raises BadSamplesError; "skip" skips bad images and objects; "repair" also clips boxes.
        filter_empty: exclude images without objects.
        min_size: exclude images with a shorter side below this.
        allow_outside: take names of files that are outside their folder, too; by default they are bad samples.
        proposals: a proposals file with all images of this data set.
        max_proposals: maximum proposals per image, best first.
        part: (low, high): only images whose `content_share` is in [low, high). None: all.

    Raises:
        BadSamplesError: lists the bad images and objects, with file and line.
        DataError: if a file as a whole cannot be used.
    """

    ignored_kind = "difficult objects"

    def __init__(
        self,
        sets: Sequence[VocSet],
        classes: Sequence[str] | None = VOC_CLASSES,
        *,
        name: str = "VOC",
        difficult: str = "ignore",
        other_classes: str = "error",
        corners: Corners = "inclusive",
        on_bad_sample: OnBadSample = "error",
        filter_empty: bool = False,
        min_size: int = 0,
        allow_outside: bool = False,
        proposals: str | Path | None = None,
        max_proposals: int | None = None,
        part: tuple[float, float] | None = None,
    ) -> None:
        check_on_bad_sample(on_bad_sample)
        self.sets = tuple(sets)
        self.name = f"{name} (VOC: {' + '.join(s.name for s in sets)})"
        self.on_bad_sample = on_bad_sample
        self.ignores = difficult == "ignore"
        repairs = Repairs() if on_bad_sample == "repair" else None
        records = read_voc(
            self.sets,
            None if classes is None else class_entries(classes),
            corners,
            allow_outside=allow_outside,
            repairs=repairs,
            drop_others=other_classes == "drop",
        )
        if repairs is not None:
            self.notes = repair_notes(self.name, repairs.clipped, repairs.left_out)
        self.skipped = list(records.bad)
        raise_or_log(self.name, self.skipped, on_bad_sample)
        if not records.classes:
            raise DataError(f"{self.name}: the annotations contain no class, so there is nothing to train on")
        self.classes = Classes(names=records.classes, ids=tuple(range(1, len(records.classes) + 1)))
        if classes is None:
            log.info("%s: %d classes in the annotations: %s", self.name, len(self.classes), ", ".join(records.classes))
        inside = [i for i in records.images if part is None or is_in_part(self._path(i), part)]
        check_part(self.name, len(records.images), len(inside), part)
        kept = [i for i in inside if min(i.size) >= min_size and (i.objects or not filter_empty)]
        if not kept:
            raise no_image_left(self.name, str(records.count), records.bad, filter_empty, min_size)
        self.filtered = len(inside) - len(kept)
        self.sizes = np.array([i.size for i in kept], np.int64)
        self.image_ids = np.array([i.number for i in kept], np.int64)
        self._rows = np.array([i.row for i in kept], np.int64)
        self._names = Names.of([i.file for i in kept])
        self.table = _table(kept, records.classes)
        ignored = int(self.table.difficult.sum()) if self.ignores else 0
        self.trained = len(self.table.labels) - ignored
        unused = {self.ignored_kind: ignored, OTHER_CLASSES: records.others}
        self.dropped = {what: count for what, count in unused.items() if count}
        self.proposals = None if proposals is None else DatasetProposals.open(proposals, self, max_proposals)

    def _path(self, image: VocImage) -> str:
        return str(self.sets[image.row].images / image.file)

    def read_as(self, pixels: PixelFormat) -> None:
        """Read images in a format from now on, as `read_image`."""
        self.pixels = pixels

    def file(self, index: int) -> str:
        return str(self.sets[self._rows[index]].images / self._names[index])

    def annotation_file(self, index: int) -> Path:
        """Path of an image's annotations."""
        name = self._names[index]
        return self.sets[self._rows[index]].annotations / f"{name.removesuffix(Path(name).suffix)}.xml"

    def load(self, index: int) -> Sample:
        """Read an image with its objects; BadImage if it cannot be used."""
        file, image_id = self.file(index), int(self.image_ids[index])
        height, width = map(int, self.sizes[index])
        part = self._part(index)
        difficult = torch.from_numpy(self.table.difficult[part].copy())
        return Sample(
            image=read_image_of(file, image_id, (height, width), self.annotation_file(index), self.pixels),
            boxes=torch.from_numpy(self.table.boxes[part].astype(np.float32)),
            labels=torch.from_numpy(self.table.labels[part].copy()),
            ignored=difficult if self.ignores else torch.zeros_like(difficult),
            proposals=None if self.proposals is None else self.proposals.of_image(index),
            file=file,
            image_id=image_id,
        )

    def _part(self, index: int) -> slice:
        return slice(int(self.table.offsets[index]), int(self.table.offsets[index + 1]))

    def ground_truth(self) -> dict[str, Any]:
        """All annotations as a new COCO-format dict, with `difficult` and `truncated`.

        Ignored objects are crowd regions in it, since COCO's metrics have no other way to ignore an object.
        """
        return {
            "info": {},
            "licenses": [],
            "categories": self.classes.categories(),
            "images": [self._image_record(i) for i in range(len(self))],
            "annotations": [record for i in range(len(self)) for record in self._object_records(i)],
        }

    def _image_record(self, index: int) -> dict[str, Any]:
        height, width = map(int, self.sizes[index])
        return {"id": int(self.image_ids[index]), "file_name": self._names[index], "height": height, "width": width}

    def _object_records(self, index: int) -> Iterator[dict[str, Any]]:
        table, part = self.table, self._part(index)
        for k in range(part.start, part.stop):
            x1, y1, x2, y2 = table.boxes[k].tolist()
            yield {
                "id": k + 1,
                "image_id": int(self.image_ids[index]),
                "category_id": self.classes.ids[int(table.labels[k])],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1),
                "iscrowd": int(table.difficult[k]) if self.ignores else 0,
                "difficult": int(table.difficult[k]),
                "truncated": int(table.truncated[k]),
            }


def _table(images: Sequence[VocImage], classes: Sequence[str]) -> Objects:
    label = {name: i for i, name in enumerate(classes)}
    objects = [found for image in images for found in image.objects]
    return Objects(
        offsets=np.cumsum([0, *(len(image.objects) for image in images)], dtype=np.int64),
        boxes=np.array([found.box for found in objects], np.float64).reshape(-1, 4),
        labels=np.array([label[found.name] for found in objects], np.int64),
        difficult=np.array([found.difficult for found in objects], np.bool_),
        truncated=np.array([found.truncated for found in objects], np.bool_),
    )
