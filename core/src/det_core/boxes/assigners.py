"""Which object, or background, each candidate box stands for.

Letters: N candidate boxes, M objects. Boxes are xyxy.
"""

from __future__ import annotations

import torch
from torch import Tensor

import det_ops
from det_core.boxes.box_config import MaxIoUAssignerConfig
from det_core.contracts import Assigner, Assignment


class MaxIoUAssigner(Assigner):
    """Best overlap decides (Ren et al., Faster R-CNN, 2015, section 3.1.2).

    In order: IoU < negative is background; IoU >= positive takes the best object (the first of equals); the rest is
    ignored. Then, with low_quality, each object in turn whose best IoU is at least min_positive takes every candidate
    that ties this IoU; a later object overrides an earlier one. The N x M matrix never exists at once.
    """

    def __init__(self, config: MaxIoUAssignerConfig) -> None:
        self.config = config

    def __call__(self, boxes: Tensor, objects: Tensor) -> Assignment:
        config = self.config
        real = torch.promote_types(boxes.dtype, objects.dtype)
        assigned, _ = det_ops.max_iou_assign(
            boxes.to(real),
            objects.to(real),
            config.positive,
            config.negative,
            config.min_positive,
            config.low_quality,
            config.all_ties,
        )
        return Assignment(assigned - 1)  # the operator counts objects from 1, background is 0 and ignored -1
