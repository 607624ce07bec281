"""Masks of regions pasted into the image, as bitmaps or as COCO's compressed run-length codes.

Letters: n masks, S side of a mask, h w image size.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from det_ops import checks
from det_ops.reference import pasting as reference
from det_ops.registration import operator, unknown_length

PasteRule = Literal["sampled", "resized", "quantised"]


def paste_masks(
    masks: Tensor,
    boxes: Tensor,
    size: tuple[int, int],
    threshold: float = 0.5,
    rule: PasteRule = "sampled",
    *,
    mirrored: Tensor | None = None,
) -> Tensor:
    """Pastes the masks of regions into the image.

    "sampled": probabilities are sampled bilinearly at pixel centres, 0 outside the region, and compared with >=.
    A box without area has no pixels.

    "resized", as Detectron and torchvision do: the mask is padded with zeros and its box is enlarged accordingly. The
    box's corners are truncated to whole pixels, both inclusive; the mask is resized to that many pixels, and compared
    with >.

    "quantised", as mmdet 0.x and 1.x do: the box's first and last pixels, x2 - 1 and y2 - 1, are truncated to whole
    pixels; the mask is resized to that many pixels, at least 1, and compared with >.

    Nothing is differentiated. A box with a coordinate that is not finite has no pixels.

    Args:
        masks: (n, S, S) probabilities.
        boxes: (n, 4) xyxy in pixels of the image.
        size: (h, w) of the image.
        threshold: Minimum probability of a pixel of the object.
        rule: "sampled", "resized" or "quantised".
        mirrored: (n,) bool: boxes and masks that are those of the mirrored image, whose result is mirrored back.

    Returns:
        (n, h, w) bool.

    Raises:
        ValueError: for shapes other than these, masks without values, a size below 1, or an unknown rule.
        TypeError: for other dtypes.
    """
    _check(masks, boxes, size, rule, mirrored)
    return _paste_masks(masks.detach(), boxes.detach(), mirrored, *size, threshold, rule)


def paste_mask_codes(
    masks: Tensor,
    boxes: Tensor,
    size: tuple[int, int],
    threshold: float = 0.5,
    rule: PasteRule = "sampled",
    *,
    mirrored: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The codes of pasted masks: those of the bitmaps of `paste_masks`, which are never made.

    Takes the arguments of `paste_masks` and raises the same errors. There is no CUDA kernel: the masks of regions are
    small, so move them to the CPU first.

    Returns:
        (c,) uint8, COCO's compressed run-length codes of all masks, column by column; and (n + 1,) int64: the code of
        mask i is codes[offsets[i]:offsets[i + 1]].
    """
    _check(masks, boxes, size, rule, mirrored)
    return _paste_mask_codes(masks.detach(), boxes.detach(), mirrored, *size, threshold, rule)


def _check(masks: Tensor, boxes: Tensor, size: tuple[int, int], rule: str, mirrored: Tensor | None) -> None:
    if masks.dim() != 3 or masks.shape[1] != masks.shape[2] or masks.shape[1] < 1:
        raise ValueError(f"masks have shape {tuple(masks.shape)}, expected (n, S, S) with S at least 1")
    checks.check_floating(masks, "masks have")
    checks.check_boxes(boxes)
    checks.check_shape(boxes, "boxes have", (masks.shape[0], 4), " to match masks")
    if min(size) < 1:
        raise ValueError(f"size is {tuple(size)}, expected at least 1 each")
    checks.check_choice(rule, "rule", PasteRule)
    if mirrored is not None:
        checks.check_shape(mirrored, "mirrored has", masks.shape[:1], " to match masks")
        if mirrored.dtype != torch.bool:
            raise TypeError(f"mirrored has dtype {mirrored.dtype}, expected torch.bool")


_paste_masks = operator(
    "paste_masks",
    reference.paste_masks,
    fake=lambda masks, boxes, mirrored, height, width, threshold, rule: masks.new_empty(
        (masks.shape[0], height, width), dtype=torch.bool
    ),
)
_paste_mask_codes = operator(
    "paste_mask_codes",
    reference.paste_mask_codes,
    fake=lambda masks, boxes, mirrored, height, width, threshold, rule: (
        masks.new_empty((unknown_length(),), dtype=torch.uint8),
        masks.new_empty((masks.shape[0] + 1,), dtype=torch.int64),
    ),
)
