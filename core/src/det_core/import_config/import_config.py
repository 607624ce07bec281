"""Configuration files of other projects as recipes, and what is not taken over; those of mmdetection are here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from det_core.errors import ConfigError, DetError
from det_core.import_config.datasets import translate_data
from det_core.import_config.fewest_changes import distance, fewest_changes
from det_core.import_config.imported_config import ImportedConfig, in_order
from det_core.import_config.ledger import Ledger, Node, Note
from det_core.import_config.models import translate_model
from det_core.import_config.nearest_recipe import nearest_recipe, others_near
from det_core.import_config.schedules import translate_schedule
from det_core.import_config.target import Target
from det_core.import_config.yacs_config import import_yacs_config
from det_core.load import load_recipe
from det_core.plugins import plugin_manager
from det_core.recipe import Recipe
from det_core.settings import evolve
from det_core.weights.mmdet_config_files import ConfigFile, read_config_file
from det_core.weights.mmdet_facts import FileFacts, facts_of_config, generation_of_model
from det_core.weights.mmdet_generation import Generation
from det_core.weights.mmdet_model import class_counts
from det_core.weights.mmdet_values import at
from det_core.weights.python_values import Place, PlacedDict

YAML = (".yaml", ".yml")
FAR = 12  # changes of the recipe nearest by name from which on another one, with half of them, is looked for
# What mmdetection reads of a configuration. Other names are variables, whose values count where they are used.
_SECTIONS = (
    *("model", "data", "train_dataloader", "val_dataloader", "test_dataloader", "train_cfg", "test_cfg", "val_cfg"),
    *("optimizer", "optimizer_config", "lr_config", "momentum_config", "total_epochs", "runner", "fp16"),
    *("optim_wrapper", "param_scheduler", "auto_scale_lr", "evaluation", "val_evaluator", "test_evaluator"),
    *("checkpoint_config", "log_config", "default_hooks", "custom_hooks", "custom_imports", "randomness", "seed"),
    *("load_from", "resume_from", "resume", "work_dir", "workflow", "tta_model", "tta_pipeline", "compile"),
    *("strategy", "model_wrapper_cfg"),
)


def import_config(path: Path, options: Sequence[str] = ()) -> ImportedConfig:
    """The recipe of a configuration file of mmdetection 1.x, 2.x or 3.x, or of detectron2. Nothing in it is run.

    Args:
        path: the file; .yaml and .yml are detectron2's.
        options: changes of the configuration, `KEY=VALUE` as of mmdetection's `--cfg-options`.

    Raises:
        DetError: if the file, or one of its bases, cannot be read; if it defines no model, or one without a recipe.
    """
    if path.suffix in YAML:
        return import_yacs_config(path, options)
    file = read_config_file(path, options)
    if not isinstance(file.values.get("model"), Mapping):
        raise DetError(
            f"{path}: defines no `model`, so it is not the configuration of a detector, or only a base of one"
        )
    root = Ledger(file.values, str(path)).root
    modern = any(name in file.values for name in ("train_dataloader", "test_dataloader", "optim_wrapper"))
    facts = facts_of_config(file.values, _generation(file.values, modern))
    recipes = plugin_manager().recipes()
    nearest = nearest_recipe(facts, recipes, str(root.at("model").place))
    base, recipe, ledger = _translated(nearest, file.values, path, facts, modern=modern)
    far = distance(base, recipe)
    if far > FAR:
        for name in others_near(nearest, recipes):
            with suppress(ConfigError):
                made = _translated(name, file.values, path, facts, modern=modern)
                if (near := distance(*made[:2])) < far / 2:
                    (base, recipe, ledger), far = made, near
    for section in _SECTIONS:
        ledger.list_unused(ledger.root.at(section))
    notes = (*_unread(file), *ledger.notes)
    return ImportedConfig(
        project="mmdetection",
        base=base.name,
        changes=fewest_changes(base, recipe),
        recipe=recipe,
        notes=in_order(notes, file.files),
        files=file.files,
    )


def _translated(
    name: str, values: PlacedDict, path: Path, facts: FileFacts, *, modern: bool
) -> tuple[Recipe, Recipe, Ledger]:
    """A configuration as changes of one recipe."""
    ledger = Ledger(values, str(path))
    base = evolve(load_recipe(name), published=None)
    target = Target(base)
    translate_model(target, ledger.root, facts)
    translate_schedule(target, ledger.root, modern=modern)
    translate_data(target, ledger.root, modern=modern)
    _check_classes(target, ledger.root, facts.num_classes)
    return base, target.recipe(), ledger


def _generation(config: Mapping[str, Any], modern: bool) -> Generation:
    """The generation: by the sections of 3.x, the words of the model, or those of the data."""
    if modern:
        return "mmdet"
    return generation_of_model(config["model"]) or (
        "mmdet1" if at(config, "data.imgs_per_gpu") is not None else "mmdet"
    )


def _unread(file: ConfigFile) -> list[Note]:
    """What could not be read without running it."""
    return [
        Note(
            Place(unread.file, unread.line), unread.path or "statement", f"{unread.text}: not read, since it is not run"
        )
        for unread in file.unread
    ]


def _check_classes(target: Target, root: Node, count: int | None) -> None:
    """The number of classes is that of the data; a note if the model or its parts have another."""
    counts = class_counts(root.at("model").value)
    found = []
    if len(set(counts)) > 1:
        found.append(f"the heads have {counts}; here all have the data's classes")
    classes = target.get("data.train.classes")
    if count is not None and classes and len(classes) != count:
        found.append(f"{count} classes, but the data set has {len(classes)} names; the number is that of the data")
    elif count is not None and not classes and count != len(_default_classes(target)):
        found.append(
            f"{count} classes; the number is that of the data, whose classes are all in their annotations unless "
            "data.train.classes lists them"
        )
    for text in found:
        root.ledger.note(root.at("model").place, "model: num_classes", text)


def _default_classes(target: Target) -> tuple[Any, ...]:
    from det_core.data.coco_classes import COCO_CLASSES
    from det_core.data.data_config import VOC_CLASSES

    return VOC_CLASSES if target.get("data.train.type") == "voc" else COCO_CLASSES
