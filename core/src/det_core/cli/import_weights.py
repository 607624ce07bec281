"""`det-core import-weights`: convert checkpoints of other projects."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, get_args

import click

from det_core.cli.output_files import check_outputs
from det_core.conventions import spoken
from det_core.data.coco_classes import COCO_CLASSES, COCO_IDS
from det_core.errors import DetError, counted, first_few
from det_core.specs import Source
from det_core.weights.fill_detector import ImportReport, class_count, import_backbone, import_weights
from det_core.weights.import_plan import ImportPlan, plan_import
from det_core.weights.initial_weights import how_to_set
from det_core.weights.older_names import DETECTRON
from det_core.weights.published_weights import entry_of, is_published, published_source
from det_core.weights.read_files import SourceFile, read_source
from det_core.weights.translate_names import is_detector

if TYPE_CHECKING:
    from det_core.structures import Classes

SUFFIX = ".safetensors"
COST = (
    "with today's settings such weights lose about 0.3 to 0.5 AP on COCO, as mmdetection's own table of converted "
    "checkpoints has it; training on makes up for it"
)


@click.command(name="import-weights")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--from",
    "source",
    type=click.Choice(get_args(Source)),
    help="The project that saved FILE: mmdet (any version; mmdet1: 0.x and 1.x, mmdet2: 2.x and 3.x), torchvision, "
    "detectron2, detectron (Caffe2) or maskrcnn-benchmark. Required for a file.",
)
@click.option("--recipe", help="The recipe of the same model. Default: as FILE describes itself.")
@click.option("--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Change a setting of the recipe.")
@click.option(
    "--conventions",
    type=click.Choice(("own", "modern")),
    default="own",
    help="Of weights of mmdet 0.x and 1.x: read them as they were trained, or as today's are.",
)
@click.option("--force", is_flag=True, help="Import FILE although it contradicts the recipe.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="The .safetensors file to write.")
@click.pass_context
def command(
    ctx: click.Context,
    file: Path,
    source: Source | None,
    recipe: str | None,
    overrides: tuple[str, ...],
    conventions: str,
    force: bool,
    out: Path | None,
) -> None:
    """Convert FILE, a checkpoint of another project, and report on its weights.

    A whole detector becomes a checkpoint for predict, test and train --init; its number of classes is read from FILE.
    An ImageNet model becomes initial weights for the backbone of the recipe.

    FILE may be torchvision:NAME, such as torchvision:ssd300_vgg16: weights that torchvision published, which are
    downloaded once. They need neither --from nor --recipe; without -o they are converted into torch's hub folder.

    No code in FILE is run.
    """
    if out is not None and out.suffix != SUFFIX:
        raise DetError(f"-o {out}: weights are written as {SUFFIX}; use a name with this suffix")
    if is_published(file):
        _check_published(file, source)
        if out is None:
            _keep_published(ctx, str(file))
            return
        check_outputs("-o", [out], [])
        source, recipe, read = "torchvision", recipe or entry_of(str(file)).name, published_source(str(file))
    else:
        source, out = source or _missing(ctx, "source"), out or _missing(ctx, "out")
        check_outputs("-o", [out], [file])
        read = read_source(file)
    plan = plan_import(read, source, recipe, overrides, modern=conventions == "modern", force=force)
    (import_detector if is_detector(read.state) else _import_backbone)(read, plan, out)


def _missing(ctx: click.Context, name: str) -> NoReturn:
    """Raise click's error for an option that a file requires."""
    raise click.MissingParameter(ctx=ctx, param=next(p for p in ctx.command.params if p.name == name))


def _check_published(name: Path, source: Source | None) -> None:
    entry_of(str(name))
    if source not in (None, "torchvision"):
        raise DetError(f"{name}: these weights are torchvision's, not of {source}; leave out --from")


def _keep_published(ctx: click.Context, name: str) -> None:
    """Convert published weights as `train --init` does, which finds them there."""
    given = [option for option in ("recipe", "overrides", "force") if ctx.params[option]]
    if given or ctx.params["conventions"] != "own":
        raise DetError(
            f"{name}: -o is required with --recipe, --set, --conventions and --force; give the file to write"
        )
    from det_core.engine.published_checkpoint import published_checkpoint

    file = published_checkpoint(name)
    click.echo(f"{name}: {file} (recipe {entry_of(name).name}, COCO's {counted(len(COCO_CLASSES), 'class', 'es')})")
    click.echo(f"det-core predict --checkpoint {file} IMAGES, or det-core train --init {name}")


def import_detector(file: SourceFile, plan: ImportPlan, out: Path) -> None:
    """Convert the weights of a detector, write them as a checkpoint, and print a report."""
    from det_core.engine.checkpoint import save_detector

    recipe = plan.recipe
    count = class_count(file.state, source=plan.source, config=recipe.detector)
    classes = _classes(file, plan, count)
    detector = recipe.detector.build(classes=classes)
    report = import_weights(file.state, source=plan.source, detector=detector, force=True)  # checked by the plan
    save_detector(detector, out, recipe)
    names = first_few(classes.names, 4)
    wrote = spoken(plan.source)
    click.echo(f"{file.path}: a detector of {wrote}, {counted(len(classes), 'class', 'es')} ({names})")
    _print_plan(plan)
    _print_report(report)
    click.echo(f"wrote {out} (recipe {recipe.name}): det-core predict --checkpoint {out} IMAGES")


def _print_plan(plan: ImportPlan) -> None:
    """What was taken from the file besides its weights, and what it costs to leave its conventions."""
    if plan.chosen:
        click.echo(f"recipe {plan.recipe.name}, as the file describes itself")
    for setting in plan.settings:
        click.echo(f"  from its configuration: {setting}")
    for note in plan.facts.notes:
        click.echo(f"  {note}")
    if plan.abandoned:
        click.echo(f"{counted(len(plan.abandoned), 'setting')} not as the weights were trained with:")
        for difference in plan.abandoned:
            click.echo(f"  {difference}")
        click.echo(COST)


def _import_backbone(file: SourceFile, plan: ImportPlan, out: Path) -> None:
    from det_core.engine.checkpoint import write_weights

    detector = plan.recipe.detector.build(num_classes=1)
    values, report = import_backbone(file.state, source=plan.source, detector=detector)
    write_weights(out, values, {"format": "det initial weights 1"})
    click.echo(f"{file.path}: an ImageNet model of {plan.source}")
    _print_report(report)
    click.echo(f"wrote {out}; train from it with {how_to_set(str(out))}")


def _classes(file: SourceFile, plan: ImportPlan, count: int | None) -> Classes:
    """The class names in the file, or those of its data set, or numbered classes."""
    from det_core.structures import Classes

    names, ids = plan.facts.class_names or file.class_names or (), plan.facts.class_ids
    if count is None:
        count = len(names) or 1
    if len(names) != count and plan.source == "torchvision":
        names = _torchvision_names()
    if plan.source in DETECTRON and count == len(COCO_CLASSES):  # their files name no classes, and the zoos are COCO's
        names, ids = COCO_CLASSES, COCO_IDS
    if names == COCO_CLASSES and not ids:
        ids = COCO_IDS
    if len(names) != count:
        return Classes.numbered(count)
    return Classes(names=names, ids=ids if ids and len(ids) == count else tuple(range(1, count + 1)))


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
