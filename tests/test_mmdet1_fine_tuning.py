"""A checkpoint of mmdet 1.x trains on in its own conventions, and what it learns is read back in them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parent))

from mmdet1_files import written_in_1x

from det_core import load_detector, load_recipe, train
from det_core.cli.main import run
from det_core.conventions import differences, under
from det_core.model.detector_config import DetectorConfig


def test_a_mask_rcnn_trains_on_from_a_file_of_1x(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = ("data.workers=0", "schedule.epochs=1", "schedule.learning_rate.milestones=[]")
    recipe = under(load_recipe("mask-rcnn/r18-fpn-demo", short), "mmdet1")
    torch.manual_seed(0)
    state = written_in_1x(recipe.detector.build(num_classes=3))
    old, new = tmp_path / "mask_rcnn_20190101.pth", tmp_path / "mask_rcnn.safetensors"
    torch.save({"state_dict": state, "meta": {"mmdet_version": "1.0rc0"}}, old, _use_new_zipfile_serialization=False)
    yaml = tmp_path / "own.yaml"
    yaml.write_text(recipe.to_yaml())
    assert run(["import-weights", str(old), "--from", "mmdet", "--recipe", str(yaml), "-o", str(new)]) == 0
    out = tmp_path / "run"
    train(recipe, init=new, work_dir=out, device="cpu", max_steps=2, quiet=True)
    capsys.readouterr()
    trained = load_detector(out)
    assert isinstance(trained.config, DetectorConfig)
    assert differences(trained.config, "mmdet1") == []
    assert [t.boxes for t in trained.test_transforms] == ["pixels"]  # type: ignore[attr-defined]
    assert run(["test", "--checkpoint", str(out), "--device", "cpu"]) == 0
    assert "mask" in capsys.readouterr().out
