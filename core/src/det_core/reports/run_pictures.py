"""What a run leaves to look at: curves, and detections on validation images beside their annotations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from det_core.contracts import DetectionDataset
from det_core.data.bad_samples import BadImage
from det_core.engine.predictor import predict
from det_core.errors import DetError
from det_core.model.detector import Detector
from det_core.reports.curves import draw_curves
from det_core.reports.drawing import draw, draw_targets, picture_names, save_png, shown, side_by_side

PICTURES = 4


def leave_pictures(run: Path, detector: Detector, dataset: DetectionDataset, rows: list[dict[str, Any]]) -> list[str]:
    """Write `curves.png` and `pictures/*.png` into a run folder; returns a line for each thing that could not be."""
    notes = []
    try:
        draw_curves(rows, run / "curves.png")
    except DetError as error:
        notes.append(f"no curves: {error}")
    folder = run / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    files = [Path(dataset.file(index)) for index in range(min(PICTURES, len(dataset)))]
    names = picture_names(files)
    for index, file in enumerate(files):
        try:
            sample = dataset.load(index)
        except BadImage as error:
            notes.append(f"no picture: {error}")
            continue
        found = predict(detector, [sample])[0]
        image = shown(sample.image)
        truth = draw_targets(image, sample.targets(), dataset.classes)
        detected = draw(image, found, detector.found_classes)
        save_png(side_by_side({"truth": truth, "detections": detected}), folder / names[file])
    return notes
