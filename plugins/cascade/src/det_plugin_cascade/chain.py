"""The stages of a cascade in a row: their losses by name, and their detections at test time.

Letters: R regions of all images, n proposals of one image, K foreground classes, S side of a mask.
Boxes are xyxy in pixels of the padded network input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from det_core.contracts import BoxHead, BoxOutputs
from det_core.model.postprocess import Chosen
from det_core.padded import PaddedBatch, PaddedProposals
from det_core.structures import ImageInfo, LossTerm, full_precision
from det_plugin_cascade.config import StagedHeadConfig
from det_plugin_rcnn.box_stage import BoxStage
from det_plugin_rcnn.detections import choose_detections
from det_plugin_rcnn.mask_branch import of_class
from det_plugin_rcnn.padded_regions import PaddedFound, choose_padded

# Stage number from 0 and each image's boxes (n, 4) to the outputs of the stage's box head.
RunStage = Callable[[int, Sequence[Tensor]], BoxOutputs]
# The same of boxes (N, P, 4) of all images.
RunPaddedStage = Callable[[int, Tensor], BoxOutputs]


class Chain(nn.Module):
    """The box stages of a cascade, first to last. It has no weights; the heads run their box heads themselves."""

    def __init__(self, config: StagedHeadConfig, box_heads: Sequence[BoxHead]) -> None:
        super().__init__()
        self.config = config
        self._stages = nn.ModuleList(
            BoxStage(stage, head.num_classes, class_agnostic=head.class_agnostic)
            for stage, head in zip(config.stages, box_heads, strict=True)
        )

    @property
    def stages(self) -> list[BoxStage]:
        """First to last."""
        return cast("list[BoxStage]", list(self._stages))

    def weighted_losses(self, number: int, terms: Mapping[str, LossTerm]) -> dict[str, LossTerm]:
        """The terms of stage `number` from 0, multiplied by its weight and named `stage1_...` and so on."""
        weight = self.config.stages[number].loss_weight
        return {f"stage{number + 1}_{name}": LossTerm(term.total * weight, term.count) for name, term in terms.items()}

    def detect(self, run_stage: RunStage, proposals: Sequence[Tensor], infos: Sequence[ImageInfo]) -> Chosen:
        """Refine each image's proposals (n, 4) from stage to stage and select detections.

        Boxes are decoded by the last stage. Scores are the softmax of the mean of all stages' logits, or the mean of
        their softmax, each computed on its own stage's input boxes, as in the reference; the paper (Cai and
        Vasconcelos, 2018, table 2) runs all classifiers on the last stage's boxes.
        """
        boxes, logits = list(proposals), []
        for number, stage in enumerate(self.stages):
            outputs = run_stage(number, boxes)
            logits.append(full_precision(outputs.scores))
            if number < len(self.stages) - 1:
                boxes = stage.refine(outputs, boxes, infos)
        decoded = self.stages[-1].decode(outputs.deltas, boxes, infos)
        return choose_detections(decoded, self._mean_scores(logits), infos, self.config)

    def _mean_scores(self, logits: Sequence[Tensor]) -> Tensor:
        """(R, K) from the logits (R, K+1) of each stage."""
        stacked = torch.stack(list(logits))
        mean = stacked.mean(0).softmax(-1) if self.config.mean_of == "logits" else stacked.softmax(-1).mean(0)
        return mean[:, :-1]

    def detect_padded(self, run_stage: RunPaddedStage, proposals: PaddedProposals, batch: PaddedBatch) -> PaddedFound:
        """As `detect`, in tensors of fixed size."""
        boxes, logits = proposals.boxes, []
        for number, stage in enumerate(self.stages):
            outputs = run_stage(number, boxes)
            logits.append(full_precision(outputs.scores))
            if number < len(self.stages) - 1:
                boxes = stage.refine_padded(outputs, boxes, batch)
        decoded = self.stages[-1].decode_padded(outputs.deltas, boxes, batch)
        return choose_padded(decoded, self._mean_scores(logits), proposals.valid, batch, self.config)


def mean_probabilities(logits: Sequence[Tensor], labels: Tensor) -> Tensor:
    """(R, S, S): the mean over stages of the sigmoids of their logits (R, K, S, S), of each region's class (R,)."""
    return torch.stack([full_precision(of_class(x, labels)).sigmoid() for x in logits]).mean(0)
