"""The recipe that the options of a command select."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import click
from attrs import fields, frozen

from det_core.data.dataset_settings import FolderSettings
from det_core.data.files_config import JoinedConfig
from det_core.errors import DetError
from det_core.load import load_recipe, recipe_with
from det_core.model.detection_config import DetectionSettings
from det_core.plugins import plugin_manager
from det_core.recipe import Recipe
from det_core.settings import evolve
from det_core.slots import DatasetConfig
from det_core.specs import OnBadSample

if TYPE_CHECKING:
    from det_core.engine.test_time_augmentation import Augmentation
    from det_core.engine.tiling import Tiling

NO_RECIPE = """no recipe was given; for example
  --plugin rcnn                                          a plugin's demo, on the bundled sample
  --recipe faster-rcnn/r50-fpn-1x --data DATA            a recipe on your data (`det-core recipes` lists them)
  --config my.yaml --data DATA                           a file that extends a recipe"""

Command = TypeVar("Command", bound=Callable[..., Any])


def choose_recipe(
    *,
    plugin: str | None,
    recipe: str | None,
    config: str | None,
    data: str | None,
    overrides: Sequence[str] = (),
    on_bad_sample: str | None = None,
) -> Recipe:
    """The recipe of exactly one of --plugin, --recipe and --config, with --data if given, and then with --set.

    --plugin selects the plugin's default recipe, or without data its `demo` on the bundled sample. Raises DetError if
    none or several are given.
    """
    given = [f"--{n}" for n, v in (("plugin", plugin), ("recipe", recipe), ("config", config)) if v is not None]
    if len(given) != 1:
        if given:
            raise DetError(f"found {' and '.join(given)}: give one of --plugin, --recipe or --config")
        raise DetError(NO_RECIPE)
    extra = with_bad_samples(overrides, on_bad_sample)
    if plugin is not None:
        demo = data is None
        name = plugin_manager().default_recipe(plugin, demo=demo)
        reason = "on the bundled sample, because no --data was given" if demo else f"on {data}"
        owner = plugin_manager().recipe_owner(name)
        whose = "" if plugin in (owner.name, owner.distribution) else f" of {owner.label}, which uses it,"
        click.echo(f"--plugin {plugin}: recipe {name}{whose} {reason}")
        chosen = load_recipe(name, extra, data=data)
    elif recipe is not None:
        chosen = load_recipe(recipe, extra, data=data)
    else:
        chosen = load_recipe(Path(config or ""), extra, data=data)
    return chosen.settled()


def with_bad_samples(overrides: Sequence[str], on_bad_sample: str | None) -> list[str]:
    """The overrides, including `--on-bad-sample`."""
    return [*overrides, *([f"data.on_bad_sample={on_bad_sample}"] if on_bad_sample else [])]


def with_outside(recipe: Recipe) -> Recipe:
    """The recipe with `--allow-outside`; DetError if its data sets have no such setting."""
    changed = {
        split: made
        for split, config in (("train", recipe.data.train), ("val", recipe.data.val))
        if config is not None and (made := _outside(config)) is not None
    }
    if not changed:
        raise DetError(f"--allow-outside: data of type {recipe.data.train.type!r} have no such setting; remove it")
    return evolve(recipe, data=evolve(recipe.data, **changed))


def _outside(config: DatasetConfig) -> DatasetConfig | None:
    """The data set with `allow_outside`; None if it has no such setting."""
    if isinstance(config, JoinedConfig):
        return evolve(config, sources=tuple(_outside(source) or source for source in config.sources))
    return evolve(config, allow_outside=True) if isinstance(config, FolderSettings) else None


@frozen(kw_only=True)
class Changes:
    """The options of a command that change the recipe of a checkpoint."""

    overrides: tuple[str, ...]
    data: str | None
    use_amp: bool
    on_bad_sample: OnBadSample | None
    allow_outside: bool

    def made_to(self, recipe: Recipe, file: Path, more: Sequence[str] = ()) -> Recipe:
        """The changed recipe of a checkpoint file. more: other overrides, applied last."""
        overrides = with_bad_samples((*self.overrides, *more), self.on_bad_sample)
        made = recipe_with(recipe.to_plain(), overrides, self.data, str(file)).settled()
        made = with_outside(made) if self.allow_outside else made
        return amp(made) if self.use_amp else made


def with_changes(command: Command) -> Command:
    """Pass `--set`, `--data`, `--amp`, `--on-bad-sample` and `--allow-outside` to a command as one argument."""

    @wraps(command)
    def collected(**options: Any) -> Any:
        changes = Changes(**{field.name: options.pop(field.name) for field in fields(Changes)})
        return command(changes=changes, **options)

    return cast(Command, collected)


def amp(recipe: Recipe) -> Recipe:
    """The recipe in mixed precision: its own, or bfloat16."""
    if recipe.schedule.precision != "fp32":
        return recipe
    return evolve(recipe, schedule=evolve(recipe.schedule, precision="bf16"))


def detection_options(command: Command) -> Command:
    """The options of commands that detect: thresholds and test-time augmentation."""
    for option in (
        click.option("--flip", is_flag=True, help="Also run on the mirrored image and merge the detections."),
        click.option(
            "--scale",
            "scales",
            multiple=True,
            metavar="LONGxSHORT",
            help="Run on the image at this scale (maximum edges in pixels), such as 1333x800; may be repeated.",
        ),
        click.option("--score-threshold", type=click.FloatRange(0, 1), help="Keep detections above this score."),
        click.option("--max-detections", type=click.IntRange(min=1), help="Maximum detections per image."),
    ):
        command = option(command)
    return command


def tiling_options(command: Command) -> Command:
    """The options of commands that detect on tiles of large images."""
    for option in (
        click.option(
            "--tile",
            type=click.IntRange(min=16),
            metavar="PIXELS",
            help="Detect on square tiles of images that are larger, at full resolution.",
        ),
        click.option(
            "--overlap",
            type=click.FloatRange(0, 0.9),
            default=0.2,
            show_default=True,
            help="Share of a tile that the next one shows, too.",
        ),
        click.option(
            "--merge-tiles",
            "merge",
            type=click.Choice(["nms", "union"]),
            default="nms",
            show_default=True,
            help="At seams: keep whole objects, or also join the parts of those that no tile shows whole.",
        ),
    ):
        command = option(command)
    return command


def tiling(size: int | None, overlap: float, merge: Literal["nms", "union"]) -> Tiling | None:
    """The tiles of `--tile`, `--overlap` and `--merge-tiles`; DetError if they do not fit together."""
    from det_core.engine.tiling import Tiling

    return None if size is None else Tiling(size=size, overlap=overlap, merge=merge)


def with_limits(recipe: Recipe, score_threshold: float | None, max_detections: int | None) -> Recipe:
    """The recipe with `--score-threshold` and `--max-detections` in its last head.

    Raises DetError if that head has no such setting.
    """
    place = "roi_head" if recipe.detector.roi_head is not None else "dense_head"
    head = recipe.detector.roi_head or recipe.detector.dense_head
    given = {"score_threshold": score_threshold, "max_detections": max_detections}
    assert head is not None  # a detector has one
    changes = {name: value for name, value in given.items() if value is not None}
    if changes and not isinstance(head, DetectionSettings):
        name = next(iter(changes))
        raise DetError(
            f"--{name.replace('_', '-')}: {place} {head.type!r} of this checkpoint has no {name}; remove the option"
        )
    return evolve(recipe, detector=evolve(recipe.detector, **{place: evolve(head, **changes)}))


def augmentation(recipe: Recipe, scales: Sequence[str], flip: bool) -> Augmentation:
    """The views of `--scale` and `--flip`, merged with the NMS settings of the recipe's last head."""
    from det_core.engine.test_time_augmentation import Augmentation

    head = recipe.detector.roi_head or recipe.detector.dense_head
    settings = head if isinstance(head, DetectionSettings) else DetectionSettings()
    return Augmentation(
        scales=tuple(_scale(text) for text in scales),
        flip=flip,
        nms_threshold=settings.nms_threshold,
        max_detections=settings.max_detections,
    )


def _scale(text: str) -> tuple[int, int]:
    long, _, short = text.partition("x")
    if not (long.isdigit() and short.isdigit() and int(short) > 0 and int(long) >= int(short)):
        raise DetError(f"--scale {text}: expected LONGxSHORT in pixels, the long edge first, such as 1333x800")
    return int(long), int(short)
