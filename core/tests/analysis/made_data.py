"""Data sets and detections made in code, for tests of the analysis."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from det_core.contracts import DetectionDataset, Sample
from det_core.structures import Classes

Record = dict[str, Any]
SIDE = 200


def box(image: int, label: int, corners: Sequence[float], **more: Any) -> Record:
    """A record of ground truth, or with `score` of a detection; corners are xyxy."""
    x, y, x2, y2 = (float(c) for c in corners)
    record: Record = {"image_id": image, "category_id": label + 1, "bbox": [x, y, x2 - x, y2 - y], **more}
    if "score" not in record:
        record = {"area": (x2 - x) * (y2 - y), "iscrowd": 0, **record}
    polygon = [[x, y, x2, y, x2, y2, x, y2]]
    code = coco_mask.merge(coco_mask.frPyObjects(polygon, SIDE, SIDE))
    return {**record, "segmentation": code}


class MadeDataset(DetectionDataset):
    """Records of ground truth on images of 200x200 pixels, with masks that fill the boxes."""

    def __init__(self, records: Sequence[Record], images: int, classes: int = 3) -> None:
        self.name, self.has_masks, self.skipped = "made", True, []
        self.classes = Classes(names=tuple("abcdefghij"[:classes]), ids=tuple(range(1, classes + 1)))
        self.image_ids = np.arange(1, images + 1)
        self.sizes = np.full((images, 2), SIDE, np.int64)
        self.records = list(records)

    def file(self, index: int) -> str:
        return f"{self.image_ids[index]}.png"

    def load(self, index: int) -> Sample:
        raise NotImplementedError

    def ground_truth(self) -> dict[str, Any]:
        return {
            "info": {},
            "categories": [{"id": i, "name": n} for i, n in zip(self.classes.ids, self.classes.names, strict=True)],
            "images": [{"id": int(i), "height": SIDE, "width": SIDE, "file_name": f"{i}.png"} for i in self.image_ids],
            "annotations": [{**record, "id": number} for number, record in enumerate(self.records, 1)],
        }


def random_case(seed: int, images: int = 12, classes: int = 3, per_image: int = 6) -> tuple[MadeDataset, list[Record]]:
    """Crowded images, with detections of every kind: right, shifted, of another class, repeated, anywhere."""
    random = np.random.default_rng(seed)
    truth, found = [], []
    for image in range(1, images + 1):
        for _ in range(random.integers(0, per_image + 1)):
            label, crowd = int(random.integers(classes)), int(random.random() < 0.1)
            corner, sides = random.uniform(0, 130, 2), random.uniform(10, 70, 2)
            truth.append(box(image, label, [*corner, *(corner + sides)], iscrowd=crowd))
            for _ in range(random.integers(0, 4)):
                shift, other = random.normal(0, sides.mean() * 0.15, 2), random.random() < 0.25
                place = [*(corner + shift), *(corner + shift + sides * random.uniform(0.8, 1.25, 2))]
                found.append(box(image, int(random.integers(classes)) if other else label, place, score=_score(random)))
        for _ in range(random.integers(0, 3)):
            corner = random.uniform(0, 150, 2)
            place = [*corner, *(corner + random.uniform(8, 50, 2))]
            found.append(box(image, int(random.integers(classes)), place, score=_score(random)))
    order = random.permutation(len(found))
    return MadeDataset(truth, images, classes), [found[i] for i in order]


def _score(random: np.random.Generator) -> float:
    return float(random.uniform(0.01, 1))  # no two are equal


def pycocotools_precision(dataset: DetectionDataset, records: Sequence[Record], kind: str = "box") -> np.ndarray:
    """(T, K) AP by pycocotools at IoU .50 to .95; nan for classes without objects."""
    truth = COCO()
    with contextlib.redirect_stdout(io.StringIO()):
        truth.dataset = dataset.ground_truth()
        truth.createIndex()
        keep = ("image_id", "category_id", "score", "segmentation" if kind == "mask" else "bbox")
        found = COCO()
        if records:
            found = truth.loadRes([{name: record[name] for name in keep} for record in records])
        else:
            found.dataset = {**truth.dataset, "annotations": []}
            found.createIndex()
        evaluation = COCOeval(truth, found, "segm" if kind == "mask" else "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # (T, R, K)
    return np.where((precision > -1).all(1), precision.mean(1), np.nan)
