"""`det-core data convert`: a data set in another format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import click

from det_core.cli.options import ON_BAD_SAMPLE
from det_core.errors import DetError
from det_core.recipe import dataset_at
from det_core.specs import Split

if TYPE_CHECKING:
    from det_core.specs import OnBadSample


@click.command()
@click.option("--data", required=True, help="Root folder of the data set, in any format that is found there.")
@click.option("--to", "target", required=True, type=click.Choice(["coco", "yolo"]), help="Format to write.")
@click.option("--out", required=True, help="New folder for annotations and images.")
@click.option(
    "--images",
    type=click.Choice(["link", "copy"]),
    default="link",
    show_default=True,
    help="Link to the images, or copy them.",
)
@ON_BAD_SAMPLE
def convert(
    data: str,
    target: Literal["coco", "yolo"],
    out: str,
    images: Literal["link", "copy"],
    on_bad_sample: OnBadSample | None,
) -> None:
    """Write a data set in COCO or YOLO format, all its splits.

    Says what the format cannot hold: YOLO has no crowd regions, and one polygon per object. YOLO to COCO and back gives
    the same lines.
    """
    from det_core.data.convert import convert as convert_data

    splits = {split: dataset_at(data, split) for split in get_args(Split)}
    there = {split: config for split, config in splits.items() if config.is_there(data)}
    if not there:
        raise DetError(f"--data {data}: found no data set; `det-core data --data {data}` says what was looked for")
    report = convert_data(there, data, Path(out), target, images=images, on_bad_sample=on_bad_sample or "error")
    for line in report.lines():
        click.echo(line)
