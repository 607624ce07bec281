"""Classes that keep their names keep their weights when a detector is fine-tuned on others."""

from __future__ import annotations

import pytest
import torch

from det_core import load_recipe, save_detector
from det_core.engine.checkpoint import initialise
from det_core.engine.shared_classes import SharedClasses, _rows_by_class, _rows_of_dense_head
from det_core.structures import Classes

BEFORE = Classes(names=("cat", "dog", "bird"), ids=(1, 2, 3))
NOW = Classes(names=("fish", "bird", "cat", "cow"), ids=(1, 2, 3, 4))
SHARED = SharedClasses(((2, 1), (0, 2)), 3, 4)


def test_classes_are_compared_by_name_except_made_up_ones():
    assert SharedClasses.of(BEFORE, NOW) == SHARED
    assert SharedClasses.of(Classes.numbered(2), Classes.numbered(3)).pairs == ()


def pairs(rows):
    assert rows is not None
    return list(zip(*(r.tolist() for r in rows), strict=True))


def test_rows_by_hand():
    assert pairs(_rows_by_class(3, 4, SHARED)) == [(2, 1), (0, 2)]
    assert pairs(_rows_by_class(4, 5, SHARED)) == [(2, 1), (0, 2), (3, 4)]  # background
    deltas = [(8 + i, 4 + i) for i in range(4)] + [(i, 8 + i) for i in range(4)]
    assert pairs(_rows_by_class(12, 16, SHARED)) == deltas
    assert _rows_by_class(13, 17, SHARED) is None
    assert pairs(_rows_of_dense_head(6, 8, SHARED)) == [(2, 1), (0, 2), (5, 5), (3, 6)]  # two anchors
    assert pairs(_rows_of_dense_head(8, 10, SHARED)) == [(2, 1), (0, 2), (3, 4), (6, 6), (4, 7), (7, 9)]
    assert _rows_of_dense_head(7, 10, SHARED) is None
    one = SharedClasses(((0, 0),), 1, 1)
    assert pairs(_rows_by_class(2, 2, one)) == [(0, 0), (1, 1)]


@pytest.mark.parametrize(
    "name", ["mask-rcnn/r18-fpn-demo", "cascade-rcnn/r18-fpn-demo", "retinanet/r18-fpn-demo", "ssd/vgg16-demo"]
)
def test_scores_of_shared_classes_are_those_of_the_checkpoint(name, tmp_path):
    """Two detectors of other classes give a shared class the same scores, wherever it stands in the list."""
    recipe = load_recipe(name)
    torch.manual_seed(0)
    old = recipe.detector.build(classes=BEFORE)
    for parameter in old.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    file = save_detector(old, tmp_path / "old.safetensors", recipe)
    torch.manual_seed(1)
    new = recipe.detector.build(classes=NOW)
    initial = {k: v.clone() for k, v in new.state_dict().items()}
    report = initialise(new, file)
    assert report.kept == ("bird", "cat")
    before, after = old.state_dict(), new.state_dict()
    for key in report.fresh:
        rows = (_rows_of_dense_head if key.startswith("dense_head") else _rows_by_class)(
            len(before[key]), len(after[key]), SHARED
        )
        assert rows is not None, key
        assert torch.equal(after[key][rows[1]], before[key][rows[0]]), key
        others = torch.ones(len(after[key]), dtype=torch.bool)
        others[rows[1]] = False
        assert torch.equal(after[key][others], initial[key][others]), key
        assert bool(others.any())


def test_without_a_shared_class_nothing_is_kept(tmp_path):
    recipe = load_recipe("faster-rcnn/r18-fpn-demo")
    file = save_detector(recipe.detector.build(classes=BEFORE), tmp_path / "old.safetensors", recipe)
    new = recipe.detector.build(classes=Classes(names=("x", "y"), ids=(1, 2)))
    assert initialise(new, file).kept == ()
