"""Hybrid Task Cascade: contracts, images with nothing in them, interleaving and the flow between mask heads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from attrs import evolve
from torch import Tensor, nn

from det_core.boxes.box_config import RandomSamplerConfig
from det_core.contracts import Assignment, BoxHead, BoxOutputs, HiddenMaskHead, Sampled, Sampler
from det_core.structures import Batch, ImageInfo, Key, Targets
from det_core.testing import contract_checks
from det_core.testing.echo_pool import EchoPool
from det_plugin_cascade.config import THREE_STAGES, CascadeHeadConfig
from det_plugin_htc.config import HTCHeadConfig
from det_plugin_htc.roi_head import HTCHead

ALL = (
    "htc",
    "without semantic",
    "without interleaving",
    "without flow",
    "the last stage's masks",
    "a box for each class",
    "semantic for boxes",
    "semantic for masks",
    "semantic beside all",
    "masks from the boxes' pooling",
    "semantic at stride 16",
    "one stage",
    "four stages",
    "without the objects' own boxes",
)
KINDS = ("htc", "without semantic", "without interleaving", "without flow", "a box for each class")


def names(config: HTCHeadConfig) -> set[str]:
    stages = {f"stage{i + 1}_{kind}" for i in range(len(config.stages)) for kind in ("cls", "box", "mask")}
    return stages | ({"semantic"} if config.semantic else set())


def test_every_kind_is_tried(tiny):
    assert set(ALL) == set(tiny.heads)


@pytest.mark.parametrize("kind", ALL)
def test_the_contract_of_a_roi_head(tiny, kind):
    contract_checks.check_roi_head(tiny.heads[kind], tiny.levels)


@pytest.mark.parametrize("counts", [(3, 2), (2, 0), (0, 0), (300, 0)])
@pytest.mark.parametrize("kind", KINDS)
def test_images_with_many_objects_and_with_none_train_every_parameter(tiny, kind, counts):
    config = tiny.heads[kind]
    detector = tiny.build(config)
    batch = tiny.batch()
    losses = tiny.backward(detector, detector.losses(batch, tiny.targets(batch, counts)))
    assert set(losses) == {"rpn_cls", "rpn_box"} | names(config)
    for name in names(config):
        always = name == "semantic" or name.endswith("_cls")
        assert losses[name] > 0 if always else (losses[name] == 0) == (counts == (0, 0))


@pytest.mark.parametrize("counts", [(3, 2), (2, 0), (0, 0)])
@pytest.mark.parametrize("kind", ALL)
def test_where_no_proposal_is_left_everything_trains_along(tiny, kind, counts):
    """None to begin with; or all refined to nothing, at the image's border, by the first stage."""
    head = tiny.heads[kind].build(tiny.levels, 3).train()
    batch = tiny.batch()
    features, targets = tiny.features(tiny.levels, batch), tiny.targets(batch, counts)
    tiny.backward(head, head.losses(features, [torch.zeros(0, 4)] * 2, targets, batch))
    with torch.no_grad():
        head.box_heads[0].deltas.bias.fill_(1e4)
    near = tiny.proposals(batch, targets)
    semantic = None if head.semantic is None else head.semantic(features)
    sampled = head.chain.stages[0].sample(near, targets, batch.infos)
    outputs = head.box_outputs(0, features, semantic, [s.boxes for s in sampled])
    for boxes in head.chain.stages[0].next_proposals(outputs, sampled, batch.infos):
        assert len(boxes)
        assert (boxes[:, 2] == boxes[:, 0]).all()
    tiny.backward(head, head.losses(features, near, targets, batch))


@pytest.mark.parametrize("kind", KINDS)
def test_of_no_proposals_nothing_is_found(tiny, kind):
    head = tiny.heads[kind].build(tiny.levels, 3).eval()
    batch = tiny.batch()
    features = tiny.features(tiny.levels, batch)
    with torch.no_grad():
        for proposals in ([torch.zeros(0, 4)] * 2, [torch.zeros(0, 4), torch.tensor([[4.0, 4.0, 40.0, 40.0]])]):
            found = head.predict(features, proposals, batch)
            assert len(found[0]) == 0
            assert (len(found[1]) > 0) == (len(proposals[1]) > 0)
            assert [len(f.masks) for f in found] == [len(f) for f in found]


def test_under_autocast_losses_and_detections_are_float32(tiny):
    head = tiny.htc.build(tiny.levels, 3)
    batch = tiny.batch()
    targets = tiny.targets(batch, (2, 1))
    proposals, features = tiny.proposals(batch, targets), tiny.features(tiny.levels, batch)
    with torch.autocast("cpu", torch.bfloat16):
        terms = head.losses(features, proposals, targets, batch)
        with torch.no_grad():
            found = head.predict(features, proposals, batch)
    assert {t.total.dtype for t in terms.values()} == {torch.float32}
    assert {d.boxes.dtype for d in found} == {d.scores.dtype for d in found} == {torch.float32}


def test_stages_and_their_masks_draw_different_samples(tiny, monkeypatch):
    for config, expected in (
        (tiny.htc, ["stage1", "stage1 masks", "stage2", "stage2 masks", "stage3", "stage3 masks"]),
        (evolve(tiny.htc, interleaved=False), ["stage1", "stage2", "stage3"]),
    ):
        consumers: list[str] = []
        head = config.build(tiny.levels, 3)
        for stage in head.chain.stages:
            monkeypatch.setattr(stage, "sampler", _spy(stage.sampler, consumers))
        batch = tiny.batch(1)
        targets = tiny.targets(batch, (2,))
        head.losses(tiny.features(tiny.levels, batch), tiny.proposals(batch, targets), targets, batch)
        assert consumers == expected


def _spy(sampler: Sampler, consumers: list[str]) -> Sampler:
    class Spy(Sampler):
        def __call__(self, assignment: Assignment, key: Key, consumer: str) -> Sampled:
            consumers.append(consumer)
            return sampler(assignment, key, consumer)

    return Spy()


def test_without_all_three_it_is_cascade_mask_rcnn(tiny):
    few = tuple(evolve(s, sampler=RandomSamplerConfig(count=20, positive_fraction=0.25)) for s in THREE_STAGES)
    config = evolve(tiny.without, interleaved=False, information_flow=False, stages=few)
    plain = CascadeHeadConfig(
        box_head=config.box_head,
        mask_roi_pool=config.mask_roi_pool,
        mask_head=config.mask_head,
        stages=few,
        score_threshold=0.0,
    )
    htc, cascade = config.build(tiny.levels, 3), plain.build(tiny.levels, 3)
    assert cascade.load_state_dict(htc.state_dict())
    batch = tiny.batch()
    features, targets = tiny.features(tiny.levels, batch), tiny.targets(batch, (3, 2))
    proposals = tiny.proposals(batch, targets)
    ours, theirs = (h.losses(features, proposals, targets, batch) for h in (htc, cascade))
    assert {k: t.value().item() for k, t in ours.items()} == {k: t.value().item() for k, t in theirs.items()}
    for a, b in zip(*(h.predict(features, proposals, batch) for h in (htc, cascade)), strict=True):
        assert len(a) > 0
        assert torch.equal(a.boxes, b.boxes)
        assert torch.equal(a.scores, b.scores)
        assert torch.equal(a.masks, b.masks)


# information flow


def trained_by(tiny: Any, config: HTCHeadConfig, loss: str) -> set[str]:
    """The mask heads and flows that get a gradient other than 0 from this loss."""
    head = config.build(tiny.levels, 3)
    batch = tiny.batch()
    features, targets = tiny.features(tiny.levels, batch), tiny.targets(batch, (3, 2))
    head.losses(features, tiny.proposals(batch, targets), targets, batch)[loss].value().backward()
    moved = {key for key, p in head.named_parameters() if p.grad is not None and bool(p.grad.abs().sum() > 0)}
    return {".".join(key.split(".")[:2]) for key in moved if key.startswith(("mask_heads.", "flows."))}


def test_a_stages_mask_loss_reaches_the_mask_heads_before_it(tiny):
    assert trained_by(tiny, tiny.htc, "stage1_mask") == {"mask_heads.0"}
    assert trained_by(tiny, tiny.htc, "stage2_mask") == {"mask_heads.0", "flows.0", "mask_heads.1"}
    everything = {"mask_heads.0", "flows.0", "mask_heads.1", "flows.1", "mask_heads.2"}
    assert trained_by(tiny, tiny.htc, "stage3_mask") == everything


def test_without_flow_every_mask_head_learns_alone(tiny):
    config = tiny.heads["without flow"]
    for number in range(3):
        assert trained_by(tiny, config, f"stage{number + 1}_mask") == {f"mask_heads.{number}"}
    assert not [key for key in config.build(tiny.levels, 3).state_dict() if key.startswith("flows")]


@pytest.mark.parametrize(
    ("flow", "masks_of", "ran"),
    [(True, "all", {0, 1, 2}), (True, "last", {0, 1, 2}), (False, "all", {0, 1, 2}), (False, "last", {2})],
)
def test_which_mask_heads_run_at_test(tiny, monkeypatch, flow, masks_of, ran):
    head = evolve(tiny.htc, information_flow=flow, masks_of=masks_of).build(tiny.levels, 3).eval()
    seen: set[int] = set()
    finished: set[int] = set()
    for number, mask_head in enumerate(head.mask_heads):
        monkeypatch.setattr(mask_head, "hidden", _note(mask_head.hidden, number, seen))
        monkeypatch.setattr(mask_head, "logits_of", _note(mask_head.logits_of, number, finished))
    batch = tiny.batch(1)
    with torch.no_grad():
        head.predict(tiny.features(tiny.levels, batch), [torch.tensor([[4.0, 4.0, 40.0, 40.0]])], batch)
    assert seen == ran
    assert finished == ({0, 1, 2} if masks_of == "all" else {2})


def _note(function: Any, number: int, seen: set[int]) -> Any:
    def noted(x: Tensor) -> Tensor:
        seen.add(number)
        return function(x)

    return noted


# by hand, with parts that say what they are told to


class FixedBoxes(BoxHead):
    """The same logits of two classes and background, and the same deltas, for every region."""

    num_classes = 2
    class_agnostic = True

    def __init__(self, deltas: Sequence[float], scores: Sequence[float] = (0.0, 9.0, 0.0)) -> None:
        super().__init__()
        self.scores, self.deltas = torch.tensor(scores), torch.tensor(deltas)
        self.seen: list[list[float]] = []

    def forward(self, regions: Tensor) -> BoxOutputs:
        self.seen = regions[:, 1:, 0, 0].tolist()
        return BoxOutputs(self.scores.expand(len(regions), -1), self.deltas.expand(len(regions), -1))


class FixedMasks(HiddenMaskHead):
    """Features are the regions; logits are the same everywhere."""

    size = (4, 4)
    num_classes = 2
    hidden_channels = 5

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value
        self.seen: list[list[list[float]]] = []

    def hidden(self, regions: Tensor) -> Tensor:
        self.seen.append(regions[:, 1:, 0, 0].tolist())
        return regions

    def logits_of(self, hidden: Tensor) -> Tensor:
        return torch.full((len(hidden), 2, 4, 4), self.value)


class Times(nn.Module):
    """A flow that multiplies."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


STILL = (0.0, 0.0, 0.0, 0.0)
RIGHT = (1.0, 0.0, 0.0, 0.0)
OBJECT = [8.0, 8.0, 24.0, 24.0]
INFO = ImageInfo(size=(40, 80), original_size=(40, 80))
BATCH = Batch(images=torch.zeros(1, 3, 40, 80), infos=(INFO,))


def fixed(boxes: Sequence[FixedBoxes], masks: Sequence[FixedMasks], **settings: Any) -> HTCHead:
    config = HTCHeadConfig(**{"semantic": None, "information_flow": False, **settings})
    flows = [Times(10.0), Times(100.0)] if config.information_flow else []
    return HTCHead(
        config, roi_pool=EchoPool(), box_heads=boxes, mask_roi_pool=EchoPool(), mask_heads=masks, flows=flows
    )


def target() -> list[Targets]:
    masks = torch.ones(1, 40, 80, dtype=torch.uint8)
    return [Targets(boxes=torch.tensor([OBJECT]), labels=torch.tensor([1]), masks=masks)]


def proposals(*boxes: Sequence[float]) -> list[Tensor]:
    return [torch.tensor(boxes).view(-1, 4)]


def close(found: list[list[float]], expected: list[list[float]]) -> bool:
    return found == [pytest.approx(row, abs=1e-4) for row in expected]


@pytest.mark.parametrize("interleaved", [True, False])
def test_masks_train_on_refined_boxes_where_stages_are_interleaved(interleaved):
    boxes, masks = [FixedBoxes(RIGHT) for _ in range(3)], [FixedMasks(v) for v in (1.0, 2.0, 3.0)]
    head = fixed(boxes, masks, interleaved=interleaved)
    terms = head.losses([], proposals((9, 8, 25, 24), (50, 20, 60, 30)), target(), BATCH)
    # 16 wide and moved by .1, .05 and .033 of it; the object's own box is added to each choice, and never moved.
    steps = [9, 9 + 1.6, 9 + 2.4, 9 + 2.928]
    at = [[x, 8, x + 16, 24] for x in steps]
    assert [close(b.seen[:2], [OBJECT, box]) for b, box in zip(boxes, at[:3], strict=True)] == [True] * 3
    # The third stage asks for an IoU of .7, and there are .65 before and .60 after its refinement.
    first, second = (at[1], at[2]) if interleaved else (at[0], at[1])
    expected = [[OBJECT, first], [OBJECT, second], [OBJECT]]
    for number, (mask, rows) in enumerate(zip(masks, expected, strict=True)):
        assert len(mask.seen) == 1
        assert close(mask.seen[0], rows), (number, mask.seen[0])
        term = terms[f"stage{number + 1}_mask"]
        weight = (1.0, 0.5, 0.25)[number]
        assert term.value().item() == pytest.approx(weight * math.log(1 + math.exp(-(number + 1))), rel=1e-5)
        assert term.count == len(rows)


def test_refined_boxes_are_assigned_anew_for_the_masks():
    """Far off before the refinement, on the object after it; and the other way round."""
    off, on = [12.8, 8.0, 28.8, 24.0], [8.0, 8.0, 24.0, 24.0]  # IoU .54, which stage 2 calls background
    left = (-6.0, 0.0, 0.0, 0.0)  # by .05 * 16 * 6 = 4.8
    for deltas, given, positive in ((left, off, [OBJECT, on]), (tuple(-d for d in left), on, [OBJECT])):
        boxes, masks = [FixedBoxes(deltas)], [FixedMasks(1.0)]
        head = fixed(boxes, masks, stages=THREE_STAGES[1:2])
        terms = head.losses([], proposals(given), target(), BATCH)
        assert close(masks[0].seen[0], positive)
        assert terms["stage1_mask"].count == len(positive)


def test_mask_heads_get_the_features_of_the_one_before_on_the_same_regions():
    boxes, masks = [FixedBoxes(STILL) for _ in range(3)], [FixedMasks(v) for v in (1.0, 2.0, 3.0)]
    fixed(boxes, masks, information_flow=True).losses([], proposals(), target(), BATCH)
    first = OBJECT
    second = [11 * x for x in OBJECT]  # the region and 10 times the features before it
    third = [x + 100 * y for x, y in zip(OBJECT, second, strict=True)]
    assert masks[0].seen == [[first]] * 3  # for stage 1, and again for stages 2 and 3
    assert [close(rows, [second]) for rows in masks[1].seen] == [True] * 2
    assert [close(rows, [third]) for rows in masks[2].seen] == [True]


@pytest.mark.parametrize(
    ("masks_of", "threshold", "some"), [("all", 0.69, True), ("all", 0.71, False), ("last", 0.31, False)]
)
def test_masks_are_of_all_stages_or_of_the_last(masks_of, threshold, some):
    """Probabilities .9, .9 and .3: .7 in the mean."""
    masks = [FixedMasks(math.log(p / (1 - p))) for p in (0.9, 0.9, 0.3)]
    boxes = [FixedBoxes(STILL) for _ in range(3)]
    head = fixed(boxes, masks, mask_threshold=threshold, masks_of=masks_of, score_threshold=0.5)
    found = head.predict([], proposals(OBJECT), BATCH)[0]
    assert len(found) == 1
    assert bool(found.masks.any()) == some


def test_masks_at_test_see_the_final_boxes_in_network_pixels():
    info = ImageInfo(size=(40, 80), original_size=(80, 320), scale=(0.5, 0.25))
    boxes, masks = [FixedBoxes(RIGHT) for _ in range(3)], [FixedMasks(5.0) for _ in range(3)]
    head = fixed(boxes, masks, score_threshold=0.5)
    found = head.predict([], proposals((8, 8, 24, 24)), Batch(images=BATCH.images, infos=(info,)))[0]
    x = 8 + 16 * 0.183
    assert all(close(head.seen[0], [[x, 8, x + 16, 24]]) for head in masks)
    assert found.boxes.tolist() == [pytest.approx([4 * x, 16, 4 * x + 64, 48], abs=1e-3)]
    assert found.masks.shape == (1, 80, 320)
