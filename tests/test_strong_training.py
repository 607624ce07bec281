"""Training with large-scale jitter and copy-paste on the bundled sample: it learns, and resumes bit for bit."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from det_core.cli.main import run

DEMOS = ("mask-rcnn/r18-fpn-lsj-demo", "mask-rcnn/r18-fpn-copy-paste-demo")
SMALL = ("data.train_transforms[0].size=[96, 96]", "data.train_transforms[1].size=[96, 96]", "schedule.epochs=2")


def rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def losses(folder: Path) -> dict[float, dict[str, float]]:
    return {
        row["step"]: {name: value for name, value in row.items() if name.startswith("loss")}
        for row in rows(folder)
        if "lr" in row
    }


def train(recipe: str, folder: Path, tiny: tuple[str, ...], *more: str) -> None:
    settings = [s for s in (*tiny, *SMALL) if not s.startswith("data.train_transforms=")]
    words = [word for setting in settings for word in ("--set", setting)]
    assert run(["train", "--recipe", recipe, *words, "--work-dir", str(folder), "--log-every", "1", *more]) == 0


@pytest.mark.parametrize("recipe", DEMOS)
def test_it_trains_on_the_sample_and_resumes_bit_for_bit(
    recipe: str, tmp_path: Path, tiny_settings: tuple[str, ...]
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(recipe, whole, tiny_settings)
    found = losses(whole)
    assert sorted(found) == list(range(1, 19))
    assert all(math.isfinite(value) for step in found.values() for value in step.values())
    assert all({"loss/roi_mask", "loss/roi_box"} <= set(step) for step in found.values())
    train(recipe, parts, tiny_settings, "--max-steps", "7")
    train(recipe, parts, tiny_settings, "--resume", "--set", "data.workers=2")
    assert losses(parts) == found
