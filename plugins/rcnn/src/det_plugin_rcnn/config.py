"""Configurations of RPN and of the heads of Faster and Mask R-CNN. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from det_core.boxes.box_config import DeltaCoderConfig, GridAnchorsConfig, MaxIoUAssignerConfig, RandomSamplerConfig
from det_core.conventions import ANY, of_detectron
from det_core.errors import ConfigError, Problem
from det_core.model.detection_config import DetectionSettings
from det_core.model.layer_config import Conv2dConfig, RoIAlignConfig
from det_core.model.loss_config import BinaryCrossEntropyConfig, CrossEntropyConfig, L1Config
from det_core.settings import configclass, setting
from det_core.slots import (
    AnchorConfig,
    AssignerConfig,
    BoxHeadConfig,
    CoderConfig,
    ConvConfig,
    LossConfig,
    MaskHeadConfig,
    NormConfig,
    ProposalHeadConfig,
    RoIHeadConfig,
    RoIPoolConfig,
    SamplerConfig,
    TrunkConfig,
)
from det_core.specs import FeatureSpec, RegionSpec

if TYPE_CHECKING:
    from det_plugin_rcnn.box_head import FCBoxHead
    from det_plugin_rcnn.mask_head import ConvMaskHead
    from det_plugin_rcnn.roi_head import RCNNHead
    from det_plugin_rcnn.rpn import RPN


@configclass
class RegionProposalConfig(ProposalHeadConfig):
    """Settings that RPN and GA-RPN share."""

    channels: int = setting("output channels of every shared 3x3 convolution", default=256, least=1)
    coder: CoderConfig = setting("box regression targets", default=DeltaCoderConfig())
    assigner: AssignerConfig = setting(
        "assigns anchors to objects",
        default=MaxIoUAssignerConfig(positive=0.7, negative=0.3, low_quality=True, min_positive=0.3),
    )
    sampler: SamplerConfig = setting("selects the anchors that the losses use", default=RandomSamplerConfig())
    cls_loss: LossConfig = setting("object or background", default=BinaryCrossEntropyConfig())
    box_loss: LossConfig = setting("box regression", default=L1Config())
    loss_anchors: int | None = setting(
        "anchors of an image by whose number the losses are divided (null: the number sampled; detectron2: the number "
        "to sample, even if there are fewer)",
        default=None,
        least=1,
        conventions={"detectron2": ANY},  # the sampler's count
    )
    nms_threshold: float = setting("IoU above which a proposal is suppressed", default=0.7, least=0, most=1)
    min_size: float = setting(
        "discard proposals with a side of this many pixels or less (-1: keep all)",
        default=0.0,
        least=-1,
        conventions={"mmdet1": -1.0, "torchvision": 0.001, **of_detectron(-1.0)},
    )
    score_threshold: float = setting(
        "discard proposals with a score below this (torchvision's models for CPUs: 0.05)", default=0.0, least=0, most=1
    )
    conv: ConvConfig = setting("the shared convolutions", default=Conv2dConfig())


@configclass
class RPNConfig(RegionProposalConfig):
    """Region proposal network (Ren et al., 2015)."""

    type: ClassVar[str] = "rpn"

    num_convs: int = setting("number of shared 3x3 convolutions", default=1, least=1, most=64)
    anchors: AnchorConfig = setting("reference boxes", default=GridAnchorsConfig())
    allowed_border: int = setting(
        "anchors that extend more than this many pixels beyond the image are ignored in training (-1: none are)",
        default=-1,
        least=-1,
    )
    touching: bool = setting(
        "with allowed_border, an anchor may end exactly at the limit on the right and below (mmdet 0.x and 1.x, "
        "Detectron, maskrcnn-benchmark)",
        default=False,
        conventions={"mmdet1": True, **of_detectron(True)},
    )

    def anchor_config(self) -> AnchorConfig:
        return self.anchors

    def check(self, features: FeatureSpec) -> None:
        features.same_channels(f"dense_head {self.type!r}")
        self.anchors.anchors_per_cell()
        self.anchors.anchors_per_level(len(features.strides))

    def build(self, features: FeatureSpec, num_classes: int) -> RPN:
        from det_plugin_rcnn.rpn import RPN

        return RPN(self, features)


@configclass
class FCBoxHeadConfig(BoxHeadConfig):
    """Convolutions, fully connected layers, then class scores and box deltas."""

    type: ClassVar[str] = "fc_box_head"

    num_convs: int = setting("number of 3x3 convolutions", default=0, least=0, most=64)
    conv_channels: int = setting("channels of the convolutions", default=256, least=1)
    num_fcs: int = setting("number of shared fully connected layers", default=2, least=0, most=64)
    fc_channels: int = setting("channels of the fully connected layers", default=1024, least=1)
    class_agnostic: bool = setting("predict one box for all classes", default=False)
    norm: NormConfig | None = setting("after every convolution", default=None)
    conv: ConvConfig = setting("the convolutions", default=Conv2dConfig())

    def build(self, inputs: RegionSpec, num_classes: int) -> FCBoxHead:
        from det_plugin_rcnn.box_head import FCBoxHead

        return FCBoxHead(self, inputs, num_classes)


@configclass
class ConvMaskHeadConfig(MaskHeadConfig):
    """Convolutions, upsampling by two, then one mask per class (He et al., Mask R-CNN, 2017)."""

    type: ClassVar[str] = "conv_mask_head"

    num_convs: int = setting("number of 3x3 convolutions", default=4, least=0, most=64)
    channels: int = setting("channels of the convolutions and of the upsampling layer", default=256, least=1)
    class_agnostic: bool = setting("predict one mask for all classes", default=False)
    norm: NormConfig | None = setting("after every 3x3 convolution", default=None)
    conv: ConvConfig = setting("the 3x3 convolutions", default=Conv2dConfig())

    def build(self, inputs: RegionSpec, num_classes: int) -> ConvMaskHead:
        from det_plugin_rcnn.mask_head import ConvMaskHead

        return ConvMaskHead(self, inputs, num_classes)


@configclass
class BoxStageConfig:
    """Settings of one box stage: assignment, sampling, box coding and losses."""

    assigner: AssignerConfig = setting("assigns proposals to objects", default=MaxIoUAssignerConfig())
    sampler: SamplerConfig = setting(
        "selects the proposals for the losses", default=RandomSamplerConfig(count=512, positive_fraction=0.25)
    )
    add_ground_truth: bool = setting("add ground-truth boxes to the proposals in training", default=True)
    coder: CoderConfig = setting("box regression targets", default=DeltaCoderConfig(stds=(0.1, 0.1, 0.2, 0.2)))
    cls_loss: LossConfig = setting("classification", default=CrossEntropyConfig())
    box_loss: LossConfig = setting("box regression", default=L1Config())


@configclass
class RegionHeadConfig(RoIHeadConfig, DetectionSettings):
    """Settings that all heads with pooling, box heads and mask heads share: their parts, and those of detections."""

    roi_pool: RoIPoolConfig = setting("pooling for the box head", default=RoIAlignConfig())
    trunk: TrunkConfig | None = setting("a stage that the box and mask branches share", default=None)
    box_head: BoxHeadConfig = setting("class scores and box deltas", default=FCBoxHeadConfig())
    mask_roi_pool: RoIPoolConfig | None = setting(
        "pooling for the mask head (null: use the box branch's regions)", default=None
    )
    mask_head: MaskHeadConfig | None = setting("masks (null: none)", default=None)
    mask_loss: LossConfig = setting("mask loss, per pixel", default=BinaryCrossEntropyConfig())
    min_size: float = setting(
        "discard boxes with a side below this many pixels of the network's input", default=0.0, least=0
    )
    mask_threshold: float = setting("probability threshold of mask pixels", default=0.5, least=0, most=1)
    mask_paste: Literal["sampled", "resized", "padded", "quantised"] = setting(
        "paste masks by sampling at pixel centres; by resizing to whole pixels with a border of zeros (resized: "
        "torchvision; padded: up to the box's last pixel, as Detectron and maskrcnn-benchmark do); or to the box's "
        "whole pixels (quantised: mmdet 0.x and 1.x)",
        default="sampled",
        conventions={
            "mmdet1": "quantised",
            "torchvision": "resized",
            **of_detectron("padded"),
        },
    )
    mask_targets: Literal["sampled", "quantised"] = setting(
        "targets of the mask loss: the object's mask sampled in the region, or the region's whole pixels resized "
        "(mmdet 0.x and 1.x)",
        default="sampled",
        conventions={"mmdet1": "quantised"},
    )

    def __attrs_post_init__(self) -> None:
        if self.mask_roi_pool is not None and self.mask_head is None:
            raise ConfigError(
                [Problem("mask_roi_pool", "requires a mask_head, which is null; leave it out, or set mask_head")]
            )

    def needs_masks(self) -> bool:
        return self.mask_head is not None

    def box_regions(self, features: FeatureSpec) -> RegionSpec:
        """The box head's input."""
        regions = self.roi_pool.region_spec(features)
        return regions if self.trunk is None else self.trunk.region_spec(regions)

    def mask_regions(self, features: FeatureSpec) -> RegionSpec:
        """The mask head's input: its own pooling, or the box branch's regions."""
        if self.mask_roi_pool is None:
            return self.box_regions(features)
        return self.mask_roi_pool.region_spec(features)

    def check(self, features: FeatureSpec) -> None:
        self.box_regions(features)
        if self.mask_head is not None:
            self.mask_regions(features)


@configclass
class RCNNHeadConfig(RegionHeadConfig, BoxStageConfig):
    """The second stage of Faster R-CNN, and of Mask R-CNN if it has a mask head."""

    type: ClassVar[str] = "rcnn"

    decode_in: Literal["network", "original"] = setting(
        "decode boxes in pixels of the network's input, or of the original image, where pixels of inclusive boxes have "
        "another size (Detectron)",
        default="network",
        conventions={"detectron": "original"},
    )

    def build(self, features: FeatureSpec, num_classes: int) -> RCNNHead:
        from det_plugin_rcnn.roi_head import build_rcnn_head

        return build_rcnn_head(self, features, num_classes)
