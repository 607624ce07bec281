"""A report as a folder: the page, its numbers as JSON, its charts as PNG."""

from __future__ import annotations

import json
from pathlib import Path

from det_core.analysis.as_json import report_numbers
from det_core.analysis.figures import Figure, figures_of, proposal_figures
from det_core.analysis.page import page
from det_core.analysis.pictures import Pictures
from det_core.analysis.report import Report
from det_core.safe_write import replacing

PICTURES = 150  # images that a page embeds
PAGE, NUMBERS, FIGURES = "index.html", "analysis.json", "figures"


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
    with replacing(folder / NUMBERS) as temporary:
        temporary.write_text(json.dumps(report_numbers(report)) + "\n", encoding="utf8")
    with replacing(folder / PAGE) as temporary:
        temporary.write_text(text, encoding="utf8")
    return folder / PAGE


def _figures(report: Report) -> list[Figure]:
    if report.proposals is not None:
        return list(proposal_figures(report.proposals, report.main.breakdowns))
    return [figure for analysis in report.analyses[-1].values() for figure in figures_of(analysis)]
