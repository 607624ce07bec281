"""Sampling of the regions that a RoI head trains on.

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
    """The regions of one image that the losses use, positives first.

    boxes (r, 4); labels (r,) int64, K is background; objects (p,) int64: the object of each positive; from_objects (p,)
    bool: whether a positive is an object's ground-truth box, not a proposal.
    """

    boxes: Tensor
    labels: Tensor
    objects: Tensor
    from_objects: Tensor

    @property
    def positive(self) -> Tensor:
        """(p, 4) the positive boxes."""
        return self.boxes[: len(self.objects)]

    @property
    def positive_labels(self) -> Tensor:
        """(p,) int64 the classes of the positive boxes."""
        return self.labels[: len(self.objects)]

    @property
    def proposed(self) -> Tensor:
        """(r,) bool: whether a region is a proposal, not an object's ground-truth box."""
        background = self.from_objects.new_ones(len(self.boxes) - len(self.from_objects))
        return torch.cat([~self.from_objects, background])


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
    """Assign proposals (n, 4) to objects and sample those to train on (Girshick, Fast R-CNN, 2015, section 2.3).

    add_objects: after the assignment, prepend the objects' ground-truth boxes, each assigned to itself, as in the
    reference. They do not change the assignment of proposals. key, consumer: seed of the sampler.
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
        from_objects=chosen.positive < added,
    )
