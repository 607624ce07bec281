"""From scores and boxes to detections: the threshold, NMS inside each class, the best of all, original pixels."""

from __future__ import annotations

import pytest
import torch
from attrs import evolve

from det_core.boxes.box_config import DeltaCoderConfig
from det_core.model.detection_config import DetectionSettings, SoftNMSConfig
from det_core.model.postprocess import (
    Chosen,
    Pairs,
    boxes_to_original,
    choose,
    decode_images,
    suppress,
    to_network,
    to_original,
)
from det_core.structures import ImageInfo

BOXES = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0], [50.0, 50.0, 60.0, 60.0]])


def class_wise_nms(boxes: torch.Tensor, scores: torch.Tensor, config: DetectionSettings) -> Chosen:
    """Of one image whose network pixels are those of the original."""
    info = ImageInfo(size=(200, 200), original_size=(200, 200))
    return choose(Pairs.where(scores > config.score_threshold, [boxes], scores), [info], config)


def chosen(boxes: torch.Tensor, scores: list[list[float]], limit: int = 100, threshold: float = 0.05) -> Chosen:
    return class_wise_nms(
        boxes,
        torch.tensor(scores),
        DetectionSettings(score_threshold=threshold, nms_threshold=0.5, max_detections=limit),
    )


def test_boxes_are_divided_by_the_scale_of_each_axis():
    info = ImageInfo(size=(50, 100), original_size=(100, 400), scale=(0.5, 0.25))
    assert to_original(torch.tensor([[10.0, 10.0, 100.0, 50.0]]), info).tolist() == [[40, 20, 400, 100]]
    per_class = torch.ones(2, 3, 4)
    assert to_original(per_class, info).tolist() == [[[4, 2, 4, 2]] * 3] * 2


def test_a_box_suppresses_others_of_its_class_alone():
    found = chosen(BOXES, [[0.9, 0.1], [0.8, 0.7], [0.3, 0.0]])
    # Class 0: row 1 goes for row 0 (IoU 0.9). Class 1: row 0 goes for row 1. Row 2 stands alone.
    assert found.rows.tolist() == [0, 1, 2]
    assert found.labels.tolist() == [0, 1, 0]
    assert found.scores.tolist() == torch.tensor([0.9, 0.7, 0.3]).tolist()
    assert torch.equal(found.boxes, BOXES)


def test_one_region_may_be_found_as_several_classes():
    found = chosen(BOXES[:1], [[0.6, 0.7]])
    assert (found.rows.tolist(), found.labels.tolist()) == ([0, 0], [1, 0])


def test_a_score_must_be_above_the_threshold():
    found = chosen(BOXES, [[0.25, 0.0], [0.0, 0.2], [0.26, 0.0]], threshold=0.25)
    assert found.rows.tolist() == [2]


def test_the_best_of_all_classes_are_kept():
    assert (
        chosen(BOXES, [[0.2, 0.9], [0.0, 0.0], [0.8, 0.3]], limit=3).scores.tolist()
        == torch.tensor([0.9, 0.8, 0.3]).tolist()
    )
    assert len(chosen(BOXES, [[0.2, 0.9], [0.0, 0.0], [0.8, 0.3]], limit=1).rows) == 1


def test_every_class_may_have_its_own_box():
    boxes = torch.stack([BOXES, BOXES + 100], 1)  # (R, K, 4)
    found = chosen(boxes, [[0.0, 0.9], [0.8, 0.0], [0.0, 0.0]])
    assert found.boxes.tolist() == [(BOXES[0] + 100).tolist(), BOXES[1].tolist()]


def test_nothing_above_the_threshold_and_nothing_at_all():
    for boxes, scores in (
        (BOXES, torch.zeros(3, 2)),
        (torch.zeros(0, 4), torch.zeros(0, 2)),
        (torch.zeros(0, 2, 4), torch.zeros(0, 2)),
    ):
        found = class_wise_nms(
            boxes, scores, DetectionSettings(score_threshold=0.05, nms_threshold=0.5, max_detections=9)
        )
        assert found.boxes.shape == (0, 4)
        assert found.scores.shape == found.labels.shape == found.rows.shape == (0,)
        assert found.labels.dtype == found.rows.dtype == torch.int64


def test_without_classes_a_box_suppresses_all_that_overlap():
    found = class_wise_nms(
        BOXES,
        torch.tensor([[0.9, 0.1], [0.8, 0.7], [0.3, 0.0]]),
        DetectionSettings(score_threshold=0.05, nms_threshold=0.5, max_detections=100, class_agnostic_nms=True),
    )
    assert (found.rows.tolist(), found.labels.tolist()) == ([0, 2], [0, 0])


def test_soft_nms_lowers_scores_inside_each_class():
    soft = SoftNMSConfig(min_score=0.05)
    scores = torch.tensor([[0.9, 0.0], [0.8, 0.7], [0.3, 0.0]])
    found = class_wise_nms(
        BOXES, scores, DetectionSettings(score_threshold=0.05, nms_threshold=0.5, max_detections=100, soft_nms=soft)
    )
    # Row 1 of class 0 overlaps row 0 by 0.9, so 0.1 of its score is left; in class 1 it stands alone.
    assert (found.rows.tolist(), found.labels.tolist()) == ([0, 1, 2, 1], [0, 1, 0, 0])
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.7, 0.3, 0.08]))
    few = class_wise_nms(
        BOXES, scores, DetectionSettings(score_threshold=0.05, nms_threshold=0.5, max_detections=2, soft_nms=soft)
    )
    assert few.rows.tolist() == [0, 1]


def test_soft_nms_drops_what_decays_below_its_least_score():
    scores = torch.tensor([[0.9], [0.8], [0.3]])
    for soft, rows in (
        (SoftNMSConfig(min_score=0.1), [0, 2]),
        (SoftNMSConfig(method="gaussian", min_score=0.1), [0, 2, 1]),
    ):
        found = class_wise_nms(
            BOXES, scores, DetectionSettings(score_threshold=0.05, nms_threshold=0.5, max_detections=100, soft_nms=soft)
        )
        assert found.rows.tolist() == rows
    nothing = class_wise_nms(
        BOXES,
        scores,
        DetectionSettings(score_threshold=0.95, nms_threshold=0.5, max_detections=9, soft_nms=SoftNMSConfig()),
    )
    assert len(nothing.rows) == 0


def test_first_and_last_pixels_are_divided_where_they_were_multiplied():
    """mmdet 0.x and 1.x: the last pixel 63 of 64 becomes (63 / 2, ...), and the box ends after it."""
    info = ImageInfo(size=(40, 64), original_size=(20, 32), scale=(2.0, 2.0), inclusive=True)
    assert to_original(torch.tensor([[10.0, 4.0, 64.0, 40.0]]), info).tolist() == [[5, 2, 32.5, 20.5]]


@pytest.mark.parametrize("counts", [(5,), (3, 0, 4)])
@pytest.mark.parametrize("classes", [None, 3])
def test_boxes_of_all_images_are_decoded_as_those_of_each(counts, classes):
    coder, generator = DeltaCoderConfig().build(), torch.Generator().manual_seed(0)
    sizes = [(30 + 10 * n, 50) for n in range(len(counts))]
    anchors = [torch.rand(n, 4, generator=generator) * 40 for n in counts]
    deltas = torch.randn(sum(counts), *([] if classes is None else [classes]), 4, generator=generator)
    found = decode_images(coder, anchors, deltas, sizes)
    for boxes, own, moves, size in zip(found, anchors, deltas.split(list(counts)), sizes, strict=True):
        assert torch.equal(boxes, coder.decode(own, moves, size))


INFOS = [
    ImageInfo(size=(60, 80), original_size=(30, 50), scale=(2.0, 1.6)),
    ImageInfo(size=(80, 60), original_size=(100, 70), scale=(0.8, 0.75)),
    ImageInfo(size=(50, 50), original_size=(50, 50)),
]


def scored(count: int, shared: bool, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes of regions and scores of three classes, some of them equal; some boxes lie outside of the image."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, *([] if shared else [3]), 2, generator=generator) * 70
    sides = torch.rand(corners.shape, generator=generator) * 40
    scores = torch.randint(0, 40, (count, 3), generator=generator) / 40
    return torch.cat([corners, corners + sides], -1), scores


@pytest.mark.parametrize("counts", [(40, 0, 25), (0, 0, 0), (5, 5, 60)])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("inclusive", [True, False])
@pytest.mark.parametrize("original", [True, False])
@pytest.mark.parametrize(
    "settings",
    [
        DetectionSettings(max_detections=12),
        DetectionSettings(nms_in="network", clip_original=True, max_detections=9),
        DetectionSettings(clip_original=True, class_agnostic_nms=True),
        DetectionSettings(soft_nms=SoftNMSConfig(), max_detections=20, clip_original=True),
    ],
    ids=["limit", "network", "agnostic", "soft"],
)
def test_the_detections_of_a_batch_are_those_of_each_image_bit_for_bit(counts, shared, inclusive, original, settings):
    infos = [evolve(info, inclusive=inclusive) for info in INFOS]
    boxes, scores = zip(*(scored(count, shared, seed) for seed, count in enumerate(counts)), strict=True)
    every = torch.cat(scores)
    pairs = Pairs.where(every > settings.score_threshold, boxes, every)
    found = choose(pairs, infos, settings, original=original)
    assert sum(found.counts) == len(found.boxes)
    fields = ("boxes", "network", "scores", "labels")
    rows = zip(boxes, scores, infos, suppress(pairs, infos, settings, original=original), strict=True)
    for number, (own, values, info, detections) in enumerate(rows):
        alone = choose(
            Pairs.where(values > settings.score_threshold, [own], values), [info], settings, original=original
        )
        for name in fields:
            assert torch.equal(found.of_images(getattr(found, name))[number], getattr(alone, name)), name
        assert torch.equal(found.of_images(found.rows)[number] - sum(counts[:number]), alone.rows)
        assert torch.equal(detections.boxes, alone.boxes)
        assert len(alone.boxes) <= settings.max_detections
        assert (alone.scores.diff() <= 0).all()
        if not settings.clip_original:
            torch.testing.assert_close(alone.network, to_network(alone.boxes, info))


def test_detections_outside_of_the_original_image_are_dropped_after_the_best_are_kept():
    settings = DetectionSettings(clip_original=True, max_detections=2)
    boxes = torch.tensor([[0.0, 0, 10, 10], [60, 60, 70, 70], [30, 30, 60, 60]])
    scores = torch.tensor([[0.7], [0.9], [0.5]])
    (found,) = suppress(Pairs.where(scores > 0, [boxes], scores), [INFOS[2]], settings)
    assert found.boxes.tolist() == [[0, 0, 10, 10]]


def test_boxes_of_a_batch_are_converted_as_those_of_each_image():
    boxes = torch.rand(3, 5, 4) * 60
    for infos in (INFOS, [evolve(info, inclusive=True) for info in INFOS]):
        expected = torch.stack([to_original(own, info) for own, info in zip(boxes, infos, strict=True)])
        assert torch.equal(boxes_to_original(boxes, infos), expected)


def test_pairs_by_mask():
    pairs = Pairs.where(torch.tensor([[True, True], [False, True]]), [BOXES[:1], BOXES[2:]], torch.rand(2, 2))
    assert pairs.images.tolist() == [0, 0, 1]
    assert pairs.larger_than(10).tolist() == [False] * 3
    kept = pairs.only(torch.tensor([False, True, True]))
    assert (kept.labels.tolist(), kept.rows.tolist(), kept.images.tolist()) == ([1, 1], [0, 1], [0, 1])
    assert kept.boxes.tolist() == [BOXES[0].tolist(), BOXES[2].tolist()]
