"""Curves of a run."""

from __future__ import annotations

import builtins
import math
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from det_core.errors import DetError
from det_core.reports.curves import draw_curves

ROWS: list[dict[str, Any]] = [
    *({"step": i, "loss/total": 2 / (i + 1), "loss/box": 1.0, "lr": 0.1, "note": "x"} for i in range(40)),
    {"step": 20, "box_ap": 0.1, "mask_ap": math.nan},
    {"step": 40, "box_ap": 0.2, "mask_ap": 0.1},
]


@pytest.mark.parametrize("rows", [ROWS, [], [{"step": 1, "loss/total": math.nan}]])
def test_curves(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    pytest.importorskip("matplotlib")
    draw_curves(rows, tmp_path / "new" / "curves.png")
    picture = Image.open(tmp_path / "new" / "curves.png").convert("RGB")
    assert picture.size == (1210, 770)
    colours = len({picture.getpixel((x, y)) for x in range(0, 1210, 3) for y in range(0, 770, 3)})
    assert colours > (50 if rows is ROWS else 2)


def test_curves_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *more: Any, **named: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *more, **named)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(DetError, match="not installed: pip install matplotlib"):
        draw_curves(ROWS, tmp_path / "x.png")


def figure_of(rows: list[dict[str, Any]], path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The figure that is drawn."""
    figures = []
    module = pytest.importorskip("matplotlib.figure")
    real = module.Figure

    def recorded(*args: Any, **named: Any) -> Any:
        figures.append(real(*args, **named))
        return figures[-1]

    monkeypatch.setattr(module, "Figure", recorded)
    draw_curves(rows, path)
    return figures[0]


def lines(axes: Any) -> dict[str, list[float]]:
    return {line.get_label(): list(line.get_ydata()) for line in axes.get_lines()}


def test_curves_have_the_learning_rate_the_validation_loss_and_classes(tmp_path, monkeypatch):
    rows: list[dict[str, Any]] = [{"step": i, "loss/total": 3.0 - i, "lr": 0.1 * i} for i in (1, 2)]
    rows.append({"step": 2, "box_ap": 0.25, "box_ap/cat": 0.2, "box_ap/dog": 0.3, "val_loss/total": 2.5})
    losses, scores, rates, classes = figure_of(rows, tmp_path / "c.png", monkeypatch).get_axes()
    assert lines(losses) == {"total": [2.0, 1.0], "validation total": [2.5]}
    assert losses.get_yscale() == "linear"
    assert lines(scores) == {"box_ap": [0.25]}
    assert lines(rates) == {"lr": pytest.approx([0.1, 0.2])}
    assert lines(classes) == {"cat": [0.2], "dog": [0.3]}
    assert classes.get_title(loc="left") == "box_ap by class"


def test_a_first_loss_that_dwarfs_the_rest_is_drawn_on_a_logarithmic_axis(tmp_path, monkeypatch):
    rows = [{"step": 1, "loss/total": 900.0}, *({"step": i, "loss/total": 1.0} for i in range(2, 6))]
    assert figure_of(rows, tmp_path / "c.png", monkeypatch).get_axes()[0].get_yscale() == "log"


def test_of_many_classes_those_with_the_lowest_ap_are_drawn(tmp_path, monkeypatch):
    rows = [{"step": 1, **{f"mask_ap/{i}": 0.01 * i for i in range(30)}}]
    classes = figure_of(rows, tmp_path / "c.png", monkeypatch).get_axes()[3]
    assert sorted(lines(classes), key=int) == [str(i) for i in range(10)]
    assert classes.get_title(loc="left") == "mask_ap by class: the 10 lowest of 30"
