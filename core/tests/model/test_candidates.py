"""The best candidates of dense heads: of each level or class, above a threshold, of all images at once; suppression."""

from __future__ import annotations

import pytest
import torch
from attrs import evolve
from torch import Tensor

from det_core.boxes.box_config import DeltaCoderConfig, GridAnchorsConfig
from det_core.contracts import LevelAnchors
from det_core.model.candidates import (
    AnchorCandidates,
    Candidates,
    best_anchors,
    best_pairs,
    best_per_class,
    best_per_class_padded,
)
from det_core.model.dense_detection import DenseOutputs
from det_core.model.detection_config import DetectionSettings, SoftNMSConfig
from det_core.model.postprocess import Pairs, suppress
from det_core.padded import PaddedBatch
from det_core.structures import Batch
from det_core.testing.tiny_inputs import blank_batch

CPU = torch.device("cpu")
CODER = DeltaCoderConfig().build()
GRID = GridAnchorsConfig(scales=(1.0,), ratios=(1.0,))  # on stride s: s x s around (s x, s y)


def batch_of(*sizes: tuple[int, int]) -> Batch:
    """Images of these sizes (h, w)."""
    images = [blank_batch(*size) for size in sizes]
    return Batch(images=torch.zeros(len(sizes), 3, 32, 64), infos=tuple(batch.infos[0] for batch in images))


def padded_of(*sizes: tuple[int, int]) -> PaddedBatch:
    """The same for export."""
    sides = torch.tensor(sizes, dtype=torch.float32)
    return PaddedBatch(
        images=torch.zeros(len(sizes), 3, 32, 64), sizes=sides, original_sizes=sides, scales=torch.ones(len(sizes), 2)
    )


def two_levels(fine: Tensor, coarse: Tensor) -> DenseOutputs:
    """One image: fine (4, C) on stride 16, coarse (2, C) on stride 32, no deltas."""
    anchors = GRID.build((16, 32))([(1, 4), (1, 2)], CPU)
    return DenseOutputs([fine[None], coarse[None]], [torch.zeros(1, 4, 4), torch.zeros(1, 2, 4)], anchors)


OUTPUTS = two_levels(
    torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.4, 0.0]]), torch.tensor([[0.6, 0.15], [0.05, 0.5]])
)
ONE = batch_of((32, 64))


def random_outputs(images: int, own_anchors: bool = False, sizes: tuple[int, ...] = (60, 20, 5)) -> DenseOutputs:
    """Levels of so many anchors, and five classes."""
    rng = torch.Generator().manual_seed(0)
    anchors = [torch.rand(*([images] if own_anchors else []), n, 4, generator=rng).cumsum(-1) * 20 for n in sizes]
    return DenseOutputs(
        [torch.rand(images, n, 5, generator=rng) for n in sizes],
        [torch.randn(images, n, 4, generator=rng) for n in sizes],
        [LevelAnchors(boxes, torch.zeros(n, 2, dtype=torch.int64)) for boxes, n in zip(anchors, sizes, strict=True)],
    )


def test_the_best_pairs_of_each_level() -> None:
    best = best_pairs(OUTPUTS, CODER, ONE, limit=3)
    assert best.scores[0].tolist() == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5, 0.15])
    assert best.labels.tolist() == [[1, 0, 1, 0, 1, 1]]
    assert best.levels.tolist() == [0, 0, 0, 1, 1, 1]
    assert best.valid.all()
    assert best.boxes[0].tolist() == [
        [0, 0, 8, 8], [8, 0, 24, 8], [24, 0, 40, 8], [0, 0, 16, 16], [16, 0, 48, 16], [0, 0, 16, 16]
    ]  # fmt: skip


def test_the_best_anchors_of_each_level_with_all_their_classes() -> None:
    best = best_anchors(OUTPUTS, CODER, ONE, limit=1)
    assert best.scores[0].tolist() == [pytest.approx([0.1, 0.9]), pytest.approx([0.6, 0.15])]
    assert best.boxes[0].tolist() == [[0, 0, 8, 8], [0, 0, 16, 16]]
    assert best.levels.tolist() == [0, 1]
    every = best_anchors(OUTPUTS, CODER, ONE, limit=None, clipped=False)
    assert torch.equal(every.scores, torch.cat(OUTPUTS.scores, 1))
    assert every.boxes[0, 0].tolist() == [-8, -8, 8, 8]  # not clipped


def test_the_best_anchors_of_each_class() -> None:
    """Over all levels: coarse ones are among them where they are good enough."""
    best = best_per_class(OUTPUTS, CODER, ONE, limit=3, above=-1.0)
    assert best.scores.tolist() == pytest.approx([0.8, 0.6, 0.4, 0.9, 0.7, 0.5])
    assert best.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert best.images.tolist() == [0] * 6
    assert best.boxes.tolist() == [
        [8, 0, 24, 8], [0, 0, 16, 16], [40, 0, 56, 8], [0, 0, 8, 8], [24, 0, 40, 8], [16, 0, 48, 16]
    ]  # fmt: skip


def test_scores_above_a_threshold() -> None:
    best = best_pairs(OUTPUTS, CODER, ONE, limit=3)
    above = best.only(best.scores > 0.5).pairs()
    assert above.scores.tolist() == pytest.approx([0.9, 0.8, 0.7, 0.6])  # .5 itself is not above
    anchors = best_anchors(OUTPUTS, CODER, ONE, limit=3)
    pairs = anchors.only(anchors.scores > 0.65).pairs()
    assert sorted(pairs.scores.tolist()) == pytest.approx([0.7, 0.8, 0.9])
    classes = best_per_class(OUTPUTS, CODER, ONE, limit=1, above=0.85)
    assert classes.scores.tolist() == pytest.approx([0.9])
    assert classes.labels.tolist() == [1]


@pytest.mark.parametrize("limit", [1, 7, 1000])
@pytest.mark.parametrize("above", [-0.5, 0.4])
def test_sorting_what_is_above_a_threshold_finds_what_padded_rows_find(limit: int, above: float) -> None:
    """Classes and images without any score above it are among them."""
    outputs = random_outputs(3)
    for scores in outputs.scores:
        scores[0, :, 3] = scores[2] = -1.0
    found = best_per_class(outputs, CODER, batch_of(*[(32, 64)] * 3), limit=limit, above=above)
    padded = best_per_class_padded(outputs, CODER, padded_of(*[(32, 64)] * 3), limit=limit, above=above).pairs()
    for name in ("boxes", "scores", "labels", "images"):
        assert torch.equal(getattr(found, name), getattr(padded, name)), name
    if above < 0:
        counts = (found.images * 5 + found.labels).bincount(minlength=15)
        assert counts.tolist() == [min(limit, 85)] * 3 + [0] + [min(limit, 85)] * 6 + [0] * 5


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("own_anchors", [True, False])
@pytest.mark.parametrize("limit", [7, 1000])
def test_the_candidates_of_a_batch_are_those_of_each_image(images: int, own_anchors: bool, limit: int) -> None:
    outputs = random_outputs(images, own_anchors)
    sizes = [(32, 64 - 10 * row) for row in range(images)]
    pairs = best_pairs(outputs, CODER, batch_of(*sizes), limit=limit)
    anchors = best_anchors(outputs, CODER, batch_of(*sizes), limit=limit)
    padded = best_pairs(outputs, CODER, padded_of(*sizes), limit=limit)
    padded_anchors = best_anchors(outputs, CODER, padded_of(*sizes), limit=limit)
    for row in range(images):
        own = DenseOutputs(
            [x[row : row + 1] for x in outputs.scores],
            [x[row : row + 1] for x in outputs.deltas],
            [LevelAnchors(x.boxes[row], x.cells) if own_anchors else x for x in outputs.anchors],
        )
        alone = best_pairs(own, CODER, batch_of(sizes[row]), limit=limit)
        whole = best_anchors(own, CODER, batch_of(sizes[row]), limit=limit)
        for batch, one in ((pairs, alone), (anchors, whole)):
            assert torch.equal(batch.boxes[row], one.boxes[0])  # type: ignore[attr-defined]
            assert torch.equal(batch.scores[row], one.scores[0])  # type: ignore[attr-defined]
            assert torch.equal(batch.levels, one.levels)  # type: ignore[attr-defined]
        assert torch.equal(pairs.labels[row], alone.labels[0])
        assert torch.equal(padded.boxes[row][padded.valid[row]], alone.boxes[0])
        real = padded_anchors.valid[row].any(1)
        assert torch.equal(padded_anchors.scores[row][real], whole.scores[0])
    assert padded.boxes.shape[1] == padded_anchors.boxes.shape[1] == 3 * limit
    brute = torch.cat([scores.flatten(1).topk(min(limit, scores[0].numel())).values for scores in outputs.scores], 1)
    assert torch.equal(pairs.scores, brute)


def test_a_level_without_anchors() -> None:
    outputs = random_outputs(2, sizes=(0, 60, 0, 20))
    batch = batch_of((32, 64), (32, 64))
    assert best_pairs(outputs, CODER, batch, limit=7).levels.tolist() == [1] * 7 + [3] * 7
    assert best_anchors(outputs, CODER, batch, limit=7).levels.tolist() == [1] * 7 + [3] * 7
    assert len(best_per_class(outputs, CODER, batch, limit=7, above=-1.0).scores) == 2 * 5 * 7


def test_a_limit_above_all_there_is() -> None:
    assert best_pairs(OUTPUTS, CODER, ONE, limit=100).scores.shape == (1, 12)
    assert len(best_per_class(OUTPUTS, CODER, ONE, limit=100, above=-1.0).scores) == 12


def nothing() -> list[Pairs]:
    best, anchors = best_pairs(OUTPUTS, CODER, ONE, limit=3), best_anchors(OUTPUTS, CODER, ONE, limit=3)
    return [
        best.only(best.scores > 1.0).pairs(),
        anchors.only(anchors.scores > 1.0).pairs(),
        best_per_class(OUTPUTS, CODER, ONE, limit=3, above=1.0),
    ]


@pytest.mark.parametrize("pairs", nothing(), ids=["pairs", "anchors", "classes"])
def test_no_candidate(pairs: Pairs) -> None:
    assert [tuple(x.shape) for x in (pairs.boxes, pairs.scores, pairs.labels, pairs.images)] == [
        (0, 4),
        (0,),
        (0,),
        (0,),
    ]
    assert pairs.labels.dtype == torch.int64
    assert len(suppress(pairs, ONE.infos, DetectionSettings())[0]) == 0


def test_the_image_asked_for_with_its_deltas_and_size() -> None:
    """The second image is 20 wide; a shift by half a side puts the best anchor at 16 to 32, cut to 20."""
    scores = torch.tensor([[[0.9], [0.1]], [[0.1], [0.9]]])
    deltas = torch.zeros(2, 2, 4)
    deltas[1, 1, 0] = 0.5
    outputs = DenseOutputs([scores], [deltas], GRID.build((16,))([(1, 2)], CPU))
    best = best_pairs(outputs, CODER, batch_of((32, 64), (32, 20)), limit=1)
    assert best.boxes[1].tolist() == [[16, 0, 20, 8]]
    classes = best_per_class(outputs, CODER, batch_of((32, 64), (32, 20)), limit=1, above=0.0)
    assert classes.boxes[1].tolist() == [16, 0, 20, 8]


def test_half_precisions_are_read_in_full() -> None:
    half = evolve(OUTPUTS, scores=[x.bfloat16() for x in OUTPUTS.scores], deltas=[x.bfloat16() for x in OUTPUTS.deltas])
    assert best_pairs(half, CODER, ONE, limit=3).scores.dtype == torch.float32
    assert best_anchors(half, CODER, ONE, limit=3).scores.dtype == torch.float32
    assert best_per_class(half, CODER, ONE, limit=3, above=0.0).scores.dtype == torch.float32


def test_sides_of_candidates() -> None:
    for best in (best_pairs(OUTPUTS, CODER, ONE, limit=1), best_anchors(OUTPUTS, CODER, ONE, limit=1)):
        assert isinstance(best, (Candidates, AnchorCandidates))
        assert best.larger_than(8.0).flatten().tolist() == [False, True]  # 8 and 16 wide and high
        assert best.larger_than(16.0).flatten().tolist() == [False, False]


# suppression


THREE = Pairs(
    boxes=torch.tensor([[0.0, 0, 20, 20], [2, 0, 22, 20], [1, 0, 21, 20]]),
    scores=torch.tensor([0.6, 0.9, 0.8]),
    labels=torch.tensor([0, 0, 1]),
    images=torch.zeros(3, dtype=torch.int64),
)


@pytest.mark.parametrize(
    ("settings", "labels"),
    [
        (DetectionSettings(), [0, 1]),
        (DetectionSettings(nms_threshold=0.9), [0, 1, 0]),
        (DetectionSettings(class_agnostic_nms=True), [0]),
        (DetectionSettings(max_detections=1), [0]),
        (DetectionSettings(soft_nms=SoftNMSConfig()), [0, 1, 0]),
    ],
    ids=["in each class", "threshold", "over classes", "count", "soft"],
)
def test_suppression(settings: DetectionSettings, labels: list[int]) -> None:
    (found,) = suppress(THREE, blank_batch(40, 40).infos, settings)
    assert found.labels.tolist() == labels
    assert found.scores[0].item() == pytest.approx(0.9)
    assert found.boxes[0].tolist() == [2, 0, 22, 20]
    assert (found.scores.diff() <= 0).all()


@pytest.mark.parametrize("frame", ["original", "network"])
def test_detections_are_in_original_pixels(frame: str) -> None:
    (found,) = suppress(THREE, blank_batch(40, 40, scale=(2.0, 0.5)).infos, DetectionSettings(nms_in=frame))  # type: ignore[arg-type]
    assert found.boxes.tolist() == [[4, 0, 44, 10], [2, 0, 42, 10]]
