"""Evaluating Mask R-CNN end to end, from files to the records of the metrics: processor time outside of the network.

    python benchmarks/evaluation.py [--other CHECKOUT] [--rounds 3]

The images are those bundled for validation, at the recipe's 1333x800; the weights are random and every image has 100
detections with masks. The network is the convolutions and matrix products; the rest is loading, resizing, proposals,
pooling, suppression, pasting and encoding. `--other` runs the same on another checkout of this repository, in turns.
Processor time of one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("convolution", "addmm", "mm.", "bmm", "linear", "conv2d")
RECIPE = "mask-rcnn/r50-fpn-1x"


def measure() -> dict[str, float]:
    """Seconds of processor time for an evaluation, and of its convolutions and matrix products."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    from det_core import evaluate, load_recipe
    from det_core.contracts import EvaluationResult
    from det_core.data.data_config import SampleConfig
    from det_core.evaluation.coco_metric import CocoEvaluator
    from det_core.model.memory_layout import to_channels_last

    class Timed(TorchDispatchMode):
        seconds = 0.0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if not any(name in str(func) for name in HEAVY):
                return func(*args, **(kwargs or {}))
            started = time.thread_time()
            result = func(*args, **(kwargs or {}))
            self.seconds += time.thread_time() - started
            return result

    torch.set_num_threads(1)
    torch.manual_seed(0)
    recipe = load_recipe(RECIPE, ["detector.roi_head.score_threshold=0.0", "detector.backbone.pretrained=null"])
    dataset = SampleConfig(split="val").build("", masks=True)
    detector = recipe.detector.build(classes=dataset.classes)
    to_channels_last(detector)
    for name, value in detector.named_buffers():
        if name.endswith("running_var"):
            value.fill_(30.0)  # random weights would let features grow from layer to layer

    # The metrics are computed by other libraries: the work ends with the records that they are given.
    CocoEvaluator.compute = lambda self, results: EvaluationResult(metrics={})

    def run() -> None:
        evaluate(detector, dataset, transforms=recipe.data.test_transforms)

    run()
    with Timed() as timed:
        started = time.process_time()
        run()
        whole = time.process_time() - started
    return {"whole": whole, "network": timed.seconds, "outside": whole - timed.seconds, "images": len(dataset)}


def of_checkout(root: Path) -> dict[str, float]:
    """The same in a process that imports the packages of a checkout."""
    packages = [root / "ops", root / "core", *sorted((root / "plugins").iterdir())]
    paths = os.pathsep.join(str(package / "src") for package in packages)
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    run = [sys.executable, __file__, "--here"]
    done = subprocess.run(run, env=environment, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Print a line for each checkout, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--other", type=Path, help="another checkout")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measure()))
        return
    roots = [ROOT, *([options.other.resolve()] if options.other else [])]
    rounds = [[of_checkout(root) for root in roots] for _ in range(options.rounds)]
    best = [min((row[i] for row in rounds), key=lambda found: found["outside"]) for i in range(len(roots))]
    for name, found in zip(("this checkout", "the other"), best):
        each = {key: 1e3 * found[key] / found["images"] for key in ("whole", "network", "outside")}
        print(f"{name}: " + ", ".join(f"{key} {ms:.0f} ms" for key, ms in each.items()) + " an image")
    if options.other:
        print(f"outside of the network: {best[1]['outside'] / best[0]['outside']:.2f} times less than the other")


if __name__ == "__main__":
    main()
