"""Loading and preparing images: decoding, transforms, whole; beside OpenCV's and torchvision's same steps in one run.

    pip install opencv-python-headless
    python benchmarks/data.py [--rounds 20] [--workers 1 2] [--device cpu|cuda] [--precision fp32] [--json FILE]

Times are processor time of one thread, in ms an image; the least of the rounds counts, and the calls take turns. The
images are four photographs of 640x480 pixels from the tests of det-core, so that resizing weighs as it does on COCO,
with ten objects drawn by the benchmark. OpenCV and torchvision decode, resize to the same size and mirror the same
image, without boxes or masks; without OpenCV its rows are left out. "OpenCV, all of SSD's steps" is for recipes with
SSD's augmentation: `old_toolbox.py` does to the decoded image what the transforms decided for each of the 50 keys, in
OpenCV and numpy, to compare with the transforms' mean; it prepares the pixels only. Bytes are those of a sample as a
loader process sends it. Consumption is what training steps on `--device` take per second while their images are there;
`waiting %` is the share of a step that passes until they are.
"""

from __future__ import annotations

import argparse
import json
import pickle
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torchvision.io import decode_image
from torchvision.transforms import v2

from det_core import load_recipe
from det_core.data.coco_dataset import CocoDataset
from det_core.data.epoch_order import TrainSampler
from det_core.data.images import read_image
from det_core.data.loader import LoadedImage, prepare, train_loader
from det_core.data.transforms import apply_transforms
from det_core.engine.device_batches import sent_ahead, streams_of
from det_core.engine.predict import autocast, to_batch, to_targets
from det_core.model.memory_layout import to_channels_last
from det_core.recipe import Recipe
from det_core.structures import Key

PHOTOS = Path(__file__).resolve().parents[1] / "core" / "tests" / "data" / "bccd" / "JPEGImages"
RECIPES = ("faster-rcnn/r50-fpn-1x", "mask-rcnn/r50-fpn-1x", "ssd/vgg16-300-coco-120e")
OBJECTS = 10
FLIPPED = Key(index=1)
KEYS = tuple(Key(index=index) for index in range(50))  # random transforms differ from key to key
SSD_STEPS = "OpenCV, all of SSD's steps"
WARM_UP = 1  # steps


def write_data(root: Path, copies: int) -> None:
    """A COCO data set of the photographs, each with objects that have polygons of 40 points."""
    rng = np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    images, annotations = [], []
    for number in range(copies):
        photo = sorted(PHOTOS.glob("*.jpg"))[number % 4]
        name = f"{number}.jpg"
        (root / "images" / name).write_bytes(photo.read_bytes())
        images.append({"id": number, "file_name": name, "width": 640, "height": 480})
        for _ in range(OBJECTS):
            annotations.append({**_object(rng), "id": len(annotations) + 1, "image_id": number})
    categories = [{"id": k, "name": f"class {k}"} for k in range(1, 81)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "instances_train.json").write_text(json.dumps(content))


def _object(rng: np.random.Generator) -> dict[str, Any]:
    radius = rng.uniform(15, 90)
    x, y = rng.uniform(radius, 640 - radius), rng.uniform(radius, 480 - radius)
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    radii = radius * rng.uniform(0.7, 1, 40)
    ring = np.stack([x + radii * np.cos(angles), y + radii * np.sin(angles)], 1).reshape(-1)
    box = [x - radius, y - radius, 2 * radius, 2 * radius]
    return {
        "category_id": int(rng.integers(1, 81)),
        "bbox": box,
        "area": box[2] * box[3] / 2,
        "iscrowd": 0,
        "segmentation": [ring.tolist()],
    }


def processor_ms(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Least processor time of each call in ms, in turns."""
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds):
        for name, call in calls.items():
            call()
            started = time.process_time()
            call()
            best[name] = min(best[name], 1e3 * (time.process_time() - started))
    return best


def steps(recipe: Recipe, dataset: CocoDataset) -> dict[str, Callable[[], object]]:
    """The parts of loading an image as this project does them."""
    transforms = [t.build() for t in recipe.data.train_transforms]
    sample = dataset.load(0)
    return {
        "decode": lambda: read_image(dataset.file(0)),
        "load": lambda: dataset.load(0),
        "transforms": lambda: apply_transforms(sample, transforms, FLIPPED),
        "transforms, mean of 50 keys": lambda: [apply_transforms(sample, transforms, key) for key in KEYS],
        "whole": lambda: prepare(dataset.load(0), transforms, FLIPPED),
    }


def peers(file: str, size: tuple[int, int]) -> dict[str, Callable[[], object]]:
    """The same steps of OpenCV and torchvision: decode, resize to (height, width), mirror, channels first."""
    resize = v2.Resize(size, antialias=False)

    def torchvision() -> object:
        return v2.functional.horizontal_flip(resize(decode_image(file)))

    try:
        import cv2
    except ImportError:
        return {"torchvision whole": torchvision}
    cv2.setNumThreads(1)
    decoded = cv2.imread(file)

    def opencv() -> object:
        image = cv2.resize(cv2.imread(file), size[::-1], interpolation=cv2.INTER_LINEAR)
        return np.ascontiguousarray(cv2.flip(image, 1).transpose(2, 0, 1))

    return {
        "OpenCV decode": lambda: cv2.imread(file),
        "OpenCV resize": lambda: cv2.resize(decoded, size[::-1], interpolation=cv2.INTER_LINEAR),
        "OpenCV whole": opencv,
        "torchvision whole": torchvision,
    }


def ssd_peer(recipe: Recipe, dataset: CocoDataset) -> dict[str, Callable[[], object]]:
    """All steps of SSD's augmentation in OpenCV and numpy, for the keys in turn; nothing for other recipes."""
    if "photometric_distort" not in {config.type for config in recipe.data.train_transforms}:
        return {}
    try:
        import cv2
    except ImportError:
        return {}
    from old_toolbox import augmented, decisions

    transforms, sample = [t.build() for t in recipe.data.train_transforms], dataset.load(0)
    made = [decisions(transforms, sample, key) for key in KEYS]
    decoded = cv2.imread(dataset.file(0))
    return {SSD_STEPS: lambda: [augmented(decoded, each) for each in made]}


def sent_bytes(loaded: LoadedImage) -> int:
    """Of a sample on its way from a loader process: tensors travel as memory, the rest as a pickle."""
    tensors: list[torch.Tensor] = []

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: object) -> object:
            if isinstance(value, torch.Tensor):
                tensors.append(value)
                return len(tensors)
            return None

    import io

    buffer = io.BytesIO()
    Pickler(buffer).dump(loaded)
    return len(buffer.getvalue()) + sum(t.numel() * t.element_size() for t in tensors)


def images_per_second(recipe: Recipe, dataset: CocoDataset, workers: int) -> float:
    """Of an epoch of loading alone, without the start of the processes."""
    transforms = [t.build() for t in recipe.data.train_transforms]
    sampler = TrainSampler(sizes=dataset.sizes, images_per_rank=2)
    batches = iter(train_loader(dataset, transforms, sampler, 0, 0, workers))
    next(batches)
    started, count = time.perf_counter(), 0
    for batch in batches:
        count += len(batch)
    return count / (time.perf_counter() - started)


def training(recipe: Recipe, dataset: CocoDataset, workers: int, options: argparse.Namespace) -> tuple[float, float]:
    """Images that steps take per second once they are loaded, and the share of a step that waits for them."""
    torch.manual_seed(0)
    detector = recipe.detector.build(classes=dataset.classes).to(options.device).train()
    to_channels_last(detector)
    transforms = [t.build() for t in recipe.data.train_transforms]
    sampler = TrainSampler(sizes=dataset.sizes, images_per_rank=2)
    loader = train_loader(dataset, transforms, sampler, 0, 0, workers)
    device = torch.device(options.device)
    batches = sent_ahead(loader, detector.preprocess, streams_of(device), targets=True)
    waited = whole = count = 0.0
    for step in range(options.steps + WARM_UP):
        started = time.perf_counter()
        images = next(batches, None)
        if images is None:
            break
        loaded = time.perf_counter()
        with autocast(device, options.precision):
            batch = to_batch(detector, images)
            losses = detector(batch, to_targets(batch, images))
        torch.stack([loss.value() for loss in losses.values()]).sum().backward()
        detector.zero_grad()
        if options.device == "cuda":
            torch.cuda.synchronize()
        if step >= WARM_UP:  # the first waits for the processes to start
            waited += loaded - started
            whole += time.perf_counter() - started
            count += len(batch)
    return count / (whole - waited), waited / whole


def measure(name: str, root: Path, options: argparse.Namespace) -> dict[str, float]:
    """All figures of a recipe."""
    recipe = load_recipe(name)
    dataset = CocoDataset(root / "instances_train.json", root / "images", masks=recipe.detector.needs_masks())
    loaded = prepare(dataset.load(0), [t.build() for t in recipe.data.train_transforms], FLIPPED)
    calls = steps(recipe, dataset) | peers(dataset.file(0), loaded.info.size) | ssd_peer(recipe, dataset)
    row = processor_ms(calls, options.rounds)
    row["transforms, mean of 50 keys"] /= len(KEYS)
    if SSD_STEPS in row:
        row[SSD_STEPS] /= len(KEYS)
    if "OpenCV resize" in row:
        row["floor"] = row["decode"] + row["OpenCV resize"]
        row["whole / floor"] = row["whole"] / row["floor"]
    row["megabytes"] = sent_bytes(loaded) / 1e6
    for workers in options.workers:
        row[f"images/s, {workers} workers"] = images_per_second(recipe, dataset, workers)
    if not options.no_training:
        consumed, waiting = training(recipe, dataset, max(options.workers), options)
        row[f"images/s, consumed on {options.device}"] = consumed
        row["waiting %"] = 100 * waiting
    return row


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES))
    parser.add_argument("--images", type=int, default=64, help="of the data set that loader processes read")
    parser.add_argument("--no-training", action="store_true", help="leave out the share that a step waits")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="of the training steps")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="of the training steps")
    parser.add_argument("--steps", type=int, default=3, help="training steps that count")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "data"
        write_data(root, options.images)
        rows: dict[str, dict[str, float]] = {}
        for name in options.recipes:
            rows[name] = measure(name, root, options)
            if options.json:  # after each, so that what ends the next costs this nothing
                options.json.write_text(json.dumps(rows, indent=2) + "\n")
    table = Table(title="ms of processor time an image, unless said otherwise", title_justify="left")
    table.add_column("")
    for name in rows:
        table.add_column(name, justify="right")
    for key in dict.fromkeys(key for row in rows.values() for key in row):
        table.add_row(key, *(f"{row[key]:.2f}" if key in row else "" for row in rows.values()))
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
