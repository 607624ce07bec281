"""What a cascade's stages say together at test time, and how much each one's losses count.

These are functions of finished parts, for any head that has several stages.

Letters: R regions of all images, n proposals of one image, K foreground classes, S side of a mask.
Boxes are xyxy in pixels of the padded network input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from attrs import frozen
from torch import Tensor

from det_core.contracts import BoxOutputs
from det_core.structures import ImageInfo, LossTerm, full_precision
from det_plugin_rcnn.box_stage import BoxStage
from det_plugin_rcnn.mask_branch import of_class

# Stage number from 0, and each image's boxes (n, 4), to what the stage's box head says of them.
RunStage = Callable[[int, Sequence[Tensor]], BoxOutputs]


@frozen(eq=False)
class ChainEnd:
    """What comes out at the end, per image: boxes (n, 4) or (n, K, 4), and scores (n, K) probabilities."""

    boxes: list[Tensor]
    scores: list[Tensor]


def run_chain(
    stages: Sequence[BoxStage], run_stage: RunStage, proposals: Sequence[Tensor], infos: Sequence[ImageInfo]
) -> ChainEnd:
    """Refine each image's proposals (n, 4) from stage to stage (Cai and Vasconcelos, 2018, section 4.2).

    Boxes are the last stage's. Scores are the softmax of the mean of all stages' logits, each stage's on the boxes
    that it got: so the reference averages. The paper (table 2) runs all classifiers on the last stage's boxes.
    """
    boxes, logits = list(proposals), []
    for number, stage in enumerate(stages):
        outputs = run_stage(number, boxes)
        logits.append(full_precision(outputs.scores))
        if number < len(stages) - 1:
            boxes = stage.refine(outputs, boxes, infos)
    scores = torch.stack(logits).mean(0).softmax(-1)[:, :-1]
    return ChainEnd(
        boxes=stages[-1].decode(outputs.deltas, boxes, infos), scores=list(scores.split([len(b) for b in boxes]))
    )


def mean_probabilities(logits: Sequence[Tensor], labels: Tensor) -> Tensor:
    """(R, S, S): the mean over stages of the sigmoids of their logits (R, K, S, S), of each region's class (R,)."""
    return torch.stack([full_precision(of_class(x, labels)).sigmoid() for x in logits]).mean(0)


def weighted(term: LossTerm, weight: float) -> LossTerm:
    """A loss () that counts `weight` times as much; its normaliser stays."""
    return LossTerm(term.total * weight, term.count)
