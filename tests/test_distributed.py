"""Several processes under torchrun (gloo): the same losses as one, and no hang where a rank has no objects."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
WORKER = """
import sys
from det_core import load_recipe, train
from det_core.data.epoch_order import TrainSampler
from det_core.structures import Key

def batches(self, epoch):  # rank 0 gets the images with objects (even), rank 1 those without
    return [[Key(self.seed, epoch, 0, 2 * step + self.rank)] for step in range(3)]

TrainSampler.batches = batches
name, work_dir, data, *settings = sys.argv[1:]
recipe = load_recipe(name, settings)
result = train(recipe, work_dir=work_dir, data=data, log_every=1, max_steps=3)
assert result.step == 3
"""


def write_data(root: Path, count: int, *, every_second_empty: bool = False) -> Path:
    """A COCO-format folder of non-square images of one size, each with two bright rectangles, or none."""
    (root / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for i in range(count):
        pixels = rng.integers(0, 60, (96, 144, 3), dtype=np.uint8)
        if not (every_second_empty and i % 2):
            for x, y, w, h in ((10 + i, 12, 40, 30), (80, 40 + i, 30, 40)):
                pixels[y : y + h, x : x + w] = 230
                ring = [x, y, x + w, y, x + w, y + h, x, y + h]
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": i + 1,
                        "category_id": 1,
                        "iscrowd": 0,
                        "bbox": [x, y, w, h],
                        "area": w * h,
                        "segmentation": [ring],
                    }
                )
        Image.fromarray(pixels).save(root / "images" / f"{i}.png")
        images.append({"id": i + 1, "file_name": f"{i}.png", "height": 96, "width": 144})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "box"}]}
    for split in ("train", "val"):
        (root / f"instances_{split}.json").write_text(json.dumps(content))
    return root


def write_maps(root: Path, count: int) -> None:
    """Semantic maps for these images: bright pixels are 0, others 1; of images without objects nothing is labelled."""
    (root / "maps").mkdir()
    for i in range(count):
        bright = np.asarray(Image.open(root / "images" / f"{i}.png"))[..., 0] > 128
        ids = np.where(bright, 0, 1 if bright.any() else 255).astype(np.uint8)
        Image.fromarray(ids).save(root / "maps" / f"{i}.png")


def torchrun(*command: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *command],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def losses(run: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in r.items() if k.startswith("loss/")} for r in rows if "lr" in r]


@pytest.mark.slow
@pytest.mark.distributed
def test_two_ranks_with_half_the_batch_follow_one_with_the_whole(tmp_path, arguments):
    data = write_data(tmp_path / "data", 8)
    common = ["--data", str(data), "--max-steps", "4", "--set", "schedule.warmup_steps=0"]
    one, two = tmp_path / "one", tmp_path / "two"
    alone = [sys.executable, *arguments(one, *common, "--set", "data.images_per_rank=2")]
    subprocess.run(alone, env=ENVIRONMENT, check=True, capture_output=True, timeout=240)
    torchrun(*arguments(two, *common, "--set", "data.images_per_rank=1"))
    a, b = losses(one), losses(two)
    assert len(a) == len(b) == 4
    for ours, theirs in zip(a, b, strict=True):
        assert theirs == pytest.approx(ours, rel=1e-4, abs=1e-6)


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize(
    ("recipe", "with_objects"),
    [
        ("mask-rcnn/r18-fpn-demo", ("roi_mask",)),
        ("cascade-mask-rcnn/r18-fpn-demo", ("stage1_mask", "stage2_mask", "stage3_mask")),
        ("htc/r18-fpn-demo", ("semantic", "stage1_mask", "stage2_mask", "stage3_mask")),
        ("retinanet/r18-fpn-demo", ("retina_cls", "retina_box")),
        ("ga-retinanet/r18-fpn-demo", ("retina_cls", "retina_box", "retina_shape", "retina_location")),
        ("ssd/vgg16-demo", ("ssd_cls", "ssd_box")),
    ],
)
def test_a_rank_without_objects_trains_along(tmp_path, tiny_settings, recipe, with_objects):
    sampler = "detector.roi_head.sampler."
    settings = [s for s in tiny_settings if not s.startswith(sampler) or recipe.startswith("mask-rcnn/")]
    if recipe.startswith(("retinanet/", "ga-retinanet/", "ssd/")):
        settings = [s for s in settings if not s.startswith("detector.")]
    data = write_data(tmp_path / "data", 6, every_second_empty=True)
    if recipe.startswith("htc/"):
        settings.append("data.train={type: coco, split: train, semantic_dir: maps, semantic_classes: 2}")
        write_maps(data, 6)
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER)
    torchrun(str(worker), recipe, str(tmp_path / "run"), str(data), *settings, "data.images_per_rank=1")
    rows = losses(tmp_path / "run")
    assert len(rows) == 3
    assert all(np.isfinite(list(r.values())).all() for r in rows)
    # of rank 0's objects, over the counts of both
    assert all(r[f"loss/{name}"] > 0 for r in rows for name in with_objects)


@pytest.mark.slow
@pytest.mark.distributed
def test_evaluation_and_resuming_on_two_ranks(tmp_path, arguments):
    data = write_data(tmp_path / "data", 5)
    common = ["--data", str(data), "--set", "data.images_per_rank=1", "--set", "schedule.epochs=1"]
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    torchrun(*arguments(straight, *common))
    torchrun(*arguments(broken, *common, "--max-steps", "1"))
    out = torchrun(*arguments(broken, *common, "--resume", "--analyze")).stdout
    assert out.count(f"a run of several processes is not analyzed; run `det-core analyze --checkpoint {broken}`") == 1
    assert not (broken / "analysis").exists()
    assert losses(broken) == losses(straight)
    rows = [json.loads(line) for line in (straight / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows if "evaluated" in r] == [3]
    mixed = subprocess.run(
        [sys.executable, *arguments(straight, *common, "--resume")],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert mixed.returncode == 1
    assert "trained with 2 images per step, but this run has 1" in mixed.stderr


DIFFERING = """
import os, sys
from det_core import DetError, load_recipe, train
name, work_dir, data, *settings = sys.argv[1:]
more = ["optimizer.lr=0.5"] if os.environ["RANK"] == "1" else []
try:
    train(load_recipe(name, [*settings, *more]), work_dir=work_dir, data=data, max_steps=1)
except DetError as error:
    print("ended:", error, flush=True)
"""


def test_ranks_that_disagree_all_end_with_the_difference(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(DIFFERING)
    data = write_data(tmp_path / "data", 4)
    done = torchrun(str(script), "rpn/r18-fpn-demo", str(tmp_path / "run"), str(data), "data.workers=0")
    assert done.stdout.count("rank 1 differs from rank 0 (setting optimizer.lr: 0.02 on rank 0, 0.5)") == 2
    assert not list((tmp_path / "run").glob("checkpoints/*"))


# Rank 1 leaves at its third exchange, or sleeps there until rank 0 has waited long enough.
LEAVING = """
import logging, os, sys, time
from det_core import DetError, load_recipe, train
from det_core.engine import distributed, rank_watch
logging.basicConfig()
distributed.RankWatch = lambda *ranks, patience: rank_watch.RankWatch(*ranks, patience=1.0, post_every=0.2)
name, work_dir, data, how, *settings = sys.argv[1:]
rank, exchange = int(os.environ["RANK"]), rank_watch.RankWatch.exchange
def leave(self, what):
    if rank == 1 and what == "the losses of a step":
        if how == "die":
            os._exit(0)
        time.sleep(8)
        os._exit(0)
    return exchange(self, what)
rank_watch.RankWatch.exchange = leave
began = time.monotonic()
try:
    train(load_recipe(name, settings), work_dir=work_dir, data=data, max_steps=2, timeout=4 if how == "sleep" else 60)
except DetError as error:
    print("ended:", error, flush=True)
"""


@pytest.mark.parametrize("how", ["die", "sleep"])
def test_a_rank_that_leaves_or_hangs_is_named(tmp_path, how):
    script = tmp_path / "train.py"
    script.write_text(LEAVING)
    data = write_data(tmp_path / "data", 4)
    done = torchrun(str(script), "rpn/r18-fpn-demo", str(tmp_path / "run"), str(data), how, "data.workers=0")
    line = next(line for line in done.stdout.splitlines() if line.startswith("ended:"))
    where = "the exchange with the other ranks failed after"
    assert line.startswith(f"ended: rank 0: the losses of a step: {where}")
    assert "it waits for rank 1, which was last at the first files of the run" in line
    assert "FutureWarning" not in done.stderr
    if how == "sleep":
        assert "rank 0 has waited 1 s at the losses of a step: it waits for rank 1, which was last at" in done.stderr


def test_a_rank_that_never_starts(tmp_path):
    """A rank waits for the others for the time that it is told."""
    world = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    command = [sys.executable, "-m", "det_core", "train", "--recipe", "rpn/r18-fpn-demo", "--work-dir", str(tmp_path)]
    done = subprocess.run(
        [*command, "--timeout", "2"], env=ENVIRONMENT | world, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 1
    assert "error: rank 1 cannot join the 2 ranks at 127.0.0.1:1 (" in done.stderr
    assert "Traceback" not in done.stderr
