"""Time and size of `det-core analyze` beside COCO's evaluation of the same detections.

    python benchmarks/analyze.py [--images 5000] [--classes 80] [--detections 100]

The ground truth and the detections are made up: 7 objects an image, of which detections are moved, repeated and taken
for other classes. Pictures are those of the bundled sample. No network runs.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from attrs import evolve

from det_core.analysis.report import Run, make_report
from det_core.analysis.write import write_report
from det_core.contracts import DetectionDataset, Sample
from det_core.data.data_config import SampleConfig
from det_core.evaluation.metric_config import CocoEvaluatorConfig
from det_core.structures import Classes

SIZE = (480, 640)
OBJECTS = 7
Record = dict[str, Any]


class MadeUp(DetectionDataset):
    """Made-up ground truth; the pictures are those of the bundled sample, one after the other."""

    def __init__(self, annotations: list[Record], images: int, classes: int) -> None:
        self.name, self.skipped = "made up", []
        self.image_ids = np.arange(1, images + 1)
        self.sizes = np.array([SIZE] * images, np.int64)
        self.classes = Classes(names=tuple(f"class {k}" for k in range(classes)), ids=tuple(range(1, classes + 1)))
        self._annotations = annotations
        self._pictures = SampleConfig(split="val").build("")

    def file(self, index: int) -> str:
        return f"{index:06}.jpg"

    def load(self, index: int) -> Sample:
        return evolve(self._pictures.load(index % len(self._pictures)), image_id=index + 1)

    def ground_truth(self) -> dict[str, Any]:
        height, width = SIZE
        images = [{"id": int(i), "height": height, "width": width, "file_name": f"{i}.jpg"} for i in self.image_ids]
        categories = [{"id": i, "name": n} for i, n in zip(self.classes.ids, self.classes.names, strict=True)]
        return {"info": {}, "images": images, "annotations": self._annotations, "categories": categories}


def made_up(images: int, classes: int, detections: int) -> tuple[MadeUp, list[Record]]:
    """A data set, and detections on it."""
    random = np.random.default_rng(0)
    annotations: list[Record] = []
    found: list[Record] = []
    for image in range(1, images + 1):
        count = int(random.poisson(OBJECTS))
        sides = random.uniform(15, 250, (count, 2))
        corners = random.uniform(0, 1, (count, 2)) * (np.array(SIZE[::-1]) - sides)
        labels = random.integers(1, classes + 1, count)
        for corner, side, label in zip(corners, sides, labels.tolist(), strict=True):
            record = {"image_id": image, "category_id": label, "bbox": [*corner.tolist(), *side.tolist()]}
            annotations.append({"id": len(annotations) + 1, **record, "area": float(side.prod()), "iscrowd": 0})
        about = random.integers(0, max(count, 1), detections)
        for one in about.tolist():
            near = count > 0 and random.random() < 0.4
            side = sides[one] * random.uniform(0.8, 1.2, 2) if near else random.uniform(15, 200, 2)
            corner = corners[one] + random.normal(0, 0.1, 2) * side if near else random.uniform(0, 400, 2)
            label = int(labels[one]) if near and random.random() < 0.8 else int(random.integers(1, classes + 1))
            score = float(random.beta(3, 2) if near else random.beta(1, 8))
            box = [*corner.tolist(), *side.tolist()]
            found.append({"image_id": image, "category_id": label, "bbox": box, "score": score})
    return MadeUp(annotations, images, classes), found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--detections", type=int, default=100, help="of an image")
    parser.add_argument("--compare", action="store_true", help="also two runs, with the bootstrap")
    options = parser.parse_args()
    dataset, records = made_up(options.images, options.classes, options.detections)
    print(f"{options.images} images, {options.classes} classes, {len(records)} detections; seconds (of the processor)")
    _timed("COCO's evaluation", lambda: CocoEvaluatorConfig().build(dataset).compute(records))
    runs = [Run("made up", records, {})]
    report = _timed("numbers", lambda: make_report(dataset, runs))
    with tempfile.TemporaryDirectory() as folder:
        page = _timed("page", lambda: write_report(report, Path(folder)))
        print(f"size of the page: {page.stat().st_size / 1e6:.1f} MB")
    if options.compare:
        half = [evolve_score(record, seed) for seed, record in enumerate(records)]
        _timed("two runs, 200 resamples", lambda: make_report(dataset, [*runs, Run("other", half, {})]))


def evolve_score(record: Record, seed: int) -> Record:
    """A record with another score."""
    return {**record, "score": record["score"] * (0.5 + 0.5 * ((seed * 0.618) % 1))}


def _timed(what: str, call: Any) -> Any:
    wall, processor = time.perf_counter(), time.process_time()
    result = call()
    print(f"{what:26} {time.perf_counter() - wall:7.1f} ({time.process_time() - processor:.1f})", flush=True)
    return result


if __name__ == "__main__":
    main()
