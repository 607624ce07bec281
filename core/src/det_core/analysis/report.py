"""What an analysis reports on: runs on a data set, and the numbers of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import frozen

from det_core.analysis.analyse import Analysis, analyse
from det_core.analysis.columns import Kind
from det_core.analysis.compare_runs import Comparison, compare_runs
from det_core.analysis.image_errors import LabelChecks, label_checks, near_any
from det_core.analysis.names import RESAMPLES
from det_core.analysis.proposal_recall import NUMBERS, ProposalRecall, proposal_recall
from det_core.contracts import DetectionDataset
from det_core.recipe import Published

CHECKS = 24  # annotations of each kind that are listed


@frozen(eq=False)
class Run:
    """A run to analyse.

    name: for headings. records: its detections in COCO's results format. metrics: of its evaluators, by name, as
    fractions. command: `--checkpoint RUN`, as a command is given it; empty for detections alone.
    """

    name: str
    records: Sequence[dict[str, Any]]
    metrics: dict[str, float]
    command: str = ""
    published: Published | None = None


@frozen(eq=False)
class Report:
    """analyses: of each run, for boxes and, if they are compared, masks. checks: annotations that may be wrong.

    proposals: of a run that proposes boxes; then there are no other numbers of use. comparison: of two runs.
    """

    dataset: DetectionDataset
    runs: tuple[Run, ...]
    analyses: tuple[dict[Kind, Analysis], ...]
    checks: LabelChecks
    proposals: ProposalRecall | None = None
    comparison: Comparison | None = None

    @property
    def main(self) -> Analysis:
        """The analysis of the last run's boxes."""
        return self.analyses[-1]["box"]


def make_report(
    dataset: DetectionDataset,
    runs: Sequence[Run],
    *,
    kinds: Sequence[Kind] = ("box",),
    proposals: bool = False,
    threshold: float | None = None,
    limit: int = 100,
    resamples: int = RESAMPLES,
    say: Callable[[str], None] = lambda text: None,
) -> Report:
    """Analyse one run, or two and what differs between them.

    Args:
        dataset: with ground truth.
        runs: one or two, on this data set.
        kinds: `box`, and `mask` if ground truth and all records have masks.
        proposals: the records are proposals, of no class.
        threshold: as of `analyse`.
        limit: maximum detections per class in an image.
        resamples: of the bootstrap.
        say: told what is computed.

    Raises:
        DetError: as `columns_of`.
    """
    if proposals:
        kinds, limit = ("box",), NUMBERS[-1]
    analyses = []
    for run in runs:
        say(f"analysing {run.name}")
        analyses.append(
            {
                kind: analyse(dataset, run.records, kind, threshold=threshold, limit=limit, class_agnostic=proposals)
                for kind in kinds
            }
        )
    main = analyses[-1]["box"]
    comparison = None
    if len(runs) == 2:
        say(f"comparing the runs in {resamples} resamples of the images")
        first, second = (a[kinds[-1]] for a in analyses)
        comparison = compare_runs(
            (first.columns, first.matches, first.threshold),
            (second.columns, second.matches, second.threshold),
            resamples,
        )
    return Report(
        dataset=dataset,
        runs=tuple(runs),
        analyses=tuple(analyses),
        checks=label_checks(main.columns, main.errors, CHECKS, [near_any(a["box"].columns) for a in analyses[:-1]]),
        proposals=proposal_recall(main.columns, main.matches) if proposals else None,
        comparison=comparison,
    )
