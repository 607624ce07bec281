"""Losses. Each returns a `LossTerm`: a sum over elements and its normaliser.

Letters: n elements (anchors or regions), K foreground classes. Losses are computed in float32 or float64, also under
autocast.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

import det_ops
from det_core.boxes.overlaps import aligned_giou
from det_core.contracts import BoxCoder, Loss
from det_core.errors import ConfigError
from det_core.model.loss_config import BoundedIoUConfig, CrossEntropyConfig, FocalConfig, SmoothL1Config
from det_core.structures import LossTerm, full_precision


class CrossEntropy(Loss):
    """Softmax cross-entropy. predicted (n, K+1) logits; target (n,) int64 in 0..K, K is background.

    class_weights: (K+1,) factor on the loss of the elements of each class, or None.
    """

    class_weights: Tensor | None

    def __init__(self, config: CrossEntropyConfig) -> None:
        super().__init__(config.weight)
        self.register_buffer("class_weights", _as_tensor(config.class_weights), persistent=False)

    def elementwise(self, predicted: Tensor, target: Tensor) -> Tensor:
        if self.class_weights is None:
            return F.cross_entropy(predicted, target, reduction="none")
        _check_count(self.class_weights, predicted.shape[1], "K + 1, the background last")
        return F.cross_entropy(predicted, target, self.class_weights.to(predicted.dtype), reduction="none")


class BinaryCrossEntropy(Loss):
    """Sigmoid cross-entropy. predicted (...) logits; target (...) in 0..1."""

    def elementwise(self, predicted: Tensor, target: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(predicted, target.to(predicted.dtype), reduction="none")


class Focal(Loss):
    """-alpha_t (1 - p_t)^gamma log p_t (Lin et al., Focal Loss, 2017, equation 5).

    predicted (n, K) logits; target (n,) int64: 0..K-1 is the class, K is background, negative is ignored.
    class_weights: (K,) factor on the losses of each class's logits, or None.
    """

    class_weights: Tensor | None

    def __init__(self, config: FocalConfig) -> None:
        super().__init__(config.weight)
        self.gamma, self.alpha = config.gamma, config.alpha
        self.register_buffer("class_weights", _as_tensor(config.class_weights), persistent=False)

    def elementwise(self, predicted: Tensor, target: Tensor) -> Tensor:
        losses = det_ops.sigmoid_focal_loss(predicted, target, self.gamma, self.alpha)
        if self.class_weights is None:
            return losses
        _check_count(self.class_weights, predicted.shape[1], "K")
        return losses * self.class_weights.to(losses.dtype)

    def forward(self, predicted: Tensor, target: Tensor, count: Tensor | float) -> LossTerm:
        """As in `Loss`, but without the (n, K) matrix of losses and without a float32 copy of half precisions.

        With class weights, as in `Loss`.
        """
        if self.class_weights is not None:
            return super().forward(predicted, target, count)
        total = det_ops.sigmoid_focal_loss(predicted, target, self.gamma, self.alpha, reduction="sum")
        return LossTerm(self.weight * total, count)


class L1(Loss):
    """Absolute difference. predicted and target (n, 4) deltas."""

    def elementwise(self, predicted: Tensor, target: Tensor) -> Tensor:
        return (predicted - target).abs()


class SmoothL1(Loss):
    """Smooth L1 loss. predicted and target (n, 4) deltas."""

    def __init__(self, config: SmoothL1Config) -> None:
        super().__init__(config.weight)
        self.beta = config.beta

    def elementwise(self, predicted: Tensor, target: Tensor) -> Tensor:
        return F.smooth_l1_loss(predicted, target, reduction="none", beta=self.beta)


class BoundedIoU(Loss):
    """Upper bounds of the IoU per coordinate (Tychsen-Smith and Petersson, Bounded IoU Loss, 2018, section 4).

    predicted and target (n, 4) boxes xyxy.
    """

    decoded = True

    def __init__(self, config: BoundedIoUConfig) -> None:
        super().__init__(config.weight)
        self.beta, self.eps = config.beta, config.eps

    def elementwise(self, predicted: Tensor, target: Tensor) -> Tensor:
        size, target_size = predicted[:, 2:] - predicted[:, :2], target[:, 2:] - target[:, :2]
        shift = ((target[:, :2] + target[:, 2:]) - (predicted[:, :2] + predicted[:, 2:])).abs() / 2
        centre = 1 - ((target_size - 2 * shift) / (target_size + 2 * shift + self.eps)).clamp(min=0)
        extent = 1 - torch.minimum(target_size / (size + self.eps), size / (target_size + self.eps))
        bounds = torch.cat([centre, extent], 1)
        return torch.where(bounds < self.beta, 0.5 * bounds * bounds / self.beta, bounds - 0.5 * self.beta)


class GIoU(Loss):
    """1 - GIoU (Rezatofighi et al., 2019, algorithm 1). predicted and target (n, 4) boxes xyxy."""

    decoded = True

    def elementwise(self, predicted: Tensor, target: Tensor) -> Tensor:
        return 1 - aligned_giou(predicted, target)


def box_loss(
    loss: Loss, coder: BoxCoder, anchors: Tensor, deltas: Tensor, boxes: Tensor, count: Tensor | float
) -> LossTerm:
    """The box loss of `deltas` (n, 4) at `anchors` (n, 4) for targets `boxes` (n, 4).

    Compares boxes if `loss.decoded`, otherwise deltas.
    """
    deltas = full_precision(deltas)
    boxes, anchors = boxes.to(deltas.dtype), anchors.to(deltas.dtype)
    if loss.decoded:
        return loss(coder.decode(anchors, deltas), boxes, count)
    return loss(deltas, coder.encode(anchors, boxes), count)


def _as_tensor(weights: tuple[float, ...] | None) -> Tensor | None:
    return None if weights is None else torch.tensor(weights)


def _check_count(weights: Tensor, count: int, expected: str) -> None:
    """Raise ConfigError if there are not as many class weights as columns of logits."""
    if len(weights) != count:
        message = f"found {len(weights)} factors, expected {count} ({expected}); give one for each class of the data"
        raise ConfigError.at("class_weights", message)
