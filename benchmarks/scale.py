"""Large data sets: opening a COCO file, its memory in this process and in loader processes, and the start of an epoch.

    python benchmarks/scale.py [--images 200000] [--boxes 2000000] [--epoch-images 10000000] [--workers 2]

Every part runs in a process of its own. Reading the JSON alone is the peer: opening does that and checks every record.
The images of the file are links to one photograph, so that batches can be loaded.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

PHOTO = Path(__file__).resolve().parents[1] / "core" / "tests" / "data" / "bccd" / "JPEGImages" / "BloodImage_00004.jpg"


def write(root: Path, images: int, boxes: int) -> Path:
    """A COCO file of so many images, which all link to one photograph, and boxes."""
    folder = root / "images"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    photo = folder / "photo.jpg"
    photo.write_bytes(PHOTO.read_bytes())
    for number in range(images):
        os.link(photo, folder / f"{number:012d}.jpg") if number < 60_000 else os.symlink(
            "photo.jpg", folder / f"{number:012d}.jpg"
        )
    path = root / "instances_train.json"
    sides = rng.uniform(5, 200, (boxes, 2)).round(2)
    corners = (rng.random((boxes, 2)) * (np.array([640, 480]) - sides)).round(2)
    owners = rng.integers(0, images, boxes)
    with path.open("w") as file:
        file.write('{"categories": ')
        json.dump([{"id": k, "name": f"class {k}"} for k in range(1, 81)], file)
        file.write(', "images": [')
        for number in range(images):
            record = {"id": number, "file_name": f"{number:012d}.jpg", "width": 640, "height": 480}
            file.write((", " if number else "") + json.dumps(record))
        file.write('], "annotations": [')
        for number, (x, y), (w, h), owner in zip(range(boxes), corners.tolist(), sides.tolist(), owners.tolist()):
            record = {
                "id": number + 1,
                "image_id": owner,
                "category_id": number % 80 + 1,
                "bbox": [x, y, w, h],
                "area": round(w * h, 2),
                "iscrowd": 0,
            }
            file.write((", " if number else "") + json.dumps(record))
        file.write("]}")
    return path


def megabytes(name: str, pid: str = "self") -> float:
    """VmRSS, VmHWM or Pss of a process."""
    file = "smaps_rollup" if name in ("Pss", "Private_Dirty") else "status"
    found = re.search(rf"{name}:\s+(\d+)", Path(f"/proc/{pid}/{file}").read_text())
    return float(found.group(1)) / 1e3 if found else float("nan")


def read(path: Path) -> dict[str, float]:
    """Reading the JSON alone."""
    before, started = megabytes("VmRSS"), time.perf_counter()
    content = json.loads(path.read_bytes())
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "peak MB": megabytes("VmHWM") - before, "images": len(content["images"])}


def open_data(path: Path, workers: int) -> dict[str, float]:
    """Opening, memory that stays, the first batch, and memory of a loader process."""
    from det_core.data.coco_dataset import CocoDataset
    from det_core.data.epoch_order import TrainSampler
    from det_core.data.loader import train_loader

    before, started = megabytes("VmRSS"), time.perf_counter()
    data = CocoDataset(path, path.parent / "images")
    seconds = time.perf_counter() - started
    peak = megabytes("VmHWM") - before
    gc.collect()
    stays = megabytes("VmRSS") - before
    boxes = len(data.table.labels)
    started = time.perf_counter()
    batches = iter(train_loader(data, [], TrainSampler(sizes=data.sizes, images_per_rank=2), 0, 0, workers))
    next(batches)
    first = time.perf_counter() - started
    for _ in range(20):
        next(batches)
    private = [megabytes("Private_Dirty", str(child.pid)) for child in multiprocessing.active_children()]
    return {
        "seconds": seconds,
        "peak MB": peak,
        "resident MB": stays,
        "resident MB per million boxes": stays / boxes * 1e6,
        "arrays MB": array_bytes(data) / 1e6,
        "seconds to the first batch": first,
        "MB of a further loader process": max(private),
    }


def array_bytes(data: object) -> int:
    """Of the arrays of a data set."""
    values = [data, data.table, data._names]
    fields = [getattr(v, name) for v in values for name in getattr(v, "__slots__", ()) or vars(v)]
    return sum(f.nbytes for f in fields if isinstance(f, np.ndarray))


def epoch(images: int) -> dict[str, float]:
    """The start of an epoch."""
    from det_core.data.epoch_order import TrainSampler

    sizes = np.random.default_rng(0).integers(300, 700, (images, 2))
    sampler = TrainSampler(sizes=sizes, images_per_rank=16)
    before = megabytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    started = time.perf_counter()
    batches = sampler.batches(0)
    batches[0]
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "peak MB": megabytes("VmHWM") - before, "resident MB": megabytes("VmRSS") - before}


def main() -> None:
    """Run each part in a process of its own, and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--boxes", type=int, default=2_000_000)
    parser.add_argument("--epoch-images", type=int, default=10_000_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--part", choices=["read", "open", "epoch"], help="only this part, in this process")
    parser.add_argument("--file", type=Path, help="of a part")
    options = parser.parse_args()
    if options.part:
        parts = {
            "read": lambda: read(options.file),
            "open": lambda: open_data(options.file, options.workers),
            "epoch": lambda: epoch(options.epoch_images),
        }
        print(json.dumps(parts[options.part]()))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), options.images, options.boxes)
        print(f"{options.images} images, {options.boxes} boxes, {path.stat().st_size / 1e6:.0f} MB of JSON")
        found = {}
        for part in ("read", "open", "epoch"):
            given = [__file__, "--part", part, "--file", str(path), "--workers", str(options.workers)]
            given += ["--epoch-images", str(options.epoch_images)]
            done = subprocess.run([sys.executable, *given], check=True, capture_output=True, text=True)
            found[part] = json.loads(done.stdout.splitlines()[-1])
            print(f"{part}: " + ", ".join(f"{name} {value:.2f}" for name, value in found[part].items()), flush=True)
        print(f"opening takes {found['open']['seconds'] / found['read']['seconds']:.2f} times reading the JSON")


if __name__ == "__main__":
    main()
