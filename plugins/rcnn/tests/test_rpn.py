"""The RPN: its loss at step 0 and by hand, its sampling, its proposals and their limits, images without objects."""

from __future__ import annotations

import math

import pytest
import torch
from attrs import evolve
from torch import Tensor

import det_ops
from det_core.boxes.box_config import GridAnchorsConfig
from det_core.boxes.overlaps import box_iou
from det_core.errors import ConfigError
from det_core.model.candidates import Candidates
from det_core.model.dense_detection import DenseOutputs, match_anchors
from det_core.specs import FeatureSpec, ProposalLimits
from det_core.structures import Batch, ImageInfo, Key
from det_core.testing import contract_checks
from det_core.testing.isolated_plugins import stub_config
from det_core.testing.tiny_inputs import blank_batch, objects
from det_core.weights.translate_names import translate
from det_plugin_rcnn.config import RPNConfig
from det_plugin_rcnn.proposals import choose_proposals
from det_plugin_rcnn.rpn import RPN

ONE_LEVEL = FeatureSpec(channels=(4,), strides=(16,))
ONE_ANCHOR = GridAnchorsConfig(scales=(1.0,), ratios=(1.0,))  # 16 x 16 around (16 x, 16 y)


def outputs_of(head: RPN, scores: Tensor, deltas: Tensor) -> DenseOutputs:
    """Outputs for one image of one level: scores (h, w, A), deltas (h, w, A, 4)."""
    anchors = head.anchors([(int(scores.shape[0]), int(scores.shape[1]))], scores.device)
    return DenseOutputs([scores.flatten()[None, :, None]], [deltas.reshape(1, -1, 4)], anchors)


def test_at_step_0_the_classification_loss_is_ln_2(tiny):
    detector = tiny.build(tiny.config("rpn"))
    batch = tiny.batch()
    losses = tiny.backward(detector, detector.losses(batch, tiny.targets(batch, (3, 2))))
    assert set(losses) == {"rpn_cls", "rpn_box"}
    assert losses["rpn_cls"] == pytest.approx(math.log(2), abs=0.02)
    assert 0 < losses["rpn_box"] < 1


@pytest.mark.parametrize("counts", [(2, 0), (0, 0)])
def test_images_without_objects_train_every_parameter(tiny, counts):
    detector = tiny.build(tiny.config("rpn"))
    batch = tiny.batch()
    losses = tiny.backward(detector, detector.losses(batch, tiny.targets(batch, counts)))
    assert losses["rpn_cls"] == pytest.approx(math.log(2), abs=0.02)
    assert (losses["rpn_box"] == 0) == (counts == (0, 0))


@pytest.mark.parametrize("counts", [(3, 2), (0, 0)])
def test_several_convolutions_train_every_parameter(tiny, counts):
    detector = tiny.build(tiny.config("rpn", rpn=evolve(tiny.rpn, num_convs=3)))
    assert len(detector.dense_head.more_convs) == 2
    batch = tiny.batch()
    losses = tiny.backward(detector, detector.losses(batch, tiny.targets(batch, counts)))
    assert losses["rpn_cls"] == pytest.approx(math.log(2), abs=0.02)


def test_convolutions_are_applied_in_order_each_with_a_relu():
    head = RPNConfig(channels=8, num_convs=2).build(ONE_LEVEL, 1)
    x = torch.randn(1, 4, 3, 5, generator=torch.Generator().manual_seed(0))
    hidden = head.more_convs[0](head.conv(x).relu()).relu()
    assert torch.equal(head([x]).scores[0].flatten(), head.scores(hidden).permute(0, 2, 3, 1).flatten())


def test_one_convolution_has_the_names_of_checkpoints_from_before_there_could_be_several():
    names = {"conv.weight", "conv.bias", "scores.weight", "scores.bias", "deltas.weight", "deltas.bias"}
    assert RPNConfig(channels=8).build(ONE_LEVEL, 1).state_dict().keys() == names
    with pytest.raises(ConfigError, match="num_convs: found 0, expected at least 1"):
        RPNConfig(num_convs=0)


def test_300_objects(tiny):
    detector = tiny.build(tiny.config("rpn"))
    batch = tiny.batch()
    losses = tiny.backward(detector, detector.losses(batch, tiny.targets(batch, (300, 1))))
    assert losses["rpn_cls"] == pytest.approx(math.log(2), abs=0.02)


def test_scores_and_deltas_are_in_the_anchors_order():
    head = RPNConfig(channels=8).build(ONE_LEVEL, 1)
    x = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(0))
    found = head([x])
    assert [tuple(t.shape) for t in (*found.scores, *found.deltas)] == [(2, 45, 1), (2, 45, 4)]
    hidden = head.conv(x).relu()
    scores, deltas = head.scores(hidden), head.deltas(hidden)
    for anchor, row, column in ((0, 0, 0), (2, 1, 3), (1, 2, 4)):
        at = (row * 5 + column) * 3 + anchor
        assert torch.equal(found.scores[0][:, at, 0], scores[:, anchor, row, column])
        assert torch.equal(found.deltas[0][:, at], deltas[:, 4 * anchor : 4 * anchor + 4, row, column])
        assert found.anchors[0].cells[at].tolist() == [row, column]


def test_the_losses_by_hand():
    head = RPNConfig(channels=8, anchors=ONE_ANCHOR).build(ONE_LEVEL, 1)
    scores, deltas = torch.zeros(2, 3, 1), torch.zeros(2, 3, 1, 4)
    scores[1, 1] = 3.0  # the anchor (8, 8, 24, 24), which is the object's
    deltas[1, 1, 0] = torch.tensor([0.5, 0.0, 0.0, -0.25])
    batch = blank_batch(32, 48)
    terms = head.losses(outputs_of(head, scores, deltas), [objects((8, 8, 24, 24))], batch)
    # 6 anchors, all sampled: one positive at logit 3, five negatives at 0; both divided by 6.
    expected = math.log(1 + math.exp(-3)) + 5 * math.log(2)
    assert terms["rpn_cls"].total.item() == pytest.approx(expected)
    assert terms["rpn_box"].total.item() == pytest.approx(0.75)
    assert terms["rpn_cls"].count == terms["rpn_box"].count == 6.0


def test_losses_may_be_divided_by_a_number_of_anchors_that_is_not_sampled():
    head = RPNConfig(channels=8, anchors=ONE_ANCHOR, loss_anchors=256).build(ONE_LEVEL, 1)
    outputs = outputs_of(head, torch.zeros(2, 3, 1), torch.zeros(2, 3, 1, 4))
    terms = head.losses(outputs, [objects((8, 8, 24, 24))], blank_batch(32, 48))
    assert terms["rpn_cls"].count == terms["rpn_box"].count == 256
    assert terms["rpn_cls"].total.item() == pytest.approx(6 * math.log(2))


def sampled(*boxes: tuple[float, float, float, float]) -> tuple[list[int], list[int]]:
    """Positive and negative anchors of a map of 2 x 3 cells: 16 x 16 around (0, 0), (16, 0), (32, 0), (0, 16), ..."""
    head = RPNConfig(channels=8, anchors=ONE_ANCHOR).build(ONE_LEVEL, 1)
    levels = head.anchors([(2, 3)], torch.device("cpu"))
    batch = blank_batch(32, 48)
    matches = match_anchors(levels, head.strides, head.assigner, [objects(*boxes)], batch)
    found = head.sampler(matches.assignments[0], batch.infos[0].key, "rpn")
    return sorted(found.positive.tolist()), sorted(found.negative.tolist())


def test_an_anchor_at_7_tenths_is_an_object_and_below_3_tenths_background():
    # Strips of the anchor (8, 8, 24, 24), so that the widths' quotient is the IoU; the other anchors touch nothing.
    assert sampled((8, 8, 24, 24)) == ([4], [0, 1, 2, 3, 5])
    # Widths 24: IoU .48 with the anchor 4, its best, and .38 with the anchor 5, which is neither.
    assert sampled((11, 8, 35, 24)) == ([4], [0, 1, 2, 3])
    # Both tie at .5, and both are the object's.
    assert sampled((8, 8, 40, 24)) == ([4, 5], [0, 1, 2, 3])
    # The best is 4.5 / 16 = .28, below 3 tenths: nothing stands for the object.
    assert sampled((8, 8, 12.5, 24)) == ([], [0, 1, 2, 3, 4, 5])


def test_cells_beyond_the_padded_size_do_not_train():
    head = RPNConfig(channels=8, anchors=ONE_ANCHOR).build(ONE_LEVEL, 1)
    outputs = outputs_of(head, torch.zeros(3, 4, 1), torch.zeros(3, 4, 1, 4))
    terms = head.losses(outputs, [objects()], blank_batch(32, 48))
    assert terms["rpn_cls"].count == 6.0  # 2 x 3 of the 3 x 4 cells


@pytest.mark.parametrize(("border", "count"), [(-1, 12), (0, 2), (7, 6), (8, 12)])
def test_the_allowed_border_leaves_out_anchors_that_cross_it(border, count):
    head = RPNConfig(channels=8, anchors=ONE_ANCHOR, allowed_border=border).build(ONE_LEVEL, 1)
    outputs = outputs_of(head, torch.zeros(3, 4, 1), torch.zeros(3, 4, 1, 4))
    # Anchors go from -8 to 40 in y and to 56 in x of an image of 40 x 56; the right and lower limit is exclusive.
    batch = Batch(images=torch.zeros(1, 3, 48, 64), infos=(ImageInfo(size=(40, 56), original_size=(40, 56)),))
    assert head.losses(outputs, [objects()], batch)["rpn_cls"].count == count


def test_the_sampling_hangs_on_the_key_of_the_image_alone(tiny):
    head = tiny.rpn.build(tiny.levels, 1)
    batch = tiny.batch(1)
    outputs, targets = head(tiny.features(batch)), tiny.targets(batch, (2,))
    first = head.losses(outputs, targets, batch)["rpn_cls"].total.item()
    torch.manual_seed(123)
    assert head.losses(outputs, targets, batch)["rpn_cls"].total.item() == first
    other = evolve(batch, infos=(evolve(batch.infos[0], key=Key(index=99)),))
    assert head.losses(outputs, targets, other)["rpn_cls"].total.item() != first


@pytest.mark.parametrize(
    "limits", [ProposalLimits(before_nms=40, after_nms=25), ProposalLimits(before_nms=3, after_nms=9)]
)
def test_proposals_keep_to_their_limits_and_to_the_image(tiny, limits):
    head = tiny.rpn.build(tiny.levels, 1)
    batch = tiny.batch()
    outputs = head(tiny.features(batch))
    for boxes, info in zip(head.proposals(outputs, batch, limits), batch.infos, strict=True):
        assert 0 < len(boxes) <= min(limits.after_nms, 5 * limits.before_nms)
        assert not boxes.requires_grad
        assert boxes.dtype == torch.float32
        height, width = info.size
        assert (boxes >= 0).all()
        assert (boxes[:, 2] <= width).all()
        assert (boxes[:, 3] <= height).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_proposals_are_the_predictions_best_first_without_doubles(tiny):
    head = tiny.rpn.build(tiny.levels, 1)
    for p in head.parameters():
        torch.nn.init.normal_(p, std=0.3, generator=torch.Generator().manual_seed(0))
    batch = tiny.batch()
    outputs = head(tiny.features(batch))
    found = head.predict(outputs, batch)
    for boxes, detections, info in zip(
        head.proposals(outputs, batch, head.test_limits), found, batch.infos, strict=True
    ):
        assert len(detections) == len(boxes) <= 30
        assert (detections.scores.diff() <= 0).all()
        assert ((detections.scores > 0) & (detections.scores < 1)).all()
        assert (detections.labels == 0).all()
        y, x = info.scale
        assert torch.allclose(detections.boxes * torch.tensor([x, y, x, y]), boxes)


def test_nms_works_inside_a_level_and_not_across():
    spec = FeatureSpec(channels=(4, 4), strides=(16, 32))
    anchors = GridAnchorsConfig(scales=(1.0,), ratios=(1.0,))
    head = RPNConfig(channels=8, anchors=anchors, nms_threshold=0.7).build(spec, 1)
    levels = head.anchors([(2, 2), (1, 1)], torch.device("cpu"))
    same = torch.tensor([4.0, 4.0, 20.0, 20.0])
    deltas = [head.coder.encode(level.boxes, same.expand(len(level.boxes), 4))[None] for level in levels]
    scores = [torch.tensor([[0.0, 3.0, 1.0, 2.0]])[..., None], torch.tensor([[[-1.0]]])]
    outputs = DenseOutputs(scores, deltas, levels)
    found = head.predict(outputs, blank_batch(32, 32))[0]
    # Of the four equal boxes of the first level the best stays, and the equal one of the second level too.
    assert found.scores.tolist() == pytest.approx([torch.sigmoid(torch.tensor(s)).item() for s in (3.0, -1.0)])
    assert torch.allclose(found.boxes, same.expand(2, 4), atol=1e-4)


def test_the_best_of_every_level_enter_nms_and_the_best_of_all_leave():
    spec = FeatureSpec(channels=(4, 4), strides=(16, 32))
    head = RPNConfig(channels=8, anchors=ONE_ANCHOR).build(spec, 1)
    levels = head.anchors([(2, 4), (2, 2)], torch.device("cpu"))
    scores = [torch.arange(8.0)[None, :, None], torch.tensor([[10.0, -1.0, -2.0, -3.0]])[..., None]]
    outputs = DenseOutputs(scores, [torch.zeros(1, 8, 4), torch.zeros(1, 4, 4)], levels)
    batch = blank_batch(64, 64)

    def found(before: int, after: int) -> list[list[float]]:
        limits = ProposalLimits(before_nms=before, after_nms=after)
        return head.proposals(outputs, batch, limits)[0].tolist()

    fine = [[40.0, 8.0, 56.0, 24.0], [24.0, 8.0, 40.0, 24.0]]  # cells (1, 3) and (1, 2)
    coarse = [[0.0, 0.0, 16.0, 16.0], [16.0, 0.0, 48.0, 16.0]]  # cells (0, 0) and (0, 1), clipped
    assert found(2, 9) == [coarse[0], *fine, coarse[1]]
    assert found(2, 2) == [coarse[0], fine[0]]
    assert found(1, 9) == [coarse[0], fine[0]]


def test_boxes_that_clipping_leaves_without_area_are_no_proposals():
    head = RPNConfig(channels=8, anchors=ONE_ANCHOR).build(ONE_LEVEL, 1)
    deltas = torch.zeros(2, 2, 1, 4)
    deltas[0, 0, 0, 0] = -4.0  # left of the image
    deltas[1, 1, 0, 1] = 4.0  # below it
    outputs = outputs_of(head, torch.zeros(2, 2, 1), deltas)
    assert len(head.proposals(outputs, blank_batch(32, 32), ProposalLimits())[0]) == 2
    deltas[..., 0] = -9.0
    nothing = outputs_of(head, torch.zeros(2, 2, 1), deltas)
    assert head.proposals(nothing, blank_batch(32, 32), ProposalLimits())[0].shape == (0, 4)
    found = head.predict(nothing, blank_batch(32, 32))[0]
    assert (found.boxes.shape, found.scores.shape, found.labels.shape) == ((0, 4), (0,), (0,))


def test_proposals_must_be_larger_than_the_least_size():
    outputs = outputs_of(
        RPNConfig(channels=8, anchors=ONE_ANCHOR).build(ONE_LEVEL, 1), torch.zeros(1, 2, 1), torch.zeros(1, 2, 1, 4)
    )
    side = float(outputs.anchors[0].boxes[0, 2] - outputs.anchors[0].boxes[0, 0])
    for least, count in ((0.0, 2), (side, 0)):
        head = RPNConfig(channels=8, anchors=ONE_ANCHOR, min_size=least).build(ONE_LEVEL, 1)
        assert len(head.proposals(outputs, blank_batch(32, 32), ProposalLimits())[0]) == count


def test_proposals_must_reach_the_least_score():
    """Logits of 0 and 1 have scores of 0.5, which may be the least, and of 0.731."""
    scores = torch.tensor([0.0, 1.0]).view(1, 2, 1)
    for least, count in ((0.0, 2), (0.5, 2), (0.51, 1), (0.74, 0)):
        config = RPNConfig(channels=8, anchors=ONE_ANCHOR, score_threshold=least)
        head = config.build(ONE_LEVEL, 1)
        outputs = outputs_of(head, scores, torch.zeros(1, 2, 1, 4))
        assert len(head.proposals(outputs, blank_batch(32, 32), ProposalLimits())[0]) == count


def test_under_autocast_boxes_and_losses_are_float32(tiny):
    head = tiny.rpn.build(tiny.levels, 1)
    batch = tiny.batch()
    with torch.autocast("cpu", torch.bfloat16):
        outputs = head(tiny.features(batch))
        assert outputs.scores[0].dtype == torch.bfloat16
        terms = head.losses(outputs, tiny.targets(batch, (2, 2)), batch)
        proposals = head.proposals(outputs, batch, head.test_limits)
    assert {term.total.dtype for term in terms.values()} == {torch.float32}
    assert {boxes.dtype for boxes in proposals} == {torch.float32}


def test_it_begins_with_small_normal_weights(tiny):
    torch.manual_seed(0)
    head = RPNConfig().build(FeatureSpec(channels=(256,), strides=(16,)), 1)
    for layer in (head.conv, head.scores, head.deltas):
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.1)
        assert (layer.bias == 0).all()


def test_nothing_hangs_on_the_classes(tiny):
    few, many = (tiny.rpn.build(tiny.levels, k) for k in (1, 80))
    assert {k: v.shape for k, v in few.state_dict().items()} == {k: v.shape for k, v in many.state_dict().items()}
    assert few.class_dependent() == ()


def test_it_may_have_another_loss_that_compares_boxes(tiny):
    from det_core.model.loss_config import GIoUConfig

    head = evolve(tiny.rpn, box_loss=GIoUConfig()).build(tiny.levels, 1)
    batch = tiny.batch()
    losses = tiny.backward(head, head.losses(head(tiny.features(batch)), tiny.targets(batch, (2, 0)), batch))
    assert losses["rpn_box"] > 0
    assert (
        tiny.backward(head, head.losses(head(tiny.features(batch)), tiny.targets(batch, (0, 0)), batch))["rpn_box"] == 0
    )


def test_levels_of_different_channels_are_refused():
    with pytest.raises(
        ConfigError, match="dense_head 'rpn' requires the same channel count at all levels, but gets channels"
    ):
        RPNConfig().check(FeatureSpec(channels=(8, 16), strides=(4, 8)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": 0}, r"channels\S*: found .+, expected .*at least 1"),
        ({"allowed_border": -2}, r"allowed_border\S*: found .+, expected .*at least -1"),
        ({"nms_threshold": 1.5}, r"nms_threshold\S*: found .+, expected .*at most 1"),
        ({"score_threshold": 1.5}, r"score_threshold\S*: found .+, expected .*at most 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        RPNConfig(**settings)


@pytest.mark.parametrize("field", ["before_nms", "after_nms"])
def test_limits_of_nothing_are_refused(field):
    with pytest.raises(ValueError, match=f"{field}: found 0, expected at least 1"):
        ProposalLimits(**{field: 0})


def test_the_contract_of_a_dense_head(tiny):
    contract_checks.check_dense_head(tiny.rpn)
    contract_checks.check_dense_head(evolve(tiny.rpn, num_convs=2))


def test_iou_of_proposals_of_a_level_is_at_most_the_threshold(tiny):
    rpn = evolve(tiny.rpn, nms_threshold=0.3)
    head = rpn.build(FeatureSpec(channels=(16,), strides=(8,)), 1)
    batch = tiny.batch(1)
    features = tiny.features(batch, FeatureSpec(channels=(16,), strides=(8,)))
    boxes = head.proposals(head(features), batch, ProposalLimits())[0]
    assert len(boxes) > 5
    assert (box_iou(boxes, boxes) - torch.eye(len(boxes))).max() <= 0.3 + 1e-6


def test_mmdets_names():
    keys = ["conv.weight", "scores.weight", "deltas.bias"]
    assert [translate("mmdet", RPNConfig(), k) for k in keys] == ["rpn_conv.weight", "rpn_cls.weight", "rpn_reg.bias"]


def test_the_names_of_several_convolutions():
    """Those of mmdet's `RPNHead(num_convs=3)` and of torchvision's `RPNHead(conv_depth=3)`."""
    config, keys = RPNConfig(num_convs=3), ["conv.weight", "more_convs.0.bias", "more_convs.1.weight"]
    mmdet = ["rpn_conv.0.conv.weight", "rpn_conv.1.conv.bias", "rpn_conv.2.conv.weight"]
    assert [translate("mmdet", config, key) for key in keys] == mmdet
    assert [translate("torchvision", config, key) for key in keys] == [
        "conv.0.0.weight",
        "conv.1.0.bias",
        "conv.2.0.weight",
    ]


def test_anchors_that_do_not_fit_are_refused_with_their_place():
    """Before anything is built: what an anchor generator says of the levels comes with the path of the setting."""

    @stub_config
    class TwoLevels(GridAnchorsConfig):
        def anchors_per_level(self, levels: int) -> tuple[int, ...]:
            if levels != 2:
                raise ConfigError.at("anchors", f"made for 2 levels, but there are {levels}")
            return (1, 1)

    RPNConfig(anchors=TwoLevels()).check(FeatureSpec(channels=(4, 4), strides=(8, 16)))
    with pytest.raises(ConfigError, match="anchors: made for 2 levels, but there are 1"):
        RPNConfig(anchors=TwoLevels()).check(ONE_LEVEL)


def candidates_of(seed: int, count: int, width: int) -> Candidates:
    """Candidates of one image on two levels, with equal scores and boxes that are small or without area among them;
    those from `count` on are padding.
    """
    generator = torch.Generator().manual_seed(seed)
    corners = torch.randint(0, 60, (width, 2), generator=generator)
    sides = torch.randint(0, 30, (width, 2), generator=generator)
    return Candidates(
        boxes=torch.cat([corners, corners + sides], 1).float()[None],
        scores=torch.randint(-8, 8, (1, width), generator=generator).float(),
        labels=torch.zeros(1, width, dtype=torch.int64),
        levels=torch.arange(width) % 2,
        valid=torch.arange(width)[None] < count,
    )


@pytest.mark.parametrize("counts", [(50,), (50, 30, 0), (0,), (40, 40)])
@pytest.mark.parametrize(("min_size", "score_threshold"), [(0.0, 0.0), (5.0, 0.0), (3.0, 0.4), (40.0, 0.0)])
def test_the_proposals_of_a_batch_are_those_of_nms_in_each_image_bit_for_bit(counts, min_size, score_threshold):
    config = RPNConfig(nms_threshold=0.5, min_size=min_size, score_threshold=score_threshold)
    images = [candidates_of(seed, count, max(counts)) for seed, count in enumerate(counts)]
    boxes, values, labels, valid = (
        torch.cat([getattr(x, name) for x in images]) for name in ("boxes", "scores", "labels", "valid")
    )
    batch = Candidates(boxes, values, labels, images[0].levels, valid)
    found = choose_proposals(batch, config, ProposalLimits(before_nms=50, after_nms=12))
    assert len(found) == len(counts)
    for best, proposals in zip(images, found, strict=True):
        scores = best.scores[0].sigmoid()
        real = (best.larger_than(min_size) & best.valid)[0] & (scores >= score_threshold)
        own, levels = scores[real], best.levels[real]
        kept = det_ops.batched_nms(best.boxes[0][real], own, levels, 0.5)[:12]
        assert torch.equal(proposals.boxes, best.boxes[0][real][kept])
        assert torch.equal(proposals.scores, own[kept])
