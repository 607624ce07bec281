"""Predictions: what is taken as an image, and that one bad image or a wrong --out loses nothing."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from attrs import evolve
from click.testing import CliRunner, Result
from PIL import Image

from det_core import DetError, load_recipe, predict, settings
from det_core.cli import predict as verb
from det_core.cli.main import cli
from det_core.engine.checkpoint import Header, save_checkpoint
from det_core.errors import DataError
from det_core.plugins import plugin_manager
from det_core.structures import Classes, Detections

PIXELS = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, tiny_settings) -> Path:
    """A run folder with the weights of a tiny detector that was never trained; every box passes its threshold."""
    settings = [*tiny_settings, "detector.roi_head.mask_head=null", "detector.roi_head.score_threshold=0.0"]
    recipe = load_recipe("faster-rcnn/r18-fpn-demo", [s for s in settings if "mask_head" not in s])
    classes = Classes.numbered(3)
    torch.manual_seed(0)
    detector = recipe.detector.build(classes=classes)
    run = tmp_path_factory.mktemp("run")
    header = Header(recipe=recipe, classes=classes, plugins=plugin_manager().versions())
    save_checkpoint(run, header, detector.state_dict())
    return run


@pytest.fixture(scope="module")
def detector(checkpoint):
    from det_core import load_detector

    return load_detector(checkpoint)


def equal(one: Detections, other: Detections) -> bool:
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in ("boxes", "scores", "labels"))


def test_what_an_image_may_be(detector, tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(PIXELS).save(path)
    tensor = torch.from_numpy(PIXELS).permute(2, 0, 1)
    expected = predict(detector, [tensor])[0]
    assert len(expected) > 0
    for image in (str(path), path, PIXELS, tensor.contiguous(), Image.fromarray(PIXELS)):
        assert equal(predict(detector, image), expected)
        (only,) = predict(detector, [image])
        assert equal(only, expected)
    for image in (PIXELS[..., ::-1], tensor.flip(0)):
        assert equal(predict(detector, image, order="bgr"), expected)
    several = predict(detector, (path, PIXELS, Image.fromarray(PIXELS)))
    assert [equal(found, expected) for found in several] == [True] * 3
    assert predict(detector, []) == []


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (PIXELS.astype(np.float32), r"an image is ndarray \(60, 80, 3\) of float32, expected \(h, w, 3\) of uint8"),
        (PIXELS[None], r"an image is ndarray \(1, 60, 80, 3\) of uint8, expected \(h, w, 3\)"),
        (PIXELS[:0], r"an image is ndarray \(0, 80, 3\)"),
        (
            torch.zeros(2, 3, 8, 8, dtype=torch.uint8),
            r"an image is Tensor \(2, 3, 8, 8\) of torch.uint8, expected \(3,",
        ),
        (Image.new("I;16", (8, 8)), "a PIL image has mode I;16, expected 8 bits per channel"),
        (None, r"images: found None \(NoneType\), expected a path, the bytes of a file, a"),
        ([None], r"an image is None \(NoneType\), expected a path"),
        ([3], r"an image is 3 \(int\), expected a path"),
        ("", "the image file does not exist"),
        (".", "the image cannot be decoded: it is a folder"),
        ("missing.png", "missing.png: the image file does not exist"),
    ],
)
def test_what_is_no_image(detector, image, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((DetError, DataError), match=message):
        predict(detector, image)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "fp61"}, "precision: found 'fp61', allowed: fp32, bf16, fp16"),
        ({"batch_size": 0}, "batch_size: found 0, expected a whole number of at least 1"),
        ({"batch_size": 1.5}, "batch_size: found 1.5, expected"),
        ({"order": "gbr"}, "order: found 'gbr', allowed: rgb, bgr"),
    ],
)
def test_options_that_are_not_allowed(detector, options, message):
    with pytest.raises(DetError, match=message):
        predict(detector, [PIXELS], **options)


# The command line


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a", "b", "d"):
        Image.fromarray(PIXELS).save(folder / f"{name}.png")
    return folder


def run(checkpoint: Path, *arguments: object) -> Result:
    words = ["predict", "--checkpoint", str(checkpoint), "--device", "cpu", *map(str, arguments)]
    return CliRunner().invoke(cli, words)


def test_a_bad_image_costs_one_result(checkpoint, photos, tmp_path):
    (photos / "b.png").write_bytes(b"")
    (photos / "c.jpg").mkdir()
    os.mkfifo(photos / "e.png")
    out = tmp_path / "out"
    done = run(checkpoint, photos, "--out", out, "--batch-size", 2)
    assert done.exit_code == 1
    assert f"{photos / 'b.png'}: not a readable image (the file is empty)" in done.output
    records = {Path(r["file"]).name: r for r in json.loads((out / "predictions.json").read_text())}
    assert {name for name, record in records.items() if "error" in record} == {"b.png", "e.png"}
    assert f"passed over {photos / 'c.jpg'}: it is a folder" in done.output
    assert "c.jpg" not in records
    assert records["a.png"]["detections"]
    assert sorted(p.name for p in out.iterdir()) == ["a.png", "d.png", "predictions.json"]
    assert f"error: 2 of 4 images cannot be read; {out}/predictions.json says why" in done.output


def test_what_was_found_before_an_error_is_written(checkpoint, photos, tmp_path, monkeypatch):
    from det_core.reports import drawing

    def full(image: torch.Tensor, path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(drawing, "save_png", full)
    assert run(checkpoint, photos, "--out", tmp_path / "out").exit_code == 1
    (record,) = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert record["file"] == str(photos / "a.png")


def test_results_are_written_now_and_then(checkpoint, photos, tmp_path, monkeypatch):
    """A process that is killed between two writes loses what came after the first."""
    from det_core.engine import checkpoint as checkpoints

    texts: list[str] = []
    monkeypatch.setattr(checkpoints, "write_text", lambda path, text: texts.append(text))
    monkeypatch.setattr(verb, "SECONDS_BETWEEN_WRITES", 0)
    run(checkpoint, photos, "--out", tmp_path / "out")
    assert [len(json.loads(text)) for text in texts] == [1, 2, 3, 3]


# Loader processes


@pytest.fixture
def mixed(tmp_path) -> Path:
    """Ten images of three sizes, a file that is none, and one that is empty."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    for number in range(10):
        Image.fromarray(PIXELS[: 60 - 8 * (number % 3)]).save(folder / f"{number}.png")
    (folder / "3.png").write_bytes(b"no image")
    (folder / "a.jpg").write_bytes(b"")
    return folder


@pytest.mark.parametrize("options", [[], ["--batch-size", 3], ["--batch-size", 3, "--flip", "--scale", "96x64"]])
def test_loader_processes_change_nothing(checkpoint, mixed, tmp_path, options):
    results = []
    for workers in (0, 1, 2):
        out = tmp_path / "out"
        done = run(checkpoint, mixed, "--out", out, "--workers", workers, *options)
        assert done.exit_code == 1
        results.append((done.output, {p.name: p.read_bytes() for p in out.iterdir()}))
        shutil.rmtree(out)
    assert results[0] == results[1] == results[2]
    records = json.loads(results[0][1]["predictions.json"])
    assert sorted(Path(r["file"]).name for r in records if "error" in r) == ["3.png", "a.jpg"]
    assert len(records) == 11
    assert len(results[0][1]) == 1 + 9


def test_few_images_start_no_processes(checkpoint, mixed, tmp_path, monkeypatch):
    from det_core.engine import checkpoint as checkpoints, predict_files as module

    read, used = checkpoints.read_header, []

    def with_workers(file: Path) -> Header:
        header = read(file)
        data = settings.evolve(header.recipe.data, workers=3)
        return evolve(header, recipe=settings.evolve(header.recipe, data=data))

    def note(*_: object, workers: int, **__: object):
        used.append(workers)
        yield from ()

    monkeypatch.setattr(module, "predict_files", note)
    monkeypatch.setattr(checkpoints, "read_header", with_workers)
    for words in ([mixed], [mixed / "0.png"], [mixed / "0.png", "--workers", 1], [mixed, "--workers", 0]):
        assert run(checkpoint, *words, "--out", tmp_path / "out").exit_code == 0
    assert used == [3, 0, 1, 0]  # 3: of the recipe


@pytest.mark.parametrize("workers", [0, 2])
def test_only_a_few_batches_are_in_memory(detector, photos, monkeypatch, workers):
    from det_core.engine import predict_files as module

    read, counter = module.to_sample, multiprocessing.Value("i", 0)

    def counted(file: Path):
        with counter.get_lock():
            counter.value += 1
        return read(file)

    monkeypatch.setattr(module, "to_sample", counted)
    batches = module.predict_files(detector, [photos / "a.png"] * 40, batch_size=2, workers=workers)
    for done in range(1, 4):
        assert len(next(batches)) == 2
        time.sleep(0.3)  # enough for the processes to read what they may
        assert counter.value <= 2 * (done + workers * module.AHEAD)
    batches.close()


def test_a_loader_process_that_ends_is_an_error(checkpoint, mixed, tmp_path, monkeypatch):
    from det_core.engine import predict_files as module

    read = module.to_sample

    def end(file: Path):
        if file.name == "5.png":
            os.kill(os.getpid(), signal.SIGKILL)
        return read(file)

    monkeypatch.setattr(module, "to_sample", end)
    done = run(checkpoint, mixed, "--out", tmp_path / "out", "--workers", 2)
    assert done.exit_code == 1
    assert "a loader process has ended" in done.output
    assert "use fewer or none (--workers 0)" in done.output
    json.loads((tmp_path / "out" / "predictions.json").read_text())  # what was found before


@pytest.mark.parametrize("workers", [0, 1])
def test_a_wrong_environment_is_one_error(checkpoint, mixed, tmp_path, monkeypatch, workers):
    from det_core.data import images

    monkeypatch.setenv("DET_MAX_IMAGE_PIXELS", "many")
    images._max_pixels.cache_clear()
    try:
        done = run(checkpoint, mixed, "--out", tmp_path / "out", "--workers", workers)
    finally:
        images._max_pixels.cache_clear()
    assert done.exit_code == 1
    expected = "error: DET_MAX_IMAGE_PIXELS: found 'many', expected a number of pixels below 2^40"
    assert done.output.strip().splitlines()[-1] == expected


def test_inputs_are_not_overwritten(checkpoint, photos, tmp_path):
    before = {p: p.read_bytes() for p in photos.iterdir()}
    link = tmp_path / "link"
    link.symlink_to(photos)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.png").symlink_to(photos / "a.png")
    for out in (photos, link, tmp_path / "out"):
        done = run(checkpoint, photos, "--out", out)
        assert done.exit_code == 1
        assert f"--out: {out / 'a.png'}" in done.output
        assert "would be overwritten, but is an input; choose another --out" in done.output
    assert {p: p.read_bytes() for p in photos.iterdir()} == before


def test_a_link_is_replaced_rather_than_followed(checkpoint, photos, tmp_path):
    out, precious = tmp_path / "out", tmp_path / "precious.txt"
    precious.write_text("mine")
    out.mkdir()
    (out / "a.png").symlink_to(precious)
    assert run(checkpoint, photos / "a.png", "--out", out).exit_code == 0
    assert precious.read_text() == "mine"
    assert not (out / "a.png").is_symlink()


def test_out_is_a_file(checkpoint, photos, tmp_path):
    (tmp_path / "out").write_text("mine")
    for out in (tmp_path / "out", tmp_path / "out" / "below"):
        done = run(checkpoint, photos, "--out", out)
        assert f"--out: {tmp_path / 'out'} is a file, expected a folder; choose another --out" in done.output
    assert (tmp_path / "out").read_text() == "mine"


def test_other_commands_do_not_overwrite_their_inputs_either(checkpoint, tmp_path):
    copy = tmp_path / "model.safetensors"
    shutil.copy(next(checkpoint.rglob("model.safetensors")), copy)
    before = copy.read_bytes()
    for words in (
        ["import-weights", str(copy), "--from", "torchvision", "--recipe", "faster-rcnn/r50-fpn-1x", "-o", str(copy)],
        ["proposals", "--checkpoint", str(copy), "--split", "val", "--out", str(copy)],
    ):
        done = CliRunner().invoke(cli, words)
        assert "would be overwritten, but is an input" in done.output
    assert copy.read_bytes() == before


def test_browse_does_not_overwrite_the_images_of_the_data_set(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    Image.fromarray(PIXELS).save(images / "000000000007.png")
    record = {"id": 7, "file_name": "000000000007.png", "width": 80, "height": 60}
    box = {"id": 1, "image_id": 7, "category_id": 1, "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0}
    content = {"images": [record], "annotations": [box], "categories": [{"id": 1, "name": "a"}]}
    for split in ("train", "val"):
        (tmp_path / f"instances_{split}.json").write_text(json.dumps(content))
    before = (images / "000000000007.png").read_bytes()
    done = CliRunner().invoke(cli, ["data", "--data", str(tmp_path), "browse", "--out", str(images)])
    assert "would be overwritten, but is an input" in done.output
    assert (images / "000000000007.png").read_bytes() == before
    done = CliRunner().invoke(cli, ["data", "--data", str(tmp_path), "browse", "--out", str(tmp_path / "out")])
    assert done.output.splitlines()[-1] == f"1 pictures in {tmp_path / 'out'}"
