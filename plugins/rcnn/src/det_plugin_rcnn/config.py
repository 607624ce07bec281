"""Configurations of the R-CNN family's heads. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from attrs import field, frozen, validators

from det_core.boxes.config import DeltaCoderConfig, GridAnchorsConfig, MaxIoUAssignerConfig, RandomSamplerConfig
from det_core.config.base import (
    AnchorConfig,
    AssignerConfig,
    BoxHeadConfig,
    CoderConfig,
    ConfigError,
    ConvConfig,
    FeatureSpec,
    LossConfig,
    MaskHeadConfig,
    NormConfig,
    Problem,
    ProposalHeadConfig,
    RegionSpec,
    RoIHeadConfig,
    RoIPoolConfig,
    SamplerConfig,
    TrunkConfig,
    doc,
)
from det_core.model.layer_config import Conv2dConfig, RoIAlignConfig, SoftNMSConfig
from det_core.model.loss_config import BinaryCrossEntropyConfig, CrossEntropyConfig, L1Config

if TYPE_CHECKING:
    from det_plugin_rcnn.box_head import FCBoxHead
    from det_plugin_rcnn.box_stage import BoxStage
    from det_plugin_rcnn.mask_head import ConvMaskHead
    from det_plugin_rcnn.roi_head import RCNNHead
    from det_plugin_rcnn.rpn import RPN

FRACTION = [validators.ge(0.0), validators.le(1.0)]
AT_LEAST_0 = validators.ge(0)
AT_LEAST_1 = validators.ge(1)


@frozen(kw_only=True)
class RPNConfig(ProposalHeadConfig):
    """Region proposal network (Ren et al., 2015)."""

    type: ClassVar[str] = "rpn"

    channels: int = field(default=256, validator=AT_LEAST_1, metadata=doc("of the shared 3x3 convolution"))
    anchors: AnchorConfig = field(default=GridAnchorsConfig(), metadata=doc("reference boxes"))
    coder: CoderConfig = field(default=DeltaCoderConfig(), metadata=doc("box regression targets"))
    assigner: AssignerConfig = field(
        default=MaxIoUAssignerConfig(positive=0.7, negative=0.3, low_quality=True, min_positive=0.3),
        metadata=doc("which anchors stand for objects"),
    )
    sampler: SamplerConfig = field(default=RandomSamplerConfig(), metadata=doc("which anchors the loss looks at"))
    cls_loss: LossConfig = field(default=BinaryCrossEntropyConfig(), metadata=doc("object or not"))
    box_loss: LossConfig = field(default=L1Config(), metadata=doc("box regression"))
    allowed_border: int = field(
        default=-1,
        validator=validators.ge(-1),
        metadata=doc("anchors further than this many pixels outside the image do not train; -1 = all do"),
    )
    nms_threshold: float = field(default=0.7, validator=FRACTION, metadata=doc("IoU above which a proposal goes"))
    min_size: float = field(
        default=0.0,
        validator=validators.ge(0.0),
        metadata=doc("a proposal whose width or height is not above this goes"),
    )
    conv: ConvConfig = field(default=Conv2dConfig(), metadata=doc("the shared convolution"))

    def check(self, features: FeatureSpec) -> None:
        features.same_channels(f"dense_head {self.type!r}")
        self.anchors.anchors_per_cell()
        self.anchors.anchors_per_level(len(features.strides))

    def build(self, features: FeatureSpec, num_classes: int) -> RPN:
        from det_plugin_rcnn.rpn import RPN

        return RPN(self, features)


@frozen(kw_only=True)
class FCBoxHeadConfig(BoxHeadConfig):
    """Convolutions, then fully connected layers, then class scores and box deltas."""

    type: ClassVar[str] = "fc_box_head"

    num_convs: int = field(default=0, validator=AT_LEAST_0, metadata=doc("3x3 convolutions in front"))
    conv_channels: int = field(default=256, validator=AT_LEAST_1, metadata=doc("of these"))
    num_fcs: int = field(default=2, validator=AT_LEAST_0, metadata=doc("shared fully connected layers"))
    fc_channels: int = field(default=1024, validator=AT_LEAST_1, metadata=doc("of these"))
    class_agnostic: bool = field(default=False, metadata=doc("one box for all classes"))
    norm: NormConfig | None = field(default=None, metadata=doc("after every convolution"))
    conv: ConvConfig = field(default=Conv2dConfig(), metadata=doc("the convolutions"))

    def build(self, inputs: RegionSpec, num_classes: int) -> FCBoxHead:
        from det_plugin_rcnn.box_head import FCBoxHead

        return FCBoxHead(self, inputs, num_classes)


@frozen(kw_only=True)
class ConvMaskHeadConfig(MaskHeadConfig):
    """Convolutions, an upsampling by two, then one mask per class (He et al., Mask R-CNN, 2017)."""

    type: ClassVar[str] = "conv_mask_head"

    num_convs: int = field(default=4, validator=AT_LEAST_0, metadata=doc("3x3 convolutions in front"))
    channels: int = field(default=256, validator=AT_LEAST_1, metadata=doc("of these and of the upsampling"))
    class_agnostic: bool = field(default=False, metadata=doc("one mask for all classes"))
    norm: NormConfig | None = field(default=None, metadata=doc("after every 3x3 convolution"))
    conv: ConvConfig = field(default=Conv2dConfig(), metadata=doc("the 3x3 convolutions"))

    def build(self, inputs: RegionSpec, num_classes: int) -> ConvMaskHead:
        from det_plugin_rcnn.mask_head import ConvMaskHead

        return ConvMaskHead(self, inputs, num_classes)


@frozen(kw_only=True)
class BoxStageConfig:
    """How the boxes of a second stage learn: which regions train, as what, and by which losses."""

    assigner: AssignerConfig = field(default=MaxIoUAssignerConfig(), metadata=doc("proposals to objects"))
    sampler: SamplerConfig = field(
        default=RandomSamplerConfig(count=512, positive_fraction=0.25), metadata=doc("which proposals train")
    )
    add_ground_truth: bool = field(default=True, metadata=doc("objects' own boxes join the proposals in training"))
    coder: CoderConfig = field(
        default=DeltaCoderConfig(stds=(0.1, 0.1, 0.2, 0.2)), metadata=doc("box regression targets")
    )
    cls_loss: LossConfig = field(default=CrossEntropyConfig(), metadata=doc("classification"))
    box_loss: LossConfig = field(default=L1Config(), metadata=doc("box regression"))

    def build(self, num_classes: int, *, class_agnostic: bool) -> BoxStage:
        from det_plugin_rcnn.box_stage import BoxStage

        return BoxStage(self, num_classes, class_agnostic=class_agnostic)


@frozen(kw_only=True)
class RegionHeadConfig(RoIHeadConfig):
    """What heads that pool, classify, regress and segment regions have in common: their parts and their detections."""

    roi_pool: RoIPoolConfig = field(default=RoIAlignConfig(), metadata=doc("regions for the box head"))
    trunk: TrunkConfig | None = field(default=None, metadata=doc("a stage shared by the box and mask branch"))
    box_head: BoxHeadConfig = field(default=FCBoxHeadConfig(), metadata=doc("scores and deltas"))
    mask_roi_pool: RoIPoolConfig | None = field(
        default=None, metadata=doc("regions for the mask head; null = those of the box branch")
    )
    mask_head: MaskHeadConfig | None = field(default=None, metadata=doc("masks, where the model has them"))
    mask_loss: LossConfig = field(default=BinaryCrossEntropyConfig(), metadata=doc("masks, per pixel"))
    score_threshold: float = field(default=0.05, validator=FRACTION, metadata=doc("detections above it are kept"))
    nms_threshold: float = field(default=0.5, validator=FRACTION, metadata=doc("IoU above which a detection goes"))
    soft_nms: SoftNMSConfig | None = field(default=None, metadata=doc("decay overlapping detections instead"))
    class_agnostic_nms: bool = field(
        default=False, metadata=doc("detections of different classes suppress each other, too")
    )
    max_detections: int = field(default=100, validator=AT_LEAST_1, metadata=doc("best per image"))
    min_size: float = field(
        default=0.0,
        validator=validators.ge(0.0),
        metadata=doc("a detection narrower or lower than this many pixels of the network's input goes"),
    )
    nms_in: Literal["original", "network"] = field(
        default="original",
        validator=validators.in_(("original", "network")),
        metadata=doc("in whose pixels detections are compared: after or before boxes are scaled back"),
    )
    mask_threshold: float = field(default=0.5, validator=FRACTION, metadata=doc("probability of a mask's pixels"))
    mask_paste: Literal["sampled", "resized"] = field(
        default="sampled",
        validator=validators.in_(("sampled", "resized")),
        metadata=doc("into the image: sampled at its pixel centres, or resized to whole pixels (torchvision)"),
    )

    def __attrs_post_init__(self) -> None:
        if self.mask_roi_pool is not None and self.mask_head is None:
            raise ConfigError([Problem("mask_roi_pool", "there is no mask_head for it; leave it out, or add one")])

    def needs_masks(self) -> bool:
        return self.mask_head is not None

    def box_regions(self, features: FeatureSpec) -> RegionSpec:
        """What the box head gets."""
        regions = self.roi_pool.region_spec(features)
        return regions if self.trunk is None else self.trunk.region_spec(regions)

    def mask_regions(self, features: FeatureSpec) -> RegionSpec:
        """What the mask head gets: its own pooling, or the box branch's regions."""
        if self.mask_roi_pool is None:
            return self.box_regions(features)
        return self.mask_roi_pool.region_spec(features)

    def check(self, features: FeatureSpec) -> None:
        self.box_regions(features)
        if self.mask_head is not None:
            self.mask_regions(features)


@frozen(kw_only=True)
class RCNNHeadConfig(RegionHeadConfig):
    """The second stage of Faster and Mask R-CNN: pool, classify, regress, and segment if there is a mask head."""

    type: ClassVar[str] = "rcnn"

    assigner: AssignerConfig = field(default=MaxIoUAssignerConfig(), metadata=doc("proposals to objects"))
    sampler: SamplerConfig = field(
        default=RandomSamplerConfig(count=512, positive_fraction=0.25), metadata=doc("which proposals train")
    )
    add_ground_truth: bool = field(default=True, metadata=doc("objects' own boxes join the proposals in training"))
    coder: CoderConfig = field(
        default=DeltaCoderConfig(stds=(0.1, 0.1, 0.2, 0.2)), metadata=doc("box regression targets")
    )
    cls_loss: LossConfig = field(default=CrossEntropyConfig(), metadata=doc("classification"))
    box_loss: LossConfig = field(default=L1Config(), metadata=doc("box regression"))

    def box_stage(self) -> BoxStageConfig:
        """How its boxes learn."""
        return BoxStageConfig(
            assigner=self.assigner,
            sampler=self.sampler,
            add_ground_truth=self.add_ground_truth,
            coder=self.coder,
            cls_loss=self.cls_loss,
            box_loss=self.box_loss,
        )

    def build(self, features: FeatureSpec, num_classes: int) -> RCNNHead:
        from det_plugin_rcnn.roi_head import build_rcnn_head

        return build_rcnn_head(self, features, num_classes)
