"""A report as a folder: the page, its numbers as JSON, its charts as PNG."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from det_core.analysis.as_json import report_numbers
from det_core.analysis.figures import Figure, figures_of, proposal_figures
from det_core.analysis.names import PICTURES, RESAMPLES
from det_core.analysis.page import page
from det_core.analysis.pictures import Pictures
from det_core.analysis.report import Report, Run, make_report
from det_core.analysis.runs import kinds_of, limit_of, proposes
from det_core.contracts import DetectionDataset
from det_core.engine.result_files import write_results
from det_core.run_folder import ANALYSIS_PAGE
from det_core.safe_write import replacing, write_text
from det_core.slots import EvaluatorConfig

NUMBERS, FIGURES = "analysis.json", "figures"
DETECTIONS = ("detections.json", "detections-b.json")  # of the runs


def write_analysis(
    dataset: DetectionDataset,
    runs: Sequence[Run],
    evaluators: Sequence[EvaluatorConfig],
    folder: Path,
    *,
    threshold: float | None = None,
    pictures: int = PICTURES,
    resamples: int = RESAMPLES,
    say: Callable[[str], None] = lambda text: None,
) -> Path:
    """Analyse one run or two and write the report, and the detections of checkpoints, into a folder; returns the page.

    Args:
        evaluators: of the runs; they say whether these propose boxes, and how many detections count.
        dataset, runs, threshold, resamples, say: as of `make_report`.
        folder, pictures: as of `write_report`.

    Raises:
        DetError: as both.
    """
    report = make_report(
        dataset,
        runs,
        kinds=kinds_of(dataset, runs),
        proposals=proposes(evaluators),
        threshold=threshold,
        limit=limit_of(evaluators),
        resamples=resamples,
        say=say,
    )
    page = write_report(report, folder, pictures)
    for run, name in zip(runs, DETECTIONS, strict=False):
        if run.command:
            write_results(folder / name, run.records, dataset)
    return page


def write_report(report: Report, folder: str | Path, pictures: int = PICTURES) -> Path:
    """Write a report into a folder, over an earlier one; returns the page.

    Args:
        report: what to write.
        folder: created if it is not there. Files of other names in it are left alone.
        pictures: maximum number of images that the page embeds.

    Raises:
        DetError: if matplotlib is not installed, or a file cannot be written.
    """
    folder = Path(folder)
    figures = _figures(report)
    text = page(report, figures, Pictures(report.dataset, pictures))
    for figure in figures:
        with replacing(folder / FIGURES / f"{figure.name}.png") as temporary:
            temporary.write_bytes(figure.png)
    write_text(folder / NUMBERS, json.dumps(report_numbers(report)) + "\n")
    write_text(folder / ANALYSIS_PAGE, text)
    return folder / ANALYSIS_PAGE


def _figures(report: Report) -> list[Figure]:
    if report.proposals is not None:
        return list(proposal_figures(report.proposals, report.main.breakdowns))
    return [figure for analysis in report.analyses[-1].values() for figure in figures_of(analysis)]
