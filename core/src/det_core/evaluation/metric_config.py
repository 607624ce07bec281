"""Configurations of core's evaluators. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from det_core.settings import configclass, setting
from det_core.slots import EvaluatorConfig

if TYPE_CHECKING:
    from det_core.contracts import DetectionDataset, Evaluator

Kind = Literal["box", "mask", "proposal"]


AREAS = ("", "_small", "_medium", "_large")
PROPOSAL_LIMITS = (100, 300, 1000)
VOC_METRICS = ("voc_map", "voc_map11")


@configclass
class CocoEvaluatorConfig(EvaluatorConfig):
    """COCO's metrics: AP of boxes and masks (`box_ap`, `mask_ap50`, ...), AR of proposals (`ar1000`, ...)."""

    type: ClassVar[str] = "coco"

    kinds: tuple[Kind, ...] = setting("what to evaluate", default=("box",), min_items=1, distinct=True)
    backend: Literal["auto", "pycocotools", "faster-coco-eval"] = setting(
        "library; auto: faster-coco-eval if installed, otherwise pycocotools (same numbers)", default="auto"
    )
    max_detections: int = setting("maximum detections per image (boxes, masks), best first", default=100, least=1)

    def needs_masks(self) -> bool:
        return "mask" in self.kinds

    def metric_names(self) -> tuple[str, ...]:
        return tuple(name for kind in self.kinds for name in self.names_of(kind))

    def names_of(self, kind: Kind) -> list[str]:
        """The names of the metrics of one kind."""
        areas = [area for area in AREAS if area]
        if kind == "proposal":
            return [f"ar{limit}" for limit in PROPOSAL_LIMITS] + [f"ar{PROPOSAL_LIMITS[-1]}{area}" for area in areas]
        names = [f"{kind}_ap{suffix}" for suffix in ("", "50", "75", *areas)]
        return names + [f"{kind}_ar{suffix}" for suffix in (*self.limits(), *areas)]

    def limits(self) -> tuple[int, ...]:
        """Maximum detections per image for the recalls, ascending."""
        return tuple(sorted({limit for limit in (1, 10, self.max_detections) if limit <= self.max_detections}))

    def build(self, dataset: DetectionDataset) -> Evaluator:
        """The evaluator for a data set; DataError if `kinds` has `mask` and the data set has no masks."""
        from det_core.evaluation.coco_metric import CocoEvaluator

        return CocoEvaluator(self, dataset)


@configclass
class VocEvaluatorConfig(EvaluatorConfig):
    """PASCAL VOC's metric: mean AP at one IoU, from the area below the curve (`voc_map`) and 11 points (`voc_map11`).

    `voc_map` is the metric of VOC2010 and later, `voc_map11` of VOC2007. Ignored (difficult) objects do not count.
    """

    type: ClassVar[str] = "voc"

    iou: float = setting("minimum IoU of a correct detection", default=0.5, above=0, most=1)

    def metric_names(self) -> tuple[str, ...]:
        return VOC_METRICS

    def build(self, dataset: DetectionDataset) -> Evaluator:
        from det_core.evaluation.voc_metric import VocEvaluator

        return VocEvaluator(self, dataset)
