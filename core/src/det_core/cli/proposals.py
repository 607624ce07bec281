"""`det-core proposals`: write the proposals of an RPN on a data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from det_core.cli.choose import Changes, with_changes
from det_core.cli.options import (
    ALLOW_OUTSIDE,
    AMP,
    CHECKPOINT_HELP,
    DATA,
    DEVICE,
    ON_BAD_SAMPLE,
    OVERRIDES,
    SPLIT,
    TIMEOUT,
)
from det_core.cli.output_files import check_outputs
from det_core.errors import DetError
from det_core.recipe import dataset_at
from det_core.slots import ProposalHeadConfig

if TYPE_CHECKING:
    from det_core.data.proposals_file import ImageProposals
    from det_core.engine.distributed import World
    from det_core.recipe import Recipe
    from det_core.specs import Split

SUFFIX = ".safetensors"


@click.command(name="proposals")
@click.option("--checkpoint", help=CHECKPOINT_HELP)
@click.option("--convert", type=click.Path(path_type=Path), help="Convert this proposals file of mmdet (.pkl) instead.")
@click.option(
    "--from",
    "source",
    type=click.Choice(("mmdet", "mmdet1")),
    help="With --convert: mmdet 2.x and 3.x, or 0.x and 1.x, whose boxes include their last pixel.",
)
@DATA
@SPLIT
@click.option("-o", "--out", required=True, help=f"The file to write (NAME{SUFFIX}).")
@click.option(
    "--max-per-image", type=click.IntRange(min=1), help="Maximum boxes per image. Default: the recipe's setting."
)
@OVERRIDES
@DEVICE
@AMP
@ON_BAD_SAMPLE
@ALLOW_OUTSIDE
@TIMEOUT
@with_changes
def command(
    checkpoint: str | None,
    convert: Path | None,
    source: str | None,
    changes: Changes,
    split: Split,
    out: str,
    max_per_image: int | None,
    device: str | None,
    timeout: int,
) -> None:
    """Write the proposals of an RPN (alone or in a two-stage detector) for the images of a data set.

    Or convert a proposals file of mmdet, which has the images of --data in the order of the annotation file.

    A detector without a proposal head, such as Fast R-CNN, requires such a file for training and one for validation:
    --set data.train.proposals=FILE --set data.val.proposals=FILE.
    """
    if Path(out).suffix != SUFFIX:
        raise DetError(f"--out {out}: a proposals file is in safetensors format; name it {Path(out).stem}{SUFFIX}")
    if convert is not None:
        _convert(convert, source, checkpoint, changes.data, split, Path(out))
        return
    if checkpoint is None or source is not None:
        given = "--from without --convert" if source is not None else "neither"
        raise DetError(f"found {given}: give --checkpoint of an RPN, or --convert FILE with --from and --data")
    from det_core.engine.checkpoint import read_header, weights_file
    from det_core.engine.distributed import join, leave

    file = weights_file(checkpoint)
    check_outputs("--out", [Path(out)], [file])
    header = read_header(file)
    _check_head(header.recipe, file)
    limit = [] if max_per_image is None else [f"detector.dense_head.test_limits.after_nms={max_per_image}"]
    recipe = changes.made_to(header.recipe, file, limit)
    _check_head(recipe, file)
    world = join(device, timeout)
    try:
        _propose(file, header.step, recipe, split, Path(out), world)
    finally:
        leave(world)


def _propose(file: Path, step: int, recipe: Recipe, split: Split, out: Path, world: World) -> None:
    """Run the detector of a checkpoint file on this rank's images, and write what all ranks found."""
    from det_core.data.proposals_file import write_proposals
    from det_core.engine.checkpoint import load_detector
    from det_core.engine.dataset_proposals import propose
    from det_core.reports.loggers import Terminal

    terminal = Terminal(quiet=not world.main)
    dataset = recipe.open_split(split)
    detector = load_detector(file, world.device, recipe=recipe)
    terminal.say(f"{file} (step {step}) on {len(dataset)} images of {dataset.name}")
    terminal.start("proposing", -(-len(dataset) // world.size))
    found = propose(
        detector,
        dataset,
        workers=recipe.data.workers,
        precision=recipe.schedule.precision,
        world=world,
        progress=lambda done, total: terminal.advance(done),
    )
    terminal.stop()
    if world.main:
        facts = {
            "recipe": recipe.name,
            "checkpoint": str(file.resolve()),
            "step": step,
            "dataset": dataset.name,
            "split": split,
            "images": len(found),
            "proposals": sum(len(image.boxes) for image in found),
        }
        write_proposals(out, found, facts)
    for bad in dataset.skipped:
        terminal.say(f"left out: {bad}")
    terminal.say(_done(found, split, out))


def _convert(file: Path, source: str | None, checkpoint: str | None, data: str | None, split: Split, out: Path) -> None:
    """Convert a proposals file of mmdet."""
    if checkpoint is not None or source is None or data is None:
        raise DetError("--convert requires --from and --data, without --checkpoint: give --from mmdet1 --data ROOT")
    check_outputs("--out", [out], [file])
    from det_core.data.proposals_file import write_proposals
    from det_core.weights.mmdet_proposals import read_mmdet_proposals

    dataset = dataset_at(data, split).build(data)
    found = read_mmdet_proposals(file, dataset, inclusive=source == "mmdet1")
    facts = {"source": source, "file": str(file.resolve()), "dataset": dataset.name, "split": split}
    write_proposals(out, found, facts)
    click.echo(_done(found, split, out))


def _check_head(recipe: Recipe, file: Path) -> None:
    """Raise DetError if the recipe's detector has no proposal head."""
    head = recipe.detector.dense_head
    if not isinstance(head, ProposalHeadConfig):
        kind = "no dense_head" if head is None else f"a dense_head of type {head.type!r}, which proposes no boxes"
        raise DetError(
            f"{file}: recipe {recipe.name} has {kind}; give a checkpoint of an RPN, or of a two-stage detector"
        )


def _done(found: list[ImageProposals], split: str, out: Path) -> str:
    """What was written, and how it is used."""
    return f"{_counts(found)} -> {out}\nto use them: --set data.{split}.proposals={out.resolve()}"


def _counts(found: list[ImageProposals]) -> str:
    counts = [len(image.boxes) for image in found]
    each = f", {sum(counts) / len(counts):.1f} per image ({min(counts)} to {max(counts)})" if counts else ""
    return f"{len(counts)} images, {sum(counts)} proposals{each}"
