"""Values whose shapes do not depend on what is in the images: what export, CUDA graphs and compiled code work with.

Letters: N images, P proposals and D detections of each image, S side of a mask, H W padded input size. Boxes are xyxy.
What is padding is marked; in detections it comes last. Importing this module does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from attrs import frozen

from det_core.errors import DetError

if TYPE_CHECKING:
    from torch import Tensor

    from det_core.compressed_masks import RegionMasks


@frozen(eq=False, kw_only=True)
class PaddedBatch:
    """Padded, normalised images (N, 3, H, W); what `ImageInfo` says of an image is a row of a tensor.

    sizes: (N, 2) float, valid (h, w) in the padded input. original_sizes: (N, 2) float, (height, width) of the files.
    scales: (N, 2) float, (y, x) factors from original to network pixels. inclusive: as in `ImageInfo`, of all images.
    proposals: of each image, if they are precomputed (Fast R-CNN).
    """

    images: Tensor
    sizes: Tensor
    original_sizes: Tensor
    scales: Tensor
    inclusive: bool = False
    proposals: PaddedProposals | None = None


@frozen(eq=False, kw_only=True)
class PaddedProposals:
    """boxes (N, P, 4) in network pixels, best first; valid (N, P) bool, false for padding."""

    boxes: Tensor
    valid: Tensor


@frozen(kw_only=True)
class MaskPaste:
    """How the masks of regions are pasted into the image: rule and threshold as in `det_ops.paste_masks`.

    last_pixel: boxes end at their last pixel, so that x2 - 1 and y2 - 1 are given to the operator (Detectron).
    """

    rule: Literal["sampled", "resized", "quantised"] = "sampled"
    threshold: float = 0.5
    last_pixel: bool = False

    def masks(self, probabilities: Tensor, boxes: Tensor, size: tuple[int, int]) -> RegionMasks:
        """The masks of an image of `size` (h, w) from (n, S, S) of its boxes (n, 4), which are copied."""
        from det_core.compressed_masks import RegionMasks

        past = boxes.new_tensor([0.0, 0.0, 1.0, 1.0] if self.last_pixel else [0.0] * 4)
        return RegionMasks(
            probabilities=probabilities, boxes=boxes - past, size=size, rule=self.rule, threshold=self.threshold
        )


@frozen(eq=False, kw_only=True)
class PaddedDetections:
    """The detections of N images, best first, in pixels of the original images.

    boxes (N, D, 4); scores (N, D); labels (N, D) int64; counts (N,) int64, the number of detections of each image.
    Padding has box and score 0 and label -1. masks: (N, D, S, S) probabilities of each detection's region, or None.
    paste: how they become masks of the image, or None.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    counts: Tensor
    masks: Tensor | None = None
    paste: MaskPaste | None = None


class NotExportableError(DetError):
    """A part of a detector, or one of its settings, has no form of fixed size."""


def no_padded_form(part: object, method: str) -> NotExportableError:
    """The error of a part that does not define `method`."""
    return NotExportableError(
        f"{type(part).__name__} cannot be exported: it has no results of fixed size; define its method {method}, as "
        "docs/export.md describes"
    )
