"""Images of 16 bits, and of other than 3 channels: trained on, tested and predicted on with the commands."""

from __future__ import annotations

import json
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from PIL import Image

from det_core import Predictor, load_recipe
from det_core.cli.main import run
from det_core.engine.checkpoint import load_detector
from det_core.engine.device_batches import infos_of
from det_core.engine.predict_video import predict_video
from det_core.engine.test_time_augmentation import Augmentation
from det_core.engine.tiling import Tiling
from det_core.errors import ConfigError, DetError
from det_core.export.export_detector import export_detector
from det_core.specs import PixelFormat

RECIPE = "faster-rcnn/r18-fpn-demo"
RESIZE = "{type: resize, scales: [[96, 96]], arithmetic: float}"
GRAY = ("detector.preprocess={mean: [9000.0], std: [7000.0], bits: 16}", "detector.backbone.in_channels=1")
FOUR = (
    "detector.preprocess={mean: [90.0, 100.0, 110.0, 120.0], std: [50.0, 51.0, 52.0, 53.0]}",
    "detector.backbone.in_channels=4",
)
TEN = ("detector.preprocess={mean: [%s], std: [%s], bits: 16}", "detector.backbone.in_channels=5")
FIVE = (TEN[0] % (", ".join(["9000.0"] * 5), ", ".join(["7000.0"] * 5)), TEN[1])
SIZE = (48, 64)


def pixels(number: int, channels: int, most: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, most + 1, (*SIZE, channels))


def save_gray(path: Path, number: int) -> Path:
    path = path.with_suffix(".tif" if number % 2 else ".png")
    Image.fromarray(pixels(number, 1, 65535)[:, :, 0].astype(np.uint16)).save(path)
    return path


def save_rgba(path: Path, number: int) -> Path:
    path = path.with_suffix(".png")
    Image.fromarray(pixels(number, 4, 255).astype(np.uint8), "RGBA").save(path)
    return path


def save_array(path: Path, number: int) -> Path:
    path = path.with_suffix(".npy")
    np.save(path, pixels(number, 5, 65535).astype(np.uint16))
    return path


KINDS = {"gray": (save_gray, GRAY), "rgba": (save_rgba, FOUR), "array": (save_array, FIVE)}


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def data_of(root: Path, kind: str) -> Path:
    """A data set in COCO's format: two images with a box each, to train and evaluate on."""
    for split, numbers in (("train", (0, 1)), ("val", (2, 3))):
        (root / split).mkdir(parents=True)
        files = [KINDS[kind][0](root / split / f"{split}{number}", number) for number in numbers]
        images = [
            {"id": i, "file_name": file.name, "height": SIZE[0], "width": SIZE[1]} for i, file in enumerate(files, 1)
        ]
        box = {"bbox": [8, 8, 30, 24], "area": 720, "iscrowd": 0, "category_id": 1}
        annotations = [{"id": i, "image_id": i, **box} for i in (1, 2)]
        categories = [{"id": 1, "name": "cell"}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / f"instances_{split}.json").write_text(json.dumps(content))
    return root


def settings(tiny_settings, kind: str, *more: str) -> list[str]:
    own = (f"data.train_transforms=[{RESIZE}, {{type: flip}}]", f"data.test_transforms=[{RESIZE}]")
    rest = ("detector.roi_head.score_threshold=0.0", "schedule.epochs=1")
    tiny = [s for s in tiny_settings if "mask_head" not in s]
    return [*tiny, *own, *rest, *KINDS[kind][1], *more]


def test_train_test_and_predict(tmp_path, tiny_settings, kind, capsys):
    data, work = data_of(tmp_path / "data", kind), tmp_path / "run"
    options = [word for s in settings(tiny_settings, kind, "data.repeat=2") for word in ("--set", s)]
    words = ["train", "--recipe", RECIPE, "--data", str(data), "--work-dir", str(work), "--device", "cpu", *options]
    assert run([*words, "--max-steps", "2"]) == 0, capsys.readouterr().err
    assert run(["test", "--checkpoint", str(work), "--json", str(tmp_path / "m.json"), "--device", "cpu"]) == 0
    assert "box_ap" in json.loads((tmp_path / "m.json").read_text())["metrics"]
    files = sorted((data / "val").iterdir())
    out = tmp_path / "found"
    words = ["predict", "--checkpoint", str(work), "--out", str(out), "--device", "cpu", "--crops", "--threshold", "0"]
    assert run([*words, *map(str, files)]) == 0, capsys.readouterr().err
    assert len(list((out / "pictures").glob("*.png"))) == 2
    # What the command finds in a file is what the detector finds in the data set's sample of it.
    dataset = load_recipe(RECIPE, settings(tiny_settings, kind), data=data).open_val()
    predictor = Predictor(work, device="cpu")
    sample = dataset.load(0)
    assert predictor.pixels == dataset.pixels != PixelFormat()
    found, again = predictor(dataset.file(0)), predictor(sample)
    assert len(found) > 0
    assert torch.equal(found.boxes, again.boxes)
    assert torch.equal(found.scores, again.scores)
    wanted = pixels(2, len(sample.image), 65535 if dataset.pixels.bits == 16 else 255)
    assert torch.equal(sample.image.permute(1, 2, 0).double(), torch.from_numpy(wanted).double())
    again = predictor(wanted.astype(np.uint16 if dataset.pixels.bits == 16 else np.uint8))
    torch.testing.assert_close(again.boxes, found.boxes)  # in another memory layout, which torch resizes apart
    large = Predictor(work, device="cpu", tiling=Tiling(size=40), augmentation=Augmentation(flip=True))
    assert len(large(dataset.file(0))) > 0
    out = tmp_path / "proposals.safetensors"
    words = ["proposals", "--checkpoint", str(work), "--data", str(data), "--split", "val", "-o", str(out)]
    assert run([*words, "--device", "cpu"]) == 0, capsys.readouterr().err


def test_pictures_of_a_data_set(tmp_path, tiny_settings, kind, capsys):
    data = data_of(tmp_path / "data", kind)
    options = [word for s in settings(tiny_settings, kind) for word in ("--set", s)]
    words = ["data", "--data", str(data), "--recipe", RECIPE, *options]
    assert run([*words, "--read-images", "--html", str(tmp_path / "page.html")]) == 0, capsys.readouterr().err
    for more in ([], ["--augmented"]):
        out = tmp_path / f"pictures{len(more)}"
        assert run([*words, "browse", "--out", str(out), *more]) == 0, capsys.readouterr().err
        picture = np.array(Image.open(sorted(out.iterdir())[0]))
        assert picture.shape[2] == 3
        assert picture.max() > 200  # 16 bits are scaled
        assert 0 < picture.min(axis=2).mean() < 200  # and not cut at 255


def test_the_format_is_that_of_the_recipe(tmp_path, tiny_settings):
    """Without settings of 16 bits, the same files are refused as before, with what to set."""
    data = data_of(tmp_path / "data", "gray")
    dataset = load_recipe(RECIPE, data=data).open_train()
    with pytest.raises(DetError, match="more than 8 bits .* or set `detector.preprocess.bits: 16`, with one mean"):
        dataset.load(0)


def test_batches_on_a_canvas_are_those_of_forward(tmp_path, tiny_settings, kind):
    """CUDA takes the canvas; floating-point values keep their fractions on it."""
    recipe = load_recipe(RECIPE, settings(tiny_settings, kind), data=data_of(tmp_path / "data", kind))
    dataset, detector = recipe.open_train(), recipe.detector.build(1)
    detector.test_transforms = recipe.data.test_transforms
    preparation = Predictor(detector, fold=False).preparation
    loaded = [preparation(dataset.load(i)).views[0] for i in range(2)]
    assert all(image.image.is_floating_point() for image in loaded)
    images, infos = [image.image for image in loaded], infos_of(loaded)
    canvas = detector.preprocess.canvas(images)
    sent, plain = detector.preprocess.normalised(canvas, infos), detector.preprocess(images, infos)
    assert torch.equal(sent.images, plain.images)


@pytest.mark.parametrize(
    ("kind", "more", "message"),
    [
        (
            "gray",
            "data.test_transforms=[{type: resize}]",
            r"data.test_transforms\[0\]: 'resize' with `arithmetic: fixed",
        ),
        ("gray", "data.train_transforms=[{type: flip}, {type: scale_jitter}]", r"\[1\]: 'scale_jitter' with `arithm"),
        ("gray", "data.train_transforms=[{type: copy_paste}]", "'copy_paste' takes only 8-bit images"),
        (
            "rgba",
            "data.train_transforms=[{type: color_jitter}]",
            "'color_jitter' takes only 8-bit images of 3 channels",
        ),
        ("rgba", "data.train_transforms=[{type: grayscale}]", "'grayscale' takes only 8-bit images of 3 channels"),
        ("rgba", "data.train_transforms=[{type: jpeg}]", "'jpeg' takes only"),
        ("rgba", "data.train_transforms=[{type: mosaic}]", "'mosaic' takes only"),
        ("rgba", "data.train_transforms=[{type: fixed_size_crop}]", "'fixed_size_crop' takes only"),
        ("rgba", "data.train_transforms=[{type: v2, name: RandomPosterize}]", "'v2' takes only"),
        (
            "rgba",
            "data.train_transforms=[{type: resize, arithmetic: antialiased}]",
            "'resize' with `arithmetic: antialiased` resizes only images of 3 channels; set `arithmetic: float`; the "
            "detector takes 8-bit images of 4 channels .`detector.preprocess`., so change or remove the transform",
        ),
        (
            "gray",
            "detector.backbone.in_channels=3",
            "'resnet' takes images of 3 channels, but `preprocess.mean` has 1 v",
        ),
        ("gray", "detector.preprocess.std=[1.0, 2.0]", "preprocess.std: found 2 values, but `mean` has 1; give both"),
        (
            "gray",
            "detector.preprocess.order=bgr",
            "preprocess.order: found 'bgr', but `mean` has 1 value; only images of 3 channels have such an order; set",
        ),
    ],
)
def test_settings_that_do_not_fit(tiny_settings, kind, more, message):
    with pytest.raises(ConfigError, match=message):
        load_recipe(RECIPE, settings(tiny_settings, kind, more))


@pytest.mark.parametrize(
    "transform", ["flip", "random_crop", "gaussian_blur", "iou_crop", "scale_jitter, arithmetic: float"]
)
def test_transforms_of_any_pixels(tmp_path, tiny_settings, transform, kind):
    own = f"data.train_transforms=[{{type: {transform}}}]"
    recipe = load_recipe(RECIPE, settings(tiny_settings, kind, own), data=data_of(tmp_path / "data", kind))
    sample = recipe.open_train().load(0)
    torch.manual_seed(0)
    done = recipe.data.train_transforms[0].build()(attrs.evolve(sample))
    assert len(done.image) == recipe.detector.backbone.input_channels()
    assert done.image.max() <= sample.image.max()
    assert done.image.float().mean() == pytest.approx(float(sample.image.float().mean()), rel=0.2)


def test_what_a_detector_of_other_images_refuses(tmp_path, tiny_settings):
    recipe = load_recipe(RECIPE, settings(tiny_settings, "gray"))
    detector = recipe.detector.build(1)
    with pytest.raises(
        DetError, match="test transform 'resize' with `arithmetic: fixed_point` resizes only 8-bit images"
    ):
        Predictor(detector)
    detector.test_transforms = recipe.data.test_transforms
    with pytest.raises(DetError, match="only detectors of 8-bit images of 3 channels can be exported"):
        export_detector(detector, tmp_path / "model.onnx")
    predictor = Predictor(detector, fold=False)
    with pytest.raises(
        DetError, match="a video has 8-bit images of 3 channels, but the detector takes 16-bit images of 1 c"
    ):
        predict_video(predictor, "a.mp4", tmp_path / "a.jsonl", None, model="m", stride=1, threshold=0.5)
    with pytest.raises(DetError, match="order: found 'bgr', but the detector takes 16-bit images of 1 channel; leave"):
        Predictor(detector, fold=False, order="bgr")
    with pytest.raises(DetError, match=r"ndarray \(8, 8, 3\) of uint8, expected \(h, w, 1\) of uint16 or float32"):
        predictor(np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(DetError, match=r"Tensor \(3, 8, 8\) of torch.uint8, expected \(1, h, w\) of uint16 or float32"):
        predictor(torch.zeros(3, 8, 8, dtype=torch.uint8))
    with pytest.raises(
        DetError, match="a PIL image: found PIL mode RGB, but the detector takes 16-bit images of 1 chan"
    ):
        predictor(Image.new("RGB", (8, 8)))
    with pytest.raises(
        DetError, match="an image has 3 channels, but the detector takes 16-bit images of 1 channel; call"
    ):
        detector.preprocess([torch.zeros(3, 8, 8)], [])


def test_predictors_take_what_a_detector_takes(tmp_path, tiny_settings):
    recipe = load_recipe(RECIPE, settings(tiny_settings, "gray"))
    detector = recipe.detector.build(1)
    detector.test_transforms = recipe.data.test_transforms
    predictor = Predictor(detector, fold=False)
    predictor.warm_up([(32, 32)])
    path = save_gray(tmp_path / "a", 0)
    values = pixels(0, 1, 65535).astype(np.uint16)
    given = [path, path.read_bytes(), Image.open(path), values, torch.from_numpy(values).permute(2, 0, 1)]
    boxes = [found.boxes for found in predictor(given)]
    assert len(boxes[0]) > 0
    assert all(torch.equal(boxes[0], other) for other in boxes[1:])


def test_checkpoints_from_before_the_settings_open(make_tiny_checkpoint):
    """Their recipes have no `bits` and no `in_channels`."""
    run_folder = make_tiny_checkpoint(RECIPE)
    detector = load_detector(run_folder)
    plain = load_recipe(RECIPE).to_plain()
    del plain["detector"]["preprocess"]["bits"], plain["detector"]["backbone"]["in_channels"]
    from det_core.load import recipe_from_plain

    assert recipe_from_plain(plain) == load_recipe(RECIPE)
    assert detector.preprocess.config.pixels() == PixelFormat(3, 8)
