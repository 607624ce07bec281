"""Charts of an analysis, drawn by matplotlib, as SVG for the page and PNG beside it.

Letters: T IoU thresholds, R recall levels.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from attrs import frozen

from det_core.analysis.analyse import Analysis
from det_core.analysis.average_precision import RECALLS
from det_core.analysis.breakdown import Breakdown
from det_core.analysis.columns import Floats
from det_core.analysis.errors import KINDS
from det_core.analysis.matching import HALF, THRESHOLDS
from det_core.analysis.proposal_recall import ProposalRecall
from det_core.optional_packages import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# A colour-blind safe palette (Okabe and Ito, 2008), darkened where it is used for lines on white.
BLUE, ORANGE, GREEN, PURPLE, GRAY = "#0072b2", "#c04f00", "#007a5a", "#8f4a80", "#6b7280"
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small files, and readers can search and enlarge it
    "svg.hashsalt": "det",  # equal charts have equal ids
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#6b7280",
    "axes.grid": True,
    "grid.color": "#e5e7eb",
    "axes.axisbelow": True,
    "legend.frameon": False,
}
MOST_POINTS = 300  # of a curve


@frozen(eq=False)
class Figure:
    """A chart. name: of its file. title: above it. text: what it shows, for readers who do not see it. note: below."""

    name: str
    title: str
    text: str
    svg: str
    png: bytes
    note: str = ""


def _figure(name: str, title: str, text: str, paint: Callable[[Any], None], note: str = "") -> Figure:
    """A chart that `paint` draws on the axes it is given; DetError if matplotlib is not installed."""
    require("matplotlib", "an analysis", "plots")
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    with rc_context(SETTINGS):
        canvas = Canvas(figsize=(5.2, 3.3), layout="constrained")
        FigureCanvasAgg(canvas)
        paint(canvas.subplots())
        vector, pixels = io.StringIO(), io.BytesIO()
        canvas.savefig(vector, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
        canvas.savefig(pixels, format="png", dpi=144, facecolor="white")
    title = f"{title} (masks)" if name.startswith("mask-") else title
    return Figure(name, title, text, _embedded(vector.getvalue(), name, text), pixels.getvalue(), note)


def _embedded(svg: str, name: str, text: str) -> str:
    """The `svg` element of a file, which scales with the page, has a description, and ids that no other chart has."""
    svg = svg[svg.index("<svg") :]
    head, rest = svg.split(">", 1)
    head = re.sub(r' (width|height|xmlns:xlink|version)="[^"]*"', "", head)
    rest = re.sub(r"<metadata>.*?</metadata>", "", rest, flags=re.DOTALL)
    rest = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", rest)
    return f'{head} role="img" aria-label="{escape(text)}">{rest}'


def figures_of(analysis: Analysis) -> Iterator[Figure]:
    """The charts of an analysis of boxes or masks."""
    prefix = analysis.kind
    yield _precision_recall(prefix, analysis)
    yield _scores(prefix, analysis)
    yield _errors(prefix, analysis)
    yield _thresholds(prefix, analysis.ap)
    yield _calibration(prefix, analysis)
    for breakdown in analysis.breakdowns:
        yield _parts(prefix, breakdown, "AP", [part.ap for part in breakdown.parts])


def proposal_figures(recall: ProposalRecall, breakdowns: Sequence[Breakdown]) -> Iterator[Figure]:
    """The charts of an analysis of proposals."""
    numbers = list(recall.numbers)

    def over_number(axes: Axes) -> None:
        for t, color in ((HALF, BLUE), (5, ORANGE), (8, GREEN)):
            axes.plot(
                numbers, recall.recall[t], color=color, marker="o", markersize=3, label=f"IoU {THRESHOLDS[t]:.2f}"
            )
        axes.plot(numbers, recall.average, color="black", linewidth=2, label="mean, .50 to .95")
        axes.set(xscale="log", xlabel="proposals per image", ylabel="recall", ylim=(0, 1.02))
        axes.legend()

    last = f"{numbers[-1]} proposals"
    text = f"Recall over the number of proposals; with {last} it is {_number(recall.recall[HALF, -1])} at IoU .50"
    yield _figure("proposal-number", "Recall over the number of proposals", text, over_number)

    def over_iou(axes: Axes) -> None:
        for c, color in ((2, GREEN), (4, ORANGE), (6, BLUE)):
            axes.plot(THRESHOLDS, recall.recall[:, c], color=color, marker="o", markersize=3, label=f"{numbers[c]}")
        axes.set(xlabel="IoU", ylabel="recall", ylim=(0, 1.02))
        axes.legend(title="proposals")

    yield _figure("proposal-iou", "Recall over IoU", "Recall over the IoU threshold for 10, 100 and 1000", over_iou)
    for breakdown in breakdowns:
        yield _parts("proposal", breakdown, "recall", [part.recall for part in breakdown.parts])


def _precision_recall(prefix: str, analysis: Analysis) -> Figure:
    present = ~np.isnan(analysis.precision[HALF, :, 0])

    def paint(axes: Axes) -> None:
        for t, color in ((HALF, BLUE), (5, ORANGE), (8, GREEN)):
            if present.any():
                axes.plot(
                    RECALLS, analysis.precision[t, present].mean(0), color=color, label=f"IoU {THRESHOLDS[t]:.2f}"
                )
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
        if present.any():
            axes.legend()

    text = "Precision over recall at three IoU thresholds, the mean of all classes"
    return _figure(f"{prefix}-precision-recall", "Precision over recall", text, paint, note="Mean of all classes.")


def _scores(prefix: str, analysis: Analysis) -> Figure:
    curve = analysis.curve
    shown = np.unique(np.linspace(0, len(curve.scores) - 1, MOST_POINTS).astype(np.int64))[: len(curve.scores)]

    def paint(axes: Axes) -> None:
        for name, values, color in (
            ("precision", curve.precision, BLUE),
            ("recall", curve.recall, ORANGE),
            ("F1", curve.f1, "black"),
        ):
            axes.plot(curve.scores[shown], values[shown], color=color, label=name)
        axes.axvline(analysis.threshold, color=GRAY, linestyle="--", linewidth=1)
        axes.set(xlabel="score threshold", xlim=(0, 1), ylim=(0, 1.02))
        axes.legend()

    _, _, f1 = curve.at(analysis.threshold)
    text = (
        f"Precision, recall and F1 over the score threshold; at {analysis.threshold:.2f} (dashed), F1 is {_number(f1)}"
    )
    note = "All classes together, IoU .50. Dashed: the threshold of the confusion matrix."
    return _figure(f"{prefix}-scores", "Precision, recall and F1 over the score", text, paint, note=note)


def _errors(prefix: str, analysis: Analysis) -> Figure:
    costs = np.array([100 * analysis.costs.total(kind) for kind in KINDS])
    shown = np.nan_to_num(costs)  # a cost is unknown if no class has objects, or none has any left after the repair
    texts = ["n/a" if np.isnan(cost) else f"{cost:.1f}" for cost in costs]

    def paint(axes: Axes) -> None:
        bars = axes.barh(KINDS, shown, color=[BLUE, ORANGE, PURPLE, GREEN, GRAY, "#a16207"])
        axes.bar_label(bars, texts, padding=3)
        axes.set(xlabel="AP at IoU .50 lost (percent)", xlim=(min(shown.min(), 0) * 1.18, max(shown.max(), 1) * 1.18))
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)

    listed = ", ".join(f"{kind} {text}" for kind, text in zip(KINDS, texts, strict=True))
    return _figure(f"{prefix}-errors", "AP that each kind of error costs", f"AP lost in percent: {listed}", paint)


def _thresholds(prefix: str, ap: Floats) -> Figure:
    present = ~np.isnan(ap[HALF])
    means = ap[:, present].mean(1) if present.any() else np.full(len(ap), np.nan)

    def paint(axes: Axes) -> None:
        axes.plot(THRESHOLDS, means, color=BLUE, marker="o", markersize=4)
        axes.set(xlabel="IoU threshold", ylabel="AP", xlim=(0.48, 0.97), ylim=(0, 1.02))

    text = f"AP over the IoU threshold, from {_number(means[0])} at .50 to {_number(means[-1])} at .95"
    return _figure(f"{prefix}-iou", "AP over the IoU threshold", text, paint, note="Mean of all classes.")


def _calibration(prefix: str, analysis: Analysis) -> Figure:
    calibration = analysis.calibration
    width = np.diff(calibration.edges)
    share = calibration.counts / max(calibration.counts.sum(), 1)

    def paint(axes: Axes) -> None:
        axes.bar(calibration.edges[:-1], np.nan_to_num(calibration.precision), width, align="edge", color="#9cc9e3",
                 edgecolor="white", label="precision")  # fmt: skip
        axes.plot([0, 1], [0, 1], color=GRAY, linestyle="--", linewidth=1, label="calibrated")
        axes.step(calibration.edges, np.r_[share, share[-1:]], where="post", color=ORANGE, label="share of detections")
        axes.set(xlabel="score", xlim=(0, 1), ylim=(0, 1.02))
        axes.legend(fontsize=9)

    text = f"Precision of detections by score; the expected calibration error is {_number(calibration.error)}"
    note = f"Expected calibration error {_number(calibration.error)}. Bars above the dashed line: scores are too low."
    return _figure(f"{prefix}-calibration", "Are scores probabilities?", text, paint, note=note)


def _parts(prefix: str, breakdown: Breakdown, metric: str, values: Sequence[float]) -> Figure:
    names = [f"{part.name}\n{part.objects.sum():,}" for part in breakdown.parts]

    def paint(axes: Axes) -> None:
        bars = axes.bar(range(len(names)), np.nan_to_num(values), color=BLUE, width=0.7)
        axes.bar_label(bars, [_number(value) for value in values], padding=2)
        axes.set_xticks(range(len(names)), names, fontsize=8)
        axes.set(ylabel=metric, ylim=(0, 1.1))
        axes.grid(axis="x", visible=False)

    listed = ", ".join(f"{part.name} {_number(v)}" for part, v in zip(breakdown.parts, values, strict=True))
    name = f"{prefix}-{breakdown.name.replace(' ', '-')}"
    title = f"{metric[0].upper()}{metric[1:]} by {breakdown.name}"
    note = f"{breakdown.note[0].upper()}{breakdown.note[1:]}. Below each bar: number of objects."
    return _figure(name, title, f"{title}: {listed}", paint, note=note)


def _number(value: float) -> str:
    return "n/a" if np.isnan(value) else f"{value:.2f}"
