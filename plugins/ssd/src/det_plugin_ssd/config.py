"""Configurations of SSD: its VGG backbone, neck, anchors and head. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from attrs import field, frozen, validators

from det_core.boxes.config import DeltaCoderConfig, MaxIoUAssignerConfig
from det_core.config.base import (
    AnchorConfig,
    AssignerConfig,
    BackboneConfig,
    CoderConfig,
    ConfigError,
    ConvConfig,
    FeatureSpec,
    LossConfig,
    NeckConfig,
    NormConfig,
    doc,
)
from det_core.model.dense_config import FRACTION, DetectingHeadConfig
from det_core.model.layer_config import Conv2dConfig
from det_core.model.loss_config import CrossEntropyConfig, SmoothL1Config

if TYPE_CHECKING:
    from det_plugin_ssd.anchors import SSDAnchors
    from det_plugin_ssd.backbone import VGG
    from det_plugin_ssd.head import SSDHead
    from det_plugin_ssd.neck import SSDNeck

AT_LEAST_1 = validators.ge(1)


@frozen(kw_only=True)
class VGGConfig(BackboneConfig):
    """VGG-16 with its fully connected layers turned into convolutions (Liu et al., SSD, 2016, section 3)."""

    type: ClassVar[str] = "vgg16_ssd"

    channels: int = field(
        default=64, validator=AT_LEAST_1, metadata=doc("of the first stage; others have 2, 4, 8 and 8 times, fc7 16")
    )
    norm: NormConfig | None = field(
        default=None, metadata=doc("after every convolution; the published models have none, and fine-tune")
    )
    pretrained: str | None = field(
        default=None,
        metadata=doc(
            "initial weights: torchvision:NAME, torchvision:NAME@WEIGHTS or a file's path; fc6 and fc7 begin fresh"
        ),
    )

    def feature_spec(self) -> FeatureSpec:
        return FeatureSpec(channels=(8 * self.channels, 16 * self.channels), strides=(8, 16))

    def build(self) -> VGG:
        from det_plugin_ssd.backbone import VGG

        return VGG(self)


@frozen(kw_only=True)
class ExtraLevelConfig:
    """A level that the neck adds: a 1x1 convolution to half the channels, then one of `kernel`."""

    channels: int = field(default=256, validator=validators.ge(2), metadata=doc("of the level"))
    kernel: int = field(default=3, validator=AT_LEAST_1, metadata=doc("side of the second convolution"))
    stride: int = field(default=2, validator=AT_LEAST_1, metadata=doc("of the second convolution"))
    padding: int = field(default=1, validator=validators.ge(0), metadata=doc("of the second convolution"))
    spacing: int = field(
        validator=AT_LEAST_1, metadata=doc("pixels of the input between the level's cells: what its anchors stand on")
    )


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


@frozen(kw_only=True)
class SSDNeckConfig(NeckConfig):
    """The finest map normalised, and further levels behind the coarsest."""

    type: ClassVar[str] = "ssd_neck"

    scale: float = field(
        default=20.0, validator=validators.gt(0), metadata=doc("what the finest map's channels are scaled to at first")
    )
    extra: tuple[ExtraLevelConfig, ...] = field(default=EXTRA_300, metadata=doc("levels behind the inputs, in order"))
    norm: NormConfig | None = field(default=None, metadata=doc("after every convolution"))
    conv: ConvConfig = field(default=Conv2dConfig(), metadata=doc("the further levels' convolutions"))

    def feature_spec(self, inputs: FeatureSpec) -> FeatureSpec:
        return FeatureSpec(
            channels=(*inputs.channels, *(level.channels for level in self.extra)),
            strides=(*inputs.strides, *(level.spacing for level in self.extra)),
        )

    def build(self, inputs: FeatureSpec) -> SSDNeck:
        from det_plugin_ssd.neck import SSDNeck

        return SSDNeck(self, inputs)


@frozen(kw_only=True)
class SSDAnchorsConfig(AnchorConfig):
    """Anchors of two sizes and several shapes around the middle of every cell; sizes are given level by level.

    A level with sizes s and next t has squares of s and sqrt(s t), and for each ratio r a wide and a high one of area
    s^2 (Liu et al., SSD, 2016, section 2.2).
    """

    type: ClassVar[str] = "ssd_anchors"

    sizes: tuple[float, ...] = field(
        validator=[validators.min_len(2), validators.deep_iterable(validators.gt(0))],
        metadata=doc("side in pixels of each level's smaller square, and the size behind the last level"),
    )
    ratios: tuple[tuple[float, ...], ...] = field(
        validator=validators.deep_iterable(validators.deep_iterable(validators.gt(1.0))),
        metadata=doc("of each level: width over height of the wide ones, height over width of the high ones"),
    )
    longest: float | None = field(
        default=None,
        validator=validators.optional(validators.gt(0)),
        metadata=doc("sides are cut to it, as torchvision cuts them to the image's; null = they are not"),
    )

    def __attrs_post_init__(self) -> None:
        if len(self.sizes) != len(self.ratios) + 1:
            raise ConfigError.at(
                "sizes",
                f"{len(self.sizes)} sizes for {len(self.ratios)} levels; give one for each level of `ratios`, and the "
                "one behind the last",
            )

    def per_level(self) -> tuple[int, ...]:
        """How many at every cell of each of its levels."""
        return tuple(2 + 2 * len(ratios) for ratios in self.ratios)

    def anchors_per_cell(self) -> int:
        counts = set(self.per_level())
        if len(counts) > 1:
            raise ConfigError.at(
                "anchors",
                f"{self.type!r} has {sorted(counts)} anchors per cell on different levels, but this head shares its "
                "layers over levels; use type: grid_anchors, or give every level as many ratios",
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


# Of the published models; those for VOC begin larger, since its objects do.
RATIOS_300 = ((2.0,), (2.0, 3.0), (2.0, 3.0), (2.0, 3.0), (2.0,), (2.0,))
RATIOS_512 = ((2.0,), (2.0, 3.0), (2.0, 3.0), (2.0, 3.0), (2.0, 3.0), (2.0,), (2.0,))
COCO_300 = SSDAnchorsConfig(sizes=(21.0, 45.0, 99.0, 153.0, 207.0, 261.0, 315.0), ratios=RATIOS_300)
COCO_512 = SSDAnchorsConfig(sizes=(20.0, 51.0, 133.0, 215.0, 296.0, 378.0, 460.0, 542.0), ratios=RATIOS_512)
VOC_300 = SSDAnchorsConfig(sizes=(30.0, 60.0, 111.0, 162.0, 213.0, 264.0, 315.0), ratios=RATIOS_300)
VOC_512 = SSDAnchorsConfig(sizes=(35.0, 76.0, 153.0, 230.0, 307.0, 384.0, 460.0, 537.0), ratios=RATIOS_512)


@frozen(kw_only=True)
class SSDHeadConfig(DetectingHeadConfig):
    """Softmax classes and boxes at every location, with layers of each level's own (Liu et al., SSD, 2016)."""

    type: ClassVar[str] = "ssd"

    anchors: AnchorConfig = field(default=COCO_300, metadata=doc("reference boxes"))
    coder: CoderConfig = field(
        default=DeltaCoderConfig(stds=(0.1, 0.1, 0.2, 0.2)), metadata=doc("box regression targets")
    )
    assigner: AssignerConfig = field(
        default=MaxIoUAssignerConfig(positive=0.5, negative=0.5, low_quality=True, min_positive=0.0, all_ties=False),
        metadata=doc("which anchors stand for objects"),
    )
    cls_loss: LossConfig = field(
        default=CrossEntropyConfig(), metadata=doc("classification, of positives and the hardest negatives")
    )
    box_loss: LossConfig = field(default=SmoothL1Config(), metadata=doc("box regression, of positive anchors"))
    negatives: float = field(
        default=3.0, validator=validators.ge(0.0), metadata=doc("hardest background anchors per positive, by image")
    )
    candidates: Literal["level", "class"] = field(
        default="level",
        validator=validators.in_(("level", "class")),
        metadata=doc("what `before_nms` counts in: pairs of each level, or anchors of each class (torchvision)"),
    )
    before_nms: int = field(default=1000, validator=AT_LEAST_1, metadata=doc("best of each level or class that stay"))
    score_threshold: float = field(default=0.02, validator=FRACTION, metadata=doc("detections above it are kept"))
    nms_threshold: float = field(default=0.45, validator=FRACTION, metadata=doc("IoU above which a detection goes"))
    max_detections: int = field(default=200, validator=AT_LEAST_1, metadata=doc("best per image"))

    def check(self, features: FeatureSpec) -> None:
        self.anchors.anchors_per_level(len(features.strides))

    def build(self, features: FeatureSpec, num_classes: int) -> SSDHead:
        from det_plugin_ssd.head import SSDHead

        return SSDHead(self, features, num_classes)
