"""`det-core predict`: what it takes, what it writes, and that neither bad images nor kills lose or repeat a result."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from attrs import evolve
from click.testing import CliRunner, Result
from PIL import Image

from det_core import Predictor, settings
from det_core.cli.main import cli
from det_core.data.image_list import ImageList, list_images
from det_core.engine.checkpoint import Header
from det_core.engine.share import Share, chosen_share
from det_core.errors import DetError

PIXELS = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos"
    (folder / "deep" / "er").mkdir(parents=True)
    for name in ("a", "b", "deep/c", "deep/er/a"):
        Image.fromarray(PIXELS).save(folder / f"{name}.png")
    return folder


def words(checkpoint: Path, *arguments: object) -> list[str]:
    return ["predict", "--checkpoint", str(checkpoint), "--device", "cpu", *map(str, arguments)]


def run(checkpoint: Path, *arguments: object) -> Result:
    return CliRunner().invoke(cli, words(checkpoint, *arguments))


def records_in(out: Path) -> list[dict]:
    return [json.loads(line) for file in sorted(out.glob("*.jsonl")) for line in file.read_text().splitlines()]


def files_in(out: Path) -> list[str]:
    return sorted(record["file"] for record in records_in(out))


# What is given


def coco(folder: Path, *names: str) -> Path:
    images = [{"id": 7 * n, "file_name": name, "height": 1, "width": 1} for n, name in enumerate(names, 1)]
    (folder / "some.json").write_text(json.dumps({"images": images, "annotations": [], "categories": []}))
    return folder / "some.json"


def test_every_kind_of_input(photos, tmp_path, monkeypatch):
    def named(*given: object, **options: object) -> list[str]:
        listed = list_images([str(g) for g in given], **options)
        assert all(Path(listed[i].path).is_file() for i in range(len(listed)))
        return [os.path.relpath(listed[i].path, photos) for i in range(len(listed))]

    everything = ["a.png", "b.png", "deep/c.png", "deep/er/a.png"]
    assert named(photos) == everything
    assert named(photos / "deep", photos) == everything[2:] + everything[:2]  # each once
    assert named(photos / "*.png") == everything[:2]
    assert named(photos / "**" / "a.png") == ["a.png", "deep/er/a.png"]
    (photos / "which.txt").write_text("deep/c.png\n\n  b.png  \n")
    assert named(photos / "which.txt") == ["deep/c.png", "b.png"]
    assert named(coco(photos, "b.png", "deep/c.png")) == ["b.png", "deep/c.png"]
    assert named(coco(tmp_path, "c.png"), image_root=str(photos / "deep")) == ["deep/c.png"]
    assert named(photos, leave_out=[photos / "deep" / "er"]) == everything[:3]
    monkeypatch.chdir(photos)
    assert list_images(["."])[0].path == "./a.png"
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "there").symlink_to(photos)
    (photos / "deep" / "back").symlink_to(tmp_path / "linked")  # circular
    assert named(tmp_path / "linked") == [f"../linked/there/{name}" for name in everything]


def test_names_of_results_are_safe_and_differ(photos):
    listed = list_images([str(photos), str(photos / "a.png"), str(coco(photos, "../x/../a/a.png", "C:\\b.jpg"))])
    names = [listed[i].name for i in range(len(listed))]
    assert names == ["a", "b", "deep/c", "deep/er/a", "x/a/a", "C_/b"]
    both = list_images([str(photos / "a.png"), str(photos / "deep" / "er")])
    one, other = both[0].name, both[1].name
    assert one != other
    assert one.startswith("a-")
    assert other.startswith("a-")
    assert [listed[i].image_id for i in (3, 4, 5)] == [None, 7, 14]
    assert "is outside the image folder" in listed[4].problem
    assert list_images([str(coco(photos, "../a.png"))], allow_outside=True)[0].problem == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("none.png", "none.png: no such file or folder"),
        ("*.gif", r"\*.gif: this pattern matches no images \(.bmp, "),
        ("empty", "empty: in this folder and below it there are no images"),
        ("empty.txt", "empty.txt: the list of images is empty; expected a path a line"),
        ("binary.txt", "binary.txt: .* is no path; expected a text file"),
        ("text.json", "text.json: not JSON"),
        ("other.json", "other.json: found a, b; expected a COCO file with a list `images`"),
        ("list.json", "list.json: found list; expected a COCO file"),
        ("id.json", r"id.json: images\[0\] has `file_name` 'a' and `id` None, expected a name and a whole number"),
    ],
)
def test_inputs_that_name_nothing(tmp_path, content, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    texts = {"empty.txt": "\n", "binary.txt": "a\0b", "text.json": "text", "other.json": '{"a": 1, "b": 2}'}
    texts |= {"list.json": "[1]", "id.json": '{"images": [{"file_name": "a"}]}'}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(DetError, match=message):
        list_images([content])


def test_names_that_are_no_text_survive(tiny_checkpoint, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    try:
        Image.fromarray(PIXELS).save(os.path.join(os.fsencode(folder), b"caf\xe9.png"))
    except OSError:
        pytest.skip("the file system takes only names that are text")
    assert run(tiny_checkpoint, folder, "--out", tmp_path / "out", "--pictures", "none").exit_code == 0
    (record,) = records_in(tmp_path / "out")
    assert os.fsencode(record["file"]).endswith(b"caf\xe9.png")


# What is written


def test_records_pictures_and_crops(tiny_checkpoint, photos, tmp_path):
    out = tmp_path / "out"
    options = ["--crops", "--threshold", 0.25, "--classes", "class 1"]
    done = run(tiny_checkpoint, photos, "--out", out, "--pictures", 2, *options)
    assert done.exit_code == 0, done.output
    records = {r["file"]: r for r in records_in(out)}
    expected = Predictor(tiny_checkpoint, classes=["class 1"])(PIXELS)
    assert len(records) == 4
    assert f"{4 * len(expected)} detections in 4 images -> {out}/predictions.jsonl" in done.output
    for record in records.values():
        assert (record["height"], record["width"]) == (60, 80)
        assert record["model"].startswith("faster-rcnn/r18-fpn-demo step 0 ")
        assert [d["box"] for d in record["detections"]] == expected.boxes.tolist()
        assert {d["class"] for d in record["detections"]} == {"class 1"}
    pictures = [r["picture"] for r in records.values() if "picture" in r]
    assert len(pictures) == 2
    assert all((out / picture).is_file() for picture in pictures)
    crops = sorted((out / "crops").rglob("*.png"))
    kept = int((expected.scores >= 0.25).sum())
    assert len(crops) == 4 * kept > 0
    assert {crop.relative_to(out / "crops").parts[0] for crop in crops} == {"class 1"}
    x1, y1, x2, y2 = expected.boxes[0].tolist()
    with Image.open(out / "crops" / "class 1" / "deep" / "c-1.png") as crop:
        assert crop.size == (-int(-x2 // 1) - int(x1), -int(-y2 // 1) - int(y1))


@pytest.mark.parametrize(("option", "count"), [("none", 0), ("all", 4), ("3", 3)])
def test_how_many_pictures(tiny_checkpoint, photos, tmp_path, option, count):
    assert run(tiny_checkpoint, photos, "--out", tmp_path / "out", "--pictures", option).exit_code == 0
    assert len(list((tmp_path / "out").rglob("*.png"))) == count


def test_a_number_of_pictures_that_is_none(tiny_checkpoint, photos):
    done = run(tiny_checkpoint, photos, "--pictures", "few")
    assert "found 'few', expected a number, none or all" in done.output


@pytest.mark.parametrize("kind", ["files", "coco"])
def test_results_in_cocos_format(tiny_checkpoint, photos, tmp_path, kind):
    out = tmp_path / "out"
    given = [photos / "deep", photos / "a.png"] if kind == "files" else [coco(photos, "b.png", "gone.png", "a.png")]
    done = run(tiny_checkpoint, *given, "--out", out, "--format", "coco", "--pictures", "none")
    assert done.exit_code == (0 if kind == "files" else 1)
    results, described = (json.loads((out / f"{name}.json").read_text()) for name in ("predictions", "images"))
    found = Predictor(tiny_checkpoint)(PIXELS)
    ids = [1, 2, 3] if kind == "files" else [7, 21]
    assert sorted(image["id"] for image in described["images"]) == ids
    assert [c["name"] for c in described["categories"]] == ["class 0", "class 1", "class 2"]
    for number in ids:
        assert [r for r in results if r["image_id"] == number] == found.to_coco(number)


def test_an_empty_list_of_results_is_json(tiny_checkpoint, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"")
    out = tmp_path / "out"
    assert run(tiny_checkpoint, tmp_path / "bad.png", "--out", out, "--format", "coco").exit_code == 1
    assert json.loads((out / "predictions.json").read_text()) == []
    assert json.loads((out / "images.json").read_text())["images"] == []


# Bad images, bad folders


def test_a_bad_image_costs_one_result(tiny_checkpoint, photos, tmp_path):
    (photos / "b.png").write_bytes(b"")
    os.mkfifo(photos / "e.png")
    out = tmp_path / "out"
    done = run(tiny_checkpoint, photos, "--out", out, "--batch-size", 2)
    assert done.exit_code == 1
    assert f"{photos / 'b.png'}: not a readable image (the file is empty)" in done.output
    records = {Path(r["file"]).name: r for r in records_in(out)}
    assert {name for name, record in records.items() if "error" in record} == {"b.png", "e.png"}
    assert records["a.png"]["detections"]
    assert len(files_in(out)) == 5
    assert f"error: 2 of 5 images cannot be read; {out}/predictions.jsonl says why" in done.output
    again = run(tiny_checkpoint, photos, "--out", out, "--resume")
    assert again.exit_code == 1
    assert "2 of 5 images cannot be read" in again.output
    assert len(files_in(out)) == 5


def test_only_the_first_bad_images_are_told(tiny_checkpoint, tmp_path):
    for number in range(20):
        (tmp_path / f"{number}.png").write_bytes(b"")
    done = run(tiny_checkpoint, tmp_path, "--out", tmp_path / "out")
    assert done.output.count("not a readable image") == 10
    assert "20 of 20 images cannot be read" in done.output


def test_a_bad_image_may_stop_the_run(tiny_checkpoint, photos, tmp_path):
    (photos / "b.png").write_bytes(b"")
    out = tmp_path / "out"
    done = run(tiny_checkpoint, photos, "--out", out, "--on-bad-sample", "error")
    assert done.exit_code == 1
    expected = f"error: {photos / 'b.png'}: not a readable image (the file is empty)"
    assert expected in done.output
    assert "without --on-bad-sample error it is recorded and left out" in done.output


def test_a_folder_with_results_is_left_alone(tiny_checkpoint, photos, tmp_path):
    out, both = tmp_path / "out", ["--resume", "--overwrite"]
    assert run(tiny_checkpoint, photos / "a.png", "--out", out).exit_code == 0
    before = (out / "predictions.jsonl").read_bytes()
    done = run(tiny_checkpoint, photos, "--out", out)
    assert f"{out} has the results of an earlier run; go on with it with --resume, replace it" in done.output
    assert "found --resume and --overwrite: give one of them" in run(tiny_checkpoint, photos, *both).output
    done = run(tiny_checkpoint, photos, "--out", out, "--resume", "--score-threshold", 0.5, "--tile", 64)
    assert f"{out} was begun otherwise: score_threshold was None, now it is 0.5; tile was None, now it" in done.output
    assert (out / "predictions.jsonl").read_bytes() == before
    assert run(tiny_checkpoint, photos, "--out", out, "--resume").exit_code == 0  # other images are new ones
    assert len(files_in(out)) == 4
    assert (out / "predictions.jsonl").read_bytes().startswith(before)
    assert run(tiny_checkpoint, photos / "b.png", "--out", out, "--overwrite", "--classes", "class 1").exit_code == 0
    assert files_in(out) == [str(photos / "b.png")]
    (out / "run.json").write_text("{}")
    assert "run.json: damaged (KeyError" in run(tiny_checkpoint, photos, "--out", out, "--resume").output
    (out / "run.json").unlink()
    assert f"{out} has results, but no run.json" in run(tiny_checkpoint, photos, "--out", out, "--resume").output


def test_another_model_is_noticed(tiny_checkpoint, make_tiny_checkpoint, photos, tmp_path):
    out = tmp_path / "out"
    assert run(tiny_checkpoint, photos / "a.png", "--out", out).exit_code == 0
    other = make_tiny_checkpoint("faster-rcnn/r18-fpn-demo", "detector.neck.channels=16")
    done = run(other, photos, "--out", out, "--resume")
    assert "was begun otherwise: the model was faster-rcnn/r18-fpn-demo step 0 " in done.output


def test_a_damaged_line_is_named(tiny_checkpoint, photos, tmp_path):
    out = tmp_path / "out"
    assert run(tiny_checkpoint, photos, "--out", out).exit_code == 0
    lines = (out / "predictions.jsonl").read_text().splitlines(keepends=True)
    (out / "predictions.jsonl").write_text("".join([lines[0], "none\n", *lines[2:]]))
    done = run(tiny_checkpoint, photos, "--out", out, "--resume")
    assert f"{out}/predictions.jsonl:2: not a record of predictions; remove the line" in done.output


def test_two_processes_do_not_write_one_file(tiny_checkpoint, photos, tmp_path):
    from det_core.engine.result_log import ResultLog

    out = tmp_path / "out"
    assert run(tiny_checkpoint, photos / "a.png", "--out", out).exit_code == 0
    holder = ResultLog(out / "predictions.jsonl")
    try:
        done = run(tiny_checkpoint, photos, "--out", out, "--resume")
    finally:
        holder.close()
    assert f"{out}/predictions.jsonl is in use by another process" in done.output


def test_inputs_are_not_overwritten(tiny_checkpoint, photos, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(photos, out / "pictures")
    for given in (out / "pictures", out / "pictures" / "deep"):
        done = run(tiny_checkpoint, given, "--out", out)
        assert "could be overwritten by" in done.output
        assert "choose another --out" in done.output
    assert (out / "pictures" / "a.png").read_bytes() == (photos / "a.png").read_bytes()


def test_results_among_the_images_are_no_images(tiny_checkpoint, photos):
    for options in ([], ["--resume"], ["--overwrite"]):
        assert run(tiny_checkpoint, photos, "--out", photos / "found", *options).exit_code == 0
        assert len(files_in(photos / "found")) == 4


def test_links_lead_nowhere_else(tiny_checkpoint, photos, tmp_path):
    out, elsewhere, precious = tmp_path / "out", tmp_path / "elsewhere", tmp_path / "precious.txt"
    elsewhere.mkdir()
    precious.write_text("mine")
    (out / "pictures").mkdir(parents=True)
    (out / "pictures" / "a.png").symlink_to(precious)
    assert run(tiny_checkpoint, photos / "a.png", "--out", out).exit_code == 0
    assert precious.read_text() == "mine"
    assert not (out / "pictures" / "a.png").is_symlink()
    (out / "pictures" / "deep").symlink_to(elsewhere)
    done = run(tiny_checkpoint, photos, "--out", out, "--overwrite")
    assert f"--out: {out}/pictures/deep is outside of {out}, by a link; choose another --out" in done.output
    assert list(elsewhere.iterdir()) == []
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "predictions.jsonl").symlink_to(precious)
    assert run(tiny_checkpoint, photos, "--out", tmp_path / "other").exit_code == 1
    assert precious.read_text() == "mine"


def test_out_is_a_file(tiny_checkpoint, photos, tmp_path):
    (tmp_path / "out").write_text("mine")
    for out in (tmp_path / "out", tmp_path / "out" / "below"):
        done = run(tiny_checkpoint, photos, "--out", out)
        assert f"--out: {tmp_path / 'out'} is a file, expected a folder; choose another --out" in done.output
    assert (tmp_path / "out").read_text() == "mine"


def test_a_full_disk_keeps_what_was_found(tiny_checkpoint, photos, tmp_path, monkeypatch):
    from det_core.engine import result_log

    out, number = tmp_path / "out", 0

    def full(log: result_log.ResultLog) -> None:
        nonlocal number
        number += 1
        if number == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(result_log, "SECONDS_BETWEEN_SYNCS", -1)
    with monkeypatch.context() as context:
        context.setattr(result_log.ResultLog, "_sync", full)
        done = run(tiny_checkpoint, photos, "--out", out)
    expected = f"error: {out}/predictions.jsonl: cannot be written (No space left on device); what was found before"
    assert done.exit_code == 1
    assert expected in done.output
    assert len(files_in(out)) == 2
    assert run(tiny_checkpoint, photos, "--out", out, "--resume").exit_code == 0
    assert len(files_in(out)) == len(set(files_in(out))) == 4


# Loader processes


@pytest.fixture
def mixed(tmp_path) -> Path:
    """Ten images of three sizes, a file that is none, and one that is empty."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    for number in range(10):
        Image.fromarray(PIXELS[: 60 - 20 * (number % 3)]).save(folder / f"{number}.png")
    (folder / "3.png").write_bytes(b"no image")
    (folder / "a.jpg").write_bytes(b"")
    return folder


@pytest.mark.parametrize("options", [[], ["--batch-size", 3], ["--batch-size", 3, "--flip", "--scale", "96x64"]])
def test_loader_processes_change_nothing(tiny_checkpoint, mixed, tmp_path, options):
    results = []
    for workers in (0, 1, 2):
        out = tmp_path / "out"
        done = run(tiny_checkpoint, mixed, "--out", out, "--workers", workers, *options)
        assert done.exit_code == 1
        results.append((done.output, {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}))
        shutil.rmtree(out)
    assert results[0] == results[1] == results[2]
    lines = results[0][1][tmp_path / "out" / "predictions.jsonl"].decode().splitlines()
    bad = [Path(record["file"]).name for record in map(json.loads, lines) if "error" in record]
    assert sorted(bad) == ["3.png", "a.jpg"]
    assert len(lines) == 11
    assert len(results[0][1]) == 2 + 9


def test_images_of_like_size_are_detected_at_once(tiny_checkpoint, mixed):
    from det_core.engine.predict_files import predict_files

    predictor = Predictor(tiny_checkpoint, batch_size=3)
    seen: list[int] = []
    predictor.detector.backbone.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    listed = list_images([str(mixed)])
    batches = list(predict_files(predictor, listed, range(len(listed))))
    assert sorted(result.index for batch in batches for result in batch) == list(range(11))
    assert len(seen) <= 5  # nine images, of three sizes
    alone = Predictor(tiny_checkpoint)
    for result in (r for batch in batches for r in batch if r.detections is not None):
        assert torch.equal(result.detections.labels, alone(result.image.path).labels)


def test_few_images_start_no_processes(tiny_checkpoint, mixed, tmp_path, monkeypatch):
    from det_core.engine import checkpoint as checkpoints, prediction_run

    read, used = checkpoints.read_header, []

    def with_workers(file: Path) -> Header:
        header = read(file)
        data = settings.evolve(header.recipe.data, workers=3)
        return evolve(header, recipe=settings.evolve(header.recipe, data=data))

    def note(*_: object, workers: int, **__: object):
        used.append(workers)
        yield from ()

    monkeypatch.setattr(prediction_run, "predict_files", note)
    monkeypatch.setattr(checkpoints, "read_header", with_workers)
    for given in ([mixed], [mixed / "0.png"], [mixed / "0.png", "--workers", 1], [mixed, "--workers", 0]):
        assert run(tiny_checkpoint, *given, "--out", tmp_path / "out", "--overwrite").exit_code == 0
    assert used == [3, 0, 1, 0]  # 3: of the recipe


@pytest.mark.parametrize("workers", [0, 2])
def test_only_a_few_batches_are_in_memory(tiny_checkpoint, photos, monkeypatch, workers):
    from det_core.engine import predict_files as module

    read, counter = module.to_sample, multiprocessing.Value("i", 0)

    def counted(file: str, **settings: object):
        with counter.get_lock():
            counter.value += 1
        return read(file, **settings)

    monkeypatch.setattr(module, "to_sample", counted)
    listed = list_images([str(photos / "a.png")])
    batches = module.predict_files(Predictor(tiny_checkpoint, batch_size=2), listed, [0] * 40, workers=workers)
    for done in range(1, 4):
        assert len(next(batches)) == 2
        time.sleep(0.3)  # enough for the processes to read what they may
        assert counter.value <= 2 * (done + workers * module.AHEAD)
    batches.close()


def test_a_loader_process_that_ends_is_an_error(tiny_checkpoint, mixed, tmp_path, monkeypatch):
    from det_core.engine import predict_files as module

    read = module.to_sample

    def end(file: str, **settings: object):
        if file.endswith("5.png"):
            os.kill(os.getpid(), signal.SIGKILL)
        return read(file, **settings)

    monkeypatch.setattr(module, "to_sample", end)
    done = run(tiny_checkpoint, mixed, "--out", tmp_path / "out", "--workers", 2)
    assert done.exit_code == 1
    assert "a loader process has ended" in done.output
    assert "use fewer or none (--workers 0)" in done.output
    monkeypatch.setattr(module, "to_sample", read)
    run(tiny_checkpoint, mixed, "--out", tmp_path / "out", "--resume")
    assert len(files_in(tmp_path / "out")) == 11


@pytest.mark.parametrize("workers", [0, 1])
def test_a_wrong_environment_is_one_error(tiny_checkpoint, mixed, tmp_path, monkeypatch, workers):
    from det_core.data import images

    monkeypatch.setenv("DET_MAX_IMAGE_PIXELS", "many")
    images._max_pixels.cache_clear()
    try:
        done = run(tiny_checkpoint, mixed, "--out", tmp_path / "out", "--workers", workers)
    finally:
        images._max_pixels.cache_clear()
    assert done.exit_code == 1
    expected = "error: DET_MAX_IMAGE_PIXELS: found 'many', expected a number of pixels below 2^40"
    assert done.output.strip().splitlines()[-1] == expected


# Kills, shares and ranks


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    """300 tiny images in folders, of which three are damaged."""
    folder = tmp_path_factory.mktemp("many")
    for number in range(300):
        path = folder / str(number // 100) / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(PIXELS[: 16 + number % 40, :24]).save(path)
        if number % 100 == 50:
            path.write_bytes(path.read_bytes()[:60])
    return folder


@pytest.fixture(scope="module")
def undisturbed(many, tiny_checkpoint, tmp_path_factory) -> dict[str, dict]:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    assert run(tiny_checkpoint, many, "--out", out, "--pictures", 5, "--batch-size", 4).exit_code == 1
    found = {record["file"]: record for record in records_in(out)}
    assert len(found) == 300
    return found


def same(records: list[dict], expected: dict[str, dict]) -> None:
    """Each image once, with the results of an undisturbed run, up to the last bits of floats of other batches."""
    assert sorted(r["file"] for r in records) == sorted(expected)
    for record in records:
        other = expected[record["file"]]
        assert record.get("error") == other.get("error")
        assert record.get("picture") == other.get("picture")
        ours, theirs = (
            [(d["class"], round(d["score"], 3), [round(v, 1) for v in d["box"]]) for d in r.get("detections", ())]
            for r in (record, other)
        )
        assert len(ours) == len(theirs)


@pytest.mark.slow
def test_kills_lose_and_repeat_nothing(many, tiny_checkpoint, undisturbed, tmp_path):
    out, rng, kills = tmp_path / "out", random.Random(0), 0
    arguments = words(tiny_checkpoint, many, "--out", out, "--pictures", 5, "--batch-size", 4, "--workers", 1)
    for number in range(40):
        command = [sys.executable, "-m", "det_core", *arguments, *(["--resume"] if number else [])]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
            wanted = whole_lines(out) + rng.randrange(20, 90)
            while child.poll() is None and whole_lines(out) < wanted:
                time.sleep(0.01)
            if child.poll() is not None:
                break
            child.kill()  # the loader process ends by itself, after the next run began
            child.wait()
            kills += 1
        if number % 2 and (out / "predictions.jsonl").exists():  # as a machine that lost its power may leave it
            with (out / "predictions.jsonl").open("ab") as file:
                file.write(b'{"file": "torn')
    assert kills >= 3
    same(records_in(out), undisturbed)


def whole_lines(out: Path) -> int:
    file = out / "predictions.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


@pytest.mark.distributed
@pytest.mark.slow
def test_ranks_share_the_images(many, tiny_checkpoint, undisturbed, tmp_path):
    out = tmp_path / "out"
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "det_core"]
    arguments = words(tiny_checkpoint, many, "--out", out, "--pictures", 5, "--workers", 0, "--batch-size", 4)
    done = subprocess.run(
        [sys.executable, *launcher, *arguments, "--format", "coco"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 1
    assert f"3 of 300 images cannot be read; {out}/predictions-1-of-2.jsonl, {out}" in done.stderr
    assert "in 300 images -> " in done.stdout
    assert [len(f.read_text().splitlines()) for f in sorted(out.glob("*.jsonl"))] == [150, 150]
    same(records_in(out), undisturbed)
    assert len(json.loads((out / "images.json").read_text())["images"]) == 297
    (out / "predictions-2-of-2.jsonl").write_text("")
    assert run(tiny_checkpoint, many, "--out", out, "--pictures", 5, "--resume").exit_code == 1
    same(records_in(out), undisturbed)


def test_tasks_of_an_array_share_the_images(tiny_checkpoint, photos, tmp_path, monkeypatch):
    out = tmp_path / "out"
    for name, value in {"MIN": 4, "MAX": 8, "COUNT": 3}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
    for number, task in enumerate((4, 6, 8), 1):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(task))
        done = run(tiny_checkpoint, photos, "--out", out, "--format", "coco")
        assert done.exit_code == 0, done.output
        assert (out / f"predictions-{number}-of-3.jsonl").is_file()
        assert (out / "predictions.json").exists() == (number == 3)
    assert "of other shares are left" not in done.output
    assert len(set(files_in(out))) == len(files_in(out)) == 4
    Image.fromarray(PIXELS).save(photos / "new.png")
    done = run(tiny_checkpoint, photos, "--out", out, "--resume", "--share", "2/3")
    assert f"{out} was begun with 4 images, now there are 5, or others" in done.output
    assert "finish with one process (--share 1/1)" in done.output
    done = run(tiny_checkpoint, photos, "--out", out, "--share", "2/3", "--overwrite")
    assert "with several shares nothing is overwritten" in done.output
    assert run(tiny_checkpoint, photos, "--out", out, "--resume", "--share", "1/1").exit_code == 0
    assert len(set(files_in(out))) == len(files_in(out)) == 5


@pytest.mark.parametrize("text", ["0/2", "3/2", "2", "a/b", "-1/2"])
def test_a_share_that_is_none(text):
    with pytest.raises(DetError, match=f"--share {text}: expected K/N, such as 1/4 for the first of four shares"):
        chosen_share(text, {})


def test_shares():
    def of_slurm(**values: object) -> Share:
        return chosen_share(None, {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()})

    assert chosen_share(None, {}) == Share(0, 1)
    assert chosen_share("2/4", {}) == Share(1, 4)
    assert of_slurm(ID=5, MIN=5, MAX=5, COUNT=1) == Share(0, 1)
    assert of_slurm(ID=3, MIN=1, MAX=4, COUNT=4) == Share(2, 4)
    assert of_slurm(ID=10, MIN=0, MAX=20, COUNT=3) == Share(1, 3)
    with pytest.raises(DetError, match="task 3 of a SLURM array of 3 tasks from 1 to 8: their ids have gaps; name"):
        of_slurm(ID=3, MIN=1, MAX=8, COUNT=3)
    with pytest.raises(DetError, match="found SLURM_ARRAY_TASK_ID='3', SLURM_ARRAY_TASK_MIN=''.*expected whole num"):
        of_slurm(ID=3)
    everything = [i for rank in range(2) for task in range(3) for i in Share(task, 3).among(rank, 2).indices(20)]
    assert sorted(everything) == list(range(20))


def test_a_list_takes_little_memory():
    names = [f"/some/where/deep/image-{i:07}.jpg" for i in range(20_000)]
    from det_core.data.file_names import Names

    paths = Names.of(names)
    listed = ImageList(paths, paths, np.zeros(len(names), np.int64), np.zeros(len(names), np.bool_))
    assert len(listed.keys) == len(set(listed.keys.tolist())) == 20_000
    assert listed.digest != ImageList(paths, paths, np.ones(20_000, np.int64), np.ones(20_000, np.bool_)).digest
    total = sum(x.nbytes for x in (paths.text, paths.offsets, listed.ids, listed.has_id, listed.keys))
    assert total < 100 * len(names)
