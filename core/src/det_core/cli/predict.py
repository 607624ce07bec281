"""`det-core predict`: detect objects in images."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from det_core.cli.choose import augmentation, detection_options, with_limits
from det_core.cli.options import AMP, CHECKPOINT, DEVICE, TIMEOUT
from det_core.cli.output_files import check_outputs
from det_core.errors import DetError, counted

if TYPE_CHECKING:
    from det_core.engine.predict_files import FileResult
    from det_core.structures import Classes, Detections

SECONDS_BETWEEN_WRITES = 10  # of predictions.json, so that a process that is killed loses little
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm"})


@click.command(name="predict")
@CHECKPOINT
@click.argument("images", nargs=-1, required=True)
@click.option("--out", default="predictions", show_default=True, help="Folder for the pictures and predictions.json.")
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Draw detections of at least this score; the JSON has all.",
)
@click.option("--batch-size", type=click.IntRange(min=1), default=1, show_default=True)
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    help="Loader processes; 0: read in the main process. Default: the recipe's, and 0 for a few images.",
)
@DEVICE
@AMP
@TIMEOUT
@detection_options
def command(
    checkpoint: str,
    images: tuple[str, ...],
    out: str,
    threshold: float,
    batch_size: int,
    workers: int | None,
    device: str | None,
    use_amp: bool,
    timeout: int,
    flip: bool,
    scales: tuple[str, ...],
    score_threshold: float | None,
    max_detections: int | None,
) -> None:
    """Detect objects in IMAGES (files or folders). Writes a picture of each image, and all detections as JSON.

    An image that cannot be read costs only its own result: it is reported, is in the JSON with its error, and the exit
    status is 1.

    In the JSON, boxes are x1, y1, x2, y2 in pixels of the image, and masks are COCO's compressed RLE.
    """
    files = find_images(images)
    from det_core.data.loader_watch import worker_errors
    from det_core.engine.checkpoint import load_detector, read_header, weights_file, write_text
    from det_core.engine.distributed import choose_device
    from det_core.engine.predict_files import FEW, predict_files
    from det_core.engine.prepare_inference import for_inference
    from det_core.export.predict_exported import exported_batches, is_exported
    from det_core.reports.drawing import picture_names

    names, folder = picture_names(files), Path(out)
    check_outputs("--out", [folder / "predictions.json", *(folder / name for name in names.values())], files)
    if is_exported(checkpoint):
        fixed = {"--amp": use_amp, "--flip": flip, "--scale": scales}
        fixed |= {"--score-threshold": score_threshold is not None, "--max-detections": max_detections is not None}
        batches, classes = exported_batches(
            checkpoint, files, batch_size=batch_size, device=choose_device(device), options=fixed
        )
    else:
        file = weights_file(checkpoint)
        recipe = with_limits(read_header(file).recipe, score_threshold, max_detections)
        detector = for_inference(load_detector(file, choose_device(device), recipe=recipe))
        classes = detector.found_classes
        if workers is None:
            workers = recipe.data.workers if len(files) > FEW else 0
        batches = predict_files(
            detector,
            files,
            batch_size=batch_size,
            precision="bf16" if use_amp else "fp32",
            augmentation=augmentation(recipe, scales, flip),
            workers=workers,
            timeout=timeout,
        )
    records: list[dict[str, Any]] = []
    written = time.monotonic()
    try:
        with worker_errors("--workers 0"), closing(batches):
            for results in batches:
                records += _records(results, names, classes)
                if time.monotonic() - written > SECONDS_BETWEEN_WRITES:
                    write_text(folder / "predictions.json", json.dumps(records) + "\n")
                    written = time.monotonic()
                for result in results:
                    _save_picture(result, folder / names[result.file], classes, threshold)
    finally:  # also of what was found before an error or Ctrl-C
        write_text(folder / "predictions.json", json.dumps(records) + "\n")
    failed = sum("error" in record for record in records)
    if failed:
        raise DetError(f"{failed} of {counted(len(files), 'image')} cannot be read; {folder}/predictions.json says why")


def find_images(given: tuple[str, ...]) -> list[Path]:
    """The image files of paths, where a folder means all its images; DetError for a path that does not exist."""
    files: list[Path] = []
    for text in given:
        path = Path(text)
        if path.is_dir():
            named = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
            inside = [p for p in named if not p.is_dir()]
            for folder in set(named) - set(inside):
                click.echo(f"passed over {folder}: it is a folder; give it as one to have its images", err=True)
            if not inside:
                raise DetError(f"{path}: no images in this folder ({', '.join(sorted(IMAGE_SUFFIXES))})")
            files += inside
        elif path.exists():  # a pipe or device is reported when it is read
            files.append(path)
        else:
            raise DetError(f"{path}: no such file or folder")
    return list(dict.fromkeys(files))


def _records(results: Sequence[FileResult], names: Mapping[Path, str], classes: Classes) -> list[dict[str, Any]]:
    """Results as plain data for JSON: first the images that cannot be read, which are also reported."""
    bad = [(result.file, result.bad) for result in results if result.bad is not None]
    for _, problem in bad:
        click.echo(f"error: {problem}", err=True)
    return [{"file": str(file), "error": problem.what} for file, problem in bad] + [
        {"file": str(r.file), "picture": names[r.file], "detections": _plain(r.detections, classes)}
        for r in results
        if r.detections is not None
    ]


def _save_picture(result: FileResult, where: Path, classes: Classes, threshold: float) -> None:
    """Draw the detections of at least the threshold, if the image could be read."""
    from det_core.reports.drawing import draw, save_png

    found = result.detections
    if result.image is None or found is None:
        return
    save_png(draw(result.image, found, classes, threshold), where)
    drawn = int((found.scores >= threshold).sum())
    click.echo(f"{result.file}: {len(found)} detections, {drawn} of at least {threshold:g} -> {where}")


def _plain(found: Detections, classes: Classes) -> list[dict[str, Any]]:
    """Detections as plain data for JSON."""
    from det_core.evaluation.coco_metric import mask_codes

    codes = mask_codes(found)
    masks = [None] * len(found) if codes is None else codes
    rows = zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), masks)
    return [
        {"box": box, "score": score, "label": label, "class": classes.names[label]}
        | ({} if mask is None else {"mask": mask})
        for box, score, label, mask in rows
    ]
