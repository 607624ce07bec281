"""Sampling of assigned candidates.

Letters: p positives, q negatives.
"""

from __future__ import annotations

import torch
from torch import Tensor

from det_core.boxes.box_config import RandomSamplerConfig
from det_core.contracts import Assignment, Sampled, Sampler
from det_core.structures import Key


class RandomSampler(Sampler):
    """Samples up to count * positive_fraction positives, and negatives up to `count` in total."""

    def __init__(self, config: RandomSamplerConfig) -> None:
        self.count = config.count
        self.max_positive = int(config.count * config.positive_fraction)

    def __call__(self, assignment: Assignment, key: Key, consumer: str) -> Sampled:
        generator = key.generator(f"sample/{consumer}")
        positive = _choose(assignment.positive(), self.max_positive, generator)
        negative = _choose(assignment.negative(), self.count - len(positive), generator)
        return Sampled(positive, negative, assignment.objects[positive])


def _choose(candidates: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """At most `count` random candidates, without replacement; all candidates in their order if they are fewer."""
    if len(candidates) <= count:
        return candidates
    chosen = torch.randperm(len(candidates), generator=generator)[:count]
    return candidates[chosen.to(candidates.device)]
