"""int8 models: which layers compute in int8, how near they are to the detector in both runtimes, what is refused."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent))

from padded_families import FAMILIES, built

from det_core import DetError, Predictor, load_recipe
from det_core.boxes.overlaps import box_iou
from det_core.cli.export import _spread
from det_core.cli.main import cli
from det_core.engine.checkpoint import Header, save_checkpoint
from det_core.export.compare_exported import SAMPLE, sample_images
from det_core.export.export_int8 import Agreement, agreement, export_int8
from det_core.export.load_exported import load_exported
from det_core.plugins import plugin_manager
from det_core.structures import Classes, Detections

onnx = pytest.importorskip("onnx", reason="int8 models need the packages of the extra `export` of det-core")
ALL_SCORES = "detector.roi_head.score_threshold=0.0"


@pytest.fixture(scope="module")
def detector():
    return built(FAMILIES["mask"][0], (*FAMILIES["mask"][1], ALL_SCORES))


@pytest.fixture(scope="module")
def model(detector, tmp_path_factory) -> tuple[Path, Agreement]:
    file = tmp_path_factory.mktemp("int8") / "model.onnx"
    return file, export_int8(detector, file, sample_images(), recipe="mine")


@pytest.mark.slow
def test_layers_compute_in_int8_and_last_results_are_float(model):
    graph = onnx.load(str(model[0])).graph
    makers = {name: node for node in graph.node for name in node.output}
    users = Counter(name for node in graph.node for name in node.input)
    kinds = Counter(node.op_type for node in graph.node)
    layers = [node for node in graph.node if node.op_type in ("Conv", "Gemm")]
    assert len(layers) > 20
    for node in layers:
        assert [makers[name].op_type for name in node.input[:2]] == ["DequantizeLinear"] * 2, node.name
    next_kinds = [{n.op_type for n in graph.node if node.output[0] in n.input} for node in layers]
    normed = [kinds for kinds in next_kinds if kinds == {"Reshape", "Shape"}]
    assert len(normed) == kinds["InstanceNormalization"] == 28  # group norm takes what a convolution gives
    last = [kinds for kinds in next_kinds if not kinds & {"QuantizeLinear", "Relu", "Shape"}]
    # scores and deltas of the RPN on five levels and of the box head, and logits of masks
    assert len(last) == 13
    assert kinds["NonMaxSuppression"] == 2
    unused = [tensor.name for tensor in graph.initializer if not users[tensor.name]]
    assert unused == []


@pytest.mark.slow
def test_weights_are_whole_numbers_of_one_byte(model):
    file, _ = model
    weights = [t for t in onnx.load(str(file)).graph.initializer if t.data_type == onnx.TensorProto.INT8 and t.dims]
    assert sum(len(t.raw_data) for t in weights) > 2 / 3 * file.stat().st_size


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_detections_are_near_those_of_the_detector(model, detector, runtime):
    """Scores are within a few hundredths, in both runtimes."""
    file, found = model
    assert (found.calibrated, found.images) == (3, 3)
    exported = load_exported(file, runtime=runtime)
    assert exported.header.precision == "int8"
    assert exported.header.recipe == "mine"
    plain = Predictor(detector)
    for image in sample_images():
        ours, theirs = plain(image), exported(image)
        best = ours[ours.scores >= ours.scores.max() - 0.02]
        assert len(best) > 0
        for box, score in zip(best.boxes, best.scores, strict=True):
            near = box_iou(box[None], theirs.boxes)[0] > 0.6
            assert float((theirs.scores[near] - score).abs().min()) < 0.03
    again = Predictor(file, "cpu", runtime=runtime)(sample_images()[0])
    assert len(again) == len(exported(sample_images()[0]))


@pytest.mark.slow
def test_results_of_one_folder_are_of_one_runtime(model, tmp_path):
    out = tmp_path / "out"
    words = ["predict", "--checkpoint", str(model[0]), "--out", str(out), "--pictures", "none", "--device", "cpu"]
    photograph = str(sorted(SAMPLE.glob("*.png"))[0])
    done = CliRunner().invoke(cli, [*words, "--runtime", "openvino", photograph], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert len((out / "predictions.jsonl").read_text(encoding="utf8").splitlines()) == 1
    done = CliRunner().invoke(cli, [*words, "--resume", photograph])
    assert done.exit_code == 1
    assert f"{out} was begun otherwise: runtime was 'openvino', now it is None" in done.output


def of(boxes: list[list[float]], scores: list[float], labels: list[int]) -> Detections:
    return Detections(
        boxes=torch.tensor(boxes).reshape(-1, 4), scores=torch.tensor(scores), labels=torch.tensor(labels).long()
    )


FOUND = of([[0, 0, 10, 10], [50, 50, 60, 60], [80, 80, 90, 90]], [0.9, 0.8, 0.1], [0, 1, 0])


@pytest.mark.parametrize(
    ("theirs", "both", "file", "scores"),
    [
        (FOUND, 2, 2, 0.0),
        (of([[0, 0, 10, 9], [50, 50, 60, 60]], [0.7, 0.7], [0, 1]), 2, 2, 0.15),
        (of([[0, 0, 10, 4]], [0.9], [0]), 0, 1, 0.0),  # too small an overlap
        (of([[0, 0, 10, 10]], [0.9], [1]), 0, 1, 0.0),  # another class
        (of([[0, 0, 10, 10], [0, 0, 10, 10]], [0.9, 0.8], [0, 0]), 1, 2, 0.0),  # once each
        (of([], [], []), 0, 0, 0.0),
    ],
)
def test_an_agreement_counts_pairs(monkeypatch, detector, theirs, both, file, scores):
    monkeypatch.setattr(detector, "predict", lambda batch: [FOUND] * len(batch))

    class Fixed:
        def detect(self, images):
            return [theirs] * len(images)

    from det_core.export.export_detector import transformed

    images = list(transformed(detector, sample_images()[:1]))
    found = agreement(detector, Fixed(), images, calibrated=7)
    assert (found.calibrated, found.images, found.detector, found.file, found.both) == (7, 1, 2, file, both)
    assert found.scores == pytest.approx(scores, abs=1e-6)
    assert str(found).startswith("calibrated on 7 images; on 1 of them, above a score of 0.3, the detector finds 2, ")


def test_int8_takes_images(detector, tmp_path):
    with pytest.raises(DetError, match=r"^calibration: found no images, expected some like those that the detector"):
        export_int8(detector, tmp_path / "model.onnx", [])
    with pytest.raises(DetError, match=r"model.pt2: found the suffix '.pt2', expected '.onnx' for format onnx$"):
        export_int8(detector, tmp_path / "model.pt2", sample_images())
    assert list(tmp_path.iterdir()) == []


def test_a_runtime_runs_what_it_can(tmp_path, monkeypatch):
    for name in ("model.pt2", "model.onnx"):
        (tmp_path / name).write_bytes(b"words")
    with pytest.raises(DetError, match=r"model.pt2 on cpu: OpenVINO runs an ONNX model \(.onnx\) on the CPU; give d"):
        load_exported(tmp_path / "model.pt2", runtime="openvino")
    with pytest.raises(DetError, match=r"model.onnx on cuda: OpenVINO runs an ONNX model"):
        load_exported(tmp_path / "model.onnx", "cuda", runtime="openvino")
    with pytest.raises(DetError, match=r"^runtime: found 'tflite', "):
        load_exported(tmp_path / "model.onnx", runtime="tflite")
    with pytest.raises(DetError, match=r"^runtime: found 'openvino', an option for exported .onnx files; remove it$"):
        Predictor("runs/mine", runtime="openvino")
    with pytest.raises(DetError, match=r"model.onnx: OpenVINO cannot read it \("):
        load_exported(tmp_path / "model.onnx", runtime="openvino")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(DetError, match=r"^running a model in OpenVINO requires openvino, .*'det-core\[openvino\]'"):
        load_exported(tmp_path / "model.onnx", runtime="openvino")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    name, settings = FAMILIES["faster"]
    recipe = load_recipe(name, list(settings))
    run = tmp_path_factory.mktemp("run")
    header = Header(recipe=recipe, classes=Classes.numbered(3), plugins=plugin_manager().versions())
    save_checkpoint(run, header, built(name, settings).state_dict())
    return run


@pytest.mark.slow
def test_the_verb_calibrates_on_the_data(checkpoint, tmp_path):
    out = tmp_path / "model.onnx"
    given = ["export", "--checkpoint", str(checkpoint), "-o", str(out), "--int8", "--calibration-images", "2"]
    done = CliRunner().invoke(cli, given, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert f"{out}: onnx, int8, calibrated on 2 images; on 2 of them, above a score of 0.3, the detector" in done.output


@pytest.mark.parametrize(("count", "expected"), [(3, [0, 5, 11]), (17, list(range(17))), (100, list(range(17)))])
def test_calibration_images_are_spread_over_the_data(count, expected):
    """Also where there are not twice as many as are wanted."""
    recipe = load_recipe("faster-rcnn/r18-fpn-demo", [])
    dataset = recipe.open_train()
    assert len(dataset) == 17
    assert _spread(recipe, count) == [Path(dataset.file(index)) for index in expected]
    assert _spread(recipe, 10)[-1] == Path(dataset.file(15))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--data", "photos"], "--data: an option of --int8, which is not given; add --int8 or remove it"),
        (["--calibration-images", "3"], "--calibration-images: an option of --int8, which is not given; add --int8 or"),
        (["--int8", "--format", "torch-export"], "--int8: found the format torch-export, allowed: onnx"),
        (["--int8", "--images", "a.png"], "--images: an int8 model is compared on images of --data; remove the option"),
    ],
)
def test_options_that_do_not_go_together(tmp_path, more, message):
    done = CliRunner().invoke(cli, ["export", "--checkpoint", "run", "-o", str(tmp_path / "model.onnx"), *more])
    assert done.exit_code == 1
    assert f"error: {message}" in done.output
