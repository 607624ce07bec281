"""`det-core predict` with an exported file in place of a checkpoint."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from pathlib import Path

import torch

from det_core.data.bad_samples import BadImage
from det_core.engine.image_inputs import to_sample
from det_core.engine.predict_files import FileResult
from det_core.errors import DetError
from det_core.export.load_exported import ONNX, PROGRAM, ExportedDetector, load_exported
from det_core.structures import Classes


def is_exported(checkpoint: str) -> bool:
    """Whether `--checkpoint` names an exported file."""
    return Path(checkpoint).suffix in (ONNX, PROGRAM)


def exported_batches(
    checkpoint: str,
    files: Sequence[Path],
    *,
    batch_size: int,
    device: torch.device,
    options: Mapping[str, object],
) -> tuple[Generator[list[FileResult]], Classes]:
    """The results of an exported file for image files, a batch at a time, as `predict_files` gives them; its classes.

    options: those of the command line that change the detector, which must not be given.

    Raises:
        DetError: for such an option, or as `load_exported`.
    """
    given = [name for name, value in options.items() if value]
    if given:
        raise DetError(
            f"{given[0]}: {checkpoint} is an exported detector, whose settings are fixed; remove the option, or export "
            "the checkpoint again with other settings"
        )
    exported = load_exported(checkpoint, device)
    return _batches(exported, files, batch_size), exported.classes


def _batches(exported: ExportedDetector, files: Sequence[Path], batch_size: int) -> Generator[list[FileResult]]:
    for start in range(0, len(files), batch_size):
        results = [_read(file) for file in files[start : start + batch_size]]
        good = [result.image for result in results if result.image is not None]
        found = iter(exported(good, batch_size=batch_size))
        yield [
            r if r.image is None else FileResult(file=r.file, image=r.image, detections=next(found)) for r in results
        ]


def _read(file: Path) -> FileResult:
    """The image of a file, or why it cannot be read."""
    try:
        return FileResult(file=file, image=to_sample(file).image)
    except BadImage as error:
        return FileResult(file=file, bad=error.sample)
