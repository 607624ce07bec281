"""Recall of proposals over their number and the IoU.

Letters: T IoU thresholds, C numbers of proposals, N proposals, M objects.
"""

from __future__ import annotations

import numpy as np
from attrs import frozen

from det_core.analysis.columns import Columns, Floats, Ints
from det_core.analysis.matching import Matches

NUMBERS = (1, 3, 10, 30, 100, 300, 1000)


@frozen(eq=False)
class ProposalRecall:
    """recall (T, C): share of the objects that one of the best `numbers[c]` proposals of their image finds."""

    numbers: tuple[int, ...]
    recall: Floats

    @property
    def average(self) -> Floats:
        """(C,) AR: the mean over IoU .50 to .95."""
        return np.asarray(self.recall.mean(0), np.float64)


def proposal_recall(columns: Columns, matches: Matches) -> ProposalRecall:
    """Recall of class-agnostic columns. A proposal's match does not depend on those with a lower score."""
    ranks = _ranks(columns.found.images)
    total = int((~columns.objects.ignored).sum())
    counts = np.array([[(right & (ranks < number)).sum() for number in NUMBERS] for right in matches.right], np.float64)
    return ProposalRecall(NUMBERS, counts / total if total else np.full(counts.shape, np.nan))


def _ranks(images: Ints) -> Ints:
    """(N,) position of each proposal among those of its image; `images` ascend."""
    starts = np.searchsorted(images, images)
    return np.arange(len(images)) - starts
