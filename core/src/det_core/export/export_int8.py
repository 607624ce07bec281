"""Export of a detector in int8: written in float32, compared, quantised, and run beside the detector.

Letters: n detections of the detector, m of the file. Boxes are xyxy in pixels of the original image.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from attrs import frozen
from torch import Tensor

from det_core.boxes.overlaps import box_iou
from det_core.data.loader import LoadedImage
from det_core.engine.image_inputs import Image
from det_core.engine.predict import to_batch
from det_core.errors import DetError
from det_core.export.compare_exported import Tolerances, matched
from det_core.export.export_detector import STRICT, check_exportable, export_detector, transformed
from det_core.export.int8_model import write_int8
from det_core.export.load_exported import ExportedDetector, load_exported
from det_core.model.detector import Detector
from det_core.safe_write import replacing
from det_core.structures import Detections

CERTAIN = 0.3  # scores of detections that count in an `Agreement`


@frozen(kw_only=True)
class Agreement:
    """How much of what a detector finds an int8 file finds, and the other way round.

    calibrated: images that ranges are from. images: compared. detector, file: detections of each with a score of at
    least 0.3. both: pairs of these, of one class, with an IoU of at least 0.5. scores: mean difference in these pairs.
    """

    calibrated: int
    images: int
    detector: int
    file: int
    both: int
    scores: float

    def __str__(self) -> str:
        return (
            f"calibrated on {self.calibrated} images; on {self.images} of them, above a score of {CERTAIN}, the "
            f"detector finds {self.detector}, the file {self.file}, both {self.both}, with scores that differ by "
            f"{self.scores:.3f} in the mean"
        )


def export_int8(
    detector: Detector,
    file: str | Path,
    calibration: Sequence[Image],
    *,
    tolerances: Tolerances | None = STRICT,
    recipe: str = "",
    compared: int = 10,
) -> Agreement:
    """Write a whole detector as an ONNX model whose convolutions and linear layers compute in int8.

    Args:
        detector: as for `export_detector`.
        file: to write, with the suffix .onnx.
        calibration: some 100 images like those that it will be used on, as `predict` takes them. The ranges of
            activations are from these.
        tolerances: between the detector and the float32 model that is quantised; None: that is not compared.
        recipe: name of the recipe, for the metadata.
        compared: the number of the calibration images on which the file is run beside the detector.

    Raises:
        DetError: without images, or as `export_detector`.
    """
    if not calibration:
        raise DetError("calibration: found no images, expected some like those that the detector will be used on")
    file = Path(file)
    check_exportable(detector, file, "onnx")
    with tempfile.TemporaryDirectory() as folder, replacing(file) as temporary:
        plain = Path(folder) / "float32.onnx"
        export_detector(detector, plain, images=calibration[:3], tolerances=tolerances, recipe=recipe)
        exported = load_exported(plain)
        write_int8(plain, temporary, exported.header, transformed(detector, calibration))
        shown = list(transformed(detector, calibration[:compared]))
        return agreement(detector, load_exported(temporary), shown, calibrated=len(calibration))


def agreement(
    detector: Detector, exported: ExportedDetector, images: Sequence[LoadedImage], *, calibrated: int
) -> Agreement:
    """The agreement of a detector and a file on transformed images."""
    ours = [d for image in images for d in detector.predict(to_batch(detector, [image]))]
    pairs = [_certain(*pair) for pair in zip(ours, exported.detect(images), strict=True)]
    differences = torch.cat([_score_differences(a, b) for a, b in pairs])
    return Agreement(
        calibrated=calibrated,
        images=len(images),
        detector=sum(len(a) for a, _ in pairs),
        file=sum(len(b) for _, b in pairs),
        both=len(differences),
        scores=float(differences.mean()) if len(differences) else 0.0,
    )


def _certain(ours: Detections, theirs: Detections) -> tuple[Detections, Detections]:
    return ours[ours.scores >= CERTAIN], theirs[theirs.scores >= CERTAIN]


def _score_differences(ours: Detections, theirs: Detections) -> Tensor:
    """Of each pair of detections of one class that overlap enough."""
    apart = 1 - box_iou(ours.boxes, theirs.boxes)  # (n, m)
    apart = torch.where(ours.labels[:, None] == theirs.labels, apart, torch.inf)
    rows, columns = matched(apart, 0.5)
    return (ours.scores[rows] - theirs.scores[columns]).abs()
