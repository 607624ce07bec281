"""The targets of a mask head, from masks that stay compressed.

Letters: n objects, p regions, H W size of the masks as they are stored, h w size of the image.
"""

from __future__ import annotations

import torch
from torch import Tensor

from det_ops import checks
from det_ops.reference import masks as reference
from det_ops.registration import operator


def mask_targets(
    codes: Tensor,
    offsets: Tensor,
    stored_size: tuple[int, int],
    rows: Tensor,
    columns: Tensor,
    objects: Tensor,
    boxes: Tensor,
    output_size: tuple[int, int],
) -> Tensor:
    """The mask of each region's object, cropped to the region and resampled (He et al., Mask R-CNN, 2017, section 3).

    RoIAlign of scale 1 with adaptive sampling on the object's bitmap, compared with >= 0.5; the same bit by bit, but
    only what a region reads is ever decoded.

    Args:
        codes: (c,) uint8, COCO's compressed run-length codes of all objects, column by column.
        offsets: (n + 1,) int64: the code of object i is codes[offsets[i]:offsets[i + 1]].
        stored_size: (H, W) of the masks that are coded.
        rows: (h,) int64, the row of the stored masks that each row of the image reads. Resizing by nearest pixel,
            mirroring and cropping change only these.
        columns: (w,) int64, likewise.
        objects: (p,) int64, the object of each region.
        boxes: (p, 4) floating point, xyxy in pixels of the image.
        output_size: (height, width) of the result.

    Returns:
        (p, height, width) of the dtype of the boxes, 0 or 1.

    Raises:
        ValueError: for shapes other than these, or an output size that is not positive.
        TypeError: for other dtypes.
        RuntimeError: for a damaged code, or on the CPU an object, row or column that does not exist.
    """
    for name, indices in {"offsets": offsets, "rows": rows, "columns": columns, "objects": objects}.items():
        if indices.dim() != 1:
            raise ValueError(f"{name} have shape {tuple(indices.shape)}, expected one dimension")
        checks.check_int64(indices, f"{name} have")
    if codes.dim() != 1 or len(offsets) == 0:
        shapes = f"{tuple(codes.shape)} and {tuple(offsets.shape)}"
        raise ValueError(f"codes and offsets have shapes {shapes}, expected (c,) and (n + 1,)")
    if codes.dtype != torch.uint8:
        raise TypeError(f"codes have dtype {codes.dtype}, expected torch.uint8")
    checks.check_boxes(boxes)
    checks.check_shape(objects, "objects have", boxes.shape[:1], " to match boxes")
    if min(output_size) < 1 or min(stored_size) < 1:
        raise ValueError(f"output_size is {output_size} and stored_size {stored_size}, expected at least 1 each")
    return _mask_targets(codes, offsets, *stored_size, rows, columns, objects, boxes.detach(), output_size)


_mask_targets = operator(
    "mask_targets",
    reference.mask_targets,
    fake=lambda codes, offsets, height, width, rows, columns, objects, boxes, size: boxes.new_empty(
        (boxes.shape[0], *size)
    ),
)
