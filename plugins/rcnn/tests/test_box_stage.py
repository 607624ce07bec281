"""How boxes learn and move: assignment before the objects' own boxes join, refinement, and what goes on from it."""

from __future__ import annotations

import math

import pytest
import torch
from attrs import evolve

from det_core.boxes.box_config import DeltaCoderConfig, MaxIoUAssignerConfig, RandomSamplerConfig
from det_core.contracts import BoxOutputs
from det_core.model.postprocess import to_network, to_original
from det_core.structures import ImageInfo, Key, Targets
from det_plugin_rcnn.box_stage import BoxStage
from det_plugin_rcnn.config import BoxStageConfig, FCBoxHeadConfig, RCNNHeadConfig
from det_plugin_rcnn.detections import choose_detections
from det_plugin_rcnn.mask_branch import region_masks

INFO = ImageInfo(size=(40, 80), original_size=(40, 80), key=Key(index=1))
A, B = [0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 20.0]
BETWEEN = [0.0, 0.0, 10.0, 12.0]  # overlaps A by .83 and B by .6
FAR = [50.0, 20.0, 60.0, 30.0]
BROAD = MaxIoUAssignerConfig(low_quality=True)


def stage(*, agnostic: bool = True, **settings: object) -> BoxStage:
    return BoxStage(BoxStageConfig(**settings), 2, class_agnostic=agnostic)  # type: ignore[arg-type]


def target(*boxes: list[float], labels: list[int]) -> Targets:
    return Targets(boxes=torch.tensor(boxes).view(-1, 4), labels=torch.tensor(labels).long())


def test_proposals_are_assigned_among_themselves_before_the_objects_own_boxes_join():
    """So an object's own box does not take the low-quality match of the proposal that overlaps it most."""
    objects = target(A, B, labels=[0, 1])
    proposals = torch.tensor([BETWEEN, FAR])
    (found,) = stage(assigner=BROAD).sample([proposals], [objects], [INFO])
    assert found.boxes.tolist() == [A, B, BETWEEN, FAR]
    assert found.objects.tolist() == [0, 1, 1]
    assert found.labels.tolist() == [0, 1, 1, 2]
    (plain,) = stage().sample([proposals], [objects], [INFO])
    assert plain.objects.tolist() == [0, 1, 0]


def test_own_boxes_join_where_they_are_asked_for():
    (found,) = stage().sample([torch.tensor([A, FAR])], [target(A, labels=[1])], [INFO])
    assert found.from_objects.tolist() == [True, False]
    (without,) = stage(add_ground_truth=False).sample([torch.tensor([A, FAR])], [target(A, labels=[1])], [INFO])
    assert without.from_objects.tolist() == [False]


def test_own_boxes_are_known_where_only_some_are_drawn():
    settings = {"sampler": RandomSamplerConfig(count=4, positive_fraction=0.5)}
    proposals = torch.tensor([[float(i), 0.0, 10.0 + i, 10.0] for i in range(3)] + [FAR] * 9)
    owned = set()
    for index in range(12):
        info = ImageInfo(size=(40, 80), original_size=(40, 80), key=Key(index=index))
        (found,) = stage(**settings).sample([proposals], [target(A, labels=[1])], [info])
        assert (len(found.from_objects), len(found.boxes)) == (2, 4)
        owned.add(int(found.from_objects.sum()))
        assert all(box == A for box in found.positive[found.from_objects].tolist())
    assert owned == {0, 1}


def outputs(count: int, deltas: list[float], scores: tuple[float, float, float] = (1.0, 0.0, 5.0)) -> BoxOutputs:
    return BoxOutputs(torch.tensor(scores).expand(count, -1), torch.tensor(deltas).expand(count, -1))


def test_what_goes_on_is_refined_and_without_the_objects_own_boxes():
    boxes = stage()
    sampled = boxes.sample(
        [torch.tensor([BETWEEN, FAR]), torch.tensor([FAR])],
        [target(A, labels=[1]), target(labels=[])],
        [INFO, INFO],
    )
    moved = boxes.next_proposals(outputs(4, [1.0, 0.0, 0.0, 0.0]), sampled, [INFO, INFO])
    assert moved[0].tolist() == [pytest.approx([1, 0, 11, 12]), pytest.approx([51, 20, 61, 30])]
    assert moved[1].tolist() == [pytest.approx([51, 20, 61, 30])]


def test_refined_boxes_are_cut_at_the_image_and_carry_no_gradient():
    deltas = torch.tensor([[500.0, 0.0, 0.0, 0.0]], requires_grad=True)
    (moved,) = stage().refine(BoxOutputs(torch.zeros(1, 3), deltas), [torch.tensor([FAR])], [INFO])
    assert moved.tolist() == [[80, 20, 80, 30]]
    assert not moved.requires_grad


def test_of_a_box_for_each_class_one_is_taken():
    boxes = stage(agnostic=False)
    said = outputs(3, [1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0])
    given = [torch.tensor([FAR] * 3)]
    (best,) = boxes.refine(said, given, [INFO])
    assert best[:, 0].tolist() == pytest.approx([51, 51, 51])
    (told,) = boxes.refine(said, given, [INFO], torch.tensor([0, 1, 2]))
    assert told[:, 0].tolist() == pytest.approx([51, 49, 51])  # 2 is background: the best foreground class
    (all_of_them,) = boxes.decode(said.deltas, given, [INFO])
    assert all_of_them[0, :, 0].tolist() == pytest.approx([51, 49])


def test_nothing_goes_in_and_nothing_comes_out():
    boxes = stage(agnostic=False)
    sampled = boxes.sample([torch.zeros(0, 4)], [target(labels=[])], [INFO])
    assert sampled[0].boxes.shape == (0, 4)
    said = outputs(0, [0.0] * 8)
    assert boxes.next_proposals(said, sampled, [INFO])[0].shape == (0, 4)
    losses = boxes.losses(said, sampled, [target(labels=[])])
    assert losses.cls.value() == losses.box.value() == 0


def test_half_precision_moves_boxes_in_float32():
    said = outputs(1, [1.0, 0.0, 0.0, 0.0])
    said = BoxOutputs(said.scores.bfloat16(), said.deltas.bfloat16())
    (moved,) = stage().refine(said, [torch.tensor([FAR])], [INFO])
    assert moved.dtype == torch.float32


def test_the_head_of_faster_rcnn_hands_its_settings_on():
    coder, sampler = DeltaCoderConfig(stds=(1.0,) * 4), RandomSamplerConfig(count=7)
    head = RCNNHeadConfig(coder=coder, sampler=sampler, assigner=BROAD, add_ground_truth=False)
    stage = BoxStage(head, 2, class_agnostic=False)
    assert isinstance(head, BoxStageConfig)
    assert not stage.add_ground_truth
    assert stage.coder.stds == coder.stds  # type: ignore[attr-defined]
    assert stage.sampler.count == 7  # type: ignore[attr-defined]


def test_decoding_in_the_original_image():
    """Detectron: boxes of whole pixels are placed in the original image before they are moved, and clipped there.

    At 1.5 times the size the pixels 3..11 are 2..7.33, that is 6.33 wide, and a delta of log 2 doubles this.
    """
    config = RCNNHeadConfig(
        box_head=FCBoxHeadConfig(class_agnostic=True),
        coder=DeltaCoderConfig(border="pixel"),
        decode_in="original",
        mask_paste="padded",
    )
    stage = BoxStage(config, 1, class_agnostic=True)
    info = ImageInfo(size=(30, 60), original_size=(20, 40), scale=(1.5, 1.5), inclusive=True)
    deltas = torch.tensor([[0.0, 0.0, math.log(2), 0.0]], dtype=torch.float64)
    boxes = torch.tensor([[3.0, 3.0, 12.0, 12.0]], dtype=torch.float64)
    (found,) = stage.decode_original(deltas, [boxes], [info])
    end, side = 22 / 3 + 1, 19 / 3
    assert found[0].tolist() == pytest.approx([max(2 - side / 2, 0), 2, end + side / 2, end])
    scores = torch.tensor([[0.9]], dtype=torch.float64)
    kept = choose_detections([found], scores, [info], config, original=True)
    assert torch.equal(kept.boxes, found)
    assert torch.allclose(to_original(kept.network, info), found)  # the boxes of masks are in the network's pixels
    plain = evolve(info, inclusive=False)
    assert torch.allclose(to_network(to_original(boxes, plain), plain), boxes)
    (masks,) = region_masks(torch.ones(1, 4, 4, dtype=torch.float64), kept, [info], config)
    assert torch.allclose(masks.boxes, found - torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=torch.float64))
    assert masks.rule == "resized"
