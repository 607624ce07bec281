"""What is known of a checkpoint before its weights are used: who wrote it, its recipe, and what contradicts that."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from attrs import frozen

from det_core.conventions import Difference, differences
from det_core.errors import WeightsError
from det_core.load import load_recipe
from det_core.plugins import plugin_manager
from det_core.recipe import Recipe
from det_core.weights.detectron2_facts import candidates, pixel_contradictions
from det_core.weights.fill_detector import SPOKEN, check_conventions
from det_core.weights.mmdet_facts import FileFacts, facts_of
from det_core.weights.mmdet_generation import generation_of
from det_core.weights.mmdet_presets import contradictions, preset_of, settings_of
from det_core.weights.older_names import unwrapped
from det_core.weights.read_files import SourceFile
from det_core.weights.translate_names import is_detector

Asked = Literal["mmdet", "mmdet1", "mmdet2", "torchvision", "detectron2"]  # mmdet: of either generation
OPTIONS: tuple[Asked, ...] = ("mmdet", "mmdet1", "mmdet2", "torchvision", "detectron2")
REMEDY = "change these settings, or force the import"
# Beginnings of names that only one project has.
_SIGNS = {
    "torchvision": ("backbone.body.", "backbone.fpn.", "rpn.head.", "head.classification_head."),
    "detectron2": (
        "backbone.bottom_up.",
        "proposal_generator.",
        "roi_heads.box_predictor.bbox_pred.",
        "head.cls_subnet.",
    ),
    "mmdet": ("roi_head.", "bbox_head.", "rpn_head.", "neck."),
}


@frozen(kw_only=True)
class ImportPlan:
    """How a file is imported: the source of its weights, the recipe, and what the file says of itself.

    chosen: whether the recipe was found from the file. settings: overrides from the file's own configuration.
    abandoned: the conventions that the weights were trained under and the recipe does not have.
    """

    source: str
    recipe: Recipe
    facts: FileFacts = FileFacts()
    chosen: bool = False
    settings: tuple[str, ...] = ()
    abandoned: tuple[Difference, ...] = ()


def plan_import(
    file: SourceFile,
    asked: Asked,
    recipe: str | None = None,
    overrides: Sequence[str] = (),
    *,
    modern: bool = False,
    force: bool = False,
) -> ImportPlan:
    """How to import a file.

    Args:
        file: as read.
        asked: the project that wrote it.
        recipe: its recipe; None: the one that the file's own configuration describes.
        overrides: changes of the recipe's settings.
        modern: give weights of mmdet 0.x and 1.x the conventions of today.
        force: import the file although it contradicts the recipe, or the source.

    Raises:
        WeightsError: if the file may be of two generations of a project; if there is no recipe for it; and, without
            `force`, if it contradicts the source or the recipe.
    """
    if modern and asked not in ("mmdet", "mmdet1"):
        raise WeightsError(f"--conventions modern is for weights of mmdet 0.x and 1.x; leave it out for --from {asked}")
    if not is_detector(file.state):
        written_by = "mmdet" if asked in ("mmdet1", "mmdet2") else asked
        return ImportPlan(source=written_by, recipe=load_recipe(_required(recipe, "an ImageNet model"), overrides))
    _check_project(file, asked)
    if asked not in ("mmdet", "mmdet1", "mmdet2"):
        hint = _candidates(file) if asked == "detectron2" else ""
        made = load_recipe(_required(recipe, f"a detector of {asked}", hint), overrides)
        if not force:
            _check_pixels(file, made)
            check_conventions(asked, made)
        return ImportPlan(source=asked, recipe=made)
    facts = facts_of(file)
    source = _generation(file, facts, asked, force)
    if modern and source != "mmdet1":
        raise WeightsError(f"{file.path}: of {SPOKEN[source]}, whose conventions are modern; leave out --conventions")
    name, settings = recipe, list[str]()
    if name is None:
        name = _preset(facts, modern)
        settings = settings_of(facts, load_recipe(name))
    made = load_recipe(name, [*settings, *overrides])
    abandoned = differences(made, source) if modern else []
    if not force:
        _check_recipe(source, facts, made, modern)
    return ImportPlan(
        source=source,
        recipe=made,
        facts=facts,
        chosen=recipe is None,
        settings=tuple(settings),
        abandoned=tuple(abandoned),
    )


def _required(recipe: str | None, what: str, hint: str = "") -> str:
    if recipe is None:
        hint = hint or "(`det-core recipes` lists them)"
        raise WeightsError(f"{what} does not describe its model: give --recipe {hint}")
    return recipe


def _candidates(file: SourceFile) -> str:
    """The recipes that a file of detectron2 may be of."""
    found = candidates(file.state, plugin_manager().recipes())
    return f"(by its weights: {' or '.join(found)})" if found else ""


def _check_pixels(file: SourceFile, recipe: Recipe) -> None:
    """Raise WeightsError if the pixel mean or deviation in a file is not the recipe's."""
    found = pixel_contradictions(file.state, recipe)
    if found:
        raise WeightsError.listing(f"the file contradicts the recipe {recipe.name}; {REMEDY}", found)


def _check_project(file: SourceFile, asked: Asked) -> None:
    """Raise WeightsError for names of another project."""
    family = "mmdet" if asked.startswith("mmdet") else asked
    found = _projects(file.state)
    if found and family not in found:
        others = " or ".join(f"--from {name}" for name in sorted(found))
        raise WeightsError(f"{file.path}: its names are not those of {family}, but of another project: give {others}")


def _projects(names: Iterable[str]) -> set[str]:
    plain = list(unwrapped(names))
    return {project for project, signs in _SIGNS.items() if any(name.startswith(signs) for name in plain)}


def _generation(file: SourceFile, facts: FileFacts, asked: Asked, force: bool) -> str:
    """The source of the weights, `mmdet1` or `mmdet`: as asked, or as the file says, or as its names say."""
    named = generation_of(file.state)
    told = facts.generation or named
    if told is None:
        if asked != "mmdet":
            return "mmdet1" if asked == "mmdet1" else "mmdet"
        raise WeightsError(
            f"{file.path}: may be of mmdet 0.x or 1.x, or of 2.x or 3.x: this model has the same names in all of them, "
            "but its boxes differ, and the file records no version; give --from mmdet1 or --from mmdet2"
        )
    if named is not None and named != told:
        raise WeightsError(
            f"{file.path}: the file contradicts itself: its version or configuration is of {SPOKEN[told]}, "
            f"its names are of {SPOKEN[named]}; save the weights again with what belongs to them"
        )
    wanted = {"mmdet1": "mmdet1", "mmdet2": "mmdet"}.get(asked, told)
    if told == wanted or (force and named is None):  # names of another generation cannot be read
        return wanted
    version = f"version {file.version} is" if file.version else "its configuration is"
    what = version if facts.generation else "its names are"
    other = "mmdet1" if told == "mmdet1" else "mmdet2"
    raise WeightsError(f"{file.path}: {what} of {SPOKEN[told]}, not of {SPOKEN[wanted]}; give --from {other}")


def _preset(facts: FileFacts, modern: bool) -> str:
    """The recipe that the file's own configuration describes."""
    entries = plugin_manager().recipes()
    name = preset_of(facts, entries)
    return name.replace("/mmdet1-", "/", 1) if modern else name


def _check_recipe(source: str, facts: FileFacts, recipe: Recipe, modern: bool) -> None:
    """Raise WeightsError if the recipe contradicts what the file says, or has the conventions of another source."""
    found = contradictions(facts, recipe)
    if found:
        raise WeightsError.listing(
            f"the file contradicts the recipe {recipe.name}; use that of its model (without --recipe, the one that the "
            f"file describes), {REMEDY}",
            found,
        )
    check_conventions("mmdet" if modern else source, recipe)
