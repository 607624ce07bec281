"""The zoo entries, setting by setting against the published tables, and that every one builds."""

from __future__ import annotations

import pytest
import torch

from det_core.boxes.box_config import MaxIoUAssignerConfig, RandomSamplerConfig
from det_core.data.data_config import CocoConfig, FlipConfig, ResizeConfig, SampleConfig
from det_core.evaluation.metric_config import CocoEvaluatorConfig
from det_core.load import load_recipe, recipe_from_plain
from det_core.model.layer_config import BatchNormConfig, RoIAlignConfig
from det_core.model.loss_config import SmoothL1Config
from det_core.recipe import Published, Recipe
from det_core.settings import evolve
from det_core.specs import ProposalLimits
from det_core.testing import contract_checks
from det_plugin_cascade.config import THREE_STAGES
from det_plugin_fpn.config import FPNConfig
from det_plugin_htc.config import HTCHeadConfig, SemanticBranchConfig
from det_plugin_htc.recipes import ENTRIES
from det_plugin_rcnn.config import ConvMaskHeadConfig, FCBoxHeadConfig, RPNConfig
from det_plugin_resnet.config import ResNetConfig

# (box AP, mask AP, GB, s/iter, images/s) of the 2019 zoo, and (box AP, mask AP, GB) of its modern re-runs.
PUBLISHED = {
    "htc/r50-fpn-1x": ((42.1, 37.3, 7.4, 0.936, 4.1), (42.3, 37.4, 8.2)),
    "htc/r50-fpn-20e": ((43.2, 38.1, None, None, None), (43.3, 38.3, 8.2)),
    "htc/r101-fpn-20e": ((44.9, 39.4, 9.3, 1.051, 4.0), (44.8, 39.6, 10.2)),
    "htc/x101-32x4d-fpn-20e": ((46.1, 40.3, 5.8, 0.769, 3.8), (46.1, 40.5, 11.4)),
    "htc/x101-64x4d-fpn-20e": ((46.9, 40.8, 7.5, 1.120, 3.5), (47.0, 41.4, 14.5)),
}
ZOO = (*PUBLISHED, "htc-without-semantic/r50-fpn-1x")
DEMOS = ("htc/r18-fpn-demo", "htc-without-semantic/r18-fpn-demo")


@pytest.fixture(scope="module", params=ZOO)
def recipe(request: pytest.FixtureRequest) -> Recipe:
    return load_recipe(request.param)


def branched(recipe: Recipe) -> bool:
    return recipe.name.startswith("htc/")


def test_the_names() -> None:
    assert sorted(entry.name for entry in ENTRIES if entry.weights_of != "mmdet1") == sorted([*ZOO, *DEMOS])


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_figures(name: str) -> None:
    (box, mask, memory, seconds, fps), (modern_box, modern_mask, modern_memory) = PUBLISHED[name]
    published = load_recipe(name).published
    assert published == Published(
        box_ap=box,
        mask_ap=mask,
        memory_gb=memory,
        train_s_per_iter=seconds,
        inference_fps=fps,
        modern_box_ap=modern_box,
        modern_mask_ap=modern_mask,
        modern_memory_gb=modern_memory,
        note="memory and speed of 2019: one image per GPU, 16 GPUs" if "/x101" in name else "",
    )


def test_nobody_published_figures_without_the_branch() -> None:
    assert load_recipe("htc-without-semantic/r50-fpn-1x").published == Published()


def test_backbone_and_features(recipe: Recipe) -> None:
    backbone = recipe.detector.backbone
    assert isinstance(backbone, ResNetConfig)
    depth, groups, width = {
        "r50": (50, 1, 64), "r101": (101, 1, 64), "x101-32x4d": (101, 32, 4), "x101-64x4d": (101, 64, 4)
    }[recipe.name.partition("/")[2].partition("-fpn-")[0]]  # fmt: skip
    assert (backbone.depth, backbone.groups, backbone.base_width) == (depth, groups, width)
    assert (backbone.style, backbone.frozen_stages, backbone.stages) == ("pytorch", 1, (1, 2, 3, 4))
    assert isinstance(backbone.norm, BatchNormConfig)
    assert recipe.detector.preprocess.order == "rgb"
    assert recipe.detector.neck == FPNConfig()


def test_the_first_stage_keeps_the_settings_of_2019(recipe: Recipe) -> None:
    assert recipe.detector.dense_head == RPNConfig(
        assigner=MaxIoUAssignerConfig(positive=0.7, negative=0.3, low_quality=True, min_positive=0.3),
        sampler=RandomSamplerConfig(count=256, positive_fraction=0.5),
        box_loss=SmoothL1Config(beta=1 / 9),
        allowed_border=0,
        train_limits=ProposalLimits(before_nms=2000, after_nms=2000),
        test_limits=ProposalLimits(before_nms=1000, after_nms=1000),
    )


def test_the_head(recipe: Recipe) -> None:
    branch = SemanticBranchConfig(
        classes=183,
        num_convs=4,
        stride=8,
        roi_pool=RoIAlignConfig(size=14, strides=(8,)),
        loss_weight=0.2,
        fuse_boxes=True,
        fuse_masks=True,
    )
    assert recipe.detector.roi_head == HTCHeadConfig(
        roi_pool=RoIAlignConfig(size=7, strides=(4, 8, 16, 32)),
        box_head=FCBoxHeadConfig(num_fcs=2, fc_channels=1024, class_agnostic=True),
        mask_roi_pool=RoIAlignConfig(size=14, strides=(4, 8, 16, 32)),
        mask_head=ConvMaskHeadConfig(num_convs=4, channels=256),
        stages=tuple(
            evolve(stage, assigner=MaxIoUAssignerConfig(positive=iou, negative=iou, low_quality=True, min_positive=iou))
            for stage, iou in zip(THREE_STAGES, (0.5, 0.6, 0.7), strict=True)
        ),
        semantic=branch if branched(recipe) else None,
        interleaved=True,
        information_flow=True,
        masks_of="all",
        score_threshold=0.001,
        nms_threshold=0.5,
        max_detections=100,
        mask_threshold=0.5,
    )


def test_data_schedule_and_evaluation(recipe: Recipe) -> None:
    resize = ResizeConfig(scales=((1333, 800),), keep_ratio=True)
    maps = "stuffthingmaps/train2017" if branched(recipe) else None
    assert recipe.data.train == CocoConfig(
        split="train", filter_empty=True, min_size=32, semantic_dir=maps, semantic_classes=182
    )
    assert recipe.data.val == CocoConfig(split="val")
    assert recipe.data.train_transforms == (resize, FlipConfig(probability=0.5))
    assert recipe.data.test_transforms == (resize,)
    optimizer = recipe.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.lr_batch) == ("sgd", 0.02, 16)
    expected = {"1x": (12, (8, 11)), "20e": (20, (16, 19))}[recipe.name.rpartition("-")[2]]
    assert (recipe.schedule.epochs, recipe.schedule.learning_rate.milestones) == expected
    assert recipe.evaluation.evaluators == (CocoEvaluatorConfig(kinds=("box", "mask"), max_detections=100),)
    assert recipe.detector.needs_masks()
    assert recipe.detector.needs_semantic() == branched(recipe)


@pytest.mark.parametrize("name", [*ZOO, *DEMOS])
def test_every_recipe_builds_and_goes_through_yaml(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe_from_plain(recipe.to_plain()) == recipe
    with torch.device("meta"):
        detector = recipe.detector.build(num_classes=80)
    assert detector.needs_masks
    assert detector.needs_semantic == name.startswith("htc/")


CONV = 256 * 256 * 9 + 256
POINT = 256 * 256 + 256
R50 = 25_557_032 - 2048 * 1000 - 1000  # ResNet-50 without its classifier


def test_the_number_of_parameters_part_by_part() -> None:
    with torch.device("meta"):
        detector = load_recipe("htc/r50-fpn-1x").detector.build(num_classes=80)
    expected = {
        "backbone": R50,
        "roi_head.box_heads": 3 * ((49 * 256 + 1) * 1024 + 1025 * 1024 + 1025 * 81 + 1025 * 4),
        "roi_head.mask_heads": 3 * (4 * CONV + (256 * 256 * 4 + 256) + 257 * 80),
        "roi_head.flows": 2 * POINT,
        "roi_head.semantic": 6 * POINT + 4 * CONV + 257 * 183,
    }
    found = {
        part: sum(p.numel() for key, p in detector.named_parameters() if key.startswith(f"{part}."))
        for part in expected
    }
    assert found == expected


@pytest.mark.parametrize("name", DEMOS)
def test_the_demos_train_a_small_model_on_the_bundled_sample(name: str) -> None:
    recipe = load_recipe(name)
    assert isinstance(recipe.data.train, SampleConfig)
    assert isinstance(recipe.data.val, SampleConfig)
    head, cascade = (load_recipe(n).detector.roi_head for n in (name, "cascade-mask-rcnn/r18-fpn-demo"))
    assert isinstance(head, HTCHeadConfig)
    for part in ("box_head", "mask_head", "mask_roi_pool", "stages"):
        assert getattr(head, part) == getattr(cascade, part)
    assert head.semantic_classes() == (2 if name.startswith("htc/") else 0)  # nuclei and background
    detector = recipe.detector.build(num_classes=1)
    assert sum(p.numel() for p in detector.parameters()) < 25e6
    assert getattr(recipe.detector.backbone, "pretrained", "") is None  # nothing is downloaded


def test_what_the_plugin_trains_by_itself() -> None:
    marked = {kind: [e.name for e in ENTRIES if getattr(e, kind)] for kind in ("default", "demo")}
    assert marked == {"default": ["htc/r50-fpn-1x"], "demo": ["htc/r18-fpn-demo"]}


def test_the_contract_of_the_plugin() -> None:
    contract_checks.check_plugin("htc")
