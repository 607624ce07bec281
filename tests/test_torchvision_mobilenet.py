"""torchvision's detectors on MobileNetV3, imported, find what they find in torchvision, and train."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from attrs import evolve, frozen
from torch import Tensor, nn
from torchvision.models.detection import (
    faster_rcnn,
    fasterrcnn_mobilenet_v3_large_320_fpn,
    fasterrcnn_mobilenet_v3_large_fpn,
    ssdlite,
    ssdlite320_mobilenet_v3_large,
)

sys.path.append(str(Path(__file__).parent))

from torchvision_imports import found_in_double, in_double, randomise_norms

from det_core.contracts import Sample
from det_core.conventions import differences
from det_core.data.data_config import ResizeConfig
from det_core.data.loader import prepare
from det_core.engine.predict import to_batch
from det_core.errors import WeightsError
from det_core.load import load_recipe
from det_core.model.detector import Detector
from det_core.plugins import plugin_manager
from det_core.structures import Detections, Key, Targets
from det_core.weights.fill_detector import import_weights

CLASSES = 6
LARGE = "faster-rcnn/torchvision-mobilenet-v3-large-fpn"
SMALL = "faster-rcnn/torchvision-mobilenet-v3-large-320-fpn"
LITE = "ssd/torchvision-mobilenet-v3-large-320"
SIZES = ((101, 150), (131, 210))  # neither square nor of the same shape; their padded height is no multiple of 64


@frozen
class Case:
    """A model of torchvision's: its function, its published weights, and bounds of the resized image, long and short.

    sides: None for the recipe's own.
    """

    build: Callable[..., nn.Module]
    weights: Any
    sides: tuple[int, int] | None = None


CASES = {
    LARGE: Case(
        fasterrcnn_mobilenet_v3_large_fpn, faster_rcnn.FasterRCNN_MobileNet_V3_Large_FPN_Weights.COCO_V1, (360, 210)
    ),
    SMALL: Case(
        fasterrcnn_mobilenet_v3_large_320_fpn, faster_rcnn.FasterRCNN_MobileNet_V3_Large_320_FPN_Weights.COCO_V1
    ),
    LITE: Case(ssdlite320_mobilenet_v3_large, ssdlite.SSDLite320_MobileNet_V3_Large_Weights.COCO_V1),
}


def images() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8) for size in SIZES]


def torchvision_model(name: str) -> nn.Module:
    """Random weights, norms and statistics whose features, scores and deltas spread."""
    torch.manual_seed(0)
    case = CASES[name]
    sides = {} if case.sides is None else {"max_size": case.sides[0], "min_size": case.sides[1]}
    theirs = case.build(weights=None, weights_backbone=None, num_classes=CLASSES + 1, **sides).eval()
    with torch.no_grad():
        randomise_norms(theirs, images())
        (spread_ssd if name == LITE else spread_rcnn)(theirs)
    return theirs


def spread_rcnn(theirs: nn.Module) -> None:
    """Objectness on both sides of its threshold, and classes whose scores differ."""
    heads, rpn = theirs.roi_heads, theirs.rpn.head
    nn.init.kaiming_normal_(rpn.conv[0][0].weight)
    for layer, std in ((rpn.bbox_pred, 0.02), (heads.box_predictor.bbox_pred, 0.05)):
        nn.init.normal_(layer.weight, std=std)
        nn.init.normal_(layer.bias, std=std)
    scale_output(theirs, rpn.cls_logits, 3.0)
    rpn.cls_logits.bias.fill_(-8.0)
    scale_output(theirs, heads.box_predictor.cls_score, 2.0)


def spread_ssd(theirs: nn.Module) -> None:
    """Deltas, and a long tail of scores, most of them of class 1."""
    for layer in theirs.head.regression_head.module_list:
        scale_output(theirs, layer[1], 2.0)
        nn.init.normal_(layer[1].bias)
    for layer in theirs.head.classification_head.module_list:
        scale_output(theirs, layer[1], 2.0)
        logits = layer[1].bias.view(-1, CLASSES + 1)  # background first
        logits[:, 0] += 12
        logits[:, 1] += 5


def scale_output(theirs: nn.Module, layer: nn.Module, std: float) -> None:
    """Weights that give outputs with mean 0 and this deviation on the images."""
    seen: list[Tensor] = []
    handle = layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
    theirs([image.float() / 255 for image in images()])
    handle.remove()
    values = seen[0] if len(seen) == 1 else torch.cat([x.flatten(2) for x in seen], 2)
    axes = [i for i in range(values.dim()) if i != 1]
    factor = std / values.std(axes).clamp(min=1e-6)
    layer.weight *= factor.view(-1, *[1] * (layer.weight.dim() - 1))
    layer.bias.copy_(-factor * (values.mean(axes) - layer.bias))


@pytest.fixture(scope="module")
def made() -> Callable[[str], nn.Module]:
    """The models, each made once."""
    models: dict[str, nn.Module] = {}

    def get(name: str) -> nn.Module:
        if name not in models:
            models[name] = torchvision_model(name)
        return models[name]

    return get


@pytest.fixture(scope="module")
def wanted(made: Callable[[str], nn.Module]) -> Callable[[str], list[dict[str, Tensor]]]:
    """What the models find in double precision, each asked once."""
    found: dict[str, list[dict[str, Tensor]]] = {}

    def get(name: str) -> list[dict[str, Tensor]]:
        if name not in found:
            with torch.no_grad():
                found[name] = copy.deepcopy(made(name)).double()([i.double() / 255 for i in images()])
        return found[name]

    return get


def found_in(name: str, detector: Detector) -> list[Detections]:
    (resize,) = load_recipe(name).data.test_transforms
    assert isinstance(resize, ResizeConfig)
    sides = CASES[name].sides
    if sides is not None:
        resize = evolve(resize, scales=(sides,))
    return found_in_double(detector, resize, images())


@pytest.mark.parametrize("name", list(CASES))
def test_the_same_detections(name, made, wanted):
    found = found_in(name, in_double(made(name), load_recipe(name).detector, CLASSES))
    for ours, there in zip(found, wanted(name), strict=True):
        assert len(ours) == len(there["boxes"]) > 20
        assert len(there["labels"].unique()) > 2
        assert there["scores"].max() - there["scores"].min() > 0.05
        torch.testing.assert_close(ours.boxes, there["boxes"], rtol=0, atol=1e-4)
        torch.testing.assert_close(ours.scores, there["scores"], rtol=0, atol=1e-4)
        assert torch.equal(ours.labels, there["labels"] - 1)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (LARGE, "dense_head.score_threshold=0"),
        (LARGE, "dense_head.anchors.sides=[32, 64, 128, 256, 500]"),
        (LARGE, "dense_head.anchors.spacing=stride"),
        (LARGE, "backbone.norm.eps=0.001"),
        (LARGE, "roi_head.roi_pool.strides=[64]"),
        (SMALL, "dense_head.test_limits.before_nms=30"),
        (SMALL, "dense_head.test_limits.after_nms=30"),
        (LITE, "dense_head.anchors.longest=null"),
        (LITE, "dense_head.anchors.spacing=stride"),
        (LITE, "dense_head.before_nms=400"),
        (LITE, "dense_head.score_threshold=0.01"),
        (LITE, "dense_head.nms_threshold=0.45"),
        (LITE, "dense_head.max_detections=200"),
        (LITE, "dense_head.norm.eps=1e-5"),
        (LITE, "neck.norm.eps=1e-5"),
        (LITE, "backbone.norm.eps=1e-5"),
        (LITE, "preprocess.std=[58.395, 57.12, 57.375]"),
    ],
)
def test_every_setting_counts(name: str, change: str, made, wanted) -> None:
    """With one setting as elsewhere the detections are others: the test above would notice."""
    changed = load_recipe(name, [f"detector.{change}"]).detector.build(num_classes=CLASSES).eval()
    import_weights(made(name).state_dict(), source="torchvision", detector=changed, force=True)
    pairs = zip(found_in(name, changed.double()), wanted(name), strict=True)
    assert any(
        len(ours) != len(there["boxes"]) or not torch.allclose(ours.boxes, there["boxes"], rtol=0, atol=1e-3)
        for ours, there in pairs
    )


def test_background_moves(made) -> None:
    """It comes first there and last here, anchor by anchor."""
    theirs = made(LITE)
    detector = load_recipe(LITE).detector.build(num_classes=CLASSES)
    import_weights(theirs.state_dict(), source="torchvision", detector=detector)
    for ours, layer in zip(detector.dense_head.scores, theirs.head.classification_head.module_list, strict=True):
        logits, there = ours.predict.bias.view(-1, CLASSES + 1), layer[1].bias.view(-1, CLASSES + 1)
        assert torch.equal(logits[:, -1], there[:, 0])
        assert torch.equal(logits[:, :-1], there[:, 1:])
        assert torch.equal(ours.depthwise.conv.weight, layer[0][0].weight)


def in_training(name: str, theirs: nn.Module) -> tuple[Detector, nn.Module]:
    """Both in double precision and in training, but with the statistics of the norms, as at test."""
    both = in_double(theirs, load_recipe(name).detector, CLASSES).train(), copy.deepcopy(theirs).double().train()
    for module in (m for detector in both for m in detector.modules()):
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return both


def test_the_losses_of_ssdlite_are_theirs(made) -> None:
    """Of one image, since theirs are means over images."""
    detector, theirs = in_training(LITE, made(LITE))
    image = torch.randint(0, 256, (3, 320, 320), generator=torch.Generator().manual_seed(2)).double()
    boxes = torch.tensor([[20.0, 30.0, 200.0, 170.0], [100.0, 50.0, 300.0, 310.0]], dtype=torch.float64)
    labels = torch.tensor([2, 5])
    wanted = theirs([image / 255], [{"boxes": boxes, "labels": labels + 1}])
    sample = Sample(image=image, boxes=boxes, labels=labels, ignored=labels < 0, file="")
    batch = to_batch(detector, [prepare(sample, [], Key())])
    terms = detector.losses(batch, [Targets(boxes=boxes, labels=labels)])
    assert terms["ssd_cls"].value().item() == pytest.approx(wanted["classification"].item(), rel=1e-5)
    assert terms["ssd_box"].value().item() == pytest.approx(wanted["bbox_regression"].item(), rel=1e-5)


def of_zeros(name: str, classes: int) -> dict[str, Tensor]:
    """The names and shapes of a model of torchvision's."""
    with torch.device("meta"):
        theirs = CASES[name].build(weights=None, weights_backbone=None, num_classes=classes)
    return {key: torch.zeros(()).expand(value.shape) for key, value in theirs.state_dict().items()}


@pytest.mark.parametrize(
    ("name", "recipe", "line"),
    [
        (LARGE, "faster-rcnn/torchvision-r50-fpn", "left over in the source: backbone.body.0.0.weight"),
        (LITE, "ssd/torchvision-vgg16-300", "left over in the source: backbone.features.0.0.0.weight"),
        (LARGE, LITE, "left over in the source: backbone.body.0.0.weight"),
        (LITE, SMALL, "left over in the source: backbone.features.0.0.0.weight"),
    ],
)
def test_weights_of_another_model_are_refused(name: str, recipe: str, line: str) -> None:
    with torch.device("meta"):
        detector = load_recipe(recipe).detector.build(num_classes=CLASSES)
    with pytest.raises(WeightsError, match="the torchvision weights do not fit this detector") as error:
        import_weights(of_zeros(name, CLASSES + 1), source="torchvision", detector=detector)
    assert line in {text.strip() for text in str(error.value).splitlines()}


@pytest.mark.parametrize("name", list(CASES))
def test_figures_and_parameters_are_those_that_torchvision_states(name: str) -> None:
    recipe, stated = load_recipe(name), CASES[name].weights.meta
    assert recipe.published is not None
    assert recipe.published == plugin_manager().recipe_entry(name).published
    assert recipe.published.box_ap == stated["_metrics"]["COCO-val2017"]["box_map"]
    with torch.device("meta"):
        detector = recipe.detector.build(num_classes=len(stated["categories"]) - 1)
    parameters = sum(p.numel() for p in detector.parameters())
    if name != LITE:  # theirs has a box of background, and counts no affine part of the backbone's frozen norms
        norms = [m for m in detector.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
        parameters += 4 * 1025 - sum(p.numel() for m in norms for p in m.parameters())
    assert parameters == stated["num_params"]


@pytest.mark.parametrize("name", list(CASES))
def test_the_conventions_are_torchvision_s(name: str) -> None:
    assert differences(load_recipe(name), "torchvision") == []


@pytest.mark.parametrize(("name", "trained"), [(LARGE, 7), (LITE, 0)])
def test_the_layers_that_train_are_torchvision_s(name: str, trained: int) -> None:
    """Of the backbone: from the block on that torchvision trains from, with its default of 3 of 6 layers and 6 of 6."""
    with torch.device("meta"):
        backbone = load_recipe(name).detector.backbone.build()
    for number, layer in enumerate(backbone.features):
        convolutions = [m for m in layer.modules() if isinstance(m, nn.Conv2d)]
        assert {m.weight.requires_grad for m in convolutions} == {number >= trained}
