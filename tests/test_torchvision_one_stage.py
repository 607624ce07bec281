"""torchvision's own one-stage detectors, imported, find what they find in torchvision: boxes, scores and labels."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
import torch
from attrs import evolve
from torch import Tensor, nn
from torchvision.models.detection import retinanet_resnet50_fpn, ssd300_vgg16

sys.path.append(str(Path(__file__).parent))

from torchvision_imports import found_in_double, in_double

from det_core.boxes.box_config import GridAnchorsConfig
from det_core.data.data_config import ResizeConfig
from det_core.errors import WeightsError
from det_core.load import load_recipe
from det_core.model.detector import Detector
from det_core.structures import Detections
from det_core.weights.fill_detector import import_weights

RETINANET, SSD = "retinanet/torchvision-r50-fpn", "ssd/torchvision-vgg16-300"
CLASSES = 6
SIDES = (250, 160)  # bounds of the resized image, long and short
SIZES = ((101, 150), (131, 210))  # neither square nor of the same shape


def images() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8) for size in SIZES]


def fill_statistics(backbone: nn.Module) -> None:
    """Running statistics that keep features of one size, with the norm of torchvision's first COCO weights (eps 0)."""
    norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    with torch.no_grad():
        backbone(torch.randn(2, 3, 160, 256))
    for norm in norms:
        norm.eps = 1e-30  # 0, which old torch refuses
        norm.eval()


@pytest.fixture(scope="module")
def retinanet() -> nn.Module:
    """Random weights whose scores and deltas spread."""
    torch.manual_seed(0)
    theirs = retinanet_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=CLASSES, min_size=SIDES[1], max_size=SIDES[0]
    ).eval()
    fill_statistics(theirs.backbone)
    with torch.no_grad():
        for head in (theirs.head.classification_head, theirs.head.regression_head):
            for layer in head.conv.modules():
                if isinstance(layer, nn.Conv2d):
                    nn.init.kaiming_normal_(layer.weight)
        logits, deltas = theirs.head.classification_head.cls_logits, theirs.head.regression_head.bbox_reg
        nn.init.normal_(deltas.weight, std=0.005)
        batch, _ = theirs.transform([image.float() / 255 for image in images()])
        seen = theirs.head.classification_head(list(theirs.backbone(batch.tensors).values()))
        logits.weight *= 1.5 / seen.std()
        nn.init.constant_(logits.bias, -4.0)
    return theirs


@pytest.fixture(scope="module")
def ssd() -> nn.Module:
    """Random weights that give a long tail of scores, most of them of class 1 and on levels of few cells."""
    torch.manual_seed(0)
    theirs = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=CLASSES + 1).eval()  # and background
    with torch.no_grad():
        theirs.backbone.scale_weight.uniform_(5, 30)
        batch, _ = theirs.transform([image.float() / 255 for image in images()])
        features = list(theirs.backbone(batch.tensors).values())
        for head, spread in ((theirs.head.classification_head, 1.5), (theirs.head.regression_head, 3.0)):
            for layer, x in zip(head.module_list, features, strict=True):
                layer.weight *= spread / layer(x).std()
                nn.init.normal_(layer.bias)
        for layer, less, more in zip(
            theirs.head.classification_head.module_list, (12, 10, 2, 0, 0, 0), (0, 0, 0, 0, 0, 4), strict=True
        ):
            logits = layer.bias.view(-1, CLASSES + 1)  # background first
            logits[:, 0] += less
            logits[:, 1] += more
            logits[:, 2:] -= 6
    return theirs


@pytest.fixture(scope="module")
def wanted(retinanet: nn.Module, ssd: nn.Module) -> dict[str, list[dict[str, Tensor]]]:
    """What they find, in double precision, by the recipe's name."""
    with torch.no_grad():
        return {
            name: copy.deepcopy(theirs).double()([i.double() / 255 for i in images()])
            for name, theirs in ((RETINANET, retinanet), (SSD, ssd))
        }


def imported(name: str, theirs: nn.Module) -> Detector:
    """The recipe's detector with these weights, in double precision from the first pixel on."""
    config = load_recipe(name).detector
    return in_double(theirs, config, CLASSES)


def resize_of(name: str) -> ResizeConfig:
    """The recipe's own resize; where it keeps the ratio, at the test's smaller bounds."""
    (resize,) = load_recipe(name).data.test_transforms
    assert isinstance(resize, ResizeConfig)
    return evolve(resize, scales=(SIDES,)) if resize.keep_ratio else resize


def check(found: list[Detections], wanted: list[dict[str, Tensor]], first_label: int) -> None:
    for ours, there in zip(found, wanted, strict=True):
        assert len(ours) == len(there["boxes"]) > 50
        assert len(there["labels"].unique()) > 2
        assert there["scores"].max() - there["scores"].min() > 0.05
        torch.testing.assert_close(ours.boxes, there["boxes"], rtol=0, atol=1e-4)
        torch.testing.assert_close(ours.scores, there["scores"], rtol=0, atol=1e-4)
        assert torch.equal(ours.labels, there["labels"] - first_label)


@pytest.mark.parametrize(("name", "first_label"), [(RETINANET, 0), (SSD, 1)])
def test_it_finds_the_same(
    name: str, first_label: int, wanted: dict[str, list[dict[str, Tensor]]], request: pytest.FixtureRequest
) -> None:
    theirs = request.getfixturevalue(name.partition("/")[0])
    check(found_in_double(imported(name, theirs), resize_of(name), images()), wanted[name], first_label)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (RETINANET, "dense_head.anchors.whole_sides=false"),
        (RETINANET, "dense_head.anchors.rounded=false"),
        (RETINANET, "dense_head.max_detections=100"),
        (RETINANET, "neck.extra_relu=false"),
        (SSD, "dense_head.anchors.longest=null"),
        (SSD, "dense_head.coder.stds=[1, 1, 1, 1]"),
        (SSD, "dense_head.candidates=level"),
        (SSD, "dense_head.before_nms=1000"),
        (SSD, "dense_head.score_threshold=0.02"),
        (SSD, "dense_head.nms_threshold=0.5"),
        (SSD, "dense_head.min_size=0"),
        (SSD, "preprocess.mean=[123.675, 116.28, 103.53]"),
    ],
)
def test_every_convention_counts(
    name: str, change: str, wanted: dict[str, list[dict[str, Tensor]]], request: pytest.FixtureRequest
) -> None:
    """With one setting as elsewhere the detections are others: the test above would notice."""
    theirs = request.getfixturevalue(name.partition("/")[0])
    changed = load_recipe(name, [f"detector.{change}"]).detector.build(num_classes=CLASSES).eval()
    import_weights(theirs.state_dict(), source="torchvision", detector=changed, force=True)
    pairs = zip(found_in_double(changed.double(), resize_of(name), images()), wanted[name], strict=True)
    assert any(
        len(ours) != len(there["boxes"]) or not torch.allclose(ours.boxes, there["boxes"], rtol=0, atol=1e-3)
        for ours, there in pairs
    )


def test_background_moves(ssd: nn.Module) -> None:
    """It comes first there and last here, anchor by anchor."""
    detector = load_recipe(SSD).detector.build(num_classes=CLASSES)
    import_weights(ssd.state_dict(), source="torchvision", detector=detector)
    for ours, theirs in zip(detector.dense_head.scores, ssd.head.classification_head.module_list, strict=True):
        logits, there = ours.bias.view(-1, CLASSES + 1), theirs.bias.view(-1, CLASSES + 1)
        assert torch.equal(logits[:, -1], there[:, 0])
        assert torch.equal(logits[:, :-1], there[:, 1:])


def test_weights_of_other_anchors_are_refused_for_their_shapes(ssd: nn.Module) -> None:
    detector = load_recipe("ssd/vgg16-512-coco-120e").detector.build(num_classes=CLASSES)
    with pytest.raises(WeightsError) as error:
        import_weights(ssd.state_dict(), source="torchvision", detector=detector, force=True)
    assert "classification_head.module_list.4.weight" in str(error.value)
    assert "(28, 256, 3, 3)" in str(error.value)


def test_anchors_of_whole_sides() -> None:
    """32 * 2^(1/3) is 40.3: torchvision's anchors have sides of 40 pixels, rounded around the centre after ratios."""
    config = GridAnchorsConfig(scales=(4 * 2 ** (1 / 3),), ratios=(1.0,), whole_sides=True)
    boxes = config.build((8,))([(1, 1)], torch.device("cpu"))[0].boxes
    assert boxes.tolist() == [[-20.0, -20.0, 20.0, 20.0]]
