"""A detector prepared for inference: its weights are fixed, so what depends on them alone is computed once."""

from __future__ import annotations

import copy

from torch import nn

from det_core.model.detector import Detector
from det_core.model.fold_batch_norm import FixedConv2d
from det_core.model.memory_layout import to_channels_last
from det_core.torch_internals import has_hooks, is_compiled


def for_inference(detector: Detector) -> Detector:
    """The same detector, for inference alone: the same detections up to rounding, in less time.

    Batch norms are folded into convolutions once instead of in every call, and on CPUs the weights of torch's
    convolutions are kept in the layout that they compute in (they take their memory twice). It shares its tensors with
    the one given, which is put into evaluation mode and must not change while this one is in use. It cannot train:
    `train()` raises TypeError. Parts that are compiled, convolutions that hooks watch, and those of another kind than
    torch's stay as they are.
    """
    to_channels_last(detector)
    kept: list[object] = [*detector.eval().parameters(), *detector.buffers(), detector.config]
    made: dict[int, object] = {id(thing): thing for thing in kept}
    for module in detector.modules():
        if type(module) is nn.Conv2d and module.padding_mode == "zeros" and not has_hooks(module):
            made[id(module)] = FixedConv2d.of(module)
        elif is_compiled(module) or next(module.children(), None) is None:
            made[id(module)] = module
    # What is in `made` takes the place of what it was made from; modules that contain others are copied around it.
    return copy.deepcopy(detector, made)
