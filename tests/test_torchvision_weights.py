"""torchvision's own R-CNN detectors, imported, find what they find in torchvision: boxes, scores, labels and masks."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from attrs import evolve
from PIL import Image
from torch import Tensor, nn
from torchvision.models.detection import fasterrcnn_resnet50_fpn, maskrcnn_resnet50_fpn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.ops.poolers import LevelMapper

sys.path.append(str(Path(__file__).parent))

from torchvision_imports import found_in_double, in_double, same_masks, to_double

import det_ops
from det_core.cli.main import run
from det_core.data.data_config import ResizeConfig
from det_core.data.images import read_image
from det_core.engine.checkpoint import load_detector
from det_core.engine.predictor import predict
from det_core.errors import WeightsError
from det_core.load import load_recipe
from det_core.model.detector import Detector
from det_core.recipe import Recipe
from det_core.structures import Detections
from det_core.weights.fill_detector import class_count, import_weights

MAKERS = {"faster-rcnn": fasterrcnn_resnet50_fpn, "mask-rcnn": maskrcnn_resnet50_fpn}
CLASSES = 6
SIDES = (250, 160)  # bounds of the resized image, long and short; torchvision's defaults are 1333 and 800
SIZES = ((101, 150), (131, 210))  # neither square nor of the same shape; their padded height is no multiple of 64


def images() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8) for size in SIZES]


def torchvision_model(model: str) -> nn.Module:
    """Random weights whose features, scores and deltas spread, with the norm of its first COCO weights (eps 0)."""
    torch.manual_seed(0)
    theirs = MAKERS[model](
        weights=None, weights_backbone=None, num_classes=CLASSES + 1, min_size=SIDES[1], max_size=SIDES[0]
    ).eval()
    norms = [m for m in theirs.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    with torch.no_grad():
        theirs.backbone(torch.randn(2, 3, 160, 256))  # running statistics that keep features of one size
    for norm in norms:
        norm.eps = 1e-30  # 0, which old torch refuses
        norm.eval()
    heads = theirs.roi_heads
    spread = {theirs.rpn.head.conv[0][0]: 0.02, theirs.rpn.head.cls_logits: 0.1, theirs.rpn.head.bbox_pred: 0.02}
    spread |= {heads.box_predictor.cls_score: 0.15, heads.box_predictor.bbox_pred: 0.05}
    if model == "mask-rcnn":
        spread[heads.mask_predictor.mask_fcn_logits] = 0.1
    for layer, std in spread.items():
        nn.init.normal_(layer.weight, std=std)
        nn.init.normal_(layer.bias, std=std)
    seen: list[Tensor] = []
    handle = heads.box_head.register_forward_hook(lambda module, inputs, output: seen.append(output))
    scores = heads.box_predictor.cls_score
    with torch.no_grad():
        theirs([image.float() / 255 for image in images()])
        handle.remove()
        scores.weight *= 2 / (seen[0] @ scores.weight.T).std(0)[:, None]
        scores.bias.copy_(-(scores.weight @ seen[0].mean(0)))  # else the class of the mean feature wins everywhere
    return theirs


def recipe_of(model: str) -> Recipe:
    return load_recipe(f"{model}/torchvision-r50-fpn")


def resize_of(recipe: Recipe) -> ResizeConfig:
    """The recipe's own resize, at the test's smaller bounds."""
    (resize,) = recipe.data.test_transforms
    assert isinstance(resize, ResizeConfig)
    return evolve(resize, scales=(SIDES,))


def imported(model: str, theirs: nn.Module) -> Detector:
    """The recipe's detector with these weights; in double precision its means are exact, as theirs are."""
    return in_double(theirs, recipe_of(model).detector, CLASSES)


def found_in(detector: Detector, resize: ResizeConfig) -> list[Detections]:
    return found_in_double(detector, resize, images())


@pytest.mark.parametrize("model", list(MAKERS))
def test_the_same_detections(model):
    theirs = torchvision_model(model)
    detector = imported(model, theirs)
    found = found_in(detector, resize_of(recipe_of(model)))
    with torch.no_grad():
        wanted = theirs.double()([i.double() / 255 for i in images()])
    for ours, there in zip(found, wanted, strict=True):
        assert len(ours) == len(there["boxes"]) > 10
        assert len(there["labels"].unique()) > 2
        assert there["scores"].max() - there["scores"].min() > 0.05
        torch.testing.assert_close(ours.boxes, there["boxes"], rtol=0, atol=1e-4)
        torch.testing.assert_close(ours.scores, there["scores"], rtol=0, atol=1e-4)
        assert torch.equal(ours.labels, there["labels"] - 1)  # theirs count from 1, 0 is background
        if model == "mask-rcnn":
            assert ours.masks is not None
            assert ours.masks.any()
            assert same_masks(ours.masks, there["masks"][:, 0])


@pytest.fixture(scope="module")
def faster() -> tuple[nn.Module, list[Detections]]:
    """A Faster R-CNN of torchvision's, and what the import finds."""
    theirs = torchvision_model("faster-rcnn")
    return theirs, found_in(imported("faster-rcnn", theirs), resize_of(recipe_of("faster-rcnn")))


@pytest.mark.parametrize(
    "change",
    [
        "detector.dense_head.anchors.rounded=false",
        "detector.roi_head.roi_pool.alignment=aligned",
        "detector.roi_head.roi_pool.sampling=0",
        "detector.backbone.norm.eps=0.1",
        "data.test_transforms=[{type: resize, scales: [[250, 160]], rounding: nearest, arithmetic: float}]",
    ],
)
def test_every_convention_counts(change, faster):
    """With one setting as elsewhere the detections are others: the test above would notice."""
    theirs, wanted = faster
    recipe = load_recipe("faster-rcnn/torchvision-r50-fpn", [change])
    detector = recipe.detector.build(num_classes=CLASSES).eval()
    import_weights(theirs.state_dict(), source="torchvision", detector=detector, force=True)
    resize = resize_of(recipe_of("faster-rcnn"))
    if change.startswith("data"):
        (resize,) = recipe.data.test_transforms  # type: ignore[assignment]
    pairs = zip(found_in(to_double(detector), resize), wanted, strict=True)
    assert any(len(a) != len(b) or not torch.allclose(a.boxes, b.boxes, rtol=0, atol=1e-3) for a, b in pairs)


@pytest.mark.parametrize("padded", [(160, 256), (800, 1088), (672, 96)])
def test_the_same_anchors(padded):
    """Also where the coarsest stride does not divide the padded image: cells then lie closer."""
    anchors = recipe_of("faster-rcnn").detector.dense_head.anchors  # type: ignore[union-attr]
    strides = (4, 8, 16, 32, 64)
    sizes = [(-(-padded[0] // s), -(-padded[1] // s)) for s in strides]
    ours = anchors.build(strides)(sizes, torch.device("cpu"))
    theirs = AnchorGenerator(tuple((s * 8,) for s in strides), ((0.5, 1.0, 2.0),) * 5)
    images = ImageList(torch.zeros(1, 3, *padded), [padded])
    (wanted,) = theirs(images, [torch.zeros(1, 1, *size) for size in sizes])
    assert torch.equal(torch.cat([level.boxes for level in ours]), wanted)


def test_the_same_levels():
    """Also at the exact borders between levels, and for regions without area."""
    side = torch.tensor([0.0, 1.0, 111.9999, 112.0, 112.0001, 223.99998, 224.0, 300.0, 447.99997, 448.0, 2000.0])
    boxes = torch.stack([side * 0, side * 0, side, side], 1)
    wanted = LevelMapper(2, 5)([boxes])
    assert torch.equal(det_ops.roi_levels(torch.cat([side[:, None] * 0, boxes], 1), 4, rule="torchvision"), wanted)


def test_the_same_pasted_masks():
    """Inside the image, across its borders, and of boxes without area."""
    corners = [[3.2, 4.7, 30.1, 21.9], [-5.5, -2.2, 9.4, 7.7], [30.3, 20.2, 60.0, 50.0], [8.0, 8.0, 8.0, 8.0]]
    boxes = torch.tensor(corners)
    masks = torch.rand(len(boxes), 28, 28, generator=torch.Generator().manual_seed(0))
    wanted = paste_masks_in_image(masks[:, None], boxes, (37, 49))[:, 0] > 0.5
    assert torch.equal(det_ops.paste_masks(masks, boxes, (37, 49), 0.5, "resized"), wanted)
    outside = torch.tensor([[-40.0, -40.0, -30.0, -30.0]])
    assert not det_ops.paste_masks(masks[:1], outside, (37, 49), 0.5, "resized").any()


def older(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names of the files that torchvision published first."""
    rules = (
        (r"(inner|layer)_blocks\.(\d)\.0\.", r"\1_blocks.\2."),
        (r"rpn\.head\.conv\.0\.0\.", "rpn.head.conv."),
        (r"roi_heads\.mask_head\.(\d)\.0\.", lambda m: f"roi_heads.mask_head.mask_fcn{int(m[1]) + 1}."),
    )
    renamed = {}
    for key, value in state.items():
        for pattern, replacement in rules:
            key = re.sub(pattern, replacement, key)  # type: ignore[arg-type]
        renamed[key] = value
    return renamed


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Any]:
    """A Mask R-CNN's file as torchvision's training script saves it, and what it finds in image files."""
    folder = tmp_path_factory.mktemp("torchvision")
    theirs = torchvision_model("mask-rcnn")
    torch.save({"model": older(theirs.state_dict()), "epoch": 25}, folder / "model_25.pth")
    paths = []
    for number, image in enumerate(images()):
        paths.append(folder / f"{number}.png")
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(paths[-1])
    with torch.no_grad():
        wanted = theirs([read_image(path).float() / 255 for path in paths])
    return {"file": folder / "model_25.pth", "images": paths, "wanted": wanted}


def test_from_file_to_detections(files, tmp_path, capsys):
    """The command line, an older file, image files, single precision: as close as single precision allows."""
    out = tmp_path / "imported.safetensors"
    smaller = f"data.test_transforms=[{{type: resize, scales: [{list(SIDES)}], rounding: down, arithmetic: float}}]"
    arguments = ["--from", "torchvision", "--recipe", "mask-rcnn/torchvision-r50-fpn", "--set", smaller, "-o", str(out)]
    assert run(["import-weights", str(files["file"]), *arguments]) == 0
    said = capsys.readouterr().out
    assert f"{files['file']}: a detector of torchvision, 6 classes (class 0, class 1, class 2, class 3, ...)" in said
    assert "360 weights loaded, none missing" in said
    assert "background moved from the first place to the last (2 weights)" in said
    detector = load_detector(out)
    assert len(detector.classes) == CLASSES
    found = predict(detector, files["images"], batch_size=2)
    for ours, there in zip(found, files["wanted"], strict=True):
        best = min(5, len(ours), len(there["boxes"]))
        assert best >= 3
        torch.testing.assert_close(ours.scores[:best], there["scores"][:best], rtol=0, atol=0.01)


def test_weights_of_another_model_are_refused(files, tmp_path):
    state = torch.load(files["file"], weights_only=True)["model"]
    faster = recipe_of("faster-rcnn").detector.build(num_classes=CLASSES)
    with pytest.raises(WeightsError, match=r"left over in the source: roi_heads\.mask_head\.mask_fcn1\.weight"):
        import_weights(state, source="torchvision", detector=faster)
    state = {k: v for k, v in state.items() if "mask" not in k}
    mask = recipe_of("mask-rcnn").detector.build(num_classes=CLASSES)
    with pytest.raises(WeightsError, match=r"not in the source: roi_heads\.mask_predictor\.mask_fcn_logits\.weight"):
        import_weights(state, source="torchvision", detector=mask)


def test_another_number_of_classes_names_both_shapes(files):
    state = torch.load(files["file"], weights_only=True)["model"]
    detector = recipe_of("mask-rcnn").detector.build(num_classes=CLASSES + 1)
    with pytest.raises(WeightsError) as caught:
        import_weights(state, source="torchvision", detector=detector)
    assert (
        "shapes differ: roi_heads.box_predictor.bbox_pred.weight is (28, 1024) (background's box dropped), "
        "roi_head.box_head.deltas.weight is (28, 1024)" in str(caught.value)
    )


def test_layers_that_disagree_on_the_classes(files):
    state = torch.load(files["file"], weights_only=True)["model"]
    state["roi_heads.mask_predictor.mask_fcn_logits.weight"] = torch.zeros(9, 256, 1, 1)
    config = recipe_of("mask-rcnn").detector
    with pytest.raises(WeightsError, match=r"do not agree on the number of classes: 6 by .*, 8 by .*mask_fcn_logits"):
        class_count(state, source="torchvision", config=config)
    state = {k: v for k, v in state.items() if "predictor" not in k}
    with pytest.raises(
        WeightsError, match="the number of classes cannot be determined: none of roi_heads.box_predictor"
    ):
        class_count(state, source="torchvision", config=config)


def test_an_rpn_alone_has_no_classes():
    config = load_recipe("rpn/r50-fpn-1x").detector
    assert class_count({"backbone.conv1.weight": torch.zeros(1)}, source="mmdet", config=config) is None


def test_where_the_recipes_point(tmp_path: Path):
    for model in MAKERS:
        recipe = recipe_of(model)
        assert recipe.published is None or recipe.published == type(recipe.published)()
        assert recipe.detector.preprocess.mean == pytest.approx([255 * m for m in (0.485, 0.456, 0.406)])
        assert recipe.detector.preprocess.std == pytest.approx([255 * s for s in (0.229, 0.224, 0.225)])
        assert recipe.detector.preprocess.pad_divisor == 32
