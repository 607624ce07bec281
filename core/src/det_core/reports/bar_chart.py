"""Histograms as SVG, for pages without scripts."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from attrs import frozen

if TYPE_CHECKING:
    from numpy.typing import NDArray

WIDTH, HEIGHT, TOP, BOTTOM = 360, 190, 30, 34  # of a chart, and its margins, in pixels
COLOR = "#3b6ea5"
LABELS = 8  # at most, below the bars


@frozen
class Bar:
    """A bar of a chart."""

    label: str
    count: int


def power_bars(values: NDArray[np.float64]) -> list[Bar]:
    """Counts of positive values in [1, 2), [2, 4), ..., from the first range with values to the last."""
    kept = values[values > 0]
    if not len(kept):
        return []
    powers = np.floor(np.log2(kept)).astype(int)
    low, high = int(powers.min()), int(powers.max())
    counts = np.bincount(powers - low, minlength=high - low + 1)
    return [Bar(f"{2.0 ** (low + i):g}", int(count)) for i, count in enumerate(counts)]


def count_bars(values: NDArray[np.int64], most: int = 20) -> list[Bar]:
    """How often each of the numbers 0, 1, ... occurs; numbers of `most` or more are one bar."""
    counts = np.bincount(np.minimum(values, most))
    return [Bar(f"{i}+" if i == most else str(i), int(count)) for i, count in enumerate(counts)]


def bar_chart(title: str, bars: Sequence[Bar], unit: str) -> str:
    """A chart as an SVG element; each bar has a tooltip. unit: what the labels below the bars are."""
    highest = max((bar.count for bar in bars), default=0)
    step = WIDTH / max(len(bars), 1)
    every = -(-len(bars) // LABELS)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">',
        f'<text x="0" y="14" class="title">{escape(title)}</text>',
        f'<text x="{WIDTH}" y="14" text-anchor="end">most: {highest}</text>',
    ]
    space = HEIGHT - TOP - BOTTOM
    for place, bar in enumerate(bars):
        tall = space * bar.count / max(highest, 1)
        left, top = place * step, TOP + space - tall
        parts.append(
            f'<rect x="{left + 1:.1f}" y="{top:.1f}" width="{max(step - 2, 0.5):.1f}" height="{tall:.1f}" '
            f'fill="{COLOR}"><title>{escape(bar.label)}: {bar.count}</title></rect>'
        )
        if place % every == 0:
            x, y = left + step / 2, HEIGHT - BOTTOM + 14
            parts.append(f'<text x="{x:.1f}" y="{y}" text-anchor="middle">{escape(bar.label)}</text>')
    bottom = HEIGHT - BOTTOM
    parts.append(f'<line x1="0" y1="{bottom}" x2="{WIDTH}" y2="{bottom}" stroke="#888"/>')
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 4}" text-anchor="middle">{escape(unit)}</text></svg>')
    return "".join(parts)
