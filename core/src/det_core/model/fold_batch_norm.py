"""Fusion of a convolution with the norm, sum and ReLU after it: folded in training, packed for inference.

Letters: N images, C channels, H W size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from det_core.torch_internals import convolve_packed, has_hooks, pack_weight, packing_available, state_of


class BatchNorm(nn.BatchNorm2d):
    """torch's batch norm. With `frozen_statistics` it uses its running statistics also in training."""

    def __init__(self, channels: int, *, eps: float = 1e-5, frozen_statistics: bool = False) -> None:
        super().__init__(channels, eps=eps)
        self.frozen_statistics = frozen_statistics
        self.train()  # applies `frozen_statistics`, since a new module is in training mode

    def train(self, mode: bool = True) -> BatchNorm:
        super().train(mode and not self.frozen_statistics)
        return self

    def fixed_affine(self) -> tuple[Tensor, Tensor] | None:
        """The norm as (C,) scale and (C,) shift; None if it uses the statistics of the batch."""
        if self.training or self.running_var is None or self.running_mean is None or self.weight.dtype.itemsize < 4:
            return None
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        return scale, self.bias - self.running_mean * scale


def conv_norm(
    conv: nn.Module, norm: nn.Module | None, x: Tensor, *, add: Tensor | None = None, relu: bool = False
) -> Tensor:
    """norm(conv(x)) + add, optionally with ReLU: (N, C_in, H, W) to (N, C_out, H', W').

    If the norm is a fixed scale and shift, it is folded into the weights. This saves a pass over the output (and its
    copy for the gradient); gradients still reach weights, scale and shift. Convolutions of other classes, norms that
    use the statistics of the batch, and modules with hooks are called one after the other.
    """
    if isinstance(conv, FixedConv2d):
        folded = conv.folded(norm)
        packed = None if folded is None else conv.packed(norm, folded[0], x)
        if folded is not None and packed is not None:
            x = x.contiguous(memory_format=torch.channels_last)
            return convolve_packed(conv, packed, folded[1], x, add=add, relu=relu)
    else:
        folded = None if norm is None or type(conv) is not nn.Conv2d else fold(conv, norm)
    if folded is not None:
        assert isinstance(conv, nn.Conv2d)
        out = F.conv2d(x, *folded, conv.stride, conv.padding, conv.dilation, conv.groups)
    else:
        out = conv(x) if norm is None else norm(conv(x))
    if add is not None:
        out += add
    return out.relu_() if relu else out


def fold(conv: nn.Conv2d, norm: nn.Module) -> tuple[Tensor, Tensor] | None:
    """Weights and bias (C_out,) of one convolution equal to `conv` followed by `norm`; None if there is none."""
    if not isinstance(norm, BatchNorm) or has_hooks(conv) or has_hooks(norm):
        return None
    affine = norm.fixed_affine()
    if affine is None or conv.bias is not None or conv.padding_mode != "zeros":
        return None
    scale, shift = affine
    return conv.weight * scale[:, None, None, None], shift


class FixedConv2d(nn.Conv2d):
    """A convolution for inference: what depends only on its weights is computed once.

    The norm that `conv_norm` passes is folded in once. On CPUs the weights are packed in oneDNN's layout, which oneDNN
    otherwise does in every call, and the sum and ReLU are part of the convolution. This requires float32, no autocast,
    and a torch that has the operators (see `torch_internals`).
    """

    # Norm to the state of the tensors when it was folded, and the result.
    _folded: dict[nn.Module | None, tuple[object, tuple[Tensor, Tensor | None] | None]]
    _packed: dict[nn.Module | None, Tensor]

    @classmethod
    def of(cls, conv: nn.Conv2d) -> FixedConv2d:
        """A fixed copy of `conv` that shares its tensors."""
        fixed = cls.__new__(cls)
        fixed.__dict__.update(conv.__dict__, _folded={}, _packed={})
        return fixed

    def forward(self, x: Tensor) -> Tensor:
        return conv_norm(self, None, x)

    def train(self, mode: bool = True) -> FixedConv2d:
        if mode:
            raise TypeError("this detector was made for inference and cannot be trained; train the original detector")
        return super().train(mode)

    @torch.no_grad()
    def folded(self, norm: nn.Module | None) -> tuple[Tensor, Tensor | None] | None:
        """Weights and bias of this convolution followed by `norm`; None if they cannot be folded."""
        others = () if norm is None else (*norm.parameters(), *norm.buffers())
        states = tuple(state_of(tensor) for tensor in (self.weight, *others))
        if norm not in self._folded or self._folded[norm][0] != states:  # weights were loaded or moved
            self._folded[norm] = states, (self.weight, self.bias) if norm is None else fold(self, norm)
            self._packed.pop(norm, None)
        return self._folded[norm][1]

    def packed(self, norm: nn.Module | None, weight: Tensor, x: Tensor) -> Tensor | None:
        """`weight` in oneDNN's layout for the first input; None if oneDNN's operators do not support this call."""
        if not all(t.device.type == "cpu" and t.dtype == torch.float32 for t in (x, weight)):
            return None
        if x.dim() != 4 or x.numel() == 0 or isinstance(self.padding, str):  # oneDNN takes numbers, not "same"
            return None
        if torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or not packing_available():
            return None
        if norm not in self._packed:
            self._packed[norm] = pack_weight(weight, self, x.shape)
        return self._packed[norm]
