"""Targets and loss of anchor shapes (Wang et al., Guided Anchoring, 2019, section 3.3).

Letters: N images, A approximate anchors of a cell, T cells of all levels, u usable cells, M objects of one
image. Boxes are xyxy in pixels of the padded network input.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import det_ops
from det_core.boxes.box_config import MaxIoUAssignerConfig
from det_core.contracts import Assignment, BoxCoder
from det_core.model.dense_detection import assign_images, dense_box_loss
from det_core.model.sample_regions import sample_images
from det_core.structures import Batch, LossTerm, Targets
from det_plugin_guided_anchoring.config import GuidedAnchorsConfig

UNREACHABLE = 2.0  # above every IoU


def assign_cells(approximate: Tensor, objects: Tensor, config: MaxIoUAssignerConfig) -> Assignment:
    """Assign cells to objects. A cell's IoU with an object is the best one of its approximate anchors.

    As in MaxIoUAssigner, cells with a best IoU below `negative` are background, and cells with at least `positive` are
    assigned to the object with the best IoU (the first in a tie). With `low_quality`, each object also gets the cells
    with its own best IoU; later objects override earlier ones. The full matrix of anchors and objects is never stored.

    Args:
        approximate: (u, A, 4).
        objects: (M, 4).
        config: the thresholds.
    """
    cells, each = approximate.shape[:2]
    real = torch.promote_types(approximate.dtype, objects.dtype)
    boxes, objects = approximate.reshape(-1, 4).to(real), objects.to(real)
    nearest, overlap = det_ops.max_iou_assign(boxes, objects, 0.0, 0.0, low_quality=False)
    nearest, overlap = nearest.view(cells, each), overlap.view(cells, each)
    best = overlap.amax(1)
    first = nearest.where(overlap == best[:, None], len(objects)).amin(1)  # 1-based, 0 is none
    assigned = torch.full_like(first, -1)
    assigned[best < config.negative] = 0
    assigned = first.where(best >= config.positive, assigned)
    if config.low_quality:
        taken, _ = det_ops.max_iou_assign(
            boxes, objects, UNREACHABLE, UNREACHABLE, config.min_positive, True, config.all_ties
        )
        taken = taken.view(cells, each).amax(1)
        assigned = taken.where(taken > 0, assigned)
    return Assignment(assigned - 1)


class ShapeLoss(nn.Module):
    """The box loss between predicted anchors and the objects that their cells are assigned to."""

    def __init__(self, config: GuidedAnchorsConfig, coder: BoxCoder) -> None:
        super().__init__()
        self.assigner, self.coder = config.shape_assigner, coder
        self.sampler = config.shape_sampler.build()
        self.loss = config.shape_loss.build()

    def forward(
        self,
        shapes: Tensor,
        squares: Tensor,
        approximate: Tensor,
        usable: Sequence[Tensor],
        targets: Sequence[Targets],
        batch: Batch,
    ) -> LossTerm:
        """The loss of the positive cells, normalised by the number of sampled cells of the batch.

        Args:
            shapes: (N, T, 2).
            squares: (T, 4), which the shapes are relative to.
            approximate: (T, A, 4).
            usable: per image (u,) int64, the cells to sample from.
            targets, batch: of N images.
        """
        assign = partial(assign_cells, config=self.assigner)
        found = assign_images(assign, [approximate] * len(batch), targets, usable)
        sampled = sample_images(self.sampler, found, [info.key for info in batch.infos], "shape")
        count = float(sum(len(s.positive) + len(s.negative) for s in sampled))
        deltas = F.pad(shapes, (2, 0))  # the centre does not move
        return dense_box_loss(self.loss, self.coder, [squares] * len(batch), list(deltas), sampled, targets, count)
