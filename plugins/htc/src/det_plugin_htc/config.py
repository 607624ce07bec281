"""Configurations of Hybrid Task Cascade: its semantic branch, and the head that runs everything. Imports no torch."""

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

STUFF_AND_THINGS = 183  # logits of the published models; COCO-Stuff's maps hold ids 0..181


@configclass
class SemanticBranchConfig:
    """What every pixel is, learned beside the objects, and handed to their box and mask heads."""

    classes: int = setting(
        "logits; the ids in semantic maps are 0..n-1, and 255 is ignored", default=STUFF_AND_THINGS, least=1, most=255
    )
    num_convs: int = setting("3x3 convolutions on the fused map", default=4, least=0)
    stride: int = setting("of the level that all levels come to", default=8, least=1)
    roi_pool: RoIPoolConfig = setting(
        "regions of its map, which has the stride above", default=RoIAlignConfig(size=14, strides=(8,))
    )
    loss_weight: float = setting("of its cross entropy", default=0.2, least=0)
    fuse_boxes: bool = setting("box heads get its regions", default=True)
    fuse_masks: bool = setting("mask heads get its regions", default=True)
    norm: NormConfig | None = setting("after every convolution but the logits", default=None)
    conv: ConvConfig = setting("its convolutions", default=Conv2dConfig())

    def map_spec(self, features: FeatureSpec) -> FeatureSpec:
        """The map that regions are pooled from: as many channels as the features have, so that both can be added."""
        return FeatureSpec(channels=(features.same_channels("semantic branch"),), strides=(self.stride,))

    def check(self, features: FeatureSpec, boxes: RegionSpec, masks: RegionSpec) -> None:
        """ConfigError unless it can take these features and add its regions to those that the heads get."""
        features.level(self.stride, "semantic branch")
        try:
            own = self.roi_pool.region_spec(self.map_spec(features)).channels
        except ConfigError as error:
            raise ConfigError([p.under("semantic.roi_pool") for p in error.problems]) from None
        for name, fused, regions in (("roi_pool", self.fuse_boxes, boxes), ("mask_roi_pool", self.fuse_masks, masks)):
            if fused and regions.channels != own:
                raise ConfigError.at(
                    name,
                    f"its regions have {regions.channels} channels, and those of the semantic branch, which are added "
                    f"to them, {own}; choose one that keeps the features' channels, or leave out the branch "
                    "(semantic: null)",
                )


@configclass
class HTCHeadConfig(StagedHeadConfig):
    """Hybrid Task Cascade (Chen et al., 2019): box and mask stages that hand on what they know.

    Settings of stages, heads and detections are those of the cascade; there is no C4 form, hence no trunk.
    """

    type: ClassVar[str] = "htc"

    mask_roi_pool: RoIPoolConfig | None = setting(
        "regions for the mask heads; null = those of the box heads", default=RoIAlignConfig(size=14)
    )
    mask_head: MaskHeadConfig | None = setting(
        "one is built for each stage; must show its features (`HiddenMaskHead`), as conv_mask_head does",
        default=ConvMaskHeadConfig(),
    )
    semantic: SemanticBranchConfig | None = setting(
        "the semantic branch; null = HTC without it", default=SemanticBranchConfig()
    )
    interleaved: bool = setting("a stage's masks train on its refined boxes, assigned and sampled anew", default=True)
    information_flow: bool = setting("mask heads get the features of the mask head before", default=True)
    masks_of: Literal["all", "last"] = setting(
        "whose masks are shown: the mean of all stages' (2019), or the last's alone (mmdet 3.x)", default="all"
    )
    score_threshold: float = setting("detections above it are kept", default=0.001, least=0, most=1)

    def __attrs_post_init__(self) -> None:
        if self.mask_head is None:
            raise ConfigError.at("mask_head", "HTC works on masks; give it one, or use type: cascade for boxes alone")
        super().__attrs_post_init__()
        if self.trunk is not None:
            raise ConfigError.at("trunk", "HTC has no C4 form; leave it out, or use type: cascade")

    def semantic_classes(self) -> int:
        return 0 if self.semantic is None else self.semantic.classes

    def check(self, features: FeatureSpec) -> None:
        super().check(features)
        if self.semantic is not None:
            self.semantic.check(features, self.box_regions(features), self.mask_regions(features))

    def build(self, features: FeatureSpec, num_classes: int) -> HTCHead:
        from det_plugin_htc.roi_head import build_htc_head

        return build_htc_head(self, features, num_classes)
