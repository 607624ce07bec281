"""Detections of an exported file, as `predict` gives those of a detector.

Letters: N images, H W size of the input, h w valid size of one image, P proposals of an image, n detections of one
image.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeVar, get_args, overload

import torch
from torch import Tensor

from det_core.data.loader import LoadedImage, prepare
from det_core.engine.image_inputs import Image, Order, is_image, to_sample
from det_core.engine.predict import check_choice
from det_core.engine.same_size import same_size_groups
from det_core.errors import DetError, no_such
from det_core.export.exported_header import ExportedHeader
from det_core.model.postprocess import to_original
from det_core.padded import MaskPaste
from det_core.specs import Runtime
from det_core.structures import Classes, Detections, Key

ONNX, PROGRAM = ".onnx", ".pt2"
T = TypeVar("T", bound=Image)


def is_exported(file: str | Path) -> bool:
    """Whether a file's suffix is that of an exported detector."""
    return Path(file).suffix in (ONNX, PROGRAM)


class Runner(Protocol):
    """Runs an exported file: inputs of `PaddedDetector` to its outputs, on the CPU."""

    header: ExportedHeader

    def __call__(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Images (N, 3, H, W), sizes, original sizes and scales (N, 2), and if it takes them proposals (N, P, 4) and
        their counts (N,), to boxes (N, D, 4), scores and labels (N, D), counts (N,) and masks (N, D, S, S), if there
        are any.
        """


class ExportedDetector:
    """A detector that was exported. It resizes images as the file's metadata say; the file does the rest."""

    def __init__(self, runner: Runner) -> None:
        self.runner, self.header = runner, runner.header
        self._transforms = [t.build() for t in runner.header.transforms]

    @property
    def classes(self) -> Classes:
        """The classes of its detections."""
        return self.header.classes

    @overload
    def __call__(self, images: Image, *, batch_size: int = 1, order: Order = "rgb") -> Detections: ...

    @overload
    def __call__(
        self, images: list[T] | tuple[T, ...], *, batch_size: int = 1, order: Order = "rgb"
    ) -> list[Detections]: ...

    def __call__(
        self, images: Image | Sequence[Image], *, batch_size: int = 1, order: Order = "rgb"
    ) -> Detections | list[Detections]:
        """Detections of an image, or of each of several: takes and returns what `det_core.predict` does.

        batch_size: images that are detected at once, if they are padded to one size.

        Raises:
            DetError: if the file takes proposals (`header.takes_proposals`) and an image has none.
        """
        if is_image(images):
            return self.detect([prepare(to_sample(images, order), self._transforms, Key())])[0]
        assert isinstance(images, (list, tuple))
        found: list[Detections] = []
        for start in range(0, len(images), batch_size):
            samples = [to_sample(image, order) for image in images[start : start + batch_size]]
            found += self.detect([prepare(sample, self._transforms, Key()) for sample in samples])
        return found

    def detect(self, images: Sequence[LoadedImage]) -> list[Detections]:
        """The detections of images that are already transformed, those of one padded size at once."""
        found: dict[int, Detections] = {}
        for group in same_size_groups(images, self.header.pad_divisor):
            batch = [images[at] for at in group]
            outputs = self.runner(runner_inputs(batch, self.header))
            found |= dict(zip(group, unpadded(outputs, batch, self.header.paste), strict=True))
        return [found[at] for at in range(len(images))]


def runner_inputs(images: Sequence[LoadedImage], header: ExportedHeader) -> tuple[Tensor, ...]:
    """The inputs of `PaddedDetector` for a batch of transformed images (3, h, w); DetError if one lacks proposals."""
    height, width = (max(i.image.shape[axis] for i in images) for axis in (1, 2))
    padded = torch.zeros((len(images), 3, height, width), dtype=getattr(torch, header.pixels))
    for row, item in zip(padded, images, strict=True):
        row[:, : item.image.shape[1], : item.image.shape[2]] = item.image
    infos = [i.info for i in images]
    inputs = (
        padded,
        torch.tensor([i.size for i in infos]),
        torch.tensor([i.original_size for i in infos]),
        torch.tensor([i.scale for i in infos], dtype=torch.float32),
    )
    return (*inputs, *proposal_inputs(images)) if header.takes_proposals else inputs


def proposal_inputs(images: Sequence[LoadedImage]) -> tuple[Tensor, Tensor]:
    """The proposals (N, P, 4) of transformed images in original pixels, and how many each has (N,); P is at least 1."""
    given = [to_original(i.proposals, i.info) for i in images if i.proposals is not None]
    if len(given) < len(images):
        raise DetError(
            f"{len(images) - len(given)} of {len(images)} images have no proposals, which this exported detector "
            "requires because it has no proposal head; in Python, pass samples with proposals "
            "(det_core.contracts.Sample), such as those of a data set with a proposals file; `det-core predict` reads "
            "images alone"
        )
    counts = [len(boxes) for boxes in given]
    padded = torch.zeros(len(given), max(1, *counts), 4)
    for row, boxes in zip(padded, given, strict=True):
        row[: len(boxes)] = boxes
    return padded, torch.tensor(counts)


def unpadded(outputs: Sequence[Tensor], images: Sequence[LoadedImage], paste: MaskPaste | None) -> list[Detections]:
    """The detections of each image from boxes (N, D, 4), scores and labels (N, D), counts (N,), masks (N, D, S, S)."""
    boxes, scores, labels, counts, *masks = outputs
    found = []
    for row, (count, item) in enumerate(zip(counts.tolist(), images, strict=True)):
        own = boxes[row, :count]
        regions = None if paste is None else paste.masks(masks[0][row, :count], own, item.info.original_size)
        found.append(Detections(boxes=own, scores=scores[row, :count], labels=labels[row, :count], masks=regions))
    return found


def load_exported(
    path: str | Path,
    device: str | torch.device = "cpu",
    *,
    providers: Sequence[str] | None = None,
    runtime: Runtime = "onnxruntime",
) -> ExportedDetector:
    """An exported detector from its file: an ONNX model (.onnx) or a torch.export program (.pt2).

    Args:
        path: the file.
        device: that it runs on; for ONNX, see `providers`.
        providers: execution providers of ONNX Runtime, in order of preference.
        runtime: of an ONNX model: `onnxruntime`, or `openvino`, which runs on the CPU.

    Raises:
        DetError: for a file of another kind, one that cannot be read, a runtime that does not run such a file, or one
            that is not installed.
    """
    file = Path(path)
    if not file.is_file():
        raise DetError(no_such(file, "no such file"))
    check_choice("runtime", runtime, get_args(Runtime))
    if runtime == "openvino":
        return ExportedDetector(_openvino(file, torch.device(device)))
    if file.suffix == ONNX:
        from det_core.export.onnx_model import OnnxRunner

        return ExportedDetector(OnnxRunner(file, torch.device(device), providers))
    if file.suffix == PROGRAM:
        from det_core.export.exported_program import ProgramRunner

        return ExportedDetector(ProgramRunner(file, torch.device(device)))
    raise DetError(f"{file}: found the suffix {file.suffix!r}, expected an exported detector ({ONNX} or {PROGRAM})")


def _openvino(file: Path, device: torch.device) -> Runner:
    if file.suffix != ONNX or device.type != "cpu":
        raise DetError(
            f"{file} on {device}: OpenVINO runs an ONNX model (.onnx) on the CPU; give device cpu, or another runtime"
        )
    from det_core.export.openvino_model import OpenVinoRunner

    return OpenVinoRunner(file)
