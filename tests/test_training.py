"""What a run does beside going well: losses that are not finite, hooks, patience, mixed precision, wrong resumes."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
from pathlib import Path

import attrs
import pytest
import torch

import det_core.engine.training_loop as engine
from det_core import DetError, load_recipe, train
from det_core.engine import checkpoint as checkpoints
from det_core.engine.distributed import World, choose_device, reduce_losses
from det_core.engine.evaluate import Evaluation
from det_core.evaluation.metric_config import CocoEvaluatorConfig
from det_core.plugins import installed_plugins
from det_core.structures import LossTerm
from det_core.testing.isolated_plugins import isolated_manager, make_plugin


@pytest.fixture
def recipe(tiny_settings):
    return load_recipe("mask-rcnn/r18-fpn-demo", tiny_settings)


def rows(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path, recipe, monkeypatch):
    calls = 0

    def spoiled(terms, world, *, stop=False):
        nonlocal calls
        calls += 1
        reduced = reduce_losses(terms, world, stop=stop)
        return attrs.evolve(reduced, values={**reduced.values, "roi_box": math.nan}) if calls == 3 else reduced

    monkeypatch.setattr(engine, "reduce_losses", spoiled)
    with pytest.raises(DetError) as caught:
        train(recipe, work_dir=tmp_path, save_every=1, quiet=True)
    text = str(caught.value)
    assert "the loss is not finite at step 2: rpn_cls" in text
    assert "roi_box nan" in text
    assert "learning rate" in text
    assert "image ids [" in text
    assert (
        f"the last good checkpoint is {tmp_path}/checkpoints/step-0000001" in text
    )  # no finite loss confirms the second
    assert checkpoints.last_checkpoint(tmp_path).name == "step-0000002"


def test_hooks_follow_a_run_and_one_that_raises_is_switched_off(tmp_path, recipe, capsys):
    seen = []
    follower = make_plugin(
        "follower",
        det_run_started=lambda recipe, work_dir, step, say: seen.append(("started", recipe.name, work_dir, step)),
        det_step_finished=lambda step, metrics: seen.append(("step", step, "loss/total" in metrics)),
        det_checkpoint_saved=lambda step, checkpoint: seen.append(("saved", step, checkpoint.name)),
        det_run_finished=lambda step, reason, best: seen.append(("finished", step, reason, best)),
    )
    calls = []

    def stumble(step):
        calls.append(step)
        raise RuntimeError("oh dear")

    with isolated_manager(*installed_plugins(), follower, make_plugin("clumsy", det_step_finished=stumble)):
        train(recipe, work_dir=tmp_path, max_steps=2, log_every=1)
    assert seen == [
        ("started", recipe.name, tmp_path, 0),
        ("step", 1, True),
        ("step", 2, True),
        ("saved", 2, "step-0000002"),
        ("finished", 2, "stopped", None),
    ]
    assert calls == [1]
    said = capsys.readouterr().out
    assert "plugin det-plugin-clumsy 1.0 failed in det_step_finished and is switched off for this run" in said
    assert "RuntimeError: oh dear" in said


def test_hooks_are_given_what_a_tracker_needs(tmp_path, recipe, capsys, monkeypatch):
    """A resumed run says so, each checkpoint comes once and before its evaluation, and pictures before the end."""
    monkeypatch.setattr(engine, "evaluate", lambda *arguments, **options: Evaluation({"box_ap": 0.5}, {}, ()))
    data = attrs.evolve(recipe.data, images_per_rank=17)  # one step per epoch
    recipe = attrs.evolve(recipe, data=data, evaluation=attrs.evolve(recipe.evaluation, every_epochs=1))
    seen = []

    def started(step, say):
        seen.append(("started", step))
        say("tracked")

    def finished(best):
        files = [p.name for p in (tmp_path / "pictures").glob("*.png")]
        seen.append(("finished", best.name, len(files) > 0, (tmp_path / "curves.png").is_file()))

    follower = make_plugin(
        "follower",
        det_run_started=started,
        det_checkpoint_saved=lambda step, checkpoint: seen.append(("saved", step, checkpoint.is_dir())),
        det_evaluated=lambda step, metrics: seen.append(("evaluated", step, metrics["box_ap"])),
        det_run_finished=finished,
    )
    with isolated_manager(*installed_plugins(), follower):
        train(recipe, work_dir=tmp_path, max_steps=1, save_every=1)
        train(recipe, work_dir=tmp_path, resume=True, quiet=True)
    assert seen == [
        ("started", 0),
        ("saved", 1, True),
        ("evaluated", 1, 0.5),
        ("finished", "step-0000001", True, True),
        ("started", 1),
        ("saved", 2, True),
        ("evaluated", 2, 0.5),
        ("finished", "step-0000001", True, True),
    ]
    assert "\ntracked\n" in capsys.readouterr().out


def test_hooks_are_told_of_a_run_that_failed(tmp_path, recipe, monkeypatch):
    def fail(*arguments, **options):
        raise DetError("no more")

    monkeypatch.setattr(engine, "reduce_losses", fail)
    seen = []
    follower = make_plugin("follower", det_run_finished=lambda reason, best: seen.append((reason, best)))
    with isolated_manager(*installed_plugins(), follower), pytest.raises(DetError, match="no more"):
        train(recipe, work_dir=tmp_path, quiet=True)
    assert seen == [("failed", None)]
    assert not (tmp_path / "pictures").exists()


def test_a_run_folder_keeps_the_recipe_classes_plugins_and_versions(tmp_path, recipe):
    train(recipe, work_dir=tmp_path, max_steps=1, quiet=True)
    facts = json.loads((tmp_path / "run.json").read_text())
    assert facts["classes"] == {"names": ["nucleus"], "ids": [1]}
    assert facts["plugins"]["det-plugin-rcnn"]
    assert facts["torch"] == torch.__version__
    kept = load_recipe(tmp_path / "recipe.yaml")
    assert kept == recipe


def test_a_run_without_the_extras_says_what_it_leaves_out(tmp_path, recipe, monkeypatch, capsys):
    for name in ("torch.utils.tensorboard", "matplotlib", "matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, name, None)
    train(recipe, work_dir=tmp_path, max_steps=1)
    said = capsys.readouterr().out
    assert "no TensorBoard events: the package is not installed (pip install tensorboard)" in said
    assert "no curves: " in said
    assert "pip install matplotlib" in said
    assert not (tmp_path / "curves.png").exists()
    assert not (tmp_path / "tensorboard").exists()


def test_patience_ends_a_run_and_the_best_checkpoint_is_kept(tmp_path, recipe, monkeypatch):
    values = iter([0.2, 0.5, 0.4, 0.3, 0.9])

    def measured(*arguments, **options):
        return Evaluation({"box_ap": next(values)}, {}, ())

    monkeypatch.setattr(engine, "evaluate", measured)
    schedule = attrs.evolve(recipe.schedule, epochs=5)
    evaluation = attrs.evolve(recipe.evaluation, every_epochs=1, patience=2)
    data = attrs.evolve(recipe.data, images_per_rank=17)
    recipe = attrs.evolve(recipe, schedule=schedule, evaluation=evaluation, data=data)
    result = train(recipe, work_dir=tmp_path, quiet=True)
    assert [r["box_ap"] for r in rows(tmp_path) if "evaluated" in r] == [0.2, 0.5, 0.4, 0.3]
    assert (result.step, result.reason) == (4, "finished")
    best = checkpoints.best_checkpoint(tmp_path)
    assert best.name == "step-0000002"
    assert json.loads((tmp_path / "checkpoints/best.json").read_text())["value"] == 0.5


def test_sigterm_while_evaluating_leaves_and_the_evaluation_is_made_up_for(tmp_path, recipe, monkeypatch):
    real = engine.evaluate

    def interrupted(*arguments, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments, **options)

    data = attrs.evolve(recipe.data, images_per_rank=17)
    recipe = attrs.evolve(recipe, data=data, schedule=attrs.evolve(recipe.schedule, epochs=1))
    monkeypatch.setattr(engine, "evaluate", interrupted)
    result = train(recipe, work_dir=tmp_path, quiet=True)
    assert (result.reason, result.step, result.metrics) == ("stopped", 1, {})
    assert not [r for r in rows(tmp_path) if "evaluated" in r]
    monkeypatch.setattr(engine, "evaluate", real)
    result = train(recipe, work_dir=tmp_path, resume=True, quiet=True)
    assert result.reason == "finished"
    assert [r["step"] for r in rows(tmp_path) if "evaluated" in r] == [1]


def test_a_recipe_without_evaluators_trains_to_its_end(tmp_path, recipe):
    evaluation = attrs.evolve(recipe.evaluation, evaluators=())
    data = attrs.evolve(recipe.data, images_per_rank=17)
    recipe = attrs.evolve(recipe, evaluation=evaluation, data=data, schedule=attrs.evolve(recipe.schedule, epochs=1))
    result = train(recipe, work_dir=tmp_path, quiet=True)
    assert (result.reason, result.metrics) == ("finished", {})


def test_a_misspelled_metric_is_refused_at_load(recipe):
    with pytest.raises(DetError, match=r"evaluation.best: no evaluator measures 'box_app'; did you mean \"box_ap\""):
        load_recipe("mask-rcnn/r18-fpn-demo", ["evaluation.best=box_app"])


def test_a_metric_that_nobody_measures_cannot_be_the_best(tmp_path, recipe, monkeypatch):
    monkeypatch.setattr(CocoEvaluatorConfig, "metric_names", lambda config: None)  # one that cannot say before
    evaluation = attrs.evolve(recipe.evaluation, best="box_app", every_epochs=1)
    data = attrs.evolve(recipe.data, images_per_rank=17)
    recipe = attrs.evolve(recipe, evaluation=evaluation, data=data, schedule=attrs.evolve(recipe.schedule, epochs=1))
    with pytest.raises(DetError, match="evaluation.best: no metric 'box_app' was measured; there are: box_ap, "):
        train(recipe, work_dir=tmp_path, quiet=True)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_trains(tmp_path, recipe, precision):
    recipe = attrs.evolve(recipe, schedule=attrs.evolve(recipe.schedule, precision=precision))
    result = train(recipe, work_dir=tmp_path, max_steps=2, log_every=1, quiet=True)
    assert result.step == 2
    assert all(math.isfinite(r["loss/total"]) for r in rows(tmp_path))


def test_compile_is_asked_of_backbone_neck_and_dense_head(tmp_path, recipe, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compiled.append(type(module).__name__))
    recipe = attrs.evolve(recipe, schedule=attrs.evolve(recipe.schedule, compile=True))
    train(recipe, work_dir=tmp_path, max_steps=1, quiet=True)
    assert compiled == ["ResNet", "FPN", "RPN"]


def test_a_folder_in_use_and_another_recipe_are_refused(tmp_path, recipe):
    train(recipe, work_dir=tmp_path, max_steps=1, quiet=True)
    with pytest.raises(DetError, match="already holds a run .last checkpoint step-0000001.; continue it with --resume"):
        train(recipe, work_dir=tmp_path, quiet=True)
    other = attrs.evolve(recipe, optimizer=attrs.evolve(recipe.optimizer, lr=0.5))
    with pytest.raises(DetError, match=r"was trained with another recipe \(differs in: optimizer.lr\)"):
        train(other, work_dir=tmp_path, resume=True, quiet=True)


def test_the_loader_and_the_place_of_the_data_may_change_on_resuming(tmp_path, recipe):
    train(recipe, work_dir=tmp_path, max_steps=1, quiet=True)
    data = attrs.evolve(recipe.data, workers=1, root=str(tmp_path))
    result = train(attrs.evolve(recipe, data=data), work_dir=tmp_path, resume=True, max_steps=2, quiet=True)
    assert result.step == 2


def test_rows_of_a_run_that_was_killed_before_its_first_checkpoint_are_forgotten(tmp_path, recipe):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "lr": 9.0}\n{"step": 2, "lr": 9.0}\n{"step"')
    train(recipe, work_dir=tmp_path, resume=True, max_steps=1, log_every=1, quiet=True)
    assert [r["step"] for r in rows(tmp_path)] == [1]
    assert rows(tmp_path)[0]["lr"] != 9.0


def test_losses_are_divided_by_their_own_counts():
    terms = {
        "a": LossTerm(torch.tensor(6.0, requires_grad=True), 3.0),
        "b": LossTerm(torch.tensor(5.0), torch.tensor(0)),
    }
    reduced = reduce_losses(terms, World(0, 1, torch.device("cpu")), stop=True)
    assert reduced.values == {"a": 2.0, "b": 5.0}
    assert (reduced.total, reduced.backward.item(), reduced.stop) == (7.0, 7.0, True)


@pytest.mark.parametrize(
    ("device", "text"),
    [
        ("gpu", "unknown device 'gpu'; allowed: cpu, cuda, cuda:N, mps"),
        ("meta", "device 'meta' is not supported; allowed: cpu, cuda, cuda:N, mps"),
        pytest.param(
            "mps",
            "'mps' was asked for, but torch sees no Apple GPU",
            marks=pytest.mark.skipif(torch.backends.mps.is_available(), reason="there is an Apple GPU"),
        ),
        pytest.param(
            "cuda",
            "'cuda' was asked for, but torch sees no GPU",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
    ],
)
def test_a_device_that_is_not_there_is_refused(device, text):
    with pytest.raises(DetError, match=text):
        choose_device(device)
