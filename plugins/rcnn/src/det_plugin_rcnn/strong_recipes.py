"""Faster and Mask R-CNN with stronger training than that of the baselines (figures in `strong.csv`), and demos of it.

Many image sizes, newer ImageNet weights, and from random weights large-scale jitter and copy-paste.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from det_core.data.augmentation_config import CopyPasteConfig, FixedSizeCropConfig, ScaleJitterConfig
from det_core.data.data_config import FlipConfig
from det_core.model.layer_config import BatchNormConfig
from det_core.offers import RecipeEntry
from det_core.optim.learning_rate_config import StepRateConfig
from det_core.recipe import Recipe
from det_core.settings import evolve
from det_core.slots import TransformConfig
from det_core.zoo import (
    LARGE_SCALE_JITTER,
    STANDARD_JITTER,
    Row,
    evolve_part,
    jitter_scale,
    multi_scale,
    published_rows,
    zoo_entries,
)
from det_plugin_rcnn.recipes import (
    PUBLISHED_V2,
    SUMMARIES,
    TORCHVISION_MODELS,
    baseline,
    demo_recipe,
    torchvision_v2_recipe,
    with_norm,
)
from det_plugin_resnet.backbones import with_newer_weights

ROWS = published_rows(Path(__file__).with_name("strong.csv"))
TRAININGS = {
    "ms": "trained longer on images of many sizes",
    "rsb": "from the ImageNet weights of ResNet strikes back",
    "tnr": "from torchvision's newer ImageNet weights",
    "syncbn-lsj": "from random weights with large-scale jitter",
    "syncbn-ssj": "from random weights with standard scale jitter",
    "syncbn-ssj-scp": "from random weights with standard scale jitter and copy-paste",
}


def strong_recipe(row: Row) -> Recipe:
    """The recipe of a row, whose variant names the training."""
    recipe = baseline(row)
    if row.variant == "ms":
        return multi_scale(recipe)
    if row.variant == "rsb":
        return with_newer_weights(recipe, row, lr=2e-4, weight_decay=0.05)
    if row.variant == "tnr":
        return with_newer_weights(recipe, row, lr=1e-4, weight_decay=0.1)
    scratch = from_scratch(recipe)
    if row.variant == "syncbn-lsj":
        return _in_long_epochs(jitter_scale(scratch, LARGE_SCALE_JITTER), int(row.schedule.removesuffix("e")))
    return jitter_scale(scratch, STANDARD_JITTER, copy_paste=row.variant == "syncbn-ssj-scp")


def from_scratch(recipe: Recipe) -> Recipe:
    """A Mask R-CNN trained from random weights, with batch norm over all processes in all parts but the RPN.

    The RPN has two convolutions, and the box head four and one linear layer.
    """
    made = evolve(recipe, detector=with_norm(recipe.detector, BatchNormConfig(synchronised=True)))
    made = evolve_part(made, "backbone", frozen_stages=-1, pretrained=None)
    return evolve_part(made, "dense_head", num_convs=2)


def _in_long_epochs(recipe: Recipe, passes: int) -> Recipe:
    """25 epochs for so many passes over the data, as by mmdet."""
    return evolve(
        recipe,
        data=evolve(recipe.data, repeat=passes // 25),
        schedule=evolve(recipe.schedule, epochs=25, learning_rate=StepRateConfig(milestones=(22, 24))),
    )


# torchvision's training of its second version (pytorch/vision, pull requests 5763 and 5773)


def torchvision_v2_training(model: str) -> Recipe:
    """The second version of a torchvision detector, with the training of its weights COCO_V1."""
    recipe = evolve_part(torchvision_v2_recipe(model), "backbone", frozen_stages=-1, pretrained=None)
    recipe = evolve(recipe, name=f"{recipe.name}-400e", published=evolve(PUBLISHED_V2[model], note=""))
    made = jitter_scale(recipe, crop=FixedSizeCropConfig(fill=(123.0, 117.0, 104.0)))
    jitter, *others = made.data.train_transforms
    assert isinstance(jitter, ScaleJitterConfig)
    jitter = evolve(jitter, rounding="down", arithmetic="antialiased")
    return evolve(
        made,
        data=evolve(made.data, train_transforms=(jitter, *others)),
        schedule=evolve(
            made.schedule,
            epochs=400,
            learning_rate=StepRateConfig(milestones=(352, 384)),
            warmup_steps=1000,
            warmup_factor=0.001,
        ),
    )


# Demos on the bundled sample

SIDE = 320
DEMOS = {
    "lsj": "with large-scale jitter",
    "copy-paste": "with standard scale jitter and copy-paste",
}


def strong_demo(variant: str) -> Recipe:
    """The demo of Mask R-CNN with crops of 320 pixels. Nuclei are small, so the jitter enlarges rather than shrinks."""
    recipe = demo_recipe("mask-rcnn")
    factors = (0.4, 2.0) if variant == "lsj" else STANDARD_JITTER
    transforms: tuple[TransformConfig, ...] = (
        ScaleJitterConfig(size=(SIDE, SIDE), factors=factors),
        FixedSizeCropConfig(size=(SIDE, SIDE), boxes="masks"),
        FlipConfig(vertical_probability=0.5),
    )
    if variant == "copy-paste":
        transforms = (*transforms, CopyPasteConfig())
    data = evolve(recipe.data, train_transforms=transforms, group_by_aspect=False)
    return evolve(recipe, name=f"mask-rcnn/r18-fpn-{variant}-demo", data=data)


ENTRIES = (
    *zoo_entries(
        ROWS, strong_recipe, default="", summary=lambda row: f"{SUMMARIES[row.model]}, {TRAININGS[row.variant]}"
    ),
    *(
        RecipeEntry(
            name=f"{model}/torchvision-r50-fpn-v2-400e",
            make=partial(torchvision_v2_training, model),
            published=evolve(PUBLISHED_V2[model], note=""),
            summary=f"{what}, with torchvision's conventions and the training of its second version, from random "
            "weights with large-scale jitter",
            weights_of="torchvision",
        )
        for model, what in TORCHVISION_MODELS.items()
    ),
    *(
        RecipeEntry(
            name=f"mask-rcnn/r18-fpn-{variant}-demo",
            make=partial(strong_demo, variant),
            summary=f"{SUMMARIES['mask-rcnn']}, small, on the bundled sample, {what}",
        )
        for variant, what in DEMOS.items()
    ),
)
