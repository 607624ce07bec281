"""Output of tables and JSON."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import click

if TYPE_CHECKING:
    from rich.console import Console


def terminal_width() -> int:
    """The terminal's width, or 200 columns for files and pipes."""
    return shutil.get_terminal_size((120, 24)).columns if sys.stdout.isatty() else 200


def console() -> Console:
    """A console of the terminal's width, or of 200 columns for files and pipes."""
    from rich.console import Console

    width = terminal_width()
    return Console(width=width, highlight=False, soft_wrap=False, markup=False, emoji=False)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """Print a table without rich's markup. The columns in `right` are right-aligned; the first is not wrapped."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        justify: Literal["left", "right"] = "right" if column in right else "left"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=number == 0)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console().print(table)


def print_json(value: object) -> None:
    """Print plain data as JSON."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
