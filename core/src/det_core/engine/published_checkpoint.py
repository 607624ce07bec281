"""Published weights as checkpoints of det, converted once: what `--init torchvision:NAME` starts from."""

from __future__ import annotations

import shlex
from pathlib import Path

import torch

from det_core.conventions import differences, spoken
from det_core.data.coco_classes import COCO_CLASSES, COCO_IDS
from det_core.engine.checkpoint import (
    FOREIGN_SUFFIXES,
    CheckpointError,
    local_checkpoint,
    read_header,
    save_detector,
)
from det_core.errors import WeightsError
from det_core.load import load_recipe
from det_core.recipe import Recipe
from det_core.structures import Classes
from det_core.weights.fill_detector import import_weights
from det_core.weights.import_plan import project_of
from det_core.weights.published_weights import entry_of, is_published, published_file, published_source

FOLDER = "det"  # in torch's hub folder, beside `checkpoints`


def published_checkpoint(name: str) -> Path:
    """The checkpoint of published weights, `torchvision:NAME`, with COCO's 80 classes.

    It is converted if there is none yet, or one with other settings than the recipe has today.

    Raises:
        WeightsError: for an unknown name, a failed download, and a file that is not the published one.
        WriteError: if the checkpoint cannot be written.
    """
    recipe, classes = load_recipe(entry_of(name).name), Classes(names=COCO_CLASSES, ids=COCO_IDS)
    file = Path(torch.hub.get_dir()) / FOLDER / published_file(name).with_suffix(".safetensors").name
    if not _is_current(file, recipe, classes):
        source = published_source(name)
        detector = recipe.detector.build(classes=classes)
        import_weights(source.state, source="torchvision", detector=detector)
        save_detector(detector, file, recipe)
    return file


def _is_current(file: Path, recipe: Recipe, classes: Classes) -> bool:
    """Whether a file has this recipe and these classes. A file that cannot be read has not."""
    if not file.is_file():
        return False
    try:
        found = read_header(file)
    except CheckpointError:
        return False
    return (found.recipe, found.classes) == (recipe, classes)


def initial_checkpoint(init: str | Path, recipe: Recipe) -> Path:
    """The checkpoint that `--init` names: a path, an address, or published weights, which are converted.

    Raises:
        CheckpointError: for a file of another project, with the command that converts it.
        WeightsError: as `published_checkpoint`, and for published weights if the recipe has other conventions.
    """
    if not is_published(init):
        path = local_checkpoint(init)
        _check_own(path)
        return path
    name = str(init)
    own = entry_of(name).name
    found = differences(recipe.detector, "torchvision", "detector")
    if found:
        raise WeightsError.listing(
            f"{name}: torchvision's weights do not mean the same under these settings; train the recipe {own}, or one "
            f"that extends it, or convert them (det-core import-weights {name} -o FILE.safetensors) and give the file",
            [str(difference) for difference in found],
        )
    return published_checkpoint(name)


def _check_own(path: Path) -> None:
    """Raise CheckpointError if a file is of another project, with the commands that take it."""
    if path.suffix not in FOREIGN_SUFFIXES or not path.is_file():
        return
    project = project_of(path)
    of = "" if project is None else f" with the names of {spoken(project)}"
    source, file = project or "PROJECT", shlex.quote(str(path))
    command = f"det-core import-weights {file} --from {source} -o {shlex.quote(path.stem)}.safetensors"
    raise CheckpointError(
        f"{path}: found a {path.suffix} file{of}, expected a checkpoint of det; give --from {source}, too (det-core "
        f"train --init FILE --from PROJECT), or convert it first: {command} (with --recipe, if the file does not "
        "describe its model)"
    )
