"""Exported detectors: each file is run and compared, and says what is in it; what cannot be exported says why."""

from __future__ import annotations

import importlib.util
import json
import pickle
import re
import sys
from pathlib import Path

import pytest
import torch
from attrs import evolve
from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent))

from padded_families import FAMILIES, built

from det_core import DetError, Predictor, load_recipe, optional_packages, predict
from det_core.boxes.spread_boxes import spread_boxes
from det_core.cli.main import cli
from det_core.contracts import Sample
from det_core.data.loader import prepare
from det_core.data.transforms import resize
from det_core.engine.checkpoint import Header, save_checkpoint
from det_core.engine.image_inputs import to_sample
from det_core.engine.test_time_augmentation import Augmentation
from det_core.engine.tiling import Tiling
from det_core.export import compare_exported
from det_core.export.compare_exported import Comparison, DisagreementError, Tolerances, compare, sample_images
from det_core.export.export_detector import TRIED, export_detector
from det_core.export.exported_header import LAYOUT, PROPOSAL_INPUTS, ExportedHeader
from det_core.export.exported_program import example_inputs
from det_core.export.load_exported import ExportedDetector, load_exported
from det_core.export.padded_detector import PaddedDetector, given_proposals
from det_core.model.detector import Detector
from det_core.padded import MaskPaste, NotExportableError, PaddedBatch
from det_core.plugins import plugin_manager
from det_core.structures import Classes, Detections, Key

REASON = "ONNX files need the packages of the extra `export` of det-core"
# Every family once; the slow parts, tracing and translation, do not depend on the size of the layers.
IN_ONNX = (
    *("rpn", "fast", "mask", "c4", "cascade", "htc", "retinanet", "ga-faster", "ga-retinanet"),
    *("ssd", "ssd, all", "ssdlite", "deformable"),
)
AS_PROGRAM = ("fast", "mask", "retinanet", "ga-faster", "ssd")
FLIP = Augmentation(flip=True)


def photographs(detector: Detector) -> list[torch.Tensor] | list[Sample]:
    """Two images of other sizes than those that the export is compared on; with proposals for Fast R-CNN."""
    images = [image[:, 16:, :].repeat(1, 1, 2)[:, :, :300] for image in sample_images()[:2]]
    if not detector.takes_proposals:
        return images
    counts = (30, 12)
    return [evolve(to_sample(x), proposals=spread_boxes(n, x.shape[1:])) for x, n in zip(images, counts, strict=True)]


def assert_alike(found: Detections, expected: Detections) -> None:
    """The same detections; those whose scores are equal, but for rounding, in any order."""
    assert len(found) == len(expected)
    apart = (expected.boxes[:, None] - found.boxes).abs().amax(-1)
    apart = torch.where(expected.labels[:, None] == found.labels, apart, torch.inf)
    own = apart.argmin(1)
    assert torch.equal(own.sort().values, torch.arange(len(found)))
    found = found[own]
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=1e-4)
    torch.testing.assert_close(found.boxes, expected.boxes, rtol=0, atol=2e-3)
    if expected.masks is not None:
        assert found.masks is not None
        assert float((found.masks != expected.masks).float().mean()) < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("family", IN_ONNX)
def test_every_family_is_an_onnx_model(family, tmp_path):
    pytest.importorskip("onnxruntime", reason=REASON)
    pytest.importorskip("onnxscript", reason=REASON)
    detector = built(*FAMILIES[family])
    found = export_detector(detector, tmp_path / "model.onnx")
    assert found is not None
    assert found.images == 3
    assert found.detections > 10
    exported = load_exported(tmp_path / "model.onnx")
    images = photographs(detector)
    expected = [predict(detector, image) for image in images]
    for image, one in zip(images, expected, strict=True):
        assert_alike(exported(image), one)
    assert [len(d) for d in exported(images, batch_size=2)] == [len(d) for d in expected]


@pytest.mark.slow
@pytest.mark.parametrize("family", AS_PROGRAM)
def test_families_are_programs(family, tmp_path):
    detector = built(*FAMILIES[family])
    found = export_detector(detector, tmp_path / "model.pt2", "torch-export")
    assert found is not None
    assert found.detections > 10
    exported = load_exported(tmp_path / "model.pt2")
    for image in photographs(detector):
        assert_alike(exported(image), predict(detector, image))
    check_predictor(tmp_path / "model.pt2", detector)


@pytest.mark.slow
def test_levels_may_have_one_row(tmp_path):
    """SSDLite's coarsest level has a pixel for 512 of the image: images with one row of it, one column, or more."""
    detector = built(*FAMILIES["ssdlite"])
    detector.test_transforms = ()
    generator = torch.Generator().manual_seed(0)
    sizes = ((40, 60), (180, 530), (600, 500), (520, 640))
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in sizes]
    found = export_detector(detector, tmp_path / "model.pt2", "torch-export", images=images)
    assert found is not None
    assert found.detections > 10


def test_the_image_that_is_tried_is_large_enough():
    """For the seven levels of SSD512, whose convolutions of the last ones have no padding."""
    detector = built("ssd/vgg16-512-coco-120e", ("detector.backbone.channels=4",))
    found = PaddedDetector(detector).detect(*example_inputs(*TRIED, count=1))
    assert found.boxes.shape == (1, 200, 4)


def check_predictor(file: Path, detector: Detector) -> None:
    """`Predictor` takes an exported file as it does a checkpoint."""
    predictor = pickle.loads(pickle.dumps(Predictor(file, "cpu", batch_size=2)))
    images = photographs(detector)
    for found, image in zip(predictor(images), images, strict=True):
        assert_alike(found, predict(detector, image))
    assert predictor.classes == detector.found_classes
    assert predictor.pad_divisor == detector.preprocess.config.pad_divisor
    found = predict(detector, images[0])
    kept = found[found.labels == int(found.labels[0])]
    assert 0 < len(kept) < len(found)
    only = [predictor.classes.names[int(found.labels[0])]]
    assert_alike(Predictor(file, "cpu", classes=only)(images[0]), kept)
    with pytest.raises(DetError, match=r"^classes: the detector has no class 'zebra'"):
        Predictor(file, "cpu", classes=["zebra"])
    with pytest.raises(DetError, match=r"model.pt2: an exported file has no modules; load the checkpoint it was made"):
        _ = predictor.detector


@pytest.mark.parametrize("option", [{"precision": "bf16"}, {"tiling": Tiling(size=64)}, {"augmentation": FLIP}])
def test_a_predictor_of_an_exported_file_has_its_settings(option):
    with pytest.raises(DetError, match=r"^model.onnx: precision, augmentation, tiling and recipe are options for ch"):
        Predictor("model.onnx", "cpu", **option)


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    """The program of a detector that finds nothing on most images."""
    file = tmp_path_factory.mktemp("program") / "model.pt2"
    name, settings = FAMILIES["mask"]
    detector = built(name, (*settings, "detector.roi_head.score_threshold=1.0"))
    found = export_detector(detector, file, "torch-export", recipe=name)
    assert found == Comparison(images=3, detections=0, boxes=0.0, scores=0.0, masks=0.0)
    return file


@pytest.mark.slow
def test_images_without_detections(program):
    exported = load_exported(program)
    found = exported(sample_images(), batch_size=3)
    assert [len(d) for d in found] == [0, 0, 0]
    assert found[0].masks.shape == (0, *sample_images()[0].shape[1:])
    assert exported(sample_images()[0]).boxes.shape == (0, 4)


@pytest.mark.slow
def test_a_file_says_what_is_in_it(program):
    header = load_exported(program).header
    name, settings = FAMILIES["mask"]
    assert header.classes == Classes.numbered(3)
    assert header.recipe == name
    assert header.paste == MaskPaste()
    assert (header.max_detections, header.pad_divisor, header.inclusive, header.pixels) == (100, 32, False, "uint8")
    assert header.transforms == built(name, settings).test_transforms


HEADER = ExportedHeader(
    classes=Classes(names=("cat", "dog"), ids=(3, 7)),
    transforms=(),
    inclusive=True,
    pixels="float32",
    pad_divisor=1,
    max_detections=50,
    paste=MaskPaste(rule="resized", threshold=0.4, last_pixel=True),
    recipe="mine",
)


@pytest.mark.parametrize(
    "header", [HEADER, evolve(HEADER, paste=None, pixels="uint8"), evolve(HEADER, takes_proposals=True)]
)
def test_metadata_make_an_equal_header(header):
    metadata = header.to_metadata()
    assert all(isinstance(text, str) for text in metadata.values())
    assert ExportedHeader.from_metadata(metadata, "x.onnx") == header
    names = set(json.loads(metadata["layout"]))
    lacking = (set() if header.paste else {"masks"}) | (set() if header.takes_proposals else set(PROPOSAL_INPUTS))
    assert names == set(LAYOUT) - lacking


def test_a_file_from_before_proposals_takes_none():
    metadata = HEADER.to_metadata()
    del metadata["takes_proposals"]
    assert ExportedHeader.from_metadata(metadata, "x.onnx") == HEADER


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"format": "other 3"},
            "x.onnx: found 'other 3' in its metadata, expected 'det-export 1'; export it",
        ),
        ({"classes": "{"}, r"x.onnx: its metadata is damaged \(JSONDecodeError: "),
        ({"mask_paste": '{"colour": 1}'}, r"x.onnx: its metadata is damaged \(TypeError: "),
    ],
)
def test_wrong_metadata_are_refused(change, message):
    with pytest.raises(DetError, match=f"^{message}"):
        ExportedHeader.from_metadata(HEADER.to_metadata() | change, "x.onnx")


def test_a_file_of_another_kind_is_refused(tmp_path):
    with pytest.raises(DetError, match=r"model.onnx: no such file$"):
        load_exported(tmp_path / "model.onnx")
    for name in ("model.txt", "model.pt2"):
        (tmp_path / name).write_bytes(b"words")
    with pytest.raises(DetError, match=r"model.txt: found the suffix '.txt', expected an exported detector \(.onnx or"):
        load_exported(tmp_path / "model.txt")
    with pytest.raises(DetError, match=r"model.pt2: not a readable torch.export program \("):
        load_exported(tmp_path / "model.pt2")


def test_a_damaged_onnx_model_is_refused(tmp_path):
    pytest.importorskip("onnxruntime", reason=REASON)
    (tmp_path / "model.onnx").write_bytes(b"words")
    with pytest.raises(DetError, match=r"model.onnx: ONNX Runtime cannot read it \("):
        load_exported(tmp_path / "model.onnx")


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    (tmp_path / "model.onnx").write_bytes(b"words")
    message = r"^running an ONNX model requires onnxruntime, which cannot be imported \(.*\); install it with `pip"
    with pytest.raises(DetError, match=message):
        load_exported(tmp_path / "model.onnx")
    with pytest.raises(DetError, match=r"^a test requires no_such_package"):
        optional_packages.require("no_such_package", "a test", "export")


class Recorder:
    """Stands in for a written file that takes proposals: keeps its inputs and finds nothing."""

    header = evolve(HEADER, paste=None, takes_proposals=True)

    def __call__(self, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        self.inputs = inputs
        count = len(inputs[0])
        return torch.zeros(count, 1, 4), torch.zeros(count, 1), torch.zeros(count, 1).long(), torch.zeros(count).long()


def test_proposals_are_padded():
    samples = [to_sample(image[:, :90, :130]) for image in sample_images()[:2]]
    boxes = spread_boxes(3, (90, 130))
    runner = Recorder()
    ExportedDetector(runner)(
        [evolve(samples[0], proposals=boxes), evolve(samples[1], proposals=boxes[:0])], batch_size=2
    )
    proposals, counts = runner.inputs[4:]
    assert counts.tolist() == [3, 0]
    torch.testing.assert_close(proposals, torch.stack([boxes, torch.zeros(3, 4)]))
    ExportedDetector(runner)(evolve(samples[0], proposals=boxes[:0]))
    assert runner.inputs[4].shape == (1, 1, 4)


def test_missing_proposals_are_reported():
    image = sample_images()[0]
    with_proposals = evolve(to_sample(image), proposals=spread_boxes(3, image.shape[1:]))
    message = (
        "^1 of 2 images have no proposals, which this exported detector requires because it has no proposal head; in "
        "Python, pass samples with proposals .*; `det-core predict` reads images alone$"
    )
    with pytest.raises(DetError, match=message):
        ExportedDetector(Recorder())([with_proposals, image], batch_size=2)


@pytest.mark.parametrize("scale", [None, (0.5, 0.4)])
def test_given_proposals_are_those_of_a_transformed_sample(scale):
    """Resized, clipped to the image and without those that have no extent there; scale: of first and last pixels."""
    image = sample_images()[1]
    outside = torch.tensor([[300.0, 10.0, 320.0, 20.0], [-9.0, -5.0, 30.0, 400.0], [5.0, 5.0, 5.0, 9.0]])
    boxes = torch.cat([spread_boxes(5, image.shape[1:]), outside])
    sample = evolve(to_sample(image), proposals=boxes)
    loaded = prepare(sample, [lambda x: resize(x, (77, 102), pixel_scale=scale)], Key())
    batch = PaddedBatch(
        images=torch.zeros(1, 3, 96, 128),
        sizes=torch.tensor([loaded.info.size]).float(),
        original_sizes=torch.tensor([loaded.info.original_size]).float(),
        scales=torch.tensor([loaded.info.scale]),
        inclusive=loaded.info.inclusive,
    )
    padded = torch.cat([boxes, torch.full((2, 4), torch.nan)])[None]
    found = given_proposals(padded, torch.tensor([len(boxes)]), batch)
    assert loaded.proposals is not None
    assert int(found.valid.sum()) == len(loaded.proposals) < len(boxes)
    torch.testing.assert_close(found.boxes[found.valid], loaded.proposals)
    assert not found.boxes[~found.valid].any()


@pytest.fixture(scope="module")
def detector() -> Detector:
    return built(*FAMILIES["faster"])


@pytest.mark.parametrize(
    ("file", "format_", "message"),
    [
        ("model.pt2", "onnx", "model.pt2: found the suffix '.pt2', expected '.onnx' for format onnx$"),
        (
            "model.onnx",
            "torch-export",
            "model.onnx: found the suffix '.onnx', expected '.pt2' for format torch-export$",
        ),
        ("model.onnx", "tensorrt", "^format: found 'tensorrt', allowed: onnx, torch-export$"),
    ],
)
def test_a_format_has_its_suffix(detector, tmp_path, file, format_, message):
    with pytest.raises(DetError, match=message):
        export_detector(detector, tmp_path / file, format_)


def test_only_float32_on_the_cpu_is_exported(tmp_path):
    half = built(*FAMILIES["faster"]).bfloat16()
    message = r"^the detector has parameters of torch.bfloat16 on cpu, expected torch.float32 on cpu; use detector.cpu"
    with pytest.raises(DetError, match=message):
        export_detector(half, tmp_path / "model.pt2", "torch-export")


def test_there_is_something_to_compare_on(detector, tmp_path):
    with pytest.raises(DetError, match=r"^images: found none, expected at least one image to compare"):
        export_detector(detector, tmp_path / "model.pt2", "torch-export", images=[])


@pytest.mark.slow
def test_a_file_that_disagrees_is_not_left(detector, tmp_path, monkeypatch):
    moved = ExportedDetector.detect

    def detect(self, images):
        return [Detections(boxes=d.boxes + 0.5, scores=d.scores, labels=d.labels) for d in moved(self, images)]

    monkeypatch.setattr(ExportedDetector, "detect", detect)
    with pytest.raises(DisagreementError) as raised:
        export_detector(detector, tmp_path / "model.pt2", "torch-export")
    lines = str(raised.value).splitlines()
    assert "model.pt2: not written, since it gives other detections than the detector (3 images, " in lines[0]
    assert lines[1].startswith("  image of 256 x 179: the detector alone finds class ")
    assert lines[-1].startswith("compare it on other images (--images), allow more (--box-tolerance")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "unmatched"),
    [
        ({}, 0),
        ({"boxes": 5e-4, "scores": 5e-5}, 0),
        ({"boxes": 5e-3}, 16),  # of each of two images and both sides, all but the last
        ({"scores": 5e-4}, 18),
        ({"labels": 1}, 16),
        ({"last": True}, 0),
        ({"first": True}, 2),
    ],
)
def test_what_counts_as_a_difference(detector, monkeypatch, change, unmatched):
    """Each image has five detections; the last may be missing, as it may be at the threshold."""
    own = Detections(
        boxes=torch.arange(20.0).reshape(5, 4), scores=torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5]), labels=torch.arange(5)
    )
    rows = slice(1, 5) if change.get("first") else slice(0, 4 if change.get("last") else 5)
    theirs = Detections(
        boxes=(own.boxes + change.get("boxes", 0))[rows],
        scores=(own.scores + change.get("scores", 0))[rows],
        labels=(own.labels + change.get("labels", 0))[rows],
    )
    images = compare_exported_images(detector)[:2]
    monkeypatch.setattr(detector, "predict", lambda batch: [own] * len(batch))

    class Fixed:
        def detect(self, images):
            return [theirs] * len(images)

    found = compare(detector, Fixed(), images, Tolerances())
    assert len(found.unmatched) == unmatched
    assert found.detections == 10


def compare_exported_images(detector: Detector):
    from det_core.export.export_detector import _loaded

    return _loaded(detector, None)


def test_the_images_of_the_sample_have_three_sizes():
    sizes = [tuple(image.shape[1:]) for image in sample_images()]
    assert len(set(sizes)) == 3
    assert all(height != width for height, width in sizes)
    assert compare_exported.SAMPLE.is_dir()


def test_onnx_has_no_maximum_pooling():
    pytest.importorskip("onnxscript", reason=REASON)
    from det_core.export.onnx_operators import roi_align

    with pytest.raises(NotExportableError, match=r"^roi_align: found mode 'max', but ONNX's RoiAlign can only average"):
        roi_align([], None, None, [7, 7], [1.0], 0, "aligned", "max")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    name, settings = FAMILIES["faster"]
    recipe = load_recipe(name, list(settings))
    classes = Classes.numbered(3)
    run = tmp_path_factory.mktemp("run")
    header = Header(recipe=recipe, classes=classes, plugins=plugin_manager().versions())
    save_checkpoint(run, header, built(name, settings).state_dict())
    return run


@pytest.mark.slow
def test_the_verb_writes_a_file_that_is_compared(checkpoint, tmp_path):
    out = tmp_path / "model.pt2"
    done = CliRunner().invoke(
        cli,
        [
            "export",
            "--checkpoint",
            str(checkpoint),
            "-o",
            str(out),
            "--max-detections",
            "7",
            "--score-threshold",
            "0.2",
        ],
    )
    assert done.exit_code == 0, done.output
    assert done.output.startswith(f"{out}: torch-export, 3 images, ")
    assert load_exported(out).header.max_detections == 7
    assert [file.name for file in tmp_path.iterdir()] == ["model.pt2"]


@pytest.mark.slow
def test_the_verb_says_that_proposals_are_needed(tmp_path):
    run, out, made = tmp_path / "run", tmp_path / "model.pt2", []
    name, settings = FAMILIES["fast"]
    header = Header(
        recipe=load_recipe(name, list(settings)), classes=Classes.numbered(3), plugins=plugin_manager().versions()
    )
    save_checkpoint(run, header, built(name, settings).state_dict())
    for arguments in (
        ["export", "--checkpoint", str(run), "-o", str(out)],
        ["predict", "--checkpoint", str(out), str(compare_exported.SAMPLE), "--out", str(tmp_path / "found")],
    ):
        made.append(CliRunner().invoke(cli, arguments))
    exported, predicted = made
    assert exported.exit_code == 0, exported.output
    assert exported.output.startswith(f"{out}: torch-export, 3 images, ")
    assert exported.output.endswith(
        "It takes proposals as inputs, which docs/export.md describes. "
        "Images without proposals were given random ones.\n"
    )
    assert predicted.exit_code == 1
    assert "1 of 1 images have no proposals, which this exported detector requires" in predicted.output


@pytest.mark.slow
def test_predict_takes_an_exported_file(program, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"words")
    images = [str(compare_exported.SAMPLE), str(tmp_path / "bad.png")]
    done = CliRunner().invoke(
        cli, ["predict", "--checkpoint", str(program), *images, "--out", str(tmp_path / "found"), "--batch-size", "4"]
    )
    assert done.exit_code == 1
    assert f"1 of {len(list(compare_exported.SAMPLE.glob('*.png'))) + 1} images cannot be read" in done.output
    lines = (tmp_path / "found" / "predictions.jsonl").read_text(encoding="utf8").splitlines()
    records = [json.loads(line) for line in lines]
    assert [r for r in records if r.get("detections")] == []  # its threshold is 1
    assert all(r["model"].startswith(f"{program.name} ") for r in records)
    assert sum("detections" in r for r in records) == len(records) - 1


@pytest.mark.parametrize(
    "option", [["--flip"], ["--amp"], ["--score-threshold", "0"], ["--scale", "90x60"], ["--tile", "64"]]
)
def test_the_settings_of_an_exported_file_are_fixed(option, tmp_path):
    done = CliRunner().invoke(
        cli, ["predict", "--checkpoint", "model.onnx", str(compare_exported.SAMPLE), "--out", str(tmp_path), *option]
    )
    assert done.exit_code == 1
    assert f"{option[0]}: model.onnx is an exported detector, whose settings are fixed; remove the" in done.output


@pytest.mark.slow
def test_the_page_on_export_runs(tmp_path, monkeypatch):
    """Its Python, in one namespace and an empty folder; that of OpenVINO where it is installed."""
    pytest.importorskip("onnxruntime", reason=REASON)
    pytest.importorskip("onnxscript", reason=REASON)
    page = Path(__file__).parents[1] / "docs" / "export.md"
    blocks = re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 4
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "page"}
    for block in blocks:
        if "import openvino" not in block or importlib.util.find_spec("openvino"):
            exec(compile(block, str(page), "exec", dont_inherit=True), namespace)
    assert {file.name for file in tmp_path.iterdir()} == {"mine.onnx", "fast.pt2"}


def test_the_verb_needs_a_suffix_or_a_format(checkpoint, tmp_path):
    done = CliRunner().invoke(cli, ["export", "--checkpoint", str(checkpoint), "-o", str(tmp_path / "model.bin")])
    assert done.exit_code == 1
    assert "found the suffix '.bin', expected .onnx or .pt2, or give --format" in done.output
