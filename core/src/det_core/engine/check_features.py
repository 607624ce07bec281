"""A comparison of what a backbone and a neck return with what they state, before anything trains on it.

Letters: N images, C channels, h w size of a map.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from det_core.errors import ConfigError
from det_core.model.detector import Detector
from det_core.specs import FeatureSpec

SIZE = 512  # pixels; the models for small images need no less


def check_features(detector: Detector) -> None:
    """Run backbone and neck on one blank image; ConfigError if their maps are not those of `feature_spec()`.

    Otherwise the heads, which are built from the spec, would fail in the first step, with an error of torch.
    """
    was_training = detector.training
    detector.eval()
    images = detector.preprocess.mean.new_zeros((1, len(detector.preprocess.mean), SIZE, SIZE)).contiguous(
        memory_format=torch.channels_last
    )
    with torch.no_grad():
        maps = detector.backbone(images)
        _compare("backbone", type(detector.backbone).__name__, detector.backbone.out, maps)
        if detector.neck is not None:
            maps = detector.neck(maps)
            _compare("neck", type(detector.neck).__name__, detector.neck.out, maps, strides=False)
    detector.train(was_training)


def _compare(part: str, name: str, stated: FeatureSpec, maps: Sequence[Tensor], *, strides: bool = True) -> None:
    """Raise ConfigError for L maps (N, C, h, w) that differ from a spec. strides: compare them as well."""
    channels = tuple(m.shape[1] for m in maps)
    problem = ""
    if channels != stated.channels:
        problem = f"{len(channels)} maps of {list(channels)} channels, but states {list(stated.channels)}"
    elif strides and any(-(-SIZE // s) != m.shape[-2] for s, m in zip(stated.strides, maps, strict=True)):
        found = [round(SIZE / m.shape[-2], 1) for m in maps]
        problem = f"maps of strides {found}, but states {list(stated.strides)}"
    if problem:
        message = f"{name} returns {problem}; correct `feature_spec()` of its configuration, or the module"
        raise ConfigError.at(f"detector.{part}", message)
