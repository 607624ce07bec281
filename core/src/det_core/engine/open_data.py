"""The data of a run: opened, and compared with what the recipe requires."""

from __future__ import annotations

from det_core.config.plain import unstructure
from det_core.contracts import DetectionDataset
from det_core.data.bad_samples import NoMasksError
from det_core.data.image_content import shared_files
from det_core.errors import DataError, counted
from det_core.model.detector_config import DetectorConfig
from det_core.plugins import plugin_manager
from det_core.recipe import Recipe

MOST_IMAGES = 20_000


def open_data(recipe: Recipe) -> tuple[DetectionDataset, DetectionDataset | None]:
    """The training data, and the validation data if there are any.

    Raises:
        DetError: if they are invalid. If masks are required and the data have none, the message is a line with a recipe
            that needs none.
    """
    try:
        return recipe.open_train(), recipe.open_val() if recipe.data.has_validation() else None
    except NoMasksError as error:
        raise DataError(f"{error}; {without_masks(recipe)}") from None


def shared_images(train: DetectionDataset, val: DetectionDataset) -> str:
    """A warning if images are in both data sets, by the content of their files, or "".

    Looks only at data sets of at most `MOST_IMAGES` images together, since every file has to be looked up; `det-core
    data` looks at all.
    """
    if len(train) + len(val) > MOST_IMAGES:
        return ""
    pairs = shared_files(train, val)
    if not pairs:
        return ""
    ours, theirs = pairs[0]
    return (
        f"warning: {counted(len(pairs), 'image')} of the validation data are also in the training data (such as "
        f"{theirs}, which equals {ours}), so the metrics say too much; `det-core data` lists them"
    )


def without_masks(recipe: Recipe) -> str:
    """What to do if the data have no masks: the recipe of the same model without masks, if there is one."""
    name = maskless_recipe(recipe)
    if name is None:
        return (
            f"recipe {recipe.name} trains on masks or measures them; take one without, such as faster-rcnn/r50-fpn-1x"
        )
    return f"recipe {recipe.name} trains on masks or measures them; take {name}, the same model without masks"


def maskless_recipe(recipe: Recipe) -> str | None:
    """The name of the recipe without masks whose model and schedule are the most alike; None if no model is alike.

    Only recipes of the same backbone, neck and kind of dense head, with a RoI head, are alike; of these, the RoI head
    that has the most settings in common wins, then the name after the slash, then data and schedule.
    """
    best: tuple[tuple[int, ...], str] | None = None
    for name, entry in plugin_manager().recipes().items():
        other = None if entry.missing() else entry.make()
        if other is None or _needs_masks(other) or not _is_alike(recipe.detector, other.detector):
            continue
        likeness = (
            _common_settings(recipe.detector, other.detector),
            int(name.rpartition("/")[2] == recipe.name.rpartition("/")[2]),
            int(other.data == recipe.data) + int(other.schedule == recipe.schedule),
        )
        if best is None or likeness > best[0]:
            best = likeness, name
    return None if best is None else best[1]


def _needs_masks(recipe: Recipe) -> bool:
    return recipe.trains_on_masks() or any(e.needs_masks() for e in recipe.evaluation.evaluators)


def _is_alike(ours: DetectorConfig, theirs: DetectorConfig) -> bool:
    if ours.roi_head is None or theirs.roi_head is None:
        return False
    parts = (ours.backbone, ours.neck, type(ours.dense_head))
    return parts == (theirs.backbone, theirs.neck, type(theirs.dense_head))


def _common_settings(ours: DetectorConfig, theirs: DetectorConfig) -> int:
    """The number of settings of the RoI heads that are equal, their type among them."""
    first, second = unstructure(ours.roi_head), unstructure(theirs.roi_head)
    return sum(name in second and second[name] == value for name, value in first.items())
