"""SSD's head: losses by hand, which negatives train, which pairs become detections, and its settings."""

from __future__ import annotations

import math

import pytest
import torch
from attrs import evolve
from torch import Tensor
from torch.nn import functional as F

from det_core.boxes.box_config import DeltaCoderConfig, GridAnchorsConfig
from det_core.errors import ConfigError
from det_core.model.dense_detection import DenseOutputs
from det_core.model.detection_config import SoftNMSConfig
from det_core.model.layer_config import GroupNormConfig
from det_core.specs import FeatureSpec
from det_core.structures import Batch, Detections, LossTerm, Targets
from det_core.testing import contract_checks
from det_core.testing.tiny_inputs import blank_batch, objects
from det_plugin_ssd.config import COCO_300, SSDAnchorsConfig, SSDHeadConfig
from det_plugin_ssd.head import SSDHead

# One anchor per cell, 16 x 16 around (16 x, 16 y): grid anchors stand on corners.
ONE_ANCHOR = SSDHeadConfig(anchors=GridAnchorsConfig(scales=(1.0,), ratios=(1.0,)), coder=DeltaCoderConfig())
ONE_LEVEL = FeatureSpec(channels=(4,), strides=(16,))
LEVELS = FeatureSpec(channels=(4, 8), strides=(16, 32))
ANCHORS = SSDAnchorsConfig(sizes=(16.0, 32.0, 64.0), ratios=((2.0,), (2.0, 3.0)))
CPU = torch.device("cpu")


def head_of(config: SSDHeadConfig, classes: int, spec: FeatureSpec = ONE_LEVEL) -> SSDHead:
    torch.manual_seed(0)
    return config.build(spec, classes)


def outputs_of(head: SSDHead, logits: Tensor, deltas: Tensor | None = None) -> DenseOutputs:
    """N images of one row of cells: logits (N, cells, K+1), deltas (N, cells, 4), none by default."""
    levels = head.anchors([(1, logits.shape[1])], CPU)
    return DenseOutputs([logits], [torch.zeros(*logits.shape[:2], 4) if deltas is None else deltas], levels)


@pytest.mark.parametrize(
    "config",
    [
        SSDHeadConfig(anchors=evolve(ANCHORS, sizes=(16.0, 32.0, 64.0))),
        SSDHeadConfig(anchors=GridAnchorsConfig(scales=(2.0,)), candidates="class", before_nms=50, nms_in="network"),
        SSDHeadConfig(anchors=ANCHORS, soft_nms=SoftNMSConfig(), class_agnostic_nms=True, negatives=0.0),
        SSDHeadConfig(anchors=ANCHORS, separable=True),
        SSDHeadConfig(anchors=ANCHORS, separable=True, norm=GroupNormConfig(groups=2)),
    ],
    ids=["plain", "by class", "soft", "separable", "separable, group norm"],
)
def test_the_contract_of_dense_heads(config: SSDHeadConfig) -> None:
    contract_checks.check_dense_head(config, LEVELS)


def test_every_level_has_its_layers() -> None:
    """4 and 6 anchors, of 3 classes and background."""
    head = head_of(SSDHeadConfig(anchors=ANCHORS), 3, LEVELS)
    assert [(layer.in_channels, layer.out_channels) for layer in head.scores] == [(4, 16), (8, 24)]
    assert [(layer.in_channels, layer.out_channels) for layer in head.deltas] == [(4, 16), (8, 24)]
    outputs = head([torch.zeros(2, 4, 3, 5), torch.zeros(2, 8, 2, 3)])
    assert [tuple(x.shape) for x in outputs.scores] == [(2, 60, 4), (2, 36, 4)]
    assert [tuple(x.shape) for x in outputs.deltas] == [(2, 60, 4), (2, 36, 4)]
    assert head.class_dependent() == ("scores.0", "scores.1")


def test_separable_layers_by_hand() -> None:
    """A depthwise 3x3 convolution, ReLU6 and a 1x1 convolution; only the last depends on the classes."""
    head = head_of(SSDHeadConfig(anchors=ANCHORS, separable=True), 3, LEVELS)
    assert head.class_dependent() == ("scores.0.predict", "scores.1.predict")
    layer = head.scores[1]
    depthwise, predict = layer.depthwise.conv, layer.predict
    assert (depthwise.groups, depthwise.kernel_size, predict.out_channels, predict.kernel_size) == (
        8,
        (3, 3),
        24,
        (1, 1),
    )
    x = 200 * torch.randn(1, 8, 3, 4)
    wanted = predict(depthwise(x).clamp(0, 6))
    torch.testing.assert_close(layer(x), wanted)


def test_a_norm_requires_separable_layers() -> None:
    with pytest.raises(ConfigError, match="norm: requires separable: true; plain prediction layers have no norm, so u"):
        SSDHeadConfig(norm=GroupNormConfig())


def test_rows_are_those_of_the_anchors() -> None:
    """Column 4 a + c of the map at (y, x) is column c of row (y w + x) A + a."""
    head = head_of(SSDHeadConfig(anchors=ANCHORS), 3, LEVELS)
    features = [torch.randn(1, 4, 2, 3), torch.randn(1, 8, 1, 2)]
    outputs = head(features)
    for level, per_cell in ((0, 4), (1, 6)):
        raw = head.scores[level](features[level])[0]
        for y, x, a in ((0, 1, 2), (raw.shape[1] - 1, 0, 3)):
            row = (y * raw.shape[2] + x) * per_cell + a
            assert torch.equal(outputs.scores[level][0, row], raw[4 * a : 4 * a + 4, y, x])


def cross_entropy(row: list[float], label: int) -> float:
    return math.log(sum(math.exp(x) for x in row)) - row[label]


def test_losses_by_hand() -> None:
    """6 cells: the object's anchor, and of the five others the three that look least like background."""
    head = head_of(ONE_ANCHOR, 2)
    rows = [[0.5, -1.0, 0.2], [2.0, 0.0, 0.0], [0.0, 0.0, 3.0], [0.0, 0.5, 0.1], [0.0, 0.0, 1.0], [0.0, 0.0, 0.9]]
    deltas = torch.tensor([[0.5, -0.2, 2.0, 0.0]] * 6)
    outputs = outputs_of(head, torch.tensor([rows]), deltas[None])
    terms = head.losses(outputs, [objects((-8.0, -8.0, 8.0, 8.0), label=1)], blank_batch(16, 96))
    wanted = cross_entropy(rows[0], 1) + sum(cross_entropy(rows[i], 2) for i in (1, 3, 5))
    assert terms["ssd_cls"].count == 1.0
    assert terms["ssd_cls"].value().item() == pytest.approx(wanted, rel=1e-5)
    assert terms["ssd_box"].value().item() == pytest.approx(0.5**2 / 2 + 0.2**2 / 2 + (2.0 - 0.5), rel=1e-5)
    # twice the objects, twice the divisor
    both = head.losses(
        DenseOutputs([outputs.scores[0].expand(2, -1, -1)], [outputs.deltas[0].expand(2, -1, -1)], outputs.anchors),
        [objects((-8.0, -8.0, 8.0, 8.0), label=1)] * 2,
        blank_batch(16, 96, count=2),
    )
    assert both["ssd_cls"].count == 2.0
    assert both["ssd_cls"].value().item() == pytest.approx(wanted, rel=1e-5)


def trained(head: SSDHead, logits: Tensor, targets: list[Targets]) -> list[list[int]]:
    """Of each image, the rows that the classification loss has a gradient for."""
    logits = logits.requires_grad_()
    batch = blank_batch(16, 16 * logits.shape[1], count=len(logits))
    head.losses(outputs_of(head, logits), targets, batch)["ssd_cls"].total.backward()
    assert logits.grad is not None
    return [row.abs().sum(1).nonzero().flatten().tolist() for row in logits.grad]


@pytest.mark.parametrize(("ratio", "expected"), [(3.0, 3), (1.5, 1), (0.0, 0), (100.0, 9)])
def test_negatives_by_ratio(ratio: float, expected: int) -> None:
    """Rounded down, and no more than there are."""
    torch.manual_seed(0)
    head = head_of(evolve(ONE_ANCHOR, negatives=ratio), 2)
    (rows,) = trained(head, torch.randn(1, 10, 3), [objects((24.0, -8.0, 40.0, 8.0))])
    assert 2 in rows
    assert len(rows) == 1 + expected


def test_negatives_are_counted_image_by_image() -> None:
    """The first image has two objects, the second none, the third one, whatever the others' negatives look like."""
    torch.manual_seed(0)
    logits = torch.randn(3, 12, 3)
    logits[1, :, 2] -= 20.0  # all hard, and left alone
    first = objects((-8.0, -8.0, 8.0, 8.0), (24.0, -8.0, 40.0, 8.0))
    head = head_of(ONE_ANCHOR, 2)
    rows = trained(head, logits, [first, objects(), objects((8.0, -8.0, 24.0, 8.0))])
    assert [len(x) for x in rows] == [2 + 6, 0, 1 + 3]
    background = logits.detach().log_softmax(-1)[..., 2]
    for image_rows, own, picture in ((rows[0], {0, 2}, 0), (rows[2], {1}, 2)):
        others = [i for i in range(12) if i not in own]
        hardest = sorted(others, key=lambda i, p=picture: background[p, i].item())[: 3 * len(own)]  # type: ignore[misc]
        assert set(image_rows) == own | set(hardest)


def test_only_one_anchor_takes_an_object_that_none_overlaps_enough() -> None:
    """An object in the middle of two anchors overlaps both by 1/3: the first is its own, the other is background."""
    head = head_of(evolve(ONE_ANCHOR, negatives=0.0), 1)
    logits = torch.zeros(1, 4, 2)
    middle = objects((16.0, -8.0, 32.0, 8.0))  # between the anchors around 16 and 32
    overlaps = [8 / 24, 8 / 24]
    assert overlaps[0] == overlaps[1] < 0.5
    assert trained(head, logits, [middle]) == [[1]]
    ties = evolve(ONE_ANCHOR, negatives=0.0, assigner=evolve(ONE_ANCHOR.assigner, all_ties=True))
    assert trained(head_of(ties, 1), torch.zeros(1, 4, 2), [middle]) == [[1, 2]]


def values(terms: dict[str, LossTerm]) -> dict[str, float]:
    return {name: term.value().item() for name, term in terms.items()}


@pytest.mark.parametrize("counts", [(0, 0), (300, 0), (1, 300)])
def test_no_objects_and_many(counts: tuple[int, ...]) -> None:
    head = head_of(SSDHeadConfig(anchors=ANCHORS), 3, LEVELS)
    generator = torch.Generator().manual_seed(0)
    targets = []
    for count in counts:
        corners = torch.rand(count, 2, generator=generator) * torch.tensor([70.0, 40.0])
        targets.append(Targets(boxes=torch.cat([corners, corners + 20], 1), labels=torch.arange(count) % 3))
    terms = head.losses(head([torch.randn(2, 4, 4, 6), torch.randn(2, 8, 2, 3)]), targets, blank_batch(64, 96, count=2))
    assert set(terms) == {"ssd_cls", "ssd_box"}
    torch.stack([term.value() for term in terms.values()]).sum().backward()
    assert all(math.isfinite(value) for value in values(terms).values())
    assert all((value > 0) == (sum(counts) > 0) for value in values(terms).values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


def test_a_level_that_reaches_beyond_the_image_trains_where_it_begins_inside() -> None:
    """A map of 4 cells on an image of 2: the others are neither positive nor negative."""
    head = head_of(evolve(ONE_ANCHOR, negatives=100.0), 1)
    logits = torch.zeros(1, 4, 2, requires_grad=True)
    terms = head.losses(outputs_of(head, logits), [objects((-8.0, -8.0, 8.0, 8.0))], blank_batch(16, 32))
    terms["ssd_cls"].total.backward()
    assert logits.grad is not None
    assert logits.grad.abs().sum(2)[0].nonzero().flatten().tolist() == [0, 1]


# from scores to detections


def detect(config: SSDHeadConfig, logits: Tensor, batch: Batch) -> Detections:
    head = head_of(config, logits.shape[-1] - 1)
    return head.predict(outputs_of(head, logits[None]), batch)[0]


ROWS = torch.tensor([[3.0, 2.0, 0.0], [1.0, -9.0, 0.0], [-9.0, -9.0, 5.0]])


def test_scores_are_softmax_s_and_background_is_no_class() -> None:
    """An anchor with two good classes gives two detections; the third anchor is background."""
    found = detect(ONE_ANCHOR, ROWS, blank_batch(16, 48))
    expected = F.softmax(ROWS, -1)
    assert found.labels.tolist() == [0, 0, 1]
    assert found.scores.tolist() == pytest.approx(expected[[1, 0, 0], [0, 0, 1]].tolist())
    assert found.boxes.tolist() == [[8, 0, 24, 8], [0, 0, 8, 8], [0, 0, 8, 8]]


@pytest.mark.parametrize(("threshold", "count"), [(0.0, 6), (0.02, 3), (0.7, 2), (0.72, 1), (1.0, 0)])
def test_the_score_threshold(threshold: float, count: int) -> None:
    """.731, .705, .259, and less than .0001."""
    for candidates in ("level", "class"):
        config = evolve(ONE_ANCHOR, score_threshold=threshold, candidates=candidates)
        assert len(detect(config, ROWS, blank_batch(16, 48))) == count


def test_a_score_at_the_threshold_itself_is_left_out() -> None:
    threshold = F.softmax(ROWS, -1)[1, 0].item()
    for candidates in ("level", "class"):
        config = evolve(ONE_ANCHOR, score_threshold=threshold, candidates=candidates)
        assert len(detect(config, ROWS, blank_batch(16, 48))) == 0


def test_candidates_are_counted_by_level_or_by_class() -> None:
    """Class 0 is good everywhere, class 1 nowhere: two pairs of the level are both of class 0."""
    logits = torch.tensor([[4.0, 0.0, 1.0], [3.0, 0.5, 1.0], [2.0, 0.0, 1.0]])
    limited = evolve(ONE_ANCHOR, before_nms=2)
    assert detect(limited, logits, blank_batch(16, 48)).labels.tolist() == [0, 0]
    found = detect(evolve(limited, candidates="class"), logits, blank_batch(16, 48))
    assert sorted(found.labels.tolist()) == [0, 0, 1, 1]
    assert found.boxes[found.labels == 0].tolist() == [[0, 0, 8, 8], [8, 0, 24, 8]]


def test_every_level_hands_on_its_best() -> None:
    """By level a coarse map is heard however good the fine one is; by class it is not."""
    spec = FeatureSpec(channels=(4, 4), strides=(16, 32))
    fine, coarse = torch.tensor([[[5.0, 0.0], [4.0, 0.0]]]), torch.tensor([[[1.0, 0.0]]])
    for candidates, count in (("level", 2), ("class", 1)):
        head = head_of(evolve(ONE_ANCHOR, before_nms=1, candidates=candidates), 1, spec)
        levels = head.anchors([(1, 2), (1, 1)], CPU)
        outputs = DenseOutputs([fine, coarse], [torch.zeros(1, 2, 4), torch.zeros(1, 1, 4)], levels)
        found = head.predict(outputs, blank_batch(32, 64))[0]
        assert len(found) == count
        assert found.boxes[-1].tolist() == ([0, 0, 16, 16] if count == 2 else [0, 0, 8, 8])


def test_boxes_without_area_go() -> None:
    """An anchor beyond the image is clipped to a line."""
    logits = torch.tensor([[1.0, 0.0], [2.0, 0.0]])
    for candidates in ("level", "class"):
        for least, count in ((0.0, 1), (-1.0, 2), (9.0, 0)):
            config = evolve(ONE_ANCHOR, min_size=least, candidates=candidates)
            assert len(detect(config, logits, blank_batch(16, 8))) == count


def overlapping(config: SSDHeadConfig) -> Detections:
    """Three detections that overlap by more than .45: two of class 0, one of class 1."""
    head = head_of(config, 2)
    logits = torch.tensor([[[3.0, 0.0, 0.0], [2.0, 0.0, 0.0], [0.0, 2.5, 0.0]]])
    shifts = torch.tensor([[[1.0, 0.5, 0, 0], [0.1, 0.5, 0, 0], [-0.9, 0.5, 0, 0]]])  # x of 16, 17.6, 17.6
    config_scores = head.predict(outputs_of(head, logits, shifts), blank_batch(16, 64))
    return config_scores[0]


def test_suppression() -> None:
    high = evolve(ONE_ANCHOR, score_threshold=0.2)
    assert overlapping(high).labels.tolist() == [0, 1]
    assert overlapping(evolve(high, nms_threshold=0.9)).labels.tolist() == [0, 1, 0]
    assert overlapping(evolve(high, class_agnostic_nms=True)).labels.tolist() == [0]
    assert overlapping(evolve(high, max_detections=1)).labels.tolist() == [0]
    soft = overlapping(evolve(high, soft_nms=SoftNMSConfig()))
    assert sorted(soft.labels.tolist()) == [0, 0, 1]
    assert soft.scores.min() < F.softmax(torch.tensor([2.0, 0.0, 0.0]), 0)[0] - 0.1


def test_scaled_back_before_or_after_nms() -> None:
    logits = torch.tensor([[1.0, 0.0], [2.0, 0.0]])
    for frame in ("original", "network"):
        found = detect(evolve(ONE_ANCHOR, nms_in=frame), logits, blank_batch(16, 32, scale=(2.0, 0.5)))
        assert found.boxes[0].tolist() == [16.0, 0.0, 48.0, 4.0]


def test_the_usual_settings() -> None:
    config = SSDHeadConfig()
    assert config.anchors == COCO_300
    assert config.coder == DeltaCoderConfig(stds=(0.1, 0.1, 0.2, 0.2))
    assert (config.score_threshold, config.nms_threshold, config.max_detections) == (0.02, 0.45, 200)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"negatives": -1.0}, r"negatives\S*: found .+, expected .*at least 0"),
        ({"candidates": "image"}, r"candidates\S*: found .+, allowed: "),
        ({"before_nms": 0}, r"before_nms\S*: found .+, expected .*at least 1"),
        ({"min_size": -2.0}, r"min_size\S*: found .+, expected .*at least -1"),
        ({"score_threshold": 1.5}, r"score_threshold\S*: found .+, expected .*at most 1"),
        ({"nms_threshold": -0.1}, r"nms_threshold\S*: found .+, expected .*at least 0"),
        ({"max_detections": 0}, r"max_detections\S*: found .+, expected .*at least 1"),
        ({"nms_in": "nowhere"}, r"nms_in\S*: found .+, allowed: "),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SSDHeadConfig(**settings)  # type: ignore[arg-type]
