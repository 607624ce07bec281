"""`torchvision:NAME`: published weights are fetched and converted once, and fine-tuned; without a network, what to do.

Nothing is downloaded here. Files of random weights stand for the published ones.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.error import URLError

import pytest
import torch
import torchvision
from attrs import evolve, frozen
from torch import Tensor, nn

sys.path.append(str(Path(__file__).parent))

from torchvision_imports import randomise_norms

from det_core import train
from det_core.cli.main import run
from det_core.data.coco_classes import COCO_CLASSES, COCO_IDS
from det_core.engine import published_checkpoint as converting
from det_core.engine.checkpoint import initialise, load_detector, read_header, read_weights, write_weights
from det_core.engine.published_checkpoint import initial_checkpoint, published_checkpoint
from det_core.errors import WeightsError
from det_core.load import load_recipe
from det_core.offers import RecipeEntry
from det_core.plugins import installed_plugins, plugin_manager
from det_core.structures import Batch, Classes, ImageInfo
from det_core.testing.isolated_plugins import isolated_manager, make_plugin
from det_core.weights.fill_detector import class_count, import_weights
from det_core.weights.published_weights import entry_of, published_source, with_classes

LITE, LITE_RECIPE = "torchvision:ssdlite320_mobilenet_v3_large", "ssd/torchvision-mobilenet-v3-large-320"
SMALL = "torchvision:fasterrcnn_mobilenet_v3_large_320_fpn"
ENTRIES = {e.published_weights: e for e in plugin_manager().recipes().values() if e.published_weights}
CATEGORIES = torchvision.models.get_model_weights("ssd300_vgg16")["COCO_V1"].meta["categories"]
UNUSED = [i for i, name in enumerate(CATEGORIES) if name == "N/A"]
OTHERS = {"fcos_resnet50_fpn", "keypointrcnn_resnet50_fpn"}  # which det does not have
MODELS = "https://download.pytorch.org/models/"
SETTINGS = ("data.workers=0", "data.images_per_rank=2", "data.train_transforms=[{type: resize, scales: [[320, 320]], "
            "keep_ratio: false}]")  # fmt: skip


def build(name: str) -> nn.Module:
    """torchvision's model of 91 classes, with random weights."""
    make = torchvision.models.get_model_builder(name.removeprefix("torchvision:"))
    made: nn.Module = make(weights=None, weights_backbone=None)
    return made.eval()


# Names


def test_all_classic_detectors_of_torchvision_are_there() -> None:
    theirs = set(torchvision.models.list_models(module=torchvision.models.detection))
    assert {name.removeprefix("torchvision:") for name in ENTRIES} == theirs - OTHERS
    assert len(ENTRIES) == 10


def test_an_unknown_name_gets_the_nearest_and_all_allowed_ones() -> None:
    with pytest.raises(WeightsError) as caught:
        entry_of("torchvision:ssd300_vgg19")
    assert str(caught.value) == (
        "there are no published weights 'torchvision:ssd300_vgg19'; did you mean \"torchvision:ssd300_vgg16\"?; "
        f"allowed: {', '.join(ENTRIES)}"
    )


def test_without_the_plugin_what_installs_it_is_named() -> None:
    with (
        isolated_manager(*(p for p in installed_plugins() if p[0] != "mobilenet")),
        pytest.raises(
            WeightsError, match=f"^{LITE}: det-plugin-mobilenet has the recipe of these weights: pip install "
        ),
    ):
        entry_of(LITE)
    with isolated_manager(), pytest.raises(WeightsError, match="allowed: none, since no installed plugin has such rec"):
        entry_of("torchvision:nothing")


@pytest.mark.parametrize("model", ["nothing", "resnet50"], ids=["no such model", "no such weights"])
def test_weights_that_the_installed_torchvision_does_not_have(model: str) -> None:
    entry = RecipeEntry(name="mine/one", make=lambda: load_recipe("mine"), published_weights=f"torchvision:{model}")
    with (
        isolated_manager(make_plugin("mine", det_recipes=lambda: [entry])),
        pytest.raises(
            WeightsError, match=rf"^torchvision:{model}: torchvision \S+, which is installed, has no weights C"
        ),
    ):
        published_source(f"torchvision:{model}")


def test_recipes_say_which_have_published_weights(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["recipes", "--find", "torchvision"]) == 0
    shown = capsys.readouterr().out
    assert all(f"--init {name}" in shown for name in ENTRIES)
    assert run(["recipes", "--find", "vgg16-300", "--json"]) == 0
    found = {e["name"]: e["published_weights"] for e in json.loads(capsys.readouterr().out)}
    assert found["ssd/torchvision-vgg16-300"] == "torchvision:ssd300_vgg16"
    assert found["ssd/vgg16-300-coco-120e"] == ""


# Classes


@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter:UserWarning")
@pytest.mark.parametrize("name", list(ENTRIES))
def test_every_model_s_weights_become_a_detector_of_coco_s_80_classes(name: str) -> None:
    meta = torchvision.models.get_model_weights(name.removeprefix("torchvision:"))["COCO_V1"].meta
    assert meta["categories"] == CATEGORIES
    with torch.device("meta"):
        theirs = build(name).state_dict()
    state = with_classes(
        {key: torch.zeros(()).expand(value.shape) for key, value in theirs.items()}, CATEGORIES, COCO_CLASSES
    )
    config = load_recipe(ENTRIES[name].name).detector
    assert class_count(state, source="torchvision", config=config) == 80
    with torch.device("meta"):
        detector = config.build(num_classes=80)
    report = import_weights(state, source="torchvision", detector=detector)
    assert set(report.filled.values()) == set(theirs)


@pytest.mark.parametrize(
    ("key", "anchors", "per_class", "background"),
    [
        ("roi_heads.box_predictor.cls_score.weight", 1, 1, True),
        ("roi_heads.box_predictor.bbox_pred.bias", 1, 4, True),
        ("roi_heads.mask_predictor.mask_fcn_logits.weight", 1, 1, True),
        ("head.classification_head.module_list.3.bias", 4, 1, True),
        ("head.classification_head.module_list.3.1.weight", 6, 1, True),
        ("head.classification_head.cls_logits.bias", 9, 1, False),
    ],
)
def test_rows_are_those_of_the_classes(key: str, anchors: int, per_class: int, background: bool) -> None:
    """Rows that hold their category's number; also behind the prefix of DataParallel."""
    rows = torch.arange(91.0).repeat_interleave(per_class).repeat(anchors)
    other = "module.head.classification_head.module_list.3.0.0.weight"  # of a depthwise convolution with 91 channels
    made = with_classes({f"module.{key}": rows, other: torch.arange(91.0)}, CATEGORIES, COCO_CLASSES)
    wanted = [0, *COCO_IDS] if background else list(COCO_IDS)
    assert made[key].view(anchors, len(wanted), per_class).tolist() == [[[i] * per_class for i in wanted]] * anchors
    assert made[other.removeprefix("module.")].tolist() == list(range(91))


# Files


@frozen
class Published:
    """Files that stand for published ones: the folder of torch's hub, models by name, and what has been asked for."""

    hub: Path
    models: dict[str, nn.Module]
    downloads: list[str]

    def file(self, name: str) -> Path:
        return self.hub / "checkpoints" / f"{name.removeprefix('torchvision:')}_coco-{self.hash(name)}.pth"

    def hash(self, name: str) -> str:
        return hashlib.sha256((self.hub / name).read_bytes()).hexdigest()[:8]


@torch.no_grad()
def spread(theirs: nn.Module) -> None:
    """Scores that differ; nothing is ever one of the categories without a name, as in the published weights."""
    if hasattr(theirs, "roi_heads"):
        layers = [theirs.roi_heads.box_predictor.cls_score]
    else:
        layers = [layer[1] for layer in theirs.head.classification_head.module_list]
    for layer in layers:
        layer.weight *= 8
        layer.bias.view(-1, 91)[:, UNUSED] = -60


@pytest.fixture(scope="module")
def models() -> dict[str, nn.Module]:
    """Random weights, norms and scores that spread."""
    torch.manual_seed(0)
    made = {name: build(name) for name in (LITE, SMALL)}
    for theirs in made.values():
        randomise_norms(theirs, [image(), image().flip(1)])
        spread(theirs)
    return made


def image() -> Tensor:
    return torch.randint(0, 256, (3, 320, 320), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def published(models: dict[str, nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Published:
    """torchvision's table with the names and hashes of files of random weights, which the network has."""
    made = Published(tmp_path / "hub", models, [])
    made.hub.mkdir()
    real = torchvision.models.get_model_weights
    for name, theirs in models.items():
        torch.save(theirs.state_dict(), made.hub / name)

    def table(name: str) -> dict[str, Any]:
        entry = real(name)["COCO_V1"]
        if f"torchvision:{name}" not in models:
            return {"COCO_V1": entry}
        file = made.file(f"torchvision:{name}").name
        return {"COCO_V1": SimpleNamespace(url=f"{MODELS}{file}", meta=entry.meta)}

    def download(url: str, to: str, hash_prefix: str | None = None, progress: bool = True) -> None:
        made.downloads.append(url)
        name = next(n for n in models if made.file(n).name == url.removeprefix(MODELS))
        assert hash_prefix == made.hash(name)
        Path(to).write_bytes((made.hub / name).read_bytes())

    monkeypatch.setattr(torch.hub, "_hub_dir", str(made.hub))
    monkeypatch.setattr(torchvision.models, "get_model_weights", table)
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    return made


def offline(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*arguments: object, **settings: object) -> None:
        raise error

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)


@pytest.mark.parametrize("name", [LITE, SMALL])
def test_the_same_detections_of_coco_s_classes(name: str, published: Published) -> None:
    """From the network to a checkpoint, whose detections are the model's, with the names of their classes."""
    file = published_checkpoint(name)
    assert file == published.hub / "det" / published.file(name).with_suffix(".safetensors").name
    assert published.downloads == [f"{MODELS}{published.file(name).name}"]
    detector = load_detector(file).double()
    assert detector.classes == Classes(names=COCO_CLASSES, ids=COCO_IDS)
    for value in ("mean", "std"):
        exact = torch.tensor(getattr(detector.preprocess.config, value), dtype=torch.float64)
        setattr(detector.preprocess, value, exact[:, None, None])
    infos = (ImageInfo(size=(320, 320), original_size=(320, 320)),)
    normal = (image().double() - detector.preprocess.mean) / detector.preprocess.std
    with torch.no_grad():
        (found,) = detector.predict(Batch(images=normal[None], infos=infos))
        (wanted,) = published.models[name].double()([image().double() / 255])
        published.models[name].float()
    assert len(found) == len(wanted["boxes"]) > 20
    assert [COCO_CLASSES[i] for i in found.labels] == [CATEGORIES[i] for i in wanted["labels"]]
    assert len(found.labels.unique()) > 2
    torch.testing.assert_close(found.scores, wanted["scores"], rtol=0, atol=1e-4)
    torch.testing.assert_close(found.boxes, wanted["boxes"], rtol=0, atol=1e-3)


def test_a_file_is_fetched_and_converted_once(published: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    file = published_checkpoint(LITE)
    asked = []
    monkeypatch.setattr(converting, "published_source", lambda name: asked.append(name) or published_source(name))
    assert published_checkpoint(LITE) == file
    assert asked == []
    # Damaged, or of a recipe with other settings, it is converted again, from the file that is there.
    header = read_header(file)
    older = evolve(header, recipe=evolve(header.recipe, schedule=evolve(header.recipe.schedule, epochs=1)))
    for spoil in (lambda: file.write_bytes(b"torn"), lambda: write_weights(file, {}, older.to_metadata())):
        spoil()
        published_checkpoint(LITE)
        assert read_header(file) == header
        assert "dense_head.scores.0.predict.weight" in read_weights(file)
    assert asked == [LITE, LITE]
    assert len(published.downloads) == 1


def test_a_file_put_in_place_needs_no_network(published: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    offline(monkeypatch, AssertionError("there is no network"))
    published.file(LITE).parent.mkdir()
    published.file(LITE).write_bytes((published.hub / LITE).read_bytes())
    assert read_header(published_checkpoint(LITE)).recipe == load_recipe(LITE_RECIPE)


@pytest.mark.parametrize("error", [URLError("offline"), TimeoutError("offline"), RuntimeError("invalid hash value")])
def test_without_a_network_the_error_says_which_file_to_put_where(
    error: Exception, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline(monkeypatch, error)
    with pytest.raises(WeightsError) as caught:
        published_checkpoint(LITE)
    file = published.file(LITE)
    assert str(caught.value) == (
        f"{LITE} cannot be downloaded from {MODELS}{file.name} ({error}); download the file on another machine and put "
        f"it into {published.hub / 'checkpoints'} as {file.name}"
    )
    assert not (published.hub / "det").exists()


def test_another_file_in_its_place_is_refused(published: Published) -> None:
    file = published.file(LITE)
    file.parent.mkdir()
    file.write_bytes(b"something else")
    with pytest.raises(WeightsError) as caught:
        published_checkpoint(LITE)
    assert str(caught.value) == (
        f"{file}: damaged, or not the file of {LITE}: its SHA-256 begins with "
        f"{hashlib.sha256(b'something else').hexdigest()[:8]}, expected {published.hash(LITE)}; delete it to have it "
        f"downloaded again, or put {MODELS}{file.name} in its place"
    )
    file.unlink()
    file.mkdir()
    with pytest.raises(WeightsError, match=r"\.pth: cannot be read \(Is a directory\)"):
        published_checkpoint(LITE)


# import-weights


def test_import_weights_by_name(published: Published, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "lite.safetensors"
    assert run(["import-weights", LITE, "-o", str(out)]) == 0
    said = capsys.readouterr().out
    assert (
        f"{published.file(LITE)}: a detector of torchvision, 80 classes (person, bicycle, car, motorcycle, ...)" in said
    )
    header = read_header(out)
    assert header.classes == Classes(names=COCO_CLASSES, ids=COCO_IDS)
    assert header.recipe == load_recipe(LITE_RECIPE)
    changed = tmp_path / "changed.safetensors"
    change = ("--from", "torchvision", "--set", "detector.dense_head.score_threshold=0.3")
    assert run(["import-weights", LITE, *change, "-o", str(changed)]) == 0
    assert read_header(changed).recipe.detector.dense_head.score_threshold == 0.3


def test_import_weights_without_a_file_to_write_converts_for_init(
    published: Published, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["import-weights", LITE]) == 0
    file = published.hub / "det" / published.file(LITE).with_suffix(".safetensors").name
    assert capsys.readouterr().out.splitlines() == [
        f"{LITE}: {file} (recipe {LITE_RECIPE}, COCO's 80 classes)",
        f"det-core predict --checkpoint {file} IMAGES, or det-core train --init {LITE}",
    ]
    assert load_detector(file).classes.names == COCO_CLASSES


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (LITE, "--from", "mmdet", "-o", "x.safetensors"),
            "these weights are torchvision's, not of mmdet; leave out --from",
        ),
        (
            (LITE, "--recipe", LITE_RECIPE),
            "-o is required with --recipe, --set, --conventions and --force; give the file",
        ),
        ((LITE, "--force"), "-o is required with --recipe, --set, --conventions and --force; give the file to write"),
        (("torchvision:resnet50",), "there are no published weights 'torchvision:resnet50'"),
        (
            (LITE, "--recipe", "ssd/vgg16-300-coco-120e", "-o", "x.safetensors"),
            "do not mean the same under these settings",
        ),
    ],
)
def test_what_import_weights_refuses(
    arguments: tuple[str, ...],
    message: str,
    published: Published,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["import-weights", *arguments]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x.safetensors").exists()


# --init


def test_fine_tuning_from_a_name(published: Published, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On the bundled sample, whose class is not one of COCO's: layers that depend on the classes are re-initialised."""
    sample = [word for key in ("train", "val") for word in ("--set", f"data.{key}={{type: sample, split: {key}}}")]
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    arguments = ["train", "--recipe", LITE_RECIPE, "--init", LITE, "--max-steps", "1", "--device", "cpu"]
    assert run([*arguments, *sample, *settings, "--work-dir", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    assert f"tensors from {LITE}" in said
    assert "re-initialised, because the class lists differ: dense_head.scores.0.predict.weight, " in said
    assert (tmp_path / "run" / "checkpoints" / "step-0000001" / "model.safetensors").is_file()


def test_fine_tuning_from_python(published: Published, tmp_path: Path) -> None:
    changes = (*SETTINGS, "data.train={type: sample, split: train}", "data.val={type: sample, split: val}")
    recipe = load_recipe(LITE_RECIPE, changes)
    result = train(recipe, init=LITE, work_dir=tmp_path / "run", max_steps=1, device="cpu", quiet=True)
    assert (result.step, result.reason) == (1, "stopped")


def test_with_coco_s_classes_nothing_is_re_initialised(published: Published) -> None:
    recipe = load_recipe(LITE_RECIPE)
    detector = recipe.detector.build(classes=Classes(names=COCO_CLASSES, ids=COCO_IDS))
    report = initialise(detector, initial_checkpoint(LITE, recipe))
    assert report.fresh == ()
    assert set(report.loaded) == set(detector.state_dict())


def test_a_path_is_taken_as_it_is(tmp_path: Path) -> None:
    recipe = load_recipe(LITE_RECIPE)
    assert initial_checkpoint(str(tmp_path / "mine"), recipe) == tmp_path / "mine"


def test_a_recipe_with_other_conventions_is_refused_before_anything_is_downloaded(published: Published) -> None:
    with pytest.raises(WeightsError) as caught:
        initial_checkpoint("torchvision:ssd300_vgg16", load_recipe("ssd/vgg16-300-coco-120e"))
    first, *rest = str(caught.value).splitlines()
    assert first.startswith(
        "torchvision:ssd300_vgg16: torchvision's weights do not mean the same under these settings; train the recipe "
        "ssd/torchvision-vgg16-300, or one that extends it, or convert them (det-core import-weights "
        "torchvision:ssd300_vgg16 -o FILE.safetensors) and give the file: "
    )
    assert "  detector.dense_head.candidates: found 'level', expected 'class'" in rest
    assert published.downloads == []
