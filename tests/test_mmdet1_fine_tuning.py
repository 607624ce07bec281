"""A checkpoint of mmdet 1.x trains on in its own conventions, and what it learns is read back in them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from attrs import evolve

from det_core import load_detector, load_recipe, train
from det_core.cli.main import run
from det_core.conventions import differences, under
from det_core.model.detector_config import DetectorConfig
from det_core.recipe import Recipe

SMALL = (
    "data.workers=0",
    "data.train_transforms=[{type: resize, scales: [[128, 128]], boxes: pixels}, {type: flip}]",
    "data.test_transforms=[{type: resize, scales: [[128, 128]], boxes: pixels}]",
    "schedule.epochs=1",
    "schedule.milestones=[]",
)


def recipe() -> Recipe:
    """The demo of Mask R-CNN in the conventions of mmdet 1.x."""
    return under(load_recipe("mask-rcnn/r18-fpn-demo", SMALL[:1] + SMALL[3:]), "mmdet1")


def test_a_mask_rcnn_trains_on_from_a_file_of_1x(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = recipe().detector
    torch.manual_seed(0)
    theirs = config.build(num_classes=3)
    state = {}
    from det_core.weights.translate_names import detector_names, locate

    parts = detector_names("mmdet", config, [])
    for key, value in theirs.state_dict().items():
        name = locate("mmdet", parts, key).name.removeprefix("roi_head.")
        if ".fc_cls." in name:
            value = value.roll(1, 0)
        elif ".fc_reg." in name:
            value = torch.cat([torch.zeros_like(value[:4]), value])
        elif ".conv_logits." in name and name.startswith("mask_head."):
            value = torch.cat([torch.zeros_like(value[:1]), value])
        state[name] = value
    old, new = tmp_path / "mask_rcnn_20190101.pth", tmp_path / "mask_rcnn.safetensors"
    torch.save({"state_dict": state, "meta": {"mmdet_version": "1.0rc0"}}, old, _use_new_zipfile_serialization=False)
    yaml = tmp_path / "own.yaml"
    yaml.write_text(recipe().to_yaml())
    assert run(["import-weights", str(old), "--from", "mmdet", "--recipe", str(yaml), "-o", str(new)]) == 0
    out = tmp_path / "run"
    settings = evolve(recipe(), data=recipe().data)
    train(settings, init=new, work_dir=out, device="cpu", max_steps=2, quiet=True)
    capsys.readouterr()
    trained = load_detector(out)
    assert isinstance(trained.config, DetectorConfig)
    assert differences(trained.config, "mmdet1") == []
    assert [t.boxes for t in trained.test_transforms] == ["pixels"]  # type: ignore[attr-defined]
    assert run(["test", "--checkpoint", str(out), "--device", "cpu"]) == 0
    assert "mask" in capsys.readouterr().out
