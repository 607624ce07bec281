"""GA-RetinaNet: its losses, which anchors become detections, where its scores are computed, and its settings."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from attrs import evolve
from torch import Tensor

from det_core.boxes.box_config import DeltaCoderConfig
from det_core.errors import ConfigError
from det_core.model.layer_config import GroupNormConfig
from det_core.specs import FeatureSpec
from det_core.structures import Targets
from det_core.testing import contract_checks
from det_core.testing.tiny_inputs import blank_batch
from det_plugin_guided_anchoring.config import GARetinaNetHeadConfig, RetinaNetGuidedAnchorsConfig
from det_plugin_guided_anchoring.prediction import GuidedOutputs
from det_plugin_guided_anchoring.retinanet import GARetinaNetHead

SMALL = GARetinaNetHeadConfig(
    channels=8, num_convs=1, guided=RetinaNetGuidedAnchorsConfig(base_scale=2.0), max_detections=40
)
ONE_LEVEL = FeatureSpec(channels=(8,), strides=(16,))
UNIT = evolve(SMALL, guided=RetinaNetGuidedAnchorsConfig(base_scale=1.0))  # squares of 16 x 16 around (16 x, 16 y)


def head_of(config: GARetinaNetHeadConfig, spec: FeatureSpec, classes: int = 3) -> GARetinaNetHead:
    torch.manual_seed(0)
    return config.build(spec, classes)


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        evolve(SMALL, num_convs=0),
        evolve(SMALL, norm=GroupNormConfig(groups=4), class_agnostic_nms=True, nms_in="network"),
    ],
    ids=["plain", "without towers", "group norm"],
)
def test_the_contract_of_dense_heads(config: GARetinaNetHeadConfig) -> None:
    contract_checks.check_dense_head(config)


def test_a_fresh_head(scene: Any) -> None:
    """Classes and locations begin at one in a hundred, weights at N(0, .01^2), offsets at N(0, .1^2)."""
    head = head_of(GARetinaNetHeadConfig(), FeatureSpec(channels=(256,), strides=(8,)), 80)
    outputs = head([torch.zeros(1, 256, 3, 4)])
    assert torch.allclose(outputs.scores[0].sigmoid(), torch.tensor(0.01), atol=1e-4)
    assert torch.allclose(outputs.locations[0].sigmoid(), torch.tensor(0.01), atol=1e-4)
    for name, parameter in head.named_parameters():
        if parameter.dim() > 1:
            wanted = 0.1 if name.endswith("offset.weight") else 0.01
            assert float(parameter.detach().std()) == pytest.approx(wanted, rel=0.2), name


@pytest.mark.parametrize("counts", [(0, 0), (2, 0), (300, 3)])
def test_no_objects_and_many(scene: Any, counts: tuple[int, int]) -> None:
    head = head_of(SMALL, scene.spec)
    targets = [scene.objects(count, seed) for seed, count in enumerate(counts)]
    values = scene.backward(head, head.losses(head(scene.features()), targets, scene.batch()))
    assert set(values) == {"retina_cls", "retina_box", "retina_shape", "retina_location"}
    assert (values["retina_box"] == 0) == (values["retina_shape"] == 0) == (counts == (0, 0))


def outputs_of(head: GARetinaNetHead, logits: Tensor, shapes: Tensor | None = None) -> GuidedOutputs:
    """One image of one row of cells: scores (w, K), shapes (w, 2), no deltas, an anchor everywhere."""
    width = len(logits)
    return GuidedOutputs(
        locations=[torch.zeros(1, width)],
        shapes=[torch.zeros(1, width, 2) if shapes is None else shapes[None]],
        scores=[logits[None]],
        deltas=[torch.zeros(1, width, 4)],
        kept=None,
        anchors=head.guided.squares([(1, width)], logits.device),
        sizes=[(1, width)],
    )


def focal(logit: float, positive: bool) -> float:
    p = 1 / (1 + math.exp(-logit))
    return -0.25 * (1 - p) ** 2 * math.log(p) if positive else -0.75 * p**2 * math.log(1 - p)


def test_classification_and_regression_by_hand() -> None:
    """The first anchor, twice as wide as its square, overlaps the object by .8; the other is background."""
    head = head_of(UNIT, ONE_LEVEL, 2)
    logits = torch.tensor([[0.5, -1.0], [2.0, 0.0]])
    shapes = torch.tensor([[math.log(2.0), 0.0], [0.0, 0.0]])
    target = Targets(boxes=torch.tensor([[-12.8, -8.0, 19.2, 8.0]]), labels=torch.tensor([1]))
    terms = head.losses(outputs_of(head, logits, shapes), [target], blank_batch(16, 32))
    wanted = focal(0.5, False) + focal(-1.0, True) + focal(2.0, False) + focal(0.0, False)
    assert terms["retina_cls"].value().item() == pytest.approx(wanted, rel=1e-5)
    assert terms["retina_cls"].count == terms["retina_box"].count == 1.0
    assert terms["retina_box"].value().item() == pytest.approx(3.2 / 32 - 0.02, rel=1e-4)  # above beta .04


def test_anchors_are_chosen_by_their_best_class_with_all_their_classes() -> None:
    """With one anchor to choose it is that of the best score, and both of its classes become detections."""
    logits = torch.tensor([[2.9, 2.8], [3.0, -2.0], [-9.0, -9.0]])
    head = head_of(evolve(UNIT, before_nms=1), ONE_LEVEL, 2)
    found = head.predict(outputs_of(head, logits), blank_batch(16, 48))[0]
    assert found.labels.tolist() == [0, 1]
    assert found.scores.tolist() == pytest.approx(torch.tensor([3.0, -2.0]).sigmoid().tolist())
    head = head_of(UNIT, ONE_LEVEL, 2)
    found = head.predict(outputs_of(head, logits), blank_batch(16, 48))[0]
    assert found.labels.tolist() == [0, 0, 1, 1]
    assert found.boxes[0].tolist() == [8.0, 0.0, 24.0, 8.0]


@pytest.mark.parametrize(("threshold", "count"), [(0.0, 6), (0.05, 3), (0.9, 1), (1.0, 0)])
def test_the_score_threshold(threshold: float, count: int) -> None:
    logits = torch.tensor([[3.0, 2.0], [1.0, -9.0], [-9.0, -9.0]])
    head = head_of(evolve(UNIT, score_threshold=threshold), ONE_LEVEL, 2)
    assert len(head.predict(outputs_of(head, logits), blank_batch(16, 48))[0]) == count


def test_boxes_without_area_stay_unless_asked() -> None:
    """An anchor beyond the image is clipped to a line."""
    for least, count in ((-1.0, 2), (0.0, 1)):
        head = head_of(evolve(UNIT, min_size=least), ONE_LEVEL, 1)
        assert len(head.predict(outputs_of(head, torch.tensor([[1.0], [2.0]])), blank_batch(16, 8))[0]) == count


def test_masked_maps_change_nothing_and_masked_images_find_nothing(scene: Any) -> None:
    head = scene.lively(head_of(SMALL, scene.spec))
    with torch.no_grad():
        outputs = head(scene.features(torch.float64))
        full = head.train()(scene.features(torch.float64))
        assert full.kept is None
        assert any(0 < int(k.sum()) < k.numel() for k in outputs.kept)
        wanted = head.predict(evolve(full, kept=outputs.kept), scene.batch())
        for found, other in zip(head.predict(outputs, scene.batch()), wanted, strict=True):
            assert len(found) > 3
            assert scene.same(found, other)
        head.eval().prediction.location.bias.fill_(-1e4)
        assert [len(d) for d in head.predict(head(scene.features(torch.float64)), scene.batch())] == [0, 0]


def test_one_image_may_be_masked_and_the_other_not(scene: Any) -> None:
    head = scene.lively(head_of(SMALL, scene.spec))
    with torch.no_grad():
        outputs = head(scene.features(torch.float64))
        outputs = evolve(outputs, kept=[k & torch.tensor([[False], [True]]) for k in outputs.kept])
        found = head.predict(outputs, scene.batch())
    assert len(found[0]) == 0
    assert len(found[1]) > 3


def test_a_batch_gives_what_each_image_gives_alone(scene: Any) -> None:
    head = scene.lively(head_of(SMALL, scene.spec))
    with torch.no_grad():
        together = head.predict(head(scene.features(torch.float64)), scene.batch())
        for row, found in enumerate(together):
            alone = head([x[row : row + 1] for x in scene.features(torch.float64)])
            assert scene.same(found, head.predict(alone, scene.alone(scene.batch(), row))[0])


def test_losses_of_masked_outputs_are_refused(scene: Any) -> None:
    head = scene.lively(head_of(SMALL, scene.spec))
    with pytest.raises(ValueError, match=r"losses require outputs of all cells.*; call train\(\) on the detector"):
        head.losses(head(scene.features(torch.float64)), [scene.objects(1)] * 2, scene.batch())


def test_parts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"guided.offset_groups: 4 groups do not divide 6 channels"):
        evolve(SMALL, channels=6).check(ONE_LEVEL)
    with pytest.raises(ConfigError, match=r"guided.offset_groups: 4 groups do not divide 9 channels"):
        evolve(SMALL, num_convs=0).check(FeatureSpec(channels=(9,), strides=(16,)))
    with pytest.raises(ConfigError, match="ga_retinanet"):
        SMALL.check(FeatureSpec(channels=(4, 8), strides=(8, 16)))
    assert SMALL.coder == DeltaCoderConfig()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": 0}, r"channels\S*: found .+, expected .*at least 1"),
        ({"num_convs": -1}, r"num_convs\S*: found .+, expected .*at least 0"),
        ({"prior": 0.0}, r"prior\S*: found .+, expected .*above 0"),
        ({"before_nms": 0}, r"before_nms\S*: found .+, expected .*at least 1"),
        ({"min_size": -2.0}, r"min_size\S*: found .+, expected .*at least -1"),
        ({"score_threshold": 1.5}, r"score_threshold\S*: found .+, expected .*at most 1"),
        ({"nms_in": "nowhere"}, r"nms_in\S*: found .+, allowed: "),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GARetinaNetHeadConfig(**settings)  # type: ignore[arg-type]
