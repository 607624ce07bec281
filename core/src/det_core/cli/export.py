"""`det-core export`: write a whole detector as an ONNX model or a `torch.export` program."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from det_core.cli.choose import with_limits
from det_core.cli.options import CHECKPOINT, OVERRIDES
from det_core.cli.output_files import check_outputs
from det_core.config.overrides import apply_overrides
from det_core.errors import DetError
from det_core.load import recipe_from_plain

if TYPE_CHECKING:
    from det_core.export.export_detector import Format

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
    overrides: tuple[str, ...],
) -> None:
    """Write the detector of a checkpoint as one file: normalisation, network, NMS and masks, for all sizes of images.

    The file is run and compared with the detector before it takes its name. `det_core.export` loads it in Python;
    docs/export.md describes its inputs and outputs.
    """
    chosen = format_ or _format_of(out)
    from det_core.data.image_list import list_images
    from det_core.engine.checkpoint import load_detector, read_header, weights_file
    from det_core.export.compare_exported import Tolerances
    from det_core.export.export_detector import export_detector

    file = weights_file(checkpoint)
    listed = list_images([str(path) for path in images]) if images else None
    compared = None if listed is None else [Path(listed[i].path) for i in range(len(listed))]
    check_outputs("--out", [out], [file, *(compared or ())])
    plain = apply_overrides(read_header(file).recipe.to_plain(), list(overrides))
    recipe = with_limits(recipe_from_plain(plain, str(file)), score_threshold, max_detections)
    detector = load_detector(file, recipe=recipe)
    found = export_detector(
        detector,
        out,
        chosen,
        images=compared,
        tolerances=None if no_check else Tolerances(boxes=box_tolerance, scores=score_tolerance),
        recipe=recipe.name,
    )
    click.echo(f"{out}: {chosen}, {'not compared with the detector' if found is None else found}")
    if detector.takes_proposals:
        random = "" if found is None else " Images without proposals were compared on random ones."
        click.echo(f"It takes proposals as inputs, which docs/export.md describes.{random}")


def _format_of(out: Path) -> Format:
    """The format of a file's suffix; DetError for another."""
    for name, suffix in SUFFIXES.items():
        if out.suffix == suffix:
            return name  # type: ignore[return-value]
    raise DetError(f"--out {out}: found the suffix {out.suffix!r}, expected .onnx or .pt2, or give --format")
