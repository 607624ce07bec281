"""Curves of a run: losses, learning rate, and metrics over its steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from det_core.errors import DetError
from det_core.reports.drawing import color
from det_core.safe_write import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Series = dict[str, tuple[list[float], list[float]]]  # steps and values by name

METRICS = ("_ap", "_ap50", "ar1000", "_map")  # ends of the names of metrics that are drawn
CLASSES = 10  # curves of classes
DWARFED = 20.0  # ratio of the largest loss to the last above which the axis is logarithmic


def draw_curves(metrics_rows: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Losses, learning rate, AP, and AP of classes over the steps of a run as one PNG.

    The axis of losses is logarithmic if the first ones would hide the rest. Of more than ten classes, those with the
    lowest AP at the last evaluation are drawn.

    metrics_rows: rows of `metrics.jsonl`: `step` with `loss/...` and `lr`, or with metrics such as `box_ap`,
    `box_ap/person` and `val_loss/total`. Raises DetError if matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise DetError("curves are drawn by matplotlib, which is not installed: pip install matplotlib") from None
    figure = Figure(figsize=(11, 7), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    (losses, scores), (rates, classes) = figure.subplots(2, 2)
    _plot_losses(losses, metrics_rows)
    _plot(scores, _series(metrics_rows, lambda name: name.endswith(METRICS)), "Evaluation")
    _plot(rates, _series(metrics_rows, lambda name: name == "lr"), "Learning rate", marker="")
    _plot(classes, *_by_class(metrics_rows))
    with replacing(Path(path)) as temporary:
        figure.savefig(temporary, format="png")


def _plot_losses(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """Losses of training, smoothed, and the sum of those on the validation data."""
    series = _series(rows, lambda name: name == "loss" or name.startswith("loss/"))
    validated = _series(rows, lambda name: name == "val_loss/total")
    _plot(axes, series, "Loss", smooth=True)
    for steps, values in validated.values():
        axes.plot(steps, values, color="black", linewidth=1.2, marker="o", markersize=3, label="validation total")
        axes.legend(fontsize=8, frameon=False)
    totals = [v for name, (_, values) in series.items() if name.endswith("total") for v in values]
    if totals and max(totals) > DWARFED * abs(totals[-1]) > 0:
        axes.set_yscale("log")


def _by_class(rows: Sequence[Mapping[str, Any]]) -> tuple[Series, str]:
    """AP by class, of masks if there are any, and the title."""
    kinds = ("mask_ap", "box_ap", "voc_ap")
    kind = next((k for k in kinds if any(name.startswith(f"{k}/") for row in rows for name in row)), "AP")
    series = _series(rows, lambda name: name.startswith(f"{kind}/"))
    named = {name.partition("/")[2]: values for name, values in series.items()}
    if len(named) <= CLASSES:
        return named, f"{kind} by class"
    lowest = sorted(named, key=lambda name: named[name][1][-1])[:CLASSES]
    return {name: named[name] for name in lowest}, f"{kind} by class: the {CLASSES} lowest of {len(named)}"


def _series(rows: Sequence[Mapping[str, Any]], wanted: Callable[[str], bool]) -> Series:
    """(steps, values) of each wanted name; values that are not finite are left out."""
    series: Series = {}
    for index, row in enumerate(rows):
        for name, value in row.items():
            if wanted(name) and isinstance(value, (int, float)) and math.isfinite(value):
                steps, values = series.setdefault(name, ([], []))
                steps.append(float(row.get("step", index)))
                values.append(float(value))
    return series


def _plot(axes: Axes, series: Series, title: str, *, smooth: bool = False, marker: str = "o") -> None:
    axes.set_title(title, loc="left", fontweight="bold")
    axes.set_xlabel("step")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    for index, name in enumerate(sorted(series)):
        steps, values = series[name]
        tint = [c / 255 for c in color(index)]
        label = name.removeprefix("loss/")
        if smooth and len(values) > 20:
            axes.plot(steps, values, color=tint, alpha=0.2, linewidth=0.8)
            axes.plot(steps, _smoothed(values), color=tint, linewidth=1.6, label=label)
        else:
            axes.plot(steps, values, color=tint, linewidth=1.6, marker=marker, markersize=3, label=label)
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    if series:
        axes.legend(fontsize=8, frameon=False)
    else:
        axes.text(0.5, 0.5, "nothing recorded", transform=axes.transAxes, ha="center", va="center", alpha=0.6)


def _smoothed(values: Sequence[float]) -> list[float]:
    """A running mean over about a twentieth of the curve on either side."""
    reach = max(1, len(values) // 40)
    totals = np.concatenate(([0.0], np.cumsum(values)))
    spans = [(max(0, i - reach), min(len(values), i + reach + 1)) for i in range(len(values))]
    return [float((totals[b] - totals[a]) / (b - a)) for a, b in spans]
