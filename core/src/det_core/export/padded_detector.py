"""The module that is exported: resized images to padded detections.

Letters: N images, H W size of the input, h w valid size of one image, P proposals and D detections of an image, S side
of a mask.
Boxes are xyxy in pixels of the original images.
"""

from __future__ import annotations

from typing import TypeAlias

import torch
from attrs import evolve
from torch import Tensor, nn
from torch.nn import functional as F

from det_core.boxes.coders import clip_images
from det_core.data.transforms import MIN_SIDE
from det_core.model.detector import Detector
from det_core.model.padded_detection import to_network_images
from det_core.padded import PaddedBatch, PaddedDetections, PaddedProposals

AXES = {  # of the inputs, whose sizes are free
    "images": {0: "batch", 2: "height", 3: "width"},
    "proposals": {0: "batch", 1: "proposals"},
    **{name: {0: "batch"} for name in ("sizes", "original_sizes", "scales", "proposal_counts")},
}
PaddedTensors: TypeAlias = "tuple[Tensor, ...]"


class PaddedDetector(nn.Module):
    """A detector with tensors as inputs and outputs: normalisation, padding, network and post-processing.

    inclusive: whether the test transforms scale a box's first and last pixels (`ImageInfo.inclusive`).
    """

    def __init__(self, detector: Detector, *, inclusive: bool = False) -> None:
        super().__init__()
        self.detector = detector.eval()
        self.inclusive = inclusive

    def forward(
        self,
        images: Tensor,
        sizes: Tensor,
        original_sizes: Tensor,
        scales: Tensor,
        proposals: Tensor | None = None,
        proposal_counts: Tensor | None = None,
    ) -> PaddedTensors:
        """Padded detections of resized images.

        Args:
            images: (N, 3, H, W) uint8 or float32 RGB of 0..255, each in the top-left corner; the rest has any values.
            sizes: (N, 2) int64, (h, w) of each image in the input.
            original_sizes: (N, 2) int64, (height, width) of the images before resizing.
            scales: (N, 2) float32, (y, x) factors by which the images were resized.
            proposals: (N, P, 4) float32, in pixels of the original images, if the detector takes them.
            proposal_counts: (N,) int64, the number of proposals of each image; those after it have any values.

        Returns:
            boxes (N, D, 4) float32; scores (N, D) float32; labels (N, D) int64; counts (N,) int64, the number of
            detections of each image, best first; with masks (N, D, S, S) float32 probabilities. Padding has box and
            score 0 and label -1.
        """
        found = self.detect(images, sizes, original_sizes, scales, proposals, proposal_counts)
        tensors = (found.boxes, found.scores, found.labels, found.counts)
        return tensors if found.masks is None else (*tensors, found.masks)

    def detect(
        self, images: Tensor, sizes: Tensor, original_sizes: Tensor, scales: Tensor, *given: Tensor | None
    ) -> PaddedDetections:
        """The detections that `forward` returns as tensors; given: proposals and their counts."""
        batch = PaddedBatch(
            images=self.normalised(images, sizes),
            sizes=sizes.to(torch.float32),
            original_sizes=original_sizes.to(torch.float32),
            scales=scales,
            inclusive=self.inclusive,
        )
        proposals, counts = given or (None, None)
        if proposals is not None and counts is not None:
            batch = evolve(batch, proposals=given_proposals(proposals, counts, batch))
        return self.detector.predict_padded(batch)

    def normalised(self, images: Tensor, sizes: Tensor) -> Tensor:
        """As `Preprocess`: (N, 3, H', W') normalised, 0 outside the valid sizes, H' and W' multiples of the divisor."""
        preprocess = self.detector.preprocess
        pixels = images.flip(1) if preprocess.config.order == "bgr" else images
        normal = (pixels.to(torch.float32) - preprocess.mean) / preprocess.std
        height, width = images.shape[-2:]
        rows = torch.arange(height, device=images.device) < sizes[:, :1]  # (N, H)
        columns = torch.arange(width, device=images.device) < sizes[:, 1:]
        inside = rows[:, None, :, None] & columns[:, None, None, :]
        divisor = preprocess.config.pad_divisor
        below, right = ((side + divisor - 1) // divisor * divisor - side for side in (height, width))
        return F.pad(torch.where(inside, normal, 0.0), (0, right, 0, below))


def given_proposals(boxes: Tensor, counts: Tensor, batch: PaddedBatch) -> PaddedProposals:
    """Proposals (N, P, 4) in original pixels, of which each image has counts (N,), as `apply_transforms` makes them:
    in network pixels, clipped to the image, and dropped if they have no extent there.
    """
    own = clip_images(to_network_images(boxes, batch), batch.sizes)
    there = torch.arange(boxes.shape[1], device=boxes.device) < counts[:, None]
    valid = there & ((own[..., 2:] - own[..., :2]) >= MIN_SIDE).all(-1)
    return PaddedProposals(boxes=torch.where(valid[..., None], own, 0.0), valid=valid)
