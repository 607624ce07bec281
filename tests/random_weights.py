"""Random weights for detectors that are compared: what they find differs, and rounding errors stay small.

Letters: C channels, k kernel size.
"""

from __future__ import annotations

import torch
from torch import nn

from det_core.model.detector import Detector
from det_plugin_ssd.head import SSDHead

FACTORS = {  # of weights, by parts of their names; the first that fits
    "prediction.location.weight": 20.0,
    "prediction.shape.weight": 5.0,
    "adaption.weight": 20.0,
    "scores": 4.0,
}
SSD_FACTORS = {"scores": 0.2, "deltas": 0.2}  # its initial weights are large: scores would be 1, boxes far outside
LITE_FACTORS = {"predict": 2.0}


@torch.no_grad()
def spread_out(detector: Detector) -> None:
    """Change the initial weights, in place, and put the detector into evaluation mode."""
    factors = FACTORS
    if isinstance(detector.dense_head, SSDHead):
        _centre_first(detector.backbone)
        factors = LITE_FACTORS if detector.dense_head.config.separable else SSD_FACTORS
    _set_statistics(detector)
    for name, parameter in detector.named_parameters():
        factor = next((value for part, value in factors.items() if part in name), None)
        if factor is not None and name.endswith("weight"):
            parameter.mul_(factor)
        if "scores" in name and name.endswith("bias"):
            parameter.zero_()


def _centre_first(backbone: nn.Module) -> None:
    """Filters (C, 3, k, k) of mean 0, so that plain areas give about 0.

    The images of the sample are dark. torch's group norm of maps in channels-last memory sums values and their squares
    in float32 alone, so it loses digits where means are far above standard deviations.
    """
    first = next(p for p in backbone.parameters() if p.dim() == 4)
    first.sub_(first.mean((1, 2, 3), keepdim=True))


def _set_statistics(detector: Detector) -> None:
    """Give batch norms the statistics of two images of noise; the initial ones let the maps of deep networks vanish."""
    norms = [m for m in detector.modules() if isinstance(m, nn.BatchNorm2d)]
    if norms:
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 1.0
        detector.train()
        maps = detector.maps_of(torch.randn(2, 3, 192, 192))
        if detector.dense_head is not None:
            detector.dense_head(maps)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    detector.eval()
