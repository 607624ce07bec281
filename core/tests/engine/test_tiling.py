"""Tiles: where they are, that seams neither lose nor repeat objects, and what they are for."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, strategies as st
from torch import nn

import det_ops
from det_core import Detections, Detector, DetError, Predictor, Tiling, predict
from det_core.compressed_masks import RegionMasks
from det_core.contracts import Backbone, DenseHead
from det_core.data.data_config import FlipConfig, ResizeConfig
from det_core.engine.test_time_augmentation import Augmentation
from det_core.engine.tiling import merge_tiles
from det_core.model.detector import Preprocess
from det_core.model.detector_config import PreprocessConfig
from det_core.model.postprocess import to_original
from det_core.specs import FeatureSpec
from det_core.structures import Classes

BRIGHT = 200.0


@given(st.integers(1, 400), st.integers(1, 400), st.integers(16, 128), st.floats(0, 0.9))
def test_tiles_cover_the_image(height, width, size, overlap):
    tiling = Tiling(size=size, overlap=overlap)
    tiles = tiling.tiles((height, width))
    seen = torch.zeros(height, width, dtype=torch.bool)
    for x1, y1, x2, y2 in tiles:
        assert 0 <= x1 < x2 <= width
        assert 0 <= y1 < y2 <= height
        assert (x2 - x1, y2 - y1) == (min(size, width), min(size, height))
        seen[y1:y2, x1:x2] = True
    assert bool(seen.all())
    assert len(set(tiles)) == len(tiles)
    assert (len(tiles) == 1) == tiling.fits((height, width))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 15}, "tile: found 15, expected a whole number of pixels of at least 16"),
        ({"size": 64.5}, "tile: found 64.5, expected a whole number"),
        ({"size": 64, "overlap": 1}, "overlap: found 1, expected a number from 0 to 0.9"),
        ({"size": 64, "merge": "max"}, "merge: found 'max', allowed: nms, union"),
        (
            {"size": 64, "overlap": 0.1, "merge": "union"},
            "they overlap by 6.4 pixels; set an overlap of at least 8 pix",
        ),
    ],
)
def test_tilings_that_are_none(options, message):
    with pytest.raises(DetError, match=message):
        Tiling(**options)


def test_tiles_are_seen_at_full_resolution():
    resize, fixed = ResizeConfig(scales=((1333, 800),)), ResizeConfig(scales=((300, 300),), keep_ratio=False)
    (tile,) = Tiling(size=512).transforms([resize])
    assert tile.scales == ((512, 512),)
    assert Tiling(size=512).transforms([fixed, FlipConfig()]) == (fixed, FlipConfig())


def of(*rows: tuple[float, ...]) -> Detections:
    """Detections of class 0 from x1, y1, x2, y2, score."""
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 5)
    labels = torch.zeros(len(table), dtype=torch.int64)
    return Detections(boxes=table[:, :4], scores=table[:, 4], labels=labels)


TILES = [(0, 0, 100, 80), (60, 0, 160, 80)]  # two tiles that share x from 60 to 100


def merged(left: Detections, right: Detections, merge: str = "nms") -> list[list[float]]:
    tiling = Tiling(size=100, overlap=0.4, merge=merge)
    found = merge_tiles([left, right], TILES, (80, 160), tiling, nms_threshold=0.5)
    return [[round(v, 3) for v in (*box, score)] for box, score in zip(found.boxes.tolist(), found.scores.tolist())]


def test_an_object_that_both_tiles_show_is_found_once():
    assert merged(of((70, 10, 90, 30, 0.8)), of((10, 10, 30, 30, 0.9))) == [[70, 10, 90, 30, 0.9]]
    assert merged(of(), of((10, 10, 30, 30, 0.9))) == [[70, 10, 90, 30, 0.9]]
    assert merged(of(), of()) == []


def test_the_whole_object_is_kept_though_its_part_is_surer():
    whole, part = (20, 10, 60, 30, 0.6), (80, 10, 100, 30, 0.95)  # in the right and left tile: x 80 to 120 of the image
    assert merged(of(part), of(whole)) == [[80, 10, 120, 30, 0.6]]
    assert merged(of(part), of(whole), "union") == [[80, 10, 120, 30, 0.6]]


def test_other_objects_at_a_seam_are_kept():
    assert merged(of((96, 10, 100, 30, 0.7)), of((50, 10, 90, 30, 0.9))) == [
        [110, 10, 150, 30, 0.9],
        [96, 10, 100, 30, 0.7],
    ]


def test_parts_are_joined_into_a_union():
    left, right = of((30, 10, 100, 30, 0.7)), of((0, 11, 80, 31, 0.8))  # no tile shows x 30 to 140
    assert merged(left, right, "union") == [[30, 10, 140, 31, 0.8]]
    assert len(merged(left, right, "nms")) == 2
    above = of((0, 40, 80, 60, 0.8))
    assert len(merged(left, above, "union")) == 2


def test_masks_are_united():
    def with_masks(found: Detections) -> Detections:
        regions = RegionMasks(probabilities=torch.ones(len(found), 8, 8), boxes=found.boxes, size=(80, 100))
        return Detections(boxes=found.boxes, scores=found.scores, labels=found.labels, masks=regions)

    left, right = with_masks(of((30, 10, 100, 30, 0.7))), with_masks(of((0, 10, 80, 30, 0.8), (85, 50, 95, 60, 0.5)))
    expected = torch.zeros(2, 80, 160, dtype=torch.bool)
    expected[0, :, :100] = left.masks[0]
    expected[0, :, 60:] |= right.masks[0]
    expected[1, :, 60:] = right.masks[1]
    tiling = Tiling(size=100, overlap=0.4, merge="union")
    found = merge_tiles([left, right], TILES, (80, 160), tiling, 0.5)
    assert torch.equal(found.masks, expected)
    plain = merge_tiles([with_masks(of()), right], TILES, (80, 160), Tiling(size=100, overlap=0.4), 0.5)
    assert plain.region_masks is not None  # nothing was pasted
    assert plain.masks.shape == (2, 80, 160)
    bitmaps = Detections(boxes=left.boxes, scores=left.scores, labels=left.labels, masks=left.masks)
    mixed = merge_tiles([bitmaps, right], TILES, (80, 160), tiling, 0.5)
    assert torch.equal(mixed.masks, expected)


# A detector without weights: regions of bright cells of 4 x 4 pixels


class Cells(Backbone):
    out = FeatureSpec(channels=(1,), strides=(4,))

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(4)

    def forward(self, images):
        return [self.pool(images[:, :1])]


class BrightRegions(DenseHead):
    def forward(self, features):
        return features[0]

    def losses(self, outputs, targets, batch):
        raise NotImplementedError

    def predict(self, outputs, batch):
        return [self._of_image(cells[0], info) for cells, info in zip(outputs, batch.infos, strict=True)]

    def _of_image(self, cells, info):
        bright = cells > BRIGHT
        names = torch.arange(1, cells.numel() + 1).view_as(cells).float() * bright
        for _ in range(sum(cells.shape)):  # each cell takes the largest number of its region
            spread = nn.functional.max_pool2d(names[None], 3, 1, 1)[0] * bright
            if torch.equal(spread, names):
                break
            names = spread
        boxes, scores = [], []
        for name in names.unique().tolist():
            if name:
                rows, columns = (names == name).nonzero(as_tuple=True)
                area = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
                boxes.append([4.0 * float(v) for v in area])
                scores.append(min(1.0, 0.5 + len(rows) / 100))
        found = to_original(torch.tensor(boxes).reshape(-1, 4), info)
        labels = torch.zeros(len(boxes), dtype=torch.int64)
        return Detections(boxes=found, scores=torch.tensor(scores), labels=labels)


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector(
        preprocess=Preprocess(PreprocessConfig(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))),
        backbone=Cells(),
        dense_head=BrightRegions(),
        classes=Classes.numbered(1),
        test_transforms=(ResizeConfig(scales=((800, 800),)),),
    )


def scene(side: int, count: int, size: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """An image with bright squares, apart from each other, and their boxes."""
    generator = torch.Generator().manual_seed(seed)
    cells = side // (2 * size)
    places = torch.randperm(cells * cells, generator=generator)[:count]
    corners = torch.stack([places % cells, places // cells], 1) * 2 * size
    image = torch.zeros(3, side, side, dtype=torch.uint8)
    for x, y in corners.tolist():
        image[:, y : y + size, x : x + size] = 255
    return image, torch.cat([corners, corners + size], 1).float()


def recall(found: Detections, boxes: torch.Tensor) -> float:
    """The share of boxes that a detection of their own has an IoU of at least 0.5 with."""
    if len(found) == 0:
        return 0.0
    return float((det_ops.box_overlaps(boxes, found.boxes).amax(1) >= 0.5).float().mean())


def test_small_objects_of_a_large_image(detector):
    """4000 x 4000 pixels, resized to 800 x 800: objects of 12 pixels are too small then, but not on tiles."""
    image, boxes = scene(4000, 400, 12)
    plain = recall(predict(detector, image), boxes)
    for merge in ("nms", "union"):
        tiled = Predictor(detector, batch_size=4, tiling=Tiling(size=800, merge=merge))(image)
        assert len(tiled) == 400  # none twice, though tiles overlap
        assert recall(tiled, boxes) >= plain + 0.2
        assert recall(tiled, boxes) == 1.0
    assert plain < 0.1


def test_objects_across_seams_and_larger_than_tiles(detector):
    image = torch.zeros(3, 640, 960, dtype=torch.uint8)
    image[:, 100:140, 40:900] = 255  # larger than any tile
    image[:, 300:360, 180:260] = 255  # at a seam
    expected = torch.tensor([[40.0, 100, 900, 140], [180, 300, 260, 360]])
    joined = Predictor(detector, tiling=Tiling(size=320, overlap=0.25, merge="union"))(image)
    assert sorted(joined.boxes.tolist()) == sorted(expected.tolist())
    parts = Predictor(detector, tiling=Tiling(size=320, overlap=0.25))(image)
    assert recall(parts, expected) == 0.5  # the one at the seam


def test_an_image_that_fits_one_tile_is_detected_as_ever(detector):
    image, boxes = scene(480, 20, 24)
    plain = predict(detector, image)
    for size in (480, 1000):
        tiled = predict(detector, image, tiling=Tiling(size=size))
        assert torch.equal(tiled.boxes, plain.boxes)
        assert torch.equal(tiled.scores, plain.scores)
    assert recall(plain, boxes) == 1.0


def test_views_of_tiles(detector):
    image, boxes = scene(900, 50, 24)
    found = predict(
        detector, image, tiling=Tiling(size=320), augmentation=Augmentation(flip=True, scales=((640, 640),))
    )
    assert len(found) == 50
    assert recall(found, boxes) == 1.0
