"""What is known of timm's networks without importing it: `models.csv`, which a script writes. Imports no torch.

python plugins/timm/make_models.py
"""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

from attrs import frozen

FILE = Path(__file__).with_name("models.csv")
COLUMNS = ("name", "maps", "plain", "multiple")


@frozen(kw_only=True)
class Model:
    """A network of timm.

    maps: stride in pixels to channels of its deepest map of that stride; empty if it gives no maps of images of any
    size. plain: all blocks have one stride, as in a ViT. multiple: sides of images must be multiples of the network's
    largest stride times this, as windows and patches of maps require.
    """

    maps: dict[int, int]
    plain: bool = False
    multiple: int = 1


@frozen
class Table:
    """The content of the file: the version of timm that it was made with, and the networks by name."""

    timm: str
    models: dict[str, Model]


@cache
def table() -> Table:
    """The networks that the file lists."""
    with FILE.open(encoding="utf8", newline="") as lines:
        made_with = next(lines).removeprefix("# timm ").strip()
        rows = list(csv.DictReader(lines))
    return Table(made_with, {row["name"]: _model(row) for row in rows})


def _model(row: dict[str, str]) -> Model:
    pairs = [pair.split(":") for pair in row["maps"].split()]
    return Model(
        maps={int(stride): int(channels) for stride, channels in pairs},
        plain=row["plain"] == "yes",
        multiple=int(row["multiple"] or 1),
    )


def as_cells(name: str, model: Model) -> tuple[str, str, str, str]:
    """The row of a network in the file."""
    maps = " ".join(f"{stride}:{channels}" for stride, channels in model.maps.items())
    return name, maps, "yes" * model.plain, "" if model.multiple == 1 else str(model.multiple)
