"""Prediction: detections of images.

Letters: h w original image size, n detections.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import Tensor

from det_core.contracts import Sample, Transform
from det_core.data.images import read_image
from det_core.data.loader import LoadedImage, prepare
from det_core.engine.test_time_augmentation import Augmentation, merge, unflip
from det_core.errors import DetError
from det_core.model.detector import Detector
from det_core.structures import Batch, Detections, Key, Targets

AMP_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


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
    """torch's autocast for `bf16` or `fp16`, and no autocast for `fp32`."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, AMP_TYPES[precision])


def predict(
    detector: Detector,
    images: Sequence[str | Path | Tensor | Sample],
    *,
    batch_size: int = 1,
    precision: str = "fp32",
    augmentation: Augmentation | None = None,
) -> list[Detections]:
    """Detections of each image, best first, in pixels of the original image, on the CPU.

    Args:
        detector: put into evaluation mode; stays on its device. `for_inference` makes a faster one for many calls.
        images: files, (3, h, w) uint8 RGB tensors, or samples of a data set. A detector without a proposal head needs
            samples with proposals.
        batch_size: images per batch.
        precision: `fp32`, `bf16` or `fp16`.
        augmentation: views of each image whose detections are merged; by default one view.

    Raises:
        DataError: for a file that cannot be read.
        DetError: for a tensor of another shape or dtype, or if a detector without a proposal head gets no proposals.
    """
    augmentation = augmentation or Augmentation()
    views = [([t.build() for t in view], mirror) for view, mirror in augmentation.views(detector.test_transforms)]
    detector.eval()
    found: list[Detections] = []
    for start in range(0, len(images), batch_size):
        samples = [_sample(image) for image in images[start : start + batch_size]]
        seen = [_view(detector, samples, *view, precision) for view in views]
        found += seen[0] if len(seen) == 1 else [merge(views, augmentation) for views in zip(*seen, strict=True)]
    return found


def _view(
    detector: Detector, samples: Sequence[Sample], transforms: Sequence[Transform], mirrored: bool, precision: str
) -> list[Detections]:
    """The detections of one view of each image, in pixels of the original image, on the CPU."""
    loaded = [prepare(sample, transforms, Key()) for sample in samples]
    with autocast(detector.preprocess.mean.device, precision):
        found = [d.to("cpu") for d in detector.predict(to_batch(detector, loaded))]
    return [unflip(d, s.size[1]) for d, s in zip(found, samples, strict=True)] if mirrored else found


def _sample(image: str | Path | Tensor | Sample) -> Sample:
    """An image as a sample without annotations; a sample is returned unchanged."""
    if isinstance(image, Sample):
        return image
    if isinstance(image, Tensor):
        if image.dim() != 3 or image.shape[0] != 3 or image.dtype != torch.uint8:
            raise DetError(f"an image is {tuple(image.shape)} {image.dtype}, expected (3, h, w) torch.uint8 in RGB")
        pixels, file = image.cpu(), ""
    else:
        pixels, file = read_image(image), str(image)
    return Sample(
        image=pixels,
        boxes=torch.zeros(0, 4),
        labels=torch.zeros(0, dtype=torch.int64),
        ignored=torch.zeros(0, dtype=torch.bool),
        file=file,
    )
