"""The zoo entries, setting by setting against the published numbers, and that every one builds."""

from __future__ import annotations

import attrs
import pytest
import torch

from det_core.boxes.config import DeltaCoderConfig, GridAnchorsConfig, MaxIoUAssignerConfig, RandomSamplerConfig
from det_core.config.base import FeatureSpec, ProposalLimits
from det_core.data.config import CocoConfig, FlipConfig, ResizeConfig, SampleConfig
from det_core.evaluation.config import CocoEvaluatorConfig
from det_core.model.layer_config import BatchNormConfig, Conv2dConfig, RoIAlignConfig
from det_core.model.loss_config import BinaryCrossEntropyConfig, CrossEntropyConfig, L1Config
from det_core.recipe import Published, Recipe, load_recipe
from det_core.testing import contracts
from det_plugin_rcnn.config import ConvMaskHeadConfig, FCBoxHeadConfig, RCNNHeadConfig, RPNConfig
from det_plugin_rcnn.recipes import ENTRIES
from det_plugin_resnet.config import ResNetConfig

MODELS = ("rpn", "faster-rcnn", "mask-rcnn")
ZOO = [f"{model}/r50-fpn-{schedule}" for model in MODELS for schedule in ("1x", "2x")]
DEMOS = [f"{model}/r18-fpn-demo" for model in MODELS]

# Model, schedule: the row of the 2019 zoo (AP or AR, memory in GB, s/iter, images/s), and of its modern re-run.
PUBLISHED = {
    "rpn/r50-fpn-1x": {
        "ar1000": 57.1,
        "memory_gb": 3.5,
        "train_s_per_iter": 0.276,
        "inference_fps": 17.7,
        "modern_ar1000": 58.2,
        "modern_memory_gb": 3.8,
    },
    "rpn/r50-fpn-2x": {"ar1000": 57.6, "modern_ar1000": 58.6},
    "faster-rcnn/r50-fpn-1x": {
        "box_ap": 36.4,
        "memory_gb": 3.8,
        "train_s_per_iter": 0.353,
        "inference_fps": 13.6,
        "modern_box_ap": 37.4,
        "modern_memory_gb": 4.0,
    },
    "faster-rcnn/r50-fpn-2x": {"box_ap": 37.7, "modern_box_ap": 38.4},
    "mask-rcnn/r50-fpn-1x": {
        "box_ap": 37.3,
        "mask_ap": 34.2,
        "memory_gb": 3.9,
        "train_s_per_iter": 0.453,
        "inference_fps": 10.6,
        "modern_box_ap": 38.2,
        "modern_mask_ap": 34.7,
        "modern_memory_gb": 4.4,
    },
    "mask-rcnn/r50-fpn-2x": {"box_ap": 38.5, "mask_ap": 35.1, "modern_box_ap": 39.2, "modern_mask_ap": 35.4},
}


@pytest.fixture(scope="module", params=ZOO)
def recipe(request) -> Recipe:
    return load_recipe(request.param)


def model(recipe: Recipe) -> str:
    return recipe.name.partition("/")[0]


def test_the_names():
    assert [entry.name for entry in ENTRIES] == [*ZOO, *DEMOS]
    assert [entry.name for entry in ENTRIES if entry.default] == ["mask-rcnn/r50-fpn-1x"]
    assert [entry.name for entry in ENTRIES if entry.demo] == ["mask-rcnn/r18-fpn-demo"]
    assert all(entry.summary for entry in ENTRIES)


def test_preprocessing(recipe):
    config = recipe.detector.preprocess
    assert config.order == "rgb"
    assert config.mean == (123.675, 116.28, 103.53)
    assert config.std == (58.395, 57.12, 57.375)
    assert config.pad_divisor == 32


def test_backbone(recipe):
    assert recipe.detector.backbone == ResNetConfig(
        depth=50,
        style="pytorch",
        stages=(1, 2, 3, 4),
        frozen_stages=1,
        norm=BatchNormConfig(eps=1e-5, frozen_statistics=True),
        conv=Conv2dConfig(),
        zero_init_residual=True,
        pretrained="torchvision:resnet50",
    )
    assert recipe.detector.backbone.feature_spec().channels == (256, 512, 1024, 2048)


def test_neck(recipe):
    neck = recipe.detector.neck
    assert neck is not None
    assert neck.type == "fpn"
    assert (neck.channels, neck.levels, neck.start, neck.extra, neck.norm) == (256, 5, 0, "max_pool", None)
    assert recipe.detector.feature_spec() == FeatureSpec(channels=(256,) * 5, strides=(4, 8, 16, 32, 64))


def test_proposals(recipe):
    alone = model(recipe) == "rpn"
    assert recipe.detector.dense_head == RPNConfig(
        channels=256,
        anchors=GridAnchorsConfig(scales=(8.0,), ratios=(0.5, 1.0, 2.0)),
        coder=DeltaCoderConfig(means=(0.0, 0.0, 0.0, 0.0), stds=(1.0, 1.0, 1.0, 1.0), max_ratio=16 / 1000),
        assigner=MaxIoUAssignerConfig(positive=0.7, negative=0.3, low_quality=True, min_positive=0.3, all_ties=True),
        sampler=RandomSamplerConfig(count=256, positive_fraction=0.5),
        cls_loss=BinaryCrossEntropyConfig(weight=1.0),
        box_loss=L1Config(weight=1.0),
        allowed_border=-1,
        nms_threshold=0.7,
        conv=Conv2dConfig(),
        train_limits=ProposalLimits(before_nms=2000, after_nms=1000),
        test_limits=ProposalLimits(before_nms=2000 if alone else 1000, after_nms=1000),
    )


def test_second_stage(recipe):
    if model(recipe) == "rpn":
        assert recipe.detector.roi_head is None
        return
    masks = model(recipe) == "mask-rcnn"
    pool = RoIAlignConfig(
        size=7, strides=(4, 8, 16, 32), sampling=0, alignment="aligned", finest_scale=56.0, mode="avg"
    )
    assert recipe.detector.roi_head == RCNNHeadConfig(
        roi_pool=pool,
        trunk=None,
        box_head=FCBoxHeadConfig(num_convs=0, num_fcs=2, fc_channels=1024, class_agnostic=False, norm=None),
        mask_roi_pool=attrs.evolve(pool, size=14) if masks else None,
        mask_head=ConvMaskHeadConfig(num_convs=4, channels=256, class_agnostic=False, norm=None) if masks else None,
        assigner=MaxIoUAssignerConfig(positive=0.5, negative=0.5, low_quality=masks, min_positive=0.5, all_ties=True),
        sampler=RandomSamplerConfig(count=512, positive_fraction=0.25),
        add_ground_truth=True,
        coder=DeltaCoderConfig(means=(0.0, 0.0, 0.0, 0.0), stds=(0.1, 0.1, 0.2, 0.2), max_ratio=16 / 1000),
        cls_loss=CrossEntropyConfig(weight=1.0),
        box_loss=L1Config(weight=1.0),
        mask_loss=BinaryCrossEntropyConfig(weight=1.0),
        score_threshold=0.05,
        nms_threshold=0.5,
        max_detections=100,
        mask_threshold=0.5,
    )


def test_data(recipe):
    resize = ResizeConfig(scales=((1333, 800),), keep_ratio=True)
    data = recipe.data
    assert data.train == CocoConfig(split="train", filter_empty=True, min_size=32)
    assert data.val == CocoConfig(split="val", filter_empty=False, min_size=0)
    assert data.train_transforms == (resize, FlipConfig(probability=0.5, vertical_probability=0.0))
    assert data.test_transforms == (resize,)
    assert (data.repeat, data.images_per_rank, data.group_by_aspect) == (1, 2, True)


def test_optimisation(recipe):
    optimizer, schedule = recipe.optimizer, recipe.schedule
    assert (optimizer.kind, optimizer.lr, optimizer.lr_batch) == ("sgd", 0.02, 16)
    assert (optimizer.momentum, optimizer.weight_decay) == (0.9, 1e-4)
    expected = (12, (8, 11)) if recipe.name.endswith("1x") else (24, (16, 22))
    assert (schedule.epochs, schedule.milestones, schedule.gamma) == (*expected, 0.1)
    assert (schedule.warmup_steps, schedule.warmup_factor) == (500, 0.001)
    assert (schedule.clip_norm, schedule.ema_decay, schedule.precision, schedule.accumulate) == (None, None, "fp32", 1)


def test_evaluation(recipe):
    kinds, best = {
        "rpn": (("proposal",), "ar1000"),
        "faster-rcnn": (("box",), "box_ap"),
        "mask-rcnn": (("box", "mask"), "box_ap"),
    }[model(recipe)]
    assert recipe.evaluation.evaluators == (CocoEvaluatorConfig(kinds=kinds, max_detections=100),)
    assert (recipe.evaluation.best, recipe.evaluation.every_epochs) == (best, 1)
    assert recipe.detector.needs_masks() == ("mask" in kinds)


def test_published_figures(recipe):
    figures = Published(**PUBLISHED[recipe.name])
    assert recipe.published == figures
    assert {e.name: e.published for e in ENTRIES}[recipe.name] == figures
    assert (figures.dataset, figures.source) == ("coco", "mmdetection model zoo, 2019 (modern: 3.3.0)")


@pytest.mark.parametrize("name", [entry.name for entry in ENTRIES])
def test_every_recipe_builds_and_goes_through_yaml(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert Recipe.from_plain(recipe.to_plain()) == recipe
    with torch.device("meta"):
        detector = recipe.detector.build(num_classes=80)
    assert detector.needs_masks == name.startswith("mask-rcnn")
    assert (detector.roi_head is None) == name.startswith("rpn")


def test_the_number_of_parameters_part_by_part():
    with torch.device("meta"):
        detector = load_recipe("mask-rcnn/r50-fpn-1x").detector.build(num_classes=80)
    counts = {
        name: sum(p.numel() for p in detector.get_submodule(name).parameters())
        for name in ("backbone", "neck", "dense_head", "roi_head.box_head", "roi_head.mask_head")
    }
    conv = 256 * 256 * 9 + 256
    assert counts == {
        "backbone": 25_557_032 - 2048 * 1000 - 1000,  # ResNet-50 without its classifier
        "neck": (256 + 512 + 1024 + 2048) * 256 + 4 * 256 + 4 * conv,
        "dense_head": conv + 257 * 3 + 257 * 12,
        "roi_head.box_head": (49 * 256 + 1) * 1024 + 1025 * 1024 + 1025 * 81 + 1025 * 320,
        "roi_head.mask_head": 4 * conv + (256 * 256 * 4 + 256) + 257 * 80,
    }
    assert sum(counts.values()) == sum(p.numel() for p in detector.parameters()) == 44_396_336


@pytest.mark.parametrize("name", DEMOS)
def test_the_demos_train_a_small_model_on_the_bundled_sample(name):
    recipe = load_recipe(name)
    assert recipe.data.train == SampleConfig(split="train")
    assert recipe.data.val == SampleConfig(split="val")
    assert recipe.published is None
    detector = recipe.detector.build(num_classes=1)
    assert sum(p.numel() for p in detector.parameters()) < 20e6
    assert getattr(recipe.detector.backbone, "pretrained", "") is None  # nothing is downloaded


def test_the_contract_of_the_plugin():
    contracts.check_plugin("rcnn")
