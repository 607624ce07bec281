"""The operators of `det_ops` that detectors use, in operators of ONNX. Importing this module imports onnxscript.

Letters: B images, n boxes, G groups, k kept boxes, R regions, C channels, h w output size. Boxes are xyxy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from onnxscript import FLOAT, INT64, opset20

import det_ops
from det_core.padded import NotExportableError

OPSET = 20
op: Any = opset20  # its annotations are those of eager evaluation
LOWEST = -3.0e38  # NonMaxSuppression visits the boxes whose score is above this: all but those of -inf


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """How `torch.onnx.export` translates the operators of `det_ops`."""
    assert det_ops.status is not None  # imported, so that the operators are registered
    return {
        torch.ops.det.nms_images.default: nms_images,
        torch.ops.det.roi_align.default: roi_align,
        torch.ops.det.deform_conv2d.default: deform_conv2d,
        torch.ops.det.masked_conv2d.default: masked_conv2d,
    }


def nms_images(boxes: FLOAT, scores: FLOAT, groups: INT64, threshold: float, max_out: int) -> tuple[INT64, INT64]:
    """NonMaxSuppression, in which each group is a class, then the best of what it keeps, padded.

    It suppresses nothing across groups, as `det_ops.nms_images` requires. Of a group, at most `max_out` boxes can be
    returned. Boxes of a negative group, which padding has, are not kept; a caller cannot tell them from padding.
    """
    lowest = op.Constant(value_float=-math.inf)
    one, zero, step = op.Constant(value_ints=[1]), op.Constant(value_int=0), op.Constant(value_int=1)
    # (B, G, n): the scores of each group, -inf for boxes of other groups.
    last = op.ReduceMax(
        op.Concat(op.Reshape(groups, op.Constant(value_ints=[-1])), op.Constant(value_ints=[0]), axis=0), keepdims=0
    )
    numbers = op.Range(zero, op.Add(last, step), step)
    own = op.Equal(op.Unsqueeze(groups, one), op.Unsqueeze(numbers, one))
    per_group = op.Where(own, op.Unsqueeze(scores, one), lowest)
    selected = op.NonMaxSuppression(
        boxes,
        per_group,
        op.Constant(value_ints=[max_out]),
        op.Constant(value_floats=[float(threshold)]),
        op.Constant(value_floats=[LOWEST]),
    )
    # (B, n): 1 for what is kept. A box is of one group, so it is selected once.
    at = op.Gather(selected, op.Constant(value_ints=[0, 2]), axis=1)  # (k, 2) image and box
    count = op.Shape(at, start=0, end=1)
    zeros = op.Expand(op.Constant(value_floats=[0.0]), op.Shape(scores))
    kept = op.ScatterND(zeros, at, op.Expand(op.Constant(value_floats=[1.0]), count))
    remaining = op.Where(op.Greater(kept, op.Constant(value_float=0.5)), scores, lowest)
    size = op.Concat(op.Shape(scores, start=0, end=1), op.Constant(value_ints=[max_out]), axis=0)
    best, rows = op.TopK(
        op.Concat(remaining, op.Expand(lowest, size), axis=1), op.Constant(value_ints=[max_out]), axis=1
    )
    real = op.Greater(best, lowest)
    return op.Where(real, rows, op.Constant(value_int=-1)), op.ReduceSum(op.Cast(real, to=7), one, keepdims=0)


def roi_align(
    features: Sequence[FLOAT],
    rois: FLOAT,
    levels: INT64,
    size: Sequence[int],
    scales: Sequence[float],
    sampling: int,
    alignment: str,
    mode: str,
) -> FLOAT:
    """RoiAlign of each level's regions, written to the rows that these regions have."""
    if mode != "avg":
        raise NotExportableError(f"roi_align: found mode {mode!r}, but ONNX's RoiAlign can only average (avg)")
    if alignment == "v1":
        rois = op.Add(rois, op.Constant(value_floats=[0.0, 0.0, 0.0, 1.0, 1.0]))
    frame = "half_pixel" if alignment == "aligned" else "output_half_pixel"
    shape = op.Concat(
        op.Shape(rois, start=0, end=1),
        op.Shape(features[0], start=1, end=2),
        op.Constant(value_ints=list(size)),
        axis=0,
    )
    pooled = op.Expand(op.Constant(value_floats=[0.0]), shape)
    for number, (maps, scale) in enumerate(zip(features, scales)):
        rows = op.Transpose(op.NonZero(op.Equal(levels, op.Constant(value_int=number))), perm=[1, 0])  # (r, 1)
        own = op.GatherND(rois, rows)
        image = op.Cast(op.Squeeze(op.Slice(own, [0], [1], [1]), [1]), to=7)
        part = op.RoiAlign(
            maps,
            op.Slice(own, [1], [5], [1]),
            image,
            coordinate_transformation_mode=frame,
            mode="avg",
            output_height=size[0],
            output_width=size[1],
            sampling_ratio=sampling,
            spatial_scale=scale,
        )
        pooled = op.ScatterND(pooled, rows, part)
    return pooled


def deform_conv2d(
    x: FLOAT,
    offset: FLOAT,
    weight: FLOAT,
    mask: FLOAT | None,
    bias: FLOAT | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    offset_groups: int,
) -> FLOAT:
    """DeformConv."""
    return op.DeformConv(
        x,
        weight,
        offset,
        bias,
        mask,
        dilations=list(dilation),
        group=groups,
        offset_group=offset_groups,
        pads=[*padding, *padding],
        strides=list(stride),
    )


def masked_conv2d(x: FLOAT, mask: FLOAT, weight: FLOAT, bias: FLOAT | None, padding: Sequence[int]) -> FLOAT:
    """Conv everywhere, then 0 where the mask is not positive."""
    full = op.Conv(x, weight, bias, pads=[*padding, *padding])
    wanted = op.Unsqueeze(op.Greater(op.Cast(mask, to=1), op.Constant(value_float=0.0)), op.Constant(value_ints=[1]))
    return op.Where(wanted, full, op.Constant(value_float=0.0))
