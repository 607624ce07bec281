"""`det-core analyze`: see where and why a detector is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click
from attrs import frozen

from det_core.analysis.names import PICTURES, RESAMPLES
from det_core.cli.choose import Changes, with_changes
from det_core.cli.options import ALLOW_OUTSIDE, AMP, DATA, DEVICE, ON_BAD_SAMPLE, OVERRIDES
from det_core.errors import DetError
from det_core.run_folder import ANALYSIS
from det_core.specs import Split

if TYPE_CHECKING:
    from det_core.analysis.report import Run
    from det_core.contracts import DetectionDataset
    from det_core.recipe import Recipe


@click.command(name="analyze")
@click.argument("runs", nargs=-1)
@click.option("--checkpoint", "checkpoints", multiple=True, help="A run to analyze; the same as naming it first.")
@click.option(
    "--predictions",
    multiple=True,
    help="Detections to analyze: COCO's results (.json) of any tool, predictions of `det-core predict`, or VOC's text "
    "files. Requires --data, unless a checkpoint is given, too.",
)
@DATA
@OVERRIDES
@click.option(
    "--split", type=click.Choice(get_args(Split)), default="val", show_default=True, help="Split to analyze on."
)
@click.option("--out", help=f"Folder for the page. Default: {ANALYSIS} in the run folder, or {ANALYSIS}.")
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    help="Score threshold of the confusion matrix and the pictures. Default: the one with the highest F1.",
)
@click.option(
    "--pictures", type=click.IntRange(min=0), default=PICTURES, show_default=True, help="Maximum images in the page."
)
@click.option(
    "--resamples",
    type=click.IntRange(min=2),
    default=RESAMPLES,
    show_default=True,
    help="Resamples of the bootstrap that compares two runs.",
)
@DEVICE
@AMP
@ON_BAD_SAMPLE
@ALLOW_OUTSIDE
@with_changes
def command(
    runs: tuple[str, ...],
    checkpoints: tuple[str, ...],
    predictions: tuple[str, ...],
    changes: Changes,
    split: Split,
    out: str | None,
    threshold: float | None,
    pictures: int,
    resamples: int,
    device: str | None,
) -> None:
    """Write a page on where and why a detector is wrong: AP by class, kinds of errors, thresholds, confusions,
    calibration, worst images, and annotations to check. With two runs, also what differs between them.

    RUNS are up to two run folders or checkpoints, or files of detections. The folder gets index.html, which needs no
    other file and no network, analysis.json with all numbers, and the charts in figures/.
    """
    from det_core.optional_packages import require

    require("matplotlib", "an analysis", "plots")
    sources = [_Source(path, True) for path in checkpoints]
    sources += [_Source(path, _is_checkpoint(path)) for path in runs]
    sources += [_Source(path, False) for path in predictions]
    if not 1 <= len(sources) <= 2:
        raise DetError(f"found {len(sources)} runs, expected one to analyze, or two to compare")
    recipes = [_recipe(source.path, changes) if source.is_checkpoint else None for source in sources]
    dataset = _dataset(next((r for r in recipes if r is not None), None), changes, split)
    folder = Path(out) if out is not None else _folder(sources)
    made = _runs(sources, recipes, dataset, device)
    from det_core.analysis.write import write_analysis

    page = write_analysis(
        dataset,
        made,
        next((r.evaluation.evaluators for r in recipes if r is not None), ()),
        folder,
        threshold=threshold,
        pictures=pictures,
        resamples=resamples,
        say=click.echo,
    )
    click.echo(f"{page}: open it in a browser; {page.with_name('analysis.json')} has all numbers")


@frozen
class _Source:
    """What is analyzed: a checkpoint, or a file or folder of detections."""

    path: str
    is_checkpoint: bool


def _is_checkpoint(path: str) -> bool:
    """Whether a path is a checkpoint or a run folder, and not detections."""
    place = Path(path)
    if place.is_dir():
        return not any(place.glob("predictions*.jsonl")) and not any(place.glob("*.txt"))
    return place.suffix not in (".json", ".jsonl")


def _recipe(path: str, changes: Changes) -> Recipe:
    """The recipe of a checkpoint, changed by the options."""
    from det_core.engine.checkpoint import read_header, weights_file

    file = weights_file(path)
    return changes.made_to(read_header(file).recipe, file)


def _dataset(recipe: Recipe | None, changes: Changes, split: Split) -> DetectionDataset:
    """The data of a checkpoint's recipe or, without a checkpoint, those of --data."""
    if recipe is not None:
        return recipe.open_val(split)
    if changes.data is None:
        raise DetError("--predictions: detections alone do not say which data they are on; give --data ROOT")
    from det_core.data.bad_samples import NoMasksError
    from det_core.data.dataset_settings import FolderSettings
    from det_core.recipe import dataset_at
    from det_core.settings import evolve

    config = dataset_at(changes.data, split)
    if changes.allow_outside and isinstance(config, FolderSettings):
        config = evolve(config, allow_outside=True)
    bad = changes.on_bad_sample or "error"
    try:
        return config.build(changes.data, masks=True, on_bad_sample=bad)
    except NoMasksError:
        return config.build(changes.data, on_bad_sample=bad)


def _folder(sources: Sequence[_Source]) -> Path:
    """Where the page goes if --out does not say: into the folder of a lone run."""
    place = Path(sources[0].path)
    return place / ANALYSIS if len(sources) == 1 and sources[0].is_checkpoint and place.is_dir() else Path(ANALYSIS)


def _runs(
    sources: Sequence[_Source], recipes: Sequence[Recipe | None], dataset: DetectionDataset, device: str | None
) -> list[Run]:
    """Detect with checkpoints, and read detections."""
    from det_core.analysis.runs import detect_run, read_run
    from det_core.data.voc_dataset import VocDataset
    from det_core.evaluation.metric_config import CocoEvaluatorConfig, VocEvaluatorConfig
    from det_core.reports.loggers import Terminal

    terminal, made = Terminal(), []
    usual = (VocEvaluatorConfig(),) if isinstance(dataset, VocDataset) else (CocoEvaluatorConfig(),)
    given = next((r.evaluation.evaluators for r in recipes if r is not None), usual)
    for source, name, recipe in zip(sources, _names(sources), recipes, strict=True):
        if recipe is None:
            made.append(read_run(Path(source.path), dataset, given, name=name))
            continue
        terminal.say(f"detecting with {source.path} on {len(dataset)} images of {dataset.name}")
        terminal.start("detecting", len(dataset))
        made.append(
            detect_run(
                source.path,
                recipe,
                dataset,
                name=name,
                device=device,
                progress=lambda done, total: terminal.advance(done),
            )
        )
        terminal.stop()
    return made


def _names(sources: Sequence[_Source]) -> list[str]:
    """Short names for headings: the last part of each path that differs."""
    parts = [Path(source.path).resolve().parts for source in sources]
    for length in range(1, max(len(part) for part in parts) + 1):
        names = [str(Path(*part[-length:])) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{source.path} ({letter})" for source, letter in zip(sources, "AB", strict=False)]
