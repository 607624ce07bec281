"""Which object, or background, each candidate box stands for.

Letters: N candidate boxes, M objects, c boxes of a chunk. Boxes are xyxy.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from attrs import frozen
from torch import Tensor

from det_core.boxes.config import MaxIoUAssignerConfig
from det_core.boxes.overlaps import box_iou

BACKGROUND = -1
IGNORED = -2


@frozen(eq=False)
class Assignment:
    """objects: (N,) int64, the index of each candidate's object, BACKGROUND, or IGNORED (neither)."""

    objects: Tensor

    def positive(self) -> Tensor:
        """(p,) int64 candidates that stand for an object, ascending."""
        return (self.objects >= 0).nonzero().flatten()

    def negative(self) -> Tensor:
        """(q,) int64 candidates that stand for background, ascending."""
        return (self.objects == BACKGROUND).nonzero().flatten()


class Assigner(ABC):
    """Assigns candidate boxes to objects."""

    @abstractmethod
    def __call__(self, boxes: Tensor, objects: Tensor) -> Assignment:
        """Candidates (N, 4) and objects (M, 4), both possibly empty."""


class MaxIoUAssigner(Assigner):
    """Best overlap decides (Ren et al., Faster R-CNN, 2015, section 3.1.2), in chunks of candidates.

    In order: IoU < negative is background; IoU >= positive takes the best object (the first of equals); the rest is
    ignored. Then, with low_quality, each object in turn whose best IoU is at least min_positive takes every candidate
    that ties this IoU; a later object overrides an earlier one. The N x M matrix never exists at once.
    """

    def __init__(self, config: MaxIoUAssignerConfig, chunk_elements: int = 1 << 22) -> None:
        self.config = config
        self.chunk_elements = chunk_elements

    def _chunks(self, boxes: Tensor, objects: Tensor) -> Iterator[tuple[int, Tensor]]:
        """First row and (c, M) IoU of each chunk of candidates."""
        rows = max(1, self.chunk_elements // max(1, len(objects)))
        for start in range(0, len(boxes), rows):
            yield start, box_iou(boxes[start : start + rows], objects)

    def __call__(self, boxes: Tensor, objects: Tensor) -> Assignment:
        config = self.config
        result = torch.full((len(boxes),), BACKGROUND, dtype=torch.int64, device=boxes.device)
        if len(objects) == 0 or len(boxes) == 0:
            return Assignment(result)
        boxes = boxes.to(torch.promote_types(boxes.dtype, objects.dtype))
        best_of_object = objects.new_full((len(objects),), -1.0, dtype=boxes.dtype)
        first_of_object = result.new_zeros(len(objects))
        chunks = list(self._chunks(boxes, objects)) if self._fits(boxes, objects) else None
        for start, iou in chunks or self._chunks(boxes, objects):
            best, index = iou.max(1)
            part = torch.full_like(index, IGNORED)
            part[best < config.negative] = BACKGROUND
            part = torch.where(best >= config.positive, index, part)
            result[start : start + len(iou)] = part
            column_best, row = iou.max(0)
            first_of_object = torch.where(column_best > best_of_object, row + start, first_of_object)
            best_of_object = torch.maximum(best_of_object, column_best)
        if config.low_quality and not config.all_ties:
            for number in (best_of_object >= config.min_positive).nonzero().flatten().tolist():
                result[first_of_object[number]] = number
        elif config.low_quality:
            for start, iou in chunks or self._chunks(boxes, objects):
                self._low_quality(result[start : start + len(iou)], iou, best_of_object)
        return Assignment(result)

    def _fits(self, boxes: Tensor, objects: Tensor) -> bool:
        """Whether one chunk holds all, so that it need not be computed twice."""
        return len(boxes) * len(objects) <= self.chunk_elements

    def _low_quality(self, result: Tensor, iou: Tensor, best_of_object: Tensor) -> None:
        """Give the candidates of a chunk that tie an object's best IoU to it, the last such object winning."""
        eligible = best_of_object >= self.config.min_positive
        ties = (iou == best_of_object) & eligible
        numbers = torch.arange(iou.shape[1], device=iou.device)
        last = torch.where(ties, numbers, numbers.new_tensor(-1)).max(1).values
        result[last >= 0] = last[last >= 0]
