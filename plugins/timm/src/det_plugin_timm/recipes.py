"""Faster and Mask R-CNN on Swin-T and ConvNeXt-T as in mmdet's zoo (figures in `published.csv`), and a demo."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from det_core.data.data_config import FlipConfig
from det_core.offers import RecipeEntry
from det_core.optim.learning_rate_config import StepRateConfig
from det_core.optim.optimizer_config import AdamWConfig
from det_core.recipe import Recipe
from det_core.settings import evolve
from det_core.specs import ParameterRule
from det_core.zoo import RESIZE, Row, published_rows, zoo_entries
from det_plugin_fpn.config import FPNConfig
from det_plugin_rcnn import recipes as rcnn
from det_plugin_timm.config import SizedCropConfig, TimmConfig

ROWS = published_rows(Path(__file__).with_name("published.csv"))
# mmdet starts from the ImageNet-1k weights of the authors, which timm has under these names.
NETWORKS = {
    "swin-t": TimmConfig(
        name="swin_tiny_patch4_window7_224",
        out_norm="layer_norm",
        drop_path_rate=0.2,
        pretrained="timm:swin_tiny_patch4_window7_224.ms_in1k",
    ),
    "convnext-t": TimmConfig(
        name="convnext_tiny", out_norm="layer_norm", drop_path_rate=0.4, pretrained="timm:convnext_tiny.fb_in1k"
    ),
}
SUMMARIES = {"swin-t": "on Swin-T (Liu et al., 2021)", "convnext-t": "on ConvNeXt-T (Liu et al., 2022)"}
DECAY = 0.95  # of ConvNeXt's learning rate, from layer to layer
LAST_LAYER = 6
ADAMW = AdamWConfig(lr=1e-4, lr_batch=16, weight_decay=0.05, norm_weight_decay=0.0)
SHORT_EDGES = tuple(range(480, 801, 32))


def timm_recipe(row: Row) -> Recipe:
    """The recipe of a row: a baseline of the R-CNN family on ResNet-50 with its backbone, optimiser and warm-up.

    mmdet trains ConvNeXt with fp16.
    """
    recipe = rcnn.baseline(Row(model=row.model, network="r50", kind=row.kind, schedule=row.schedule))
    convnext = row.network == "convnext-t"
    recipe = evolve(
        recipe,
        name=row.name,
        detector=evolve(recipe.detector, backbone=NETWORKS[row.network]),
        optimizer=CONVNEXT_ADAMW if convnext else SWIN_ADAMW,
        schedule=evolve(recipe.schedule, warmup_steps=1000, precision="fp16" if convnext else "fp32"),
        published=row.published,
    )
    return with_crops(recipe) if row.variant == "ms-crop" else recipe


SWIN_ADAMW = evolve(ADAMW, rules=(ParameterRule(pattern="*.relative_position_bias_table", weight_decay=0.0),))


def layer_of_convnext(stage: int, block: int) -> int:
    """The layer of a block of ConvNeXt-T for layer-wise decay, as mmdet counts them: 0 is the stem."""
    return {0: 1, 1: 2, 2: 3 + block // 3, 3: LAST_LAYER}[stage]


def _convnext_rules() -> tuple[ParameterRule, ...]:
    """Layer-wise decay in mmdet's seven layers, where `layer_decay` has a layer for each block; no decay of scales.

    A downsampling belongs to the first block after it. Output norms, neck and heads have the whole learning rate.
    """
    layers = {"stem": 0}
    for stage, blocks in enumerate((3, 3, 9, 3)):
        if stage:
            layers[f"stages.{stage}.downsample"] = layer_of_convnext(stage, 0)
        layers |= {f"stages.{stage}.blocks.{block}": layer_of_convnext(stage, block) for block in range(blocks)}
    factors = [
        ParameterRule(pattern=f"backbone.body.{name}.*", lr_factor=DECAY ** (LAST_LAYER + 1 - layer))
        for name, layer in layers.items()
    ]
    return (*factors, ParameterRule(pattern="*.gamma", weight_decay=0.0))


CONVNEXT_ADAMW = evolve(ADAMW, bias_weight_decay=0.0, rules=_convnext_rules())


def with_crops(recipe: Recipe) -> Recipe:
    """A recipe with DETR's augmentation (Carion et al., 2020, section A.4): many sizes, and crops of half the images.

    Epochs are 36, and the learning rate drops after 27 and 33.
    """
    resize = evolve(RESIZE, scales=tuple((1333, edge) for edge in SHORT_EDGES))
    data = evolve(recipe.data, train_transforms=(FlipConfig(), SizedCropConfig(), resize))
    schedule = evolve(recipe.schedule, epochs=36, learning_rate=StepRateConfig(milestones=(27, 33)))
    return evolve(recipe, data=data, schedule=schedule)


def demo_recipe() -> Recipe:
    """Faster R-CNN on the smallest ConvNeXt of timm, from random weights, on the bundled sample."""
    recipe = rcnn.demo_recipe("faster-rcnn")
    neck = recipe.detector.neck
    assert isinstance(neck, FPNConfig)
    return evolve(
        recipe,
        name="faster-rcnn/convnext-zepto-fpn-demo",
        detector=evolve(recipe.detector, backbone=TimmConfig(name="convnext_zepto_rms", out_norm="layer_norm")),
        optimizer=AdamWConfig(lr=1e-3, lr_batch=0, weight_decay=0.05, norm_weight_decay=0.0),
    )


ENTRIES = (
    *zoo_entries(
        ROWS,
        timm_recipe,
        default="mask-rcnn/swin-t-fpn-1x",
        summary=lambda row: f"{rcnn.SUMMARIES[row.model]}, {SUMMARIES[row.network]}",
    ),
    RecipeEntry(
        name="faster-rcnn/convnext-zepto-fpn-demo",
        make=partial(demo_recipe),
        demo=True,
        summary="boxes, on a ConvNeXt of 2 million parameters, small, on the bundled sample",
    ),
)
