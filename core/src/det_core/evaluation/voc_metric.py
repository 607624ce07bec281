"""PASCAL VOC's metric (Everingham et al., The Pascal Visual Object Classes Challenge: A Retrospective, 2015).

A detection is matched with the object of its class and image of the highest IoU, including ignored (difficult) objects.
If the IoU reaches the threshold, the detection with the highest score per object is correct, and detections of ignored
objects do not count; all others are wrong. The AP of a class is the area below its monotonic curve of precision over
recall (VOC2010 and later), or the mean of this curve at recalls 0, 0.1, ... 1 (VOC2007). Classes without objects that
count are excluded from the mean.

Departures from the devkit: boxes are continuous, so a side is x2 - x1 without an added pixel, in objects and
detections; recalls are compared with the 11 points in integers, while the devkit's fractions round.

Letters: n detections of an image, D of a class in all images, G objects of a class in an image, K classes. Boxes are
xyxy in pixels of the original image.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np
from attrs import field, frozen

from det_core.contracts import DetectionDataset, EvaluationResult, Evaluator
from det_core.evaluation.class_labels import check_labels, class_names
from det_core.evaluation.metric_config import VOC_METRICS, VocEvaluatorConfig
from det_core.evaluation.metric_tables import CLASSES_SHOWN, as_text, metric_table, percent

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from det_core.structures import Detections

POINTS = 11


@frozen(eq=False)
class ClassScore:
    """AP by area and by 11 points, and the number of objects; nan without objects."""

    area: float
    points: float
    objects: int


@frozen(eq=False)
class _Truth:
    """The objects of a class in an image: boxes (G, 4) xyxy, and whether each is ignored (G,)."""

    boxes: list[list[float]] = field(factory=list)
    ignored: list[bool] = field(factory=list)


class VocEvaluator(Evaluator):
    """Mean AP at one IoU as VOC defines it, on any data set with boxes (crowd regions are ignored objects)."""

    def __init__(self, config: VocEvaluatorConfig, dataset: DetectionDataset) -> None:
        self.config = config
        self.dataset = dataset
        self.rows = {int(number): row for row, number in enumerate(dataset.image_ids)}

    def encode(self, image_id: int, detections: Detections) -> list[dict[str, Any]]:
        """Records with `image_id`, `label`, `box` (xyxy) and `score`; DataError for a label without a class."""
        boxes = detections.boxes.detach().double().cpu().tolist()
        scores, labels = detections.scores.detach().double().cpu().tolist(), detections.labels.cpu().tolist()
        check_labels(self.dataset, labels)
        return [
            {"image_id": image_id, "label": label, "box": box, "score": score}
            for box, score, label in zip(boxes, scores, labels, strict=True)
        ]

    def compute(self, results: list[dict[str, Any]]) -> EvaluationResult:
        truth = self._truth()
        found: list[list[dict[str, Any]]] = [[] for _ in self.dataset.classes.names]
        for record in results:
            found[record["label"]].append(record)
        scores = [self._score(found[label], truth[label]) for label in range(len(found))]
        means = [_mean([s.area for s in scores]), _mean([s.points for s in scores])]
        metrics = dict(zip(VOC_METRICS, means, strict=True))
        by_name = dict(zip(class_names(self.dataset), scores, strict=True))
        per_class = {name: {"voc_ap": s.area, "voc_ap11": s.points} for name, s in by_name.items()}
        return EvaluationResult(metrics=metrics, per_class=per_class, table=render(metrics, by_name, self.config.iou))

    def _truth(self) -> list[dict[int, _Truth]]:
        """The objects by label and by index of the image in the data set."""
        labels = {number: label for label, number in enumerate(self.dataset.classes.ids)}
        truth: list[dict[int, _Truth]] = [defaultdict(_Truth) for _ in labels]
        for annotation in self.dataset.ground_truth()["annotations"]:
            x, y, width, height = annotation["bbox"]
            objects = truth[labels[annotation["category_id"]]][self.rows[annotation["image_id"]]]
            objects.boxes.append([x, y, x + width, y + height])
            objects.ignored.append(bool(annotation["iscrowd"]))
        return truth

    def _score(self, records: list[dict[str, Any]], truth: dict[int, _Truth]) -> ClassScore:
        """The AP of one class from its detections and objects."""
        count = sum(not ignored for objects in truth.values() for ignored in objects.ignored)
        if not count:
            return ClassScore(float("nan"), float("nan"), 0)
        right = self._match(records, truth)
        return ClassScore(area_ap(right, count), points_ap(right, count), count)

    def _match(self, records: list[dict[str, Any]], truth: dict[int, _Truth]) -> NDArray[np.bool_]:
        """Whether each detection of a class is correct, in descending order of score, without those that do not count.

        Equal scores are ordered by image, and within an image by detection.
        """
        records = [r for r in records if r["image_id"] in self.rows]
        images = np.array([self.rows[r["image_id"]] for r in records], np.int64)
        boxes = np.array([r["box"] for r in records], np.float64).reshape(-1, 4)
        scores = np.array([r["score"] for r in records], np.float64)
        order = np.lexsort((images, -scores))
        images, boxes = images[order], boxes[order]
        right, counts = np.zeros(len(order), np.bool_), np.ones(len(order), np.bool_)
        by_image = np.argsort(images, kind="stable")  # best first within an image
        for image, objects in truth.items():
            rows = by_image[slice(*np.searchsorted(images, (image, image + 1), sorter=by_image))]
            if not rows.size:
                continue
            overlaps = box_iou(boxes[rows], np.array(objects.boxes, np.float64))
            best = overlaps.argmax(1)
            hit = overlaps[np.arange(len(rows)), best] >= self.config.iou
            ignored = np.array(objects.ignored, np.bool_)[best]
            counts[rows[hit & ignored]] = False
            candidates = np.flatnonzero(hit & ~ignored)
            first = np.unique(best[candidates], return_index=True)[1]
            right[rows[candidates[first]]] = True
        return right[counts]


def box_iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, G) IoUs of boxes (n, 4) with boxes (G, 4); 0 if neither has an area."""
    sides = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    common = sides.clip(min=0).prod(2)
    areas = (a[:, 2:] - a[:, :2]).prod(1)[:, None] + (b[:, 2:] - b[:, :2]).prod(1)[None]
    union = areas - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def area_ap(right: NDArray[np.bool_], count: int) -> float:
    """The area below precision over recall, where each precision is the maximum at this or a higher recall.

    right: (D,) whether detections are correct, in descending order of score. count: number of objects.
    """
    best = _best_precisions(right)
    return float(best[right].sum() / count)  # each correct detection, and no other, increases recall by 1 / count


def points_ap(right: NDArray[np.bool_], count: int) -> float:
    """The mean of the maximum precisions at recalls of at least 0, 0.1, ... 1; arguments as in `area_ap`."""
    best, found = _best_precisions(right), right.cumsum()
    total = 0.0
    for point in range(POINTS):
        reached = np.flatnonzero(found * (POINTS - 1) >= point * count)
        total += float(best[reached[0]]) if reached.size else 0.0
    return total / POINTS


def _best_precisions(right: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(D,) the maximum precision at each detection and all after it."""
    precision = right.cumsum() / np.arange(1, len(right) + 1)
    best: NDArray[np.float64] = np.maximum.accumulate(precision[::-1])[::-1]
    return best


def _mean(values: list[float]) -> float:
    """The mean of the values that are not nan; nan if there are none."""
    present = [value for value in values if not np.isnan(value)]
    return float(np.mean(present)) if present else float("nan")


def render(metrics: dict[str, float], classes: dict[str, ClassScore], iou: float) -> str:
    """Metrics as text of at most 80 columns: percent, `n/a` without objects."""
    table = metric_table(f"VOC metrics at IoU {iou:g} (percent)", "class", ["AP", "AP 11 points", "objects"])
    if 1 < len(classes) <= CLASSES_SHOWN:
        for name, score in classes.items():
            table.add_row(name, percent(score.area), percent(score.points), str(score.objects))
        table.add_section()
    total = sum(score.objects for score in classes.values())
    table.add_row("mean", *(percent(metrics[name]) for name in VOC_METRICS), str(total))
    return as_text([table])
