"""RoIAlign from one feature map or from the levels of a feature pyramid.

Letters: L levels, K regions, B images, C channels, H W feature size, h w output size. Regions are (K, 5): image index,
x1, y1, x2, y2 in input pixels. Coordinates are computed in float32, or float64 for such features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from det_ops import checks
from det_ops.memory_format import empty_maps, match_format, memory_format_of, named_format
from det_ops.reference import pooling as reference
from det_ops.reference.gradient import vjp
from det_ops.reference.precision import compute_dtype, full
from det_ops.registration import gradient, operator
from det_ops.torch_internals import torchvision_gradient

PoolMode = Literal["avg", "max"]
Alignment = Literal["aligned", "unaligned", "v1"]
LevelRule = Literal["mmdet", "mmdet-v1", "detectron", "detectron2", "torchvision"]


def roi_align(
    features: Tensor,
    rois: Tensor,
    output_size: tuple[int, int],
    scale: float,
    sampling: int = 0,
    alignment: Alignment = "aligned",
    mode: PoolMode = "avg",
) -> Tensor:
    """RoIAlign (He et al., Mask R-CNN, 2017, section 3) from one feature map.

    Args:
        features: (B, C, H, W) floating point.
        rois: (K, 5) as (image index, x1, y1, x2, y2) in input pixels.
        output_size: (h, w).
        scale: Feature pixels per input pixel.
        sampling: Samples per bin and axis; 0 = the length of the bin in feature pixels, rounded up.
        alignment: "aligned" shifts by half a feature pixel, so that pixel centres lie at integers; "unaligned" does
            not shift, and makes regions at least one feature pixel large; "v1" adds one input pixel to x2 and y2
            (2019).
        mode: Average or maximum of the samples of a bin.

    Returns:
        (K, C, h, w) in the dtype and memory format of the features, differentiable in them only.

    Raises:
        ValueError: for other shapes, a size or scale that is not positive, or an unknown alignment or mode.
        TypeError: for features or rois that are not floating point.
        RuntimeError: on the CPU, for an image index outside 0..B-1; on a GPU such a region pools zeros.
    """
    levels = torch.zeros(rois.shape[:1], dtype=torch.int64, device=rois.device)
    return multi_level_roi_align([features], rois, levels, output_size, [scale], sampling, alignment, mode)


def multi_level_roi_align(
    features: Sequence[Tensor],
    rois: Tensor,
    levels: Tensor,
    output_size: tuple[int, int],
    scales: Sequence[float],
    sampling: int = 0,
    alignment: Alignment = "aligned",
    mode: PoolMode = "avg",
) -> Tensor:
    """RoIAlign that pools each region from the level it is assigned to, all levels in one call.

    Args:
        features: L maps (B, C, H_l, W_l) of one dtype.
        rois: (K, 5) as (image index, x1, y1, x2, y2) in input pixels.
        levels: (K,) int64 in 0..L-1; see `roi_levels`.
        output_size: (h, w).
        scales: Feature pixels per input pixel of each level.
        sampling, alignment, mode: as in `roi_align`.

    Returns:
        (K, C, h, w) in the dtype and memory format of the first map, differentiable in the features only.

    Raises:
        ValueError: as `roi_align`; also for maps of different batch sizes or numbers of channels.
        TypeError: for features or rois that are not floating point, maps of several dtypes, or other levels.
        RuntimeError: on the CPU, for an image index outside 0..B-1 or a level outside 0..L-1.
    """
    if len(features) == 0 or len(features) != len(scales):
        raise ValueError(f"found {len(features)} maps and {len(scales)} scales, expected one or more, equally many")
    checks.check_pooling(rois, output_size, *scales)
    first = features[0]
    for number, maps in enumerate(features):
        checks.check_features(maps, "features" if len(features) == 1 else f"features of level {number}")
        if maps.shape[:2] != first.shape[:2]:
            raise ValueError(f"features of level {number} have shape {tuple(maps.shape)}, level 0 {tuple(first.shape)}")
        if maps.dtype != first.dtype:
            raise TypeError(f"features of level {number} have dtype {maps.dtype}, those of level 0 {first.dtype}")
    checks.check_shape(levels, "levels have", rois.shape[:1], " to match rois")
    checks.check_int64(levels, "levels have")
    checks.check_at_least(sampling, "sampling", 0)
    checks.check_choice(alignment, "alignment", Alignment)
    checks.check_choice(mode, "mode", PoolMode)
    return _roi_align(list(features), rois.detach(), levels, output_size, list(scales), sampling, alignment, mode)


def roi_levels(rois: Tensor, count: int, finest_scale: float = 56.0, rule: LevelRule = "mmdet") -> Tensor:
    """The level from which each region is pooled, by its size (Lin et al., FPN, 2017, equation 1).

    Args:
        rois: (K, 5) as (image index, x1, y1, x2, y2) in input pixels.
        count: The number of levels, finest first.
        finest_scale: A region is assigned to the finest level if its side is below twice this length.
        rule: "mmdet" is floor(log2(sqrt(w h) / finest_scale + 1e-6)); "mmdet-v1" has w + 1 and h + 1 (2019);
            "detectron2" is floor(2 + log2(sqrt(w h) / (4 finest_scale) + 1e-8)), "detectron" has 1e-6; "torchvision" is
            floor(4 + log2(sqrt(w h) / (4 finest_scale)) + 1e-6) - 2.

    Returns:
        (K,) int64 in 0..count-1.

    Raises:
        ValueError: for other shapes or an unknown rule.
    """
    checks.check_rois(rois)
    checks.check_choice(rule, "rule", LevelRule)
    if count == 1:
        return rois.new_zeros(rois.shape[0], dtype=torch.int64)
    extra = 1 if rule == "mmdet-v1" else 0
    side = ((rois[:, 3] - rois[:, 1] + extra) * (rois[:, 4] - rois[:, 2] + extra)).clamp(min=0).sqrt()
    if rule in ("detectron", "detectron2"):
        level = (2 + torch.log2(side / (4 * finest_scale) + (1e-6 if rule == "detectron" else 1e-8))).floor()
    elif rule == "torchvision":
        level = (4 + torch.log2(side / (4 * finest_scale)) + 1e-6).floor() - 2
    else:
        level = torch.log2(side / finest_scale + 1e-6).floor()
    return level.nan_to_num(0).clamp(0, count - 1).long()


def _torchvision_accepts(rois: Tensor, shape: Sequence[int], scale: float) -> bool:
    """Whether torchvision can pool these regions (K, 5) from maps of this shape (B, C, H, W).

    On a CPU it crashes for regions that are not finite or are inverted, and visits every sample of a huge region. On a
    GPU it does not crash, and looking at the data would synchronise.
    """
    if rois.device.type != "cpu":
        return True
    extent = (rois[:, 3:] - rois[:, 1:3]) * scale
    return bool(((extent >= 0) & (extent <= 4 * max(shape[2:]) + 64) & rois[:, 1:3].isfinite()).all())


def _torchvision(peer: Any, features: list[Tensor], rois: Tensor, levels: Tensor, *options: Any) -> Tensor | None:
    size, scales, sampling, alignment, mode = options
    if mode != "avg" or alignment == "v1" or features[0].device.type not in ("cpu", "cuda"):
        return None
    checks.check_images(rois, len(features[0]))
    checks.check_index_range("levels name one outside", levels, len(features))
    pooled = features[0].new_zeros((len(rois), features[0].shape[1], *size))
    for number, (maps, scale) in enumerate(zip(features, scales, strict=True)):
        member = (levels == number).nonzero().flatten()
        # torchvision requires one dtype for both, and coordinates in half precision would be wrong by whole pixels.
        own = rois[member].to(compute_dtype(maps.dtype))
        if _torchvision_accepts(own, maps.shape, scale):
            part = peer.roi_align(full(maps), own, tuple(size), scale, sampling or -1, alignment == "aligned")
        else:
            part = reference.roi_align([maps], own, levels[member] * 0, size, [scale], sampling, alignment, mode)
        pooled.index_copy_(0, member, part.to(pooled.dtype))
    return match_format(pooled, features[0])


_roi_align = operator(
    "roi_align",
    reference.roi_align,
    fake=lambda maps, rois, levels, size, *_: empty_maps(maps[0], (rois.shape[0], maps[0].shape[1], *size)),
    torchvision=_torchvision,
)


def _reference_backward(
    grad: Tensor,
    features: list[Tensor],
    rois: Tensor,
    levels: Tensor,
    shapes: Sequence[int],
    scales: Sequence[float],
    sampling: int,
    alignment: str,
    mode: str,
    channels_last: bool,
) -> list[Tensor]:
    def forward(*maps: Tensor) -> Tensor:
        return reference.roi_align(maps, rois, levels, grad.shape[2:], scales, sampling, alignment, mode)

    # An average does not keep its features: its gradient does not depend on them, so zeros replace them.
    maps = features or [grad.new_zeros(shapes[i : i + 4]) for i in range(0, len(shapes), 4)]
    return [x.contiguous(memory_format=named_format(channels_last)) for x in vjp(forward, maps, grad)]


def _torchvision_backward(
    peer: Any, grad: Tensor, features: list[Tensor], rois: Tensor, levels: Tensor, *options: Any
) -> list[Tensor] | None:
    shapes, scales, sampling, alignment, mode, channels_last = options
    call = torchvision_gradient("roi_align")
    if call is None or mode != "avg" or alignment == "v1":
        return None
    grads = []
    for number, scale in enumerate(scales):
        shape = shapes[4 * number : 4 * number + 4]
        member = (levels == number).nonzero().flatten()
        own = rois[member].to(compute_dtype(grad.dtype))
        if not _torchvision_accepts(own, shape, scale):
            return None
        part = full(grad)[member].contiguous()
        found = call(part, own, scale, *grad.shape[2:], *shape, sampling or -1, alignment == "aligned")
        grads.append(found.to(grad.dtype).contiguous(memory_format=named_format(channels_last)))
    return grads


def _fake_backward(grad: Tensor, *others: Any) -> list[Tensor]:
    *_, shapes, _, _, _, _, channels_last = others
    return [empty_maps(grad, shapes[i : i + 4], channels_last) for i in range(0, len(shapes), 4)]


_roi_align_backward = operator(
    "roi_align_backward", _reference_backward, fake=_fake_backward, torchvision=_torchvision_backward
)


def _save(inputs: tuple[Any, ...], output: Tensor) -> tuple[Any, ...]:
    features, rois, levels, _, *options = inputs
    shapes = [side for maps in features for side in maps.shape]
    channels_last = memory_format_of(features[0]) is torch.channels_last
    # The gradient of an average does not need the features, so their memory can be freed.
    return [shapes, *options, channels_last], rois, levels, *(features if options[-1] == "max" else ())


@gradient("roi_align", save=_save)
def _gradients(grad: Tensor, options: list[Any], rois: Tensor, levels: Tensor, *features: Tensor) -> tuple[Any, ...]:
    return (_roi_align_backward(grad, list(features), rois, levels, *options),)
