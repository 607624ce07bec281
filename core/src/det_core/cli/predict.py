"""`det-core predict`: detect objects in images."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from det_core.cli.choose import augmentation, detection_options, with_limits
from det_core.cli.options import AMP, CHECKPOINT, DEVICE
from det_core.cli.output_files import check_outputs
from det_core.errors import DetError, counted

if TYPE_CHECKING:
    from torch import Tensor

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
@DEVICE
@AMP
@detection_options
def command(
    checkpoint: str,
    images: tuple[str, ...],
    out: str,
    threshold: float,
    batch_size: int,
    device: str | None,
    use_amp: bool,
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
    from det_core.engine.checkpoint import load_detector, read_header, weights_file, write_text
    from det_core.engine.distributed import choose_device
    from det_core.engine.predict import predict
    from det_core.engine.prepare_inference import for_inference
    from det_core.reports.drawing import draw, picture_names, save_png

    names, folder = picture_names(files), Path(out)
    check_outputs("--out", [folder / "predictions.json", *(folder / name for name in names.values())], files)
    file = weights_file(checkpoint)
    recipe = with_limits(read_header(file).recipe, score_threshold, max_detections)
    detector = for_inference(load_detector(file, choose_device(device), recipe=recipe))
    precision = "bf16" if use_amp else "fp32"
    views = augmentation(recipe, scales, flip)
    classes = detector.found_classes
    records: list[dict[str, Any]] = []
    written = time.monotonic()
    try:
        for start in range(0, len(files), batch_size):
            pixels, bad = _read(files[start : start + batch_size])
            records += bad
            detections = predict(
                detector, list(pixels.values()), batch_size=batch_size, precision=precision, augmentation=views
            )
            results = dict(zip(pixels, detections))
            records += [
                {"file": str(file), "picture": names[file], "detections": _plain(found, classes)}
                for file, found in results.items()
            ]
            if time.monotonic() - written > SECONDS_BETWEEN_WRITES:
                write_text(folder / "predictions.json", json.dumps(records) + "\n")
                written = time.monotonic()
            for file, found in results.items():
                save_png(draw(pixels[file], found, classes, threshold), folder / names[file])
                drawn = int((found.scores >= threshold).sum())
                where = folder / names[file]
                click.echo(f"{file}: {len(found)} detections, {drawn} of at least {threshold:g} -> {where}")
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


def _read(files: Sequence[Path]) -> tuple[dict[Path, Tensor], list[dict[str, Any]]]:
    """The pixels (3, h, w) of the images that can be read, and a record of each other one, which is also reported."""
    from det_core.data.bad_samples import BadImage
    from det_core.data.images import read_image

    pixels, bad = {}, []
    for file in files:
        try:
            pixels[file] = read_image(file)
        except BadImage as error:
            click.echo(f"error: {error}", err=True)
            bad.append({"file": str(file), "error": error.sample.what})
    return pixels, bad


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
