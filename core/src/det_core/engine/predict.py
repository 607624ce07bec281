"""Prediction: detections of images.

Letters: h w original image size, n detections.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import TypeVar, get_args, overload

import torch

from det_core.contracts import Transform
from det_core.data.loader import LoadedImage, prepare
from det_core.engine.image_inputs import ALLOWED, Image, Order, is_image, to_sample
from det_core.engine.same_size import same_size_groups
from det_core.engine.test_time_augmentation import Augmentation, merge, unflip
from det_core.errors import DetError
from det_core.model.detector import Detector
from det_core.settings import show
from det_core.structures import Batch, Detections, Key, Targets
from det_core.torch_internals import computes_in_bfloat16

log = logging.getLogger(__name__)
AMP_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
T = TypeVar("T", bound=Image)
PRECISIONS = ("fp32", *AMP_TYPES)


def to_batch(detector: Detector, images: Sequence[LoadedImage]) -> Batch:
    """Loaded images as a preprocessed batch on the detector's device."""
    given = [i.proposals for i in images]
    proposals = [p for p in given if p is not None]
    batch: Batch = detector.preprocess(
        [i.image for i in images], [i.info for i in images], proposals if len(proposals) == len(images) else None
    )
    return batch


def to_targets(batch: Batch, images: Sequence[LoadedImage]) -> list[Targets]:
    """The targets of loaded images on the batch's device, with boxes of its dtype."""
    return [i.targets.to(batch.images.device, batch.images.dtype) for i in images]


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """torch's autocast for `bf16` or `fp16`, and no autocast for `fp32`; DetError for another precision."""
    _check_choice("precision", precision, PRECISIONS)
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


@overload
def predict(
    detector: Detector,
    images: Image,
    *,
    batch_size: int = 1,
    precision: str = "fp32",
    augmentation: Augmentation | None = None,
    order: Order = "rgb",
) -> Detections: ...


@overload
def predict(
    detector: Detector,
    images: list[T] | tuple[T, ...],
    *,
    batch_size: int = 1,
    precision: str = "fp32",
    augmentation: Augmentation | None = None,
    order: Order = "rgb",
) -> list[Detections]: ...


def predict(
    detector: Detector,
    images: Image | Sequence[Image],
    *,
    batch_size: int = 1,
    precision: str = "fp32",
    augmentation: Augmentation | None = None,
    order: Order = "rgb",
) -> Detections | list[Detections]:
    """Detections of an image, or of each of several, best first, in pixels of the original image, on the CPU.

    Args:
        detector: put into evaluation mode; stays on its device. `for_inference` makes a faster one for many calls.
        images: one image, which gives one result, or a sequence of them: files, (3, h, w) uint8 tensors, (h, w, 3)
            uint8 arrays, PIL images, or samples of a data set. A detector without a proposal head needs samples with
            proposals.
        batch_size: images that are detected at once, if they are padded to one size; the results are those of one image
            at a time.
        precision: `fp32`, `bf16` or `fp16`.
        augmentation: views of each image whose detections are merged; by default one view.
        order: the channels of tensors and arrays: `rgb`, or `bgr` as OpenCV reads them.

    Raises:
        DataError: for a file that cannot be read.
        DetError: for an image of another type, shape or dtype, an option that is not allowed, or if a detector without
            a proposal head gets no proposals.
    """
    if type(batch_size) is not int or batch_size < 1:
        raise DetError(f"batch_size: found {show(batch_size)}, expected a whole number of at least 1")
    _check_choice("order", order, get_args(Order))
    _check_choice("precision", precision, PRECISIONS)
    if is_image(images):
        return _predict([images], detector, 1, precision, augmentation or Augmentation(), order)[0]
    if not isinstance(images, Sequence):
        raise DetError(f"images: found {show(images)} ({type(images).__name__}), expected {ALLOWED}, or a list of them")
    return _predict(images, detector, batch_size, precision, augmentation or Augmentation(), order)


def _predict(
    images: Sequence[Image],
    detector: Detector,
    batch_size: int,
    precision: str,
    augmentation: Augmentation,
    order: Order,
) -> list[Detections]:
    views = built_views(detector, augmentation)
    detector.eval()
    found: list[Detections] = []
    for start in range(0, len(images), batch_size):
        samples = [to_sample(image, order) for image in images[start : start + batch_size]]
        seen = [[prepare(sample, transforms, Key()) for sample in samples] for transforms, _ in views]
        found += detect_views(detector, seen, [mirrored for _, mirrored in views], precision, augmentation)
    return found


def built_views(detector: Detector, augmentation: Augmentation) -> list[tuple[list[Transform], bool]]:
    """The transforms of each view of an image, and whether it is mirrored."""
    return [([t.build() for t in view], mirror) for view, mirror in augmentation.views(detector.test_transforms)]


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


def _check_choice(name: str, value: object, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise DetError(f"{name}: found {show(value)}, allowed: {', '.join(allowed)}")


def _view(detector: Detector, loaded: Sequence[LoadedImage], mirrored: bool, precision: str) -> list[Detections]:
    """The detections of one view of each image, in pixels of the original image, on the CPU."""
    found: dict[int, Detections] = {}
    for group in same_size_groups(loaded, detector.preprocess.config.pad_divisor):
        with inference_autocast(detector.preprocess.mean.device, precision):
            detections = detector.predict(to_batch(detector, [loaded[at] for at in group]))
        found |= {at: d.to("cpu") for at, d in zip(group, detections, strict=True)}
    ordered = [found[at] for at in range(len(loaded))]
    if not mirrored:
        return ordered
    return [unflip(d, image.info.original_size[1]) for d, image in zip(ordered, loaded, strict=True)]
