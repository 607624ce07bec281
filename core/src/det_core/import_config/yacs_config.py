"""A configuration file of detectron2 as a recipe that extends the nearest one, and what is not taken over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from det_core.errors import DetError
from det_core.import_config.fewest_changes import distance, fewest_changes
from det_core.import_config.imported_config import ImportedConfig, in_order
from det_core.import_config.ledger import Ledger, Node
from det_core.import_config.places import DENSE, ROI
from det_core.import_config.target import Target
from det_core.import_config.yacs_defaults import taken
from det_core.import_config.yacs_files import read_yacs_file
from det_core.import_config.yacs_model import model_of, translate_model
from det_core.import_config.yacs_training import translate_training
from det_core.load import load_recipe
from det_core.plugins import plugin_manager
from det_core.recipe import Recipe
from det_core.settings import evolve
from det_core.weights.mmdet_values import parts
from det_core.weights.python_values import PlacedDict

SOURCE = "detectron2"


def import_yacs_config(path: Path, options: Sequence[str] = ()) -> ImportedConfig:
    """The recipe of a configuration file of detectron2. It is translated from each recipe of the model, and the one
    with the fewest differences is extended.

    Raises:
        DetError: if the file, or one of its bases, cannot be read; if it is another project's; if there is no recipe
            of its model.
    """
    file = read_yacs_file(path, options)
    model = file.values.get("MODEL")
    if not isinstance(model, Mapping):
        raise DetError(f"{path}: has no mapping MODEL, so it is not the configuration of a model of detectron2")
    _check_project(path, model)
    kind, features = model_of(Ledger(file.values, str(path)).root)
    names = _candidates(kind, features)
    if not names:
        raise DetError(f"{path}: the model is {kind} on {features}, and there is no recipe of detectron2 near it")
    made = [_translated(name, kind, file.values, path) for name in names]
    base, target, recipe, ledger = min(made, key=lambda one: (distance(one[0], one[2]), _elsewhere(one[0], one[3])))
    _check_classes(target, ledger.root)
    for section in file.values:
        ledger.list_unused(ledger.root.at(section))
    return ImportedConfig(
        project=SOURCE,
        base=base.name,
        changes=fewest_changes(base, recipe),
        recipe=recipe,
        notes=in_order(ledger.notes, file.files),
        files=file.files,
    )


def _check_project(path: Path, model: Mapping[str, Any]) -> None:
    """DetError for a file of Detectron or maskrcnn-benchmark, whose keys differ."""
    backbone = model.get("BACKBONE")
    if isinstance(backbone, Mapping) and "CONV_BODY" in backbone:
        project = "maskrcnn-benchmark"
    elif "CONV_BODY" in model or "TYPE" in model:
        project = "detectron"
    else:
        return
    raise DetError(
        f"{path}: a configuration of {project}, which is not translated; det-core recipes --weights-of {project} "
        "lists the recipes of its models, and det-core import-weights converts its checkpoints"
    )


def _candidates(kind: str, features: str) -> list[str]:
    """Recipes of detectron2 of the model; those with masks for a cascade without, which has no recipe of its own."""
    for model in (kind, *(["cascade-mask-rcnn"] if kind == "cascade-rcnn" else [])):
        found = [n for n in plugin_manager().recipes() if n.startswith(f"{model}/{SOURCE}-") and f"-{features}-" in n]
        if found:
            return sorted(found)
    return []


def _translated(name: str, kind: str, values: PlacedDict, path: Path) -> tuple[Recipe, Target, Recipe, Ledger]:
    """A configuration as changes of one recipe."""
    ledger = Ledger(values, str(path))
    base = evolve(load_recipe(name), published=None)
    target = Target(base)
    if kind == "cascade-rcnn" and target.get(f"{ROI}.mask_head") is not None:
        node = ledger.root.at("MODEL.MASK_ON")
        for setting, value in (("mask_head", None), ("mask_roi_pool", None)):
            target.put(f"{ROI}.{setting}", value, node)
        target.put("evaluation.evaluators[0].kinds", ["box"], node)
    translate_model(target, ledger.root, model_of(ledger.root)[0])
    translate_training(target, ledger.root)
    return base, target, target.recipe(), ledger


def _elsewhere(base: Recipe, ledger: Ledger) -> bool:
    """Whether the recipe is of another data set than the configuration."""
    names = " ".join(str(name) for name in parts(taken(ledger.root, "DATASETS.TRAIN")))
    words = {"lvis_v1": "-lvis-v1-", "lvis_v0.5": "-lvis-v0.5-", "cityscapes": "-cityscapes-", "voc_": "-voc-"}
    of = next((ours for theirs, ours in words.items() if theirs in names), None)
    return of is not None and of not in base.name


def _check_classes(target: Target, root: Node) -> None:
    """The number of classes is that of the data; a note if it is not that of the recipe's data set."""
    if target.get(ROI) is None and target.get(f"{DENSE}.type") == "rpn":
        return
    key = "MODEL.RETINANET.NUM_CLASSES" if target.get(ROI) is None else "MODEL.ROI_HEADS.NUM_CLASSES"
    node, count = root.at(key), taken(root, key)
    if count != (20 if target.get("data.train.type") == "voc" else 80):
        node.note(
            f"{count} classes; the number is that of the data, whose classes are all in their annotations unless "
            "data.train.classes lists them"
        )
