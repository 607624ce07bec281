"""Sampling of assigned candidates.

Letters: p positives, q negatives. A GPU must be waited for once: for the assignments of all images. All else is done
on the host, which must know the numbers of candidates to draw from them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from det_core.boxes.box_config import RandomSamplerConfig
from det_core.boxes.device_copies import send_indices
from det_core.contracts import BACKGROUND, Assignment, Sampled, SampledOnHost, Sampler
from det_core.structures import Key

Indices = NDArray[np.int64]


class RandomSampler(Sampler):
    """Samples up to count * positive_fraction positives, and negatives up to `count` in total."""

    def __init__(self, config: RandomSamplerConfig) -> None:
        self.count = config.count
        self.max_positive = int(config.count * config.positive_fraction)

    def __call__(self, assignment: Assignment, key: Key, consumer: str) -> Sampled:
        return to_device(self.sample_images([assignment], [key], consumer), assignment.objects.device)[0]

    def sample_images(
        self, assignments: Sequence[Assignment], keys: Sequence[Key], consumer: str
    ) -> list[SampledOnHost]:
        found = all_of_images(assignments)
        return [self._sample(s, key.generator(f"sample/{consumer}")) for s, key in zip(found, keys, strict=True)]

    def _sample(self, found: SampledOnHost, generator: torch.Generator) -> SampledOnHost:
        positive = _choose(len(found.positive), self.max_positive, generator)
        negative = _choose(len(found.negative), self.count - len(found.positive[positive]), generator)
        return SampledOnHost(found.positive[positive], found.negative[negative], found.objects[positive])


class AllSampler(Sampler):
    """Takes all positive and negative candidates, in their order."""

    def __call__(self, assignment: Assignment, key: Key, consumer: str) -> Sampled:
        return to_device(all_of_images([assignment]), assignment.objects.device)[0]

    def sample_images(
        self, assignments: Sequence[Assignment], keys: Sequence[Key], consumer: str
    ) -> list[SampledOnHost]:
        return all_of_images(assignments)


def _choose(candidates: int, count: int, generator: torch.Generator) -> Indices | slice:
    """At most `count` random candidates, without replacement; all candidates in their order if they are fewer."""
    if candidates <= count:
        return slice(None)
    return np.asarray(torch.randperm(candidates, generator=generator)[:count])


def all_of_images(assignments: Sequence[Assignment]) -> list[SampledOnHost]:
    """All positive and negative candidates of each image, ascending."""
    sizes = [len(a.objects) for a in assignments]
    objects = torch.cat([a.objects for a in assignments]).numpy(force=True)
    found = []
    for part in np.split(objects, np.cumsum(sizes)[:-1]):
        positive = np.flatnonzero(part >= 0)
        found.append(SampledOnHost(positive, np.flatnonzero(part == BACKGROUND), part[positive]))
    return found


def to_device(found: Sequence[SampledOnHost], device: torch.device) -> list[Sampled]:
    """The samples of several images as tensors of a device, in one copy."""
    columns = send_indices([x for s in found for x in (s.positive, s.negative, s.objects)], device)
    return [Sampled(*columns[i : i + 3]) for i in range(0, len(columns), 3)]
