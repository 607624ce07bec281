"""What `push` uploads, and what it refuses, against a stand-in server on the loopback address."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from safetensors import safe_open
from safetensors.torch import load_file
from stand_in_hub import StandInHub

import det_core
from det_core import DetError
from det_core.cli.main import run as det
from det_core.config.yaml_text import parse_yaml
from det_core.engine.checkpoint import WEIGHTS
from det_core.testing import contract_checks
from det_plugin_hub import HubError, push
from det_plugin_hub.results import ResultsError, results_of_run

FILES = {".gitattributes", "README.md", "curves.png", "metrics.json", "model.safetensors", "recipe.yaml"}


def test_a_pushed_detector_detects_the_same_when_it_is_loaded_from_the_hub(hub: StandInHub, run: Path) -> None:
    assert push(run, "me/cats") == "hf://me/cats"
    image = torch.randint(0, 256, (3, 80, 112), dtype=torch.uint8)
    before = det_core.Predictor(run, "cpu")(image)
    after = det_core.Predictor("hf://me/cats", "cpu")(image)
    assert len(before) == 5
    torch.testing.assert_close(after.boxes, before.boxes, rtol=0, atol=0)
    torch.testing.assert_close(after.scores, before.scores, rtol=0, atol=0)
    assert det_core.load_detector("hf://me/cats").classes.names == ("cat", "do|g")


def test_what_is_uploaded(hub: StandInHub, run: Path, tmp_path: Path) -> None:
    push(run, "me/cats", message="the first one")
    files = hub.files("me/cats")
    assert set(files) == FILES
    assert hub.repositories["me/cats"].branches["main"][-1].message == "the first one"
    weights = tmp_path / "m.safetensors"
    weights.write_bytes(files["model.safetensors"])
    own = load_file(run / "checkpoints" / "step-0000007" / WEIGHTS)
    for name, value in load_file(weights).items():
        assert torch.equal(value, own[name]), name
    with safe_open(weights, framework="pt") as opened:
        assert json.loads(opened.metadata()["recipe"]) == parse_yaml(files["recipe.yaml"].decode(), "recipe.yaml")
    assert json.loads(files["metrics.json"]) == {
        "metrics": {"box_ap": 0.25},
        "per_class": {"cat": {"box_ap": 0.3}, "do|g": {"box_ap": 0.2}},
    }


def test_the_model_card_is_read_by_the_hub_and_by_people(hub: StandInHub, run: Path) -> None:
    push(run, "me/cats")
    text = hub.files("me/cats")["README.md"].decode()
    data = ModelCard(text).data
    assert (data.library_name, data.pipeline_tag) == ("det", "object-detection")
    assert data.tags == ["det", "object-detection", "pytorch", "resnet"]
    (result,) = data.eval_results
    assert (result.task_type, result.dataset_name, result.metric_type) == ("object-detection", "sample", "box_ap")
    assert result.metric_value == 0.25
    assert "| box AP | 25.0 |" in text
    assert "| cat | 30.0 |\n| do\\|g | 20.0 |" in text
    assert "![curves.png](curves.png)" in text
    assert "Install `det-plugin-hub`, `det-core`, `det-plugin-fpn`, `det-plugin-rcnn`, `det-plugin-resnet`." in text
    assert "det-core predict --checkpoint hf://me/cats photos/" in text
    assert 'det_core.Predictor("hf://me/cats")' in text
    assert "## Analysis" not in text


def test_an_analysis_is_in_the_card(hub: StandInHub, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = {
        "AP": 0.25,
        "errors": {"missed": 0.125, "kind": "text"},
        "best_threshold": 0.4,
        "other": [1],
        "flag": True,
    }
    folder = run / "analysis"
    folder.mkdir()
    try:
        (folder / "analysis.json").write_text(json.dumps({"summary": summary}))
        push(run, "me/cats")
        rows = hub.files("me/cats")["README.md"].decode().partition("## Analysis")[2].partition("![")[0]
        assert [line for line in rows.splitlines() if line.startswith("| ")][2:] == [
            "| AP | 0.25 |",
            "| errors missed | 0.125 |",
            "| best threshold | 0.4 |",
        ]
        for damaged in ("{", "[]", '{"summary": 3}', ""):
            (folder / "analysis.json").write_text(damaged)
            assert results_of_run(run, 7).analysis == {}
    finally:
        (folder / "analysis.json").unlink()
        folder.rmdir()


def test_paths_of_this_machine_are_left_out_or_named(
    hub: StandInHub, run_of_a_user: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert det(["push", str(run_of_a_user), "me/cats"]) == 0
    out = capsys.readouterr().out
    assert "a path of this machine, which will be readable there: detector.backbone.pretrained: /data/resnet.pth" in out
    assert "pushed; next: det-core predict --checkpoint hf://me/cats IMAGES" in out
    files = hub.files("me/cats")
    assert yaml.safe_load(files["recipe.yaml"])["data"].get("root", "") == ""
    assert all(b"/data/of" not in content for content in files.values())
    assert "name: cats" in files["README.md"].decode()  # of the data folder only the last part


def test_pictures_are_uploaded_only_if_asked_for_and_old_ones_removed(hub: StandInHub, run: Path) -> None:
    push(run, "me/cats", pictures=True)
    assert set(hub.files("me/cats")) == FILES | {"pictures/a.png"}
    hub.files("me/cats")["notes.txt"] = b"mine"
    push(run, "me/cats")
    assert set(hub.files("me/cats")) == FILES | {"notes.txt"}


def test_a_lone_file_with_metrics_of_a_test(hub: StandInHub, run: Path, tmp_path: Path) -> None:
    file = det_core.save_detector(
        det_core.load_detector(run), tmp_path / "a.safetensors", det_core.read_header(det_core.weights_file(run)).recipe
    )
    push(file, "me/cats")
    assert "Not evaluated." in hub.files("me/cats")["README.md"].decode()
    assert set(hub.files("me/cats")) == FILES - {"curves.png", "metrics.json"}
    metrics = tmp_path / "test.json"
    metrics.write_text(json.dumps({"metrics": {"box_ap": 0.5, "mask_ap": None}, "per_class": {"cat": {"box_ap": 0.5}}}))
    push(file, "me/cats", metrics=metrics)
    assert json.loads(hub.files("me/cats")["metrics.json"])["metrics"] == {"box_ap": 0.5}
    metrics.write_text("[]")
    with pytest.raises(ResultsError, match=r"test\.json: not a file of `det-core test --json` \(TypeError"):
        push(file, "me/cats", metrics=metrics)


def test_a_branch_is_made_and_loaded_by_its_name(hub: StandInHub, run: Path) -> None:
    assert push(run, "me/cats", revision="small/v2") == "hf://me/cats@small/v2"
    assert set(hub.files("me/cats", "main")) == {".gitattributes"}
    assert det_core.read_header(det_core.weights_file("hf://me/cats@small/v2")).recipe.name
    push(run, "me/cats", revision="small/v2", pictures=True)
    assert "pictures/a.png" in hub.files("me/cats", "small/v2")


def test_private_makes_a_private_repository_and_refuses_a_public_one(hub: StandInHub, run: Path) -> None:
    push(run, "me/secret", private=True)
    assert hub.repositories["me/secret"].private
    push(run, "me/secret", private=True)
    hub.add("me/open", {})
    with pytest.raises(HubError, match=r"^hf://me/open: this repository is public, but --private .* Nothing was upl"):
        push(run, "me/open", private=True)
    assert hub.files("me/open") == {}


@pytest.mark.usefixtures("signed_out")
def test_without_a_token_it_says_how_to_sign_in(hub: StandInHub, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert det(["push", str(run), "me/cats"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: hf://me/cats: the Hub answered ")
    assert "401" in error
    assert "sign in with `hf auth login`, or set HF_TOKEN to an access token" in error
    assert hub.repositories == {}


def test_somebody_elses_repository(hub: StandInHub, run: Path) -> None:
    with pytest.raises(HubError, match="^hf://others/cats: the Hub answered .*403.*not allowed without a token"):
        push(run, "others/cats")


@pytest.mark.usefixtures("impatient")
def test_a_server_that_is_down(hub: StandInHub, run: Path) -> None:
    hub.down = True
    with pytest.raises(HubError, match="^hf://me/cats: the Hub answered .*503"):
        push(run, "me/cats")


@pytest.mark.parametrize("name", ["cats", "me/", "me/cats/dogs", "me/ca ts", "../cats", "me/-x", "me/a--b", "me/a@b"])
def test_a_name_that_is_none_is_refused_before_anything_else(name: str, tmp_path: Path) -> None:
    with pytest.raises(HubError, match="is not the name of a repository; expected OWNER/NAME"):
        push(tmp_path / "nothing", name)


def test_the_plugin_keeps_its_contracts() -> None:
    contract_checks.check_plugin("hub")


def test_no_checkpoint_no_upload(hub: StandInHub, tmp_path: Path) -> None:
    with pytest.raises(DetError, match="no such file or folder"):
        push(tmp_path / "nothing", "me/cats")
    assert hub.requests == []
