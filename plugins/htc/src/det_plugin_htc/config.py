"""Configurations of Hybrid Task Cascade: the semantic branch and the RoI head. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from det_core.errors import ConfigError
from det_core.model.layer_config import Conv2dConfig, RoIAlignConfig
from det_core.settings import configclass, setting
from det_core.slots import ConvConfig, MaskHeadConfig, NormConfig, RoIPoolConfig
from det_core.specs import FeatureSpec, RegionSpec
from det_plugin_cascade.config import StagedHeadConfig
from det_plugin_rcnn.config import ConvMaskHeadConfig

if TYPE_CHECKING:
    from det_plugin_htc.roi_head import HTCHead

STUFF_AND_THINGS = 183  # logits of the published models; COCO-Stuff's maps contain ids 0..181


@configclass
class SemanticBranchConfig:
    """A branch for semantic segmentation, whose features are added to those of the box and mask heads."""

    classes: int = setting(
        "number of logits; semantic maps contain ids 0..n-1, and 255 is ignored",
        default=STUFF_AND_THINGS,
        least=1,
        most=255,
    )
    num_convs: int = setting("number of 3x3 convolutions on the fused map", default=4, least=0, most=64)
    stride: int = setting("stride of the level that all levels are resized to", default=8, least=1)
    roi_pool: RoIPoolConfig = setting(
        "pooling from the branch's map; its stride must be that of the map",
        default=RoIAlignConfig(size=14, strides=(8,)),
    )
    loss_weight: float = setting("weight of the cross entropy", default=0.2, least=0)
    loss_over: Literal["all", "labelled"] = setting(
        "pixels that the loss is averaged over; all: ignored ones count as 0; labelled: without them (mmdet 1.x)",
        default="all",
        conventions={"mmdet1": "labelled"},
    )
    fuse_boxes: bool = setting("add the branch's regions to those of the box heads", default=True)
    fuse_masks: bool = setting("add the branch's regions to those of the mask heads", default=True)
    norm: NormConfig | None = setting("after every convolution except the logits", default=None)
    conv: ConvConfig = setting("all convolutions except the logits", default=Conv2dConfig())

    def map_spec(self, features: FeatureSpec) -> FeatureSpec:
        """The map that regions are pooled from. It has the features' channels, so that regions of both can be added."""
        return FeatureSpec(channels=(features.same_channels("semantic branch"),), strides=(self.stride,))

    def check(self, features: FeatureSpec, boxes: RegionSpec, masks: RegionSpec) -> None:
        """Raise ConfigError if the branch does not fit the features, or its regions those of the heads."""
        features.level(self.stride, "semantic branch")
        try:
            own = self.roi_pool.region_spec(self.map_spec(features)).channels
        except ConfigError as error:
            raise ConfigError([p.under("semantic.roi_pool") for p in error.problems]) from None
        for name, fused, regions in (("roi_pool", self.fuse_boxes, boxes), ("mask_roi_pool", self.fuse_masks, masks)):
            if fused and regions.channels != own:
                raise ConfigError.at(
                    name,
                    f"its regions have {regions.channels} channels, but those of the semantic branch, which are added "
                    f"to them, have {own}; use a pooling layer that keeps the features' channels, or set "
                    "semantic: null",
                )


@configclass
class HTCHeadConfig(StagedHeadConfig):
    """Hybrid Task Cascade (Chen et al., 2019): a cascade of interleaved box and mask stages.

    Stages, heads and detections have the settings of `cascade`. There is no C4 form, hence no trunk.
    """

    type: ClassVar[str] = "htc"

    mask_roi_pool: RoIPoolConfig | None = setting(
        "pooling for the mask heads (null: as `roi_pool`)", default=RoIAlignConfig(size=14)
    )
    mask_head: MaskHeadConfig | None = setting(
        "one head is built per stage; must be a `HiddenMaskHead`, such as conv_mask_head",
        default=ConvMaskHeadConfig(),
    )
    semantic: SemanticBranchConfig | None = setting("the semantic branch (null: none)", default=SemanticBranchConfig())
    interleaved: bool = setting(
        "train a stage's mask head on its refined boxes, which are assigned and sampled again", default=True
    )
    information_flow: bool = setting("feed the features of each mask head to the next one", default=True)
    masks_of: Literal["all", "last"] = setting(
        "masks of detections: mean of all stages (2019), or the last stage only (mmdet 3.x)", default="all"
    )
    score_threshold: float = setting("keep detections with a score above this", default=0.001, least=0, most=1)

    def __attrs_post_init__(self) -> None:
        if self.mask_head is None:
            raise ConfigError.at("mask_head", "HTC requires a mask head; use type: cascade for boxes only")
        super().__attrs_post_init__()
        if self.trunk is not None:
            raise ConfigError.at("trunk", "HTC has no C4 form; leave trunk out, or use type: cascade")

    def semantic_classes(self) -> int:
        return 0 if self.semantic is None else self.semantic.classes

    def check(self, features: FeatureSpec) -> None:
        super().check(features)
        if self.semantic is not None:
            self.semantic.check(features, self.box_regions(features), self.mask_regions(features))

    def build(self, features: FeatureSpec, num_classes: int) -> HTCHead:
        from det_plugin_htc.roi_head import build_htc_head

        return build_htc_head(self, features, num_classes)
