"""`Detector.predict_padded` finds what `predict` does, for every family and every setting that selects detections."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from attrs import evolve

sys.path.insert(0, str(Path(__file__).parent))

from padded_families import FAMILIES, built

from det_core import DetError, load_recipe
from det_core.boxes.spread_boxes import spread_boxes
from det_core.model.detection_config import SoftNMSConfig
from det_core.model.detector import Detector
from det_core.padded import NotExportableError, PaddedBatch, PaddedDetections, PaddedProposals
from det_core.structures import Batch, ImageInfo


def given(height: int = 160, width: int = 224, inclusive: bool = False) -> tuple[Batch, PaddedBatch]:
    """Two images of different sizes and scales, with 40 and 25 proposals, as both kinds of batch."""
    sizes, originals = [(height, width), (height - 30, width - 50)], [(320, 640), (height - 30, width - 50)]
    scales = [(height / 320, width / 640), (1.0, 1.0)]
    images = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    images[1, :, sizes[1][0] :] = 0
    images[1, :, :, sizes[1][1] :] = 0
    infos = tuple(
        ImageInfo(size=s, original_size=o, scale=f, inclusive=inclusive)
        for s, o, f in zip(sizes, originals, scales, strict=True)
    )
    proposals = (spread_boxes(40, sizes[0]), spread_boxes(25, sizes[1]))
    batch = Batch(images=images, infos=infos, proposals=proposals)
    padded = PaddedBatch(
        images=images,
        sizes=torch.tensor(sizes).float(),
        original_sizes=torch.tensor(originals).float(),
        scales=torch.tensor(scales),
        inclusive=inclusive,
        proposals=PaddedProposals(
            boxes=torch.nn.utils.rnn.pad_sequence(list(proposals), batch_first=True),
            valid=torch.arange(40) < torch.tensor([[40], [25]]),
        ),
    )
    return batch, padded


def assert_the_same(detector: Detector, batch: Batch, padded: PaddedBatch) -> int:
    """Compare all detections of both forms; the number of detections."""
    expected, found = detector.predict(batch), detector.predict_padded(padded)
    assert found.counts.tolist() == [len(d) for d in expected]
    for row, one in enumerate(expected):
        count = len(one)
        torch.testing.assert_close(found.scores[row, :count], one.scores, rtol=0, atol=1e-5)
        torch.testing.assert_close(found.boxes[row, :count], one.boxes, rtol=0, atol=1e-3)
        assert torch.equal(found.labels[row, :count], one.labels)
        assert_padding(found, row, count)
        if one.region_masks is not None:
            assert found.masks is not None
            assert found.paste is not None
            torch.testing.assert_close(found.masks[row, :count], one.region_masks.probabilities, rtol=0, atol=1e-4)
            assert (found.paste.rule, found.paste.threshold) == (one.region_masks.rule, one.region_masks.threshold)
            past = float(found.paste.last_pixel)
            torch.testing.assert_close(one.boxes[:, 2:] - past, one.region_masks.boxes[:, 2:], rtol=0, atol=1e-4)
    return sum(map(len, expected))


def assert_padding(found: PaddedDetections, row: int, count: int) -> None:
    assert not found.boxes[row, count:].any()
    assert not found.scores[row, count:].any()
    assert (found.labels[row, count:] == -1).all()


@pytest.mark.parametrize("inclusive", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_padded_form_finds_the_same(family, inclusive):
    detector = built(*FAMILIES[family])
    assert assert_the_same(detector, *given(inclusive=inclusive)) > 10


ONE_STAGE = ["retinanet", "retinanet, all", "ga-retinanet", "ga-retinanet, all", "ssd", "ssd, all", "ssdlite"]
TWO_STAGES = ["faster", "fast", "mask", "cascade", "htc", "ga-faster"]


@pytest.mark.parametrize("family", [*ONE_STAGE, *TWO_STAGES])
def test_without_detections_everything_is_padding(family):
    name, settings = FAMILIES[family]
    place = "dense_head" if family in ONE_STAGE else "roi_head"
    detector = built(name, (*settings, f"detector.{place}.score_threshold=1.0"))
    assert assert_the_same(detector, *given()) == 0


@pytest.mark.parametrize("family", ["ga-rpn", "ga-faster", "ga-retinanet", "ga-retinanet, all"])
def test_without_guided_anchors_everything_is_padding(family):
    name, settings = FAMILIES[family]
    detector = built(name, (*settings, "detector.dense_head.guided.location_threshold=1.0"))
    assert assert_the_same(detector, *given()) == 0


def test_some_cells_have_a_guided_anchor():
    """Of each level and image, so that what was found above depends on them."""
    detector, batch = built(*FAMILIES["ga-rpn"]), given()[0]
    for kept in detector.dense_head(detector.features(batch)).kept:
        assert (kept.any(1) & ~kept.all(1)).all()


def test_fewer_candidates_than_the_limits():
    """On a small image the levels have fewer anchors than `before_nms`, and NMS leaves fewer than `after_nms`."""
    name, settings = FAMILIES["faster"]
    limits = "detector.dense_head.test_limits={before_nms: 5000, after_nms: 3000}"
    detector = built(name, (*settings, limits, "detector.roi_head.max_detections=500"))
    assert assert_the_same(detector, *given(96, 128)) > 10


def test_soft_nms_has_no_padded_form():
    name, settings = FAMILIES["retinanet"]
    recipe = load_recipe(name, list(settings))
    dense_head = evolve(recipe.detector.dense_head, soft_nms=SoftNMSConfig())
    detector = evolve(recipe.detector, dense_head=dense_head).build(num_classes=3).eval()
    message = "^soft_nms: soft-NMS has no form of fixed size that ONNX can express, .*; set soft_nms: null, which gives"
    with pytest.raises(NotExportableError, match=message):
        detector.predict_padded(given()[1])


def test_fast_rcnn_has_no_proposals_of_its_own():
    detector, (_, padded) = built(*FAMILIES["fast"]), given()
    assert detector.takes_proposals
    with pytest.raises(
        DetError, match="^this detector has a roi_head but no dense_head that proposes boxes, and the b"
    ):
        detector.predict_padded(evolve(padded, proposals=None))


def test_images_without_proposals():
    """One of the images has none; its detections are none."""
    detector, (batch, padded) = built(*FAMILIES["fast"]), given()
    batch = evolve(batch, proposals=(batch.proposals[0][:0], batch.proposals[1]))
    given_valid = padded.proposals.valid & torch.tensor([[False], [True]])
    padded = evolve(padded, proposals=evolve(padded.proposals, valid=given_valid))
    assert assert_the_same(detector, batch, padded) > 10
    assert detector.predict_padded(padded).counts[0] == 0


def test_a_head_without_a_padded_form_is_named():
    name, settings = FAMILIES["faster"]
    detector = built(name, settings)

    class Mine(type(detector.roi_head)):  # type: ignore[misc]
        predict_padded = type(detector.roi_head).__mro__[1].predict_padded  # that of the contract

    detector.roi_head.__class__ = Mine
    message = r"^Mine cannot be exported: it has no results of fixed size; define its method predict_padded\("
    with pytest.raises(NotExportableError, match=message):
        detector.predict_padded(given()[1])
