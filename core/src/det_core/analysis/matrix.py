"""The confusion matrix as a table whose cells lead to images.

Letters: K classes, E entries of cells.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from typing import Any

import numpy as np

from det_core.analysis.analyse import Analysis
from det_core.analysis.columns import Ints
from det_core.analysis.html import Cell, count_cell, percent_cell, table
from det_core.analysis.matching import NONE
from det_core.analysis.pictures import Pictures

MOST_CLASSES = 90  # of a matrix; of more, those with the most confusion are shown
PAIRS = 60  # of the list of confusions
ENTRIES = 8  # images of a cell
LEVELS = (0.0, 0.05, 0.2, 0.5)  # shares of a row from which a cell is darker


class Matrix:
    """A confusion matrix for a page."""

    def __init__(self, analysis: Analysis, pictures: Pictures) -> None:
        self.confusion = analysis.confusion
        self.names = [*analysis.columns.classes, "background"]
        self._analysis, self._pictures = analysis, pictures
        self.classes = _shown(self.confusion.counts)
        keys = self.confusion.truths * len(self.names) + self.confusion.detected
        scores = analysis.columns.found.scores
        weights = np.where(self.confusion.found == NONE, 0, scores[self.confusion.found] if len(scores) else 0)
        self._order = np.lexsort((-weights, keys))
        self._keys = keys[self._order]

    def pairs(self) -> list[tuple[int, int]]:
        """Truth and detected class of the confusions, most frequent first, those with background left out."""
        counts = self.confusion.counts[:-1, :-1].copy()
        np.fill_diagonal(counts, 0)
        best = np.argsort(-counts, axis=None, kind="stable")[:PAIRS]
        rows, columns = np.unravel_index(best, counts.shape)
        return [(int(r), int(c)) for r, c in zip(rows, columns, strict=True) if counts[r, c]]

    def want_pictures(self) -> None:
        """Ask for pictures of the confusions, first one of each, then further ones."""
        cells = [*self.pairs(), *((k, len(self.names) - 1) for k in self.classes[:-1].tolist())]
        for position in range(ENTRIES):
            for row, column in cells:
                entries = self._entries(row, column)
                if position < len(entries):
                    self._pictures.want(int(self.confusion.images[entries[position]]))

    def parts(self) -> Iterator[str]:
        """The table, the list of confusions, and the data of both."""
        total = len(self.names) - 1
        if len(self.classes) <= total:
            few = len(self.classes) <= MOST_CLASSES
            left_out = "those without objects and detections above the threshold are left out"
            shown = left_out if few else f"the {MOST_CLASSES} with the most confusion are shown"
            yield f'<p class="quiet">Of {total} classes, {shown}.</p>'
        yield self.render()
        yield f"<h3>Most frequent confusions</h3>{self.render_pairs()}"
        yield self.data()

    def render(self) -> str:
        """The table, with a button in each cell that is not zero."""
        heads = "".join(f'<th scope="col"><span>{escape(self.names[k])}</span></th>' for k in self.classes)
        rows = "".join(
            f'<tr><th scope="row">{escape(self.names[r])}</th>'
            f"{''.join(self._cell(int(r), int(c)) for c in self.classes)}</tr>"
            for r in self.classes
        )
        return (
            '<div class="scroll" role="region" aria-label="confusion matrix"><table class="matrix"><thead><tr>'
            f'<th scope="col">truth \\ detected</th>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
            '<div id="cell" aria-live="polite"><p class="quiet">Choose a cell to see its images.</p></div>'
        )

    def render_pairs(self) -> str:
        """The list of confusions; empty if there are none."""
        rows = [
            [
                Cell(f'<a href="#cell" data-open="{r},{c}">{escape(self.names[r])} as {escape(self.names[c])}</a>'),
                count_cell(int(self.confusion.counts[r, c])),
                percent_cell(self.confusion.counts[r, c] / max(int(self.confusion.counts[r].sum()), 1)),
            ]
            for r, c in self.pairs()
        ]
        if not rows:
            return "<p>No object is taken for one of another class.</p>"
        head = ("confusion", "objects", "percent of the class")
        return table(head, rows, name="pairs", find="Find a class", caption="Most frequent confusions")

    def data(self) -> str:
        """The entries of all cells that can be opened, as a JSON element."""
        cells: dict[str, list[Any]] = {}
        images: dict[int, dict[str, Any]] = {}
        shown = {(int(r), int(c)) for r in self.classes for c in self.classes} | set(self.pairs())
        for row, column in sorted(shown):
            chosen = self._chosen(row, column)
            if chosen:
                cells[f"{row},{column}"] = [self._entry(entry) for entry in chosen]
                images |= {int(self.confusion.images[e]): self._image(int(self.confusion.images[e])) for e in chosen}
        text = json.dumps({"images": images, "cells": cells, "classes": self.names}, separators=(",", ":"))
        return f'<script type="application/json" id="cells">{text.replace("<", chr(92) + "u003c")}</script>'

    def _cell(self, row: int, column: int) -> str:
        count = int(self.confusion.counts[row, column])
        if not count:
            return "<td></td>"
        share = count / self.confusion.counts[row].sum()
        level = sum(share >= limit for limit in LEVELS)
        text = f"truth {self.names[row]}, detected {self.names[column]}: {count}"
        return (
            f'<td><button class="{"h" if row == column else "e"}{level}" tabindex="-1" aria-pressed="false" '
            f'data-cell="{row},{column}" data-count="{count}" aria-label="{escape(text)}" title="{escape(text)}">'
            f"{count if count < 10000 else f'{count // 1000}k'}</button></td>"
        )

    def _entries(self, row: int, column: int) -> Ints:
        """The entries of a cell, highest scores first."""
        key = row * len(self.names) + column
        return self._order[slice(*np.searchsorted(self._keys, (key, key + 1)))]

    def _chosen(self, row: int, column: int) -> list[int]:
        """The entries of a cell that are shown: first those with a picture."""
        entries = self._entries(row, column)[: 8 * ENTRIES].tolist()
        with_picture = [e for e in entries if int(self.confusion.images[e]) in self._pictures]
        rest = [e for e in entries if e not in set(with_picture)]
        return (with_picture + rest)[:ENTRIES]

    def _entry(self, entry: int) -> list[Any]:
        """Image, box of the object, box of the detection and its score; null where there is none."""
        columns, c = self._analysis.columns, self.confusion
        found, target = int(c.found[entry]), int(c.objects[entry])
        return [
            int(c.images[entry]),
            None if target == NONE else _rounded(columns.objects.boxes[target]),
            None if found == NONE else _rounded(columns.found.boxes[found]),
            None if found == NONE else round(float(columns.found.scores[found]), 3),
        ]

    def _image(self, image: int) -> dict[str, Any]:
        height, width = (int(side) for side in self._analysis.columns.images.sizes[image])
        return {
            "name": self._pictures.name(image),
            "id": int(self._analysis.columns.images.ids[image]),
            "width": width,
            "height": height,
            "photo": int(image in self._pictures),
        }


def _rounded(box: Any) -> list[float]:
    return [round(float(side), 1) for side in box]


def _shown(counts: Ints) -> Ints:
    """The classes of a matrix, background last: those with an object or a detection; of many, the most confused."""
    inner = counts[:-1, :-1].copy()
    np.fill_diagonal(inner, 0)
    classes = np.flatnonzero(counts[:-1].sum(1) + counts[:, :-1].sum(0))
    confusion = (inner.sum(0) + inner.sum(1))[classes]
    most = classes[np.argsort(-confusion, kind="stable")[:MOST_CLASSES]]
    return np.r_[np.sort(most), len(inner)].astype(np.int64)
