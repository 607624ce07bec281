"""Export of a detector: traced once, written aside, compared with the detector, renamed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, get_args

import torch
from attrs import evolve

from det_core.boxes.spread_boxes import spread_boxes
from det_core.data.loader import LoadedImage, prepare
from det_core.engine.image_inputs import Image, to_sample
from det_core.errors import DetError
from det_core.export.compare_exported import Comparison, Tolerances, check, compare, sample_images
from det_core.export.exported_header import ExportedHeader
from det_core.export.exported_program import example_inputs, trace, write_program
from det_core.export.load_exported import ONNX, PROGRAM, load_exported
from det_core.export.onnx_model import write_onnx
from det_core.export.padded_detector import PaddedDetector
from det_core.model.detector import Detector
from det_core.padded import PaddedDetections
from det_core.safe_write import replacing
from det_core.specs import RGB
from det_core.structures import Key

Format = Literal["onnx", "torch-export"]
STRICT = Tolerances()
TRIED = (512, 640)  # size of the image that a detector is tried on, large enough for SSD512
PROPOSALS = 100  # of an image without proposals, for a detector that takes them
SUFFIXES: dict[Format, str] = {"onnx": ONNX, "torch-export": PROGRAM}


def export_detector(
    detector: Detector,
    file: str | Path,
    format: Format = "onnx",
    *,
    images: Sequence[Image] | None = None,
    tolerances: Tolerances | None = STRICT,
    recipe: str = "",
) -> Comparison | None:
    """Write a whole detector, with normalisation and post-processing, for any number and size of images.

    Args:
        detector: on the CPU, in float32; put into evaluation mode. Not one of `for_inference`.
        file: to write; its suffix is that of the format.
        format: "onnx" (.onnx) or "torch-export" (.pt2).
        images: that the written file is compared on, as `predict` takes them; by default three of the bundled sample.
            For a detector that takes proposals, images without them are given random ones.
        tolerances: differences that are allowed; None: the file is not run.
        recipe: name of the recipe, for the metadata.

    Returns:
        The largest differences, or None without comparison.

    Raises:
        NotExportableError: for a part or a setting that has no form of fixed size, or that ONNX does not have.
        DisagreementError: if the file's detections differ by more than the tolerances; no file is left.
        DetError: for a wrong suffix, format or device, or if a package of the extra `export` is missing.
        WriteError: if the file cannot be written.
    """
    file = Path(file)
    check_exportable(detector, file, format)
    module, example = PaddedDetector(detector.eval()), _loaded(detector, images)
    header = _header(detector, module, example, recipe)
    module.inclusive = header.inclusive
    program = trace(module, header)
    with replacing(file) as temporary:
        (write_onnx if format == "onnx" else write_program)(program, header, temporary)
        found = None if tolerances is None else compare(detector, load_exported(temporary), example, tolerances)
        if found is not None:
            check(found, str(file))
    return found


def check_exportable(detector: Detector, file: Path, format: str) -> None:
    """DetError for a wrong suffix or format, or a detector on another device, in another precision, or not of RGB."""
    if format not in get_args(Format):
        raise DetError(f"format: found {format!r}, allowed: {', '.join(get_args(Format))}")
    pixels = detector.preprocess.config.pixels()
    if pixels != RGB:
        raise DetError(f"the detector takes {pixels}; only detectors of {RGB} can be exported, use the checkpoint")
    expected = SUFFIXES[format]  # type: ignore[index]
    if file.suffix != expected:
        raise DetError(f"{file}: found the suffix {file.suffix!r}, expected {expected!r} for format {format}")
    at = {(p.device.type, p.dtype) for p in detector.parameters()}
    if at != {("cpu", torch.float32)}:
        found = ", ".join(sorted(f"{dtype} on {device}" for device, dtype in at))
        raise DetError(
            f"the detector has parameters of {found}, expected torch.float32 on cpu; use detector.cpu().float()"
        )


def transformed(detector: Detector, images: Iterable[Image]) -> Iterator[LoadedImage]:
    """The images, transformed as at test time. If the detector takes proposals, images without get random ones."""
    transforms = [t.build() for t in detector.test_transforms]
    for image in images:
        sample = to_sample(image)
        if detector.takes_proposals and sample.proposals is None:
            sample = evolve(sample, proposals=spread_boxes(PROPOSALS, sample.size))
        yield prepare(sample, transforms, Key())


def _loaded(detector: Detector, images: Sequence[Image] | None) -> list[LoadedImage]:
    """The images to compare on."""
    chosen = sample_images() if images is None else images
    if not chosen:
        raise DetError("images: found none, expected at least one image to compare the exported file on")
    return list(transformed(detector, chosen))


def _header(detector: Detector, module: PaddedDetector, images: Sequence[LoadedImage], recipe: str) -> ExportedHeader:
    """The metadata. The detector is run once, which also tells whether it can be exported."""
    found = _run_once(module)
    return ExportedHeader(
        classes=detector.found_classes,
        transforms=detector.test_transforms,
        inclusive=images[0].info.inclusive,
        pixels="float32" if images[0].image.is_floating_point() else "uint8",
        pad_divisor=detector.preprocess.config.pad_divisor,
        max_detections=found.boxes.shape[1],
        paste=found.paste,
        takes_proposals=module.detector.takes_proposals,
        recipe=recipe,
    )


@torch.no_grad()
def _run_once(module: PaddedDetector) -> PaddedDetections:
    return module.detect(*example_inputs(*TRIED, count=1, takes_proposals=module.detector.takes_proposals))
