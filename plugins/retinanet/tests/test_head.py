"""RetinaNet's head: anchors, losses by hand, which pairs become detections, and its settings."""

from __future__ import annotations

import math
from typing import ClassVar

import pytest
import torch
from attrs import evolve
from torch import Tensor

from det_core.boxes.box_config import DeltaCoderConfig, GridAnchorsConfig
from det_core.errors import ConfigError
from det_core.model.dense_detection import DenseOutputs
from det_core.model.detector_config import DetectorConfig
from det_core.model.layer_config import GroupNormConfig
from det_core.slots import AnchorConfig
from det_core.specs import FeatureSpec
from det_core.structures import Batch, ImageInfo, Targets
from det_core.testing import contract_checks
from det_core.testing.isolated_plugins import stub_config
from det_core.testing.tiny_inputs import blank_batch, objects
from det_plugin_fpn.config import FPNConfig
from det_plugin_resnet.config import ResNetConfig
from det_plugin_retinanet.config import RetinaNetHeadConfig
from det_plugin_retinanet.head import RetinaNetHead

SMALL = RetinaNetHeadConfig(channels=16, num_convs=1)
ONE_LEVEL = FeatureSpec(channels=(4,), strides=(16,))
ONE_ANCHOR = GridAnchorsConfig(scales=(1.0,), ratios=(1.0,))  # 16 x 16 around (16 x, 16 y)


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        evolve(SMALL, num_convs=0),
        evolve(SMALL, norm=GroupNormConfig(groups=4), class_agnostic_nms=True, nms_in="network"),
    ],
    ids=["plain", "without towers", "group norm"],
)
def test_the_contract_of_dense_heads(config: RetinaNetHeadConfig) -> None:
    contract_checks.check_dense_head(config)


def test_the_plugin() -> None:
    contract_checks.check_plugin("retinanet", build=False)


def test_anchors_of_the_usual_input() -> None:
    config = RetinaNetHeadConfig()
    strides = (8, 16, 32, 64, 128)
    sizes = [(100, 168), (50, 84), (25, 42), (13, 21), (7, 11)]
    levels = config.anchors.build(strides)(sizes, torch.device("cpu"))
    assert config.anchors.anchors_per_cell() == 9
    assert sum(len(level.boxes) for level in levels) == 201_600
    sides = (levels[0].boxes[3:6, 2:] - levels[0].boxes[3:6, :2]).tolist()  # ratio 1
    wanted = [32 * 2 ** (i / 3) for i in range(3)]
    assert sides == [pytest.approx([side, side], rel=1e-5) for side in wanted]


def head_of(config: RetinaNetHeadConfig, classes: int, spec: FeatureSpec = ONE_LEVEL) -> RetinaNetHead:
    torch.manual_seed(0)
    return config.build(spec, classes)


def test_a_fresh_head_says_one_in_a_hundred() -> None:
    """Its class loss at the first step is then about -.75 * .01^2 * log(.99) per background pair, plus the objects'."""
    head = head_of(RetinaNetHeadConfig(), 80, FeatureSpec(channels=(256,), strides=(8,)))
    outputs = head([torch.zeros(1, 256, 4, 6)])
    assert torch.allclose(outputs.scores[0].sigmoid(), torch.tensor(0.01), atol=1e-4)
    term = head.losses(outputs, [objects((0, 0, 32, 32))], blank_batch(32, 48))["retina_cls"]
    pairs, positive = 4 * 6 * 9 * 80, int(term.count)
    ignored = int((assigned(head, objects((0, 0, 32, 32)), blank_batch(32, 48), [(4, 6)]) == -2).sum())
    easy = 0.75 * 0.01**2 * -math.log(0.99)
    hard = 0.25 * 0.99**2 * -math.log(0.01)
    wanted = (pairs - positive - 80 * ignored) * easy + positive * hard
    assert term.total.item() == pytest.approx(wanted, rel=1e-3)


def assigned(head: RetinaNetHead, target: Targets, batch: Batch, sizes: list[tuple[int, int]]) -> Tensor:
    boxes = head.anchors(sizes, torch.device("cpu"))[0].boxes
    return head.assigner(boxes, target.boxes).objects


def test_losses_by_hand() -> None:
    """2 x 2 cells, one anchor each: one is an object, one is between the thresholds, two are background."""
    head = head_of(evolve(SMALL, anchors=ONE_ANCHOR), 2)
    batch, target = blank_batch(32, 32), objects((-8.0, -8.0, 8.0, 8.0), label=1)
    logits = torch.tensor([[0.5, -1.0], [2.0, 0.0], [-0.5, 0.25], [1.0, -2.0]])
    deltas = torch.tensor([[0.1, -0.2, 0.3, 0.0]] * 4)
    levels = head.anchors([(2, 2)], torch.device("cpu"))
    terms = head.losses(DenseOutputs([logits[None]], [deltas[None]], levels), [target], batch)

    def focal(logit: float, positive: bool) -> float:
        p = 1 / (1 + math.exp(-logit))
        return -0.25 * (1 - p) ** 2 * math.log(p) if positive else -0.75 * p**2 * math.log(1 - p)

    wanted = sum(
        focal(value, positive=(row, column) == (0, 1))
        for row, values in enumerate(logits.tolist())
        for column, value in enumerate(values)
    )
    assert terms["retina_cls"].value().item() == pytest.approx(wanted, rel=1e-5)
    assert terms["retina_box"].value().item() == pytest.approx(0.6, rel=1e-5)
    # An object that overlaps the anchor (0, 16) by .45 in front: it takes its best, and that one alone.
    two = Targets(boxes=torch.cat([target.boxes, torch.tensor([[8.0, -8.0, 15.2, 8.0]])]), labels=torch.tensor([1, 0]))
    assert head.losses(DenseOutputs([logits[None]], [deltas[None]], levels), [two], batch)["retina_cls"].count == 2.0


@pytest.mark.parametrize("count", [0, 300])
def test_no_objects_and_many(count: int) -> None:
    head = head_of(SMALL, 3)
    batch = blank_batch(64, 96)
    corners = torch.rand(count, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([70.0, 40.0])
    target = Targets(boxes=torch.cat([corners, corners + 20], 1), labels=torch.arange(count) % 3)
    terms = head.losses(head([torch.randn(1, 4, 4, 6)]), [target], batch)
    total = sum(term.value() for term in terms.values())
    total.backward()  # type: ignore[union-attr]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


def outputs_of(head: RetinaNetHead, logits: Tensor) -> DenseOutputs:
    """One image of one row of cells, scores (cells, K), no deltas."""
    levels = head.anchors([(1, len(logits))], torch.device("cpu"))
    return DenseOutputs([logits[None]], [torch.zeros(1, len(logits), 4)], levels)


def test_pairs_are_chosen_not_anchors() -> None:
    """An anchor with two good classes gives two detections; `before_nms` counts pairs."""
    logits = torch.tensor([[3.0, 2.0], [1.0, -9.0], [-9.0, -9.0]])
    head = head_of(evolve(SMALL, anchors=ONE_ANCHOR), 2)
    found = head.predict(outputs_of(head, logits), blank_batch(16, 48))[0]
    assert found.labels.tolist() == [0, 1, 0]
    assert found.scores.tolist() == pytest.approx(torch.tensor([3.0, 2.0, 1.0]).sigmoid().tolist())
    assert found.boxes[2].tolist() == [8.0, 0.0, 24.0, 8.0]
    head = head_of(evolve(SMALL, anchors=ONE_ANCHOR, before_nms=2), 2)
    assert len(head.predict(outputs_of(head, logits), blank_batch(16, 48))[0]) == 2


@pytest.mark.parametrize(("threshold", "count"), [(0.0, 6), (0.05, 3), (0.9, 1), (1.0, 0)])
def test_the_score_threshold(threshold: float, count: int) -> None:
    logits = torch.tensor([[3.0, 2.0], [1.0, -9.0], [-9.0, -9.0]])
    head = head_of(evolve(SMALL, anchors=ONE_ANCHOR, score_threshold=threshold), 2)
    assert len(head.predict(outputs_of(head, logits), blank_batch(16, 48))[0]) == count


def test_a_score_at_the_threshold_itself_is_left_out() -> None:
    logit = torch.tensor(0.3)
    head = head_of(evolve(SMALL, anchors=ONE_ANCHOR, score_threshold=float(logit.sigmoid())), 1)
    found = head.predict(outputs_of(head, torch.stack([logit, logit + 1e-4])[:, None]), blank_batch(16, 32))[0]
    assert len(found) == 1


def test_boxes_without_area_go() -> None:
    """An anchor beyond the image is clipped to a line."""
    logits = torch.tensor([[1.0], [2.0]])
    for least, count in ((0.0, 1), (-1.0, 2), (9.0, 0)):
        head = head_of(evolve(SMALL, anchors=ONE_ANCHOR, min_size=least), 1)
        assert len(head.predict(outputs_of(head, logits), blank_batch(16, 8))[0]) == count


def test_scaled_back_before_or_after_nms() -> None:
    """Boxes that touch in network pixels are compared there, or as the original image has them."""
    logits = torch.tensor([[1.0], [2.0]])
    for frame in ("original", "network"):
        head = head_of(evolve(SMALL, anchors=ONE_ANCHOR, nms_in=frame), 1)
        found = head.predict(outputs_of(head, logits), blank_batch(16, 32, scale=(2.0, 0.5)))[0]
        assert found.boxes[0].tolist() == [16.0, 0.0, 48.0, 4.0]


def test_levels_of_several_widths_are_refused() -> None:
    with pytest.raises(ConfigError, match="retinanet"):
        SMALL.check(FeatureSpec(channels=(4, 8), strides=(8, 16)))


@stub_config
class Growing(AnchorConfig):
    """One anchor per cell on the first level, two on the next."""

    type: ClassVar[str] = "growing"

    def anchors_per_cell(self) -> int:
        raise ConfigError.at("anchors", "1 and 2 per cell")


@stub_config
class ForTwo(AnchorConfig):
    """One anchor per cell, of two levels."""

    type: ClassVar[str] = "for_two"

    def anchors_per_cell(self) -> int:
        return 1

    def anchors_per_level(self, levels: int) -> tuple[int, ...]:
        if levels != 2:
            raise ConfigError.at("anchors", f"for 2 levels, not {levels}")
        return (1, 1)


@pytest.mark.parametrize(("anchors", "message"), [(Growing(), "1 and 2 per cell"), (ForTwo(), "for 2 levels, not 5")])
def test_anchors_that_do_not_fit_are_refused_before_anything_is_built(anchors: AnchorConfig, message: str) -> None:
    neck = FPNConfig(channels=16, start=1, levels=5, extra="conv_input")
    with pytest.raises(ConfigError, match=f"^DetectorConfig.dense_head.anchors: {message}$"):
        DetectorConfig(backbone=ResNetConfig(depth=18), neck=neck, dense_head=evolve(SMALL, anchors=anchors))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": 0}, r"channels\S*: found .+, expected .*at least 1"),
        ({"num_convs": -1}, r"num_convs\S*: found .+, expected .*at least 0"),
        ({"prior": 0.0}, r"prior\S*: found .+, expected .*above 0"),
        ({"prior": 1.0}, r"prior\S*: found .+, expected .*below 1"),
        ({"before_nms": 0}, r"before_nms\S*: found .+, expected .*at least 1"),
        ({"min_size": -2.0}, r"min_size\S*: found .+, expected .*at least -1"),
        ({"score_threshold": 1.5}, r"score_threshold\S*: found .+, expected .*at most 1"),
        ({"nms_in": "nowhere"}, r"nms_in\S*: found .+, allowed: "),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RetinaNetHeadConfig(**settings)  # type: ignore[arg-type]


TWO_LEVELS = FeatureSpec(channels=(4, 4), strides=(16, 32))
DETECTRON = evolve(
    SMALL,
    anchors=ONE_ANCHOR,
    coarsest="all",
    clip="original",
    coder=DeltaCoderConfig(border="pixel"),
    min_size=-1.0,
)


def detectron_outputs(head: RetinaNetHead) -> DenseOutputs:
    """Of 32 x 64 pixels: probabilities .3 and .01 at two cells of either level, and nearly 0 elsewhere."""
    scores = [torch.full((1, n, 1), -20.0) for n in (8, 2)]
    for level in scores:
        level[0, :2, 0] = torch.tensor([0.3, 0.01]).logit()
    deltas = [torch.zeros(1, n, 4) for n in (8, 2)]
    return DenseOutputs(scores, deltas, head.anchors([(2, 4), (1, 2)], torch.device("cpu")))


def test_detectron_keeps_all_candidates_of_the_coarsest_level() -> None:
    head = head_of(DETECTRON, 1, TWO_LEVELS)
    (found,) = head.eval().predict(detectron_outputs(head), blank_batch(32, 64))
    assert found.scores.tolist() == pytest.approx([0.3, 0.3, 0.01])
    head = head_of(evolve(DETECTRON, coarsest="threshold"), 1, TWO_LEVELS)
    (found,) = head.eval().predict(detectron_outputs(head), blank_batch(32, 64))
    assert found.scores.tolist() == pytest.approx([0.3, 0.3])


def test_detectron_clips_in_the_original_image_before_nms() -> None:
    """At twice the size, of inclusive boxes: the anchor -16..16 ends at (16 - 1) / 2 + 1, and begins at the border."""
    info = ImageInfo(size=(32, 64), original_size=(16, 32), scale=(2.0, 2.0), inclusive=True)
    batch = evolve(blank_batch(32, 64), infos=(info,))
    head = head_of(evolve(DETECTRON, coarsest="threshold"), 1, TWO_LEVELS)
    (found,) = head.eval().predict(detectron_outputs(head), batch)
    assert found.boxes.tolist() == [[0.0, 0.0, 4.5, 4.5], [0.0, 0.0, 8.5, 8.5]]
    with pytest.raises(ConfigError, match="clip: original requires nms_in: original, found 'network'"):
        evolve(DETECTRON, nms_in="network")


def test_the_running_mean_divides_the_losses() -> None:
    head = head_of(evolve(SMALL, anchors=ONE_ANCHOR, normaliser="running_mean"), 1)
    outputs, batch = head([torch.zeros(1, 4, 2, 4)]), blank_batch(32, 64)
    target = [objects((-8, -8, 8, 8))]
    counts = [head.train().losses(outputs, target, batch)["retina_cls"].count for _ in range(2)]
    assert [float(count) for count in counts] == pytest.approx([45.1, 40.69])  # 0.9 of the last, and 0.1 of one anchor
    assert float(head.eval().losses(outputs, target, batch)["retina_box"].count) == pytest.approx(40.69)
