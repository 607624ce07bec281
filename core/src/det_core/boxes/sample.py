"""Which assigned candidates a loss looks at.

Letters: p positives, q negatives.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from attrs import frozen
from torch import Tensor

from det_core.boxes.assign import Assignment
from det_core.boxes.config import RandomSamplerConfig
from det_core.structures import Key


@frozen(eq=False)
class Sampled:
    """positive (p,) and negative (q,) int64: indices of candidates; objects (p,) int64: the object of each positive."""

    positive: Tensor
    negative: Tensor
    objects: Tensor


class Sampler(ABC):
    """Chooses among assigned candidates."""

    @abstractmethod
    def __call__(self, assignment: Assignment, key: Key, consumer: str) -> Sampled:
        """The choice for one image; all randomness comes from the image's key and the consumer's name."""


class RandomSampler(Sampler):
    """Up to count * positive_fraction positives, negatives for the rest; fewer positives leave room for negatives."""

    def __init__(self, config: RandomSamplerConfig) -> None:
        self.count = config.count
        self.max_positive = int(config.count * config.positive_fraction)

    def __call__(self, assignment: Assignment, key: Key, consumer: str) -> Sampled:
        generator = key.generator(f"sample/{consumer}")
        positive = _choose(assignment.positive(), self.max_positive, generator)
        negative = _choose(assignment.negative(), self.count - len(positive), generator)
        return Sampled(positive, negative, assignment.objects[positive])


def _choose(candidates: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """At most `count` of the candidates without replacement, in ascending order where all are taken."""
    if len(candidates) <= count:
        return candidates
    chosen = torch.randperm(len(candidates), generator=generator)[:count]
    return candidates[chosen.to(candidates.device)]
