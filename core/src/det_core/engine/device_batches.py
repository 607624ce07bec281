"""Batches that are on the device before they are needed, and detections that leave it once per batch.

On CUDA a batch travels on a stream of its own while the one before is computed: its pixels as they are loaded, all else
in one buffer. Elsewhere nothing is sent ahead.

Letters: N images, H W padded size.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from typing import Protocol

import torch
from attrs import frozen
from torch import Tensor

from det_core.boxes.device_copies import Parcel, send
from det_core.data.loader import LoadedImage
from det_core.model.detector import Preprocess
from det_core.structures import Detections, ImageInfo, Targets


class Streams(Protocol):
    """What is used of the streams of a device: the one that computes, and one for copies."""

    @property
    def device(self) -> torch.device: ...

    def copying(self) -> AbstractContextManager[object]:
        """Inside, the work of this thread is queued on the stream for copies."""

    def wait(self) -> None:
        """What is queued for computing from now on waits for all copies queued so far; the host does not."""

    def used(self, tensor: Tensor) -> None:
        """Memory of a copied tensor (...) is given to no other before what computes with it is done."""


class CudaStreams:
    """The current stream of a CUDA device, and a new one for copies."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._copies = torch.cuda.Stream(device)

    def copying(self) -> AbstractContextManager[object]:
        return torch.cuda.stream(self._copies)

    def wait(self) -> None:
        torch.cuda.current_stream(self.device).wait_stream(self._copies)

    def used(self, tensor: Tensor) -> None:
        """A tensor (...) that was copied."""
        tensor.record_stream(torch.cuda.current_stream(self.device))


def streams_of(device: torch.device) -> Streams | None:
    """The streams of a device; None if it has none to copy on, as CPUs and MPS."""
    return CudaStreams(device) if device.type == "cuda" else None


@frozen(eq=False, kw_only=True)
class SentBatch:
    """A batch of loaded images on the device, or on the way to it.

    pixels: (N, H, W, C) of `Preprocess.canvas`, each image in the top-left corner. targets: without ignored objects;
    empty if they were not sent. proposals: as in `Batch`. buffers: the device memory that all these are in.
    """

    pixels: Tensor
    infos: tuple[ImageInfo, ...]
    targets: tuple[Targets, ...]
    proposals: tuple[Tensor, ...] | None
    buffers: tuple[Tensor, ...]


Loaded = Sequence[LoadedImage] | SentBatch  # a batch of loaded images, on the host or on the device


def infos_of(images: Loaded) -> tuple[ImageInfo, ...]:
    """The metadata of each image."""
    return images.infos if isinstance(images, SentBatch) else tuple(image.info for image in images)


def proposals_of(images: Sequence[LoadedImage]) -> tuple[Tensor, ...] | None:
    """The proposals (n, 4) of each image, or None if an image has none."""
    given = [image.proposals for image in images if image.proposals is not None]
    return tuple(given) if len(given) == len(images) else None


def sent_ahead(
    batches: Iterable[list[LoadedImage]], preprocess: Preprocess, streams: Streams | None, *, targets: bool
) -> Generator[Loaded]:
    """The batches; with streams, each is sent before the one before it is used, and at most one is.

    An error in loading or sending a batch is raised in its turn, after the batch before was used. targets: whether
    targets are needed.
    """
    if streams is None:
        yield from batches
        return
    with closing(images for images in batches) as loaded:
        coming = _next(loaded, preprocess, streams, targets)
        while coming is not None:
            if isinstance(coming, Exception):
                raise coming
            streams.wait()
            for buffer in coming.buffers:
                streams.used(buffer)
            ready = coming  # which frees the one before, before memory is taken for the next
            coming = _next(loaded, preprocess, streams, targets)
            yield ready


def _next(
    loaded: Iterator[list[LoadedImage]], preprocess: Preprocess, streams: Streams, targets: bool
) -> SentBatch | Exception | None:
    """The next batch on its way, the error that prevents it, or None after the last."""
    try:
        images = next(loaded)
        with streams.copying():
            return _sent(images, preprocess, streams.device, targets)
    except StopIteration:
        return None
    except Exception as error:  # the batch before is used first
        return error


def _sent(images: Sequence[LoadedImage], preprocess: Preprocess, device: torch.device, targets: bool) -> SentBatch:
    pinned = device.type == "cuda"
    pixels = send(preprocess.canvas([image.image for image in images], pinned=pinned), device)
    wanted = [image.targets.objects() for image in images] if targets else []
    proposals = proposals_of(images) or ()
    parts = [*proposals, *_tensors_of(wanted)]
    parcel = Parcel.of(parts, pinned=pinned).sent(device)
    arrived = iter(parcel.tensors())
    given = tuple(next(arrived) for _ in proposals)
    return SentBatch(
        pixels=pixels,
        infos=infos_of(images),
        targets=tuple(target.mapped(lambda _: next(arrived)) for target in wanted),
        proposals=given if proposals else None,
        buffers=(pixels, parcel.buffer),
    )


def on_host(found: Sequence[Detections]) -> list[Detections]:
    """The detections of a batch in host memory; a device is waited for once."""
    if all(detections.boxes.device.type == "cpu" for detections in found):
        return list(found)
    return fetched(found)


def fetched(found: Sequence[Detections]) -> list[Detections]:
    """As `on_host`, in one copy for all."""
    arrived = iter(Parcel.of(_tensors_of(found)).on_host().tensors())
    return [detections.mapped(lambda _: next(arrived)) for detections in found]


def _tensors_of(values: Sequence[Targets] | Sequence[Detections]) -> list[Tensor]:
    """All tensors, in the order of `mapped`."""
    parts: list[Tensor] = []

    def collect(tensor: Tensor) -> Tensor:
        parts.append(tensor)
        return tensor

    for value in values:
        value.mapped(collect)
    return parts
