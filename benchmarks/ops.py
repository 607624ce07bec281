"""Every operator against its peer, in one run: time, ratio, and how far it is from the floor of the machine.

    python benchmarks/ops.py [--device cpu|cuda] [--threads 1 2] [--only nms roi_align] [--seconds 2] [--small]

The peer is torchvision's operator where it has one, else the plain PyTorch reference of det_ops (named in the table).
Ours and the peer's run in turn, and the best round of each counts. The floor is the larger of the bytes that must be
read and written at the bandwidth of a copy, and the arithmetic at the rate of a matrix product, both measured in the
same run. One thread of a CPU is timed in processor time, everything else on the clock. Peak memory is what a call adds
on top of its inputs. `--small` times small inputs instead, where more threads must not cost anything. Read ratios, not
times: they are those of a shared machine. A workload that fails is listed, the next ones run, and the exit status is 1;
`--json` is written after each.
"""

from __future__ import annotations

import argparse
import json
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torchvision.ops as tv
from measure import peak
from pycocotools import mask as coco_mask
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.transforms.v2 import functional as color_functions

import det_ops
from det_ops.reference import boxes as reference_boxes, pooling as reference_pooling

Call = Callable[[], object]


@dataclass
class Work:
    """One workload: ours and the peer's call, and the least bytes and floating-point operations that it takes."""

    name: str
    ours: Call
    peer: Call
    peer_name: str
    bytes: float = 0.0
    flops: float = 0.0


@dataclass
class Result:
    name: str
    threads: int
    ours_ms: float
    peer_ms: float
    peer: str
    ratio: float
    floor_ms: float
    floors: float
    peak_mb: float
    peer_peak_mb: float


def random_boxes(count: int, low: float, high: float, device: str) -> Tensor:
    """(count, 4) boxes of sides low..high around random points of an 800 x 1333 image, clipped to it."""
    centre = torch.rand(count, 2) * torch.tensor([1333.0, 800.0])
    side = (low + torch.rand(count, 2) * (high - low)) / 2
    boxes = torch.cat([centre - side, centre + side], 1)
    boxes[:, 0::2].clamp_(0, 1333)
    boxes[:, 1::2].clamp_(0, 800)
    return boxes.to(device)


def clustered_boxes(count: int, objects: int, device: str) -> Tensor:
    """(count, 4) boxes as a detector proposes them: jittered copies of a few objects."""
    centres = random_boxes(objects, 24, 320, "cpu")[torch.randint(0, objects, (count,))]
    size = (centres[:, 2:] - centres[:, :2]).repeat(1, 2)
    return (centres + torch.randn(count, 4) * 0.15 * size).to(device)


def differentiated(forward: Callable[[], Tensor], leaves: list[Tensor]) -> Call:
    """The backward pass alone of one forward pass, again and again."""
    out = forward()
    grad = torch.randn_like(out)
    return lambda: torch.autograd.grad(out, leaves, grad, retain_graph=True)


def suppression(device: str) -> Iterator[Work]:
    for count, threshold in ((2000, 0.7), (8732, 0.45)):
        boxes, scores = clustered_boxes(count, 300, device), torch.rand(count, device=device)
        yield Work(
            f"nms {count}",
            lambda b=boxes, s=scores, t=threshold: det_ops.nms(b, s, t),
            lambda b=boxes, s=scores, t=threshold: tv.nms(b, s, t),
            "torchvision",
            bytes=20.0 * count,
        )
    sizes = (2000, 2000, 2000, 2000, 741)
    boxes = torch.cat([clustered_boxes(n, 300, device) for n in sizes])
    scores = torch.rand(len(boxes), device=device)
    levels = torch.repeat_interleave(torch.arange(5), torch.tensor(sizes)).to(device)
    yield Work(
        "batched_nms 5 levels",
        lambda: det_ops.batched_nms(boxes, scores, levels, 0.7),
        lambda: tv.batched_nms(boxes, scores, levels, 0.7),
        "torchvision",
        bytes=28.0 * len(boxes),
    )
    yield Work(
        "nms_padded 5 levels",
        lambda: det_ops.nms_padded(boxes, scores, levels, 0.7, 1000),
        lambda: tv.batched_nms(boxes, scores, levels, 0.7)[:1000],
        "torchvision",
        bytes=28.0 * len(boxes),
    )
    few, few_scores = clustered_boxes(500, 40, device), torch.rand(500, device=device)
    yield Work(
        "soft_nms 500",
        lambda: det_ops.soft_nms(few, few_scores),
        lambda: reference_boxes.soft_nms(few, few_scores, 0.3, 0.5, 1e-3, "linear"),
        "plain torch",
        bytes=20.0 * 500,
    )


def overlaps(device: str) -> Iterator[Work]:
    boxes, others = random_boxes(20000, 16, 256, device), random_boxes(100, 16, 256, device)
    yield Work(
        "box_overlaps 20000 x 100",
        lambda: det_ops.box_overlaps(boxes, others),
        lambda: tv.box_iou(boxes, others),
        "torchvision",
        bytes=4.0 * 20000 * 100,
    )
    anchors = random_boxes(201600, 16, 512, device)
    yield Work(
        "max_iou_assign 201600 x 100",
        lambda: det_ops.max_iou_assign(anchors, others, 0.5, 0.4),
        lambda: reference_boxes.max_iou_assign(anchors, others, 0.5, 0.4, 0.0, True, True),
        "plain torch",
        bytes=201600 * 28.0,
        flops=12.0 * 201600 * 100,
    )


def pooling(device: str) -> Iterator[Work]:
    boxes = random_boxes(1000, 16, 448, device)
    rois = torch.cat([torch.zeros(1000, 1, device=device), boxes], 1)
    one = torch.randn(1, 256, 200, 336, device=device, requires_grad=True)
    pyramid = [
        torch.randn(1, 256, h, w, device=device, requires_grad=True)
        for h, w in ((200, 336), (100, 168), (50, 84), (25, 42))
    ]
    scales = [1 / 4, 1 / 8, 1 / 16, 1 / 32]
    pooled = 4.0 * 1000 * 256 * 49
    small = rois * torch.tensor([1, 0.5, 0.5, 0.5, 0.5], device=device)

    def ours_one() -> Tensor:
        return det_ops.roi_align(one, small, (7, 7), 0.25)

    def peer_one() -> Tensor:
        return tv.roi_align(one, small, (7, 7), 0.25, -1, True)

    def ours_levels() -> Tensor:
        return det_ops.multi_level_roi_align(pyramid, rois, det_ops.roi_levels(rois, 4), (7, 7), scales)

    def peer_levels() -> Tensor:
        levels = det_ops.roi_levels(rois, 4)
        out = torch.empty(1000, 256, 7, 7, device=device)
        parts = []
        for number, (maps, scale) in enumerate(zip(pyramid, scales, strict=True)):
            parts.append(tv.roi_align(maps, rois[levels == number], (7, 7), scale, -1, True))
        order = torch.cat([(levels == number).nonzero().flatten() for number in range(4)])
        return out.index_copy(0, order, torch.cat(parts))

    for name, ours, peer, leaves in (
        ("roi_align 1000x256x7x7", ours_one, peer_one, [one]),
        ("roi_align 4 levels", ours_levels, peer_levels, pyramid),
    ):
        size = pooled + 4.0 * sum(x.numel() for x in leaves)
        with torch.no_grad():
            yield Work(f"{name} forward", ours, peer, "torchvision", bytes=size)
        yield Work(
            f"{name} backward", differentiated(ours, leaves), differentiated(peer, leaves), "torchvision", bytes=size
        )
    yield Work(
        "roi_pool 1000x256x7x7",
        lambda: det_ops.roi_pool(one.detach(), small, (7, 7), 0.25),
        lambda: tv.roi_pool(one.detach(), small, (7, 7), 0.25),
        "torchvision (its definition)",
        bytes=3 * pooled + 4.0 * one.numel(),
    )
    few = small[:50]
    offset = torch.randn(50, 2, 7, 7, device=device) * 0.5
    yield Work(
        "deform_roi_pool 50x256x7x7",
        lambda: det_ops.deform_roi_pool(one.detach(), few, offset, (7, 7), 0.25),
        lambda: reference_pooling.deform_roi_pool(one.detach(), few, offset, (7, 7), 0.25, 0, 0.1),
        "plain torch",
        bytes=pooled / 20 + 4.0 * one.numel(),
    )


def convolution(device: str) -> Iterator[Work]:
    x = torch.randn(1, 256, 50, 84, device=device, requires_grad=True)
    weight = torch.randn(256, 256, 3, 3, device=device, requires_grad=True)
    offset = (torch.randn(1, 18, 50, 84, device=device) * 2).requires_grad_()
    mask = torch.rand(1, 9, 50, 84, device=device, requires_grad=True)
    leaves = [x, offset, weight, mask]

    def ours() -> Tensor:
        return det_ops.deform_conv2d(x, offset, weight, mask, None, 1, 1)

    def peer() -> Tensor:
        return tv.deform_conv2d(x, offset, weight, None, 1, 1, 1, mask)

    flops = 2.0 * 256 * 256 * 9 * 50 * 84
    with torch.no_grad():
        yield Work("deform_conv2d 256x50x84 forward", ours, peer, "torchvision", flops=flops)
    backward = (differentiated(ours, leaves), differentiated(peer, leaves))
    yield Work("deform_conv2d 256x50x84 backward", *backward, "torchvision", flops=2 * flops)
    wanted = torch.rand(1, 50, 84, device=device) < 0.1
    data, filters = x.detach(), weight.detach()
    yield Work(
        "masked_conv2d 256x50x84, a tenth",
        lambda: det_ops.masked_conv2d(data, wanted, filters, None, 1),
        lambda: F.conv2d(data, filters, None, 1, 1) * wanted[:, None],
        "plain torch",
        flops=flops / 10,
    )


def focal(device: str) -> Iterator[Work]:
    logits = torch.randn(50400, 80, device=device).requires_grad_()
    target = torch.where(torch.rand(50400) < 0.01, torch.randint(0, 80, (50400,)), 80).to(device)
    one_hot = F.one_hot(target, 81)[:, :80].float()
    yield Work(
        "focal 50400x80 forward + backward",
        lambda: torch.autograd.grad(det_ops.sigmoid_focal_loss(logits, target, reduction="sum"), logits),
        lambda: torch.autograd.grad(tv.sigmoid_focal_loss(logits, one_hot, reduction="sum"), logits),
        "torchvision",
        bytes=3.0 * 4 * logits.numel(),
    )


def pasting(device: str) -> Iterator[Work]:
    """100 masks of smooth outlines in an 800 x 1333 image: to bitmaps, and to run-length codes."""
    size, boxes = (800, 1333), random_boxes(100, 16, 448, device)
    coarse = torch.randn(100, 1, 5, 5, device=device) * 4
    masks = F.interpolate(coarse, (28, 28), mode="bicubic")[:, 0].sigmoid()
    for rule in ("sampled", "resized"):
        yield Work(
            f"paste_masks 100x28x28 {rule}",
            lambda r=rule: det_ops.paste_masks(masks, boxes, size, 0.5, r),
            lambda: paste_masks_in_image(masks[:, None], boxes, size),
            "torchvision (before comparing)",
            bytes=100.0 * 800 * 1333,
        )
    if device != "cpu":
        return

    def encoded() -> list[dict[str, object]]:
        bitmaps = det_ops.paste_masks(masks, boxes, size, 0.5, "resized")
        return [coco_mask.encode(np.asfortranarray(bitmap)) for bitmap in bitmaps.numpy().view(np.uint8)]

    yield Work(
        "paste_mask_codes 100x28x28",
        lambda: det_ops.paste_mask_codes(masks, boxes, size, 0.5, "resized"),
        encoded,
        "our bitmaps, pycocotools.encode",
    )


def colours(device: str) -> Iterator[Work]:
    """An image of SSD300, pixel by pixel in memory: each change alone, and all of them."""
    if device != "cpu":
        return
    image = torch.randint(0, 256, (300, 300, 3), dtype=torch.uint8).permute(2, 0, 1)
    steps: list[tuple[det_ops.ColorStep, float]]
    steps = [("brightness", 1.1), ("contrast", 0.8), ("saturation", 0.9), ("hue", 0.03)]

    def torchvision(chosen: list[tuple[det_ops.ColorStep, float]]) -> Tensor:
        changed = image
        for step, factor in chosen:
            changed = getattr(color_functions, f"adjust_{step}")(changed, factor)
        return changed

    for name, chosen in [*((step, [(step, factor)]) for step, factor in steps), ("all", steps)]:
        yield Work(
            f"adjust_colors 300x300 {name}",
            lambda c=chosen: det_ops.adjust_colors(image, c),
            lambda c=chosen: torchvision(c),
            "torchvision",
            bytes=2.0 * image.numel(),
        )


def small(device: str) -> Iterator[Work]:
    """Inputs on which a second thread must not cost anything: each call ours twice, the peer being torchvision."""
    for count in (50, 200, 500):
        boxes, scores = clustered_boxes(count, 40, device), torch.rand(count, device=device)
        groups = torch.randint(0, 5, (count,), device=device)
        yield Work(
            f"nms {count}",
            lambda b=boxes, s=scores: det_ops.nms(b, s, 0.5),
            lambda b=boxes, s=scores: tv.nms(b, s, 0.5),
            "torchvision",
        )
        yield Work(
            f"batched_nms {count}",
            lambda b=boxes, s=scores, g=groups: det_ops.batched_nms(b, s, g, 0.5),
            lambda b=boxes, s=scores, g=groups: tv.batched_nms(b, s, g, 0.5),
            "torchvision",
        )
    maps = torch.randn(1, 256, 25, 42, device=device)
    for count in (4, 32):
        rois = torch.cat([torch.zeros(count, 1, device=device), random_boxes(count, 32, 256, device)], 1)
        yield Work(
            f"roi_align {count}x256x7x7",
            lambda r=rois: det_ops.roi_align(maps, r, (7, 7), 1 / 32),
            lambda r=rois: tv.roi_align(maps, r, (7, 7), 1 / 32, -1, True),
            "torchvision",
        )
    logits, target = torch.randn(500, 20, device=device), torch.randint(0, 21, (500,), device=device)
    one_hot = F.one_hot(target, 21)[:, :20].float()
    yield Work(
        "focal 500x20",
        lambda: det_ops.sigmoid_focal_loss(logits, target, reduction="sum"),
        lambda: tv.sigmoid_focal_loss(logits, one_hot, reduction="sum"),
        "torchvision",
    )


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def timed(call: Call, device: str) -> float:
    clock = time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    synchronise(device)
    start = clock()
    call()
    synchronise(device)
    return clock() - start


def best_times(work: Work, device: str, seconds: float) -> tuple[float, float]:
    """The best round of ours and of the peer's, in turn, until the time is used up; at least three of each."""
    timed(work.ours, device), timed(work.peer, device)  # the first call of each loads and allocates
    ours: list[float] = []
    peer: list[float] = []
    end = time.perf_counter() + seconds
    while len(peer) < 3 or time.perf_counter() < end:
        ours.append(min(timed(work.ours, device) for _ in range(3)))
        peer.append(timed(work.peer, device))
    return min(ours), min(peer)


def machine(device: str) -> tuple[float, float]:
    """Bytes per second of a copy, and floating-point operations per second of a matrix product."""
    source = torch.randn(1 << 24, device=device)
    target = torch.empty_like(source)
    copy = min(timed(lambda: target.copy_(source), device) for _ in range(7))
    left, right = torch.randn(1024, 2304, device=device), torch.randn(2304, 1024, device=device)
    product = min(timed(lambda: left @ right, device) for _ in range(7))
    return 8 * source.numel() / copy, 2.0 * 1024 * 1024 * 2304 / product


def show(results: list[Result], console: Console) -> None:
    for threads in sorted({r.threads for r in results}):
        table = Table(title=f"{threads} thread{'s' if threads > 1 else ''}")
        for column in ("workload", "ours ms", "peer ms", "ratio", "floor ms", "x floor", "peak MB", "its peak", "peer"):
            table.add_column(column, justify="left" if column in ("workload", "peer") else "right", no_wrap=True)
        for r in results:
            if r.threads != threads:
                continue
            floor = (f"{r.floor_ms:.3f}", f"{r.floors:.1f}") if r.floor_ms else ("", "")
            cells = (r.name, f"{r.ours_ms:.3f}", f"{r.peer_ms:.3f}", f"{r.ratio:.1f}x", *floor)
            table.add_row(*cells, f"{r.peak_mb:.1f}", f"{r.peer_peak_mb:.1f}", r.peer)
        console.print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--only", nargs="+", default=[], help="workloads whose name contains one of these")
    parser.add_argument("--seconds", type=float, default=1.5, help="time for each workload")
    parser.add_argument("--small", action="store_true", help="small inputs instead")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args()
    console = Console(width=160)
    served = {op.name: op.served_by for op in det_ops.status(options.device)}
    console.print(f"torch {torch.__version__}, {options.device}, served by: {', '.join(sorted(set(served.values())))}")
    groups = (small,) if options.small else (suppression, overlaps, pooling, convolution, focal, pasting, colours)
    results: list[Result] = []
    failures = 0
    for threads in options.threads if options.device == "cpu" else [1]:
        torch.set_num_threads(threads)
        bandwidth, rate = machine(options.device)
        console.print(f"{threads} thread(s): copy {bandwidth / 1e9:.1f} GB/s, matrix product {rate / 1e9:.0f} GFLOP/s")
        for group in groups:
            torch.manual_seed(0)
            for work in group(options.device):
                if options.only and not any(part in work.name for part in options.only):
                    continue
                try:
                    results.append(measured(work, threads, options, bandwidth, rate))
                except Exception as error:  # the next workloads run
                    failures += 1
                    traceback.print_exc()
                    console.print(f"{work.name}: FAILED: {type(error).__name__}: {error}", markup=False)
                write(results, options.json)
    show(results, console)
    write(results, options.json)
    return int(failures > 0)


def measured(work: Work, threads: int, options: argparse.Namespace, bandwidth: float, rate: float) -> Result:
    """The figures of one workload."""
    ours, peer = best_times(work, options.device, options.seconds)
    floor = max(work.bytes / bandwidth, work.flops / rate)
    memory = peak(work.ours, options.device), peak(work.peer, options.device)
    over = ours / floor if floor else 0.0
    row = (1e3 * ours, 1e3 * peer, work.peer_name, peer / ours, 1e3 * floor, over, *memory)
    return Result(work.name, threads, *row)


def write(results: list[Result], path: Path | None) -> None:
    """The figures so far."""
    if path is not None:
        path.write_text(json.dumps([asdict(r) for r in results], indent=1))


if __name__ == "__main__":
    raise SystemExit(main())
