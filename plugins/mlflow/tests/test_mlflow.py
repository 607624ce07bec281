"""Training runs in a store of MLflow itself: what is logged, a resumed run, and a server that is not there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from det_core import Recipe, train
from det_core.hookspecs import RUN_HOOKS
from det_core.plugins import installed_plugins, plugin_manager
from det_core.testing import contract_checks
from det_core.testing.isolated_plugins import isolated_manager
from det_plugin_mlflow import TrackedRun, hooks, log_analysis
from det_plugin_mlflow.names import Names, apart, shortened


def runs(store: str, experiment: str = "det") -> list[Run]:
    client = MlflowClient(store)
    found = client.get_experiment_by_name(experiment)
    return [] if found is None else list(client.search_runs([found.experiment_id]))


def artifacts(store: str, run: Run, path: str | None = None) -> list[str]:
    client, names = MlflowClient(store), []
    for item in client.list_artifacts(run.info.run_id, path):
        names += artifacts(store, run, item.path) if item.is_dir else [item.path]
    return sorted(names)


def steps(store: str, run: Run, metric: str) -> list[int]:
    return [m.step for m in MlflowClient(store).get_metric_history(run.info.run_id, metric)]


def test_without_an_address_nothing_is_logged(store: str, recipe: Recipe, tmp_path: Path) -> None:
    train(recipe, work_dir=tmp_path / "run", max_steps=1, quiet=True)
    assert not (tmp_path / "run" / "mlflow.json").exists()
    assert not (tmp_path / "store").exists()


def test_a_run_is_logged_and_a_resumed_one_continues_it(
    tracked: str, recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    monkeypatch.setenv("DET_MLFLOW_CHECKPOINTS", "best")
    train(recipe, work_dir=folder, max_steps=2, log_every=1)
    (first,) = runs(tracked)
    run_id = first.info.run_id
    assert f"mlflow: run {run_id} at {tracked}\n" in capsys.readouterr().out
    assert first.info.status == "KILLED"
    assert first.info.run_name == "faster-rcnn/r18-fpn-demo"
    (folder / "analysis").mkdir()
    (folder / "analysis" / "index.html").write_text("<p>where it is wrong")
    train(recipe, work_dir=folder, resume=True, log_every=1)
    (run,) = runs(tracked)
    assert f"mlflow: run {run_id} at {tracked}, continued at step 2\n" in capsys.readouterr().out
    assert (run.info.run_id, run.info.status) == (run_id, "FINISHED")
    assert steps(tracked, run, "loss/total") == [1, 2, 3, 4]
    assert steps(tracked, run, "lr") == [1, 2, 3, 4]
    assert steps(tracked, run, "box_ap") == [2, 4]
    assert steps(tracked, run, "box_ap_by_class/nucleus") == [2, 4]
    assert run.data.params["detector.backbone.type"] == "resnet"
    assert run.data.params["data.train_transforms.0.scales"] == "[[96, 96]]"
    assert run.data.tags["det.classes"] == "nucleus"
    assert "det-plugin-rcnn" in run.data.tags["det.plugins"]
    assert run.data.tags["det.data"] == "sample"
    kept = artifacts(tracked, run)
    assert {"recipe.yaml", "run.json", "curves.png", "analysis/index.html", "checkpoints/best/model.safetensors"} < set(
        kept
    )
    assert sum(name.startswith("pictures/") for name in kept) == 4
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    best = max(row["box_ap"] for row in rows if "evaluated" in row)
    assert run.data.metrics["best/box_ap"] == best
    logged = yaml.safe_load(
        Path(MlflowClient(tracked).download_artifacts(run_id, "recipe.yaml", str(tmp_path))).read_text()
    )
    assert logged == yaml.safe_load((folder / "recipe.yaml").read_text())


def test_all_checkpoints_and_an_experiment_of_a_name(
    tracked: str, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DET_MLFLOW_CHECKPOINTS", "all")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "cells")
    monkeypatch.setenv("MLFLOW_RUN_NAME", "the first")
    train(recipe, work_dir=tmp_path / "run", max_steps=2, save_every=1, quiet=True)
    (run,) = runs(tracked, "cells")
    assert run.info.run_name == "the first"
    names = [name for name in artifacts(tracked, run) if name.startswith("checkpoints/")]
    assert names == [f"checkpoints/step-000000{step}/model.safetensors" for step in (1, 2)]


def test_a_server_that_is_not_there_does_not_stop_training(
    store: str, recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    result = train(recipe, work_dir=tmp_path / "run", max_steps=1)
    assert (result.step, result.reason) == (1, "stopped")
    said = capsys.readouterr().out
    plugin = f"det-plugin-mlflow {version('det-plugin-mlflow')}"
    assert f"plugin {plugin} failed in det_run_started and is switched off for this run" in said
    assert said.count(f"{plugin} failed") == 1


def test_a_store_that_fails_later_does_not_stop_training(
    tracked: str, recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: TrackedRun) -> None:
        raise OSError("connection reset")

    monkeypatch.setattr(TrackedRun, "send", fail)
    assert train(recipe, work_dir=tmp_path / "run", max_steps=2, log_every=1).step == 2
    assert (
        "failed in det_evaluated and is switched off for this run: OSError: connection reset" in capsys.readouterr().out
    )


def test_a_run_that_fails_is_marked(tracked: str, recipe: Recipe, tmp_path: Path) -> None:
    TrackedRun(recipe, tmp_path, 0, lambda text: None).end(0, "failed", None)
    assert runs(tracked)[0].info.status == "FAILED"


def test_a_run_that_the_store_no_longer_has_begins_again(tracked: str, recipe: Recipe, tmp_path: Path) -> None:
    first = TrackedRun(recipe, tmp_path, 0, lambda text: None)
    assert TrackedRun(recipe, tmp_path, 3, lambda text: None).run_id == first.run_id
    assert TrackedRun(recipe, tmp_path, 0, lambda text: None).run_id != first.run_id
    (tmp_path / "mlflow.json").write_text(json.dumps({"run_id": "0" * 32, "uri": tracked}))
    assert TrackedRun(recipe, tmp_path, 3, lambda text: None).run_id not in ("0" * 32, first.run_id)
    (tmp_path / "mlflow.json").write_text(json.dumps({"run_id": first.run_id, "uri": "http://elsewhere"}))
    assert TrackedRun(recipe, tmp_path, 3, lambda text: None).run_id != first.run_id


def test_an_analysis_made_after_training_is_added(tracked: str, recipe: Recipe, tmp_path: Path) -> None:
    TrackedRun(recipe, tmp_path, 0, lambda text: None).end(0, "finished", None)
    (tmp_path / "analysis").mkdir()
    (tmp_path / "analysis" / "index.html").write_text("<p>where it is wrong")
    log_analysis(tmp_path)
    (run,) = runs(tracked)
    assert "analysis/index.html" in artifacts(tracked, run)
    assert run.info.status == "FINISHED"


@pytest.mark.distributed
@pytest.mark.slow
def test_of_several_processes_one_logs(tracked: str, recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(recipe.to_yaml())
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "det_core"]
    command += [
        "train",
        "--config",
        str(tmp_path / "tiny.yaml"),
        "--work-dir",
        str(tmp_path / "run"),
        "--device",
        "cpu",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--max-steps", "1"], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(runs(tracked)) == 1
    assert done.stdout.count("mlflow: run ") == 1


def test_a_wrong_choice_of_checkpoints_is_reported(
    tracked: str, recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DET_MLFLOW_CHECKPOINTS", "bets")
    train(recipe, work_dir=tmp_path / "run", max_steps=1)
    said = capsys.readouterr().out
    assert "DET_MLFLOW_CHECKPOINTS: found 'bets', expected none, best, all; did you mean \"best\"?" in said


def test_det_plugins_switches_it_off(tracked: str, recipe: Recipe, tmp_path: Path) -> None:
    with isolated_manager(*installed_plugins(), choice="-mlflow"):
        train(recipe, work_dir=tmp_path / "run", max_steps=1, quiet=True)
    assert runs(tracked) == []


def test_a_logged_step_sends_nothing_by_itself(tracked: str, recipe: Recipe, tmp_path: Path) -> None:
    """A thousand logged steps take a small part of a second, since they are sent together."""
    run = TrackedRun(recipe, tmp_path, 0, lambda text: None)
    sent = []
    run.client.log_batch = lambda run_id, metrics: sent.append(len(metrics))  # type: ignore[method-assign, assignment]
    began = time.perf_counter()
    for step in range(1000):
        run.log(step, {"loss/total": 1.0, "lr": 0.1, "nothing": float("nan")})
    assert sum(sent) + len(run._metrics) == 2000
    assert len(sent) <= 1000 * 2 // 900 + 1
    assert time.perf_counter() - began < 2


@pytest.mark.parametrize(
    ("name", "valid"),
    [
        ("box_ap/person", "box_ap/person"),
        ("box_ap/do|g [1]", "box_ap/do_g _1_"),
        ("box_ap/a//b/../c", "box_ap/a/_/b/_/c"),
        ("box_ap/", "box_ap/_"),
        ("box_ap/Füße", "box_ap/F__e"),
        ("x" * 300, "x" * 250),
    ],
)
def test_names_become_valid(name: str, valid: str) -> None:
    from mlflow.utils.validation import _validate_metric_name

    assert Names()(name) == valid
    _validate_metric_name(valid)


def test_names_that_become_equal_stay_apart() -> None:
    names = Names()
    assert [names(n) for n in ("a|b", "a_b", "a?b", "a|b")] == ["a_b", "a_b-2", "a_b-3", "a_b"]
    assert len(names("y" * 251)) == 250
    assert len(names("y" * 252)) <= 250


def test_metrics_of_classes_have_a_folder_of_their_own() -> None:
    metrics = {"box_ap": 1.0, "box_ap/a/b": 2.0, "val_loss/total": 3.0}
    assert apart(metrics) == {"box_ap": 1.0, "box_ap_by_class/a/b": 2.0, "val_loss/total": 3.0}


def test_long_values_are_shortened() -> None:
    assert shortened("abcdef", 6) == "abcdef"
    assert shortened("abcdefg", 6) == "abc..."


def test_the_plugin_keeps_its_contracts() -> None:
    contract_checks.check_plugin("mlflow")
    assert plugin_manager().plugin("mlflow").provides == {"run hook": list(RUN_HOOKS)}


def test_the_hooks_do_nothing_without_a_run() -> None:
    hooks.det_step_finished(1, {})
    hooks.det_evaluated(1, {})
    hooks.det_checkpoint_saved(Path())
    hooks.det_run_finished(1, "finished", None)
