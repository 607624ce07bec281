"""The command line from data to pictures, on a COCO-format folder made here: what works, and what is refused."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from attrs import frozen
from PIL import Image, ImageChops, ImageDraw
from safetensors.torch import save_file

from det_core.cli.main import run
from det_core.engine.checkpoint import last_checkpoint, read_weights, weights_file
from det_core.errors import DetError

TWO = {3: "circle", 17: "box"}
THREE = {1: "disc", 4: "square", 9: "stripe"}
SIZES = {
    "train": {11: (120, 80), 12: (80, 120), 13: (96, 96), 14: (140, 60), 15: (100, 90)},
    "val": {21: (90, 110), 22: (128, 64), 23: (100, 100)},
}
EMPTY = 14
STEPS = 3  # one batch of tall images, two of wide ones

SMALL = """
extends: faster-rcnn/r18-fpn-demo
detector:
  backbone: {stages: [1, 2, 3]}
  neck: {channels: 32}
  dense_head: {channels: 32}
  roi_head: {box_head: {fc_channels: 32}}
data:
  workers: 0
  train_transforms: [{type: resize, scales: [[96, 96]]}, {type: flip}]
  test_transforms: [{type: resize, scales: [[96, 96]]}]
schedule: {epochs: 1, learning_rate: {milestones: []}}
"""
STILL = ("--set", "optimizer.lr=1e-30")  # a step that moves no weight, to see where a run starts from
TINY_SAMPLE = tuple(
    word
    for setting in (
        "data.workers=0",
        "data.train_transforms=[{type: resize, scales: [[64, 64]]}]",
        "data.test_transforms=[{type: resize, scales: [[64, 64]]}]",
        "detector.backbone.stages=[1, 2, 3]",
    )
    for word in ("--set", setting)
)

Edit = Callable[[dict[str, Any]], None]


# A data set


def draw_set(root: Path, classes: dict[int, str], edit: dict[str, Edit] | None = None) -> Path:
    """A COCO-format folder: JPEGs of drawn shapes, one class after the other; `edit` spoils a split's annotations."""
    for split, sizes in SIZES.items():
        plain: dict[str, Any] = {
            "images": [{"id": i, "file_name": f"{i}.jpg", "width": w, "height": h} for i, (w, h) in sizes.items()],
            "categories": [{"id": i, "name": name} for i, name in classes.items()],
            "annotations": [],
        }
        folder = root / "images" / split
        folder.mkdir(parents=True)
        for number, size in sizes.items():
            boxes = [] if number == EMPTY else draw_image(folder / f"{number}.jpg", size, len(classes))
            if number == EMPTY:
                draw_image(folder / f"{number}.jpg", size, 0)
            for (x1, y1, x2, y2), category in zip(boxes, classes, strict=False):
                plain["annotations"].append(
                    {
                        "id": len(plain["annotations"]) + 1,
                        "image_id": number,
                        "category_id": category,
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "area": (x2 - x1) * (y2 - y1),
                        "iscrowd": 0,
                    }
                )
        (edit or {}).get(split, lambda plain: None)(plain)
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(plain), encoding="utf8")
    return root


def draw_image(file: Path, size: tuple[int, int], count: int) -> list[tuple[int, int, int, int]]:
    """`count` shapes side by side on grey: a circle, a box, another box ...; their boxes."""
    width, height = size
    image = Image.new("RGB", size, (120, 120, 120))
    pen = ImageDraw.Draw(image)
    boxes = []
    for i in range(count):
        x1, y1 = 4 + i * (width - 8) // count, 8 + 4 * i
        box = (x1, y1, x1 + (width - 8) // count - 6, height - 10 - 2 * i)
        (pen.rectangle if i else pen.ellipse)(box, fill=(240, 60 * i, 40))
        boxes.append(box)
    image.save(file, quality=90)
    return boxes


# The command line


@frozen
class Outcome:
    """What a command returned and printed."""

    status: int
    out: str
    err: str


def det_core(*arguments: object) -> Outcome:
    """The command line, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = run([str(a) for a in arguments])
    return Outcome(status, out.getvalue(), err.getvalue())


def works(*arguments: object) -> str:
    """What a command prints that succeeds."""
    outcome = det_core(*arguments)
    assert outcome.status == 0, outcome
    return outcome.out


def refused(*arguments: object, status: int = 1) -> str:
    """The message of a command that fails: on stderr, without a traceback."""
    outcome = det_core(*arguments)
    assert outcome.status == status, outcome
    assert outcome.err.startswith("error: " if status == 1 else "Usage: "), outcome
    assert "Traceback" not in outcome.out + outcome.err
    return outcome.err


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, ids with gaps, one image without objects, no image of the size of another."""
    return draw_set(tmp_path_factory.mktemp("data") / "shapes", TWO)


@pytest.fixture(scope="module")
def other_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_set(tmp_path_factory.mktemp("data") / "more-shapes", THREE)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("config") / "my.yaml"
    file.write_text(SMALL, encoding="utf8")
    return file


@pytest.fixture(scope="module")
def trained(config: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The run folder of an epoch on the folder, and what training printed."""
    run_folder = tmp_path_factory.mktemp("runs") / "my"
    return run_folder, works(
        "train", "--config", config, "--data", folder, "--work-dir", run_folder, "--device", "cpu", "--log-every", 1
    )


@pytest.fixture(scope="module")
def run_folder(trained: tuple[Path, str]) -> Path:
    return trained[0]


def train(config: Path, data: Path, work_dir: Path, *more: object) -> tuple[object, ...]:
    """Arguments of one step of training."""
    return (
        "train", "--config", config, "--data", data, "--work-dir", work_dir, "--device", "cpu", "--max-steps", 1, *more
    )  # fmt: skip


def last_weights(run_folder: Path) -> dict[str, torch.Tensor]:
    last = last_checkpoint(run_folder)
    assert last is not None
    return read_weights(last / "model.safetensors")


# Training, testing, predicting


def test_training_says_what_it_does(trained: tuple[Path, str], folder: Path) -> None:
    run_folder, out = trained
    assert "recipe my: " in out
    assert "2 classes" in out
    assert str(folder) in out
    assert f"finished after step {STEPS} of {STEPS}: {run_folder}" in out
    last = out.splitlines()[-1]
    assert re.fullmatch(
        rf"best box_ap [\d.]+ % after step {STEPS}: step-{STEPS:07}; next: det-core analyze --checkpoint {run_folder}",
        last,
    ), last


def test_the_run_folder_holds_everything(run_folder: Path, folder: Path) -> None:
    recipe = (run_folder / "recipe.yaml").read_text(encoding="utf8")
    assert recipe.startswith("name: my\n")
    assert f"root: {folder}" in recipe
    rows = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text(encoding="utf8").splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 3]
    for row in rows[:STEPS]:
        assert all(math.isfinite(row[f"loss/{name}"]) for name in ("rpn_cls", "rpn_box", "roi_cls", "roi_box", "total"))
    assert 0 <= rows[-1]["box_ap"] <= 1
    assert {f"box_ap/{name}" for name in TWO.values()} <= set(rows[-1])
    assert sorted(p.name for p in (run_folder / "checkpoints").glob("step-*")) == [f"step-{STEPS:07}"]
    assert sorted(p.name for p in (run_folder / "pictures").iterdir()) == ["21.png", "22.png", "23.png"]
    assert len(list((run_folder / "tensorboard").iterdir())) == 1
    with Image.open(run_folder / "curves.png") as curves:
        assert min(curves.size) > 100


def test_testing_prints_a_table_and_writes_json(run_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "metrics.json"
    out = works("test", "--checkpoint", run_folder, "--json", file, "--device", "cpu", "--set", "data.workers=0")
    assert f"(step {STEPS}) on 3 images" in out
    plain = json.loads(file.read_text(encoding="utf8"))
    assert set(plain["per_class"]) == set(TWO.values())
    assert 0 <= plain["metrics"]["box_ap"] <= 1
    assert plain["metrics"]["box_ap_large"] is None  # no object is that large: not a number, which JSON has no word for
    assert all(word in out for word in ("AP50", "AP75", *TWO.values())), out


def test_testing_gives_what_training_measured(run_folder: Path, tmp_path: Path) -> None:
    row = json.loads((run_folder / "metrics.jsonl").read_text(encoding="utf8").splitlines()[-1])
    file = tmp_path / "metrics.json"
    works("test", "--checkpoint", run_folder, "--json", file, "--device", "cpu", "--set", "data.workers=0")
    plain = json.loads(file.read_text(encoding="utf8"))
    assert plain["metrics"] == {k: v for k, v in row.items() if k not in ("step", "evaluated") and "/" not in k}
    by_class = {f"{metric}/{name}": v for name, values in plain["per_class"].items() for metric, v in values.items()}
    assert by_class == {k: v for k, v in row.items() if "/" in k}


def test_predictions_are_pictures_and_json(run_folder: Path, folder: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        shutil.copy(folder / "images" / "val" / "22.jpg", tmp_path / name / "same.jpg")
    out, given = tmp_path / "out", (tmp_path / "one", tmp_path / "two" / "same.jpg", folder / "images" / "train")
    predict = ("predict", "--checkpoint", run_folder, "--out", out, "--device", "cpu", "--batch-size", 2)
    works(*predict, "--threshold", 0.1, *given)
    lines = (out / "predictions.jsonl").read_text(encoding="utf8").splitlines()
    records = [json.loads(line) for line in lines]
    assert sorted(record["file"] for record in records) == sorted(
        [
            str(tmp_path / "one" / "same.jpg"),
            str(tmp_path / "two" / "same.jpg"),
            *(str(folder / "images" / "train" / f"{i}.jpg") for i in sorted(SIZES["train"])),
        ]
    )
    pictures = [record["picture"] for record in records]
    assert len(set(pictures)) == len(records)
    one, two = (record["detections"] for record in records if record["file"].endswith("same.jpg"))
    assert one == two
    assert any(record["detections"] for record in records)
    for record in records:
        with Image.open(record["file"]) as image, Image.open(out / record["picture"]) as picture:
            width, height = image.size
            enlarged = picture.width // width  # small images are drawn larger
            assert picture.size == (enlarged * width, enlarged * height)
        for found in record["detections"]:
            x1, y1, x2, y2 = found["box"]
            assert 0 <= x1 <= x2 <= width
            assert 0 <= y1 <= y2 <= height
            assert 0 <= found["score"] <= 1
            assert found["class"] == list(TWO.values())[found["label"]]


def test_views_and_limits_of_detections(run_folder: Path, folder: Path, tmp_path: Path) -> None:
    image = folder / "images" / "val" / "22.jpg"

    def detections(*options: object) -> list[dict]:
        out = ("--out", tmp_path / "out", "--overwrite")
        works("predict", "--checkpoint", run_folder, *out, "--device", "cpu", *options, image)
        return json.loads((tmp_path / "out" / "predictions.jsonl").read_text(encoding="utf8"))["detections"]

    plain = detections("--score-threshold", 0)
    assert detections("--score-threshold", 0, "--max-detections", 2) == plain[:2]
    threshold = plain[2]["score"]
    assert detections("--score-threshold", threshold) == plain[:2]
    views = detections("--score-threshold", 0, "--flip", "--scale", "64x64", "--scale", "96x64")
    assert views != plain
    assert 0 < len(views) <= 100
    assert [d["score"] for d in views] == sorted((d["score"] for d in views), reverse=True)
    tested = ("test", "--checkpoint", run_folder, "--device", "cpu", "--set", "data.workers=0", "--flip")
    assert "AP50" in works(*tested, "--scale", "64x64", "--max-detections", 10)


@pytest.mark.parametrize("scale", ["64", "64x96", "axb", "0x0"])
def test_a_scale_that_is_none(run_folder: Path, folder: Path, scale: str) -> None:
    out = refused("predict", "--checkpoint", run_folder, "--scale", scale, folder / "images" / "val" / "22.jpg")
    assert f"--scale {scale}: expected LONGxSHORT in pixels, the long edge first, such as 1333x800" in out


def test_proposals_are_objects_of_no_class(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "rpn.yaml"
    text = SMALL.replace("faster-rcnn/", "rpn/").replace("  roi_head: {box_head: {fc_channels: 32}}\n", "")
    file.write_text(text, encoding="utf8")
    works(*train(file, folder, tmp_path / "run"))
    works("test", "--checkpoint", tmp_path / "run", "--json", tmp_path / "metrics.json", "--device", "cpu")
    assert 0 <= json.loads((tmp_path / "metrics.json").read_text(encoding="utf8"))["metrics"]["ar1000"] <= 1
    image = folder / "images" / "val" / "21.jpg"
    works("predict", "--checkpoint", tmp_path / "run", "--device", "cpu", "--out", tmp_path / "out", image)
    record = json.loads((tmp_path / "out" / "predictions.jsonl").read_text(encoding="utf8"))
    assert {found["class"] for found in record["detections"]} == {"object"}
    out = refused("predict", "--checkpoint", tmp_path / "run", "--score-threshold", 0.5, image)
    assert "--score-threshold: dense_head 'rpn' of this checkpoint has no score_threshold; remove the option" in out


# Fine-tuning


def test_other_classes_leave_only_the_last_layers_fresh(
    run_folder: Path, config: Path, other_classes: Path, tmp_path: Path
) -> None:
    out = works(*train(config, other_classes, tmp_path / "run", "--init", run_folder, *STILL))
    assert "3 classes" in out
    line = next(line for line in out.splitlines() if line.startswith("re-initialised"))
    fresh = {f"roi_head.box_head.{layer}.{part}" for layer in ("scores", "deltas") for part in ("weight", "bias")}
    assert set(line.partition(": ")[2].split(", ")) == fresh
    before, after = read_weights(weights_file(run_folder)), last_weights(tmp_path / "run")
    assert before.keys() == after.keys()
    assert f"init: {len(before) - len(fresh)} tensors from {run_folder}" in out
    for name, value in after.items():
        if name in fresh:
            assert value.shape != before[name].shape
        else:
            assert torch.allclose(value, before[name], rtol=0, atol=1e-20), name
    assert sum(name.startswith("backbone.") for name in after) > 30


def test_equal_classes_take_everything(run_folder: Path, config: Path, folder: Path, tmp_path: Path) -> None:
    out = works(*train(config, folder, tmp_path / "run", "--init", run_folder, *STILL))
    before, after = read_weights(weights_file(run_folder)), last_weights(tmp_path / "run")
    assert f"init: {len(before)} tensors from {run_folder}" in out
    assert "re-initialised" not in out
    assert before.keys() == after.keys()
    assert all(torch.allclose(value, before[name], rtol=0, atol=1e-20) for name, value in after.items())


def test_weights_of_another_model_are_refused(run_folder: Path, config: Path, folder: Path, tmp_path: Path) -> None:
    other = ("--init", run_folder, "--set", "detector.neck.channels=48")
    message = refused(*train(config, folder, tmp_path / "run", *other))
    assert "does not fit this detector (recipe my):" in message
    assert "shapes differ: neck." in message


# Starting and going on


def test_a_plugin_without_data_trains_on_the_bundled_sample(tmp_path: Path) -> None:
    out = works(
        "train", "--plugin", "rcnn", "--max-steps", 1, "--work-dir", tmp_path / "run", "--device", "cpu", *TINY_SAMPLE
    )
    first, *rest = out.splitlines()
    assert first == ("--plugin rcnn: recipe mask-rcnn/r18-fpn-demo on the bundled sample, because no --data was given")
    assert re.fullmatch(rf"stopped after step 1 of \d+: {tmp_path / 'run'}", rest[-2])
    assert rest[-1] == f"continue: det-core train --resume --work-dir {tmp_path / 'run'}"


def test_a_run_goes_on_where_it_left_off(config: Path, folder: Path, tmp_path: Path) -> None:
    works(*train(config, folder, tmp_path / "run"))
    out = works("train", "--resume", "--work-dir", tmp_path / "run", "--device", "cpu", "--max-steps", 2)
    assert "resumed at step 1" in out
    assert f"stopped after step 2 of {STEPS}" in out
    again = ("train", "--resume", "--work-dir", tmp_path / "run", "--device", "cpu")
    assert "was trained with another recipe (differs in: data.on_bad_sample)" in refused(
        *again, "--on-bad-sample", "skip"
    )


def test_resuming_what_has_not_begun(config: Path, folder: Path, tmp_path: Path) -> None:
    assert "give its --work-dir, or the recipe that it trains" in refused("train", "--resume")
    message = refused("train", "--resume", "--work-dir", tmp_path / "none")
    assert f"{tmp_path / 'none' / 'recipe.yaml'}: no such file, so there is no run to resume" in message
    out = works(*train(config, folder, tmp_path / "run", "--resume"))
    assert f"nothing to resume in {tmp_path / 'run'}: starting from the beginning" in out


def test_a_run_folder_in_use_is_refused(run_folder: Path, config: Path, folder: Path) -> None:
    before = (run_folder / "metrics.jsonl").read_bytes()
    message = refused(*train(config, folder, run_folder))
    assert f"{run_folder} already holds a run (last checkpoint step-{STEPS:07}); continue it with --resume" in message
    assert (run_folder / "metrics.jsonl").read_bytes() == before


# What the command line refuses


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no recipe was given; for example"),
        (("--plugin", "rcnn", "--config", "my.yaml"), "found --plugin and --config: give one of"),
        (("--plugin", "rcnnn"), "no plugin 'rcnnn' is installed; did you mean \"rcnn\"?"),
        (("--recipe", "faster-rcnn/r18-fpn"), 'did you mean "faster-rcnn/r18-fpn-demo"'),
        (("--config", "no-such.yaml"), "no-such.yaml: no such file"),
        (("--plugin", "rcnn", "--set", "schedule.epoch=1"), 'schedule.epoch: unknown key; did you mean "epochs"?'),
        (("--plugin", "rcnn", "--device", "gpu"), "unknown device 'gpu'; allowed: cpu, cuda, cuda:N, mps"),
        (("--recipe", "faster-rcnn/r18-fpn-demo", "--data", "no-such"), "/no-such: does not exist; `--data`"),
        (("--recipe", "faster-rcnn/r50-fpn-1x"), "no data folder was given: pass `--data ROOT`"),
        (("--plugin", "rcnn", "--init", "no-such"), "no-such: no such file or folder"),
    ],
)
def test_training_that_cannot_begin(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    assert message in refused("train", *arguments, "--work-dir", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("trian",), "no command 'trian'; did you mean \"train\"?"),
        (("train", "--plugn", "rcnn"), "--plugin"),
        (("train", "--max-steps", "0"), "0 is not in the range x>=1"),
        (("predict", "--checkpoint", "x"), "Missing argument 'IMAGES...'"),
        (("predict", "--checkpoint", "x", "--threshold", "2", "y"), "2.0 is not in the range 0<=x<=1"),
        (("test",), "Missing option '--checkpoint'"),
    ],
)
def test_a_command_of_the_wrong_form(arguments: tuple[str, ...], message: str) -> None:
    assert message in refused(*arguments, status=2)


@pytest.fixture(scope="module")
def broken(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of things that are not checkpoints."""
    folder = tmp_path_factory.mktemp("broken")
    whole = weights_file(run_folder).read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.safetensors").write_bytes(b"")
    (folder / "text.safetensors").write_text("weights, honestly\n", encoding="utf8")
    (folder / "folder").mkdir()
    save_file({"weight": torch.zeros(1)}, folder / "foreign.safetensors")
    return folder


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cut.safetensors", "not a readable safetensors file"),
        ("empty.safetensors", "not a readable safetensors file"),
        ("text.safetensors", "not a readable safetensors file"),
        ("foreign.safetensors", "contains no recipe; import weights of another project first"),
        ("folder", "contains no checkpoint; give a .safetensors file"),
        ("absent", "no such file or folder"),
    ],
)
@pytest.mark.parametrize("verb", ["train", "test", "predict"])
def test_what_is_not_a_checkpoint(
    verb: str, name: str, message: str, broken: Path, config: Path, folder: Path, tmp_path: Path
) -> None:
    image = folder / "images" / "val" / "21.jpg"
    commands: dict[str, tuple[object, ...]] = {
        "train": train(config, folder, tmp_path / "run", "--init", broken / name),
        "test": ("test", "--checkpoint", broken / name, "--device", "cpu"),
        "predict": ("predict", "--checkpoint", broken / name, "--device", "cpu", "--out", tmp_path / "out", image),
    }
    assert f"{broken / name}: {message}" in refused(*commands[verb])
    assert not list(tmp_path.iterdir())


def test_data_of_other_classes(run_folder: Path, other_classes: Path, folder: Path, tmp_path: Path) -> None:
    test = ("test", "--checkpoint", run_folder, "--device", "cpu", "--set", "data.workers=0", "--data")
    message = refused(*test, other_classes)
    assert "the detector has 2 classes (circle, box), but " in message
    assert "has 3 (disc, square, stripe); evaluate on data with the detector's classes" in message
    renamed = draw_set(tmp_path / "renamed", {3: "circle", 17: "square"})
    message = refused(*test, renamed)
    assert "the detector was trained on classes circle, box, but " in message


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.jpg", "no such file or folder"),
        ("nothing", "in this folder and below it there are no images"),
        ("text.jpg", "not a readable image"),
        ("cut.jpg", "the image cannot be decoded"),
    ],
)
def test_what_is_not_an_image(name: str, message: str, run_folder: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    (tmp_path / "text.jpg").write_text("not pixels", encoding="utf8")
    (tmp_path / "cut.jpg").write_bytes((folder / "images" / "val" / "21.jpg").read_bytes()[:700])
    predict = ("predict", "--checkpoint", run_folder, "--device", "cpu", "--out", tmp_path / "out", tmp_path / name)
    assert f"{tmp_path / name}: {message}" in refused(*predict)


def test_debug_shows_the_traceback() -> None:
    with pytest.raises(DetError, match="no recipe was given"):
        det_core("--debug", "train")
    for debug in ((), ("--debug",)):
        command = [sys.executable, "-m", "det_core", *debug, "train"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "80"})
        assert done.returncode == 1
        assert ("Traceback" in done.stderr) is bool(debug)
        assert "no recipe was given; for example" in done.stderr


# Bad data


def boxes_outside(plain: dict[str, Any]) -> None:
    """Annotation 1 leaves its image, annotation 2 has no area."""
    plain["annotations"][0]["bbox"] = [100, 10, 60, 20]
    plain["annotations"][1]["bbox"][2] = 0


@pytest.fixture(scope="module")
def bad_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two bad boxes and a missing image among the training data."""
    root = draw_set(tmp_path_factory.mktemp("data") / "bad", TWO, {"train": boxes_outside})
    (root / "images" / "train" / "13.jpg").unlink()
    return root


BAD_LINES = (
    "annotations[0] id 1: image id 11 (11.jpg): box [100, 10, 60, 20] (x, y, width, height) reaches outside",
    "annotations[1] id 2: image id 11 (11.jpg): box ",
    "13.jpg: image id 13: the image file does not exist",
)


def joined(text: str) -> str:
    """Text without its white space: the report folds long lines."""
    return "".join(text.split())


def lists_what_is_bad(text: str) -> bool:
    return all(joined(line) in joined(text) for line in BAD_LINES)


def test_bad_data_is_refused_with_file_and_id(config: Path, bad_folder: Path, tmp_path: Path) -> None:
    message = refused(*train(config, bad_folder, tmp_path / "run"))
    assert "3 bad samples" in message
    assert lists_what_is_bad(message), message
    assert "skip them with `--on-bad-sample skip`" in message
    assert not (tmp_path / "run").exists()


def test_bad_data_can_be_left_out_and_is_listed(config: Path, bad_folder: Path, tmp_path: Path) -> None:
    out = works(*train(config, bad_folder, tmp_path / "run", "--on-bad-sample", "skip"))
    assert "stopped after step 1 of 2: " in out  # four images are left, in batches of two
    lines = [line for line in out.splitlines() if line.startswith("left out: ")]
    assert len(lines) == 3
    assert lists_what_is_bad("\n".join(lines))


@pytest.mark.parametrize("plugin", ["resnet", "fpn", "det-plugin-fpn"])
def test_a_plugin_of_parts_trains_a_recipe_that_uses_them(plugin: str, tmp_path: Path) -> None:
    out = works("train", "--plugin", plugin, "--work-dir", tmp_path / "run", "--device", "cpu", "--max-steps", "1")
    told = rf"--plugin {plugin}: recipe \S+-demo of det-plugin-\w+ 0\.1\.0, which uses it, on the bundled sample"
    assert re.search(told, out)


def test_images_that_settings_leave_out_are_counted(config: Path, folder: Path, tmp_path: Path) -> None:
    out = works(
        *train(config, folder, tmp_path / "run", "--set", "data.train={type: coco, split: train, filter_empty: true}")
    )
    assert "instances_train.json: 1 images left out by filter_empty and min_size" in out


def test_a_truncated_image_shows_itself_when_it_is_read(config: Path, tmp_path: Path) -> None:
    root = draw_set(tmp_path / "data", TWO)
    image = root / "images" / "train" / "11.jpg"
    image.write_bytes(image.read_bytes()[:700])
    message = refused("train", "--config", config, "--data", root, "--work-dir", tmp_path / "run", "--device", "cpu")
    assert f"{image}: image id 11: the image cannot be decoded" in message


def test_a_truncated_image_can_be_left_out_and_is_listed_once(config: Path, tmp_path: Path) -> None:
    root = draw_set(tmp_path / "data", TWO)
    image = root / "images" / "train" / "11.jpg"
    image.write_bytes(image.read_bytes()[:700])
    run_folder = tmp_path / "run"
    out = works(
        "train",
        "--config",
        config,
        "--data",
        root,
        "--work-dir",
        run_folder,
        "--device",
        "cpu",
        "--on-bad-sample",
        "skip",
    )
    assert out.count(f"left out: {image}: image id 11: the image cannot be decoded") == 1


def test_masks_that_are_not_there_are_refused_before_training(folder: Path, tmp_path: Path) -> None:
    message = refused(
        "train",
        "--recipe",
        "mask-rcnn/r18-fpn-demo",
        "--data",
        folder,
        "--work-dir",
        tmp_path / "run",
        "--device",
        "cpu",
    )
    assert message == (
        f"error: {folder}/annotations/instances_train.json: masks are required, but no annotation has one "
        "(`segmentation`); recipe mask-rcnn/r18-fpn-demo trains on masks or measures them; take "
        "faster-rcnn/r18-fpn-demo, the same model without masks\n"
    )
    assert not (tmp_path / "run").exists()


def test_splits_of_other_categories_are_refused(config: Path, tmp_path: Path) -> None:
    def rename(plain: dict[str, Any]) -> None:
        plain["categories"][1]["name"] = "square"

    root = draw_set(tmp_path / "data", TWO, {"val": rename})
    message = refused(*train(config, root, tmp_path / "run"))
    assert "do not have the same categories:" in message
    assert "id 17: 'box' in " in message
    assert "but 'square' in " in message


# The report on data


def test_the_report_on_good_data(folder: Path) -> None:
    out = works("data", "--data", folder, "--read-images")
    assert out.count("No problems found.") == 2
    for words in (*TWO.values(), "5 images of 80x60 to 140x120 pixels, 1 without objects", "8 objects"):
        assert words in out


def test_the_report_as_json(folder: Path) -> None:
    recipe = ("--recipe", "faster-rcnn/r18-fpn-demo", "--set", "detector.dense_head.anchors.scales=[8.0]")
    plain = json.loads(works("data", "--data", folder, *recipe, "--json"))
    assert (plain["train"]["images"], plain["val"]["images"]) == (5, 3)
    assert plain["train"]["empty_images"] == 1
    assert {c["id"]: (c["name"], c["objects"]) for c in plain["train"]["classes"]} == {
        3: ("circle", 4),
        17: ("box", 4),
    }
    assert plain["train"]["anchors"]["smallest"] == pytest.approx(32)  # 8 times the finest stride
    assert plain["train"]["bad"] == plain["train"]["mismatch"] == []
    sides = ("--recipe", "faster-rcnn/r18-fpn-demo", "--set", "detector.dense_head.anchors.sides=[20.0, 50.0]")
    anchors = json.loads(works("data", "--data", folder, *sides, "--json"))["train"]["anchors"]
    assert (anchors["smallest"], anchors["largest"]) == (pytest.approx(20), pytest.approx(50))


def test_the_report_on_bad_data(tmp_path: Path) -> None:
    def rename(plain: dict[str, Any]) -> None:
        plain["categories"][0]["name"] = "ellipse"

    root = draw_set(tmp_path / "data", TWO, {"train": boxes_outside, "val": rename})
    (root / "images" / "train" / "13.jpg").unlink()
    outcome = det_core("data", "--data", root)
    assert outcome.status == 1
    assert "3 bad samples" in outcome.out
    assert lists_what_is_bad(outcome.out), outcome.out
    assert "Categories differ between the splits:" in outcome.out
    assert joined("id 3: 'circle' in ") in joined(outcome.out)
    outcome = det_core("data", "--data", root, "--json")
    plain = json.loads(outcome.out)
    assert outcome.status == 1
    assert [bad["id"] for bad in plain["train"]["bad"]] == [13, 1, 2]
    assert len(plain["train"]["mismatch"]) == 1
    assert plain["val"]["bad"] == []


def test_truncated_images_are_found_by_reading_them(tmp_path: Path) -> None:
    root = draw_set(tmp_path / "data", TWO)
    image = root / "images" / "val" / "22.jpg"
    image.write_bytes(image.read_bytes()[:700])
    assert det_core("data", "--data", root).status == 0
    outcome = det_core("data", "--data", root, "--read-images")
    assert outcome.status == 1
    assert joined("image id 22: the image cannot be decoded") in joined(outcome.out)


def test_browsing_draws_the_annotations(folder: Path, tmp_path: Path) -> None:
    out = works("data", "browse", "--data", folder, "--out", tmp_path / "pictures", "--count", 3)
    pictures = sorted((tmp_path / "pictures").iterdir())
    assert [p.name for p in pictures] == ["000000000011.png", "000000000013.png", "000000000015.png"]
    assert f"3 pictures in {tmp_path / 'pictures'}" in out
    with Image.open(pictures[0]) as picture, Image.open(folder / "images" / "train" / "11.jpg") as image:
        assert picture.size == (4 * image.width, 4 * image.height)  # small images are drawn larger
        enlarged = image.convert("RGB").resize(picture.size, Image.Resampling.NEAREST)
        assert ImageChops.difference(picture.convert("RGB"), enlarged).getbbox() is not None  # boxes and names


def test_browsing_takes_the_options_of_the_report_too(folder: Path, tmp_path: Path) -> None:
    options = ("data", "--data", folder, "browse", "--out", tmp_path / "pictures", "--split", "val", "--count", 1)
    assert "1 pictures in " in works(*options)
    assert [p.name for p in (tmp_path / "pictures").iterdir()] == ["000000000021.png"]


def test_the_report_says_what_it_measures_against(folder: Path) -> None:
    assert re.match(r"compared with the recipe \S+; use --recipe", det_core("data", "--data", folder).err)
    outcome = det_core("data", "--set", "detector.dense_head.anchors.scales=[64.0]")
    assert outcome.err == "the bundled sample, because neither --data nor a recipe was given\n"
    assert "Anchors of 256 to 4096 pixels" in outcome.out


def test_a_report_on_data_that_is_not_there(tmp_path: Path) -> None:
    recipe = ("--recipe", "faster-rcnn/r18-fpn-demo")
    message = refused("data", *recipe, "--data", tmp_path / "none")
    assert f"data folder {tmp_path / 'none'}: does not exist" in message
    assert "no annotation file for the train split; looked for" in refused("data", *recipe, "--data", tmp_path)
