"""The schema of every operator and the kernel that serves it where no native one does.

Each name is defined here once, under the namespace `det`. A native library registers its kernels for its own device
and takes precedence; until then, or without one, the kernels of this module run: torchvision where its definition
agrees, else the reference. So callers, compiled code and exported graphs never change.

Letters: N boxes, M objects, K regions, B images, C channels, H W feature size, h w output size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from det_ops import service
from det_ops.reference import boxes as ref_boxes
from det_ops.reference import convolution, focal, pooling
from det_ops.reference.gradient import vjp
from det_ops.reference.precision import compute_dtype, full

LIBRARY = torch.library.Library("det", "DEF")
NAMES: list[str] = []


def operator(schema: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Defines `det::<schema>`, served by the decorated function wherever no native kernel is registered."""
    name = schema.split("(")[0]
    NAMES.append(name)
    LIBRARY.define(schema)

    def register(fallback: Callable[..., Any]) -> Callable[..., Any]:
        def kernel(*arguments: Any) -> Any:
            if service.native_ready(name, _device(arguments)):
                return getattr(torch.ops.det, name).default(*arguments)
            return fallback(*arguments)

        LIBRARY.impl(name, kernel, "CompositeExplicitAutograd")
        return fallback

    return register


def _device(arguments: Sequence[Any]) -> str:
    """Where the first tensor lies; tensor lists come first and are never empty in a call that computes."""
    for argument in arguments:
        if isinstance(argument, Tensor):
            return argument.device.type
        if isinstance(argument, list) and argument and isinstance(argument[0], Tensor):
            return str(argument[0].device.type)
    return "cpu"


def layout_of(x: Tensor) -> torch.memory_format:
    """channels_last for maps (B, C, H, W) that are stored so and not otherwise too; results keep it."""
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


# Suppression ---------------------------------------------------------------------------------------------------------


@operator("nms(Tensor boxes, Tensor scores, float threshold, int offset) -> Tensor")
def _nms(boxes: Tensor, scores: Tensor, threshold: float, offset: int) -> Tensor:
    peer = service.torchvision_ops()
    if peer is not None and offset == 0 and len(boxes):
        boxes = full(boxes)
        # torchvision compares with the double; ours is the threshold in the precision of the computation.
        limit = float(torch.tensor(threshold, dtype=torch.float32)) if boxes.dtype == torch.float32 else threshold
        # It may sort a NaN score, or equal ones, in another way: ranks leave no choice.
        order = torch.sort(scores, descending=True, stable=True).indices
        rank = torch.empty_like(boxes[:, 0])
        rank[order] = torch.arange(len(order), 0, -1, dtype=rank.dtype, device=rank.device)
        kept: Tensor = peer.nms(boxes, rank, limit)
        return kept
    return ref_boxes.nms(boxes, scores, threshold, offset)


@operator("batched_nms(Tensor boxes, Tensor scores, Tensor groups, float threshold) -> Tensor")
def _batched_nms(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> Tensor:
    if len(boxes) == 0:
        return torch.zeros(0, dtype=torch.int64, device=boxes.device)
    # One stable sort by group makes each group a slice, with its members in their first order.
    order = torch.sort(groups, stable=True).indices
    sizes = torch.unique_consecutive(groups[order], return_counts=True)[1].tolist()
    kept = torch.cat([part[_nms(boxes[part], scores[part], threshold, 0)] for part in order.split(sizes)])
    return ref_boxes.by_score(kept, scores)


@operator("nms_padded(Tensor boxes, Tensor scores, Tensor groups, float threshold, int max_out) -> (Tensor, Tensor)")
def _nms_padded(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float, max_out: int) -> tuple[Tensor, Tensor]:
    return ref_boxes.padded(_batched_nms(boxes, scores, groups, threshold), max_out)


operator(
    "soft_nms(Tensor boxes, Tensor scores, float threshold, float sigma, float min_score, str method)"
    " -> (Tensor, Tensor)"
)(ref_boxes.soft_nms)
operator("box_overlaps(Tensor boxes, Tensor others, str mode, bool aligned, int offset) -> Tensor")(
    ref_boxes.box_overlaps
)
operator(
    "max_iou_assign(Tensor boxes, Tensor objects, float positive, float negative, float min_positive,"
    " bool low_quality, bool all_ties) -> (Tensor, Tensor)"
)(ref_boxes.max_iou_assign)

# Pooling -------------------------------------------------------------------------------------------------------------


def check_images(rois: Tensor, images: int) -> None:
    """Raise for a region of rois (K, 5) whose image is not there; only where looking costs no synchronisation."""
    _check_range("rois name an image outside", rois[:, 0], images)


def _check_range(text: str, numbers: Tensor, count: int) -> None:
    """Raise if any of numbers (K,) is not in 0..count-1, naming the first; only where looking costs no sync."""
    if numbers.device.type != "cpu":
        return
    wrong = (~((numbers >= 0) & (numbers < count))).nonzero().flatten()
    if len(wrong):
        row = int(wrong[0])
        raise RuntimeError(f"{text} 0..{count - 1}: row {row} has {numbers[row].item():g}")


def _ordinary(rois: Tensor, maps: Tensor, scale: float) -> bool:
    """Whether torchvision can take these regions (K, 5) of maps (B, C, H, W).

    On a CPU it crashes for one that is not finite or turned inside out, and visits every sample of a huge one; on a GPU
    it does not crash, and looking would make the host wait.
    """
    if rois.device.type != "cpu":
        return True
    extent = (rois[:, 3:] - rois[:, 1:3]) * scale
    return bool(((extent >= 0) & (extent <= 4 * max(maps.shape[2:]) + 64) & rois[:, 1:3].isfinite()).all())


@operator(
    "roi_align(Tensor[] features, Tensor rois, Tensor levels, int[] size, float[] scales, int sampling,"
    " str alignment, str mode) -> Tensor"
)
def _roi_align(
    features: list[Tensor],
    rois: Tensor,
    levels: Tensor,
    size: Sequence[int],
    scales: Sequence[float],
    sampling: int,
    alignment: str,
    mode: str,
) -> Tensor:
    check_images(rois, len(features[0]))
    _check_range("levels name one outside", levels, len(features))
    shape = (size[0], size[1])
    pooled = None
    peer = service.torchvision_ops()
    if peer is not None and mode == "avg" and alignment != "v1" and features[0].device.type in ("cpu", "cuda"):
        # Coordinates in half precision would be off by whole pixels, and torchvision wants one dtype for both.
        pooled = features[0].new_zeros((len(rois), features[0].shape[1], *shape))
        for number, (maps, scale) in enumerate(zip(features, scales, strict=True)):
            member = (levels == number).nonzero().flatten()
            mine = rois[member].to(compute_dtype(maps.dtype))
            if _ordinary(mine, maps, scale):
                part = peer.roi_align(full(maps), mine, shape, scale, sampling or -1, alignment == "aligned")
            else:
                part = pooling.roi_align([maps], mine, levels[member] * 0, shape, [scale], sampling, alignment, mode)
            pooled.index_copy_(0, member, part.to(pooled.dtype))
    else:
        pooled = pooling.roi_align(features, rois, levels, shape, scales, sampling, alignment, mode)
    return pooled.contiguous(memory_format=layout_of(features[0]))


@operator(
    "roi_align_backward(Tensor grad, Tensor[] features, Tensor rois, Tensor levels, int[] shapes, float[] scales,"
    " int sampling, str alignment, str mode, bool channels_last) -> Tensor[]"
)
def _roi_align_backward(
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
    # An average's gradient does not depend on the features, so they are not kept for it: zeros stand in.
    maps = features or [grad.new_zeros(shapes[i : i + 4]) for i in range(0, len(shapes), 4)]
    size = (grad.shape[2], grad.shape[3])

    def forward(*maps: Tensor) -> Tensor:
        return pooling.roi_align(maps, rois, levels, size, scales, sampling, alignment, mode)

    found: list[Tensor | None] = []
    if service.torchvision_ops() is not None and mode == "avg" and alignment != "v1":
        for number, (like, scale) in enumerate(zip(maps, scales, strict=True)):
            member = (levels == number).nonzero().flatten()
            mine = rois[member].to(compute_dtype(grad.dtype))
            if not _ordinary(mine, like, scale):
                found = []
                break
            aligned = alignment == "aligned"
            found.append(
                torch.ops.torchvision._roi_align_backward(
                    full(grad)[member].contiguous(), mine, scale, *size, *like.shape, sampling or -1, aligned
                )
            )
    # In full precision, so that sums are rounded once.
    found = found or vjp(forward, [full(m) for m in maps], grad)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return [g.to(grad.dtype).contiguous(memory_format=layout) for g in found if g is not None]


@operator("roi_pool(Tensor features, Tensor rois, int[] size, float scale) -> (Tensor, Tensor)")
def _roi_pool(features: Tensor, rois: Tensor, size: Sequence[int], scale: float) -> tuple[Tensor, Tensor]:
    check_images(rois, len(features))
    pooled, positions = pooling.roi_pool(features, rois, (size[0], size[1]), scale)
    layout = layout_of(features)
    return pooled.contiguous(memory_format=layout), positions.contiguous(memory_format=layout)


@operator("roi_pool_backward(Tensor grad, Tensor positions, Tensor rois, int[] shape, bool channels_last) -> Tensor")
def _roi_pool_backward(
    grad: Tensor, positions: Tensor, rois: Tensor, shape: Sequence[int], channels_last: bool
) -> Tensor:
    images, channels, height, width = shape
    result = torch.zeros((images, channels, height * width), dtype=compute_dtype(grad.dtype), device=grad.device)
    image = rois[:, 0].long()[:, None, None].expand(-1, channels, grad.shape[2] * grad.shape[3])
    channel = torch.arange(channels, device=grad.device)[None, :, None].expand_as(image)
    at, known = positions.flatten(2), positions.flatten(2) >= 0
    result.index_put_((image[known], channel[known], at[known]), full(grad).flatten(2)[known], accumulate=True)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return result.to(grad.dtype).view(images, channels, height, width).contiguous(memory_format=layout)


@operator(
    "deform_roi_pool(Tensor features, Tensor rois, Tensor? offset, int[] size, float scale, int sampling,"
    " float gamma) -> Tensor"
)
def _deform_roi_pool(
    features: Tensor,
    rois: Tensor,
    offset: Tensor | None,
    size: Sequence[int],
    scale: float,
    sampling: int,
    gamma: float,
) -> Tensor:
    check_images(rois, len(features))
    pooled = pooling.deform_roi_pool(features, rois, offset, (size[0], size[1]), scale, sampling, gamma)
    return pooled.contiguous(memory_format=layout_of(features))


@operator(
    "deform_roi_pool_backward(Tensor grad, Tensor features, Tensor rois, Tensor? offset, float scale, int sampling,"
    " float gamma) -> (Tensor, Tensor)"
)
def _deform_roi_pool_backward(
    grad: Tensor,
    features: Tensor,
    rois: Tensor,
    offset: Tensor | None,
    scale: float,
    sampling: int,
    gamma: float,
) -> tuple[Tensor, Tensor]:
    size = (grad.shape[2], grad.shape[3])

    def forward(maps: Tensor, shift: Tensor | None) -> Tensor:
        return pooling.deform_roi_pool(maps, rois, shift, size, scale, sampling, gamma)

    return _pair(vjp(forward, [full(features), None if offset is None else full(offset)], grad), features, offset)


def _pair(grads: list[Tensor | None], features: Tensor, offset: Tensor | None) -> tuple[Tensor, Tensor]:
    """Gradients in the dtype and layout of what they belong to; an empty one where there is no offset."""
    maps, shift = grads
    if maps is None:
        raise RuntimeError("the gradient of the features is missing")
    maps = maps.to(features.dtype).contiguous(memory_format=layout_of(features))
    if shift is None or offset is None:
        return maps, features.new_empty(0)
    return maps, shift.to(offset.dtype).contiguous()


@operator(
    "deform_psroi_pool(Tensor features, Tensor rois, Tensor? offset, int[] size, float scale, int channels,"
    " int group, int part, int samples, float gamma) -> Tensor"
)
def _deform_psroi_pool(
    features: Tensor,
    rois: Tensor,
    offset: Tensor | None,
    size: Sequence[int],
    scale: float,
    channels: int,
    group: int,
    part: int,
    samples: int,
    gamma: float,
) -> Tensor:
    check_images(rois, len(features))
    shape = (size[0], size[1])
    pooled = pooling.deform_psroi_pool(features, rois, offset, shape, scale, channels, group, part, samples, gamma)
    return pooled.contiguous(memory_format=layout_of(features))


@operator(
    "deform_psroi_pool_backward(Tensor grad, Tensor features, Tensor rois, Tensor? offset, float scale, int group,"
    " int part, int samples, float gamma) -> (Tensor, Tensor)"
)
def _deform_psroi_pool_backward(
    grad: Tensor,
    features: Tensor,
    rois: Tensor,
    offset: Tensor | None,
    scale: float,
    group: int,
    part: int,
    samples: int,
    gamma: float,
) -> tuple[Tensor, Tensor]:
    channels, size = grad.shape[1], (grad.shape[2], grad.shape[3])

    def forward(maps: Tensor, shift: Tensor | None) -> Tensor:
        return pooling.deform_psroi_pool(maps, rois, shift, size, scale, channels, group, part, samples, gamma)

    return _pair(vjp(forward, [full(features), None if offset is None else full(offset)], grad), features, offset)


# Convolution ---------------------------------------------------------------------------------------------------------


@operator(
    "deform_conv2d(Tensor x, Tensor offset, Tensor weight, Tensor? mask, Tensor? bias, int[] stride, int[] padding,"
    " int[] dilation, int groups, int offset_groups) -> Tensor"
)
def _deform_conv2d(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    offset_groups: int,
) -> Tensor:
    if service.torchvision_ops() is not None and _finite(offset, x):
        real = compute_dtype(x.dtype)
        result: Tensor = torch.ops.torchvision.deform_conv2d(
            x.to(real),
            weight.to(real),
            offset.to(real),
            x.new_zeros((len(x), 1), dtype=real) if mask is None else mask.to(real),
            x.new_zeros(len(weight), dtype=real) if bias is None else bias.to(real),
            *stride,
            *padding,
            *dilation,
            groups,
            offset_groups,
            mask is not None,
        )
        result = result.to(x.dtype)
    else:
        result = convolution.deform_conv2d(
            x, offset, weight, mask, bias, stride, padding, dilation, groups, offset_groups
        )
    return result.contiguous(memory_format=layout_of(x))


@operator(
    "deform_conv2d_backward(Tensor grad, Tensor x, Tensor offset, Tensor weight, Tensor? mask, int[] stride,"
    " int[] padding, int[] dilation, int groups, int offset_groups) -> (Tensor, Tensor, Tensor, Tensor)"
)
def _deform_conv2d_backward(
    grad: Tensor,
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    mask: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    offset_groups: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    geometry = (stride, padding, dilation, groups, offset_groups)
    if service.torchvision_ops() is not None and _finite(offset, x):
        grads = _torchvision_deform_gradients(grad, x, offset, weight, mask, *geometry)
    else:

        def forward(x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None) -> Tensor:
            return convolution.deform_conv2d(x, offset, weight, mask, None, *geometry)

        grads = vjp(forward, [full(x), full(offset), full(weight), None if mask is None else full(mask)], grad)
    x_grad, offset_grad, weight_grad = (
        g.to(like.dtype) for g, like in zip(grads, (x, offset, weight), strict=False) if g is not None
    )
    last = grads[3]
    mask_grad = x.new_empty(0) if mask is None or last is None else last.to(mask.dtype).contiguous()
    x_grad = x_grad.contiguous(memory_format=layout_of(x))
    return x_grad, offset_grad.contiguous(), weight_grad.contiguous(), mask_grad


def _finite(offset: Tensor, x: Tensor) -> bool:
    """Whether torchvision can take these offsets (B, G * K * 2, h, w): on a CPU it crashes for what is no number.

    On a GPU it does not, and looking would make the host wait. It knows no other device, and no batch without images.
    """
    if x.device.type not in ("cpu", "cuda") or len(x) == 0:
        return False
    return x.device.type == "cuda" or bool(torch.isfinite(offset).all())


def _torchvision_deform_gradients(
    grad: Tensor,
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    mask: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    offset_groups: int,
) -> list[Tensor | None]:
    """Gradients of x (B, C, H, W), offset, weight and mask, with ours where a tap lies on the line around the image."""
    shift, kernel = full(offset), (weight.shape[2], weight.shape[3])
    factor = grad.new_zeros((len(x), 1), dtype=shift.dtype) if mask is None else full(mask)
    x_grad, weight_grad, offset_grad, mask_grad, _ = torch.ops.torchvision._deform_conv2d_backward(
        full(grad).contiguous(),
        full(x).contiguous(),
        full(weight).contiguous(),
        shift.contiguous(),
        factor.contiguous(),
        full(weight).new_zeros(len(weight)),
        *stride,
        *padding,
        *dilation,
        groups,
        offset_groups,
        mask is not None,
    )
    inside = convolution.taps_inside(x.shape[2:], shift, kernel, stride, padding, dilation, offset_groups)
    return [x_grad, torch.where(inside, offset_grad, 0.0), weight_grad, None if mask is None else mask_grad]


@operator("masked_conv2d(Tensor x, Tensor mask, Tensor weight, Tensor? bias, int[] padding) -> Tensor")
def _masked_conv2d(x: Tensor, mask: Tensor, weight: Tensor, bias: Tensor | None, padding: Sequence[int]) -> Tensor:
    result = convolution.masked_conv2d(x, mask, weight, bias, padding)
    return result.contiguous(memory_format=layout_of(x))


# Loss ----------------------------------------------------------------------------------------------------------------


@operator(
    "sigmoid_focal_loss(Tensor logits, Tensor target, Tensor? weight, float gamma, float alpha, bool summed) -> Tensor"
)
def _sigmoid_focal_loss(
    logits: Tensor, target: Tensor, weight: Tensor | None, gamma: float, alpha: float, summed: bool
) -> Tensor:
    check_target(target, logits.shape[1])
    loss = focal.sigmoid_focal_loss(logits, target, weight, gamma, alpha)
    return loss.sum() if summed else loss.contiguous()


def check_target(target: Tensor, classes: int) -> None:
    """Raise for a target (N,) that is no class, background or ignored; only where looking costs no synchronisation."""
    if target.device.type == "cpu" and len(target) and int(target.max()) > classes:
        row = int((target > classes).nonzero()[0])
        text = f"expected at most {classes} (background), or a negative one to ignore the row"
        raise RuntimeError(f"target has {int(target[row])} in row {row}, {text}")


@operator(
    "sigmoid_focal_loss_backward(Tensor grad, Tensor logits, Tensor target, Tensor? weight, float gamma, float alpha)"
    " -> Tensor"
)
def _sigmoid_focal_loss_backward(
    grad: Tensor, logits: Tensor, target: Tensor, weight: Tensor | None, gamma: float, alpha: float
) -> Tensor:
    def forward(logits: Tensor) -> Tensor:
        loss = focal.sigmoid_focal_loss(logits, target, weight, gamma, alpha)
        return loss.sum() if grad.dim() == 0 else loss

    found = vjp(forward, [full(logits)], grad)[0]
    if found is None:
        raise RuntimeError("the gradient of the logits is missing")
    return found.to(logits.dtype).contiguous()
