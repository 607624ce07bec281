"""What is known of a checkpoint before its weights are used: who wrote it, its recipe, and what contradicts that."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from det_core.conventions import Difference, differences, spoken
from det_core.errors import WeightsError
from det_core.load import load_recipe
from det_core.plugins import plugin_manager
from det_core.recipe import Recipe
from det_core.specs import Source
from det_core.weights.detectron_facts import candidates, pixel_contradictions, same_at_test
from det_core.weights.detectron_names import DETECTOR_BLOBS
from det_core.weights.fill_detector import check_conventions
from det_core.weights.mmdet_facts import FileFacts, facts_of
from det_core.weights.mmdet_generation import generation_of
from det_core.weights.mmdet_presets import contradictions, preset_of, settings_of
from det_core.weights.older_names import DETECTRON, unwrapped
from det_core.weights.read_files import SourceFile, read_source
from det_core.weights.translate_names import is_detector
from det_core.weights.yacs_facts import read_yacs, yacs_contradictions, yacs_settings

REMEDY = "change these settings, or force the import"
# Beginnings of names that only one project has.
_SIGNS = {
    "torchvision": (
        "backbone.body.conv1.",
        "backbone.fpn.inner_blocks.",
        "backbone.fpn.layer_blocks.",
        "rpn.head.conv.0.",
        "head.classification_head.",
    ),
    "maskrcnn-benchmark": (
        "backbone.body.stem.",
        "backbone.fpn.fpn_inner",
        "roi_heads.box.",
        "roi_heads.mask.feature_extractor.",
        "rpn.anchor_generator.",
    ),
    "detectron": DETECTOR_BLOBS,
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
    asked: Source,
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
        if asked in DETECTRON:
            return _plan_detectron(file, asked, recipe, overrides, force)
        made = load_recipe(_required(recipe, f"a detector of {asked}"), overrides)
        if not force:
            check_conventions(asked, made)
        return ImportPlan(source=asked, recipe=made)
    facts = facts_of(file)
    source = _generation(file, facts, asked, force)
    if modern and source != "mmdet1":
        raise WeightsError(f"{file.path}: of {spoken(source)}, whose conventions are modern; leave out --conventions")
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


def _required(recipe: str | None, what: str) -> str:
    if recipe is None:
        raise WeightsError(f"{what} does not describe its model: give --recipe (`det-core recipes` lists them)")
    return recipe


def _plan_detectron(
    file: SourceFile, source: str, recipe: str | None, overrides: Sequence[str], force: bool
) -> ImportPlan:
    """How to import a detector of detectron2, Detectron or maskrcnn-benchmark."""
    where, yacs = read_yacs(source, file.path, file.yacs_text) or ("", None)
    name = recipe or _only_candidate(file, source, yacs)
    settings = [] if yacs is None else yacs_settings(source, yacs, load_recipe(name))
    made = load_recipe(name, [*settings, *overrides])
    if not force:
        _check_file(file, source, yacs, made)
        check_conventions(source, made)
    facts = FileFacts(notes=(f"read {where}",)) if where else FileFacts()
    return ImportPlan(source=source, recipe=made, facts=facts, chosen=recipe is None, settings=tuple(settings))


def _only_candidate(file: SourceFile, source: str, yacs: Any) -> str:
    """The recipe of a file by its weights and its configuration, if any; WeightsError if it may be of several."""
    found = candidates(source, file.state, plugin_manager().recipes())
    fitting = [name for name in found if not _contradictions(file, source, yacs, load_recipe(name))]
    groups = same_at_test(fitting)
    if len(groups) == 1:
        return groups[0][0]
    named = (
        f"it may be of {' or '.join(group[0] for group in groups)}" if groups else "no recipe has all of its weights"
    )
    if found and not fitting:
        named = f"its configuration contradicts {' and '.join(found)}, which have its weights"
    raise WeightsError(
        f"{file.path}: a detector of {spoken(source)}, and its recipe cannot be told from its weights: "
        f"{named}; give --recipe"
    )


def _contradictions(file: SourceFile, source: str, yacs: Any, recipe: Recipe) -> list[str]:
    return [
        *pixel_contradictions(file.state, recipe),
        *([] if yacs is None else yacs_contradictions(source, yacs, recipe)),
    ]


def _check_file(file: SourceFile, source: str, yacs: Any, recipe: Recipe) -> None:
    """Raise WeightsError if what a file says of its images or its model is not the recipe's."""
    found = _contradictions(file, source, yacs, recipe)
    if found:
        raise WeightsError.listing(f"the file contradicts the recipe {recipe.name}; {REMEDY}", found)


def _check_project(file: SourceFile, asked: Source) -> None:
    """Raise WeightsError for names of another project."""
    family = "mmdet" if asked.startswith("mmdet") else asked
    found = _projects(file.state)
    if found and family not in found:
        others = " or ".join(f"--from {name}" for name in sorted(found))
        raise WeightsError(f"{file.path}: its names are not those of {family}, but of another project: give {others}")


def project_of(path: Path) -> str | None:
    """The project whose names the weights in a file have; None if it cannot be read, or the names do not say."""
    try:
        found = _projects(read_source(path).state)
    except WeightsError:
        return None
    return found.pop() if len(found) == 1 else None


def _projects(names: Iterable[str]) -> set[str]:
    plain = list(unwrapped(names))
    return {project for project, signs in _SIGNS.items() if any(name.startswith(signs) for name in plain)}


def _generation(file: SourceFile, facts: FileFacts, asked: Source, force: bool) -> str:
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
            f"{file.path}: the file contradicts itself: its version or configuration is of {spoken(told)}, "
            f"its names are of {spoken(named)}; save the weights again with what belongs to them"
        )
    wanted = {"mmdet1": "mmdet1", "mmdet2": "mmdet"}.get(asked, told)
    if told == wanted or (force and named is None):  # names of another generation cannot be read
        return wanted
    version = f"version {file.version} is" if file.version else "its configuration is"
    what = version if facts.generation else "its names are"
    other = "mmdet1" if told == "mmdet1" else "mmdet2"
    raise WeightsError(f"{file.path}: {what} of {spoken(told)}, not of {spoken(wanted)}; give --from {other}")


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
