"""`det-core data`: a report on a data set, pictures of it, and the data set in another format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click
from attrs import frozen

from det_core.cli.choose import choose_recipe, with_outside
from det_core.cli.data_convert import convert
from det_core.cli.options import ALLOW_OUTSIDE, OVERRIDES, SPLIT
from det_core.cli.output import print_json
from det_core.cli.output_files import check_outputs
from det_core.errors import DetError
from det_core.recipe import Recipe

if TYPE_CHECKING:
    from det_core.contracts import DetectionDataset
    from det_core.data.data_config import ResizeConfig
    from det_core.reports.dataset_report import AnchorSetting, Report
    from det_core.specs import Split

NO_VAL = "No validation data: training does not evaluate. --set data.val_fraction=0.1 validates on a tenth of the data."
SAMPLE = "the bundled sample, because neither --data nor a recipe was given"


@frozen(kw_only=True)
class Choice:
    """The options that select the data and the recipe to compare them with."""

    data: str | None
    plugin: str | None
    recipe: str | None
    config: str | None
    overrides: tuple[str, ...]
    masks: bool
    allow_outside: bool

    def resolve(self) -> tuple[Recipe, bool]:
        """The recipe with the data, and whether masks are checked."""
        chosen, masks = self._resolve()
        return (with_outside(chosen) if self.allow_outside else chosen), masks

    def _resolve(self) -> tuple[Recipe, bool]:
        if self.plugin or self.recipe or self.config:
            chosen = choose_recipe(
                plugin=self.plugin, recipe=self.recipe, config=self.config, data=self.data, overrides=self.overrides
            )
            return chosen, self.masks or chosen.trains_on_masks()
        chosen = _any_recipe(self.overrides, self.data)
        if self.data is None:
            click.echo(SAMPLE, err=True)
            return chosen, True
        click.echo(f"compared with the recipe {chosen.name}; use --recipe or --config for another", err=True)
        return chosen.settled(), self.masks


@click.group(name="data", invoke_without_command=True)
@click.option("--data", help="Root folder of the data set. Default without a recipe: the bundled sample.")
@click.option("--plugin", help="Compare with this plugin's default recipe.")
@click.option("--recipe", help="Compare with this recipe: anchors, image sizes, masks.")
@click.option("--config", help="Compare with the recipe in this YAML file.")
@OVERRIDES
@click.option("--masks", is_flag=True, help="Also check masks. Default for recipes with masks.")
@ALLOW_OUTSIDE
@click.option("--read-images", is_flag=True, help="Decode every image, to find truncated ones.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.option("--html", metavar="FILE", help="Also write the report with histograms and pictures to this page.")
@click.pass_context
def command(ctx: click.Context, /, read_images: bool, as_json: bool, html: str | None, **options: Any) -> None:
    """Report on a data set before training.

    Shows classes and counts, sizes of boxes compared with the recipe's anchors, bad boxes, missing files, and
    categories that differ between the splits. Exit status 1 if there are problems.
    """
    choice = Choice(**options)
    if ctx.invoked_subcommand is not None:
        ctx.obj = choice
        return
    chosen, masks = choice.resolve()
    from det_core.reports.dataset_report import data_report

    train = _open(chosen, "train", masks)
    val = _open(chosen, "val", masks) if chosen.data.has_validation() else None
    resize, anchors = _resize(chosen), _anchors(chosen)
    reports = {"train": data_report(train, anchors=anchors, resize=resize, other=val, read_images=read_images)}
    if val is not None:
        reports["val"] = data_report(val, anchors=anchors, resize=resize, read_images=read_images)
    if html is not None:
        _write_page(Path(html), {"train": train, "val": val}, reports)
    if as_json:
        print_json({split: report.to_dict() for split, report in reports.items()})
    else:
        click.echo("\n\n".join([*(report.render() for report in reports.values()), *([NO_VAL] if val is None else [])]))
    if any(report.has_problems() for report in reports.values()):
        ctx.exit(1)


def _write_page(path: Path, opened: Mapping[str, DetectionDataset | None], reports: Mapping[str, Report]) -> None:
    """Write the report as an HTML page."""
    from det_core.reports.dataset_page import SplitReport, dataset_page
    from det_core.safe_write import write_text

    parts = [SplitReport(split, data, reports[split]) for split, data in opened.items() if data is not None]
    files = (part.dataset.file(index) for part in parts for index in range(len(part.dataset)))
    check_outputs("--html", [path], files)
    write_text(path, dataset_page(parts, "" if "val" in reports else NO_VAL))
    click.echo(f"{path}: the report as a page", err=True)


command.add_command(convert)


@command.command()
@click.option("--data", help="Root folder of the data set. Give the other options of `data` before `browse`.")
@click.option("--recipe", help="Draw the data of this recipe.")
@click.option("--config", help="Draw the data of the recipe in this YAML file.")
@OVERRIDES
@click.option("--out", default="browse", show_default=True, help="Folder for the pictures.")
@click.option("--count", type=click.IntRange(min=1), default=16, show_default=True, help="Images to draw.")
@SPLIT
@click.option("--augmented", is_flag=True, help="Draw training images as the recipe's transforms change them.")
@click.option("--seed", type=int, help="With --augmented: seed of the transforms. Default: the recipe's.")
@click.pass_obj
def browse(
    choice: Choice,
    data: str | None,
    recipe: str | None,
    config: str | None,
    overrides: tuple[str, ...],
    out: str,
    count: int,
    split: Split,
    augmented: bool,
    seed: int | None,
) -> None:
    """Draw images with their annotations, evenly distributed over the data set.

    With --augmented, draws training images with boxes, masks and semantic maps as the detector is given them in the
    first epoch (with a larger --count, also in later epochs), apart from normalisation.
    """
    choice = attrs.evolve(
        choice,
        data=data or choice.data,
        recipe=recipe or choice.recipe,
        config=config or choice.config,
        overrides=(*choice.overrides, *overrides),
    )
    chosen, masks = choice.resolve()
    if augmented and split != "train":
        raise DetError(f"--augmented draws training images, but found --split {split}; leave out one of the two")
    if seed is not None and not augmented:
        raise DetError("--seed is the seed of the transforms that --augmented draws; add --augmented, or leave it out")
    from det_core.reports.dataset_pictures import Augmentation, draw_augmented, draw_dataset, pictures_of

    dataset = _open(chosen, split, masks)
    augmentation = None
    if augmented:
        transforms = tuple(t.build() for t in chosen.data.train_transforms)
        augmentation = Augmentation(transforms, chosen.schedule.seed if seed is None else seed)
    pictures = [Path(out) / name for name in pictures_of(dataset, count, augmentation)]
    check_outputs("--out", pictures, (dataset.file(index) for index in range(len(dataset))))
    if augmentation is None:
        paths = draw_dataset(dataset, Path(out), count)
    else:
        paths = draw_augmented(dataset, augmentation, Path(out), count)
    click.echo(f"{len(paths)} pictures in {out}")


def _any_recipe(overrides: tuple[str, ...], data: str | None) -> Recipe:
    """A demo recipe of an installed plugin, which has the bundled sample and a detector with anchors."""
    from det_core.load import load_recipe
    from det_core.plugins import plugin_manager

    for name, entry in plugin_manager().recipes().items():
        if entry.demo and not entry.missing():
            return load_recipe(name, overrides, data=data)
    raise DetError("no installed plugin has a demo recipe to compare with; give --recipe or --config")


def _open(recipe: Recipe, split: Split, masks: bool) -> DetectionDataset:
    """Open a split, with errors collected, and with semantic maps if the recipe trains on them."""
    semantic = split == "train" and recipe.detector.needs_semantic()
    from det_core.data.bad_samples import NoMasksError

    try:
        return recipe.open_split(split, masks=masks, semantic=semantic, on_bad_sample="skip")
    except NoMasksError as error:
        from det_core.engine.open_data import without_masks

        raise DetError(f"{error}; {without_masks(recipe)}") from None


def _resize(recipe: Recipe) -> ResizeConfig | None:
    from det_core.data.data_config import ResizeConfig

    return next((t for t in recipe.data.test_transforms if isinstance(t, ResizeConfig)), None)


def _anchors(recipe: Recipe) -> AnchorSetting | None:
    """Scales, ratios and strides of the dense head's anchors; None if it has no grid anchors."""
    from det_core.boxes.box_config import GridAnchorsConfig

    head = recipe.detector.dense_head
    anchors = None if head is None else head.anchor_config()
    if not isinstance(anchors, GridAnchorsConfig):
        return None
    if anchors.sides is not None:
        return anchors.sides, anchors.ratios, (1,)
    return anchors.scales, anchors.ratios, recipe.detector.feature_spec().strides
