"""From outputs to detections or proposals: the time of `predict` of dense heads, without their convolutions.

    python benchmarks/heads.py [--images 1 4] [--rounds 7]

Processor time of one thread in ms, the least of the rounds. Scores of RetinaNet are random logits as a trained head has
them, most of them low; those of the others come from random weights. Images have 800x1333 pixels, SSD's 300x300.
"""

from __future__ import annotations

import argparse
import time

import torch
from attrs import evolve
from rich.console import Console
from rich.table import Table

from det_core import load_recipe
from det_core.structures import Batch, ImageInfo

RECIPES = {  # recipe: size of images, classes, strides of the maps that the head is given
    "rpn/r50-fpn-1x": ((800, 1333), 1, (4, 8, 16, 32, 64)),
    "retinanet/r50-fpn-1x": ((800, 1333), 80, (8, 16, 32, 64, 128)),
    "ssd/vgg16-300-coco-120e": ((300, 300), 80, ()),
}


def predict_ms(name: str, count: int, rounds: int) -> float:
    """The least time of `predict` for so many images."""
    size, classes, strides = RECIPES[name]
    torch.manual_seed(0)
    config = load_recipe(name).detector
    config = evolve(config, backbone=evolve(config.backbone, pretrained=None))  # type: ignore[call-arg]
    detector = config.build(num_classes=classes).eval()
    infos = tuple(ImageInfo(size=size, original_size=size) for _ in range(count))
    height, width = (-(-side // 32) * 32 for side in size)
    batch = Batch(images=torch.randn(count, 3, height, width), infos=infos)
    least = float("inf")
    with torch.no_grad():
        maps = [torch.randn(count, 256, -(-height // s), -(-width // s)) for s in strides]
        outputs = detector.dense_head(maps or detector.features(batch))
        if name.startswith("retinanet"):
            outputs = evolve(outputs, scores=[torch.randn_like(x) * 1.2 - 5 for x in outputs.scores])
        for _ in range(rounds):
            started = time.process_time()
            detector.dense_head.predict(outputs, batch)
            least = min(least, time.process_time() - started)
    return 1e3 * least


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = Table(title="ms of processor time", title_justify="left")
    table.add_column("images")
    for name in RECIPES:
        table.add_column(name, justify="right")
    for count in options.images:
        table.add_row(str(count), *(f"{predict_ms(name, count, options.rounds):.1f}" for name in RECIPES))
    Console().print(table)


if __name__ == "__main__":
    main()
