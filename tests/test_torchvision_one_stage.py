"""torchvision's own one-stage detectors, imported, find what they find in torchvision: boxes, scores and labels."""

from __future__ import annotations

import pytest
import torch
from attrs import evolve
from torch import Tensor, nn
from torchvision.models.detection import retinanet_resnet50_fpn

from det_core.boxes.config import GridAnchorsConfig
from det_core.data.config import ResizeConfig
from det_core.data.dataset import Sample
from det_core.data.loader import prepare
from det_core.engine.predict import to_batch
from det_core.model.detector import Detector
from det_core.recipe import load_recipe
from det_core.structures import Detections, Key
from det_core.weights import class_count, import_weights

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


def imported(name: str, theirs: nn.Module) -> Detector:
    """The recipe's detector with these weights, in double precision from the first pixel on."""
    config = load_recipe(name).detector
    state = theirs.state_dict()
    assert class_count(state, source="torchvision", config=config) == CLASSES
    detector = config.build(num_classes=CLASSES).eval()
    report = import_weights(state, source="torchvision", detector=detector)
    assert set(report.filled.values()) == set(state)
    assert report.ignored == ()
    detector.double()
    for value in ("mean", "std"):
        exact = torch.tensor(getattr(detector.preprocess.config, value), dtype=torch.float64)
        setattr(detector.preprocess, value, exact[:, None, None])
    return detector


def found_in(detector: Detector, resize: ResizeConfig) -> list[Detections]:
    nothing = torch.zeros(0, dtype=torch.int64)
    loaded = [
        prepare(
            Sample(image=i.double(), boxes=torch.zeros(0, 4), labels=nothing, ignored=nothing.bool(), file=""),
            [resize.build()],
            Key(),
        )
        for i in images()
    ]
    found: list[Detections] = detector.predict(to_batch(detector, loaded))
    return found


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


def test_retinanet_finds_the_same(retinanet: nn.Module) -> None:
    name = "retinanet/torchvision-r50-fpn"
    found = found_in(imported(name, retinanet), resize_of(name))
    with torch.no_grad():
        wanted = retinanet.double()([i.double() / 255 for i in images()])
    check(found, wanted, first_label=0)


@pytest.mark.parametrize(
    "change",
    [
        "detector.dense_head.anchors.whole_sides=false",
        "detector.dense_head.anchors.rounded=false",
        "detector.dense_head.max_detections=100",
        "detector.neck.extra_relu=false",
    ],
)
def test_every_convention_counts(change: str, retinanet: nn.Module) -> None:
    """With one setting as elsewhere the detections are others: the test above would notice."""
    name = "retinanet/torchvision-r50-fpn"
    changed = load_recipe(name, [change]).detector.build(num_classes=CLASSES).eval()
    import_weights(retinanet.state_dict(), source="torchvision", detector=changed)
    pairs = zip(
        found_in(changed.double(), resize_of(name)),
        found_in(imported(name, retinanet), resize_of(name)),
        strict=True,
    )
    assert any(len(a) != len(b) or not torch.allclose(a.boxes, b.boxes, rtol=0, atol=1e-3) for a, b in pairs)


def test_anchors_of_whole_sides() -> None:
    """32 * 2^(1/3) is 40.3: torchvision's anchors have sides of 40 pixels, rounded around the centre after ratios."""
    config = GridAnchorsConfig(scales=(4 * 2 ** (1 / 3),), ratios=(1.0,), whole_sides=True)
    boxes = config.build((8,))([(1, 1)], torch.device("cpu"))[0].boxes
    assert boxes.tolist() == [[-20.0, -20.0, 20.0, 20.0]]
