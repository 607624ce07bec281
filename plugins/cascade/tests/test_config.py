"""The configuration: the three stages of the paper, and what is refused."""

from __future__ import annotations

import attrs
import pytest

from det_core.boxes.box_config import DeltaCoderConfig, MaxIoUAssignerConfig, RandomSamplerConfig
from det_core.config.convert import structure
from det_core.config.plain import unstructure
from det_core.errors import ConfigError
from det_core.load import load_recipe
from det_core.model.layer_config import RoIAlignConfig
from det_core.model.loss_config import CrossEntropyConfig, SmoothL1Config
from det_core.specs import FeatureSpec, RegionSpec
from det_plugin_cascade.config import CascadeHeadConfig, CascadeStageConfig
from det_plugin_rcnn.config import ConvMaskHeadConfig, FCBoxHeadConfig


def test_by_default_there_are_the_papers_three_stages():
    config = CascadeHeadConfig()
    expected = ((0.5, 0.1, 0.2, 1.0), (0.6, 0.05, 0.1, 0.5), (0.7, 0.033, 0.067, 0.25))
    assert len(config.stages) == 3
    for stage, (iou, centre, size, weight) in zip(config.stages, expected, strict=True):
        assert stage == CascadeStageConfig(
            assigner=MaxIoUAssignerConfig(positive=iou, negative=iou, low_quality=False, min_positive=iou),
            sampler=RandomSamplerConfig(count=512, positive_fraction=0.25),
            add_ground_truth=True,
            coder=DeltaCoderConfig(stds=(centre, centre, size, size)),
            cls_loss=CrossEntropyConfig(weight=1.0),
            box_loss=SmoothL1Config(beta=1.0, weight=1.0),
            loss_weight=weight,
        )
    assert config.box_head == FCBoxHeadConfig(num_fcs=2, fc_channels=1024, class_agnostic=True)
    assert (config.score_threshold, config.nms_threshold, config.max_detections) == (0.05, 0.5, 100)


def test_a_cascade_without_stages_is_refused():
    with pytest.raises(ConfigError) as caught:
        CascadeHeadConfig(stages=())
    message = "a cascade requires at least one stage; leave `stages` out for the three stages of Cascade R-CNN"
    assert str(caught.value) == f"CascadeHeadConfig.stages: {message}"


def test_a_pooling_for_masks_without_a_mask_head_is_refused():
    with pytest.raises(
        ConfigError,
        match="^CascadeHeadConfig.mask_roi_pool: requires a mask_head, which is null; leave it out, or set mask_head$",
    ):
        CascadeHeadConfig(mask_roi_pool=RoIAlignConfig(size=14))


def test_a_negative_loss_weight_is_refused():
    with pytest.raises(ValueError, match=r"loss_weight\S*: found .+, expected .*at least 0"):
        CascadeStageConfig(loss_weight=-0.5)


def test_features_that_a_pooling_cannot_take_are_refused():
    message = r"roi_pool 'roi_align' requires a feature level of stride 8, but .* \[4\]"
    with pytest.raises(ConfigError, match=message):
        CascadeHeadConfig().check(FeatureSpec(channels=(8,), strides=(4,)))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("detector.roi_head.stages=[]", "detector.roi_head.stages: a cascade requires at least one stage"),
        (
            "detector.roi_head.stages[1].los_weight=2",
            r"\[1\].los_weight: unknown key; did you mean .loss_weight.",
        ),
        ("detector.roi_head.stages[1].loss_weight=-2", r"stages\[1\].loss_weight: .* 0"),
        ("detector.roi_head.mask_head=null", "detector.roi_head.mask_roi_pool: requires a mask_head, which is null"),
    ],
)
def test_mistakes_on_the_command_line_say_where(setting, message):
    with pytest.raises(ConfigError, match=message):
        load_recipe("cascade-mask-rcnn/r50-fpn-1x", [setting])


def test_one_stages_setting_changes_from_the_command_line():
    recipe = load_recipe("cascade-rcnn/r50-fpn-1x", ["detector.roi_head.stages[2].assigner.positive=0.75"])
    assert [s.assigner.positive for s in recipe.detector.roi_head.stages] == [0.5, 0.6, 0.75]


def test_through_plain_data_and_back():
    config = attrs.evolve(CascadeHeadConfig(), stages=(CascadeStageConfig(loss_weight=3.0), CascadeStageConfig()))
    assert structure(unstructure(config), CascadeHeadConfig) == config


def test_masks_are_needed_where_there_are_mask_heads(tiny):
    for config, needed in ((tiny.box, False), (tiny.mask, True)):
        assert config.needs_masks() is config.build(tiny.levels, 3).needs_masks is needed


def test_what_the_heads_see(tiny):
    assert tiny.mask.box_regions(tiny.levels) == RegionSpec(channels=16, size=(7, 7))
    assert tiny.mask.mask_regions(tiny.levels) == RegionSpec(channels=16, size=(14, 14))
    one_level = FeatureSpec(channels=(256,), strides=(16,))
    shared = RegionSpec(channels=512, size=(4, 4))
    assert tiny.c4_mask.box_regions(one_level) == tiny.c4_mask.mask_regions(one_level) == shared


def test_every_stage_has_heads_of_its_own_and_the_trunk_is_one(tiny):
    head = attrs.evolve(tiny.c4_mask, mask_head=ConvMaskHeadConfig(num_convs=0, channels=8)).build(
        FeatureSpec(channels=(256,), strides=(16,)), 3
    )
    keys = set(head.state_dict())
    assert {key.partition(".")[0] for key in keys} == {"trunk", "box_heads", "mask_heads"}
    for number in range(3):
        assert {f"box_heads.{number}.deltas.weight", f"mask_heads.{number}.logits.weight"} <= keys
    assert head.box_heads[0].deltas.out_features == 4
    assert not (head.box_heads[0].scores.weight == head.box_heads[1].scores.weight).all()
