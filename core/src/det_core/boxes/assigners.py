"""Assignment of candidate boxes to objects or background.

Letters: N candidate boxes, M objects. Boxes are xyxy.
"""

from __future__ import annotations

import torch
from torch import Tensor

import det_ops
from det_core.boxes.box_config import MaxIoUAssignerConfig
from det_core.contracts import Assigner, Assignment


class MaxIoUAssigner(Assigner):
    """Assigns by the maximum IoU (Ren et al., Faster R-CNN, 2015, section 3.1.2).

    A candidate with maximum IoU < negative is background. One with IoU >= positive is assigned to the best object (the
    first of equals). The others are ignored. With low_quality, each object whose best IoU is at least min_positive is
    then assigned every candidate with this IoU; a later object overrides an earlier one, or, with low_quality_object
    "nearest", such a candidate is assigned to its own best object. The N x M matrix is computed in chunks.
    """

    def __init__(self, config: MaxIoUAssignerConfig) -> None:
        self.config = config

    def __call__(self, boxes: Tensor, objects: Tensor) -> Assignment:
        config = self.config
        real = torch.promote_types(boxes.dtype, objects.dtype)
        boxes, objects = boxes.to(real), objects.to(real)
        assigned, _ = det_ops.max_iou_assign(
            boxes,
            objects,
            config.positive,
            config.negative,
            config.min_positive,
            config.low_quality,
            config.all_ties,
        )
        if config.low_quality and config.low_quality_object == "nearest":
            nearest, _ = det_ops.max_iou_assign(boxes, objects, 0.0, 0.0, low_quality=False)
            assigned = torch.where(assigned > 0, nearest, assigned)
        return Assignment(assigned - 1)  # the operator returns 1.. for objects, 0 for background, -1 for ignored
