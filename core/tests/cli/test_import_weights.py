"""`det-core import-weights`: what it asks for. What it does with files is in tests/test_checkpoint_files.py."""

from __future__ import annotations

from typing import get_args

import pytest

from det_core.cli.main import run
from det_core.load import load_recipe
from det_core.specs import Source
from det_core.structures import Classes
from det_core.weights.import_plan import ImportPlan


def test_every_source_is_offered(capsys):
    assert run(["import-weights", "--help"]) == 0
    assert f"[{'|'.join(get_args(Source))}]" in capsys.readouterr().out


@pytest.mark.parametrize("missing", ["--from", "--out"])
def test_what_is_required(missing, capsys):
    given = {"--from": "mmdet", "--recipe": "x", "--out": "y.safetensors"}
    del given[missing]
    assert run(["import-weights", "file.pth", *(part for pair in given.items() for part in pair)]) == 2
    assert f"Missing option '{missing}'" in capsys.readouterr().err.replace("'-o' / ", "")


def test_a_source_that_is_not_known(capsys):
    assert run(["import-weights", "file.pth", "--from", "yolo", "--recipe", "x", "-o", "y.safetensors"]) == 2
    assert "'yolo' is not one of 'mmdet', 'mmdet1', 'mmdet2', 'torchvision', 'detectron2'" in capsys.readouterr().err


def test_torchvisions_own_classes_have_names():
    from det_core.cli.import_weights import _classes
    from det_core.weights.read_files import SourceFile

    file = SourceFile(path=None, state={})  # type: ignore[arg-type]
    recipe = load_recipe("rpn/r18-fpn-demo")
    theirs, ours = (ImportPlan(source=source, recipe=recipe) for source in ("torchvision", "mmdet"))
    coco = _classes(file, theirs, 90)
    assert coco.names[0] == "person"
    assert coco.ids == tuple(range(1, 91))
    assert coco.names[11] == "unused 12"
    assert len(set(coco.names)) == 90
    assert _classes(file, theirs, 3) == Classes.numbered(3)
    assert _classes(file, ours, 90) == Classes.numbered(90)
    assert _classes(file, ours, None) == Classes.numbered(1)
