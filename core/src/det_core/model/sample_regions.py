"""Sampling of the regions that a RoI head trains on.

Letters: N images, n proposals of one image, m objects, r sampled regions, p positives among them, K foreground classes.
Boxes are xyxy in pixels of the padded network input.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import torch
from attrs import frozen
from torch import Tensor

from det_core.boxes.device_copies import send_indices
from det_core.boxes.samplers import to_device
from det_core.contracts import Assigner, Assignment, Sampled, SampledOnHost, Sampler
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
    _proposed_rows: Tensor | None = None

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

    @property
    def proposed_rows(self) -> Tensor:
        """int64 indices of the regions that are proposals, ascending."""
        return self.proposed.nonzero().flatten() if self._proposed_rows is None else self._proposed_rows


def positive_rows(values: Tensor, sampled: Sequence[SampledRegions]) -> Tensor:
    """Of values (R, ...) of all images' regions, those of the positive regions."""
    parts = values.split([len(s.boxes) for s in sampled])
    return torch.cat([part[: len(s.objects)] for part, s in zip(parts, sampled, strict=True)])


def sample_images(
    sampler: Sampler, assignments: Sequence[Assignment], keys: Sequence[Key], consumer: str
) -> list[Sampled]:
    """The samples of several images, of which a device is waited for once."""
    return to_device(sampler.sample_images(assignments, keys, consumer), assignments[0].objects.device)


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
    """`sample_image_regions` of one image: of proposals (n, 4)."""
    (found,) = sample_image_regions(
        [proposals],
        [target],
        assigner=assigner,
        sampler=sampler,
        num_classes=num_classes,
        keys=[key],
        consumer=consumer,
        add_objects=add_objects,
    )
    return found


def sample_image_regions(
    proposals: Sequence[Tensor],
    targets: Sequence[Targets],
    *,
    assigner: Assigner,
    sampler: Sampler,
    num_classes: int,
    keys: Sequence[Key],
    consumer: str = "roi",
    add_objects: bool = True,
) -> list[SampledRegions]:
    """Assign each image's proposals (n, 4) to its objects and sample those to train on (Girshick, Fast R-CNN, 2015,
    section 2.3).

    add_objects: after the assignment, prepend the objects' ground-truth boxes, each assigned to itself, as in the
    reference. They do not change the assignment of proposals. keys, consumer: seeds of the sampler.
    """
    boxes = [p.to(t.boxes.dtype) for p, t in zip(proposals, targets, strict=True)]
    assignments = [assigner(b, t.boxes) for b, t in zip(boxes, targets, strict=True)]
    added = [len(t) if add_objects else 0 for t in targets]
    if add_objects:
        boxes = [torch.cat([t.boxes, b]) for b, t in zip(boxes, targets, strict=True)]
        assignments = [_with_objects(a, count) for a, count in zip(assignments, added, strict=True)]
    chosen = sampler.sample_images(assignments, keys, consumer)
    return _gather(boxes, targets, chosen, added, num_classes)


def _with_objects(assignment: Assignment, count: int) -> Assignment:
    """Prepend the boxes of `count` objects, each assigned to itself."""
    objects = assignment.objects
    return Assignment(torch.cat([torch.arange(count, device=objects.device), objects]))


def _gather(
    boxes: Sequence[Tensor],
    targets: Sequence[Targets],
    chosen: Sequence[SampledOnHost],
    added: Sequence[int],
    num_classes: int,
) -> list[SampledRegions]:
    """The chosen regions of each image's candidates `boxes` (n, 4), of which the first `added` are its objects."""
    device, sizes = boxes[0].device, [len(c.positive) + len(c.negative) for c in chosen]
    first_box, first_object = (list(accumulate(map(len, values), initial=0)) for values in (boxes, targets))
    rows, classes, own, proposed = [], [], [], []
    for i, c in enumerate(chosen):
        rows += [c.positive + first_box[i], c.negative + first_box[i]]
        classes += [c.objects + first_object[i], np.full(len(c.negative), first_object[-1])]  # the last is background
        own.append(c.positive < added[i])
    proposed = [
        np.flatnonzero(np.concatenate([~o, np.ones(len(c.negative), bool)])) for o, c in zip(own, chosen, strict=True)
    ]
    packed = [np.concatenate(rows), np.concatenate(classes), np.concatenate(own).astype(np.int64)]
    at, kinds, from_objects, *others = send_indices([*packed, *(c.objects for c in chosen), *proposed], device)
    labels = torch.cat([*(t.labels for t in targets), targets[0].labels.new_full((1,), num_classes)])
    columns = (
        torch.cat(list(boxes))[at].split(sizes),
        labels[kinds].split(sizes),
        others[: len(chosen)],
        from_objects.bool().split([len(c.objects) for c in chosen]),
        others[len(chosen) :],
    )
    return [SampledRegions(*row) for row in zip(*columns, strict=True)]
