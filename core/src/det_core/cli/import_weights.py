"""`det-core import-weights`: convert checkpoints of other projects."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from det_core.cli.output_files import check_outputs
from det_core.errors import DetError, counted, first_few
from det_core.load import load_recipe
from det_core.plugins import plugin_manager
from det_core.recipe import Recipe
from det_core.safe_write import replacing
from det_core.weights.fill_detector import ImportReport, class_count, import_backbone, import_weights
from det_core.weights.initial_weights import how_to_set
from det_core.weights.older_names import SOURCES
from det_core.weights.read_files import SourceFile, read_source
from det_core.weights.translate_names import is_detector

if TYPE_CHECKING:
    from torch import Tensor

    from det_core.structures import Classes

SUFFIX = ".safetensors"


@click.command(name="import-weights")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--from", "source", type=click.Choice(SOURCES), required=True, help="The project that saved FILE.")
@click.option("--recipe", required=True, help="The recipe of the same model (`det-core recipes` lists them).")
@click.option("--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Change a setting of the recipe.")
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="The .safetensors file to write.")
def command(file: Path, source: str, recipe: str, overrides: tuple[str, ...], out: Path) -> None:
    """Convert FILE, a checkpoint of another project, and report on its weights.

    A whole detector becomes a checkpoint for predict, test and train --init; its number of classes is read from FILE.
    An ImageNet model becomes initial weights for the backbone of the recipe.

    No code in FILE is run.
    """
    if out.suffix != SUFFIX:
        raise DetError(f"-o {out}: weights are written as {SUFFIX}; use a name with this suffix")
    check_outputs("-o", [out], [file])
    chosen = load_recipe(recipe, list(overrides))
    read = read_source(file)
    whole = is_detector(source, read.state)
    (_import_detector if whole else _import_backbone)(read, source, chosen, out)


def _import_detector(file: SourceFile, source: str, recipe: Recipe, out: Path) -> None:
    from det_core.engine.checkpoint import Header

    count = class_count(file.state, source=source, config=recipe.detector)
    classes = _classes(file, source, count)
    detector = recipe.detector.build(classes=classes)
    report = import_weights(file.state, source=source, detector=detector)
    header = Header(recipe=recipe, classes=classes, plugins=plugin_manager().versions())
    _write(out, detector.state_dict(), header.to_metadata())
    names = first_few(classes.names, 4)
    click.echo(f"{file.path}: a detector of {source}, {counted(len(classes), 'class', 'es')} ({names})")
    _print_report(report)
    click.echo(f"wrote {out} (recipe {recipe.name}): det-core predict --checkpoint {out} IMAGES")


def _import_backbone(file: SourceFile, source: str, recipe: Recipe, out: Path) -> None:
    detector = recipe.detector.build(num_classes=1)
    values, report = import_backbone(file.state, source=source, detector=detector)
    _write(out, values, {"format": "det initial weights 1"})
    click.echo(f"{file.path}: an ImageNet model of {source}")
    _print_report(report)
    click.echo(f"wrote {out}; train from it with {how_to_set(str(out))}")


def _classes(file: SourceFile, source: str, count: int | None) -> Classes:
    """The class names in the file, or COCO's for torchvision's models, or numbered classes."""
    from det_core.structures import Classes

    names = file.class_names or ()
    if count is None:
        count = len(names) or 1
    if len(names) != count and source == "torchvision":
        names = _torchvision_names()
    return Classes(names=names, ids=tuple(range(1, count + 1))) if len(names) == count else Classes.numbered(count)


def _torchvision_names() -> tuple[str, ...]:
    """Names of labels 1..90 of torchvision's COCO detectors. Labels are COCO's ids, of which ten have no class."""
    from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights as Weights

    found = Weights.COCO_V1.meta["categories"][1:]
    return tuple(f"unused {i}" if name == "N/A" else str(name) for i, name in enumerate(found, 1))


def _print_report(report: ImportReport) -> None:
    click.echo(f"{counted(len(report.filled), 'weight')} loaded, none missing")
    for note, number in Counter(report.changed.values()).items():
        click.echo(f"  {note} ({counted(number, 'weight')})")
    if report.derived:
        click.echo(f"  statistics of folded norms set to the identity ({counted(len(report.derived), 'weight')})")
    counters = [name for name in report.ignored if name.endswith("num_batches_tracked")]
    others = [name for name in report.ignored if name not in counters]
    if counters:
        click.echo(f"  ignored, not needed: {counted(len(counters), 'counter')} of batch norm")
    for name in others:
        click.echo(f"  ignored, the model has no such part: {name}")


def _write(out: Path, weights: dict[str, Tensor], metadata: dict[str, str]) -> None:
    from safetensors.torch import save_file

    with replacing(out) as temporary:
        save_file({k: v.detach().clone().contiguous() for k, v in weights.items()}, temporary, metadata=metadata)
