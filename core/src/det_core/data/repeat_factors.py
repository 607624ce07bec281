"""Repeat factors of images, so that rare classes are seen more often (Gupta et al., LVIS, 2019, section 4.1).

Letters: N images, K classes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from det_core.contracts import DetectionDataset
from det_core.structures import Key

if TYPE_CHECKING:
    from numpy.typing import NDArray


def repeat_factors(classes: Sequence[Collection[int]], threshold: float) -> NDArray[np.float64]:
    """(N,) factors r(I) = max over the classes c in image I of max(1, sqrt(t / f(c))); 1 without objects.

    classes: those of each image. f(c) is the share of images with class c, t the threshold.
    """
    sets = [set(own) for own in classes]
    counts: dict[int, int] = {}
    for own in sets:
        for label in own:
            counts[label] = counts.get(label, 0) + 1
    factor = {label: max(1.0, (threshold / (count / len(sets))) ** 0.5) for label, count in counts.items()}
    return np.array([max((factor[label] for label in own), default=1.0) for own in sets], np.float64)


def factors_of(dataset: DetectionDataset, threshold: float) -> NDArray[np.float64]:
    """(N,) repeat factors of a data set's images, by their objects; crowd regions and ignored objects do not count."""
    classes: list[set[int]] = [set() for _ in range(len(dataset))]
    for index, label in np.unique(np.stack(dataset.object_labels(), axis=1), axis=0).tolist():
        classes[index].add(label)
    return repeat_factors(classes, threshold)


def drawn_counts(factors: NDArray[np.float64], key: Key) -> NDArray[np.int64]:
    """(N,) how often an epoch contains each image: its factor, randomly rounded up or down, so that the mean is exact.

    The fractions are rounded together: their sum over all images is rounded, too, so that all epochs have the same
    length, but for one image. The key has the seed and the epoch.
    """
    whole = np.floor(factors).astype(np.int64)
    generator = key.generator("repeat")
    order = torch.randperm(len(factors), generator=generator).numpy()
    start = float(torch.rand((), generator=generator, dtype=torch.float64))
    steps = np.floor(np.concatenate([[0.0], np.cumsum((factors - whole)[order])]) + start).astype(np.int64)
    whole[order] += np.diff(steps)
    return whole


def most_items(factors: NDArray[np.float64]) -> int:
    """The length of the longest epoch."""
    whole = np.floor(factors)
    return int(whole.sum()) + int(np.ceil((factors - whole).sum() - 1e-9))
