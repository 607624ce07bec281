"""Training runs as wandb itself records them without a network: what is logged, a resumed run, no server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest

from det_core import DetError, Recipe, train
from det_core.testing import contract_checks
from det_plugin_wandb import TrackedRun, hooks, log_analysis


@pytest.mark.parametrize(
    ("variables", "asked"),
    [
        ({}, False),
        ({"WANDB_API_KEY": "secret"}, False),
        ({"WANDB_PROJECT": "cells"}, True),
        ({"WANDB_MODE": "offline"}, True),
        ({"WANDB_MODE": "disabled", "WANDB_PROJECT": "cells"}, False),
    ],
)
@pytest.mark.usefixtures("unset")
def test_when_it_logs(variables, asked, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert hooks.is_asked_for() is asked


@pytest.mark.usefixtures("unset")
def test_unasked_nothing_is_logged(recipe: Recipe, tmp_path: Path) -> None:
    train(recipe, work_dir=tmp_path / "run", max_steps=1, quiet=True)
    assert not list((tmp_path / "run").glob("wandb*"))


@pytest.mark.usefixtures("offline")
def test_a_run_is_logged_and_a_resumed_one_continues_it(
    recipe: Recipe, tmp_path: Path, recorded, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    monkeypatch.setenv("DET_WANDB_CHECKPOINTS", "best")
    train(recipe, work_dir=folder, max_steps=2, log_every=1)
    (first,) = recorded(folder)
    assert f"wandb: run {first.run_id}, {folder}" in capsys.readouterr().out
    assert first.project == "det"
    (folder / "analysis").mkdir()
    (folder / "analysis" / "index.html").write_text("<p>where it is wrong")
    train(recipe, work_dir=folder, resume=True, log_every=1)
    _, second = recorded(folder)
    assert ", continued at step 2\n" in capsys.readouterr().out
    assert second.run_id == first.run_id
    assert first.steps("loss/total") + second.steps("loss/total") == [1, 2, 3, 4]
    assert first.steps("lr") + second.steps("lr") == [1, 2, 3, 4]
    assert first.steps("box_ap") + second.steps("box_ap/nucleus") == [2, 4]
    assert first.metrics["*"] == first.metrics["box_ap"] == "step"
    assert first.config["detector.backbone.type"] == "resnet"
    assert first.config["data.train_transforms.0.scales"] == "[[96, 96]]"
    assert first.config["run"]["classes"] == ["nucleus"]
    assert first.config["run"]["plugins"]["det-plugin-rcnn"]
    assert first.config["run"]["data"] == "sample"
    assert {"recipe.yaml", "run.json"} <= set(first.files)
    (shown,) = [row for row in second.history if "pictures._type" in row]
    assert (shown["step"], shown["pictures._type"], shown["pictures.count"]) == (4, "images/separated", 4)
    assert shown["curves._type"] == "image-file"
    assert shown["analysis._type"] == "html-file"
    names = {name: (kind, aliases, paths) for name, kind, aliases, paths in second.artifacts}
    kind, aliases, paths = names["faster-rcnn-r18-fpn-demo"]
    assert (kind, "best" in aliases, paths) == ("model", True, ("model.safetensors",))
    assert names[f"analysis-{first.run_id}"][2] == ("index.html",)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert second.summary["best/box_ap"] == max(row["box_ap"] for row in rows if "evaluated" in row)
    assert (first.summary["reason"], second.summary["reason"]) == ("stopped", "finished")
    assert (first.exit_code, second.exit_code) == (0, 0)


@pytest.mark.usefixtures("offline")
def test_all_checkpoints_and_a_project_of_a_name(
    recipe: Recipe, tmp_path: Path, recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DET_WANDB_CHECKPOINTS", "all")
    monkeypatch.setenv("WANDB_PROJECT", "cells")
    train(recipe, work_dir=tmp_path / "run", max_steps=2, save_every=1, quiet=True)
    (run,) = recorded(tmp_path / "run")
    assert run.project == "cells"
    models = [aliases for _, kind, aliases, _ in run.artifacts if kind == "model"]
    assert [[a for a in aliases if a != "latest"] for aliases in models] == [["step-0000001"], ["step-0000002"]]


@pytest.mark.usefixtures("offline")
def test_a_run_that_fails_is_marked_and_another_project_begins_anew(
    recipe: Recipe, tmp_path: Path, recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = TrackedRun(recipe, tmp_path, 0, lambda text: None)
    first.end(0, "failed", None)
    assert recorded(tmp_path)[0].exit_code == 1
    monkeypatch.setenv("WANDB_PROJECT", "other")
    second = TrackedRun(recipe, tmp_path, 3, lambda text: None)
    second.end(3, "finished", None)
    assert second.run.id != first.run.id


@pytest.mark.usefixtures("offline")
def test_a_wrong_choice_of_checkpoints_is_refused(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DET_WANDB_CHECKPOINTS", "some")
    with pytest.raises(DetError, match="^DET_WANDB_CHECKPOINTS: found 'some', expected none, best, all$"):
        TrackedRun(recipe, tmp_path, 0, lambda text: None)
    assert not (tmp_path / "wandb").exists()


@pytest.mark.usefixtures("offline")
def test_an_analysis_made_after_training_is_added(recipe: Recipe, tmp_path: Path, recorded) -> None:
    run = TrackedRun(recipe, tmp_path, 0, lambda text: None)
    run.end(0, "finished", None)
    (tmp_path / "analysis").mkdir()
    (tmp_path / "analysis" / "index.html").write_text("<p>where it is wrong")
    log_analysis(tmp_path)
    first, second = recorded(tmp_path)
    assert first.run_id == second.run_id
    assert [row["analysis._type"] for row in second.history] == ["html-file"]
    assert [name for name, *_ in second.artifacts] == [f"analysis-{first.run_id}"]


@pytest.mark.usefixtures("offline")
def test_a_logged_step_does_not_wait(recipe: Recipe, tmp_path: Path) -> None:
    run = TrackedRun(recipe, tmp_path, 0, lambda text: None)
    began = time.perf_counter()
    for step in range(1000):
        run.log(step, {"loss/total": 1.0, "lr": 0.1, "nothing": float("nan")})
    assert time.perf_counter() - began < 5
    run.end(1000, "finished", None)


# A server that accepts no connection, in a process of its own: wandb reads its variables once.
NO_SERVER = """
import sys
from pathlib import Path
from det_core import load_recipe, train
result = train(load_recipe(Path(sys.argv[1])), work_dir=sys.argv[2], max_steps=1)
print("reached", result.step, result.reason)
"""


@pytest.mark.slow
def test_a_server_that_is_not_there_does_not_stop_training(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(recipe.to_yaml())
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    environment |= {
        "WANDB_PROJECT": "cells",
        "WANDB_BASE_URL": "http://127.0.0.1:9",
        "WANDB_API_KEY": "0" * 40,
        "WANDB_INIT_TIMEOUT": "3",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-c", NO_SERVER, str(tmp_path / "tiny.yaml"), str(tmp_path / "run")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    plugin = f"det-plugin-wandb {version('det-plugin-wandb')}"
    assert f"plugin {plugin} failed in det_run_started and is switched off for this run" in done.stdout
    assert "reached 1 stopped\n" in done.stdout


def test_the_plugin_keeps_its_contracts() -> None:
    contract_checks.check_plugin("wandb")


def test_the_hooks_do_nothing_without_a_run() -> None:
    hooks.det_step_finished(1, {})
    hooks.det_evaluated(1, {})
    hooks.det_checkpoint_saved(Path())
    hooks.det_run_finished(1, "finished", None)
