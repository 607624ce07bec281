"""Mistakes in a recipe file name its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from det_core import load_recipe
from det_core.config.yaml_text import key_lines
from det_core.errors import ConfigError

TEXT = """# mine
extends: faster-rcnn/r50-fpn-1x

detector:
  roi_head:
    score_treshold: 0.1
    assigner: {positive_iou: 2}
data:
  train_transforms:
    - type: flip
    - type: reszie
  val: {type: coco, split: val,
        annotations: 3}
schedule:
  epochs: none
"""


def lines(file: Path, *overrides: str) -> dict[str, int | None]:
    with pytest.raises(ConfigError) as raised:
        load_recipe(file, overrides)
    assert all(f"line {p.line}: {p.path}: " in str(raised.value) for p in raised.value.problems if p.line)
    return {p.path: p.line for p in raised.value.problems}


def test_each_mistake_names_its_line(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(TEXT)
    assert lines(file) == {
        "detector.roi_head.score_treshold": 6,
        "detector.roi_head.assigner.positive_iou": 7,
        "data.train_transforms[1].type": 11,
        "data.val.annotations": 13,
        "schedule.epochs": 15,
    }


def test_values_of_set_have_no_line(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("extends: faster-rcnn/r50-fpn-1x\nschedule:\n  epochs: 5\n  seed: x\n")
    assert lines(file, "schedule.epochs=none") == {"schedule.epochs": 2, "schedule.seed": 4}
    assert lines(file, "schedule.seed=y", "detector.backbone.dept=3") == {
        "schedule.seed": 2,
        "detector.backbone.dept": None,
    }


def test_a_missing_key_has_the_line_of_its_part(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("extends: faster-rcnn/r50-fpn-1x\n\ndetector:\n  neck: {channels: 64, type: fpm}\n")
    assert lines(file) == {"detector.neck.type": 4}
    file.write_text("extends: faster-rcnn/no-such\n")
    assert lines(file) == {"extends": 1}


def test_lines_of_keys(tmp_path):
    (tmp_path / "a.yaml").write_text("a:\n  - b: 1\n    c: [1,\n 2]\nd: &x {e: 1}\nf: *x\n")
    assert key_lines(tmp_path / "a.yaml") == {
        "a": 1,
        "a[0]": 2,
        "a[0].b": 2,
        "a[0].c": 3,
        "a[0].c[0]": 3,
        "a[0].c[1]": 4,
        "d": 5,
        "d.e": 5,
        "f": 6,
        "f.e": 5,
    }
