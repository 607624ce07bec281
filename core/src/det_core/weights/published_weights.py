"""Detectors that torchvision published weights for, by name: `torchvision:fasterrcnn_resnet50_fpn`.

Files are downloaded to the folder that torchvision itself uses, `checkpoints` in torch's hub folder. Imports no torch.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from det_core.data.coco_classes import COCO_CLASSES
from det_core.errors import WeightsError, nearest
from det_core.known import distributions, install_hint
from det_core.offers import RecipeEntry
from det_core.plugins import plugin_manager
from det_core.weights.older_names import unwrapped
from det_core.weights.read_files import SourceFile, read_source

if TYPE_CHECKING:
    from torch import Tensor

PREFIX = "torchvision:"
WHICH = "COCO_V1"  # of every detector; the recipes are those of these weights
BACKGROUND = "__background__"
# Layers whose rows are classes: the beginning of their names, rows per class, and whether background is a class.
CLASS_LAYERS = (
    (r"roi_heads\.box_predictor\.cls_score\.", 1, True),
    (r"roi_heads\.box_predictor\.bbox_pred\.", 4, True),
    (r"roi_heads\.mask_predictor\.mask_fcn_logits\.", 1, True),
    (r"head\.classification_head\.module_list\.\d+\.(?:1\.)?(?:weight|bias)$", 1, True),  # per anchor; SSD and SSDLite
    (r"head\.classification_head\.cls_logits\.", 1, False),  # per anchor; RetinaNet
)


def is_published(name: str | Path) -> bool:
    """Whether this is the name of published weights, not the path of a file."""
    return str(name).startswith(PREFIX)


def entry_of(name: str) -> RecipeEntry:
    """The zoo entry of the detector that published weights belong to.

    Raises:
        WeightsError: for an unknown name, with the nearest and all allowed ones, and for the weights of a plugin that
            is not installed, with what installs it.
    """
    known = {e.published_weights: e for e in plugin_manager().recipes().values() if e.published_weights}
    if name in known:
        return known[name]
    absent = next((d.name for d in distributions() if name in d.weights), "")
    if absent:
        raise WeightsError(f"{name}: {absent} has the recipe of these weights: {install_hint(absent)}")
    allowed = ", ".join(known) or "none, since no installed plugin has such recipes (`det-core plugins`)"
    raise WeightsError(f"there are no published weights {name!r}{nearest(name, known)}; allowed: {allowed}")


def published_source(name: str) -> SourceFile:
    """The published weights of this name, downloaded if they are not there, with COCO's 80 classes alone.

    Raises:
        WeightsError: for an unknown name, a failed download, and a file in its place that is not the published one.
    """
    entry_of(name)
    weights = _torchvision_entry(name)
    read = read_source(_downloaded(name, weights.url))
    state = with_classes(read.state, weights.meta["categories"], COCO_CLASSES)
    return SourceFile(read.path, state, {"CLASSES": COCO_CLASSES})


def published_file(name: str) -> Path:
    """Where the file of published weights is, or would be, without looking for it."""
    return _place(_torchvision_entry(name).url)


def with_classes(state: Mapping[str, Any], categories: Sequence[str], wanted: Sequence[str]) -> dict[str, Tensor]:
    """The weights of one of torchvision's detectors for some of its classes, in this order.

    The others' scores are lost. With softmax this raises the remaining scores by what the others had, which is next to
    nothing for categories that no object of the training data has.

    Args:
        state: torchvision's names to tensors.
        categories: all classes, as in the `meta` of torchvision's weights. Background is the first one, and also the
            first class of the layers; RetinaNet's layers have a class in its place that is never predicted.
        wanted: names among `categories`.
    """
    objects = [categories.index(name) for name in wanted]
    made = {}
    for name, key in unwrapped(state).items():
        value: Tensor = state[key]
        for pattern, per_class, background in CLASS_LAYERS:
            if re.match(pattern, name):
                kept = [categories.index(BACKGROUND), *objects] if background else objects
                value = _rows(value, len(categories), per_class, kept)
        made[name] = value
    return made


def _rows(value: Tensor, classes: int, per_class: int, kept: Sequence[int]) -> Tensor:
    """Of (A * classes * per_class, ...) the rows of some classes, for each of A anchors."""
    if len(value) % (classes * per_class):
        return value  # of other classes; the mismatch is reported as a wrong shape
    return value.unflatten(0, (-1, classes, per_class))[:, list(kept)].flatten(0, 2)


def _torchvision_entry(name: str) -> Any:
    """torchvision's own entry of these weights: their `url` and `meta`."""
    import torchvision

    try:
        return torchvision.models.get_model_weights(name.removeprefix(PREFIX))[WHICH]
    except (ValueError, KeyError):
        raise WeightsError(
            f"{name}: torchvision {torchvision.__version__}, which is installed, has no weights {WHICH} of this name; "
            "update torchvision"
        ) from None


def _place(url: str) -> Path:
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]


def _downloaded(name: str, url: str) -> Path:
    """The file, from torchvision's folder or the network; its SHA-256 begins as its name says."""
    import torch

    file = _place(url)
    match = re.search(r"-([0-9a-f]{8,})\.", file.name)
    prefix = match[1] if match else ""
    if file.exists():
        _check_hash(file, prefix, name, url)
        return file
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(file), prefix or None)
    except (OSError, RuntimeError) as error:
        raise WeightsError(
            f"{name} cannot be downloaded from {url} ({error}); download the file on another machine and put it into "
            f"{file.parent} as {file.name}"
        ) from None
    return file


def _check_hash(file: Path, prefix: str, name: str, url: str) -> None:
    """Raise WeightsError if the SHA-256 of a file does not begin with `prefix`."""
    try:
        with file.open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{file}: cannot be read ({error.strerror or error})") from None
    if not found.startswith(prefix):
        raise WeightsError(
            f"{file}: damaged, or not the file of {name}: its SHA-256 begins with "
            f"{found[: len(prefix)]}, expected {prefix}; delete it to have it downloaded again, or put "
            f"{url} in its place"
        )
