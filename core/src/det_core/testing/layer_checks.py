"""Contract checks of layers: norms and convolutions.

Letters: N images, C channels, H W size.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from det_core.slots import ConvConfig, NormConfig
from det_core.specs import ConvSpec
from det_core.testing.config_checks import check_config, equal
from det_core.testing.module_checks import built, check_finite, check_module

CHANNELS = 64  # a multiple of the usual numbers of groups
SPECS = (
    ConvSpec(8, 16, 3, padding=1),
    ConvSpec(8, 16, 3, stride=2, padding=1, bias=False),
    ConvSpec(8, 16, 1),
    ConvSpec(8, 16, 3, padding=2, dilation=2),
)


def check_norm(config: NormConfig, channels: int = CHANNELS) -> None:
    """Check that a norm keeps the shape (N, C, H, W), and its gradients, autocast, save and load."""
    check_config(config)
    inputs = _random(channels)
    module = built(partial(config.build, channels))
    equal(config, "shape of the output", tuple(module(inputs).shape), tuple(inputs.shape))
    _check_input_gradient(config, module, inputs)
    check_module(config, partial(config.build, channels), _on(inputs))


def check_conv(config: ConvConfig) -> None:
    """Check the output's shape for several kernels, strides and dilations, and gradients, autocast, save and load."""
    check_config(config)
    for spec in SPECS:
        inputs = _random(spec.in_channels)
        module = built(partial(config.build, spec))
        lost = spec.dilation * (spec.kernel_size - 1) - 2 * spec.padding
        expected = (
            len(inputs),
            spec.out_channels,
            *((side - lost - 1) // spec.stride + 1 for side in inputs.shape[2:]),
        )
        equal(config, f"shape of the output of {spec}", tuple(module(inputs).shape), expected)
        _check_input_gradient(config, module, inputs)
        check_module(config, partial(config.build, spec), _on(inputs))


def _check_input_gradient(config: object, module: nn.Module, inputs: Tensor) -> None:
    """Check that a layer is differentiable in its input, which the layers before it train through."""
    inputs = inputs.clone().requires_grad_()
    output = module(inputs)
    equal(config, "that the output has a gradient", output.requires_grad, True)
    (gradient,) = torch.autograd.grad(output.square().sum(), inputs, allow_unused=True)
    equal(config, "that the input has a gradient", gradient is not None, True)
    check_finite(config, [gradient], "the gradient of the input")


def _on(inputs: Tensor) -> Callable[[nn.Module], object]:
    return lambda module: module(inputs)


def _random(channels: int) -> Tensor:
    return torch.randn(2, channels, 9, 7, generator=torch.Generator().manual_seed(5))
