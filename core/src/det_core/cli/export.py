"""`det-core export`: write a whole detector as an ONNX model or a `torch.export` program."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from det_core.cli.choose import with_limits
from det_core.cli.options import CHECKPOINT, DATA, OVERRIDES
from det_core.cli.output_files import check_outputs
from det_core.errors import DetError
from det_core.load import recipe_with

if TYPE_CHECKING:
    from det_core.export.export_detector import Format
    from det_core.recipe import Recipe

CALIBRATION_IMAGES = 100
SUFFIXES = {"onnx": ".onnx", "torch-export": ".pt2"}


@click.command(name="export")
@CHECKPOINT
@click.option(
    "--format",
    "format_",
    type=click.Choice(tuple(SUFFIXES)),
    help="Format of the file. Default: that of the suffix of --out (.onnx or .pt2).",
)
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="The file to write.")
@click.option(
    "--images",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Compare on this image, or the images of this folder; may be repeated. Default: three of the bundled sample.",
)
@click.option("--score-threshold", type=click.FloatRange(0, 1), help="Keep detections above this score.")
@click.option("--max-detections", type=click.IntRange(min=1), help="Maximum detections per image.")
@click.option(
    "--box-tolerance",
    type=click.FloatRange(min=0, min_open=True),
    default=1e-3,
    show_default=True,
    help="Largest difference of a box, in pixels of the network's input.",
)
@click.option(
    "--score-tolerance",
    type=click.FloatRange(min=0, min_open=True),
    default=1e-4,
    show_default=True,
    help="Largest difference of a score.",
)
@click.option(
    "--int8", is_flag=True, help="ONNX: compute convolutions and linear layers in int8, calibrated on --data."
)
@DATA
@click.option(
    "--calibration-images",
    type=click.IntRange(min=1),
    help=f"Training images that --int8 is calibrated on, evenly spread over the data. Default: {CALIBRATION_IMAGES}.",
)
@click.option("--no-check", is_flag=True, help="Do not run the file and compare it with the detector.")
@OVERRIDES
def command(
    checkpoint: str,
    format_: Format | None,
    out: Path,
    images: tuple[Path, ...],
    score_threshold: float | None,
    max_detections: int | None,
    box_tolerance: float,
    score_tolerance: float,
    no_check: bool,
    int8: bool,
    data: str | None,
    calibration_images: int | None,
    overrides: tuple[str, ...],
) -> None:
    """Write the detector of a checkpoint as one file: normalisation, network, NMS and masks, for all sizes of images.

    The file is run and compared with the detector before it takes its name; of --int8, the float32 model that is
    quantised. `det_core.export` loads it in Python; docs/export.md describes its inputs and outputs.
    """
    chosen = format_ or _format_of(out)
    _check_int8(int8, chosen, {"--data": data, "--calibration-images": calibration_images}, bool(images))
    from det_core.data.image_list import list_images
    from det_core.engine.checkpoint import load_detector, read_header, weights_file
    from det_core.export.compare_exported import Tolerances
    from det_core.export.export_detector import export_detector

    file = weights_file(checkpoint)
    listed = list_images([str(path) for path in images]) if images else None
    compared = None if listed is None else [Path(listed[i].path) for i in range(len(listed))]
    check_outputs("--out", [out], [file, *(compared or ())])
    recipe = recipe_with(read_header(file).recipe.to_plain(), list(overrides), data, str(file))
    recipe = with_limits(recipe, score_threshold, max_detections)
    detector = load_detector(file, recipe=recipe)
    tolerances = None if no_check else Tolerances(boxes=box_tolerance, scores=score_tolerance)
    if int8:
        from det_core.export.export_int8 import export_int8

        calibration = _spread(recipe, calibration_images or CALIBRATION_IMAGES)
        agreed = export_int8(detector, out, calibration, tolerances=tolerances, recipe=recipe.name)
        click.echo(f"{out}: {chosen}, int8, {agreed}")
    else:
        found = export_detector(detector, out, chosen, images=compared, tolerances=tolerances, recipe=recipe.name)
        click.echo(f"{out}: {chosen}, {'not compared with the detector' if found is None else found}")
    if detector.takes_proposals:
        random = "" if no_check and not int8 else " Images without proposals were given random ones."
        click.echo(f"It takes proposals as inputs, which docs/export.md describes.{random}")


def _format_of(out: Path) -> Format:
    """The format of a file's suffix; DetError for another."""
    for name, suffix in SUFFIXES.items():
        if out.suffix == suffix:
            return name  # type: ignore[return-value]
    raise DetError(f"--out {out}: found the suffix {out.suffix!r}, expected .onnx or .pt2, or give --format")


def _check_int8(int8: bool, chosen: str, calibrated: dict[str, object], images: bool) -> None:
    """DetError for options that do not go with --int8, or only go with it."""
    given = [flag for flag, value in calibrated.items() if value is not None]
    if given and not int8:
        raise DetError(f"{given[0]}: an option of --int8, which is not given; add --int8 or remove it")
    if int8 and chosen != "onnx":
        raise DetError(f"--int8: found the format {chosen}, allowed: onnx")
    if int8 and images:
        raise DetError("--images: an int8 model is compared on images of --data; remove the option")


def _spread(recipe: Recipe, count: int) -> list[Path]:
    """The files of so many training images, evenly spread over the data set."""
    dataset = recipe.open_train()
    count = min(count, len(dataset))
    return [Path(dataset.file(number * len(dataset) // count)) for number in range(count)]
