"""The cascade: what each stage sees and learns, what comes out at the end, and images with nothing in them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from attrs import evolve
from torch import Tensor

from det_core.boxes.box_config import MaxIoUAssignerConfig, RandomSamplerConfig
from det_core.contracts import Assignment, BoxHead, BoxOutputs, MaskHead, Sampled, Sampler
from det_core.model.loss_config import GIoUConfig, SmoothL1Config
from det_core.specs import FeatureSpec
from det_core.structures import Batch, ImageInfo, Key, Targets
from det_core.testing import contract_checks
from det_core.testing.echo_pool import EchoPool
from det_plugin_cascade.config import THREE_STAGES, CascadeHeadConfig, CascadeStageConfig
from det_plugin_cascade.roi_head import CascadeHead
from det_plugin_rcnn.config import RCNNHeadConfig
from det_plugin_rcnn.pooling import pool_regions

KINDS = ("box", "mask", "c4", "c4 mask", "one stage", "four stages")
ALL = (*KINDS, "a box for each class", "without the objects' own boxes")
EVERYTHING = RandomSamplerConfig(count=1_000_000, positive_fraction=1.0)


def names(config: CascadeHeadConfig) -> set[str]:
    kinds = ("cls", "box", "mask") if config.mask_head else ("cls", "box")
    return {f"stage{number + 1}_{kind}" for number in range(len(config.stages)) for kind in kinds}


@pytest.mark.parametrize("kind", ALL)
def test_the_contract_of_a_roi_head(tiny, kind):
    one_level = FeatureSpec(channels=(256,), strides=(16,))
    contract_checks.check_roi_head(tiny.heads[kind], one_level if kind.startswith("c4") else contract_checks.PYRAMID)


@pytest.mark.parametrize("counts", [(3, 2), (2, 0), (0, 0), (300, 0)])
@pytest.mark.parametrize("kind", KINDS)
def test_images_with_many_objects_and_with_none_train_every_parameter(tiny, kind, counts):
    config = tiny.heads[kind]
    detector = tiny.build(config)
    batch = tiny.batch()
    losses = tiny.backward(detector, detector.losses(batch, tiny.targets(batch, counts)))
    assert set(losses) == {"rpn_cls", "rpn_box"} | names(config)
    for name in names(config):
        assert losses[name] > 0 if name.endswith("_cls") else (losses[name] == 0) == (counts == (0, 0))


@pytest.mark.parametrize("counts", [(3, 2), (2, 0), (0, 0)])
@pytest.mark.parametrize("kind", ALL)
def test_where_no_proposal_is_left_the_next_stages_train_along(tiny, kind, counts):
    """None to begin with; or all refined to nothing, at the image's border, by the first stage."""
    detector = tiny.build(tiny.heads[kind])
    head, batch = detector.roi_head, tiny.batch()
    features = [f.detach() for f in detector.features(batch)]
    targets = tiny.targets(batch, counts)
    tiny.backward(head, head.losses(features, [torch.zeros(0, 4)] * 2, targets, batch))
    with torch.no_grad():
        head.box_heads[0].deltas.bias.fill_(1e4)
    near = tiny.proposals(batch, targets)
    sampled = head.chain.stages[0].sample(near, targets, batch.infos)
    outputs = head.box_heads[0](pool_regions(features, [s.boxes for s in sampled], head.roi_pool, head.trunk))
    for boxes in head.chain.stages[0].next_proposals(outputs, sampled, batch.infos):
        assert (boxes[:, 2] == boxes[:, 0]).all()
    tiny.backward(head, head.losses(features, near, targets, batch))


@pytest.mark.parametrize("kind", KINDS)
def test_of_no_proposals_nothing_is_found(tiny, kind):
    detector = tiny.build(tiny.heads[kind]).eval()
    batch = tiny.batch()
    with torch.no_grad():
        features = detector.features(batch)
        for proposals in ([torch.zeros(0, 4)] * 2, [torch.zeros(0, 4), torch.tensor([[4.0, 4.0, 40.0, 40.0]])]):
            found = detector.roi_head.predict(features, proposals, batch)
            assert len(found[0]) == 0
            assert (len(found[1]) > 0) == (len(proposals[1]) > 0)


def test_under_autocast_losses_and_detections_are_float32(tiny):
    head = tiny.mask.build(tiny.levels, 3)
    batch = tiny.batch()
    targets = tiny.targets(batch, (2, 1))
    proposals, features = tiny.proposals(batch, targets), tiny.features(tiny.levels, batch)
    with torch.autocast("cpu", torch.bfloat16):
        terms = head.losses(features, proposals, targets, batch)
        with torch.no_grad():
            found = head.predict(features, proposals, batch)
    assert {t.total.dtype for t in terms.values()} == {torch.float32}
    assert {d.boxes.dtype for d in found} == {d.scores.dtype for d in found} == {torch.float32}


def test_stages_draw_different_samples(tiny, monkeypatch):
    consumers = []
    head = tiny.box.build(tiny.levels, 3)
    for stage in head.chain.stages:
        monkeypatch.setattr(stage, "sampler", _spy(stage.sampler, consumers))
    batch = tiny.batch(1)
    targets = tiny.targets(batch, (2,))
    head.losses(tiny.features(tiny.levels, batch), tiny.proposals(batch, targets), targets, batch)
    assert consumers == ["stage1", "stage2", "stage3"]


def _spy(sampler: Sampler, consumers: list[str]) -> Sampler:
    class Spy(Sampler):
        def __call__(self, assignment: Assignment, key: Key, consumer: str) -> Sampled:
            consumers.append(consumer)
            return sampler(assignment, key, consumer)

    return Spy()


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_one_stage_is_the_second_stage_of_faster_and_mask_rcnn(tiny, kind):
    stage = evolve(THREE_STAGES[0], sampler=EVERYTHING)
    config = evolve(tiny.heads[kind], stages=(stage,))
    single = RCNNHeadConfig(
        box_head=config.box_head,
        mask_roi_pool=config.mask_roi_pool,
        mask_head=config.mask_head,
        sampler=EVERYTHING,
        box_loss=SmoothL1Config(),
        score_threshold=0.0,
    )
    cascade, head = config.build(tiny.levels, 3), single.build(tiny.levels, 3)
    renamed = {k.replace("heads.0.", "head."): v for k, v in cascade.state_dict().items()}
    assert head.load_state_dict(renamed)
    batch = tiny.batch()
    features, targets = tiny.features(tiny.levels, batch), tiny.targets(batch, (3, 2))
    proposals = tiny.proposals(batch, targets)
    ours, theirs = (h.losses(features, proposals, targets, batch) for h in (cascade, head))
    assert {k.replace("stage1", "roi"): t.value().item() for k, t in ours.items()} == {
        k: t.value().item() for k, t in theirs.items()
    }
    for a, b in zip(*(h.predict(features, proposals, batch) for h in (cascade, head)), strict=True):
        assert torch.equal(a.boxes, b.boxes)
        assert torch.equal(a.scores, b.scores)
        assert kind == "box" or torch.equal(a.masks, b.masks)


# by hand, with parts that say what they are told to


class FixedBoxes(BoxHead):
    """The same logits of two classes and background, and the same deltas, for every region."""

    num_classes = 2

    def __init__(self, scores: Sequence[float], deltas: Sequence[float]) -> None:
        super().__init__()
        self.class_agnostic = len(deltas) == 4
        self.scores, self.deltas = torch.tensor(scores), torch.tensor(deltas)
        self.seen: list[list[float]] = []

    def forward(self, regions: Tensor) -> BoxOutputs:
        self.seen = regions[:, 1:, 0, 0].tolist()
        count = len(regions)
        return BoxOutputs(self.scores.expand(count, -1), self.deltas.expand(count, -1))


class FixedMasks(MaskHead):
    """The same logit all over the masks of class 1, and its opposite for class 0."""

    size = (4, 4)
    num_classes = 2

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value
        self.seen: list[list[float]] = []

    def forward(self, regions: Tensor) -> Tensor:
        self.seen = regions[:, 1:, 0, 0].tolist()
        masks = torch.full((len(regions), 2, 4, 4), self.value)
        masks[:, 0] *= -1
        return masks


STILL = (0.0, 0.0, 0.0, 0.0)
RIGHT = (1.0, 0.0, 0.0, 0.0)
EVEN = (0.0, 0.0, 0.0)
OBJECT = (8.0, 8.0, 24.0, 24.0)
INFO = ImageInfo(size=(40, 80), original_size=(40, 80))
BATCH = Batch(images=torch.zeros(1, 3, 40, 80), infos=(INFO,))


def fixed(
    boxes: Sequence[FixedBoxes],
    masks: Sequence[FixedMasks] = (),
    stages: Sequence[CascadeStageConfig] = THREE_STAGES,
    **settings: Any,
) -> CascadeHead:
    config = CascadeHeadConfig(stages=tuple(stages), **settings)
    return CascadeHead(config, roi_pool=EchoPool(), box_heads=boxes, mask_heads=masks)


def target(label: int = 1) -> list[Targets]:
    masks = torch.ones(1, 40, 80, dtype=torch.uint8)
    return [Targets(boxes=torch.tensor([OBJECT]), labels=torch.tensor([label]), masks=masks)]


def proposals(*boxes: Sequence[float]) -> list[Tensor]:
    return [torch.tensor(boxes).view(-1, 4)]


def test_each_stage_sees_what_the_one_before_refined_and_the_objects_own_boxes_afresh():
    heads = [FixedBoxes(EVEN, RIGHT) for _ in range(3)]
    fixed(heads).losses([], proposals((10, 8, 26, 24), (72, 20, 79.5, 30)), target(), BATCH)
    # 16 wide, moved by .1 and .05 of it; the other one by .1 of 7.5, cut at the image's width, then by .05 of the rest.
    expected = [
        [[*OBJECT], [10, 8, 26, 24], [72, 20, 79.5, 30]],
        [[*OBJECT], [11.6, 8, 27.6, 24], [72.75, 20, 80, 30]],
        [[*OBJECT], [12.4, 8, 28.4, 24], [73.1125, 20, 80, 30]],
    ]
    for head, rows in zip(heads, expected, strict=True):
        assert head.seen == [pytest.approx(row, abs=1e-4) for row in rows]


def test_a_proposal_that_equals_an_objects_box_is_not_taken_for_it():
    heads = [FixedBoxes(EVEN, STILL) for _ in range(3)]
    fixed(heads).losses([], proposals(OBJECT), target(), BATCH)
    assert [head.seen for head in heads] == [[[*OBJECT], [*OBJECT]]] * 3


def test_each_stage_assigns_anew_by_its_own_threshold():
    """An overlap of 11 / 16 is an object's in stages 1 and 2, and background in stage 3."""
    heads = [FixedBoxes((0.0, 2.0, 0.0), STILL) for _ in range(3)]
    terms = fixed(heads).losses([], proposals((8, 8, 24, 19)), target(label=1), BATCH)
    norm = math.log(2 + math.exp(2))
    for name, total in (("stage1", 2 * (norm - 2)), ("stage2", 2 * (norm - 2)), ("stage3", norm - 2 + norm)):
        weight = {"stage1": 1.0, "stage2": 0.5, "stage3": 0.25}[name]
        assert terms[f"{name}_cls"].total.item() == pytest.approx(weight * total, rel=1e-6)
        assert terms[f"{name}_cls"].count == terms[f"{name}_box"].count == 2.0
    assert terms["stage3_box"].total.item() == 0


def test_each_stage_has_its_own_coder():
    heads = [FixedBoxes(EVEN, STILL) for _ in range(3)]
    terms = fixed(heads).losses([], proposals((9, 8, 25, 24)), target(), BATCH)
    # The wanted dx is -1 / 16 over the stage's spread; smooth L1 is quadratic below 1.
    for number, (std, weight) in enumerate(((0.1, 1.0), (0.05, 0.5), (0.033, 0.25))):
        x = 1 / 16 / std
        expected = weight * (x * x / 2 if x < 1 else x - 0.5)
        assert terms[f"stage{number + 1}_box"].total.item() == pytest.approx(expected, rel=1e-5)


def test_masks_are_learnt_on_the_stages_own_unrefined_positives():
    heads, masks = [FixedBoxes(EVEN, RIGHT) for _ in range(3)], [FixedMasks(v) for v in (1.0, 2.0, 3.0)]
    given = proposals((9, 8, 25, 24), (50, 20, 60, 30))
    terms = fixed(heads, masks).losses([], given, target(label=1), BATCH)
    seen = [[[*OBJECT], [9, 8, 25, 24]], [[*OBJECT], [10.6, 8, 26.6, 24]], [[*OBJECT], [11.4, 8, 27.4, 24]]]
    for head, rows in zip(masks[:2], seen[:2], strict=True):
        assert head.seen == [pytest.approx(row, abs=1e-4) for row in rows]
    assert masks[2].seen == [[*OBJECT]]  # 3.4 of 16 pixels off is too far for the third
    for number, weight in enumerate((1.0, 0.5, 0.25)):
        term = terms[f"stage{number + 1}_mask"]
        assert term.value().item() == pytest.approx(weight * math.log(1 + math.exp(-(number + 1))), rel=1e-5)
        assert term.count == len(masks[number].seen)


def test_a_stages_weight_is_in_the_total_and_not_in_the_count():
    plain, doubled = (
        fixed(
            [FixedBoxes((0.0, 1.0, 0.0), RIGHT)],
            [FixedMasks(1.0)],
            [evolve(THREE_STAGES[0], loss_weight=weight)],
        ).losses([], proposals((9, 8, 25, 24)), target(), BATCH)
        for weight in (1.0, 2.0)
    )
    for name in ("stage1_cls", "stage1_box", "stage1_mask"):
        assert doubled[name].total.item() == 2 * plain[name].total.item() > 0
        assert doubled[name].count == plain[name].count


def test_a_box_for_each_class_is_refined_by_its_own_class():
    """In training by the object's class, or the best foreground one of background; at test by the best one."""
    deltas = (*RIGHT, -1.0, 0.0, 0.0, 0.0)  # class 0 to the right, class 1 to the left
    heads = [FixedBoxes((1.0, 0.0, 5.0), deltas) for _ in range(2)]
    head = fixed(heads, stages=THREE_STAGES[:2])
    head.losses([], proposals((9, 8, 25, 24), (50, 20, 60, 30)), target(label=1), BATCH)
    expected = [[*OBJECT], [7.4, 8, 23.4, 24], [51, 20, 61, 30]]
    assert heads[1].seen == [pytest.approx(row, abs=1e-4) for row in expected]
    head.predict([], proposals((9, 8, 25, 24)), BATCH)
    assert heads[1].seen == [pytest.approx([10.6, 8, 26.6, 24], abs=1e-4)]


def test_detections_by_hand():
    logits = ((2.0, 1.0, 0.0), (4.0, -1.0, 3.0), (0.0, 0.0, 3.0))  # mean (2, 0, 2)
    heads = [FixedBoxes(x, RIGHT) for x in logits]
    found = fixed(heads).predict([], proposals((10, 8, 26, 24)), BATCH)[0]
    norm = 2 * math.exp(2) + 1
    assert found.labels.tolist() == [0, 1]
    assert found.scores.tolist() == pytest.approx([math.exp(2) / norm, 1 / norm])
    # Moved by .1, .05 and .033 of 16.
    for box in found.boxes.tolist():
        assert box == pytest.approx([10 + 16 * 0.183, 8, 26 + 16 * 0.183, 24], abs=1e-4)
    assert heads[2].seen == [pytest.approx([12.4, 8, 28.4, 24], abs=1e-4)]
    assert found.masks is None


def test_detections_are_scaled_back_and_masks_see_them_in_network_pixels():
    info = ImageInfo(size=(40, 80), original_size=(80, 320), scale=(0.5, 0.25))
    batch = Batch(images=BATCH.images, infos=(info,))
    masks = [FixedMasks(v) for v in (5.0, 5.0, 5.0)]
    heads = [FixedBoxes((0.0, 9.0, 0.0), STILL) for _ in range(3)]
    found = fixed(heads, masks).predict([], proposals((8, 8, 24, 24)), batch)[0]
    assert found.boxes.tolist() == [[32, 16, 96, 48]]
    assert [head.seen for head in masks] == [[[8, 8, 24, 24]]] * 3
    assert found.masks is not None
    assert found.masks.shape == (1, 80, 320)
    assert found.masks.sum() == found.masks[0, 16:48, 32:96].sum() > 0.9 * 64 * 32


@pytest.mark.parametrize(("threshold", "some"), [(0.69, True), (0.71, False)])
def test_masks_are_the_mean_of_the_stages_probabilities(threshold, some):
    """Probabilities .9, .9 and .3: .7 on the mean, and .79 had their logits been averaged."""
    masks = [FixedMasks(math.log(p / (1 - p))) for p in (0.9, 0.9, 0.3)]
    heads = [FixedBoxes((0.0, 9.0, 0.0), STILL) for _ in range(3)]
    found = fixed(heads, masks, mask_threshold=threshold).predict([], proposals(OBJECT), BATCH)[0]
    assert bool(found.masks.any()) == some


def test_a_loss_that_compares_boxes_and_low_quality_matches(tiny):
    stage = CascadeStageConfig(
        assigner=MaxIoUAssignerConfig(low_quality=True, min_positive=0.1), box_loss=GIoUConfig(), loss_weight=0.5
    )
    contract_checks.check_roi_head(evolve(tiny.mask, stages=(stage, stage)))


def test_scores_may_be_the_mean_of_probabilities():
    """detectron2's: of the softmax of every stage."""
    logits = ((2.0, 1.0, 0.0), (4.0, -1.0, 3.0), (0.0, 0.0, 3.0))
    heads = [FixedBoxes(x, RIGHT) for x in logits]
    found = fixed(heads, mean_of="probabilities").predict([], proposals((10, 8, 26, 24)), BATCH)[0]
    expected = torch.tensor(logits).softmax(-1).mean(0)[:2]
    assert found.scores.tolist() == pytest.approx(sorted(expected.tolist(), reverse=True))


def test_one_mask_head_learns_from_the_first_stage_alone(tiny):
    config = evolve(tiny.mask, masks_by="one")
    contract_checks.check_roi_head(config)
    detector = tiny.build(config)
    assert len(detector.roi_head.mask_heads) == 1
    batch = tiny.batch()
    losses = detector.losses(batch, tiny.targets(batch, (3, 2)))
    assert {name for name in losses if name.endswith("mask")} == {"stage1_mask"}
