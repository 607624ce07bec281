"""Batches of loaded images, and the detections of their views.

Letters: h w original image size, n detections.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch

from det_core.contracts import Transform
from det_core.data.loader import LoadedImage
from det_core.engine.device_batches import Loaded, SentBatch, infos_of, on_host, proposals_of
from det_core.engine.same_size import same_size_groups
from det_core.engine.test_time_augmentation import Augmentation, merge, unflip
from det_core.errors import DetError
from det_core.model.detector import Detector
from det_core.settings import show
from det_core.slots import TransformConfig
from det_core.structures import Batch, Detections, Targets
from det_core.torch_internals import computes_in_bfloat16

log = logging.getLogger(__name__)
AMP_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
PRECISIONS = ("fp32", *AMP_TYPES)


def to_batch(detector: Detector, images: Loaded) -> Batch:
    """Loaded images as a preprocessed batch on the detector's device."""
    if isinstance(images, SentBatch):
        return detector.preprocess.normalised(images.pixels, images.infos, images.proposals)
    batch: Batch = detector.preprocess([i.image for i in images], infos_of(images), proposals_of(images))
    return batch


def training_batch(detector: Detector, images: Loaded) -> tuple[Batch, list[Targets]]:
    """Loaded images as the arguments of `Detector.losses`: a batch on the detector's device, and its targets.

    images: of `det_core.data.loader.train_loader`. For a training loop of one's own; `det_core.train` has its own.
    """
    batch = to_batch(detector, images)
    return batch, to_targets(batch, images)


def to_targets(batch: Batch, images: Loaded) -> list[Targets]:
    """The targets of loaded images on the batch's device, with boxes of its dtype."""
    targets = images.targets if isinstance(images, SentBatch) else [i.targets for i in images]
    return [t.to(batch.images.device, batch.images.dtype) for t in targets]


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """torch's autocast for `bf16` or `fp16`, and no autocast for `fp32`; DetError for another precision."""
    check_choice("precision", precision, PRECISIONS)
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, AMP_TYPES[precision])


def inference_autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """As `autocast`. A CPU without instructions for bfloat16 computes in float32, which is faster; it is said once."""
    if precision == "bf16" and device.type == "cpu" and not computes_in_bfloat16():
        _warn_of_float32()
        return nullcontext()
    return autocast(device, precision)


@cache
def _warn_of_float32() -> None:
    log.warning("this processor has no instructions for bfloat16 (AVX512-BF16 or AMX): precision fp32 is used instead")


def built_views(
    transforms: Sequence[TransformConfig], augmentation: Augmentation
) -> list[tuple[list[Transform], bool]]:
    """The transforms of each view of an image, given the test transforms, and whether it is mirrored."""
    return [([t.build() for t in view], mirror) for view, mirror in augmentation.views(transforms)]


def detect_views(
    detector: Detector,
    views: Sequence[Sequence[LoadedImage]],
    mirrored: Sequence[bool],
    precision: str,
    augmentation: Augmentation,
) -> list[Detections]:
    """The detections of each image from its views, in pixels of the original image, on the CPU.

    views: the same images in each view. mirrored: for each view.
    """
    seen = [_view(detector, loaded, mirror, precision) for loaded, mirror in zip(views, mirrored, strict=True)]
    return seen[0] if len(seen) == 1 else [merge(found, augmentation) for found in zip(*seen, strict=True)]


def check_choice(name: str, value: object, allowed: Sequence[str]) -> None:
    """Raise DetError for a value that is not allowed."""
    if value not in allowed:
        raise DetError(f"{name}: found {show(value)}, allowed: {', '.join(allowed)}")


def _view(detector: Detector, loaded: Sequence[LoadedImage], mirrored: bool, precision: str) -> list[Detections]:
    """The detections of one view of each image, in pixels of the original image, on the CPU."""
    found: dict[int, Detections] = {}
    for group in same_size_groups(loaded, detector.preprocess.config.pad_divisor):
        with inference_autocast(detector.preprocess.mean.device, precision):
            detections = detector.predict(to_batch(detector, [loaded[at] for at in group]))
        found |= dict(zip(group, on_host(detections), strict=True))
    ordered = [found[at] for at in range(len(loaded))]
    if not mirrored:
        return ordered
    return [unflip(d, image.info.original_size[1]) for d, image in zip(ordered, loaded, strict=True)]
