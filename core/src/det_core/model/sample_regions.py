"""Which regions of an image a RoI head trains on.

Letters: n proposals of one image, m objects, r sampled regions, p positives among them, K foreground classes.
Boxes are xyxy in pixels of the padded network input.
"""

from __future__ import annotations

import torch
from attrs import frozen
from torch import Tensor

from det_core.contracts import Assigner, Assignment, Sampler
from det_core.structures import Key, Targets


@frozen(eq=False)
class SampledRegions:
    """One image's regions that the losses look at, positives first.

    boxes (r, 4); labels (r,) int64 with K for background; objects (p,) int64: the object of each positive; own (p,)
    bool: which positives are objects' own boxes, added to the proposals.
    """

    boxes: Tensor
    labels: Tensor
    objects: Tensor
    own: Tensor

    @property
    def positive(self) -> Tensor:
        """(p, 4) the boxes that stand for objects."""
        return self.boxes[: len(self.objects)]

    @property
    def positive_labels(self) -> Tensor:
        """(p,) int64 their classes."""
        return self.labels[: len(self.objects)]

    @property
    def proposed(self) -> Tensor:
        """(r,) bool: the regions that were among the proposals."""
        background = self.own.new_ones(len(self.boxes) - len(self.own))
        return torch.cat([~self.own, background])


def sample_regions(
    proposals: Tensor,
    target: Targets,
    *,
    assigner: Assigner,
    sampler: Sampler,
    num_classes: int,
    key: Key,
    consumer: str = "roi",
    add_objects: bool = True,
) -> SampledRegions:
    """Assign proposals (n, 4) to objects and choose those that train (Girshick, Fast R-CNN, 2015, section 2.3).

    add_objects: once the proposals are assigned, the objects' own boxes go in front of them, each standing for itself,
    as in the reference: it takes no object from the proposal that overlaps it best. key, consumer: where the sampler's
    random numbers come from.
    """
    boxes = proposals.to(target.boxes.dtype)
    objects = assigner(boxes, target.boxes).objects
    added = len(target) if add_objects else 0
    if added:
        boxes = torch.cat([target.boxes, boxes])
        objects = torch.cat([torch.arange(added, device=objects.device), objects])
    chosen = sampler(Assignment(objects), key, consumer)
    background = target.labels.new_full((len(chosen.negative),), num_classes)
    return SampledRegions(
        boxes=boxes[torch.cat([chosen.positive, chosen.negative])],
        labels=torch.cat([target.labels[chosen.objects], background]),
        objects=chosen.objects,
        own=chosen.positive < added,
    )
