"""Checkpoints of detectron2: every container is read, recipes are named, and what is refused."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor

from det_core import load_detector, load_recipe
from det_core.cli.main import run
from det_core.data.resize import resize_image
from det_core.model.detector import Detector
from det_core.plugins import plugin_manager
from det_core.weights.detectron_facts import CLASSES, candidates
from det_core.weights.fill_detector import COUNTERS
from det_core.weights.read_files import read_source
from det_core.weights.translate_names import detector_names, locate

FORMATS = Path(__file__).parent / "formats"
EXPECTED = json.loads((FORMATS / "expected.json").read_text(encoding="utf8"))
RECIPE = "retinanet/detectron2-r50-fpn-1x"
SMALL = (
    *("detector.backbone.depth=18", "detector.backbone.style=pytorch", "detector.backbone.pretrained=null"),
    *("detector.neck.channels=16", "detector.dense_head.channels=16", "detector.dense_head.num_convs=1"),
)


@pytest.mark.parametrize("name", EXPECTED)
def test_every_container_is_read(name: str) -> None:
    state = read_source(FORMATS / name).state
    expected = {key.removeprefix("module."): value for key, value in EXPECTED[name].items()}
    assert set(expected) <= set(state)
    for key, (shape, total) in expected.items():
        value = torch.as_tensor(state[key])
        assert list(value.shape) == shape
        assert value.double().sum().item() == pytest.approx(total, abs=1e-4)


def written(detector: Detector) -> dict[str, Tensor]:
    """A RetinaNet as detectron2 names and lays it out: anchors of a cell sorted by size."""
    assert detector.config is not None
    parts, found = detector_names("detectron2", detector.config, []), {}
    for key, value in detector.state_dict().items():
        if key.endswith("num_batches_tracked"):
            continue
        if key.startswith(("dense_head.scores", "dense_head.deltas")):
            value = value.unflatten(0, (3, 3, -1)).transpose(0, 1).flatten(0, 2)
        found[locate("detectron2", parts, key).name] = value
    return found


@pytest.fixture(scope="module")
def theirs() -> Detector:
    torch.manual_seed(0)
    return load_recipe(RECIPE, SMALL).detector.build(num_classes=80)


def importing(file: Path, *more: str, recipe: str | None = RECIPE) -> tuple[list[str], Path]:
    out = file.parent / "out.safetensors"
    named = [] if recipe is None else ["--recipe", recipe, *(part for s in SMALL for part in ("--set", s))]
    return ["import-weights", str(file), "--from", "detectron2", "-o", str(out), *named, *more], out


def test_a_detector_comes_back(theirs: Detector, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "model_final.pkl"
    content = {"model": {k: v.numpy() for k, v in written(theirs).items()}, "__author__": "Detectron2 Model Zoo"}
    file.write_bytes(pickle.dumps(content, protocol=2))
    arguments, out = importing(file)
    assert run(arguments) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "a detector of detectron2, 80 classes (person, bicycle, car, motorcycle, ...)" in said
    assert "anchors of a cell sorted by ratio, then by size (4 weights)" in said
    ours = load_detector(out)
    assert all(torch.equal(ours.state_dict()[k], v) for k, v in theirs.state_dict().items())


def test_the_recipes_that_it_may_be_of_are_named(
    theirs: Detector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "x.pth"
    torch.save({"model": written(theirs)}, file)
    arguments, out = importing(file, recipe=None)
    assert run(arguments) == 1
    said = capsys.readouterr().err
    assert "a detector of detectron2, and its recipe cannot be told from its weights: no recipe has all of its" in said
    assert not out.exists()


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (RECIPE, ["retinanet/detectron2-r50-fpn-1x", "retinanet/detectron2-r50-fpn-3x"]),
        ("rpn/detectron2-r50-c4-1x", ["rpn/detectron2-r50-c4-1x"]),
        ("mask-rcnn/detectron2-r101-c4-3x", ["mask-rcnn/detectron2-r101-c4-3x"]),
        ("faster-rcnn/detectron2-x101-32x8d-fpn-3x", ["faster-rcnn/detectron2-x101-32x8d-fpn-3x"]),
        ("fast-rcnn/detectron2-r50-fpn-1x", ["fast-rcnn/detectron2-r50-fpn-1x"]),
        (
            "mask-rcnn/detectron2-r50-fpn-gn-3x",
            [
                "mask-rcnn/detectron2-r50-fpn-gn-3x",
                "mask-rcnn/detectron2-r50-fpn-scratch-gn-3x",
                "mask-rcnn/detectron2-r50-fpn-scratch-gn-9x",
            ],
        ),
        ("mask-rcnn/detectron2-r50-fpn-lsj-200e", [f"mask-rcnn/detectron2-r50-fpn-lsj-{n}00e" for n in (1, 2, 4)]),
        ("mask-rcnn/detectron2-r50-fpn-agnostic-1x", ["mask-rcnn/detectron2-r50-fpn-agnostic-1x"]),
        ("mask-rcnn/detectron2-r50-fpn-cityscapes-24k", ["mask-rcnn/detectron2-r50-fpn-cityscapes-24k"]),
        ("mask-rcnn/detectron2-r101-fpn-lvis-v1-1x", ["mask-rcnn/detectron2-r101-fpn-lvis-v1-1x"]),
        (
            "mask-rcnn/detectron2-r50-fpn-dconv-c3-c5-3x",
            [f"mask-rcnn/detectron2-r50-fpn-dconv-c3-c5-{n}x" for n in (1, 3)],
        ),
    ],
)
def test_what_the_weights_show(recipe: str, expected: list[str]) -> None:
    config = load_recipe(recipe).detector
    count = next((n for name, n in CLASSES.items() if name in recipe), 80)
    with torch.device("meta"):
        detector = config.build(num_classes=count)
    parts = detector_names("detectron2", config, [])
    counted = config.backbone.norm.type == "batch_norm"  # type: ignore[attr-defined]
    state = {
        locate("detectron2", parts, key).name: torch.zeros(()).expand(value.shape)
        for key, value in detector.state_dict().items()
        if counted or not key.endswith(COUNTERS)
    }
    assert candidates("detectron2", state, plugin_manager().recipes()) == expected


def test_what_contradicts(theirs: Detector, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "x.pth"
    mean = torch.tensor([102.9801, 115.9465, 122.7717]).view(3, 1, 1)
    torch.save({"model": {**written(theirs), "pixel_mean": mean}, "iteration": 3}, file)
    arguments, out = importing(file)
    assert run(arguments) == 1
    said = capsys.readouterr().err
    assert "the file contradicts the recipe retinanet/detectron2-r50-fpn-1x; change these settings, or force" in said
    assert "detector.preprocess.mean: the recipe has [103.53, 116.28, 123.675], the file [102.9801, 115" in said
    assert run([*arguments, "--force"]) == 0
    out.unlink()
    torch.save({"model": written(theirs)}, file)
    arguments, _ = importing(file, recipe="retinanet/r50-caffe-fpn-1x")
    assert run(arguments) == 1
    said = capsys.readouterr().err
    assert "weights of detectron2 do not mean the same under these settings" in said
    assert "detector.dense_head.clip: found 'before', expected 'after'" in said


def test_images_are_resized_as_pillow_does() -> None:
    import numpy as np
    from PIL import Image

    pixels = np.random.RandomState(0).randint(0, 256, (50, 71, 3), np.uint8)
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    found = resize_image(image, (20, 33), "antialiased", flip_x=True)
    expected = np.asarray(Image.fromarray(pixels).resize((33, 20), Image.Resampling.BILINEAR))[:, ::-1]
    assert np.array_equal(found.permute(1, 2, 0).numpy(), expected)
    with pytest.raises(ValueError, match="image has 1 channels, expected 3: Pillow resizes colour images"):
        resize_image(image[:1], (20, 33), "antialiased")
    with pytest.raises(ValueError, match="an image on a canvas must be drawn before it is resized by Pillow"):
        resize_image(image, (20, 33), "antialiased", canvas=object())  # type: ignore[arg-type]
