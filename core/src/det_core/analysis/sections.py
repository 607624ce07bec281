"""The sections of a page.

Letters: K classes.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from html import escape

import numpy as np

from det_core.analysis.analyse import Analysis
from det_core.analysis.as_json import IOU75, summary
from det_core.analysis.columns import Columns
from det_core.analysis.errors import KINDS
from det_core.analysis.figures import Figure
from det_core.analysis.html import Cell, chart, count_cell, percent, percent_cell, section, sentence, table, text_cell
from det_core.analysis.image_errors import Case, errors_by_class, worst_images
from det_core.analysis.matching import HALF, NONE
from det_core.analysis.names import DESCRIPTIONS, ErrorKind
from det_core.analysis.pictures import Mark, Pictures
from det_core.analysis.report import Report, Run
from det_core.errors import counted

WORST = 6  # images of each kind of error
CHANGED = 6  # images that got better, and worse
BOXES = 60  # drawn over a picture


def cards(report: Report) -> str:
    """The numbers at the top: of the recipe's metrics, of the analysis, and published ones."""
    run, numbers = report.runs[-1], summary(report.main)
    shown: list[tuple[str, str, str]] = []
    if report.proposals is not None:
        average = report.proposals.average
        numbers_of = zip(report.proposals.numbers, average.tolist(), strict=True)
        shown = [(f"AR@{n}", percent(value), "") for n, value in numbers_of if n >= 100]
    else:
        shown = [
            ("AP (boxes)", percent(numbers["AP"]), _published(run, "box_ap")),
            ("AP50", percent(numbers["AP50"]), ""),
            ("AP75", percent(numbers["AP75"]), ""),
        ]
        if "mask" in report.analyses[-1]:
            mask = summary(report.analyses[-1]["mask"])
            shown.append(("AP (masks)", percent(mask["AP"]), _published(run, "mask_ap")))
        shown += [
            (name, percent(run.metrics[metric]), _published(run, "voc_ap50") if metric == "voc_map11" else "")
            for metric, name in (("voc_map", "VOC mAP"), ("voc_map11", "VOC07 mAP"))
            if metric in run.metrics
        ]
        best = report.main.curve.at_best()
        if best is not None:
            shown.append(("best F1", percent(best[2]), f"at score {report.main.curve.threshold:.2f}"))
    items = "".join(f"<div><dt>{n}</dt><dd>{v}<small>{escape(note)}</small></dd></div>" for n, v, note in shown)
    return f'<dl class="cards">{items}</dl>'


def _published(run: Run, figure: str) -> str:
    if run.published is None or getattr(run.published, figure) is None:
        return ""
    return f"published: {getattr(run.published, figure):g} ({run.published.dataset})"


def classes_section(analysis: Analysis) -> str:
    """AP of each class, by size, and its best threshold."""
    sizes = analysis.breakdowns[0].parts
    head = ["class", "objects", "images", "AP", "AP50", "AP75", "AP small", "AP medium", "AP large"]
    head += ["best threshold", "precision", "recall", "F1", "precision over recall"]
    rows = []
    for k in np.argsort(analysis.objects == 0, kind="stable").tolist():  # classes without objects last
        name, curve = analysis.columns.classes[k], analysis.curves[k]
        row = [text_cell(name), count_cell(int(analysis.objects[k])), count_cell(int(analysis.images[k]))]
        row += [percent_cell(float(v)) for v in (analysis.ap[:, k].mean(), analysis.ap[HALF, k], analysis.ap[IOU75, k])]
        row += [percent_cell(float(part.by_class[k])) for part in sizes]
        row += [Cell("n/a" if curve.threshold is None else f"{curve.threshold:.2f}", curve.threshold)]
        row += [percent_cell(value) for value in curve.at_best() or (None,) * 3]
        row += [Cell(_spark(analysis.precision[HALF, k]))]
        rows.append(row)
    note = (
        "<p class='quiet'>In percent. Sizes are those of COCO's metrics. The best threshold is that of the highest F1 "
    )
    note += "at IoU .50; precision, recall and F1 are those at this threshold. n/a: no objects.</p>"
    return section(
        "classes",
        "Classes",
        note,
        table(head, rows, name="class-table", find="Find a class", caption="AP of each class"),
    )


def _spark(precision: np.ndarray) -> str:
    """A small curve of precision (R,) over recall."""
    if math.isnan(float(precision[0])):
        return ""
    points = " ".join(f"{x},{24 - 22 * y:.1f}" for x, y in zip(range(0, 76, 3), precision[::4].tolist(), strict=False))
    return (
        f'<svg class="spark" viewBox="0 0 76 26" aria-hidden="true"><rect width="76" height="26"/>'
        f'<path d="M{points}"/></svg>'
    )


def thresholds_note(report: Report) -> str:
    """How to set the best thresholds."""
    analysis, run = report.main, report.runs[-1]
    if analysis.curve.threshold is None:
        return "<p>No object is found at any threshold, so none is better than another.</p>"
    values = {
        name: round(curve.threshold, 3)
        for name, curve in zip(analysis.columns.classes, analysis.curves, strict=True)
        if curve.threshold is not None
    }
    listed = ", ".join(f"{name!r}: {value}" for name, value in values.items())
    command = f"det-core predict {run.command} --score-threshold {analysis.curve.threshold:.3f} IMAGES"
    code = (
        f"thresholds = {{{listed}}}\n"
        f"others = {analysis.curve.threshold:.3f}\n"
        "lowest = torch.tensor([thresholds.get(name, others) for name in detector.classes.names])\n"
        "found = found[found.scores > lowest[found.labels]]"
    )
    shell = f"<pre><code>{escape(command)}</code></pre>" if run.command else ""
    return (
        f"<p>The highest F1 of all classes together is reached at the score "
        f"<strong>{analysis.curve.threshold:.2f}</strong>. The table of classes has the best threshold of each.</p>"
        f"{shell}<details><summary>A threshold for each class, in Python</summary>"
        f"<pre><code>{escape(code)}</code></pre></details>"
    )


def errors_section(report: Report, figures: Mapping[str, Figure]) -> str:
    """Kinds of errors: what they cost, their numbers, by class."""
    parts = [
        "<p>What a kind of error costs is the AP at IoU .50 that would be gained if its errors alone were repaired. "
        "The costs do not add up, since one repair can hide another error (TIDE, Bolya et al., 2020).</p>",
    ]
    for kind, analysis in report.analyses[-1].items():
        if kind == "mask":
            parts.append("<h3>Masks</h3>")
        figure = chart(figures[f"{kind}-errors"])
        parts.append(f'<div class="charts side">{figure}{_kinds(analysis)}</div>{_kinds_by_class(analysis, kind)}')
    return section("errors", "Kinds of errors", *parts)


def _kinds(analysis: Analysis) -> str:
    rows = [
        [
            Cell(f"{kind}<br><span class='quiet'>{DESCRIPTIONS[kind]}</span>", None, "text wrap"),
            percent_cell(analysis.costs.total(kind)),
            count_cell(analysis.errors.count(kind)),
        ]
        for kind in KINDS
    ]
    wrong = int(analysis.matches.wrong().sum())
    rows.append([text_cell("all wrong detections"), percent_cell(analysis.costs.false_positives), count_cell(wrong)])
    missing = int((~analysis.columns.objects.ignored).sum() - analysis.matches.right[HALF].sum())
    rows.append([text_cell("all objects not found"), percent_cell(analysis.costs.false_negatives), count_cell(missing)])
    return table(("kind", "AP50 lost", "errors"), rows, caption="What each kind of error costs")


def _kinds_by_class(analysis: Analysis, name: str) -> str:
    counts = errors_by_class(analysis.columns, analysis.errors)
    rows = [
        [
            text_cell(label),
            percent_cell(float(analysis.costs.ap[k])),
            *(percent_cell(float(analysis.costs.by_kind[row, k])) for row in range(len(KINDS))),
            *(count_cell(int(counts[row, k])) for row in range(len(KINDS))),
        ]
        for k, label in enumerate(analysis.columns.classes)
    ]
    head = ["class", "AP50", *(f"{kind}: AP lost" for kind in KINDS), *(f"{kind}: errors" for kind in KINDS)]
    inner = table(head, rows, name=f"errors-{name}", find="Find a class", caption="Errors by class")
    return f"<details><summary>By class</summary>{inner}</details>"


def images_section(report: Report, pictures: Pictures) -> str:
    """The worst images of each kind of error."""
    analysis = report.main
    parts = [
        '<p class="key quiet"><span class="k-truth">annotated</span><span class="k-found">detected</span>'
        '<span class="k-error">the error</span><span class="k-target">the object that it is about</span></p>'
    ]
    for kind in KINDS:
        worst = worst_images(analysis.columns, analysis.errors, kind, WORST)
        if worst:
            figures = "".join(_pair(analysis, cases, kind, pictures) for cases in worst)
            parts.append(f"<h3>{sentence(kind)[:-1]}</h3><p class='quiet'>{sentence(DESCRIPTIONS[kind])}</p>")
            parts.append(f'<div class="photos">{figures}</div>')
    if len(parts) == 1:
        parts.append("<p>There are no errors.</p>")
    return section("images", "Worst images", *parts)


def _pair(analysis: Analysis, cases: Sequence[Case], kind: ErrorKind, pictures: Pictures) -> str:
    """Truth beside prediction, with the errors of a kind drawn in."""
    image, columns = cases[0].image, analysis.columns
    pictures.want(image)
    name = pictures.name(image)
    truth = pictures.draw(image, truth_marks(columns, image), f"{name}: annotated objects")
    wrong = {case.found: case for case in cases if case.found != NONE}
    if kind == "missed":
        marks = [*found_marks(columns, image, analysis.threshold), *_object_marks(columns, cases, "error")]
    else:
        others = found_marks(columns, image, analysis.threshold, leave_out=set(wrong))
        marks = [*others, *_object_marks(columns, cases, "target")]
        marks += [_found_mark(columns, row, "error") for row in list(wrong)[:BOXES]]
    prediction = pictures.draw(image, marks, f"{name}: detections, with {len(cases)} {kind} errors")
    text = f"{escape(name)} (id {columns.images.ids[image]}): {counted(len(cases), 'error')}"
    return f'<figure><div class="pair">{truth}{prediction}</div><figcaption>{text}</figcaption></figure>'


def truth_marks(columns: Columns, image: int) -> list[Mark]:
    """The objects of an image."""
    rows = _rows(columns.objects.images, image)
    return [
        Mark(columns.objects.boxes[row], "ignored" if columns.objects.ignored[row] else _name(columns, row), "truth")
        for row in rows[:BOXES]
    ]


def found_marks(columns: Columns, image: int, threshold: float, leave_out: Collection[int] = ()) -> list[Mark]:
    """The detections of an image above a threshold."""
    rows = [r for r in _rows(columns.found.images, image) if columns.found.scores[r] > threshold and r not in leave_out]
    return [_found_mark(columns, row, "found") for row in rows[:BOXES]]


def _rows(images: np.ndarray, image: int) -> list[int]:
    start, stop = np.searchsorted(images, (image, image + 1))
    return list(range(int(start), int(stop)))


def _name(columns: Columns, row: int) -> str:
    return columns.classes[columns.objects.labels[row]]


def _found_mark(columns: Columns, row: int, style: str) -> Mark:
    text = f"{columns.classes[columns.found.labels[row]]} {columns.found.scores[row]:.2f}"
    return Mark(columns.found.boxes[row], text, style)


def _object_marks(columns: Columns, cases: Sequence[Case], style: str) -> Iterator[Mark]:
    seen = {case.object for case in cases if case.object != NONE}
    for row in sorted(seen)[:BOXES]:
        yield Mark(columns.objects.boxes[row], _name(columns, row) if style == "error" else "", style)


def checks_section(report: Report, pictures: Pictures) -> str:
    """Annotations that may be wrong."""
    checks, analysis = report.checks, report.main
    never = f"Objects without any detection nearby{' in either run' if len(report.runs) > 1 else ''}"
    parts = ["<p>Some errors are errors of the annotations. These are the likeliest ones; look at them first.</p>"]
    for title, note, cases in (
        ("Not annotated?", "Confident detections where nothing is annotated.", checks.unlabelled),
        ("Another class?", "Confident, well placed detections of another class.", checks.other_class),
        ("Not an object?", f"{never}, largest first.", checks.never_found),
    ):
        if cases:
            figures = "".join(_check(analysis, case, pictures) for case in cases)
            parts.append(f'<h3>{title}</h3><p class="quiet">{note}</p><div class="photos">{figures}</div>')
    if len(parts) == 1:
        parts = ["<p>No annotation stands out.</p>"]
    return section("labels", "Check these labels", *parts)


def _check(analysis: Analysis, case: Case, pictures: Pictures) -> str:
    columns = analysis.columns
    pictures.want(case.image)
    marks, words = [], []
    if case.object != NONE:
        marks.append(Mark(columns.objects.boxes[case.object], "", "target"))
        words.append(f"annotated: {_name(columns, case.object)}")
    if case.found != NONE:
        marks.append(_found_mark(columns, case.found, "error"))
        words.append(f"detected: {marks[-1].text}")
    name = pictures.name(case.image)
    text = f"{name} (id {columns.images.ids[case.image]}); {', '.join(words)}"
    return f"<figure>{pictures.draw(case.image, marks, text)}<figcaption>{escape(text)}</figcaption></figure>"


def comparison_section(report: Report, pictures: Pictures) -> str:
    """Two runs side by side."""
    comparison = report.comparison
    assert comparison is not None
    a, b = (run.name for run in report.runs)
    rows = [
        [
            text_cell(name),
            percent_cell(d.a),
            percent_cell(d.b),
            _change(d.value),
            Cell(f"{100 * d.low:+.1f} to {100 * d.high:+.1f}" if not math.isnan(d.low) else "n/a"),
        ]
        for name, d in (("AP", comparison.ap), ("AP50", comparison.ap50))
    ]
    metrics = table(("", a, b, "difference", "95 % interval"), rows, caption="Metrics of both runs")
    certain = comparison.ap.low > 0 or comparison.ap.high < 0
    verdict = (
        f"{escape(b)} is {'better' if comparison.ap.value > 0 else 'worse'} by {abs(100 * comparison.ap.value):.1f} AP."
        if certain
        else "The difference is within what another choice of images could give."
    )
    classes = [
        [text_cell(report.main.columns.classes[k]), percent_cell(x), percent_cell(y), _change(y - x)]
        for k in np.argsort(report.main.objects == 0, kind="stable").tolist()  # classes without objects last
        for x, y in [comparison.classes[k]]
    ]
    by_class = table(
        ("class", a, b, "difference"), classes, name="compared", find="Find a class", caption="AP of both runs by class"
    )
    kinds = [[text_cell(kind), *(percent_cell(x["box"].costs.total(kind)) for x in report.analyses)] for kind in KINDS]
    errors = table(("kind", a, b), kinds, caption="AP50 lost by kind of error")
    note = (
        f"<p><strong>{verdict}</strong></p><p class='quiet'>The interval is a bootstrap over images "
        f"({comparison.resamples} resamples): both runs are evaluated on the same images, drawn with replacement.</p>"
    )
    return section("compare", "Comparison", note, metrics, by_class, "<h3>Kinds of errors</h3>", errors,
                   *_changed_images(report, pictures))  # fmt: skip


def _change(value: float) -> Cell:
    css = "" if math.isnan(value) or round(100 * value, 1) == 0 else ("up" if value > 0 else "down")
    return Cell("n/a" if math.isnan(value) else f"{100 * value:+.1f}", None if math.isnan(value) else value, css)


def _changed_images(report: Report, pictures: Pictures) -> Iterator[str]:
    """The images whose F1 differs most."""
    assert report.comparison is not None
    change = report.comparison.f1_b - report.comparison.f1_a
    for title, order in (("Better", np.argsort(-change, kind="stable")), ("Worse", np.argsort(change, kind="stable"))):
        sign = 1 if title == "Better" else -1
        chosen = [int(i) for i in order[:CHANGED] if sign * change[i] > 0]
        count = int((sign * change > 0).sum())
        yield f"<h3>{title} images: {count:,}</h3>"
        figures = "".join(_triple(report, image, float(change[image]), pictures) for image in chosen)
        yield f'<div class="photos">{figures}</div>'


def _triple(report: Report, image: int, change: float, pictures: Pictures) -> str:
    """Truth and both predictions of an image."""
    pictures.want(image)
    name = pictures.name(image)
    drawn = [pictures.draw(image, truth_marks(report.main.columns, image), f"{name}: annotated objects")]
    for run, analyses in zip(report.runs, report.analyses, strict=True):
        marks = found_marks(analyses["box"].columns, image, analyses["box"].threshold)
        drawn.append(pictures.draw(image, marks, f"{name}: detections of {run.name}"))
    identity = report.main.columns.images.ids[image]
    text = (
        f"{escape(name)} (id {identity}): F1 {100 * change:+.0f}. Annotated, {', '.join(r.name for r in report.runs)}."
    )
    return f'<figure><div class="pair">{"".join(drawn)}</div><figcaption>{escape(text)}</figcaption></figure>'


def data_note(report: Report) -> str:
    """What is analysed, in a sentence."""
    columns = report.main.columns
    objects, ignored = int((~columns.objects.ignored).sum()), int(columns.objects.ignored.sum())
    classes = len(report.dataset.classes)
    left = f" ({ignored:,} more are ignored)" if ignored else ""
    names = " and ".join(escape(run.name) for run in report.runs)
    return (
        f'<p class="quiet">{names} on {escape(report.dataset.name)}: {len(columns.images):,} images, '
        f"{objects:,} objects{left} of {classes:,} {'class' if classes == 1 else 'classes'}, {len(columns.found):,} "
        "detections.</p>"
    )
