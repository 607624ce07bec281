"""What a run folder has for plugins that follow runs."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from det_core.errors import DetError
from det_core.run_folder import RunFolder, checkpoints_to_log, finite, flat_settings, weights_of


def test_an_empty_folder_has_nothing(tmp_path):
    run = RunFolder(tmp_path / "run")
    assert (run.facts(), run.best(), run.documents(), run.curves()) == ({}, None, [], None)
    assert (run.pictures(), run.analysis(), run.remembered("mine")) == ([], None, {})


def test_what_is_there_is_found(tmp_path):
    for name in ("recipe.yaml", "curves.png", "pictures/b.png", "pictures/a.png", "analysis/index.html"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "best.json").write_text('{"checkpoint": "step-0000002", "metric": "ap", "value": 1}')
    (tmp_path / "run.json").write_text('{"torch": "2"}')
    run = RunFolder(tmp_path)
    assert run.facts() == {"torch": "2"}
    assert run.best() == ("ap", 1.0)
    assert [file.name for file in run.documents()] == ["recipe.yaml", "run.json"]
    assert run.curves() == tmp_path / "curves.png"
    assert [file.name for file in run.pictures()] == ["a.png", "b.png"]
    assert run.analysis() == tmp_path / "analysis"
    assert weights_of(Path("step-0000002")) == Path("step-0000002/model.safetensors")


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"metric": 3, "value": "x"}', '{"metric": "ap"}'])
def test_damaged_files_are_as_missing_ones(tmp_path, text):
    (tmp_path / "checkpoints").mkdir()
    for name in ("checkpoints/best.json", "mine.json"):
        (tmp_path / name).write_text(text)
    assert RunFolder(tmp_path).best() is None
    assert set(RunFolder(tmp_path).remembered("mine")) <= {"metric", "value"}


def test_a_tracker_remembers(tmp_path):
    RunFolder(tmp_path).remember("mine", {"run_id": "7"})
    assert RunFolder(tmp_path).remembered("mine") == {"run_id": "7"}
    assert RunFolder(tmp_path).remembered("other") == {}
    assert json.loads((tmp_path / "mine.json").read_text()) == {"run_id": "7"}


def test_an_analysis_is_logged_later(tmp_path):
    run = RunFolder(tmp_path)
    with pytest.raises(DetError, match="has no analysis/index.html; analyse the run first$"):
        run.analysis_to_log("mine")
    (tmp_path / "analysis").mkdir()
    (tmp_path / "analysis" / "index.html").touch()
    with pytest.raises(DetError, match=r"has no mine\.json, so it was not logged there$"):
        run.analysis_to_log("mine")
    run.remember("mine", {"run_id": "7"})
    assert run.analysis_to_log("mine") == (tmp_path / "analysis", {"run_id": "7"})


def test_settings_become_flat():
    plain = {
        "name": "x",
        "detector": {"neck": None, "backbone": {"type": "resnet", "stages": (1, 2)}},
        "transforms": [{"type": "resize", "scales": [[1, 2]]}, {"type": "flip"}],
        "rules": [],
    }
    assert flat_settings(plain) == {
        "name": "x",
        "detector.neck": None,
        "detector.backbone.type": "resnet",
        "detector.backbone.stages": "[1, 2]",
        "transforms.0.type": "resize",
        "transforms.0.scales": "[[1, 2]]",
        "transforms.1.type": "flip",
        "rules": "[]",
    }


def test_numbers_are_kept():
    assert finite({"a": 1.0, "b": math.nan, "c": math.inf, "d": 0.0}) == {"a": 1.0, "d": 0.0}


def test_the_choice_of_checkpoints(monkeypatch):
    monkeypatch.delenv("MINE", raising=False)
    assert checkpoints_to_log("MINE") == "none"
    for choice in ("none", "best", "all"):
        monkeypatch.setenv("MINE", choice)
        assert checkpoints_to_log("MINE") == choice
    monkeypatch.setenv("MINE", "bst")
    with pytest.raises(DetError, match="^MINE: found 'bst', expected none, best, all; did you mean \"best\""):
        checkpoints_to_log("MINE")
