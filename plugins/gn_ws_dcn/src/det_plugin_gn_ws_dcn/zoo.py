"""The zoo of GroupNorm, Weight Standardization and deformable layers: published baselines under modern conventions.

A recipe is that of the same model with plain layers, in which some are replaced. Recipes of models from other plugins
(Cascade R-CNN, HTC) import these only when they are made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from det_core.data.config import ResizeConfig
from det_core.model.detector_config import PreprocessConfig
from det_core.model.layer_config import Conv2dConfig, GroupNormConfig
from det_core.recipe import Published, Recipe
from det_core.settings import evolve
from det_core.slots import ConvConfig
from det_plugin_fpn.config import FPNConfig
from det_plugin_gn_ws_dcn.config import DeformConv2dConfig, DeformRoIPoolConfig, WSConv2dConfig
from det_plugin_rcnn.config import ConvMaskHeadConfig, FCBoxHeadConfig, RCNNHeadConfig
from det_plugin_rcnn.zoo import zoo_recipe as rcnn_recipe
from det_plugin_resnet.config import ResNetConfig
from det_plugin_resnet.zoo import Row

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

# Detectron's weights want BGR with means alone, though strides are as in torchvision's.
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


def _plain(row: Row) -> Recipe:
    """The model with plain layers; imports the plugin that it is from."""
    if row.model == "htc":
        from det_plugin_htc.zoo import zoo_recipe as htc_recipe

        return htc_recipe(row)
    if row.model.startswith("cascade"):
        from det_plugin_cascade.zoo import zoo_recipe as cascade_recipe

        return cascade_recipe(row)
    return rcnn_recipe(row)


def _group_norm(recipe: Recipe, row: Row) -> Recipe:
    """Norms in backbone, pyramid and heads; four convolutions and one fully connected layer to the boxes."""
    norm = GroupNormConfig()
    conv: ConvConfig = WSConv2dConfig() if row.variant == "gn-ws" else Conv2dConfig()
    config: Any = recipe.detector
    head = config.roi_head
    assert isinstance(head, RCNNHeadConfig)
    head = evolve(head, box_head=FCBoxHeadConfig(num_convs=4, num_fcs=1, norm=norm, conv=conv))
    if head.mask_head is not None:
        head = evolve(head, mask_head=ConvMaskHeadConfig(norm=norm, conv=conv))
    weights = GN_WEIGHTS[row.variant, row.network]
    return evolve(
        recipe,
        detector=evolve(
            config,
            preprocess=DETECTRON if row.variant == "gn" else config.preprocess,
            backbone=evolve(config.backbone, norm=norm, conv=conv, pretrained=weights),
            neck=FPNConfig(norm=norm, conv=conv),
            roi_head=head,
        ),
    )


def _deformable(conv: DeformConv2dConfig) -> Callable[[Recipe, Row], Recipe]:
    def change(recipe: Recipe, row: Row) -> Recipe:
        backbone = recipe.detector.backbone
        assert isinstance(backbone, ResNetConfig)
        return evolve(recipe, detector=evolve(recipe.detector, backbone=evolve(backbone, spatial_conv=conv)))

    return change


def _pooled(pool: DeformRoIPoolConfig) -> Callable[[Recipe, Row], Recipe]:
    def change(recipe: Recipe, row: Row) -> Recipe:
        head = recipe.detector.roi_head
        assert isinstance(head, RCNNHeadConfig)
        return evolve(recipe, detector=evolve(recipe.detector, roi_head=evolve(head, roi_pool=pool)))

    return change


def _many_sizes(recipe: Recipe, row: Row) -> Recipe:
    """Deformable, and short edges of 400 to 1400 pixels in training."""
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


def zoo_recipe(row: Row) -> Recipe:
    """The published baseline of a row under modern conventions."""
    return CHANGES[row.variant](_plain(row), row)


def _row(model: str, network: str, variant: str, schedule: str, published: Published) -> Row:
    return Row(model, network, "fpn", schedule, published, variant)


# From the published tables: the 2019 model zoo, and its re-runs under modern conventions.
ROWS = (
    _row(
        "mask-rcnn",
        "r50",
        "gn",
        "2x",
        Published(
            box_ap=39.8,
            mask_ap=36.1,
            memory_gb=7.2,
            train_s_per_iter=0.806,
            inference_fps=5.4,
            modern_box_ap=40.2,
            modern_mask_ap=36.4,
            modern_memory_gb=7.1,
        ),
    ),
    _row(
        "mask-rcnn",
        "r50",
        "gn",
        "3x",
        Published(
            box_ap=40.1,
            mask_ap=36.4,
            memory_gb=7.2,
            train_s_per_iter=0.806,
            inference_fps=5.4,
            modern_box_ap=40.5,
            modern_mask_ap=36.7,
            modern_memory_gb=7.1,
        ),
    ),
    _row(
        "mask-rcnn",
        "r101",
        "gn",
        "2x",
        Published(
            box_ap=41.5,
            mask_ap=37.0,
            memory_gb=9.9,
            train_s_per_iter=0.97,
            inference_fps=4.8,
            modern_box_ap=41.9,
            modern_mask_ap=37.6,
            modern_memory_gb=9.9,
        ),
    ),
    _row(
        "mask-rcnn",
        "r101",
        "gn",
        "3x",
        Published(
            box_ap=41.6,
            mask_ap=37.3,
            memory_gb=9.9,
            train_s_per_iter=0.97,
            inference_fps=4.8,
            modern_box_ap=42.1,
            modern_mask_ap=38.0,
            modern_memory_gb=9.9,
        ),
    ),
    _row(
        "mask-rcnn",
        "r50",
        "gn-contrib",
        "2x",
        Published(
            box_ap=39.7,
            mask_ap=35.9,
            memory_gb=7.2,
            train_s_per_iter=0.806,
            inference_fps=5.4,
            modern_box_ap=40.0,
            modern_mask_ap=36.1,
            modern_memory_gb=7.1,
        ),
    ),
    _row(
        "mask-rcnn",
        "r50",
        "gn-contrib",
        "3x",
        Published(
            box_ap=40.0,
            mask_ap=36.2,
            memory_gb=7.2,
            train_s_per_iter=0.806,
            inference_fps=5.4,
            modern_box_ap=40.1,
            modern_mask_ap=36.2,
            modern_memory_gb=7.1,
        ),
    ),
    _row("faster-rcnn", "r50", "gn-ws", "1x", Published(box_ap=38.9, modern_box_ap=39.7, modern_memory_gb=5.9)),
    _row("faster-rcnn", "r101", "gn-ws", "1x", Published(box_ap=41.4, modern_box_ap=41.7, modern_memory_gb=8.9)),
    _row("faster-rcnn", "x50-32x4d", "gn-ws", "1x", Published(box_ap=39.9, modern_box_ap=40.7, modern_memory_gb=7.0)),
    _row("faster-rcnn", "x101-32x4d", "gn-ws", "1x", Published(box_ap=41.8, modern_box_ap=42.1, modern_memory_gb=10.8)),
    _row(
        "mask-rcnn",
        "r50",
        "gn-ws",
        "2x",
        Published(box_ap=40.3, mask_ap=36.2, modern_box_ap=40.6, modern_mask_ap=36.6, modern_memory_gb=7.3),
    ),
    _row(
        "mask-rcnn",
        "r101",
        "gn-ws",
        "2x",
        Published(box_ap=42.0, mask_ap=37.3, modern_box_ap=42.0, modern_mask_ap=37.7, modern_memory_gb=10.3),
    ),
    _row(
        "mask-rcnn",
        "x50-32x4d",
        "gn-ws",
        "2x",
        Published(box_ap=40.7, mask_ap=36.7, modern_box_ap=41.1, modern_mask_ap=37.0, modern_memory_gb=8.4),
    ),
    _row(
        "mask-rcnn",
        "x101-32x4d",
        "gn-ws",
        "2x",
        Published(box_ap=42.1, mask_ap=37.7, modern_box_ap=42.1, modern_mask_ap=37.9, modern_memory_gb=12.2),
    ),
    _row(
        "mask-rcnn",
        "r50",
        "gn-ws",
        "20-23-24e",
        Published(box_ap=41.1, mask_ap=37.0, modern_box_ap=41.1, modern_mask_ap=37.1, modern_memory_gb=7.3),
    ),
    _row(
        "mask-rcnn",
        "r101",
        "gn-ws",
        "20-23-24e",
        Published(box_ap=43.0, mask_ap=38.4, modern_box_ap=43.1, modern_mask_ap=38.6, modern_memory_gb=10.3),
    ),
    _row(
        "mask-rcnn",
        "x50-32x4d",
        "gn-ws",
        "20-23-24e",
        Published(box_ap=41.9, mask_ap=37.7, modern_box_ap=42.1, modern_mask_ap=38.0, modern_memory_gb=8.4),
    ),
    _row(
        "mask-rcnn",
        "x101-32x4d",
        "gn-ws",
        "20-23-24e",
        Published(box_ap=43.4, mask_ap=38.7, modern_box_ap=42.7, modern_mask_ap=38.5, modern_memory_gb=12.2),
    ),
    _row(
        "faster-rcnn",
        "r50",
        "dconv-c3-c5",
        "1x",
        Published(
            box_ap=40.0,
            memory_gb=3.9,
            train_s_per_iter=0.594,
            inference_fps=10.2,
            modern_box_ap=41.3,
            modern_memory_gb=4.0,
        ),
    ),
    _row(
        "faster-rcnn",
        "r50",
        "mdconv-c3-c5",
        "1x",
        Published(
            box_ap=40.2,
            memory_gb=3.7,
            train_s_per_iter=0.598,
            inference_fps=10.0,
            modern_box_ap=41.4,
            modern_memory_gb=4.1,
        ),
    ),
    _row(
        "faster-rcnn",
        "r50",
        "mdconv-group4-c3-c5",
        "1x",
        Published(
            box_ap=40.4,
            memory_gb=3.9,
            train_s_per_iter=0.35,
            inference_fps=11.4,
            modern_box_ap=41.5,
            modern_memory_gb=4.2,
        ),
    ),
    _row(
        "faster-rcnn",
        "r50",
        "dpool",
        "1x",
        Published(
            box_ap=37.8,
            memory_gb=4.6,
            train_s_per_iter=0.714,
            inference_fps=8.7,
            modern_box_ap=38.9,
            modern_memory_gb=5.0,
        ),
    ),
    _row(
        "faster-rcnn",
        "r50",
        "mdpool",
        "1x",
        Published(
            box_ap=38.0,
            memory_gb=5.2,
            train_s_per_iter=0.769,
            inference_fps=8.2,
            modern_box_ap=38.7,
            modern_memory_gb=5.8,
        ),
    ),
    _row(
        "faster-rcnn",
        "r101",
        "dconv-c3-c5",
        "1x",
        Published(
            box_ap=42.1,
            memory_gb=5.8,
            train_s_per_iter=0.811,
            inference_fps=8.0,
            modern_box_ap=42.7,
            modern_memory_gb=6.0,
        ),
    ),
    _row(
        "faster-rcnn",
        "x101-32x4d",
        "dconv-c3-c5",
        "1x",
        Published(
            box_ap=43.4,
            memory_gb=7.1,
            train_s_per_iter=1.126,
            inference_fps=6.6,
            modern_box_ap=44.5,
            modern_memory_gb=7.3,
        ),
    ),
    _row(
        "mask-rcnn",
        "r50",
        "dconv-c3-c5",
        "1x",
        Published(
            box_ap=41.1,
            mask_ap=37.2,
            memory_gb=4.5,
            train_s_per_iter=0.712,
            inference_fps=7.7,
            modern_box_ap=41.8,
            modern_mask_ap=37.4,
            modern_memory_gb=4.5,
        ),
    ),
    _row(
        "mask-rcnn",
        "r50",
        "mdconv-c3-c5",
        "1x",
        Published(
            box_ap=41.3,
            mask_ap=37.3,
            memory_gb=4.5,
            train_s_per_iter=0.712,
            inference_fps=7.7,
            modern_box_ap=41.5,
            modern_mask_ap=37.1,
            modern_memory_gb=4.5,
        ),
    ),
    _row(
        "mask-rcnn",
        "r101",
        "dconv-c3-c5",
        "1x",
        Published(
            box_ap=43.2,
            mask_ap=38.7,
            memory_gb=6.4,
            train_s_per_iter=0.939,
            inference_fps=6.5,
            modern_box_ap=43.5,
            modern_mask_ap=38.9,
            modern_memory_gb=6.5,
        ),
    ),
    _row(
        "cascade-rcnn",
        "r50",
        "dconv-c3-c5",
        "1x",
        Published(
            box_ap=44.0,
            memory_gb=4.4,
            train_s_per_iter=0.66,
            inference_fps=7.6,
            modern_box_ap=43.8,
            modern_memory_gb=4.5,
        ),
    ),
    _row(
        "cascade-rcnn",
        "r101",
        "dconv-c3-c5",
        "1x",
        Published(
            box_ap=45.0,
            memory_gb=6.3,
            train_s_per_iter=0.881,
            inference_fps=6.8,
            modern_box_ap=45.0,
            modern_memory_gb=6.4,
        ),
    ),
    _row(
        "cascade-mask-rcnn",
        "r50",
        "dconv-c3-c5",
        "1x",
        Published(
            box_ap=44.4,
            mask_ap=38.3,
            memory_gb=6.6,
            train_s_per_iter=0.942,
            inference_fps=5.7,
            modern_box_ap=44.4,
            modern_mask_ap=38.6,
            modern_memory_gb=6.0,
        ),
    ),
    _row(
        "cascade-mask-rcnn",
        "r101",
        "dconv-c3-c5",
        "1x",
        Published(
            box_ap=45.7,
            mask_ap=39.4,
            memory_gb=8.5,
            train_s_per_iter=1.156,
            inference_fps=5.1,
            modern_box_ap=45.8,
            modern_mask_ap=39.7,
            modern_memory_gb=8.0,
        ),
    ),
    _row(
        "cascade-mask-rcnn",
        "x101-32x4d",
        "dconv-c3-c5",
        "1x",
        Published(modern_box_ap=47.3, modern_mask_ap=41.1, modern_memory_gb=9.2),
    ),
    _row(
        "htc",
        "x101-64x4d",
        "dconv-c3-c5-ms",
        "20e",
        Published(box_ap=50.7, mask_ap=43.9, modern_box_ap=50.4, modern_mask_ap=43.8),
    ),
)
