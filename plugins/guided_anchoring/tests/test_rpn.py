"""GA-RPN: its losses, its proposals, where its scores are computed, and its settings."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from attrs import evolve
from torch import Tensor

from det_core.boxes.box_config import DeltaCoderConfig
from det_core.errors import ConfigError
from det_core.model.detector_config import DetectorConfig
from det_core.specs import FeatureSpec, ProposalLimits
from det_core.structures import Batch, Targets
from det_core.testing import contract_checks
from det_core.testing.tiny_inputs import blank_batch
from det_plugin_fpn.config import FPNConfig
from det_plugin_guided_anchoring.anchoring import GuidedAnchors
from det_plugin_guided_anchoring.config import GARPNConfig, GuidedAnchorsConfig
from det_plugin_guided_anchoring.prediction import GuidedOutputs, conv_at, kept_cells
from det_plugin_guided_anchoring.rpn import GARPN
from det_plugin_rcnn.config import FCBoxHeadConfig, RCNNHeadConfig
from det_plugin_resnet.config import ResNetConfig

SMALL = GARPNConfig(
    channels=8,
    guided=GuidedAnchorsConfig(base_scale=2.0),
    test_limits=ProposalLimits(before_nms=40, after_nms=30),
)


def head_of(config: GARPNConfig, spec: FeatureSpec) -> GARPN:
    torch.manual_seed(0)
    return config.build(spec, 3)


def test_the_contract_of_proposal_heads() -> None:
    contract_checks.check_dense_head(evolve(SMALL, channels=16))


def test_the_contract_of_a_detector_with_a_second_stage() -> None:
    contract_checks.check_detector(
        DetectorConfig(
            backbone=ResNetConfig(depth=18),
            neck=FPNConfig(channels=16),
            dense_head=evolve(SMALL, channels=16),
            roi_head=RCNNHeadConfig(box_head=FCBoxHeadConfig(fc_channels=16)),
        )
    )


def test_the_plugin() -> None:
    contract_checks.check_plugin("guided_anchoring", build=False)


def test_a_fresh_head(scene: Any) -> None:
    """Objects or not: ln 2. Locations say one in a hundred, so that every cell has an anchor at test."""
    head = head_of(SMALL, scene.spec)
    outputs = head(scene.features())
    assert torch.allclose(outputs.locations[0].sigmoid(), torch.tensor(0.01), atol=2e-3)
    values = scene.backward(head, head.losses(outputs, [scene.objects(2), scene.objects(3, 1)], scene.batch()))
    assert set(values) == {"rpn_cls", "rpn_box", "rpn_shape", "rpn_location"}
    assert values["rpn_cls"] == pytest.approx(math.log(2), abs=0.02)
    deviations = {
        name: float(p.detach().std())
        for name, p in head_of(GARPNConfig(), FeatureSpec(channels=(256,), strides=(8,))).named_parameters()
        if p.dim() > 1
    }
    assert deviations.pop("adaption.offset.weight") == pytest.approx(0.1, rel=0.2)
    assert all(value == pytest.approx(0.01, rel=0.2) for value in deviations.values())


@pytest.mark.parametrize("counts", [(0, 0), (2, 0), (300, 3)])
def test_no_objects_and_many(scene: Any, counts: tuple[int, int]) -> None:
    head = head_of(SMALL, scene.spec)
    targets = [scene.objects(count, seed) for seed, count in enumerate(counts)]
    values = scene.backward(head, head.losses(head(scene.features()), targets, scene.batch()))
    assert (values["rpn_box"] == 0) == (values["rpn_shape"] == 0) == (counts == (0, 0))


def test_offsets_learn_but_pass_no_gradient_to_shapes(scene: Any) -> None:
    head = head_of(SMALL, scene.spec)
    sum(x.sum() for x in head(scene.features()).scores).backward()
    assert head.prediction.shape.weight.grad is None
    assert head.adaption.offset.weight.grad is not None
    assert float(head.adaption.offset.weight.grad.abs().sum()) > 0


def outputs_of(
    head: GARPN, logits: Tensor, locations: Tensor | None = None, shapes: Tensor | None = None
) -> GuidedOutputs:
    """One image of one row of cells: scores and locations (w,), shapes (w, 2), no deltas."""
    width = len(logits)
    kept = None if locations is None else [(locations.sigmoid() >= head.config.guided.location_threshold)[None]]
    return GuidedOutputs(
        locations=[torch.zeros(1, width) if locations is None else locations[None]],
        shapes=[torch.zeros(1, width, 2) if shapes is None else shapes[None]],
        scores=[logits[None, :, None]],
        deltas=[torch.zeros(1, width, 4)],
        kept=kept,
        anchors=head.guided.squares([(1, width)], logits.device),
        sizes=[(1, width)],
    )


def one_image(height: int, width: int) -> Batch:
    return blank_batch(height, width, scale=(0.5, 1.0))


ONE_LEVEL = FeatureSpec(channels=(8,), strides=(16,))
UNIT = evolve(SMALL, guided=GuidedAnchorsConfig(base_scale=1.0, coder=DeltaCoderConfig(max_ratio=1e-6)))


def test_classification_and_regression_by_hand() -> None:
    """The first anchor, made twice as wide as its square of 16, is the object's, and off by 3.2 pixels.

    The second overlaps it by .304, between the thresholds; the third is background.
    """
    head = head_of(UNIT, ONE_LEVEL)
    shapes = torch.tensor([[math.log(2.0), 0.0], [0.0, 0.0], [0.0, 0.0]])
    outputs = outputs_of(head, torch.tensor([1.0, 9.0, -2.0]), shapes=shapes)
    target = Targets(boxes=torch.tensor([[-12.8, -8.0, 19.2, 8.0]]), labels=torch.tensor([2]))
    terms = head.losses(outputs, [target], one_image(16, 48))
    assert terms["rpn_cls"].value().item() == pytest.approx(
        (math.log1p(math.exp(-1.0)) + math.log1p(math.exp(-2.0))) / 2, rel=1e-5
    )
    delta = 3.2 / 32 / 0.07  # above beta
    assert terms["rpn_box"].value().item() == pytest.approx((delta - 0.5) / 2, rel=1e-4)


def test_proposals_are_moved_anchors_of_kept_cells() -> None:
    head = head_of(UNIT, ONE_LEVEL).eval()
    logits, locations = torch.tensor([1.0, 3.0, 2.0]), torch.tensor([-4.5, -4.7, 0.0])  # the threshold is at -4.595
    shapes = torch.tensor([[0.0, 0.0], [0.0, 0.0], [math.log(0.5), 0.0]])
    found = head.predict(outputs_of(head, logits, locations, shapes), one_image(16, 48))[0]
    assert found.boxes.tolist() == [[28.0, 0.0, 36.0, 16.0], [0.0, 0.0, 8.0, 16.0]]
    assert found.scores.tolist() == pytest.approx(torch.tensor([2.0, 1.0]).sigmoid().tolist())
    assert found.labels.tolist() == [0, 0]


def test_where_no_cell_has_an_anchor_nothing_is_proposed(scene: Any) -> None:
    head = scene.lively(head_of(SMALL, scene.spec))
    with torch.no_grad():
        head.prediction.location.bias.fill_(-1e4)
        outputs = head(scene.features(torch.float64))
    assert not any(bool(k.any()) for k in outputs.kept)
    assert all(not bool(x.any()) for x in (*outputs.scores, *outputs.deltas))
    assert [len(d) for d in head.predict(outputs, scene.batch())] == [0, 0]
    assert [tuple(p.shape) for p in head.proposals(outputs, scene.batch(), head.test_limits)] == [(0, 4), (0, 4)]


def test_levels_do_not_suppress_each_other_and_the_best_of_all_stay(scene: Any) -> None:
    """The same boxes on both levels: each keeps its own."""
    head = head_of(SMALL, scene.spec)
    levels = head.guided.squares([(1, 1), (1, 1)], torch.device("cpu"))
    shapes = [torch.full((1, 1, 2), math.log(2.0) / 0.14), torch.zeros(1, 1, 2)]  # 32 x 32 both
    empty, logits = torch.zeros(1, 1, 4), [torch.tensor([[[1.0]]]), torch.tensor([[[2.0]]])]
    outputs = GuidedOutputs([empty[..., 0]] * 2, shapes, logits, [empty] * 2, None, levels, [(1, 1)] * 2)
    boxes = head.proposals(outputs, one_image(64, 64), ProposalLimits(before_nms=9, after_nms=9))[0]
    assert boxes.tolist() == [pytest.approx([0.0, 0.0, 16.0, 16.0], abs=1e-4)] * 2
    assert len(head.proposals(outputs, one_image(64, 64), ProposalLimits(before_nms=9, after_nms=1))[0]) == 1


@pytest.mark.parametrize("kernel", [1, 3])
def test_a_convolution_at_some_cells_is_the_convolution_there(kernel: int) -> None:
    conv = torch.nn.Conv2d(4, 5, kernel, padding=kernel // 2).double()
    x = torch.randn(2, 4, 6, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    kept = torch.rand(2, 6, 7, generator=torch.Generator().manual_seed(1)) < 0.3
    found, wanted = conv_at(conv, x, kept), conv(x)
    assert torch.allclose(found, wanted * kept[:, None], rtol=1e-12, atol=1e-12)
    assert torch.equal(conv_at(conv, x, None), wanted)


def test_a_cell_at_the_threshold_itself_is_kept() -> None:
    location = torch.tensor([0.0, -1e-3]).view(1, 1, 1, 2)
    assert kept_cells(location, 0.5).tolist() == [[[True, False]]]


def test_masked_maps_change_nothing(scene: Any) -> None:
    """In training mode every cell is computed; at those that evaluation keeps it is the same."""
    head = scene.lively(head_of(SMALL, scene.spec))
    with torch.no_grad():
        outputs = head(scene.features(torch.float64))
        full = head.train()(scene.features(torch.float64))
    assert full.kept is None
    for kept, *pairs in zip(outputs.kept, outputs.scores, full.scores, outputs.deltas, full.deltas, strict=True):
        assert 0 < int(kept.sum()) < kept.numel()
        for some, whole in zip(pairs[::2], pairs[1::2], strict=True):
            assert torch.allclose(some[kept], whole[kept], rtol=1e-4, atol=1e-5)
            assert not bool(some[~kept].any())
    unfiltered = evolve(full, kept=outputs.kept)
    for found, wanted in zip(
        head.predict(unfiltered, scene.batch()), head.predict(outputs, scene.batch()), strict=True
    ):
        assert scene.same(found, wanted)


def test_a_batch_gives_what_each_image_gives_alone(scene: Any) -> None:
    head = scene.lively(head_of(SMALL, scene.spec))
    with torch.no_grad():
        together = head.predict(head(scene.features(torch.float64)), scene.batch())
        for row, found in enumerate(together):
            alone = head([x[row : row + 1] for x in scene.features(torch.float64)])
            assert len(found) > 3
            assert scene.same(found, head.predict(alone, scene.alone(scene.batch(), row))[0])


def test_proposals_that_a_second_stage_trains_on_come_from_every_cell(scene: Any) -> None:
    head = scene.lively(head_of(SMALL, scene.spec)).train()
    with torch.no_grad():
        head.prediction.location.bias.fill_(-1e4)
        boxes = head.proposals(head(scene.features(torch.float64)), scene.batch(), head.train_limits)
    assert all(len(b) > 5 for b in boxes)


def test_losses_of_masked_outputs_are_refused(scene: Any) -> None:
    head = scene.lively(head_of(SMALL, scene.spec))
    with pytest.raises(ValueError, match=r"only cells with an anchor.*call train\(\)"):
        head.losses(head(scene.features(torch.float64)), [scene.objects(1)] * 2, scene.batch())


def test_it_has_no_weights_beyond_its_layers(scene: Any) -> None:
    assert not list(GuidedAnchors(GuidedAnchorsConfig(), (8,)).parameters())
    assert head_of(SMALL, scene.spec).class_dependent() == ()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base_scale": 0.0}, r"base_scale\S*: found .+, expected .*above 0"),
        ({"scales_per_octave": 0}, r"scales_per_octave\S*: found .+, expected .*at least 1"),
        ({"ratios": ()}, r"ratios: found \d values, expected at least 1"),
        ({"ratios": (-1.0,)}, r"ratios\S*: found .+, expected .*above 0"),
        ({"offset_groups": 0}, r"offset_groups\S*: found .+, expected .*at least 1"),
        ({"location_prior": 1.0}, r"location_prior\S*: found .+, expected .*below 1"),
        ({"location_threshold": 1.5}, r"location_threshold\S*: found .+, expected .*at most 1"),
        ({"location_labels": "none"}, r"location_labels\S*: found .+, allowed: "),
        ({"centre_ratio": 0.6}, r"centre_ratio: found 0.6, must be at most ignore_ratio \(0.5\)"),
        ({"negative_weight": -0.1}, r"negative_weight\S*: found .+, expected .*at least 0"),
        ({"location_cells": 0}, r"location_cells\S*: found .+, expected .*at least 1"),
        ({"allowed_border": -2}, r"allowed_border\S*: found .+, expected .*at least -1"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GuidedAnchorsConfig(**settings)  # type: ignore[arg-type]


def test_parts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"guided.offset_groups: 4 groups do not divide 6 channels; choose a divisor"):
        evolve(SMALL, channels=6).check(ONE_LEVEL)
    with pytest.raises(ConfigError, match="ga_rpn"):
        SMALL.check(FeatureSpec(channels=(4, 8), strides=(8, 16)))
