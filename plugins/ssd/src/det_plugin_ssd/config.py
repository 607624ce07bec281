"""Configurations of SSD: its VGG backbone, neck, anchors and head. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from det_core.boxes.box_config import DeltaCoderConfig, MaxIoUAssignerConfig
from det_core.conventions import ANY
from det_core.errors import ConfigError
from det_core.model.detection_config import DetectingHeadConfig
from det_core.model.layer_config import Conv2dConfig
from det_core.model.loss_config import CrossEntropyConfig, SmoothL1Config
from det_core.settings import configclass, setting
from det_core.slots import (
    IN_CHANNELS,
    AnchorConfig,
    AssignerConfig,
    BackboneConfig,
    CoderConfig,
    ConvConfig,
    LossConfig,
    NeckConfig,
    NormConfig,
)
from det_core.specs import FeatureSpec

if TYPE_CHECKING:
    from det_plugin_ssd.anchors import SSDAnchors
    from det_plugin_ssd.backbone import VGG
    from det_plugin_ssd.head import SSDHead
    from det_plugin_ssd.neck import SSDNeck


@configclass
class VGGConfig(BackboneConfig):
    """VGG-16 with its fully connected layers turned into convolutions (Liu et al., SSD, 2016, section 3)."""

    type: ClassVar[str] = "vgg16_ssd"

    channels: int = setting(
        "channels of the first stage; later stages have 2, 4, 8 and 8 times as many, fc7 16 times", default=64, least=1
    )
    norm: NormConfig | None = setting("after every convolution; the published models have none", default=None)
    in_channels: int = setting(IN_CHANNELS, default=3, least=1)
    pretrained: str | None = setting(
        "initial weights: torchvision:NAME, torchvision:NAME@WEIGHTS or a file's path; fc6 and fc7 are not loaded",
        default=None,
    )

    def input_channels(self) -> int:
        return self.in_channels

    def feature_spec(self) -> FeatureSpec:
        return FeatureSpec(channels=(8 * self.channels, 16 * self.channels), strides=(8, 16))

    def build(self) -> VGG:
        from det_plugin_ssd.backbone import VGG

        return VGG(self)


@configclass
class ExtraLevelConfig:
    """A level that the neck adds: a 1x1 convolution to half the channels, then a convolution of size `kernel`."""

    channels: int = setting("channels of the level", default=256, least=2)
    kernel: int = setting("kernel size of the second convolution", default=3, least=1)
    stride: int = setting("stride of the second convolution", default=2, least=1)
    padding: int = setting("padding of the second convolution", default=1, least=0)
    spacing: int = setting("stride of the level's anchors, in input pixels", least=1)


EXTRA_300 = (
    ExtraLevelConfig(channels=512, spacing=32),
    ExtraLevelConfig(spacing=64),
    ExtraLevelConfig(stride=1, padding=0, spacing=100),
    ExtraLevelConfig(stride=1, padding=0, spacing=300),
)
EXTRA_512 = (
    ExtraLevelConfig(channels=512, spacing=32),
    ExtraLevelConfig(spacing=64),
    ExtraLevelConfig(spacing=128),
    ExtraLevelConfig(spacing=256),
    ExtraLevelConfig(kernel=4, stride=1, spacing=512),
)


# The extra levels of SSDLite, on inputs of 320 pixels; the third has 3 cells, 106.7 pixels apart.
EXTRA_LITE = (
    ExtraLevelConfig(channels=512, spacing=64),
    ExtraLevelConfig(spacing=107),
    ExtraLevelConfig(spacing=160),
    ExtraLevelConfig(channels=128, spacing=320),
)


@configclass
class SSDNeckConfig(NeckConfig):
    """Normalises the finest map, and adds levels after the coarsest."""

    type: ClassVar[str] = "ssd_neck"

    scale: float | None = setting(
        "initial scale of the finest map's channels (null: the map is not normalised)", default=20.0, above=0
    )
    extra: tuple[ExtraLevelConfig, ...] = setting("levels after the inputs, in order", default=EXTRA_300)
    separable: bool = setting(
        "the second convolution of a level is a depthwise and a 1x1 convolution, and ReLUs end at 6 (SSDLite)",
        default=False,
    )
    norm: NormConfig | None = setting("after every convolution", default=None)
    conv: ConvConfig = setting("convolutions of the extra levels", default=Conv2dConfig())

    def feature_spec(self, inputs: FeatureSpec) -> FeatureSpec:
        return FeatureSpec(
            channels=(*inputs.channels, *(level.channels for level in self.extra)),
            strides=(*inputs.strides, *(level.spacing for level in self.extra)),
        )

    def build(self, inputs: FeatureSpec) -> SSDNeck:
        from det_plugin_ssd.neck import SSDNeck

        return SSDNeck(self, inputs)


@configclass
class SSDAnchorsConfig(AnchorConfig):
    """Anchors of two sizes and several shapes around the centre of every cell, with sizes per level.

    A level of size s, followed by size t, has squares with sides s and sqrt(s t), and for each ratio a wide and a tall
    anchor of area s^2 (Liu et al., SSD, 2016, section 2.2).
    """

    type: ClassVar[str] = "ssd_anchors"

    sizes: tuple[float, ...] = setting(
        "side in pixels of each level's smaller square, and one more size after the last level", min_items=2, above=0
    )
    ratios: tuple[tuple[float, ...], ...] = setting("per level: ratios of the longer to the shorter side", above=1)
    longest: float | None = setting(
        "maximum side in pixels (null: none); torchvision uses the image size", default=None, above=0
    )
    spacing: Literal["stride", "image"] = setting(
        "pixels between cells; stride: the level's stride; image: the image's side divided by the number of cells "
        "(SSDLite). The side is that of the finest map times its stride",
        default="stride",
        conventions={"torchvision": ANY},
    )
    rule: Literal["centre", "mmdet1"] = setting(
        "centre: around the centre of the cell; mmdet1: around the middle of the cell's pixels, rounded to whole "
        "pixels, half to even (mmdet 0.x and 1.x)",
        default="centre",
        conventions={"mmdet1": "mmdet1"},
    )

    def __attrs_post_init__(self) -> None:
        if self.rule == "mmdet1" and self.spacing == "image":
            raise ConfigError.at("spacing", "found 'image', but rule: mmdet1 requires whole strides; use 'stride'")
        if len(self.sizes) != len(self.ratios) + 1:
            raise ConfigError.at(
                "sizes",
                f"found {len(self.sizes)} sizes for {len(self.ratios)} levels; give one per level, and one more",
            )

    def per_level(self) -> tuple[int, ...]:
        """Number of anchors per cell of each level."""
        return tuple(2 + 2 * len(ratios) for ratios in self.ratios)

    def anchors_per_cell(self) -> int:
        counts = set(self.per_level())
        if len(counts) > 1:
            raise ConfigError.at(
                "anchors",
                f"{self.type!r} has {sorted(counts)} anchors per cell on different levels, but this head shares its "
                "layers between levels; use type: grid_anchors, or the same number of ratios on every level",
            )
        return counts.pop()

    def anchors_per_level(self, levels: int) -> tuple[int, ...]:
        if levels != len(self.ratios):
            raise ConfigError.at(
                "anchors",
                f"{self.type!r} has anchors for {len(self.ratios)} levels, but there are {levels}; give `ratios` and "
                "`sizes` for every level",
            )
        return self.per_level()

    def build(self, strides: tuple[int, ...]) -> SSDAnchors:
        from det_plugin_ssd.anchors import SSDAnchors

        return SSDAnchors(self, strides)


# Anchors of the published models. Those for VOC are larger, as its objects are.
RATIOS_300 = ((2.0,), (2.0, 3.0), (2.0, 3.0), (2.0, 3.0), (2.0,), (2.0,))
RATIOS_512 = ((2.0,), (2.0, 3.0), (2.0, 3.0), (2.0, 3.0), (2.0, 3.0), (2.0,), (2.0,))
COCO_300 = SSDAnchorsConfig(sizes=(21.0, 45.0, 99.0, 153.0, 207.0, 261.0, 315.0), ratios=RATIOS_300)
COCO_512 = SSDAnchorsConfig(sizes=(20.0, 51.0, 133.0, 215.0, 296.0, 378.0, 460.0, 542.0), ratios=RATIOS_512)
VOC_300 = SSDAnchorsConfig(sizes=(30.0, 60.0, 111.0, 162.0, 213.0, 264.0, 315.0), ratios=RATIOS_300)
VOC_512 = SSDAnchorsConfig(sizes=(35.0, 76.0, 153.0, 230.0, 307.0, 384.0, 460.0, 537.0), ratios=RATIOS_512)
# SSDLite's: 0.2 to 0.95 of a side of 320 pixels in equal steps, then the whole side.
LITE_320 = SSDAnchorsConfig(
    sizes=(64.0, 112.0, 160.0, 208.0, 256.0, 304.0, 320.0), ratios=((2.0, 3.0),) * 6, longest=320.0, spacing="image"
)


@configclass
class SSDHeadConfig(DetectingHeadConfig):
    """Softmax classes and boxes at every location, with separate layers per level (Liu et al., SSD, 2016)."""

    type: ClassVar[str] = "ssd"

    anchors: AnchorConfig = setting("reference boxes", default=COCO_300)
    coder: CoderConfig = setting("box regression targets", default=DeltaCoderConfig(stds=(0.1, 0.1, 0.2, 0.2)))
    separable: bool = setting(
        "a depthwise 3x3 convolution, norm, ReLU6 and a 1x1 convolution in place of each 3x3 convolution (SSDLite)",
        default=False,
    )
    norm: NormConfig | None = setting("after the depthwise convolutions of `separable`", default=None)
    assigner: AssignerConfig = setting(
        "assigns anchors to objects",
        default=MaxIoUAssignerConfig(positive=0.5, negative=0.5, low_quality=True, min_positive=0.0, all_ties=False),
    )
    cls_loss: LossConfig = setting(
        "classification, over positive anchors and the hardest negative ones", default=CrossEntropyConfig()
    )
    box_loss: LossConfig = setting("box regression, over positive anchors", default=SmoothL1Config())
    negatives: float = setting("number of hardest negative anchors per positive one, per image", default=3.0, least=0)
    candidates: Literal["level", "class"] = setting(
        "unit of `before_nms`: (anchor, class) pairs per level, or anchors per class (torchvision)",
        default="level",
        conventions={"torchvision": "class"},
    )
    before_nms: int | None = setting(
        "maximum candidates per level or class before NMS (null: all above the score threshold)",
        default=1000,
        least=1,
        conventions={"mmdet1": None, "torchvision": ANY},
    )
    score_threshold: float = setting("keep detections with a score above this", default=0.02, least=0, most=1)
    nms_threshold: float = setting("IoU above which a detection is suppressed", default=0.45, least=0, most=1)
    max_detections: int = setting("maximum detections per image", default=200, least=1)

    def __attrs_post_init__(self) -> None:
        if self.norm is not None and not self.separable:
            raise ConfigError.at("norm", "requires separable: true; plain prediction layers have no norm, so use null")

    def anchor_config(self) -> AnchorConfig:
        return self.anchors

    def check(self, features: FeatureSpec) -> None:
        self.anchors.anchors_per_level(len(features.strides))

    def build(self, features: FeatureSpec, num_classes: int) -> SSDHead:
        from det_plugin_ssd.head import SSDHead

        return SSDHead(self, features, num_classes)
