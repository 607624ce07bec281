"""The configuration: the published settings, and what is refused."""

from __future__ import annotations

from typing import ClassVar

import pytest
from attrs import evolve
from torch import Tensor, nn

from det_core.config.convert import structure
from det_core.config.plain import unstructure
from det_core.contracts import MaskHead
from det_core.errors import ConfigError
from det_core.load import load_recipe
from det_core.model.layer_config import RoIAlignConfig
from det_core.slots import MaskHeadConfig, RoIPoolConfig
from det_core.specs import FeatureSpec, RegionSpec
from det_core.testing.isolated_plugins import stub_config
from det_plugin_cascade.config import THREE_STAGES, CascadeHeadConfig
from det_plugin_htc.config import HTCHeadConfig, SemanticBranchConfig
from det_plugin_rcnn.config import ConvMaskHeadConfig, FCBoxHeadConfig
from det_plugin_resnet.config import ResNetStageConfig

PYRAMID = FeatureSpec(channels=(256,) * 5, strides=(4, 8, 16, 32, 64))


def test_by_default_it_is_the_published_head():
    config = HTCHeadConfig()
    assert config.stages == THREE_STAGES
    assert config.box_head == FCBoxHeadConfig(num_fcs=2, fc_channels=1024, class_agnostic=True)
    assert config.mask_head == ConvMaskHeadConfig(num_convs=4, channels=256)
    assert config.mask_roi_pool == RoIAlignConfig(size=14)
    assert config.semantic == SemanticBranchConfig()
    assert (config.interleaved, config.information_flow, config.masks_of) == (True, True, "all")
    assert (config.score_threshold, config.nms_threshold, config.max_detections) == (0.001, 0.5, 100)
    config.check(PYRAMID)


def test_it_has_a_cascades_stages_and_is_none():
    assert not issubclass(HTCHeadConfig, CascadeHeadConfig)


def test_what_training_needs():
    assert HTCHeadConfig().needs_masks()
    assert HTCHeadConfig().semantic_classes() == 183
    without = HTCHeadConfig(semantic=None)
    assert (without.semantic_classes(), without.needs_semantic()) == (0, False)


def test_what_the_heads_see(tiny):
    assert tiny.htc.box_regions(tiny.levels) == RegionSpec(channels=16, size=(7, 7))
    assert tiny.htc.mask_regions(tiny.levels) == RegionSpec(channels=16, size=(14, 14))
    assert evolve(tiny.htc, mask_roi_pool=None).mask_regions(tiny.levels) == RegionSpec(channels=16, size=(7, 7))


def test_through_plain_data_and_back():
    config = HTCHeadConfig(semantic=SemanticBranchConfig(classes=7), masks_of="last", stages=THREE_STAGES[:2])
    assert structure(unstructure(config), HTCHeadConfig) == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"mask_head": None},
            "mask_head: HTC requires a mask head; use type: cascade for boxes only",
        ),
        (
            {"trunk": ResNetStageConfig(depth=18)},
            "trunk: HTC has no C4 form; leave trunk out, or use type: cascade",
        ),
        (
            {"stages": ()},
            "stages: a cascade requires at least one stage; leave `stages` out for the three stages of Cascade R-CNN",
        ),
    ],
)
def test_heads_that_are_no_htc_are_refused(settings, message):
    with pytest.raises(ConfigError) as caught:
        HTCHeadConfig(**settings)
    assert str(caught.value) == f"HTCHeadConfig.{message}"


@pytest.mark.parametrize(
    ("semantic", "message"),
    [
        (
            SemanticBranchConfig(stride=12, roi_pool=RoIAlignConfig(size=14, strides=(12,))),
            "semantic branch requires a feature level of stride 12, but",
        ),
        (
            SemanticBranchConfig(stride=16),
            "semantic.roi_pool: roi_pool 'roi_align' requires a feature level of stride 8, but",
        ),
    ],
)
def test_a_branch_that_does_not_fit_is_refused(semantic, message):
    with pytest.raises(ConfigError) as caught:
        HTCHeadConfig(semantic=semantic).check(PYRAMID)
    assert message in str(caught.value)


@stub_config
class HalfConfig(RoIPoolConfig):
    type: ClassVar[str] = "half"

    def region_spec(self, inputs: FeatureSpec) -> RegionSpec:
        return RegionSpec(channels=inputs.channels[0] // 2, size=(7, 7))


@pytest.mark.parametrize(("name", "fuse"), [("roi_pool", "fuse_boxes"), ("mask_roi_pool", "fuse_masks")])
def test_regions_that_cannot_be_added_are_refused(name, fuse):
    config = HTCHeadConfig(**{name: HalfConfig()})
    with pytest.raises(ConfigError) as caught:
        config.check(PYRAMID)
    assert str(caught.value) == (
        f"{name}: its regions have 128 channels, but those of the semantic branch, which are added to them, have 256; "
        "use a pooling layer that keeps the features' channels, or set semantic: null"
    )
    evolve(config, semantic=None).check(PYRAMID)
    evolve(config, semantic=SemanticBranchConfig(**{fuse: False})).check(PYRAMID)


def test_features_of_different_widths_are_refused():
    with pytest.raises(ConfigError, match="semantic branch"):
        HTCHeadConfig(roi_pool=RoIAlignConfig(strides=(4,)), mask_roi_pool=RoIAlignConfig(size=14, strides=(4,))).check(
            FeatureSpec(channels=(256, 128), strides=(4, 8))
        )


@pytest.mark.parametrize(
    "settings", [{"classes": 0}, {"classes": 256}, {"stride": 0}, {"num_convs": -1}, {"loss_weight": -0.1}]
)
def test_numbers_out_of_range_are_refused(settings):
    (name,) = settings
    with pytest.raises(ValueError, match=f"{name}: found"):
        SemanticBranchConfig(**settings)


class Closed(MaskHead):
    """A mask head that keeps its features to itself."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes, self.size = num_classes, (14, 14)
        self.logits = nn.Conv2d(16, num_classes, 1)

    def forward(self, regions: Tensor) -> Tensor:
        return self.logits(regions)


@stub_config
class ClosedConfig(MaskHeadConfig):
    type: ClassVar[str] = "closed"

    def build(self, inputs: RegionSpec, num_classes: int) -> Closed:
        return Closed(num_classes)


def test_a_mask_head_that_does_not_show_its_features_is_refused(tiny):
    with pytest.raises(ConfigError) as caught:
        evolve(tiny.htc, mask_head=ClosedConfig()).build(tiny.levels, 3)
    assert str(caught.value) == (
        "mask_head: 'closed' does not expose its features, which the next stage's mask head requires; make it a "
        "HiddenMaskHead, or use conv_mask_head"
    )


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("detector.roi_head.mask_head=null", "detector.roi_head.mask_head: HTC requires a mask head"),
        ("detector.roi_head.trunk={type: resnet_stage, depth: 18}", "detector.roi_head.trunk: HTC has no C4 form"),
        ("detector.roi_head.semantic.stride=64", r"semantic.roi_pool: roi_pool .* of stride 8, .*\[64\]"),
        ("detector.roi_head.semantic.clases=9", "semantic.clases: unknown key; did you mean .classes."),
        ("detector.roi_head.semantic.classes=300", "detector.roi_head.semantic.classes: .* 255"),
        ("detector.roi_head.masks_of=first", "detector.roi_head.masks_of: .*all.*last"),
    ],
)
def test_mistakes_on_the_command_line_say_where(setting, message):
    with pytest.raises(ConfigError, match=message):
        load_recipe("htc/r50-fpn-1x", [setting])


def test_the_branch_goes_with_one_word():
    recipe = load_recipe("htc/r50-fpn-1x", ["detector.roi_head.semantic=null"])
    assert recipe.detector.roi_head == load_recipe("htc-without-semantic/r50-fpn-1x").detector.roi_head
    assert not recipe.detector.needs_semantic()
