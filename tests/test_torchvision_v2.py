"""The second version of torchvision's detectors, imported, finds what they find in torchvision, and trains."""

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
    fasterrcnn_resnet50_fpn,
    fasterrcnn_resnet50_fpn_v2,
    mask_rcnn,
    maskrcnn_resnet50_fpn,
    maskrcnn_resnet50_fpn_v2,
    retinanet,
    retinanet_resnet50_fpn,
    retinanet_resnet50_fpn_v2,
)

sys.path.append(str(Path(__file__).parent))

from torchvision_imports import found_in_double, in_double, randomise_norms, same_masks

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
SIDES = (200, 128)  # bounds of the resized image, long and short
SIZES = ((81, 120), (105, 168))  # neither square nor of the same shape
# Fewer regions than by default, since the box and mask heads have four convolutions each.
FEWER = {"rpn_post_nms_top_n_test": 40, "box_detections_per_img": 12}
FEWER_HERE = ("detector.dense_head.test_limits.after_nms=40", "detector.roi_head.max_detections=12")


@frozen
class Case:
    """A model of torchvision's: its functions, of both versions, and its published weights.

    background: 1 if the first class is background, else 0. settings, overrides: for a cheaper test, there and here.
    """

    build: Callable[..., nn.Module]
    first_version: Callable[..., nn.Module]
    weights: Any
    background: int = 1
    settings: dict[str, int] = FEWER
    overrides: tuple[str, ...] = FEWER_HERE


CASES = {
    "faster-rcnn": Case(
        fasterrcnn_resnet50_fpn_v2, fasterrcnn_resnet50_fpn, faster_rcnn.FasterRCNN_ResNet50_FPN_V2_Weights.COCO_V1
    ),
    "mask-rcnn": Case(
        maskrcnn_resnet50_fpn_v2, maskrcnn_resnet50_fpn, mask_rcnn.MaskRCNN_ResNet50_FPN_V2_Weights.COCO_V1
    ),
    "retinanet": Case(
        retinanet_resnet50_fpn_v2,
        retinanet_resnet50_fpn,
        retinanet.RetinaNet_ResNet50_FPN_V2_Weights.COCO_V1,
        background=0,
        settings={},
        overrides=(),
    ),
}


def recipe_name(model: str) -> str:
    return f"{model}/torchvision-r50-fpn-v2"


def images() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8) for size in SIZES]


def torchvision_model(model: str) -> nn.Module:
    """Random weights, norms and statistics whose features, scores and deltas spread."""
    torch.manual_seed(0)
    case = CASES[model]
    theirs = case.build(
        weights=None,
        weights_backbone=None,
        num_classes=CLASSES + case.background,
        min_size=SIDES[1],
        max_size=SIDES[0],
        **case.settings,
    ).eval()
    with torch.no_grad():
        (spread_retinanet if model == "retinanet" else spread_rcnn)(theirs)
    return theirs


def spread_rcnn(theirs: nn.Module) -> None:
    heads, rpn = theirs.roi_heads, theirs.rpn.head
    for layer in (rpn.conv[0][0], rpn.conv[1][0]):
        nn.init.kaiming_normal_(layer.weight)
    spread = {rpn.cls_logits: 0.1, rpn.bbox_pred: 0.02, heads.box_predictor.bbox_pred: 0.05}
    if heads.has_mask():
        spread[heads.mask_predictor.mask_fcn_logits] = 0.1
    for layer, std in spread.items():
        nn.init.normal_(layer.weight, std=std)
        nn.init.normal_(layer.bias, std=std)
    randomise_norms(theirs, images())
    seen: list[Tensor] = []
    handle = heads.box_head.register_forward_hook(lambda module, inputs, output: seen.append(output))
    theirs([image.float() / 255 for image in images()])
    handle.remove()
    scores = heads.box_predictor.cls_score
    scores.weight *= 2 / (seen[0] @ scores.weight.T).std(0)[:, None]
    scores.bias.copy_(-(scores.weight @ seen[0].mean(0)))  # else the class of the mean feature wins everywhere


def spread_retinanet(theirs: nn.Module) -> None:
    classes, boxes = theirs.head.classification_head, theirs.head.regression_head
    randomise_norms(theirs, images())
    batch, _ = theirs.transform([image.float() / 255 for image in images()])
    features = list(theirs.backbone(batch.tensors).values())
    nn.init.normal_(boxes.bbox_reg.weight, std=0.005)
    classes.cls_logits.weight *= 1.5 / classes(features).std()
    nn.init.constant_(classes.cls_logits.bias, -4.0)


@pytest.fixture(scope="module")
def made() -> Callable[[str], nn.Module]:
    """The models, each made once."""
    models: dict[str, nn.Module] = {}

    def get(model: str) -> nn.Module:
        if model not in models:
            models[model] = torchvision_model(model)
        return models[model]

    return get


def imported(model: str, theirs: nn.Module) -> Detector:
    """The recipe's detector with these weights, in double precision from the first pixel on."""
    config = load_recipe(recipe_name(model), CASES[model].overrides).detector
    return in_double(theirs, config, CLASSES)


def found_in(model: str, detector: Detector) -> list[Detections]:
    (resize,) = load_recipe(recipe_name(model)).data.test_transforms
    assert isinstance(resize, ResizeConfig)
    resize = evolve(resize, scales=(SIDES,))
    return found_in_double(detector, resize, images())


@pytest.mark.parametrize("model", list(CASES))
def test_the_same_detections(model, made):
    theirs = made(model)
    found = found_in(model, imported(model, theirs))
    with torch.no_grad():
        wanted = copy.deepcopy(theirs).double()([i.double() / 255 for i in images()])
    for ours, there in zip(found, wanted, strict=True):
        assert len(ours) == len(there["boxes"]) > 10
        assert len(there["labels"].unique()) > 2
        assert there["scores"].max() - there["scores"].min() > 0.05
        torch.testing.assert_close(ours.boxes, there["boxes"], rtol=0, atol=1e-4)
        torch.testing.assert_close(ours.scores, there["scores"], rtol=0, atol=1e-4)
        assert torch.equal(ours.labels, there["labels"] - CASES[model].background)
        if model == "mask-rcnn":
            assert ours.masks is not None
            assert ours.masks.any()
            assert same_masks(ours.masks, there["masks"][:, 0])


def test_the_losses_of_retinanet_are_theirs(made):
    """Of one image, since theirs are means over images; with the statistics of the norms, as at test."""
    theirs = made("retinanet")
    detector = imported("retinanet", theirs).train()
    theirs = copy.deepcopy(theirs).double().train()
    for module in (*detector.modules(), *theirs.modules()):
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    image = images()[1][:, :96, :128].double()
    boxes = torch.tensor([[8.0, 12.0, 90.0, 70.0], [40.0, 20.0, 120.0, 90.0]], dtype=torch.float64)
    labels = torch.tensor([2, 5])
    theirs.transform.min_size, theirs.transform.max_size = (96,), 128  # the size that it has
    wanted = theirs([image / 255], [{"boxes": boxes, "labels": labels}])
    sample = Sample(image=image, boxes=boxes, labels=labels, ignored=labels < 0, file="")
    batch = to_batch(detector, [prepare(sample, [], Key())])
    terms = detector.losses(batch, [Targets(boxes=boxes, labels=labels)])
    assert terms["retina_cls"].value().item() == pytest.approx(wanted["classification"].item(), rel=1e-6)
    assert terms["retina_box"].value().item() == pytest.approx(wanted["bbox_regression"].item(), rel=1e-6)


def of_zeros(build: Callable[..., nn.Module], classes: int) -> dict[str, Tensor]:
    """The names and shapes of a model of torchvision's."""
    with torch.device("meta"):
        theirs = build(weights=None, weights_backbone=None, num_classes=classes)
    return {name: torch.zeros(()).expand(value.shape) for name, value in theirs.state_dict().items()}


OTHER_VERSION = {  # what is said of the first version's weights under the second's recipe, and the reverse
    "faster-rcnn": (
        {
            "left over in the source: roi_heads.box_head.fc6.weight",
            "not in the source: backbone.fpn.inner_blocks.0.1.running_mean (for neck.lateral.0.norm.running_mean)",
            "... and 48 more",
        },
        {"left over in the source: backbone.fpn.layer_blocks.0.1.weight", "... and 48 more"},
    ),
    "mask-rcnn": (
        {"left over in the source: roi_heads.mask_head.3.0.bias", "... and 68 more"},
        {"left over in the source: backbone.fpn.layer_blocks.0.1.weight", "... and 68 more"},
    ),
    "retinanet": (
        {
            "left over in the source: head.classification_head.conv.0.0.bias",
            "not in the source: head.regression_head.conv.0.1.weight (for dense_head.box_tower.0.norm.weight)",
            "shapes differ: backbone.fpn.extra_blocks.p6.weight is (256, 256, 3, 3), neck.extra.3.conv.weight is "
            "(256, 2048, 3, 3)",
        },
        {
            "left over in the source: head.regression_head.conv.3.1.bias",
            "not in the source: head.classification_head.conv.0.0.bias (for dense_head.cls_tower.0.conv.bias)",
            "shapes differ: backbone.fpn.extra_blocks.p6.weight is (256, 2048, 3, 3), neck.extra.3.conv.weight is "
            "(256, 256, 3, 3)",
        },
    ),
}


def said_of(state: dict[str, Tensor], recipe: str) -> set[str]:
    """The lines of the error for weights under a recipe of the other version."""
    with torch.device("meta"):
        detector = load_recipe(recipe).detector.build(num_classes=CLASSES)
    with pytest.raises(WeightsError, match="the torchvision weights do not fit this detector") as error:
        import_weights(state, source="torchvision", detector=detector)
    return {line.strip() for line in str(error.value).splitlines()}


@pytest.mark.parametrize("model", list(CASES))
def test_weights_of_the_other_version_are_refused(model: str) -> None:
    case, name = CASES[model], recipe_name(model)
    first, second = (of_zeros(build, CLASSES + case.background) for build in (case.first_version, case.build))
    newer, older = OTHER_VERSION[model]
    assert newer <= said_of(first, name)
    assert older <= said_of(second, name.removesuffix("-v2"))


@pytest.mark.parametrize("model", list(CASES))
def test_figures_and_parameters_are_those_that_torchvision_states(model: str) -> None:
    case, recipe = CASES[model], load_recipe(recipe_name(model))
    stated = case.weights.meta
    figures = stated["_metrics"]["COCO-val2017"]
    assert recipe.published is not None
    assert recipe.published == plugin_manager().recipe_entry(recipe.name).published
    assert (recipe.published.box_ap, recipe.published.mask_ap) == (figures["box_map"], figures.get("mask_map"))
    with torch.device("meta"):
        detector = recipe.detector.build(num_classes=len(stated["categories"]) - case.background)
    parameters = sum(p.numel() for p in detector.parameters())
    if case.background:  # theirs has a box and a mask of background
        parameters += 4 * 1025 + (257 if model == "mask-rcnn" else 0)
    assert parameters == stated["num_params"]


@pytest.mark.parametrize("model", list(CASES))
def test_the_conventions_are_torchvision_s(model: str) -> None:
    assert differences(load_recipe(recipe_name(model)), "torchvision") == []
