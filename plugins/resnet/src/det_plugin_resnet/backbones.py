"""The ResNets and ResNeXts of the zoo: configurations, ImageNet weights, and matching preprocessing."""

from __future__ import annotations

from det_core.model.detector_config import PreprocessConfig
from det_core.model.layer_config import BatchNormConfig, FrozenBatchNormConfig, GroupNormConfig
from det_core.optim.optimizer_config import AdamWConfig
from det_core.recipe import Recipe
from det_core.settings import evolve
from det_core.zoo import Row, evolve_part
from det_plugin_resnet.config import ResNetConfig, ResNetStageConfig

BACKBONES = {
    "r50": ResNetConfig(depth=50, pretrained="torchvision:resnet50"),
    "r101": ResNetConfig(depth=101, pretrained="torchvision:resnet101"),
    "r50-caffe": ResNetConfig(depth=50, style="caffe", norm=FrozenBatchNormConfig(), pretrained="detectron2:R-50"),
    "r101-caffe": ResNetConfig(depth=101, style="caffe", norm=FrozenBatchNormConfig(), pretrained="detectron2:R-101"),
    "x50-32x4d": ResNetConfig(depth=50, groups=32, base_width=4, pretrained="torchvision:resnext50_32x4d"),
    "x101-32x4d": ResNetConfig(depth=101, groups=32, base_width=4, pretrained="mmdet:resnext101_32x4d"),
    "x101-64x4d": ResNetConfig(depth=101, groups=64, base_width=4, pretrained="torchvision:resnext101_64x4d"),
}
# Caffe-style weights expect BGR images minus the mean, not divided by a deviation; their norms are frozen.
CAFFE = PreprocessConfig(order="bgr", mean=(103.53, 116.28, 123.675), std=(1.0, 1.0, 1.0))
# Images of some of detectron2's models are divided by a deviation.
DIVIDED = PreprocessConfig(order="bgr", mean=CAFFE.mean, std=(57.375, 57.12, 58.395))
# detectron2's networks with the images that they require.
_FROZEN = FrozenBatchNormConfig()
DETECTRON2_NETWORKS = {
    "r50": (BACKBONES["r50-caffe"], CAFFE),
    "r101": (BACKBONES["r101-caffe"], CAFFE),
    "x101-32x8d": (ResNetConfig(depth=101, groups=32, base_width=8, norm=_FROZEN), DIVIDED),
    "x152-32x8d": (ResNetConfig(depth=152, groups=32, base_width=8, norm=_FROZEN), CAFFE),
}
# The networks of Detectron and maskrcnn-benchmark.
DETECTRON_NETWORKS = {
    "x101-64x4d": ResNetConfig(depth=101, groups=64, base_width=4, norm=_FROZEN),
    **{name: network for name, (network, _) in DETECTRON2_NETWORKS.items()},
}
# The backbone of torchvision's detectors. Their COCO_V1 weights require eps 0; all others require 1e-5.
TORCHVISION_R50 = ResNetConfig(
    depth=50, frozen_stages=1, norm=FrozenBatchNormConfig(eps=0.0), pretrained="torchvision:resnet50"
)
# The backbone of the second version (`..._v2`) of these detectors: its norms train, statistics included. torchvision
# freezes the weights of the stem and of the first stage, if it is given some; det freezes their statistics, too.
TORCHVISION_R50_V2 = evolve(TORCHVISION_R50, norm=BatchNormConfig(synchronised=True))
# The backbone of the demos, which start from random weights.
DEMO_R18 = ResNetConfig(depth=18, norm=GroupNormConfig(groups=16), frozen_stages=-1)


def detectron_network(source: str, network: str, kind: str) -> ResNetConfig:
    """A network of Detectron or maskrcnn-benchmark; the latter adds no eps to the variance of its norms."""
    made = DETECTRON_NETWORKS[network]
    norm = FrozenBatchNormConfig(eps=0.0) if source == "maskrcnn-benchmark" else made.norm
    return evolve(made, norm=norm, stages=(3,)) if kind == "c4" else evolve(made, norm=norm)


def backbone_of(row: Row) -> ResNetConfig:
    """The backbone of a row: all stages, or the first three for C4 (the RoI head has the last, see `c4_trunk_of`)."""
    network = BACKBONES[row.network]
    return evolve(network, stages=(3,)) if row.kind == "c4" else network


def preprocess_of(row: Row) -> PreprocessConfig:
    """The preprocessing that the ImageNet weights of a row's network require."""
    return CAFFE if row.network.endswith("-caffe") else PreprocessConfig()


def c4_trunk_of(row: Row) -> ResNetStageConfig:
    """The last stage of a C4 row's network, which the RoI head applies to each region."""
    network = BACKBONES[row.network]
    return ResNetStageConfig(depth=network.depth, style=network.style, norm=network.norm, pretrained=network.pretrained)


# Weights of ResNet-50 from newer trainings on ImageNet, by the variant that names them.
NEWER_WEIGHTS = {"rsb": "mmcls:resnet50_rsb_a1", "tnr": "torchvision:resnet50@IMAGENET1K_V2"}


def with_newer_weights(recipe: Recipe, row: Row, *, lr: float, weight_decay: float) -> Recipe:
    """A recipe that starts from a newer training of ResNet-50, with the optimiser that mmdet found best for it.

    `rsb`: ResNet strikes back (Wightman et al., 2021), `tnr`: torchvision's new recipe. The optimiser is AdamW, and
    norms have no weight decay. lr: for a total batch of 16 images.
    """
    optimizer = AdamWConfig(lr=lr, lr_batch=16, weight_decay=weight_decay, norm_weight_decay=0.0)
    return evolve_part(evolve(recipe, optimizer=optimizer), "backbone", pretrained=NEWER_WEIGHTS[row.variant])
