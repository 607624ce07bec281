"""Checkpoints: whole or not at all, and what is said of those that do not fit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import attrs
import pytest
import torch
from safetensors.torch import save_file

from det_core.engine import checkpoint as checkpoints
from det_core.engine.checkpoint import CheckpointError, Header
from det_core.load import load_recipe
from det_core.structures import Classes

# Writes checkpoints of steps 1 and 2, and is killed at the n-th thing that it does to the disk for the second.
KILLED_WHILE_WRITING = """
import os, signal, sys
import torch
from pathlib import Path
from det_core.engine import checkpoint as checkpoints
from det_core.load import load_recipe
from det_core.structures import Classes

run, fatal = Path(sys.argv[1]), int(sys.argv[2])
header = checkpoints.Header(recipe=load_recipe("rpn/r18-fpn-demo"), classes=Classes.numbered(1), step=1)
checkpoints.save_checkpoint(run, header, {"w": torch.ones(3)}, {"step": 1})
calls = 0

def count(event, args):
    global calls
    if event in ("open", "os.rename", "os.mkdir", "os.remove", "shutil.rmtree") and str(run) in str(args[0]):
        calls += 1
        if calls == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(count)
import attrs
checkpoints.save_checkpoint(run, attrs.evolve(header, step=2), {"w": torch.zeros(3)}, {"step": 2})
print("survived", calls)
"""


def header(step: int = 1, **changes) -> Header:
    plain = Header(recipe=load_recipe("rpn/r18-fpn-demo"), classes=Classes.numbered(2), step=step)
    return attrs.evolve(plain, **changes)


def test_a_kill_at_any_moment_of_writing_leaves_the_one_before(tmp_path):
    survived = False
    for fatal in range(1, 30):
        run = tmp_path / str(fatal)
        command = [sys.executable, "-c", KILLED_WHILE_WRITING, str(run), str(fatal)]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        last = checkpoints.last_checkpoint(run)
        assert last is not None
        step = checkpoints.read_header(last / checkpoints.WEIGHTS).step
        weights = checkpoints.read_weights(last / checkpoints.WEIGHTS)["w"]
        training = torch.load(last / checkpoints.TRAINING, weights_only=True)
        assert (weights.tolist(), training["step"]) == ({1: [1.0] * 3, 2: [0.0] * 3}[step], step)
        if done.returncode == 0:
            assert "survived" in done.stdout
            survived = True
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
    assert survived
    assert fatal > 4  # it was killed at several moments before


def test_what_a_kill_left_half_written_is_cleared_away(tmp_path):
    stale = tmp_path / "checkpoints" / ".writing-step-0000001"
    stale.mkdir(parents=True)
    (stale / "model.safetensors").write_bytes(b"half")
    assert checkpoints.checkpoints(tmp_path) == []
    checkpoints.save_checkpoint(tmp_path, header(1), {"w": torch.ones(1)})
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-0000001"]


def test_pruning_keeps_the_newest_and_the_best(tmp_path):
    for step in range(1, 6):
        path = checkpoints.save_checkpoint(tmp_path, header(step), {"w": torch.ones(1)})
        if step == 2:
            checkpoints.mark_best(tmp_path, path, "box_ap", 0.5)
        checkpoints.prune(tmp_path, 2)
    assert [p.name for p in checkpoints.checkpoints(tmp_path)] == ["step-0000002", "step-0000004", "step-0000005"]
    assert checkpoints.weights_file(tmp_path).parent.name == "step-0000002"


def test_a_header_says_recipe_classes_plugins_and_step(tmp_path):
    written = header(7, plugins={"det-core": "0.1.0"})
    path = checkpoints.save_checkpoint(tmp_path, written, {"w": torch.ones(1)})
    assert checkpoints.read_header(path / checkpoints.WEIGHTS) == written


def test_a_path_may_be_a_run_a_checkpoint_or_a_file(tmp_path):
    path = checkpoints.save_checkpoint(tmp_path, header(1), {"w": torch.ones(1)})
    file = path / checkpoints.WEIGHTS
    assert {checkpoints.weights_file(given) for given in (tmp_path, path, file)} == {file}


def test_missing_empty_and_damaged_checkpoints_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere: no such file or folder"):
        checkpoints.weights_file(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="contains no checkpoint; give a .safetensors file"):
        checkpoints.weights_file(tmp_path)
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"not at all")
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        checkpoints.read_header(broken)
    foreign = tmp_path / "foreign.safetensors"
    save_file({"w": torch.ones(1)}, foreign)
    with pytest.raises(CheckpointError, match="contains no recipe; import weights of another project first"):
        checkpoints.read_header(foreign)


@pytest.mark.parametrize("damage", [{"classes": "{"}, {"classes": "[]"}, {"step": "many"}, {"plugins": "}"}])
def test_a_damaged_header_is_refused(tmp_path, damage):
    file = tmp_path / "damaged.safetensors"
    save_file({"w": torch.ones(1)}, file, metadata={**header(1).to_metadata(), **damage})
    with pytest.raises(CheckpointError, match="its header is damaged"):
        checkpoints.read_header(file)


def test_weights_that_do_not_fit_the_recipe_are_refused(tmp_path):
    path = checkpoints.save_checkpoint(tmp_path, header(1), {"w": torch.ones(1)})
    with pytest.raises(CheckpointError, match="the weights do not fit its recipe"):
        checkpoints.load_detector(path)


def test_a_missing_plugin_is_named_with_what_installs_it(tmp_path):
    metadata = header(1, plugins={"det-plugin-absent": "2.0"}).to_metadata()
    plain = json.loads(metadata["recipe"])
    plain["detector"]["dense_head"]["type"] = "absent_head"
    file = tmp_path / "other.safetensors"
    save_file({"w": torch.ones(1)}, file, metadata={**metadata, "recipe": json.dumps(plain)})
    with pytest.raises(
        CheckpointError,
        match=r"(?s)detector.dense_head.type: unknown type 'absent_head'.*"
        r"plugins that are not installed: det-plugin-absent 2.0 \(pip install det-plugin-absent\)",
    ):
        checkpoints.read_header(file)


@pytest.fixture
def trained(tmp_path):
    """A checkpoint of a faster R-CNN with two classes, and its weights."""
    recipe = load_recipe("faster-rcnn/r18-fpn-demo")
    detector = recipe.detector.build(num_classes=2)
    state = detector.state_dict()
    path = checkpoints.save_checkpoint(tmp_path, Header(recipe=recipe, classes=detector.classes, step=1), state)
    return path, recipe, state


def test_init_takes_everything_where_the_classes_are_the_same(trained):
    path, recipe, state = trained
    detector = recipe.detector.build(num_classes=2)
    report = checkpoints.initialise(detector, path)
    assert report.fresh == ()
    assert all(torch.equal(v, state[k]) for k, v in detector.state_dict().items())


def test_init_leaves_class_dependent_layers_fresh_where_the_classes_differ(trained):
    path, recipe, state = trained
    detector = recipe.detector.build(num_classes=5)
    before = {k: v.clone() for k, v in detector.state_dict().items()}
    report = checkpoints.initialise(detector, path)
    assert sorted(report.fresh) == [
        "roi_head.box_head.deltas.bias",
        "roi_head.box_head.deltas.weight",
        "roi_head.box_head.scores.bias",
        "roi_head.box_head.scores.weight",
    ]
    after = detector.state_dict()
    assert all(torch.equal(after[k], before[k]) for k in report.fresh)
    assert all(torch.equal(after[k], state[k]) for k in report.loaded)
    assert set(report.fresh) | set(report.loaded) == set(after)


def test_init_from_another_model_is_refused_with_what_differs(trained):
    path, _, _ = trained
    other = load_recipe("faster-rcnn/r18-fpn-demo", ["detector.neck.channels=32"]).detector.build(num_classes=2)
    with pytest.raises(
        CheckpointError,
        match=r"(?s)does not fit this detector \(recipe faster-rcnn/r18-fpn-demo\).*"
        r"shapes differ: neck\.lateral\.0\.conv\.weight is \(\d+, \d+, 1, 1\) in the checkpoint",
    ):
        checkpoints.initialise(other, path)
    rpn = load_recipe("rpn/r18-fpn-demo").detector.build(num_classes=2)
    with pytest.raises(CheckpointError, match="left over in the checkpoint: roi_head"):
        checkpoints.initialise(rpn, path)
