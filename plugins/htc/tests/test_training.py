"""From the recipe to detections: the bundled sample, data of one's own with semantic maps, and without."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from det_core import load_recipe, predict, train
from det_core.data.data_root import LayoutError
from det_core.errors import ConfigError, DataError
from det_core.recipe import Recipe

TINY = (
    "data.train_transforms=[{type: resize, scales: [[96, 96]]}, {type: flip}]",
    "data.test_transforms=[{type: resize, scales: [[96, 96]]}]",
    "data.workers=0",
    "data.images_per_rank=2",
    "detector.neck={type: fpn, channels: 16, norm: {type: group_norm, groups: 8}}",
    "detector.dense_head.channels=16",
    "detector.dense_head.train_limits={before_nms: 50, after_nms: 30}",
    "detector.dense_head.test_limits={before_nms: 50, after_nms: 30}",
    "detector.roi_head.box_head.fc_channels=16",
    "detector.roi_head.mask_head={type: conv_mask_head, num_convs: 1, channels: 8}",
)
BRANCH = ("detector.roi_head.semantic={classes: 2, num_convs: 1}",)


def demo(model: str, *more: str) -> Recipe:
    return load_recipe(f"{model}/r18-fpn-demo", [*TINY, *(BRANCH if model == "htc" else ()), *more])


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("model", ["htc", "htc-without-semantic"])
def test_the_demo_trains_on_the_sample_and_finds(model, tmp_path):
    recipe = demo(model, "detector.roi_head.score_threshold=0.0")
    result = train(recipe, work_dir=tmp_path / "run", device="cpu", max_steps=2, log_every=1, quiet=True)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = {k: v for k, v in rows[-1].items() if k.startswith("loss/")}
    assert ("loss/semantic" in losses) == (model == "htc")
    assert {f"loss/stage{i}_{kind}" for i in (1, 2, 3) for kind in ("cls", "box", "mask")} < set(losses)
    assert all(np.isfinite(v) for v in losses.values())
    image = torch.randint(0, 256, (3, 80, 120), dtype=torch.uint8)
    (found,) = predict(result.detector, [image])
    assert len(found) > 0
    assert found.masks.shape == (len(found), 80, 120)


def write_data(root: Path, *, maps: str | None = None) -> Path:
    """A COCO-format folder of four images with a rectangle each, and maps of 0 and 1 with something unlabelled."""
    (root / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for i in range(4):
        pixels = rng.integers(0, 60, (64, 96, 3), dtype=np.uint8)
        pixels[12:42, 10:50] = 230
        Image.fromarray(pixels).save(root / "images" / f"{i}.png")
        images.append({"id": i + 1, "file_name": f"{i}.png", "height": 64, "width": 96})
        ring = [10, 12, 50, 12, 50, 42, 10, 42]
        annotations.append(
            {"id": i + 1, "image_id": i + 1, "category_id": 1, "iscrowd": 0, "bbox": [10, 12, 40, 30], "area": 1200,
             "segmentation": [ring]}
        )  # fmt: skip
        if maps:
            (root / maps).mkdir(parents=True, exist_ok=True)
            ids = np.ones((64, 96), dtype=np.uint8)
            ids[12:42, 10:50] = 0
            ids[:4] = 255
            Image.fromarray(ids).save(root / maps / f"{i}.png")
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "box"}]}
    for split in ("train", "val"):
        (root / f"instances_{split}.json").write_text(json.dumps(content))
    return root


def test_data_of_ones_own_with_maps(tmp_path):
    data = write_data(tmp_path / "data", maps="maps")
    mine = "data.train={type: coco, split: train, semantic_dir: maps, semantic_classes: 2}"
    val = "data.val={type: coco, split: val}"
    recipe = demo("htc", mine, val)
    result = train(recipe, work_dir=tmp_path / "run", data=data, device="cpu", max_steps=2, quiet=True)
    assert result.step == 2


def test_data_of_ones_own_without_maps_is_refused_before_training(tmp_path):
    data = write_data(tmp_path / "data")
    with pytest.raises(DataError) as caught:
        train(demo("htc"), work_dir=tmp_path / "run", data=data, device="cpu", quiet=True)
    assert str(caught.value) == (
        "the detector trains on semantic maps, but `data.train.semantic_dir` is not set; name a folder below the data "
        "root with a single-channel PNG for each image, such as COCO-Stuff's stuffthingmaps/train2017 "
        "(--set data.train.semantic_dir=FOLDER), or use a detector without a semantic branch"
    )
    train(demo("htc-without-semantic"), work_dir=tmp_path / "other", data=data, device="cpu", max_steps=1, quiet=True)


def test_the_published_recipe_asks_for_the_maps_of_coco_stuff(tmp_path):
    data = write_data(tmp_path / "data")
    with pytest.raises(LayoutError, match="stuffthingmaps/train2017"):
        train(load_recipe("htc/r50-fpn-1x"), work_dir=tmp_path / "run", data=data, device="cpu", quiet=True)


def test_maps_with_more_classes_than_the_branch_are_refused(tmp_path):
    data = write_data(tmp_path / "data", maps="maps")
    mine = "data.train={type: coco, split: train, semantic_dir: maps}"
    with pytest.raises(ConfigError, match=r"may have ids 0\.\.181, but roi_head 'htc' has 2 semantic classes"):
        train(demo("htc", mine), work_dir=tmp_path / "run", data=data, device="cpu", quiet=True)
