"""COCO's metrics, computed with pycocotools or, if installed, faster-coco-eval.

Letters: T IoU thresholds (.50:.05:.95), R recall levels, K classes, A area ranges (all, small, medium, large), M
limits on detections per image, n detections of an image. Metrics are fractions; nan without ground truth.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from attrs import frozen
from pycocotools import mask as coco_mask
from rich.table import Table

from det_core.contracts import DetectionDataset, EvaluationResult, Evaluator
from det_core.errors import DataError, DetError
from det_core.evaluation.class_labels import check_labels, class_names
from det_core.evaluation.metric_config import AREAS, PROPOSAL_LIMITS, CocoEvaluatorConfig
from det_core.evaluation.metric_tables import CLASSES_SHOWN, as_text, metric_table, percent

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from det_core.structures import Detections


@frozen(eq=False)
class Curves:
    """Results of COCO's evaluation: precision (T, R, K, A, M), recall (T, K, A, M); -1 without ground truth."""

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]


class CocoEvaluator(Evaluator):
    """AP and AR as COCO defines them."""

    def __init__(self, config: CocoEvaluatorConfig, dataset: DetectionDataset) -> None:
        if "mask" in config.kinds and not dataset.has_masks:
            raise DataError(
                f"{dataset.name}: the evaluator needs masks, but the data set was opened without masks; use "
                "`kinds: [box]`, or open it with masks=True"
            )
        self.config = config
        self.dataset = dataset
        self.backend = choose_backend(config.backend)

    def encode(self, image_id: int, detections: Detections) -> list[dict[str, Any]]:
        """Records with `image_id`, `category_id`, `bbox` (x, y, width, height), `score`, and for masks `segmentation`.

        Raises DataError for a label that the data set has no class for.
        """
        check_labels(self.dataset, detections.labels.tolist())
        masks = "mask" in self.config.kinds
        if masks and not detections.has_masks:
            raise DetError(
                "the evaluator needs masks, but the detector gives none; use `kinds: [box]`, or a detector with a mask "
                "head"
            )
        return detections.to_coco(image_id, self.dataset.classes, masks=masks)

    def compute(self, results: list[dict[str, Any]]) -> EvaluationResult:
        metrics: dict[str, float] = {}
        per_class: dict[str, dict[str, float]] = {name: {} for name in class_names(self.dataset)}
        for kind in self.config.kinds:
            curves = self._curves(kind, results)
            names = self.config.names_of(kind)
            metrics |= dict(zip(names, _recalls(curves) if kind == "proposal" else _averages(curves), strict=True))
            if kind == "proposal":
                continue
            for k, values in enumerate(per_class.values()):
                values[f"{kind}_ap"] = _mean(curves.precision[:, :, k, 0, -1])
                values[f"{kind}_ap50"] = _mean(curves.precision[0, :, k, 0, -1])
        per_class = {name: values for name, values in per_class.items() if values}
        return EvaluationResult(metrics=metrics, per_class=per_class, table=render(metrics, per_class))

    def _curves(self, kind: str, results: list[dict[str, Any]]) -> Curves:
        truth, numbers = _renumbered(self.dataset)
        detected = {**truth, "annotations": _as_annotations(kind, results, numbers)}
        limits = PROPOSAL_LIMITS if kind == "proposal" else self.config.limits()
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            evaluation = _evaluation(self.backend, truth, detected, "segm" if kind == "mask" else "bbox")
            evaluation.params.maxDets = list(limits)
            evaluation.params.useCats = int(kind != "proposal")
            evaluation.evaluate()
            evaluation.accumulate()
        shape = (len(evaluation.params.iouThrs), -1, len(AREAS), len(limits))
        recall = np.asarray(evaluation.eval["recall"], np.float64).reshape(shape)
        precision = np.asarray(evaluation.eval["precision"], np.float64)
        return Curves(precision.reshape(shape[0], -1, recall.shape[1], *shape[2:]), recall)


def choose_backend(name: str) -> str:
    """Resolve `auto` to the installed backend; DetError for faster-coco-eval if it is not installed."""
    installed = importlib.util.find_spec("faster_coco_eval") is not None
    if name == "faster-coco-eval" and not installed:
        raise DetError(
            "backend: faster-coco-eval is not installed; `pip install faster-coco-eval`, or use `backend: auto`"
        )
    return ("faster-coco-eval" if installed else "pycocotools") if name == "auto" else name


@frozen
class _Numbers:
    """Positions from 1 of images and categories, by their ids in the data set."""

    images: dict[int, int]
    categories: dict[int, int]


def _renumbered(dataset: DetectionDataset) -> tuple[dict[str, Any], _Numbers]:
    """The ground truth with images, annotations and categories numbered from 1, and these numbers.

    COCO's evaluation reads an annotation id of 0 as "no match", and its implementations differ for negative ids.
    Categories are numbered in the order of the classes, which is the order of the results by class.
    """
    truth = dataset.ground_truth()
    numbers = _Numbers(
        images={record["id"]: number for number, record in enumerate(truth["images"], start=1)},
        categories={number: position for position, number in enumerate(dataset.classes.ids, start=1)},
    )
    annotations = [
        {
            **record,
            "id": number,
            "image_id": numbers.images[record["image_id"]],
            "category_id": numbers.categories[record["category_id"]],
        }
        for number, record in enumerate(truth["annotations"], start=1)
    ]
    images = [{**record, "id": numbers.images[record["id"]]} for record in truth["images"]]
    categories = [{"id": position, "name": str(position)} for position in numbers.categories.values()]
    return {**truth, "images": images, "annotations": annotations, "categories": categories}, numbers


def _as_annotations(kind: str, results: Sequence[dict[str, Any]], numbers: _Numbers) -> list[dict[str, Any]]:
    """Records of known images as COCO annotations. The area (small, medium, large) is that of the mask or the box."""
    annotations = []
    for number, record in enumerate((r for r in results if r["image_id"] in numbers.images), start=1):
        annotation = {
            "id": number,
            "image_id": numbers.images[record["image_id"]],
            "category_id": numbers.categories[record["category_id"]],
            "bbox": record["bbox"],
            "score": record["score"],
            "iscrowd": 0,
            "area": record["bbox"][2] * record["bbox"][3],
        }
        if kind == "mask":
            annotation["segmentation"] = record["segmentation"]
            annotation["area"] = float(coco_mask.area(record["segmentation"]))
        annotations.append(annotation)
    return annotations


def _evaluation(backend: str, truth: dict[str, Any], detected: dict[str, Any], iou_type: str) -> Any:
    """The evaluation object of a library. faster-coco-eval fails without detections."""
    if backend == "faster-coco-eval" and detected["annotations"]:
        from faster_coco_eval import COCO, COCOeval_faster as COCOeval
    else:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    sides = []
    for data in (truth, detected):
        coco = COCO()
        coco.dataset = data
        coco.createIndex()
        sides.append(coco)
    return COCOeval(*sides, iou_type)


def _mean(values: NDArray[np.float64]) -> float:
    """The mean of the values that are not -1; nan if there are none."""
    present = values[values > -1]
    return float(present.mean()) if present.size else float("nan")


def _averages(curves: Curves) -> list[float]:
    """APs at the largest limit, AR at each limit, and by area, in the order of `CocoEvaluatorConfig.names_of`."""
    precision = curves.precision
    values = [precision[:, :, :, 0, -1], precision[0, :, :, 0, -1], precision[5, :, :, 0, -1]]
    values += [precision[:, :, :, area, -1] for area in range(1, len(AREAS))]
    return [_mean(value) for value in values] + _recalls(curves)


def _recalls(curves: Curves) -> list[float]:
    """AR at each limit, and by area at the largest limit."""
    recall = curves.recall
    limits, areas = range(recall.shape[3]), range(1, len(AREAS))
    return [_mean(recall[:, :, 0, m]) for m in limits] + [_mean(recall[:, :, area, -1]) for area in areas]


def render(metrics: dict[str, float], per_class: dict[str, dict[str, float]]) -> str:
    """Metrics as text of at most 80 columns: percent, `n/a` without ground truth."""
    tables = []
    kinds = [kind for kind in ("box", "mask") if f"{kind}_ap" in metrics]
    if kinds:
        tables.append(_ap_table(kinds, metrics))
    if "ar100" in metrics:
        tables.append(_proposal_table(metrics))
    if kinds and 1 < len(per_class) <= CLASSES_SHOWN:
        tables.append(_class_table(kinds, per_class))
    return as_text(tables)


def _ap_table(kinds: Sequence[str], metrics: dict[str, float]) -> Table:
    recalls = [name.removeprefix(f"{kinds[0]}_ar") for name in metrics if name.startswith(f"{kinds[0]}_ar")]
    limit = max(int(recall) for recall in recalls if recall.isdigit())
    parts = {
        "AP": "ap",
        "AP50": "ap50",
        "AP75": "ap75",
        "APs": "ap_small",
        "APm": "ap_medium",
        "APl": "ap_large",
        f"AR@{limit}": f"ar{limit}",
    }
    table = metric_table("COCO metrics (percent)", "", list(parts))
    for kind in kinds:
        table.add_row(kind, *(percent(metrics[f"{kind}_{part}"]) for part in parts.values()))
    return table


def _proposal_table(metrics: dict[str, float]) -> Table:
    names = [name for name in metrics if name.startswith("ar")]
    titles = [
        name.replace("ar", "AR@", 1).replace("_small", " s").replace("_medium", " m").replace("_large", " l")
        for name in names
    ]
    table = metric_table("Recall of proposals, all classes as one (percent)", "", titles)
    table.add_row("proposals", *(percent(metrics[name]) for name in names))
    return table


def _class_table(kinds: Sequence[str], per_class: dict[str, dict[str, float]]) -> Table:
    parts = [f"{kind}_{part}" for kind in kinds for part in ("ap", "ap50")]
    titles = [part.replace("_ap", " AP") for part in parts]
    table = metric_table("By class (percent)", "class", titles)
    for name, values in per_class.items():
        table.add_row(name, *(percent(values[part]) for part in parts))
    return table
