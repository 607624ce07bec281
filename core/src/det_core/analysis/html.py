"""Pieces of a page: tables, numbers, figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from attrs import frozen

from det_core.analysis.figures import Figure


@frozen
class Cell:
    """A cell of a table. html: its content. value: what it is sorted by; None sorts by the text."""

    html: str
    value: float | None = None
    css: str = ""


def percent(fraction: float | None) -> str:
    """A fraction in percent with one decimal; "n/a" for none."""
    return "n/a" if fraction is None or math.isnan(fraction) else f"{100 * fraction:.1f}"


def percent_cell(fraction: float | None) -> Cell:
    """A cell with a fraction in percent; one without a value is sorted last."""
    missing = fraction is None or math.isnan(fraction)
    return Cell(percent(fraction), None if missing else fraction)


def count_cell(number: int) -> Cell:
    """A cell with a count."""
    return Cell(f"{number:,}", float(number))


def text_cell(text: str) -> Cell:
    """A cell with text."""
    return Cell(escape(text), None, "text")


def sentence(text: str) -> str:
    """A text with a capital at its beginning, and a full stop."""
    return f"{text[0].upper()}{text[1:]}."


def table(
    head: Sequence[str], rows: Sequence[Sequence[Cell]], *, name: str = "", find: str = "", caption: str = ""
) -> str:
    """A table. With `name`, its id, it is sorted by clicks on its headings; with `find`, it has a field to search it.

    find: what is searched. caption: for readers who do not see it.
    """
    sort = ' aria-sort="none"' if name else ""
    heads = "".join(
        f'<th scope="col"{sort}>{f"<button>{escape(title)}</button>" if name else escape(title)}</th>' for title in head
    )
    body = "".join(f"<tr>{''.join(_cell(cell, k) for k, cell in enumerate(row))}</tr>" for row in rows)
    box = (
        f'<label>{escape(find)} <input class="find" type="search" aria-controls="{name}"></label>'
        if find and len(rows) > 10
        else ""
    )
    about = f"<caption>{escape(caption)}</caption>" if caption else ""
    kind = f' class="sortable" id="{name}"' if name else ""
    return (
        f'{box}<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption or find or "table")}">'
        f"<table{kind}>{about}<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(cell: Cell, column: int) -> str:
    css = f' class="{cell.css}"' if cell.css else ""
    if column == 0:
        return f'<th scope="row"{css}>{cell.html}</th>'
    value = "" if cell.css.startswith("text") else f' data-value="{"" if cell.value is None else f"{cell.value:.6g}"}"'
    return f"<td{css}{value}>{cell.html}</td>"


def chart(figure: Figure) -> str:
    """A chart with its title and note."""
    note = f"<figcaption>{escape(figure.note)}</figcaption>" if figure.note else ""
    return f"<figure><h3>{escape(figure.title)}</h3>{figure.svg}{note}</figure>"


def charts(figures: Sequence[Figure]) -> str:
    """Charts side by side, as many as there is room for."""
    return f'<div class="charts">{"".join(chart(figure) for figure in figures)}</div>'


def section(name: str, title: str, *parts: str) -> str:
    """A section of the page that the navigation leads to."""
    heading = f'<h2 id="{name}-title">{title}</h2>'
    return f'<section id="{name}" aria-labelledby="{name}-title">{heading}{"".join(parts)}</section>'
