"""Predictions: what is taken as an image, and that one bad image or a wrong --out loses nothing."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from det_core import DetError, predict
from det_core.cli.main import cli
from det_core.engine import predict as engine
from det_core.errors import DataError
from det_core.structures import Detections

PIXELS = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint) -> Path:
    return tiny_checkpoint


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


@pytest.mark.parametrize("computed", [True, False])
def test_bfloat16_needs_a_processor_that_computes_in_it(detector, computed, monkeypatch, caplog):
    """Otherwise float32, which is faster there; it is said once."""
    monkeypatch.setattr(engine, "computes_in_bfloat16", lambda: computed)
    monkeypatch.setattr(engine, "_warn_of_float32", cache(engine._warn_of_float32.__wrapped__))
    plain = predict(detector, PIXELS)
    for _ in range(2):
        found = predict(detector, PIXELS, precision="bf16")
        assert torch.equal(found.scores, plain.scores) is not computed
    assert caplog.messages == ([] if computed else [f"this processor has no instructions for bfloat16 ({WHICH}"])


WHICH = "AVX512-BF16 or AMX): precision fp32 is used instead"


# Other commands


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
