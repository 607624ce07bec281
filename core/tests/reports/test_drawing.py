"""Pictures of detections and annotations."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from det_core.reports.drawing import color, draw, draw_targets, line_width, save_png, shown, side_by_side
from det_core.structures import Classes, Detections, Targets

GRAY = torch.full((3, 500, 600), 90, dtype=torch.uint8)
CLASSES = Classes(names=("cat", "dog"), ids=(1, 2))


def detections(*rows: tuple[list[float], float, int], masks: torch.Tensor | None = None) -> Detections:
    return Detections(
        boxes=torch.tensor([r[0] for r in rows]).reshape(-1, 4).float(),
        scores=torch.tensor([r[1] for r in rows]),
        masks=masks,
        labels=torch.tensor([r[2] for r in rows], dtype=torch.int64),
    )


def test_boxes_have_their_classs_colour() -> None:
    picture = draw(GRAY, detections(([100, 100, 300, 300], 0.9, 0), ([350, 200, 500, 400], 0.8, 1)), CLASSES)
    assert picture.shape == GRAY.shape
    assert picture.dtype == torch.uint8
    assert tuple(picture[:, 200, 100].tolist()) == color(0)
    assert tuple(picture[:, 300, 350].tolist()) == color(1)
    assert picture[:, 450, 50].tolist() == [90, 90, 90]
    assert picture[:, 200, 200].tolist() == [90, 90, 90]


def test_the_image_is_left_as_it_is() -> None:
    image = GRAY.clone()
    draw(image, detections(([100, 100, 300, 300], 0.9, 0)))
    assert torch.equal(image, GRAY)


def test_a_label_stands_above_its_box() -> None:
    picture = draw(GRAY, detections(([100, 100, 300, 300], 0.9, 0)), CLASSES)
    assert tuple(picture[:, 97, 101].tolist()) == color(0)
    at_the_top = draw(GRAY, detections(([100, 0, 300, 300], 0.9, 0)), CLASSES)
    assert tuple(at_the_top[:, 4, 101].tolist()) == color(0)


def test_threshold_and_number() -> None:
    low = detections(([100, 100, 300, 300], 0.4, 0))
    assert torch.equal(draw(GRAY, low), GRAY)
    assert not torch.equal(draw(GRAY, low, threshold=0.4), GRAY)
    two = detections(([10, 100, 40, 300], 0.6, 0), ([350, 200, 500, 400], 0.8, 1))
    best = draw(GRAY, two, max_boxes=1)
    assert torch.equal(best, draw(GRAY, two[1:]))


def test_no_detections() -> None:
    assert torch.equal(draw(GRAY, detections()), GRAY)
    empty = Targets(boxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64))
    assert torch.equal(draw_targets(GRAY, empty), GRAY)


def test_each_instances_mask_has_a_colour_of_its_own() -> None:
    masks = torch.zeros(2, 500, 600, dtype=torch.bool)
    masks[0, 150:200, 150:200] = True
    masks[1, 250:300, 400:450] = True
    rows = ([100, 100, 300, 300], 0.9, 0), ([350, 200, 500, 400], 0.8, 0)
    picture = draw(GRAY, detections(*rows, masks=masks))
    tints = [picture[:, 175, 175].tolist(), picture[:, 275, 425].tolist()]
    assert tints[0] != tints[1]
    assert [90, 90, 90] not in tints
    for tint, index in zip(tints, (0, 1), strict=True):
        assert all(abs(t - (0.55 * 90 + 0.45 * c)) <= 1.5 for t, c in zip(tint, color(index), strict=True))


def test_small_images_are_enlarged_unless_told_otherwise() -> None:
    small = GRAY[:, :100, :200]
    rows = ([10, 10, 80, 60], 0.9, 0)
    assert draw(small, detections(rows)).shape == (3, 300, 600)
    assert draw(small, detections()).shape == (3, 300, 600)
    assert draw(small, detections(rows), zoom=1).shape == (3, 100, 200)
    masks = torch.zeros(1, 100, 200, dtype=torch.bool)
    masks[:, 20:50, 20:60] = True
    picture = draw(small, detections(rows, masks=masks), zoom=2)
    assert picture[:, 60, 80].tolist() != [90, 90, 90]


@pytest.mark.parametrize("box", [[-50, -50, 900, 900], [100, 100, 100, 100], [599, 499, 600, 500], [200.4, 3, 100, 1]])
def test_boxes_at_and_beyond_the_edge(box: list[float]) -> None:
    assert draw(GRAY, detections((box, 0.9, 0))).shape == GRAY.shape


def test_unknown_labels_get_a_number() -> None:
    assert not torch.equal(draw(GRAY, detections(([9, 99, 99, 199], 0.9, 7)), CLASSES), GRAY)


def test_targets_and_ignored_ones() -> None:
    masks = torch.zeros(1, 500, 600, dtype=torch.uint8)
    masks[0, 150:200, 150:200] = 1
    boxes, labels = torch.tensor([[100.0, 100, 300, 300]]), torch.tensor([1])
    plain = draw_targets(GRAY, Targets(boxes=boxes, labels=labels, masks=masks), CLASSES)
    crowd = Targets(boxes=boxes, labels=labels, masks=masks, ignored=torch.tensor([True]))
    ignored = draw_targets(GRAY, crowd, CLASSES)
    assert tuple(plain[:, 290, 100].tolist()) == color(1)
    assert not torch.equal(plain, ignored)


def test_colours_are_distinct_and_stable() -> None:
    assert len({color(i) for i in range(80)}) == 80
    assert color(3) == color(3)
    assert all(sum(abs(a - b) for a, b in zip(color(i), color(i + 1), strict=True)) > 100 for i in range(20))


def test_lines_grow_with_the_image() -> None:
    assert [line_width(torch.zeros(3, s, s)) for s in (100, 800, 2000)] == [1, 2, 5]


@pytest.mark.parametrize("image", [torch.zeros(3, 10, 10), torch.zeros(1, 10, 10, dtype=torch.uint8)])
def test_wrong_images(image: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"expected an image \(3, H, W\) uint8, found"):
        draw(image, detections())


def test_png(tmp_path: Path) -> None:
    picture = draw(GRAY, detections(([100, 100, 300, 300], 0.9, 0)))
    save_png(picture, tmp_path / "new" / "x.png")
    assert Image.open(tmp_path / "new" / "x.png").size == (600, 500)


def test_pictures_side_by_side_have_titles() -> None:
    left, right = torch.full((3, 60, 100), 10, dtype=torch.uint8), torch.full((3, 60, 80), 200, dtype=torch.uint8)
    made = side_by_side({"truth": left, "detections": right})
    assert made.dtype == torch.uint8
    band = made.shape[1] - 60
    assert 10 < band < 40
    assert torch.equal(made[:, band:, :100], left)
    assert torch.equal(made[:, band:, -80:], right)
    assert bool((made[:, band:, 100:-80] == 255).all())
    for title in (made[:, :band, :100], made[:, :band, -80:]):
        assert title.float().std() > 10, "nothing is written"


def test_images_of_other_pixels_are_shown_as_rgb() -> None:
    gray = torch.tensor([[[5, 200]]], dtype=torch.uint8)
    assert shown(gray).tolist() == [[[5, 200]]] * 3
    assert shown(torch.cat([gray, gray + 1])).tolist() == [[[5, 200]]] * 3
    four = torch.arange(4, dtype=torch.uint8)[:, None, None]
    assert shown(four).flatten().tolist() == [0, 1, 2]
    assert shown(torch.tensor([[[0.0, 15_000.0, 30_000.0]]])).tolist() == [[[0, 128, 255]]] * 3
    assert shown(torch.zeros(1, 1, 2)).tolist() == [[[0, 0]]] * 3
    assert torch.equal(shown(GRAY), GRAY)
