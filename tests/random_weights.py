"""Random weights for detectors that are compared: what they find differs, and rounding errors stay small."""

from __future__ import annotations

import re

import torch
from torch import nn

from det_core.model.detector import Detector
from det_plugin_ssd.head import SSDHead

FACTORS = {  # of weights, by patterns of their names; the first that fits
    r"prediction\.location\.weight": 20.0,
    r"prediction\.shape\.weight": 5.0,
    r"adaption\.weight": 20.0,
    "scores": 4.0,
}
SSD_FACTORS = {"scores": 0.2, "deltas": 0.2}  # its initial weights are large: scores would be 1, boxes far outside
LITE_FACTORS = {r"scores.*predict": 2.0, r"deltas.*predict": 0.5}  # its boxes are as large as the image


@torch.no_grad()
def spread_out(detector: Detector) -> None:
    """Change the initial weights, in place, and put the detector into evaluation mode."""
    factors = FACTORS
    if isinstance(detector.dense_head, SSDHead):
        factors = LITE_FACTORS if detector.dense_head.config.separable else SSD_FACTORS
    _set_statistics(detector)
    for name, parameter in detector.named_parameters():
        factor = next((value for pattern, value in factors.items() if re.search(pattern, name)), None)
        if factor is not None and name.endswith("weight"):
            parameter.mul_(factor)
        if "scores" in name and name.endswith("bias"):
            parameter.zero_()


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
