"""Detectors with torchvision's weights, for comparing them with torchvision's own. It is no test."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from det_core.contracts import Sample
from det_core.data.data_config import ResizeConfig
from det_core.data.loader import prepare
from det_core.engine.predict import to_batch
from det_core.model.detector import Detector
from det_core.model.detector_config import DetectorConfig
from det_core.structures import Detections, Key
from det_core.weights.fill_detector import class_count, import_weights


def in_double(theirs: nn.Module, config: DetectorConfig, classes: int) -> Detector:
    """The detector of a configuration with these weights, none left over, in double precision from the first pixel."""
    state = theirs.state_dict()
    assert class_count(state, source="torchvision", config=config) == classes
    detector = config.build(num_classes=classes).eval()
    report = import_weights(state, source="torchvision", detector=detector)
    assert set(report.filled.values()) == set(state)
    assert report.ignored == ()
    return to_double(detector)


def to_double(detector: Detector) -> Detector:
    """The detector itself, in double precision, with exact means and deviations of pixels, as theirs are."""
    detector.double()
    for value in ("mean", "std"):
        exact = torch.tensor(getattr(detector.preprocess.config, value), dtype=torch.float64)
        setattr(detector.preprocess, value, exact[:, None, None])
    return detector


def found_in_double(detector: Detector, resize: ResizeConfig, images: Sequence[Tensor]) -> list[Detections]:
    """The detections of a detector in double precision on images (3, H, W) uint8, resized so."""
    nothing = torch.zeros(0, dtype=torch.int64)
    loaded = [
        prepare(
            Sample(image=i.double(), boxes=torch.zeros(0, 4), labels=nothing, ignored=nothing.bool(), file=""),
            [resize.build()],
            Key(),
        )
        for i in images
    ]
    found: list[Detections] = detector.predict(to_batch(detector, loaded))
    return found


@torch.no_grad()
def randomise_norms(theirs: nn.Module, images: Sequence[Tensor]) -> None:
    """Statistics near those of the images (3, H, W) uint8, so that features keep their size, and random affine parts.

    theirs: a detector in evaluation mode, which it keeps.
    """
    norms = [m for m in theirs.modules() if isinstance(m, nn.BatchNorm2d)]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    theirs([image.float() / 255 for image in images])
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum
        norm.eval()
        norm.running_mean += 0.2 * norm.running_var.sqrt() * torch.randn(norm.num_features)
        norm.running_var *= torch.empty(norm.num_features).uniform_(0.7, 1.5)
    for norm in theirs.modules():
        if isinstance(norm, (nn.BatchNorm2d, nn.GroupNorm)):
            norm.weight.uniform_(0.7, 1.3)
            norm.bias.normal_(std=0.1)


def same_masks(found: Tensor, probabilities: Tensor) -> bool:
    """Masks (n, h, w) against torchvision's probabilities, which leave open only those at the threshold itself."""
    clear = (probabilities - 0.5).abs() > 1e-4
    return bool(((found == (probabilities > 0.5)) | ~clear).all())
