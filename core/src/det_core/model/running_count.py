"""A normaliser of losses that changes slowly: the running mean of the number of positive anchors. Letters: N images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from det_core.model.synchronised import sum_over_ranks

KEEP = 0.9  # of the last mean, in every step
START = 50.0  # an image: 100 for two images in a process


class RunningLossCount(nn.Module):
    """Positive anchors to the running mean of their number, as detectron2 normalises RetinaNet's losses.

    detectron2 keeps a mean for each process, which begins at 100. This one is kept for an image and over all processes,
    so that it does not depend on how a batch is distributed; for two images in one process they are equal. It is part
    of a checkpoint.
    """

    running_loss_count: Tensor  # ()

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("running_loss_count", torch.tensor(START))

    @torch.no_grad()
    def forward(self, positives: int, images: int) -> Tensor:
        """The number () by which the losses of N images are divided. In training it first takes in these positives."""
        if self.training:
            mean = self.running_loss_count
            all_positives, all_images = sum_over_ranks(mean.new_tensor([positives, images]))
            mean.copy_(KEEP * mean + (1 - KEEP) * all_positives.clamp(min=1) / all_images)
        return self.running_loss_count * images
