"""Inputs of every operator, calls of its implementations, and the comparison of their results."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from det_ops import dispatch
from det_ops.memory_format import memory_format_of

LAST, PLANES = torch.channels_last, torch.contiguous_format
# The largest error of a value relative to the largest of all, by dtype of the features.
CLOSE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 1e-2}
# The error of kernels for wrong data: the dispatcher converts a ValueError in C++ to a RuntimeError.
WRONG_DATA = RuntimeError
FORWARD = tuple(name for name in dispatch.FALLBACKS if not name.endswith("_backward"))
COMPOSED = ("nms_images",)  # their definition calls another operator, which has kernels
BACKWARD = tuple(name for name in dispatch.FALLBACKS if name.endswith("_backward"))


@contextlib.contextmanager
def no_torchvision() -> Iterator[None]:
    """Simulates a missing torchvision: the fallback of every operator is its reference."""
    with mock.patch.object(dispatch, "torchvision_ops", return_value=None):
        yield


def reference(name: str, *arguments: Any) -> Any:
    with no_torchvision():
        return dispatch.call_fallback(name, *arguments)


def native(name: str, *arguments: Any) -> Any:
    return getattr(torch.ops.det, name).default(*arguments)


def assert_close(found: Any, expected: Any, tolerance: float) -> None:
    """Compares shape, dtype and layout of all tensors; values up to tolerance * the largest, integers exactly."""
    ours, theirs = pytree.tree_leaves(found), pytree.tree_leaves(expected)
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        assert memory_format_of(a) == memory_format_of(b) or a.dim() != 4
        if not a.is_floating_point():
            torch.testing.assert_close(a, b, rtol=0, atol=0)
            continue
        finite = b[b.isfinite()].abs()
        largest = float(finite.max()) if finite.numel() else 0.0
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance * max(largest, 1e-30), equal_nan=True)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def boxes(count: int, seed: int = 0, side: float = 100.0, dtype: torch.dtype = torch.float32) -> Tensor:
    """(count, 4) overlapping boxes, some of them at negative coordinates."""
    rng = generator(seed)
    corner = torch.rand(count, 2, generator=rng, dtype=torch.float64) * side - side / 4
    size = torch.rand(count, 2, generator=rng, dtype=torch.float64) * side / 3
    return torch.cat([corner, corner + size], 1).to(dtype)


def table(drawn: list[Any], dtype: torch.dtype = torch.float32) -> Tensor:
    """(N, 4) boxes drawn by hypothesis."""
    return torch.tensor(drawn, dtype=dtype).reshape(-1, 4)


def overlap_on_paper(a: list[float], b: list[float], mode: str = "iou", offset: int = 0) -> float:
    """One overlap, from lists of floats."""
    inter = max(0.0, min(a[2], b[2]) - max(a[0], b[0]) + offset) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]) + offset)
    first = (a[2] - a[0] + offset) * (a[3] - a[1] + offset)
    union = first if mode == "iof" else first + (b[2] - b[0] + offset) * (b[3] - b[1] + offset) - inter
    iou = inter / max(union, 1e-6)
    if mode != "giou":
        return iou
    width, height = max(a[2], b[2]) - min(a[0], b[0]) + offset, max(a[3], b[3]) - min(a[1], b[1]) + offset
    hull = max(max(0.0, width) * max(0.0, height), 1e-6)
    return iou - (hull - union) / hull


def scores(count: int, seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(count, generator=generator(seed), dtype=torch.float64).to(dtype)


def maps(
    *shape: int, dtype: torch.dtype = torch.float32, layout: torch.memory_format = PLANES, seed: int = 2
) -> Tensor:
    values = torch.randn(shape, generator=generator(seed), dtype=torch.float64)
    return values.to(dtype).contiguous(memory_format=layout)


def pixels(*shape: int, seed: int = 11) -> Tensor:
    return torch.randint(0, 256, shape, generator=generator(seed), dtype=torch.uint8)


def codes() -> tuple[Tensor, Tensor, int, int, Tensor, Tensor]:
    """Codes of three masks of 4 x 3, their offsets and size, and the rows and columns of an image of 16 x 12."""
    texts = [b"<", b"0<", b"2402"]  # nothing; everything; runs of 2, 4, 0 and 4 + 2 pixels
    text = torch.frombuffer(bytearray(b"".join(texts)), dtype=torch.uint8)
    bounds = torch.tensor([0, *torch.tensor([len(t) for t in texts]).cumsum(0).tolist()])
    return text, bounds, 4, 3, torch.arange(16) // 4, torch.arange(11, -1, -1) // 4


def pasted(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Masks (5, 7, 7), their boxes, one without area and some partly outside 30 x 40 pixels, and which are mirrored."""
    regions = boxes(5, side=40.0)
    regions[3, 2] = regions[3, 0]
    return maps(5, 7, 7, dtype=dtype).sigmoid(), regions.to(dtype), torch.arange(5) % 2 == 1


def rois(count: int, images: int = 2, width: float = 30.0, height: float = 22.0, seed: int = 3) -> Tensor:
    """(count, 5) float64, some partly outside; no edge near a whole number, where samples have kinks."""
    rng = generator(seed)
    low = torch.rand(count, 2, generator=rng, dtype=torch.float64) * torch.tensor([width, height]) * 0.8 - 3
    size = 2 + torch.rand(count, 2, generator=rng, dtype=torch.float64) * torch.tensor([width, height]) * 0.6
    edges = torch.cat([low, low + size], 1)
    edges = edges.floor() + 0.21 + 0.07 * torch.rand(count, 4, generator=rng, dtype=torch.float64)
    return torch.cat([torch.randint(0, images, (count, 1), generator=rng).double(), edges], 1)


def offsets(*shape: int, spread: float = 1.5, seed: int = 4) -> Tensor:
    """Float64 offsets whose fraction is in 0.15..0.85, away from the kinks at whole numbers."""
    rng = generator(seed)
    whole = (torch.rand(shape, generator=rng, dtype=torch.float64) * 2 - 1) * spread
    return whole.floor() + 0.15 + 0.7 * torch.rand(shape, generator=rng, dtype=torch.float64)


def _scored(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return boxes(70, dtype=dtype), scores(70, dtype=dtype)


def _groups(count: int) -> Tensor:
    return torch.randint(0, 4, (count,), generator=generator(7))


def _positions(features: Tensor, regions: Tensor) -> Tensor:
    return native("roi_pool", features, regions, [2, 3], 0.5)[1]


def arguments(name: str, dtype: torch.dtype = torch.float32, layout: torch.memory_format = PLANES) -> tuple[Any, ...]:
    """Small inputs of an operator in this dtype, with maps in this layout."""
    x = maps(2, 4, 11, 15, dtype=dtype, layout=layout)
    fine = maps(2, 4, 22, 30, dtype=dtype, layout=layout, seed=5)
    regions, levels = rois(5).to(dtype), torch.tensor([0, 1, 1, 0, 1])
    shift = offsets(5, 2, 2, 3, spread=0.5).to(dtype)
    parts = offsets(5, 4, 2, 2, spread=0.5).to(dtype)
    pooled = maps(5, 4, 2, 3, dtype=dtype, layout=layout, seed=6)
    sizes = [2, 4, 22, 30, 2, 4, 11, 15]
    weight, taps = maps(6, 2, 3, 3, dtype=dtype, seed=8), offsets(2, 36, 6, 8).to(dtype)
    mask, geometry = maps(2, 18, 6, 8, dtype=dtype, seed=9).sigmoid(), ([2, 2], [1, 1], [1, 1], 2, 2)
    logits, target = maps(9, 5, dtype=dtype) * 3, torch.tensor([0, 4, 5, -1, 2, 5, 5, 3, 1])
    factor = torch.tensor([1.0, 0.5, 2.0, 1.5, 3.0], dtype=dtype)
    return {
        "nms": lambda: (*_scored(dtype), 0.3, 1),
        "batched_nms": lambda: (*_scored(dtype), _groups(70), 0.3),
        "nms_padded": lambda: (*_scored(dtype), _groups(70), 0.3, 80),
        "nms_images": lambda: (
            *(boxes(140, dtype=dtype).reshape(2, 70, 4), scores(140, dtype=dtype).reshape(2, 70)),
            *(_groups(140).reshape(2, 70), 0.3, 80),
        ),
        "soft_nms": lambda: (*_scored(dtype), 0.3, 0.5, 0.05, "gaussian"),
        "box_overlaps": lambda: (boxes(19, dtype=dtype), boxes(21, 9, dtype=dtype), "giou", False, 1),
        "max_iou_assign": lambda: (boxes(70, dtype=dtype), boxes(6, 9, dtype=dtype), 0.5, 0.3, 0.1, True, True),
        "roi_align": lambda: ([fine, x], regions, levels, [2, 3], [1.0, 0.5], 0, "aligned", "avg"),
        "roi_align_backward": lambda: (
            *(pooled, [fine, x], regions, levels, sizes, [1.0, 0.5]),
            *(2, "v1", "max", layout is LAST),
        ),
        "roi_pool": lambda: (x, regions, [2, 3], 0.5),
        "roi_pool_backward": lambda: (pooled, _positions(x, regions), regions, list(x.shape), layout is LAST),
        "deform_roi_pool": lambda: (x, regions, shift, [2, 3], 0.5, 0, 0.1),
        "deform_roi_pool_backward": lambda: (pooled, x, regions, shift, 0.5, 2, 0.1),
        "deform_psroi_pool": lambda: (fine, regions, parts, [2, 3], 0.5, 4, 1, 2, 4, 0.1),
        "deform_psroi_pool_backward": lambda: (pooled, fine, regions, parts, 0.5, 1, 2, 4, 0.1),
        "deform_conv2d": lambda: (x, taps, weight, mask, weight[:, 0, 0, 0].clone(), *geometry),
        "deform_conv2d_backward": lambda: (
            maps(2, 6, 6, 8, dtype=dtype, layout=layout, seed=10),
            *(x, taps, weight, mask, *geometry),
        ),
        "masked_conv2d": lambda: (x, maps(2, 11, 15).relu(), maps(3, 4, 3, 3, dtype=dtype), None, [1, 1]),
        "sigmoid_focal_loss": lambda: (logits, target, factor, 2.0, 0.25, False),
        "mask_targets": lambda: (*codes(), torch.tensor([0, 2, 2, 1]), boxes(4, side=20.0, dtype=dtype), [4, 3]),
        "paste_masks": lambda: (*pasted(dtype), 30, 40, 0.5, "sampled"),
        "paste_mask_codes": lambda: (*pasted(dtype), 30, 40, 0.5, "resized"),
        "resize_bilinear": lambda: (pixels(2, 11, 15, 3), 22, 7, True, False, True, [14, 20, 1, 5], [1, 2, 3, 4, 5, 6]),
        "try_crops": lambda: (boxes(9), scores(80), 90, 120, [0.3, 1.0], [0.5, 2.0], 0.1),
        "adjust_colors": lambda: (pixels(11, 15, 3), [0, 1, 2, 3], [1.1, 0.7, 1.3, 0.04], [2, 0, 1]),
        "sigmoid_focal_loss_backward": lambda: (maps(9, 5), logits, target, factor, 1.5, 0.25),
    }[name]()


def with_gradients(name: str, given: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same inputs, with requires_grad for those that the operator is differentiable in."""
    wanted = {
        "roi_align": (0,),
        "roi_pool": (0,),
        "deform_roi_pool": (0, 2),
        "deform_psroi_pool": (0, 2),
        "deform_conv2d": (0, 1, 2, 3, 4),
        "sigmoid_focal_loss": (0,),
    }.get(name, ())
    return tuple(
        pytree.tree_map(lambda x: x.detach().clone().requires_grad_(), value) if i in wanted else value
        for i, value in enumerate(given)
    )


DIFFERENTIABLE = tuple(
    n
    for n in FORWARD
    if any(t.requires_grad for t in pytree.tree_leaves(with_gradients(n, arguments(n))) if isinstance(t, Tensor))
)

SERVERS = ("native", "torchvision", "reference")


def serve(server: str, name: str, *arguments: Any) -> Any:
    """The result of an operator from one of its implementations."""
    return {"native": native, "torchvision": dispatch.call_fallback, "reference": reference}[server](name, *arguments)


class ElementCount(TorchDispatchMode):
    """Counts the elements of all results that torch computes in this context; of a native kernel, its result only."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.elements += sum(x.numel() for x in pytree.tree_leaves(result) if isinstance(x, Tensor))
        return result


def scattered(x: Tensor) -> Tensor:
    """The same values with a stride of two everywhere, so that nothing is contiguous."""
    room = x.new_zeros([2 * side for side in x.shape])
    room[tuple(slice(None, None, 2) for _ in x.shape)] = x
    return room[tuple(slice(None, None, 2) for _ in x.shape)]
