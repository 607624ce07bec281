"""Detectors with torchvision's weights, for comparing them with torchvision's own. It is no test."""

from __future__ import annotations

import torch
from torch import nn

from det_core.model.detector import Detector
from det_core.model.detector_config import DetectorConfig
from det_core.weights.fill_detector import class_count, import_weights


def in_double(theirs: nn.Module, config: DetectorConfig, classes: int) -> Detector:
    """The detector of a configuration with these weights, none left over, in double precision from the first pixel."""
    state = theirs.state_dict()
    assert class_count(state, source="torchvision", config=config) == classes
    detector = config.build(num_classes=classes).eval()
    report = import_weights(state, source="torchvision", detector=detector)
    assert set(report.filled.values()) == set(state)
    assert report.ignored == ()
    detector.double()
    for value in ("mean", "std"):
        exact = torch.tensor(getattr(detector.preprocess.config, value), dtype=torch.float64)
        setattr(detector.preprocess, value, exact[:, None, None])
    return detector
