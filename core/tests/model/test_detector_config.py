"""The detector's configuration: what fits together, and what is said where it does not."""

from __future__ import annotations

from typing import ClassVar

import pytest

from det_core.errors import ConfigError
from det_core.model.detector_config import DetectorConfig, PreprocessConfig
from det_core.settings import setting
from det_core.slots import BackboneConfig, DenseHeadConfig, NeckConfig, ProposalHeadConfig, RoIHeadConfig
from det_core.specs import FeatureSpec
from det_core.testing.isolated_plugins import stub_config


@stub_config
class Tower(BackboneConfig):
    type: ClassVar[str] = "tower"

    channels: tuple[int, ...] = setting("", default=(16, 32))

    def feature_spec(self) -> FeatureSpec:
        if not self.channels:
            raise ConfigError.at("channels", "is empty")
        return FeatureSpec(channels=self.channels, strides=[4 * 2**i for i in range(len(self.channels))])


@stub_config
class Same(NeckConfig):
    type: ClassVar[str] = "same"

    def feature_spec(self, inputs: FeatureSpec) -> FeatureSpec:
        if len(inputs.channels) < 2:
            raise ConfigError.at("", "needs two levels")
        return FeatureSpec(channels=(8,) * len(inputs.channels), strides=inputs.strides)


@stub_config
class Dense(DenseHeadConfig):
    type: ClassVar[str] = "dense"

    def check(self, features: FeatureSpec) -> None:
        features.same_channels("dense_head 'dense'")


@stub_config
class Proposer(ProposalHeadConfig):
    type: ClassVar[str] = "proposer"


@stub_config
class Second(RoIHeadConfig):
    type: ClassVar[str] = "second"

    stride: int = setting("", default=8)
    masks: bool = setting("", default=False)
    stuff: int = setting("", default=0)

    def needs_masks(self) -> bool:
        return self.masks

    def semantic_classes(self) -> int:
        return self.stuff

    def check(self, features: FeatureSpec) -> None:
        try:
            features.level(self.stride, "roi_pool 'roi_align'")
        except ConfigError as error:
            raise ConfigError([p.under("roi_pool") for p in error.problems]) from None


def refused(**parts: object) -> str:
    with pytest.raises(ConfigError) as caught:
        DetectorConfig(**{"backbone": Tower(), **parts})  # type: ignore[arg-type]
    return str(caught.value).removeprefix("DetectorConfig").removeprefix(": ").removeprefix(".")


def test_a_detector_needs_a_head():
    assert refused() == "a detector needs a dense_head, a roi_head, or both"
    assert refused(neck=Same()) == "a detector needs a dense_head, a roi_head, or both"


def test_no_roi_head_follows_a_head_that_proposes_nothing():
    assert refused(neck=Same(), dense_head=Dense(), roi_head=Second()) == (
        "dense_head: 'dense' proposes no boxes, so a roi_head cannot follow it; use a proposal head such as type: rpn, "
        "or leave out the roi_head"
    )


def test_a_head_that_cannot_take_the_features_is_named_with_the_remedy():
    assert refused(dense_head=Dense()) == (
        "dense_head: dense_head 'dense' requires the same channel count at all levels, but gets channels [16, 32] at "
        "strides [4, 8]; add a neck that makes them equal (for example type: fpn)"
    )


def test_the_problems_of_a_part_are_placed_under_its_name():
    assert refused(backbone=Tower(channels=()), dense_head=Dense()) == "backbone.channels: is empty"
    assert refused(backbone=Tower(channels=(4,)), neck=Same(), dense_head=Dense()) == "neck: needs two levels"
    assert refused(roi_head=Second(stride=64)) == (
        "roi_head.roi_pool: roi_pool 'roi_align' requires a feature level of stride 64, but the levels have "
        "strides [4, 8]"
    )


@pytest.mark.parametrize(
    "parts",
    [
        {"dense_head": Proposer()},
        {"neck": Same(), "dense_head": Dense()},
        {"roi_head": Second()},
        {"dense_head": Proposer(), "roi_head": Second()},
    ],
)
def test_the_compositions_there_are(parts):
    assert isinstance(DetectorConfig(backbone=Tower(), **parts), DetectorConfig)


def test_the_features_are_the_necks_where_there_is_one():
    with_neck = DetectorConfig(backbone=Tower(), neck=Same(), dense_head=Dense())
    assert with_neck.feature_spec() == FeatureSpec(channels=(8, 8), strides=(4, 8))
    without = DetectorConfig(backbone=Tower(), roi_head=Second())
    assert without.feature_spec() == FeatureSpec(channels=(16, 32), strides=(4, 8))


def test_needs_masks_is_the_roi_heads():
    assert not DetectorConfig(backbone=Tower(), dense_head=Proposer()).needs_masks()
    assert not DetectorConfig(backbone=Tower(), roi_head=Second()).needs_masks()
    assert DetectorConfig(backbone=Tower(), roi_head=Second(masks=True)).needs_masks()


def test_needs_semantic_where_the_roi_head_tells_classes_apart():
    assert not DetectorConfig(backbone=Tower(), dense_head=Proposer()).needs_semantic()
    assert not DetectorConfig(backbone=Tower(), roi_head=Second()).needs_semantic()
    assert DetectorConfig(backbone=Tower(), roi_head=Second(stuff=2)).needs_semantic()


def test_preprocess_defaults_are_imagenets_in_rgb():
    config = PreprocessConfig()
    assert (config.order, config.pad_divisor) == ("rgb", 32)
    assert config.mean == (123.675, 116.28, 103.53)
    assert config.std == (58.395, 57.12, 57.375)


def test_a_colour_order_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"order\S*: found .+, allowed: "):
        PreprocessConfig(order="BGR")  # type: ignore[arg-type]


def test_a_padding_to_a_multiple_of_0_is_refused():
    with pytest.raises(ValueError, match=r"pad_divisor\S*: found .+, expected .*at least 1"):
        PreprocessConfig(pad_divisor=0)


def test_a_feature_spec_has_a_stride_for_every_level():
    with pytest.raises(ValueError, match="2 channel counts but 1 strides"):
        FeatureSpec(channels=(1, 2), strides=(4,))
