"""A report as one HTML page that needs no other file and no network."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from importlib.metadata import version
from importlib.resources import files

from det_core.analysis.figures import Figure
from det_core.analysis.html import charts, section
from det_core.analysis.matrix import Matrix
from det_core.analysis.pictures import Pictures
from det_core.analysis.report import Report
from det_core.analysis.sections import (
    cards,
    checks_section,
    classes_section,
    comparison_section,
    data_note,
    errors_section,
    images_section,
    thresholds_note,
)

TITLES = {
    "compare": "Comparison",
    "classes": "Classes",
    "errors": "Errors",
    "scores": "Scores",
    "confusion": "Confusion",
    "parts": "Objects",
    "recall": "Recall",
    "images": "Worst images",
    "labels": "Check labels",
}


def page(report: Report, figures: list[Figure], pictures: Pictures) -> str:
    """The page of a report. figures: as made for it. pictures: to which the page adds what it shows."""
    parts = dict(_sections(report, {figure.name: figure for figure in figures}, pictures))
    names = " against ".join(run.name for run in reversed(report.runs))
    title = f"Analysis: {names}"
    links = "".join(f'<li><a href="#{name}">{TITLES[name]}</a></li>' for name in parts)
    photos = "".join(pictures.definitions())
    missing = "".join(f"<li>{escape(line)}</li>" for line in pictures.missing)
    unread = f"<p>Pictures that could not be read:</p><ul>{missing}</ul>" if missing else ""
    resources = files("det_core.analysis")
    style, script = (resources.joinpath(name).read_text(encoding="utf8") for name in ("page.css", "page.js"))
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{style}</style></head>\n<body>\n"
        '<a class="skip" href="#main">Skip to the content</a>\n'
        f"<header><h1>{escape(title)}</h1>{data_note(report)}{cards(report)}</header>\n"
        f'<nav aria-label="Sections"><ul>{links}</ul></nav>\n<main id="main">\n'
        + "\n".join(parts.values())
        + f"\n</main>\n<footer>{unread}<p>Made by det-core {version('det-core')}. All numbers are in analysis.json, "
        "the charts in figures/.</p></footer>\n"
        f'<svg width="0" height="0" style="position:absolute" aria-hidden="true"><defs>{photos}</defs></svg>\n'
        f"<script>{script}</script>\n</body></html>\n"
    )


def _sections(report: Report, figures: dict[str, Figure], pictures: Pictures) -> Iterator[tuple[str, str]]:
    if report.proposals is not None:
        yield "recall", section("recall", "Recall of proposals", charts(list(figures.values())))
        yield "images", images_section(report, pictures)
        return
    regions = tuple(report.analyses[-1])

    def chosen(*names: str) -> str:
        return charts([figures[f"{kind}-{name}"] for kind in regions for name in names])

    if report.comparison is not None:
        yield "compare", comparison_section(report, pictures)
    yield "classes", classes_section(report.main)
    yield "errors", errors_section(report, figures)
    charts_of_scores = chosen("precision-recall", "scores", "iou", "calibration")
    yield "scores", section("scores", "Scores and thresholds", thresholds_note(report), charts_of_scores)
    images, labels = images_section(report, pictures), checks_section(report, pictures)
    matrix = Matrix(report.main, pictures)
    matrix.want_pictures()
    yield "confusion", _confusion(matrix)
    parts = [breakdown.name.replace(" ", "-") for breakdown in report.main.breakdowns]
    note = "<p>AP of a part of the objects; the others are ignored, as in COCO's AP by size.</p>"
    yield "parts", section("parts", "AP by size, shape, place and number", note, chosen(*parts))
    yield "images", images
    yield "labels", labels


def _confusion(matrix: Matrix) -> str:
    """The confusion matrix of the boxes, whose pictures have been asked for."""
    note = (
        f"<p>Detections with a score above {matrix.confusion.threshold:.2f} and the objects they overlap (IoU at least "
        ".50). Rows are what is annotated, columns what is detected; the last column counts objects that are not "
        "found, the last row detections where there is no object. A darker cell is a larger share of its row. Choose "
        "a cell to see its images; arrow keys move between cells.</p>"
    )
    return section("confusion", "Confusion matrix", note, *matrix.parts())
