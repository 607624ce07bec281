"""Fusion of a convolution with the norm, sum and ReLU after it: folded in training, packed for inference.

Letters: N images, C channels, S channels of several norms, H W size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby

import torch
from attrs import define, field, frozen
from torch import Tensor, nn
from torch.nn import functional as F

from det_core.errors import DetError
from det_core.model.synchronised import normalise_over_ranks, several_ranks
from det_core.torch_internals import (
    computes_in_bfloat16,
    convolve_packed,
    has_hooks,
    is_compiled,
    pack_weight,
    packing_available,
    state_of,
)


class BatchNorm(nn.BatchNorm2d):
    """torch's batch norm. With `frozen_statistics` it uses its running statistics also in training.

    synchronised: in training by several processes, normalise with the statistics of the images of all of them.
    """

    computed: tuple[Tensor, Tensor] | None = None  # what `fixed_affine` returns, inside `NormAffines.computed`

    def __init__(
        self,
        channels: int,
        *,
        eps: float = 1e-5,
        momentum: float = 0.1,
        frozen_statistics: bool = False,
        synchronised: bool = False,
    ) -> None:
        super().__init__(channels, eps=eps, momentum=momentum)
        self.frozen_statistics, self.synchronised = frozen_statistics, synchronised
        self.train()  # applies `frozen_statistics`, since a new module is in training mode

    def train(self, mode: bool = True) -> BatchNorm:
        super().train(mode and not self.frozen_statistics)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape; DetError for the statistics of a single value per channel."""
        if self.training and self.synchronised and several_ranks():
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
            statistics = self.running_mean, self.running_var
            momentum = 0.1 if self.momentum is None else self.momentum
            return normalise_over_ranks(x, self.weight, self.bias, *statistics, momentum, self.eps)
        if self.training and x.numel() == x.shape[1]:
            raise DetError(
                f"batch norm cannot train on one value per channel: found an input of shape {tuple(x.shape)}; use more "
                "images per process (data.images_per_rank), or the norm's frozen_statistics=true"
            )
        return super().forward(x)

    def fixed_affine(self) -> tuple[Tensor, Tensor] | None:
        """The norm as (C,) scale and (C,) shift; None if it uses the statistics of the batch."""
        if not self.is_fixed():
            return None
        if self.computed is not None:
            return self.computed
        assert self.running_var is not None
        assert self.running_mean is not None
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        return scale, self.bias - self.running_mean * scale

    def is_fixed(self) -> bool:
        """Whether the norm is a scale and a shift that do not depend on the batch."""
        return not self.training and self.running_var is not None and self.weight.dtype.itemsize >= 4


@frozen(eq=False)
class FixedStatistics:
    """Of several norms in a row: means (S,), factors (S,) 1 / sqrt(variance + eps), and the state of their tensors."""

    state: object
    means: Tensor
    factors: Tensor


@define(eq=False)
class NormAffines:
    """The scales and shifts of all fixed norms of a module, computed together.

    One by one, the 53 norms of a ResNet-50 take some 260 operator calls in a step, and as many backwards. What depends
    on the statistics alone is kept between steps, and of norms that do not train, the scales and shifts too.
    """

    _statistics: dict[object, FixedStatistics] = field(factory=dict)
    _affines: dict[object, tuple[object, list[tuple[Tensor, Tensor]]]] = field(factory=dict)

    @contextmanager
    def computed(self, module: nn.Module) -> Iterator[None]:
        """Inside, the fixed norms of `module` have their scales and shifts, with gradients. Compiled parts compute them
        themselves.
        """
        parts = list(module.modules())
        norms = [part for part in parts if isinstance(part, BatchNorm) and part.is_fixed() and not one_call(part)]
        if any(is_compiled(part) for part in parts):
            norms = []
        try:
            for kind, group in groupby(sorted(norms, key=_kind), _kind):
                members = list(group)
                for norm, affine in zip(members, self._affines_of(kind, members), strict=True):
                    norm.computed = affine
            yield
        finally:
            for norm in norms:
                norm.computed = None

    def _affines_of(self, kind: tuple[object, ...], norms: Sequence[BatchNorm]) -> Sequence[tuple[Tensor, Tensor]]:
        if _trains(norms[0]):
            return _affines(norms, self._statistics_of(kind, norms))
        state = _states(norms, "weight", "bias", "running_mean", "running_var")
        if kind not in self._affines or self._affines[kind][0] != state:
            with torch.inference_mode(False):
                self._affines[kind] = state, _affines(norms, _fixed_statistics(norms))
        return self._affines[kind][1]

    def _statistics_of(self, kind: object, norms: Sequence[BatchNorm]) -> FixedStatistics:
        if kind not in self._statistics or self._statistics[kind].state != _states(
            norms, "running_mean", "running_var"
        ):
            with torch.inference_mode(False):
                self._statistics[kind] = _fixed_statistics(norms)
        return self._statistics[kind]


ONE_CALL = ("cuda",)  # where launches cost more than passes over maps


def one_call(norm: BatchNorm) -> bool:
    """Whether a fixed norm is left to torch's own batch norm, which is one call, rather than folded into a convolution.

    Of a norm that trains, forward and backward make 4 operator calls with the convolution's, folded 6 and a share of
    `NormAffines`, which read no maps. Of one that does not train, folding makes fewer calls, too.
    """
    return torch.is_grad_enabled() and norm.weight.device.type in ONE_CALL and _trains(norm)


def _trains(norm: BatchNorm) -> bool:
    return norm.weight.requires_grad or norm.bias.requires_grad


def _kind(norm: BatchNorm) -> tuple[str, ...]:
    """Norms of equal kind are computed together."""
    assert norm.running_var is not None
    return (*(str(x) for x in (norm.weight.device, norm.weight.dtype, norm.running_var.dtype, _trains(norm))),)


def _states(norms: Sequence[BatchNorm], *names: str) -> object:
    return tuple((norm.eps, *(state_of(getattr(norm, name)) for name in names)) for norm in norms)


@torch.no_grad()
def _fixed_statistics(norms: Sequence[BatchNorm]) -> FixedStatistics:
    means, factors = [], []
    for norm in norms:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        means.append(norm.running_mean)
        factors.append((norm.running_var + norm.eps).rsqrt())
    return FixedStatistics(_states(norms, "running_mean", "running_var"), torch.cat(means), torch.cat(factors))


def _affines(norms: Sequence[BatchNorm], statistics: FixedStatistics) -> list[tuple[Tensor, Tensor]]:
    """Per norm (C,) scale and (C,) shift."""
    sizes = [norm.num_features for norm in norms]
    scale = torch.cat([norm.weight for norm in norms]) * statistics.factors
    shift = torch.cat([norm.bias for norm in norms]) - statistics.means * scale
    return list(zip(scale.split(sizes), shift.split(sizes), strict=True))


def conv_norm(
    conv: nn.Module, norm: nn.Module | None, x: Tensor, *, add: Tensor | None = None, relu: bool = False
) -> Tensor:
    """norm(conv(x)) + add, optionally with ReLU: (N, C_in, H, W) to (N, C_out, H', W').

    If the norm is a fixed scale and shift, it is folded into the weights. This saves a pass over the output (and its
    copy for the gradient); gradients still reach weights, scale and shift. Convolutions of other classes, norms that
    use the statistics of the batch, those that `one_call` leaves out, and modules with hooks are called one after the
    other.
    """
    if isinstance(conv, FixedConv2d):
        folded = conv.folded(norm)
        packed = None if folded is None else conv.packed(norm, folded[0], x)
        if folded is not None and packed is not None:
            x = x.to(packed.dtype).contiguous(memory_format=torch.channels_last)
            add = None if add is None else add.to(packed.dtype)
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
    if not isinstance(norm, BatchNorm) or has_hooks(conv) or has_hooks(norm) or one_call(norm):
        return None
    affine = norm.fixed_affine()
    if affine is None or conv.bias is not None or conv.padding_mode != "zeros":
        return None
    scale, shift = affine
    return conv.weight * scale[:, None, None, None], shift


LAYOUTS = 16  # packed weights of a convolution in memory
SMALL_MAP = 256  # pixels


class FixedConv2d(nn.Conv2d):
    """A convolution for inference: what depends only on its weights is computed once.

    The norm that `conv_norm` passes is folded in once. On CPUs the weights are packed in oneDNN's layout, which oneDNN
    otherwise does in every call, and the sum and ReLU are part of the convolution. This requires float32 weights, and a
    torch that has the operators (see `torch_internals`). Under torch's autocast to bfloat16 the weights are packed in
    bfloat16 if the processor computes in it.
    """

    # Norm to the state of the tensors when it was folded, and the result.
    _folded: dict[nn.Module | None, tuple[object, tuple[Tensor, Tensor | None] | None]]
    _packed: dict[tuple[nn.Module | None, object], Tensor]

    @classmethod
    def of(cls, conv: nn.Conv2d) -> FixedConv2d:
        """A fixed copy of `conv` that shares its tensors."""
        fixed = cls.__new__(cls)
        fixed.__dict__.update(conv.__dict__, _folded={}, _packed={})
        return fixed

    def __getstate__(self) -> dict[str, object]:
        """What a pickle has: not what is computed from the weights, which torch cannot pickle."""
        return {**self.__dict__, "_folded": {}, "_packed": {}}

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
            for known in [key for key in list(self._packed) if key[0] is norm]:
                self._packed.pop(known, None)
        return self._folded[norm][1]

    def packed(self, norm: nn.Module | None, weight: Tensor, x: Tensor) -> Tensor | None:
        """`weight` in oneDNN's layout for the first input; None if oneDNN's operators do not support this call."""
        if x.device.type != "cpu" or weight.device.type != "cpu" or weight.dtype != torch.float32:
            return None
        dtype = computing_dtype()
        if dtype is None or x.dtype not in (torch.float32, dtype):
            return None
        if x.dim() != 4 or x.numel() == 0 or isinstance(self.padding, str):  # oneDNN takes numbers, not "same"
            return None
        if torch.is_grad_enabled() or not packing_available():
            return None
        layout = self._layout(dtype, x)
        packed = self._packed.get((norm, layout))  # another thread may drop or set it meanwhile
        if packed is None:
            if len(self._packed) >= LAYOUTS:
                self._packed.pop(next(iter(list(self._packed))), None)
            packed = self._packed[norm, layout] = pack_weight(weight.to(dtype), self, x.shape)
        return packed

    def _layout(self, dtype: torch.dtype, x: Tensor) -> tuple[torch.dtype, int]:
        """What weights packed for `x` (N, C, H, W) serve for: inputs of this type, and small maps of so many pixels.

        In bfloat16 oneDNN has other layouts for small maps, if output channels are no multiple of 64. With weights in
        the wrong one it takes hundreds of times as long.
        """
        pixels = x.shape[2] * x.shape[3]
        alike = dtype is torch.float32 or self.out_channels % 64 == 0 or pixels > SMALL_MAP
        return dtype, 0 if alike else pixels


class FixedLinear(nn.Linear):
    """A linear layer for inference. Under autocast to bfloat16 on a CPU its weights are converted once."""

    _converted: tuple[object, Tensor] | None = None  # the state of the weights when they were converted

    @classmethod
    def of(cls, linear: nn.Linear) -> FixedLinear:
        """A fixed copy of `linear` that shares its tensors."""
        fixed = cls.__new__(cls)
        fixed.__dict__.update(linear.__dict__)
        return fixed

    def forward(self, x: Tensor) -> Tensor:
        """(..., C_in) to (..., C_out)."""
        if x.device.type != "cpu" or torch.is_grad_enabled() or computing_dtype() is not torch.bfloat16:
            return super().forward(x)
        if self._converted is None or self._converted[0] != state_of(self.weight):
            self._converted = state_of(self.weight), self.weight.to(torch.bfloat16)
        return F.linear(x, self._converted[1], self.bias)  # autocast converts what is left, which is small


def computing_dtype() -> torch.dtype | None:
    """What packed weights are in on a CPU: float32, or bfloat16 under autocast to it; None for any other autocast."""
    if not torch.is_autocast_enabled("cpu"):
        return torch.float32
    bfloat16 = torch.get_autocast_dtype("cpu") is torch.bfloat16 and computes_in_bfloat16()
    return torch.bfloat16 if bfloat16 else None
