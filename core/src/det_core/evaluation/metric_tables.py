"""Tables of metrics as text of at most 80 columns."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

CLASSES_SHOWN = 20  # with more classes there is no table by class, only the JSON
WIDTH = 80


def percent(value: float) -> str:
    """A fraction of 1 in percent; `n/a` for nan."""
    return "n/a" if math.isnan(value) else f"{100 * value:.1f}"


def metric_table(title: str, first: str, columns: Sequence[str]) -> Table:
    """An empty table with names in its first column and numbers in the others."""
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column(first, no_wrap=False, overflow="fold")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def as_text(tables: Sequence[Table]) -> str:
    """The tables as text, one below the other."""
    text = io.StringIO()
    console = Console(file=text, width=WIDTH, color_system=None, force_terminal=False, markup=False, emoji=False)
    console.print(*tables, sep="\n")
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())
