"""The zoo of GroupNorm, Weight Standardization and deformable layers: baselines (`published.csv`) and a demo.

Each recipe is the recipe of the same model with plain layers, with some layers replaced. The plugins of Cascade R-CNN
and HTC are optional: they are imported only to make a recipe of their models.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from det_core.data.data_config import ResizeConfig
from det_core.model.detector_config import PreprocessConfig
from det_core.model.layer_config import GroupNormConfig
from det_core.offers import RecipeEntry
from det_core.recipe import Recipe
from det_core.settings import evolve
from det_core.zoo import Row, as_mmdet1, detectron_entries, evolve_part, published_rows, zoo_entries
from det_plugin_gn_ws_dcn.config import DeformConv2dConfig, DeformRoIPoolConfig, WSConv2dConfig
from det_plugin_rcnn import detectron_recipes, recipes as rcnn
from det_plugin_rcnn.config import ConvMaskHeadConfig, FCBoxHeadConfig

ROWS = published_rows(Path(__file__).with_name("published.csv"))
DETECTRON2_ROWS = published_rows(Path(__file__).with_name("detectron2.csv"))
SUMMARIES = {
    "gn": "with group norm everywhere (Wu and He, 2018)",
    "gn-contrib": "with group norm everywhere (Wu and He, 2018), contributed weights",
    "gn-ws": "with group norm and standardised weights (Qiao et al., 2019)",
    "dconv-c3-c5": "with deformable convolution (Dai et al., 2017)",
    "mdconv-c3-c5": "with modulated deformable convolution (Zhu et al., 2019)",
    "mdconv-group4-c3-c5": "with modulated deformable convolution in 4 groups (Zhu et al., 2019)",
    "dpool": "with deformable RoI pooling (Dai et al., 2017)",
    "mdpool": "with modulated deformable RoI pooling (Zhu et al., 2019)",
    "dconv-c3-c5-ms": "with deformable convolution and images of many sizes (Chen et al., 2019)",
}
REQUIRES = {
    "cascade-rcnn": ("det-plugin-cascade",),
    "cascade-mask-rcnn": ("det-plugin-cascade",),
    "htc": ("det-plugin-htc",),
}

# Detectron's weights expect BGR images minus the mean, not divided by a deviation. Strides are as in torchvision.
DETECTRON = PreprocessConfig(order="bgr", mean=(102.9801, 115.9465, 122.7717), std=(1.0, 1.0, 1.0))
GN_WEIGHTS = {
    ("gn", "r50"): "mmdet:detectron/resnet50_gn",
    ("gn", "r101"): "mmdet:detectron/resnet101_gn",
    ("gn-contrib", "r50"): "mmdet:contrib/resnet50_gn",
    ("gn-ws", "r50"): "mmdet:jhu/resnet50_gn_ws",
    ("gn-ws", "r101"): "mmdet:jhu/resnet101_gn_ws",
    ("gn-ws", "x50-32x4d"): "mmdet:jhu/resnext50_32x4d_gn_ws",
    ("gn-ws", "x101-32x4d"): "mmdet:jhu/resnext101_32x4d_gn_ws",
}


def _makers(row: Row) -> tuple[Callable[[Row], Recipe], Callable[[Row], Recipe]]:
    """What makes the recipe with plain layers, from the plugin of the model: of today, and of mmdet 0.x and 1.x."""
    if row.model == "htc":
        from det_plugin_htc import recipes as htc

        return htc.baseline, htc.mmdet1
    if row.model.startswith("cascade"):
        from det_plugin_cascade import recipes as cascade

        return cascade.baseline, cascade.mmdet1
    return rcnn.baseline, rcnn.mmdet1


def _group_norm(recipe: Recipe, row: Row) -> Recipe:
    """Group norm in backbone, FPN and heads; a box head with four convolutions and one fully connected layer."""
    conv = WSConv2dConfig() if row.variant == "gn-ws" else None
    detector = rcnn.with_norm(recipe.detector, GroupNormConfig(), conv)
    preprocess = DETECTRON if row.variant == "gn" else detector.preprocess
    made = evolve(recipe, detector=evolve(detector, preprocess=preprocess))
    return evolve_part(made, "backbone", pretrained=GN_WEIGHTS[row.variant, row.network])


def _deformable(conv: DeformConv2dConfig) -> Callable[[Recipe, Row], Recipe]:
    return lambda recipe, row: evolve_part(recipe, "backbone", spatial_conv=conv)


def _pooled(pool: DeformRoIPoolConfig) -> Callable[[Recipe, Row], Recipe]:
    return lambda recipe, row: evolve_part(recipe, "roi_head", roi_pool=pool)


def _many_sizes(recipe: Recipe, row: Row) -> Recipe:
    """Deformable convolution, and training images with short edges of 400 to 1400 pixels."""
    recipe = _deformable(DeformConv2dConfig())(recipe, row)
    _, *others = recipe.data.train_transforms
    resize = ResizeConfig(scales=((1600, 400), (1600, 1400)), mode="range")
    return evolve(recipe, data=evolve(recipe.data, train_transforms=(resize, *others)))


CHANGES: dict[str, Callable[[Recipe, Row], Recipe]] = {
    "gn": _group_norm,
    "gn-contrib": _group_norm,
    "gn-ws": _group_norm,
    "dconv-c3-c5": _deformable(DeformConv2dConfig()),
    "mdconv-c3-c5": _deformable(DeformConv2dConfig(modulated=True)),
    "mdconv-group4-c3-c5": _deformable(DeformConv2dConfig(modulated=True, offset_groups=4)),
    "dpool": _pooled(DeformRoIPoolConfig()),
    "mdpool": _pooled(DeformRoIPoolConfig(modulated=True)),
    "dconv-c3-c5-ms": _many_sizes,
}


def baseline(row: Row) -> Recipe:
    """The recipe of a published row, under modern conventions."""
    make, _ = _makers(row)
    return CHANGES[row.variant](make(row), row)


def mmdet1(row: Row) -> Recipe:
    """The recipe of a published row with the conventions of mmdet 0.x and 1.x."""
    _, make = _makers(row)
    return as_mmdet1(CHANGES[row.variant](make(row), row), row.name)


def detectron2_recipe(row: Row) -> Recipe:
    """A model of detectron2 with deformable convolution: Mask R-CNN, or its largest Cascade Mask R-CNN."""
    if row.model == "mask-rcnn":
        return _deformable(DeformConv2dConfig())(detectron_recipes.detectron2_recipe(row), row)
    from det_plugin_cascade.recipes import detectron2_recipe as plain

    norm = GroupNormConfig()
    return evolve_part(
        _deformable(DeformConv2dConfig())(plain(row), row),
        "roi_head",
        box_head=FCBoxHeadConfig(num_convs=4, num_fcs=1, norm=norm, class_agnostic=True),
        mask_head=ConvMaskHeadConfig(num_convs=8, norm=norm),
    )


def demo_recipe() -> Recipe:
    """The demo of Faster R-CNN with standardised weights and modulated deformable convolutions."""
    plain, conv = rcnn.demo_recipe("faster-rcnn"), WSConv2dConfig()
    made = evolve_part(plain, "backbone", conv=conv, spatial_conv=DeformConv2dConfig(modulated=True))
    return evolve(evolve_part(made, "neck", conv=conv), name="faster-rcnn/r18-fpn-gn-ws-mdconv-demo")


ENTRIES = (
    *zoo_entries(
        ROWS,
        baseline,
        default="faster-rcnn/r50-fpn-mdconv-c3-c5-1x",
        summary=lambda row: SUMMARIES[row.variant],
        requires=lambda row: REQUIRES.get(row.model, ()),
        mmdet1=mmdet1,
    ),
    *detectron_entries(
        "detectron2",
        DETECTRON2_ROWS,
        detectron2_recipe,
        lambda row: SUMMARIES["dconv-c3-c5"],
        lambda row: REQUIRES.get(row.model, ()),
    ),
    RecipeEntry(
        name="faster-rcnn/r18-fpn-gn-ws-mdconv-demo",
        make=demo_recipe,
        demo=True,
        summary="with group norm, standardised weights and modulated deformable convolution, small, on the sample",
    ),
)
