"""A detector as inference wants it: weights that stay, so that what depends on them alone is computed once."""

from __future__ import annotations

import copy

from torch import nn

from det_core.model.detector import Detector
from det_core.model.fold_batch_norm import FixedConv2d, watched
from det_core.model.memory_layout import to_channels_last


def for_inference(detector: Detector) -> Detector:
    """The same detector, for inference alone: the same detections up to rounding, in less time.

    Batch norms are folded into convolutions once instead of in every call, and on CPUs the weights of torch's
    convolutions are kept in the layout that they compute in (they take their memory twice). It shares its tensors with
    the one given, which is put into evaluation mode and must not change while this one is in use. It cannot train:
    `train()` raises TypeError. Parts that are compiled, convolutions that hooks watch, and those of another kind than
    torch's stay as they are.
    """
    to_channels_last(detector)
    fixed = _fixed(detector.eval(), {})
    assert isinstance(fixed, Detector)
    return fixed


def _fixed(module: nn.Module, done: dict[nn.Module, nn.Module]) -> nn.Module:
    """The module with every convolution below it fixed; one that stands in several places stays one."""
    if module not in done:
        if type(module) is nn.Conv2d and module.padding_mode == "zeros" and not watched(module):
            done[module] = FixedConv2d.of(module)
        elif not module._modules or module._compiled_call_impl is not None:
            done[module] = module
        else:
            clone = copy.copy(module)
            clone._modules = {n: None if part is None else _fixed(part, done) for n, part in module._modules.items()}
            done[module] = clone
    return done[module]
