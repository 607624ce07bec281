"""Whole detectors side by side with torchvision's, in one run: inference and one training step.

    python benchmarks/models.py [--model faster-rcnn mask-rcnn] [--size 480 640] [--images 2] [--rounds 3] [--threads N]

Both sides are built with random weights from the same seed, ResNet-50-FPN, first stage frozen, batch-norm statistics
frozen, float32, on the same images and ground truth; the best of several interleaved rounds counts. The two are not the
same function: torchvision also freezes the affine part of batch norm, takes 2 samples per RoIAlign bin where these
recipes take as many as a bin is long, and random weights give both 1000 proposals but hardly any final detections.
Read the ratio, not the times: they are those of a shared machine.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from attrs import evolve
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d

from det_core import Batch, Targets, load_recipe
from det_core.structures import ImageInfo

PEERS = {"faster-rcnn": FasterRCNN, "mask-rcnn": MaskRCNN}
OBJECTS = 8
CLASSES = 80


def ground_truth(size: tuple[int, int], count: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Boxes (n, 4), labels (n,) in 0..K-1 and masks (n, h, w) of each image."""
    rng = torch.Generator().manual_seed(0)
    height, width = size
    images = []
    for _ in range(count):
        low = torch.rand(OBJECTS, 2, generator=rng) * torch.tensor([width * 0.6, height * 0.6])
        side = 30 + torch.rand(OBJECTS, 2, generator=rng) * torch.tensor([width * 0.3, height * 0.3])
        boxes = torch.cat([low, low + side], 1)
        masks = torch.zeros(OBJECTS, height, width, dtype=torch.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.long().tolist(), strict=True):
            mask[y1:y2, x1:x2] = 1
        images.append((boxes, torch.randint(0, CLASSES, (OBJECTS,), generator=rng), masks))
    return images


def ours(model: str, images: Tensor) -> tuple[nn.Module, Callable[[], None], Callable[[], None]]:
    """Our detector, one inference and one training step of it."""
    torch.manual_seed(0)
    config = load_recipe(f"{model}/r50-fpn-1x").detector
    detector = evolve(config, backbone=evolve(config.backbone, pretrained=None)).build(num_classes=CLASSES)
    size = (int(images.shape[2]), int(images.shape[3]))
    batch = Batch(images=images, infos=tuple(ImageInfo(size=size, original_size=size) for _ in images))
    targets = [Targets(boxes=b, labels=c, masks=m) for b, c, m in ground_truth(size, len(images))]

    def infer() -> None:
        detector.eval()
        detector.predict(batch)

    def step() -> None:
        detector.train()
        detector.zero_grad()
        sum(term.value() for term in detector.losses(batch, targets).values()).backward()

    return detector, infer, step


def peer(model: str, images: Tensor) -> tuple[nn.Module, Callable[[], None], Callable[[], None]]:
    """torchvision's detector, one inference and one training step of it, resizing switched off."""
    torch.manual_seed(0)
    size = (int(images.shape[2]), int(images.shape[3]))
    backbone = resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d, trainable_layers=3
    )
    detector = PEERS[model](backbone, CLASSES + 1, min_size=min(size), max_size=max(size))
    listed = list(images)
    targets = [{"boxes": b, "labels": c + 1, "masks": m} for b, c, m in ground_truth(size, len(images))]

    @torch.no_grad()
    def infer() -> None:
        detector.eval()
        detector(listed)

    def step() -> None:
        detector.train()
        detector.zero_grad()
        sum(detector(listed, targets).values()).backward()

    return detector, infer, step


def best(calls: list[Callable[[], None]], rounds: int) -> list[float]:
    """Least seconds of each call, taken in turns so that a busy moment hits all alike."""
    for call in calls:
        call()
    times = [[0.0] * rounds for _ in calls]
    for turn in range(rounds):
        for row, call in zip(times, calls, strict=True):
            started = time.perf_counter()
            call()
            row[turn] = time.perf_counter() - started
    return [min(row) for row in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--size", nargs=2, type=int, default=[480, 640], metavar=("H", "W"))
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    images = torch.randn(options.images, 3, *options.size, generator=torch.Generator().manual_seed(1))
    table = Table(
        "model",
        "what",
        "det s",
        "torchvision s",
        "ratio",
        title=(
            f"{options.images} images of {options.size[0]}x{options.size[1]}, {options.threads} threads, "
            f"torch {torch.__version__}"
        ),
    )
    for model in options.model:
        _, infer, step = ours(model, images)
        _, peer_infer, peer_step = peer(model, images)
        for what, pair in (("inference", [infer, peer_infer]), ("training step", [step, peer_step])):
            mine, theirs = best(pair, options.rounds)
            table.add_row(model, what, f"{mine:.2f}", f"{theirs:.2f}", f"{theirs / mine:.2f}x")
    Console().print(table)


if __name__ == "__main__":
    main()
