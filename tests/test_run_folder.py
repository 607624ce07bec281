"""A run folder: one process at a time, damage noticed and named, a failed save leaves nothing behind, Ctrl-C saves."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from det_core import DetError, load_recipe, train
from det_core.cli.main import run as main
from det_core.engine import checkpoint as checkpoints, run_lock, training_loop
from det_core.engine.checkpoint import CheckpointError, load_detector
from det_core.engine.distributed import World
from det_core.engine.manifest import MANIFEST
from det_core.engine.run_lock import LOCK, locked
from det_core.reports.loggers import MetricsFile

ALONE = World(0, 1, torch.device("cpu"))


@pytest.fixture
def recipe(tiny_settings):
    return load_recipe("rpn/r18-fpn-demo", [s for s in tiny_settings if "roi_head" not in s])


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_settings) -> Path:
    """A run of two steps with a checkpoint after each, and a moving average."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    settings = [s for s in tiny_settings if "roi_head" not in s]
    recipe = load_recipe("rpn/r18-fpn-demo", [*settings, "schedule.ema_decay=0.9"])
    train(recipe, work_dir=folder, max_steps=2, save_every=1, quiet=True)
    return folder


@pytest.fixture
def run(trained, tmp_path) -> Path:
    import shutil

    return Path(shutil.copytree(trained, tmp_path / "run"))


def resume(run: Path, **options):
    recipe = load_recipe(run / "recipe.yaml")
    return train(recipe, work_dir=run, resume=True, max_steps=2, quiet=True, **options)


def newest(run: Path) -> Path:
    found = checkpoints.last_checkpoint(run)
    assert found is not None
    return found


# Damage


def flip(file: Path, position: int) -> None:
    content = bytearray(file.read_bytes())
    content[position] ^= 0xFF
    file.write_bytes(content)


@pytest.mark.parametrize("name", ["model.safetensors", "raw.safetensors", "training.pt", MANIFEST])
@pytest.mark.parametrize("where", ["start", "middle", "end"])
def test_a_flipped_byte_is_noticed_on_resume(run, name, where):
    file = newest(run) / name
    size = file.stat().st_size
    flip(file, {"start": 0, "middle": size // 2, "end": size - 2}[where])
    with pytest.raises(CheckpointError) as caught:
        resume(run)
    text = str(caught.value)
    assert name in text
    assert "damaged" in text or "does not list" in text or "cannot be read" in text
    assert f"the last whole checkpoint is {run / 'checkpoints/step-0000001'}; remove {newest(run)}" in text


@pytest.mark.parametrize("name", ["model.safetensors", "training.pt"])
@pytest.mark.parametrize("damage", ["empty", "cut", "longer", "gone"])
def test_files_of_another_size_are_noticed(run, name, damage):
    file = newest(run) / name
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
        if name == "model.safetensors":
            return  # a folder without weights is no checkpoint; the one before it is used
    else:
        file.write_bytes({"empty": b"", "cut": content[:-1], "longer": content + b"x"}[damage])
    with pytest.raises(CheckpointError, match=name):
        resume(run)


def test_damaged_weights_are_noticed_by_all_who_read_them(run):
    file = newest(run) / "model.safetensors"
    flip(file, file.stat().st_size // 2)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: damaged \(its SHA-256"):
        load_detector(newest(run))
    recipe = load_recipe(run / "recipe.yaml")
    with pytest.raises(CheckpointError, match=r"model\.safetensors: damaged"):
        train(recipe, work_dir=run.parent / "other", init=newest(run), max_steps=1, quiet=True)


def test_weights_copied_out_of_their_folder_are_read(run, tmp_path):
    import shutil

    alone = tmp_path / "alone.safetensors"
    shutil.copy(newest(run) / "model.safetensors", alone)
    assert load_detector(alone).classes


def test_a_checkpoint_without_a_manifest_is_not_resumed(run):
    (newest(run) / MANIFEST).unlink()
    with pytest.raises(CheckpointError, match=rf"has no {MANIFEST}, so its files cannot be checked; the last whole"):
        resume(run)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"checkpoint": "../../elsewhere"}', r"names the checkpoint '\.\./\.\./elsewhere', expected one of this run"),
        ('{"checkpoint": 3}', "names the checkpoint 3"),
        ("{", r"best\.json: damaged \(JSONDecodeError"),
        ("[]", r"best\.json: damaged \(TypeError"),
    ],
)
def test_best_names_a_checkpoint_of_its_run(run, content, message):
    (run / "checkpoints/best.json").write_text(content)
    with pytest.raises(CheckpointError, match=message):
        load_detector(run)


# One process at a time


def test_a_folder_that_a_process_holds_is_refused_with_its_holder(run):
    code = (
        "import sys, time, torch\nfrom pathlib import Path\n"
        "from det_core.engine.distributed import World\nfrom det_core.engine.run_lock import locked\n"
        "with locked(Path(sys.argv[1]), World(0, 1, torch.device('cpu'))):\n    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(run)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(
            DetError, match=rf"run is in use by process {holder.pid} on .*; wait for it, end it, or choo"
        ):
            resume(run)
        rows = (run / "metrics.jsonl").read_text()
    finally:
        holder.kill()
        holder.communicate()
    assert (run / "metrics.jsonl").read_text() == rows
    assert resume(run).step == 2  # the lock of a killed process is gone


def test_the_holder_is_named_also_before_it_has_signed(tmp_path, monkeypatch):
    """Two processes that start at the same moment: one has the lock, and writes its name a little later."""
    (tmp_path / LOCK).touch()
    holder = os.open(tmp_path / LOCK, os.O_RDWR)
    run_lock.take_lock(holder)
    monkeypatch.setattr(run_lock.time, "sleep", lambda seconds: os.pwrite(holder, b"process 7 on here", 0))
    with pytest.raises(DetError, match="is in use by process 7 on here; wait"), locked(tmp_path, ALONE):
        pass
    os.close(holder)


def test_what_a_killed_process_was_writing_is_removed(run):
    left = [run / ".writing-1-run.json", run / "pictures/.writing-1-a.png", run / "checkpoints/.writing-1-best.json"]
    for file in left:
        file.write_text("half")
    (run / "checkpoints/.writing-step-0000003").mkdir()
    others = run / "predictions/.writing-2-a.png"  # predicting needs no lock, and may still run
    others.parent.mkdir()
    others.write_text("half")
    resume(run)
    assert list(run.rglob(".writing-*")) == [others]


def test_the_lock_follows_no_link(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK).symlink_to(victim)
    with pytest.raises(DetError, match="the run folder cannot be written"), locked(tmp_path / "run", ALONE):
        pass
    assert victim.read_text() == "precious"


def test_a_file_in_the_place_of_the_run_folder(tmp_path, recipe):
    (tmp_path / "file").write_text("")
    with pytest.raises(DetError, match="file: the run folder cannot be written"):
        train(recipe, work_dir=tmp_path / "file", max_steps=1, quiet=True)


# Failed saves


@pytest.mark.parametrize("when", ["weights", "training", "manifest"])
def test_a_save_that_fails_says_what_is_kept_and_leaves_nothing(run, monkeypatch, when):
    full = OSError(errno.ENOSPC, "No space left on device", "somewhere")

    def fails(*args, **kwargs):
        raise full

    target = {
        "weights": (checkpoints, "save_file"),
        "training": (checkpoints.torch, "save"),
        "manifest": (checkpoints, "write_manifest"),
    }[when]
    monkeypatch.setattr(*target, fails)
    recipe = load_recipe(run / "recipe.yaml")
    with pytest.raises(CheckpointError) as caught:
        train(recipe, work_dir=run, resume=True, max_steps=3, quiet=True)
    kept = run / "checkpoints/step-0000002"
    assert str(caught.value) == (
        f"{run}/checkpoints/step-0000003: cannot be saved (No space left on device); the last checkpoint is {kept}"
    )
    assert sorted(p.name for p in (run / "checkpoints").iterdir() if p.is_dir()) == ["step-0000001", "step-0000002"]


class FullFile(io.FileIO):
    """A file on a disk that is full."""

    def write(self, content: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def full_disk(monkeypatch):
    """A function: files whose names begin so that are opened from now on are on a disk that is full."""

    def fill(name: str) -> None:
        real = Path.open

        def opened(self, mode="r", *args, **kwargs):
            if not self.name.startswith(name) or "r" in mode:
                return real(self, mode, *args, **kwargs)
            file = io.BufferedWriter(FullFile(self, mode.replace("b", "")))
            return file if "b" in mode else io.TextIOWrapper(file)

        monkeypatch.setattr(Path, "open", opened)

    return fill


def test_the_reason_of_a_training_state_that_cannot_be_saved_is_the_systems(run, full_disk):
    full_disk("training.pt")
    with pytest.raises(CheckpointError) as caught:
        train(load_recipe(run / "recipe.yaml"), work_dir=run, resume=True, max_steps=3, quiet=True)
    kept = run / "checkpoints/step-0000002"
    assert str(caught.value) == (
        f"{run}/checkpoints/step-0000003: cannot be saved (No space left on device); the last checkpoint is {kept}"
    )


def test_a_metrics_line_that_cannot_be_written_says_what_is_kept(run, full_disk, capsys):
    full_disk("metrics.jsonl")
    assert main(["train", "--work-dir", str(run), "--resume", "--max-steps", "3", "--log-every", "1"]) == 1
    kept = run / "checkpoints/step-0000002"
    assert capsys.readouterr().err == (
        f"error: {run}/metrics.jsonl: cannot be written (No space left on device); the last checkpoint is {kept}\n"
    )
    assert not list(run.rglob(".writing-*"))


def test_training_goes_on_without_tensorboard_events(run, full_disk, capsys):
    full_disk("events.out.tfevents")
    recipe = load_recipe(run / "recipe.yaml")
    assert train(recipe, work_dir=run, resume=True, max_steps=3, log_every=1).step == 3
    said = f"no more TensorBoard events: {run}/tensorboard cannot be written (No space left on device)"
    assert capsys.readouterr().out.count(said) == 1


# Good checkpoints


def test_a_checkpoint_after_a_ruinous_step_is_not_called_good(tmp_path, recipe):
    from det_core.settings import evolve

    wild = evolve(recipe, optimizer=evolve(recipe.optimizer, lr=1e30), schedule=evolve(recipe.schedule, warmup_steps=0))
    with pytest.raises(DetError, match="the loss is not finite at step 1: .*there is no good checkpoint yet"):
        train(wild, work_dir=tmp_path / "run", save_every=1, max_steps=3, quiet=True)


# Signals


@pytest.fixture
def interrupted(monkeypatch):
    """Sends this process a signal after its first step."""

    def send(*numbers: int) -> None:
        real = training_loop.TrainingLoop._train_step
        calls = []

        def step(self, micro):
            calls.append(1)
            done = real(self, micro)
            if len(calls) == 1:
                for number in numbers:
                    os.kill(os.getpid(), number)
            return done

        monkeypatch.setattr(training_loop.TrainingLoop, "_train_step", step)

    return send


def test_the_first_ctrl_c_saves_and_leaves(tmp_path, recipe, interrupted, capsys):
    before = signal.getsignal(signal.SIGINT)
    interrupted(signal.SIGINT)
    result = train(recipe, work_dir=tmp_path / "run", max_steps=9)
    assert result.reason == "stopped"
    assert newest(tmp_path / "run").name == f"step-{result.step:07d}"
    assert "stopping after this step; press Ctrl-C again to leave at once" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGINT) is before


def test_the_second_ctrl_c_leaves_at_once(tmp_path, recipe, interrupted):
    interrupted(signal.SIGINT, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, work_dir=tmp_path / "run", max_steps=9, quiet=True)
    assert checkpoints.last_checkpoint(tmp_path / "run") is None


def test_the_manifest_lists_every_file(run):
    listed = json.loads((newest(run) / MANIFEST).read_text())["files"]
    assert set(listed) == {p.name for p in newest(run).iterdir()} - {MANIFEST}


def test_a_start_that_is_refused_leaves_no_folder(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(DetError, match="no data"), locked(run, ALONE):
        raise DetError("no data")
    assert not run.exists()
    run.mkdir()
    (run / "notes.txt").write_text("kept")
    with pytest.raises(DetError, match="no data"), locked(run, ALONE):
        raise DetError("no data")
    assert sorted(os.listdir(run)) == [".lock", "notes.txt"]


def test_a_lock_that_its_holder_removed_is_made_anew(tmp_path: Path) -> None:
    """The other process opens the file before it is removed, and locks it afterwards."""
    run = tmp_path / "run"
    taken: list[int] = []

    def remove_once(descriptor: int) -> bool:
        if not taken:
            (run / ".lock").unlink()
        taken.append(descriptor)
        return True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_lock, "take_lock", remove_once)
        with locked(run, ALONE):
            assert (run / ".lock").read_text().startswith(f"process {os.getpid()} ")
    assert len(taken) == 2


def test_damaged_metrics_are_left_out_with_a_warning(run, recipe, caplog):
    """Also a line that is JSON, but no row: the run goes on, and says which line."""
    file = run / "metrics.jsonl"
    whole = file.read_text().splitlines()
    bad = ['{"stop": 1}', "3", "{", "[" * 100_000, '{"step": "1"}', "\udcff"]
    file.write_bytes("\n".join([*bad, *whole, '{"step": 2, "lo']).encode("utf8", "surrogatepass"))
    assert [row["step"] for row in MetricsFile(run).rows()] == [json.loads(line)["step"] for line in whole]
    assert [record.getMessage() for record in caplog.records] == [
        f"{file}:{number}: not a row of metrics; it is left out" for number in range(1, 7)
    ]
    assert resume(run).step == 2
