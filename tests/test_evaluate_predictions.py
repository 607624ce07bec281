"""`det-core test --predictions`, and tiles on the command line: the numbers are those of running the model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from det_core import Predictor, Tiling
from det_core.cli.main import cli

NAMES = ("class 0", "class 1", "class 2")


def det_core(*words: object) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


@pytest.fixture(scope="module")
def data(labelled) -> Path:
    return labelled


@pytest.fixture(scope="module")
def mask_checkpoint(make_tiny_checkpoint) -> Path:
    return make_tiny_checkpoint("mask-rcnn/r18-fpn-demo")


def metrics(file: Path, *words: object) -> dict:
    done = det_core("test", "--json", file, "--device", "cpu", *words)
    assert done.exit_code == 0, done.output
    return json.loads(file.read_text())


@pytest.mark.parametrize("tiles", [[], ["--tile", 96]])
def test_predictions_have_the_metrics_of_the_model(mask_checkpoint, data, tmp_path, tiles):
    model = ("--checkpoint", mask_checkpoint)
    expected = metrics(tmp_path / "a.json", *model, "--data", data, *tiles)
    assert expected["metrics"]["box_ap"] > 0
    given = ("--device", "cpu", "--out", tmp_path / "out", "--format", "coco", "--pictures", "none", *tiles)
    for images in ([data / "instances_val.json", "--image-root", data / "images"], [data / "images", "--overwrite"]):
        assert det_core("predict", *model, *given, *images).exit_code == 0
        for source in (tmp_path / "out", tmp_path / "out" / "predictions.jsonl"):
            assert metrics(tmp_path / "b.json", *model, "--data", data, "--predictions", source) == expected
        if images[0].suffix:  # ids of files are not those of the data set
            source = tmp_path / "out" / "predictions.json"
            assert metrics(tmp_path / "b.json", *model, "--data", data, "--predictions", source) == expected


def test_tiles_of_the_command_line(tiny_checkpoint, data, tmp_path):
    file = data / "images" / "3.png"
    words = ("--device", "cpu", "--out", tmp_path, "--tile", 64, "--overlap", 0.3, "--merge-tiles", "union", file)
    assert det_core("predict", "--checkpoint", tiny_checkpoint, *words).exit_code == 0
    record = json.loads((tmp_path / "predictions.jsonl").read_text())
    tiling = Tiling(size=64, overlap=0.3, merge="union")
    assert [d["box"] for d in record["detections"]] == Predictor(tiny_checkpoint, tiling=tiling)(file).boxes.tolist()
    done = det_core(
        "predict", "--checkpoint", tiny_checkpoint, "--tile", 64, "--overlap", 0, "--merge-tiles", "union", file
    )
    assert "union compares parts of an object where two tiles overlap, but they overlap by 0 pixels" in done.output


def test_images_without_predictions_are_told(tiny_checkpoint, data, tmp_path):
    out = tmp_path / "out"
    (tmp_path / "1.png").write_bytes(b"")
    given = (data / "images" / "2.png", data / "images" / "3.png", tmp_path / "1.png")
    det_core("predict", "--checkpoint", tiny_checkpoint, "--device", "cpu", "--out", out, *given)
    record = json.loads((out / "predictions.jsonl").read_text().splitlines()[0])
    test = ("test", "--checkpoint", tiny_checkpoint, "--data", data, "--predictions")
    done = det_core(*test, out)
    assert done.exit_code == 0
    assert f"warning: {out}: 4 images of " in done.output
    assert "without predictions; they count as empty" in done.output
    assert f"warning: {out}: 1 image not in " in done.output
    assert f"{out} of faster-rcnn/r18-fpn-demo step 0 " in done.output
    (out / "predictions.jsonl").write_text("".join(json.dumps(r) + "\n" for r in (record, record)))
    assert "has two records; remove one of them" in det_core(*test, out).output
    record["detections"][0]["class"] = "tram"
    (out / "predictions.jsonl").write_text(json.dumps(record) + "\n")
    message = "instances_val.json has the classes class 0, class 1, class 2; evaluate on data with"
    assert message in det_core(*test, out).output
    unusable = {"file": str(data / "images" / "2.png"), "detections": [1]}
    (out / "predictions.jsonl").write_text(json.dumps(unusable) + "\n")
    assert "2.png has no usable `detections` (TypeError" in det_core(*test, out).output
    (out / "predictions.jsonl").write_text(json.dumps(unusable | {"detections": None}) + "\n")
    assert "`detections` (TypeError: found None, expected a list)" in det_core(*test, out).output


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.json", None, "none.json: no such file or folder"),
        (
            "folder",
            None,
            "folder: neither predictions*.jsonl nor VOC's text files (..._<class>.txt) in this folder",
        ),
        ("text.json", "text", "text.json: not JSON"),
        ("dict.json", "{}", "dict.json: expected COCO's results: a list of objects with image_id, "),
        ("bad.json", '[{"image_id": 11}]', "bad.json: image id 11: bbox: found None, expected four numbers"),
    ],
)
def test_predictions_that_are_none(tiny_checkpoint, data, tmp_path, name, content, message):
    (tmp_path / "folder").mkdir()
    if content is not None:
        (tmp_path / name).write_text(content)
    done = det_core("test", "--checkpoint", tiny_checkpoint, "--data", data, "--predictions", tmp_path / name)
    assert done.exit_code == 1
    assert message in done.output
