"""`det-core analyze`, the same after training, and `det-core test --detections`: what they write, and their errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from attrs import evolve
from click.testing import CliRunner, Result
from PIL import Image

from det_core.cli.main import cli
from det_core.engine.result_files import write_results
from det_core.errors import DetError
from det_core.testing.tiny_dataset import TinyDataset

NAMES = ("class 0", "class 1", "class 2")


def det_core(*words: object) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


def done(*words: object) -> str:
    result = det_core(*words)
    assert result.exit_code == 0, result.output
    return result.output


def failed(*words: object) -> str:
    result = det_core(*words)
    assert result.exit_code == 1, result.output
    return result.output


@pytest.fixture(scope="module")
def data(labelled) -> Path:
    return labelled


@pytest.fixture(scope="module")
def mask_checkpoint(make_tiny_checkpoint) -> Path:
    return make_tiny_checkpoint("mask-rcnn/r18-fpn-demo")


@pytest.fixture(scope="module")
def results(data, tmp_path_factory) -> Path:
    """Detections of another tool: COCO's results, boxes only."""
    file = tmp_path_factory.mktemp("results") / "found.json"
    truth = json.loads((data / "instances_val.json").read_text())["annotations"]
    records = [
        {"image_id": a["image_id"], "category_id": a["category_id"], "bbox": a["bbox"], "score": 0.5 + a["id"] / 100}
        for a in truth[:10]
    ]
    file.write_text(json.dumps(records))
    return file


def numbers(folder: Path) -> dict:
    assert (folder / "index.html").stat().st_size > 10000
    assert list((folder / "figures").glob("*.png"))
    return json.loads((folder / "analysis.json").read_text())


def test_a_run_has_the_numbers_of_test(mask_checkpoint, data, tmp_path):
    options = ("--checkpoint", mask_checkpoint, "--data", data, "--device", "cpu")
    out = done("analyze", *options, "--pictures", 3)
    assert f"{mask_checkpoint / 'analysis' / 'index.html'}: open it in a browser" in out
    found = numbers(mask_checkpoint / "analysis")
    done("test", *options, "--json", tmp_path / "metrics.json", "--detections", tmp_path / "found.json")
    metrics = json.loads((tmp_path / "metrics.json").read_text())["metrics"]
    assert found["runs"][0]["metrics"] == {name: value for name, value in metrics.items() if value is not None}
    assert found["summary"]["AP"] == pytest.approx(metrics["box_ap"])
    assert np.mean(found["runs"][0]["mask"]["ap_by_iou"]) == pytest.approx(metrics["mask_ap"])
    detections = json.loads((tmp_path / "found.json").read_text())
    assert detections == json.loads((mask_checkpoint / "analysis" / "detections.json").read_text())
    assert detections[0].keys() == {"image_id", "category_id", "bbox", "score", "segmentation"}
    done("test", *options, "--predictions", tmp_path / "found.json", "--json", tmp_path / "again.json")
    assert json.loads((tmp_path / "again.json").read_text())["metrics"] == pytest.approx(metrics)


def test_results_alone(results, data, tmp_path):
    done("analyze", "--predictions", results, "--data", data, "--out", tmp_path, "--threshold", 0.555)
    found = numbers(tmp_path)
    assert found["summary"]["threshold"] == 0.555
    assert found["summary"]["recall"] == pytest.approx(5 / 18)
    assert set(found["runs"][0]) == {"name", "metrics", "box"}  # there are no masks to compare


def test_two_runs(results, mask_checkpoint, data, tmp_path):
    out = done(
        *("analyze", mask_checkpoint, results, "--data", data, "--device", "cpu", "--out", tmp_path, "--resamples", 5)
    )
    assert "comparing the runs in 5 resamples" in out
    found = numbers(tmp_path)
    assert [run["name"] for run in found["runs"]] == [mask_checkpoint.name, "found.json"]
    assert found["comparison"]["ap"]["b"] > found["comparison"]["ap"]["a"]


def test_proposals(make_tiny_checkpoint, data, tmp_path):
    run = make_tiny_checkpoint("rpn/r18-fpn-demo")
    done("analyze", run, "--data", data, "--device", "cpu", "--out", tmp_path)
    found = numbers(tmp_path)
    assert len(found["proposals"]["recall"]) == 10
    assert found["proposals"]["average_recall"] == sorted(found["proposals"]["average_recall"])


def test_after_training(data, tmp_path, tiny_settings):
    settings = [word for s in (*tiny_settings, "schedule.epochs=1") for word in ("--set", s)]
    options = ("--recipe", "mask-rcnn/r18-fpn-demo", "--data", data, "--work-dir", tmp_path / "run", "--device", "cpu")
    out = done("train", *options, *settings, "--analyze")
    assert f"next: det-core analyze --checkpoint {tmp_path / 'run'}" in out
    assert numbers(tmp_path / "run" / "analysis")["images"] == 6
    message = failed("train", *options, *settings, "--set", "data.val=null", "--analyze")
    assert "analyze: the recipe has no validation data" in message


def test_voc_text_files(tiny_checkpoint, data, tmp_path):
    options = ("--checkpoint", tiny_checkpoint, "--data", data, "--device", "cpu")
    out = done("test", *options, "--detections", tmp_path / "voc", "--json", tmp_path / "a.json")
    assert f"detections in {tmp_path / 'voc'}" in out
    assert sorted(p.name for p in (tmp_path / "voc").iterdir()) == [f"comp4_det_{name}.txt" for name in NAMES]
    name, score, *corners = (tmp_path / "voc" / "comp4_det_class 0.txt").read_text().splitlines()[0].split()
    assert name in "12345"
    assert 0 < float(score) <= 1
    assert float(corners[0]) >= 1
    done("test", *options, "--predictions", tmp_path / "voc", "--json", tmp_path / "b.json")
    a, b = (json.loads((tmp_path / f"{x}.json").read_text())["metrics"] for x in "ab")
    assert a == pytest.approx(b, abs=1e-6)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("1 0.5 1 1 9\n", "line 1: found '1 0.5 1 1 9', expected `image score xmin ymin xmax ymax`"),
        ("1 high 1 1 9 9\n", "line 1: found '1 high 1 1 9 9', expected"),
        (None, "no file for class 'class 2', expected comp4_det_class 2.txt"),
    ],
)
def test_voc_text_files_that_cannot_be_read(tiny_checkpoint, data, tmp_path, lines, message):
    for name in NAMES[:2]:
        (tmp_path / f"comp4_det_{name}.txt").write_text("")
    if lines is not None:
        (tmp_path / "comp4_det_test_class 2.txt").write_text(lines)
    out = failed("test", "--checkpoint", tiny_checkpoint, "--data", data, "--predictions", tmp_path)
    assert message in " ".join(out.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "found 0 runs, expected one to analyze, or two to compare"),
        (("a", "b", "c"), "found 3 runs"),
        (("--predictions", "found.json"), "detections alone do not say which data they are on; give --data ROOT"),
        (("no-such-run",), "no-such-run: no such file or folder"),
        (("--predictions", "no-such.json", "--data", "{data}"), "no-such.json: no such file or folder"),
    ],
)
def test_mistakes(data, words, message):
    assert message in " ".join(failed("analyze", *(w.format(data=data) for w in words)).split())


def test_detections_are_written_or_read(tiny_checkpoint, data, results, tmp_path):
    options = ("--checkpoint", tiny_checkpoint, "--data", data)
    out = failed("test", *options, "--predictions", results, "--detections", tmp_path / "x.json")
    assert "--detections: the detections of --predictions are there already" in " ".join(out.split())
    (tmp_path / "file").write_text("")
    out = failed("test", *options, "--device", "cpu", "--detections", tmp_path / "file")
    assert "is a file; give a `.json` file for COCO's format, or a folder" in " ".join(out.split())


def test_results_on_voc_have_its_metric(tmp_path, caplog):
    """From results alone: the data are VOC's, so the metric is, too."""
    root = tmp_path / "voc"
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / folder).mkdir(parents=True)
    place = "<xmin>11</xmin><ymin>11</ymin><xmax>60</xmax><ymax>80</ymax>"
    for name in ("a", "b"):
        Image.new("RGB", (120, 100), "gray").save(root / "JPEGImages" / f"{name}.jpg")
        (root / "Annotations" / f"{name}.xml").write_text(
            f"<annotation><filename>{name}.jpg</filename><size><width>120</width><height>100</height><depth>3</depth></size>"
            f"<object><name>cat</name><difficult>0</difficult><bndbox>{place}</bndbox></object></annotation>"
        )
    for split in ("trainval", "test"):
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("a\nb\n")
    (tmp_path / "found").mkdir()
    (tmp_path / "found" / "comp4_det_test_cat.txt").write_text(
        "a 0.9 11 11 60 80\nb 0.8 100 90 110 100\nc 0.5 1 1 9 9\n"
    )
    done("analyze", "--predictions", tmp_path / "found", "--data", root, "--out", tmp_path / "page")
    assert "1 image not in" in caplog.text  # c
    found = numbers(tmp_path / "page")
    assert found["runs"][0]["metrics"]["voc_map"] == pytest.approx(0.5)
    assert found["runs"][0]["box"]["errors"]["background"]["count"] == 1
    assert "VOC mAP" in (tmp_path / "page" / "index.html").read_text()


def test_names_that_voc_text_files_cannot_tell_apart(tmp_path):
    """Images of one name in two folders, and a class that is no file name."""

    class Named(TinyDataset):
        names = ("a/1.jpg", "b/2.jpg", "b/3.jpg")

        def file(self, index: int) -> str:
            return self.names[index]

    dataset = Named()
    dataset.classes = evolve(dataset.classes, names=("nut", "bolt/5", "screw", "nail"))
    with pytest.raises(DetError, match=r"class 'bolt/5' cannot be part of a file's name; write a `\.json` file"):
        write_results(tmp_path / "voc", [], dataset)
    Named.names = ("a/1.jpg", "b/1.png", "b/3.jpg")
    with pytest.raises(DetError, match=r"images share the names 1, by which VOC's text files tell them apart"):
        write_results(tmp_path / "voc", [], dataset)
