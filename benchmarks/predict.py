"""`det-core predict` on many small images: memory, kills, ranks and damaged files.

    python benchmarks/predict.py [--images 100000] [--kills 10] [--ranks 2] [--side 64] [--parts memory kills ranks]

Makes PNG images of SIDE x SIDE pixels with a few rectangles, one damaged in a thousand, and a small untrained Faster
R-CNN (ResNet-18, channels of 32). Each part runs `det-core predict --pictures none --batch-size 32`:

    memory  the resident memory of the main process, every tenth of a second: its median in the second and in the last
            twentieth of the run, and its peak after the first twentieth
    kills   SIGKILL at random moments, then `--resume`: the set of results is compared with that of an undisturbed run
    ranks   images per second of torchrun's ranks, beside one process, each with one thread and without loader processes
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from attrs import frozen
from PIL import Image

SETTINGS = (
    "data.workers=0",
    "detector.neck.channels=32",
    "detector.dense_head.channels=32",
    "detector.dense_head.test_limits={before_nms: 50, after_nms: 20}",
    "detector.roi_head.box_head.fc_channels=32",
    "detector.roi_head.max_detections=10",
    "detector.roi_head.score_threshold=0.0",
)
DAMAGED = 1000  # one image in so many
PARTS = ("memory", "kills", "ranks")


@frozen
class Place:
    """Where the images and the checkpoint are, and the folder for results."""

    images: Path
    checkpoint: Path
    results: Path


def write_images(folder: Path, count: int, side: int) -> None:
    """Images of one size, in folders of a thousand."""
    rng = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"{number // 1000:04}" / f"{number:07}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((side, side, 3), rng.integers(0, 60, 3), np.uint8)
        for _ in range(3):
            x, y = rng.integers(0, side - 16, 2)
            w, h = rng.integers(8, 16, 2)
            pixels[y : y + h, x : x + w] = rng.integers(100, 256, 3)
        Image.fromarray(pixels).save(path, compress_level=1)
        if number % DAMAGED == DAMAGED // 2:
            path.write_bytes(path.read_bytes()[:50])


def write_checkpoint(folder: Path, side: int) -> None:
    """A small detector, never trained."""
    import torch

    from det_core import load_recipe
    from det_core.engine.checkpoint import Header, save_checkpoint
    from det_core.plugins import plugin_manager
    from det_core.structures import Classes

    scale = f"data.test_transforms=[{{type: resize, scales: [[{side}, {side}]]}}]"
    recipe = load_recipe("faster-rcnn/r18-fpn-demo", [*SETTINGS, scale])
    classes = Classes.numbered(3)
    torch.manual_seed(0)
    weights = recipe.detector.build(classes=classes).state_dict()
    save_checkpoint(folder, Header(recipe=recipe, classes=classes, plugins=plugin_manager().versions()), weights)


def command(place: Place, out: str, *more: str) -> list[str]:
    """The words of `det-core predict`."""
    words = ["-m", "det_core", "predict", str(place.images), "--checkpoint", str(place.checkpoint), "--device", "cpu"]
    return [*words, "--out", str(place.results / out), "--pictures", "none", "--batch-size", "32", *more]


def started(words: list[str]) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
    )


def lines_in(folder: Path) -> int:
    """Whole lines of results, without reading them again and again: by size once they are many."""
    return sum(file.read_bytes().count(b"\n") for file in folder.glob("predictions*.jsonl"))


def resident(process: int) -> float:
    """MB."""
    text = Path(f"/proc/{process}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) / 1024


def results(folder: Path) -> dict[str, str]:
    """Each image's result as text; an image that is there twice is an error."""
    found: dict[str, str] = {}
    for file in sorted(folder.glob("predictions*.jsonl")):
        for line in file.open(encoding="utf8"):
            record = json.loads(line)
            assert record["file"] not in found, f"twice: {record['file']}"
            found[record["file"]] = json.dumps(rounded(record))
    return found


def rounded(record: dict[str, Any]) -> dict[str, Any]:
    """Without the last bits, which depend on the batch."""
    detections = [
        (d["label"], round(d["score"], 3), [round(v) for v in d["box"]]) for d in record.get("detections", ())
    ]
    return {"error": record.get("error"), "detections": sorted(detections)}


def memory(place: Place, count: int) -> dict[str, float]:
    """One run with a loader process: images per second, and how the main process grows."""
    began, samples = time.monotonic(), list[tuple[float, float]]()
    with started(command(place, "whole", "--workers", "1")) as child:
        log = place.results / "whole" / "predictions.jsonl"
        while child.poll() is None:
            time.sleep(0.1)
            try:
                samples.append((log.stat().st_size, resident(child.pid)))
            except (OSError, IndexError):
                continue
    seconds = time.monotonic() - began
    final = log.stat().st_size
    settled = [mb for size, mb in samples if size > final / 20]
    early = statistics.median(mb for size, mb in samples if final / 20 < size < final / 10)
    late = statistics.median(mb for size, mb in samples if size > final * 19 / 20)
    lost = count - lines_in(place.results / "whole")
    bad = sum("error" in json.loads(line) for line in log.open(encoding="utf8"))
    return {
        "images": count,
        "seconds": round(seconds, 1),
        "images/s": round(count / seconds, 1),
        "MB early": round(early, 1),
        "MB late": round(late, 1),
        "growth MB": round(late - early, 1),
        "peak MB": round(max(settled), 1),
        "lost": lost,
        "damaged listed": bad,
        "damaged made": sum(1 for number in range(count) if number % DAMAGED == DAMAGED // 2),
    }


def kills(place: Place, number: int, seconds: float) -> dict[str, Any]:
    """SIGKILLs spread over the time of a run; what is there at the end beside the undisturbed run's."""
    rng, done = random.Random(1), []
    for _ in range(number):
        with started(command(place, "killed", "--workers", "1", "--resume")) as child:
            time.sleep(5 + rng.random() * 1.5 * seconds / number)
            if child.poll() is None:
                child.kill()
            child.wait()
        done.append(lines_in(place.results / "killed") if (place.results / "killed").exists() else 0)
    started(command(place, "killed", "--workers", "1", "--resume")).wait()
    whole, killed = (results(place.results / name) for name in ("whole", "killed"))
    different = sum(killed.get(file) != text for file, text in whole.items())
    return {"lines after each kill": done, "same images": set(whole) == set(killed), "different results": different}


def ranks(place: Place, number: int, count: int) -> dict[str, Any]:
    """Images per second, without the time of starting: between a tenth and all of the lines."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(number)]
    pace: dict[str, float] = {}
    for name, launcher in (("one", []), ("ranks", torchrun)):
        folder = place.results / name
        with started([*launcher, *command(place, name, "--workers", "0")]) as child:
            first: tuple[float, int] | None = None
            while child.poll() is None and (lines := lines_in(folder)) < count:
                if first is None and lines > count / 10:
                    first = time.monotonic(), lines
                time.sleep(0.25)
            assert first is not None, "too few images to measure"
            pace[name] = (lines_in(folder) - first[1]) / (time.monotonic() - first[0])
            child.wait()
    return {**{k: round(v, 1) for k, v in pace.items()}, "ratio": round(pace["ranks"] / pace["one"], 2)}


def main() -> None:
    """Run the parts and print a JSON line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        place = Place(Path(name) / "images", Path(name) / "run", Path(name) / "results")
        write_images(place.images, options.images, options.side)
        write_checkpoint(place.checkpoint, options.side)
        whole = memory(place, options.images)
        print("memory", json.dumps(whole), flush=True)
        if "kills" in options.parts:
            print("kills", json.dumps(kills(place, options.kills, whole["seconds"])), flush=True)
        if "ranks" in options.parts:
            print("ranks", json.dumps(ranks(place, options.ranks, options.images)), flush=True)


if __name__ == "__main__":
    main()
