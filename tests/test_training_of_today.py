"""Schedules, parameter rules, validation losses and longer runs, in training."""

from __future__ import annotations

import json
import math

import pytest
import torch

from det_core import DetError, load_detector, load_recipe, train
from det_core.data.loader import test_loader as loader_of
from det_core.engine.distributed import World
from det_core.engine.evaluate import EvaluationStopped
from det_core.engine.predict import to_batch, to_targets
from det_core.engine.validation_loss import _means, validation_losses
from det_core.plugins import installed_plugins
from det_core.testing.isolated_plugins import isolated_manager, make_plugin

ALONE = World(0, 1, torch.device("cpu"))


@pytest.fixture
def settings(tiny_settings):
    return [*tiny_settings, "schedule.epochs=1"]


def rows(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_the_rate_of_a_schedule_is_that_of_each_step(tmp_path, settings):
    changes = ["schedule.learning_rate={type: cosine}", "schedule.warmup_steps=0", "optimizer.lr=0.001"]
    recipe = load_recipe("mask-rcnn/r18-fpn-demo", [*settings, *changes])
    train(recipe, work_dir=tmp_path, max_steps=4, log_every=1, quiet=True)
    rates = [row["lr"] for row in rows(tmp_path) if "lr" in row]
    assert rates == pytest.approx([0.001 * (1 + math.cos(math.pi * step / 9)) / 2 for step in range(4)])


def test_a_frozen_part_does_not_change_and_others_do(tmp_path, settings):
    frozen = "optimizer.rules=[{pattern: 'backbone.*', frozen: true}, {pattern: 'neck.*', lr_factor: 0.5}]"
    recipe = load_recipe("faster-rcnn/r18-fpn-demo", [*(s for s in settings if "mask_head" not in s), frozen])
    torch.manual_seed(recipe.schedule.seed)
    before = {k: v.clone() for k, v in recipe.detector.build(num_classes=1).state_dict().items()}
    result = train(recipe, work_dir=tmp_path, max_steps=3, quiet=True)
    after = result.detector.state_dict()
    changed = {key for key, value in after.items() if not torch.equal(value, before[key])}
    assert not any(key.startswith("backbone.") for key in changed), "weights or running statistics"
    assert {key for key in after if key.startswith(("neck.", "dense_head."))} <= changed


def test_validation_losses_are_means_over_all_images(tmp_path, settings, capsys):
    recipe = load_recipe("mask-rcnn/r18-fpn-demo", [*settings, "evaluation.losses=true"])
    train(recipe, work_dir=tmp_path)
    last = rows(tmp_path)[-1]
    assert set(last) > {"val_loss/rpn_cls", "val_loss/roi_mask", "val_loss/total", "box_ap", "box_ap/nucleus"}
    assert f"total {last['val_loss/total']:.3f}" in capsys.readouterr().out
    detector, data = load_detector(tmp_path), recipe.open_val()
    again = validation_losses(detector, data, recipe.data.test_transforms, workers=0, precision="fp32", world=ALONE)
    assert again == {name: pytest.approx(value, rel=1e-5) for name, value in last.items() if name.startswith("val_")}

    transforms = [t.build() for t in recipe.data.test_transforms]
    totals, counts = 0.0, 0.0
    with torch.no_grad():
        for image in loader_of(data, transforms):
            batch = to_batch(detector, [image])
            term = detector.losses(batch, to_targets(batch, [image]))["rpn_cls"]
            totals, counts = totals + float(term.total), counts + float(term.count)
    assert last["val_loss/rpn_cls"] == pytest.approx(totals / counts, rel=1e-5)


def test_validation_losses_end_when_asked_to_stop(settings):
    recipe = load_recipe("mask-rcnn/r18-fpn-demo", [*settings, "evaluation.losses=true"])
    data, asked = recipe.open_val(), []
    with pytest.raises(EvaluationStopped):
        validation_losses(
            recipe.detector.build(classes=data.classes),
            data,
            recipe.data.test_transforms,
            workers=0,
            precision="fp32",
            world=ALONE,
            should_stop=lambda: bool(asked.append(1) or len(asked) == 2),
        )
    assert len(asked) == 2


def test_validation_losses_do_not_depend_on_the_number_of_ranks():
    one = [{"a": (6.0, 4.0), "b": (1.0, 2.0)}]
    two = [{"a": (2.0, 1.0)}, {"a": (4.0, 3.0), "b": (1.0, 2.0)}]
    assert _means(one) == _means(two) == {"val_loss/a": 1.5, "val_loss/b": 0.5, "val_loss/total": 2.0}


def test_the_best_metric_may_be_that_of_a_class(tmp_path, settings):
    recipe = load_recipe("mask-rcnn/r18-fpn-demo", [*settings, "evaluation.best=box_ap50/nucleus"])
    train(recipe, work_dir=tmp_path, quiet=True)
    best = json.loads((tmp_path / "checkpoints" / "best.json").read_text())
    assert best["metric"] == "box_ap50/nucleus"
    assert best["value"] == rows(tmp_path)[-1]["box_ap50/nucleus"]


def test_a_best_metric_of_no_class_is_refused_with_those_that_there_are(tmp_path, settings):
    recipe = load_recipe("mask-rcnn/r18-fpn-demo", [*settings, "evaluation.best=box_ap/nukleus"])
    with pytest.raises(DetError, match="no metric 'box_ap/nukleus' was measured; there are: box_ap, box_ap50"):
        train(recipe, work_dir=tmp_path, quiet=True)


def test_hooks_are_given_the_metrics_of_classes(tmp_path, settings):
    seen = []
    follower = make_plugin("follower", det_evaluated=lambda step, metrics: seen.append((step, metrics)))
    recipe = load_recipe("mask-rcnn/r18-fpn-demo", settings)
    with isolated_manager(*installed_plugins(), follower):
        train(recipe, work_dir=tmp_path, quiet=True)
    ((step, metrics),) = seen
    assert step == 9
    assert {"box_ap", "box_ap_small", "box_ap/nucleus", "mask_ap/nucleus"} <= set(metrics)


def test_a_finished_run_is_extended_and_says_what_changed(tmp_path, settings, capsys):
    train(load_recipe("mask-rcnn/r18-fpn-demo", settings), work_dir=tmp_path, quiet=True)
    longer = load_recipe(
        tmp_path / "recipe.yaml", ["schedule.epochs=2", "schedule.learning_rate={type: constant}", "data.workers=1"]
    )
    result = train(longer, work_dir=tmp_path, resume=True)
    assert (result.reason, result.step) == ("finished", 18)
    said = capsys.readouterr().out
    assert "resumed at step 9\n" in said
    assert "  changed: schedule.epochs: 1 became 2\n" in said
    assert "  changed: schedule.learning_rate: {'type': 'step'" in said
    assert "  changed: data.workers: 0 became 1\n" in said
    assert load_recipe(tmp_path / "recipe.yaml") == longer
    assert [row["step"] for row in rows(tmp_path) if "evaluated" in row] == [9, 18]


def test_a_run_is_not_extended_with_another_optimiser(tmp_path, settings):
    train(load_recipe("mask-rcnn/r18-fpn-demo", settings), work_dir=tmp_path, quiet=True, max_steps=1)
    other = load_recipe(tmp_path / "recipe.yaml", ["optimizer.lr=0.5", "schedule.seed=3"])
    with pytest.raises(DetError) as error:
        train(other, work_dir=tmp_path, resume=True, quiet=True)
    text = str(error.value)
    assert "was trained with another recipe (differs in: optimizer.lr, schedule.seed); continue with --config" in text
    assert "may change: data.root, data.workers" in text


def test_a_stopped_run_says_how_to_continue(tmp_path, settings, capsys):
    train(load_recipe("mask-rcnn/r18-fpn-demo", settings), work_dir=tmp_path / "my run", max_steps=1)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"continue: det-core train --resume --work-dir '{tmp_path / 'my run'}'"
