"""The zoo entries, setting by setting against the published tables, and that every one builds."""

from __future__ import annotations

import attrs
import pytest
import torch

from det_core.boxes.box_config import DeltaCoderConfig, GridAnchorsConfig, MaxIoUAssignerConfig, RandomSamplerConfig
from det_core.data.data_config import CocoConfig, FlipConfig, ResizeConfig, SampleConfig
from det_core.evaluation.metric_config import CocoEvaluatorConfig
from det_core.load import load_recipe, recipe_from_plain
from det_core.model.layer_config import (
    BatchNormConfig,
    Conv2dConfig,
    FrozenBatchNormConfig,
    GroupNormConfig,
    RoIAlignConfig,
)
from det_core.model.loss_config import BinaryCrossEntropyConfig, CrossEntropyConfig, L1Config
from det_core.recipe import Published, Recipe
from det_core.specs import FeatureSpec, ProposalLimits
from det_core.testing import contract_checks
from det_plugin_fpn.config import FPNConfig
from det_plugin_rcnn.config import ConvMaskHeadConfig, FCBoxHeadConfig, RCNNHeadConfig, RPNConfig
from det_plugin_rcnn.recipes import ENTRIES, ROWS
from det_plugin_resnet.config import ResNetConfig, ResNetStageConfig

# The published table: which schedules each model has with each backbone.
PYRAMIDS = {
    "r50-caffe-fpn": ("1x",),
    "r50-fpn": ("1x", "2x"),
    "r101-caffe-fpn": ("1x",),
    "r101-fpn": ("1x", "2x"),
}
RESNEXTS = {"x101-32x4d-fpn": ("1x", "2x"), "x101-64x4d-fpn": ("1x", "2x")}
SINGLE_LEVEL = {"r50-caffe-c4": ("1x", "2x"), "r50-c4": ("1x", "2x")}
TABLE = {
    "rpn": SINGLE_LEVEL | PYRAMIDS | RESNEXTS,
    "faster-rcnn": SINGLE_LEVEL | PYRAMIDS | RESNEXTS,
    "mask-rcnn": SINGLE_LEVEL | PYRAMIDS | RESNEXTS,
    "fast-rcnn": SINGLE_LEVEL | PYRAMIDS,
    "fast-mask-rcnn": SINGLE_LEVEL | PYRAMIDS,
}
ZOO = [
    f"{model}/{network}-{schedule}"
    for model, networks in TABLE.items()
    for network, schedules in networks.items()
    for schedule in schedules
]
C4_DEMO = "faster-rcnn/r18-c4-demo"
DEMOS = [*(f"{model}/r18-fpn-demo" for model in ("rpn", "fast-rcnn", "faster-rcnn", "mask-rcnn")), C4_DEMO]

# Rows of the 2019 zoo (AP or AR, memory in GB, s/iter, images/s), and of their modern re-runs.
PUBLISHED = {
    "rpn/r50-caffe-c4-2x": {"ar1000": 52.2, "memory_gb": 2.2, "train_s_per_iter": 0.17, "inference_fps": 20.3},
    "rpn/r50-fpn-1x": {
        "ar1000": 57.1,
        "memory_gb": 3.5,
        "train_s_per_iter": 0.276,
        "inference_fps": 17.7,
        "modern_ar1000": 58.2,
        "modern_memory_gb": 3.8,
    },
    "rpn/r50-fpn-2x": {"ar1000": 57.6, "modern_ar1000": 58.6},
    "faster-rcnn/r50-c4-1x": {"box_ap": 33.9, "inference_fps": 9.3},
    "faster-rcnn/r50-caffe-c4-1x": {"box_ap": 34.9, "inference_fps": 9.5, "modern_box_ap": 35.6},
    "faster-rcnn/r50-fpn-2x": {"box_ap": 37.7, "modern_box_ap": 38.4},
    "faster-rcnn/x101-64x4d-fpn-2x": {"box_ap": 40.7, "modern_box_ap": 41.6},
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
    "mask-rcnn/r101-caffe-fpn-1x": {
        "box_ap": 39.9,
        "mask_ap": 36.1,
        "memory_gb": 5.7,
        "train_s_per_iter": 0.534,
        "inference_fps": 9.4,
        "modern_box_ap": 40.4,
        "modern_mask_ap": 36.4,
    },
    "fast-rcnn/r101-fpn-2x": {"box_ap": 38.8},
    "fast-mask-rcnn/r50-caffe-fpn-1x": {
        "box_ap": 37.3,
        "mask_ap": 34.5,
        "memory_gb": 3.4,
        "train_s_per_iter": 0.328,
        "inference_fps": 12.8,
    },
    "fast-mask-rcnn/r50-c4-1x": {
        "box_ap": 35.1,
        "mask_ap": 31.2,
        "inference_fps": 7.9,
        "note": "every figure equals the Mask R-CNN C4 row: not a Fast R-CNN result",
    },
}


@attrs.frozen
class Case:
    """A recipe and what its name says."""

    recipe: Recipe
    model: str
    network: str
    caffe: bool
    c4: bool
    schedule: str

    @property
    def fast(self) -> bool:
        return self.model.startswith("fast-")

    @property
    def masks(self) -> bool:
        return self.model.endswith("mask-rcnn")


def case_of(name: str) -> Case:
    model, _, rest = name.partition("/")
    network, *style, kind, schedule = split_resnext(rest) if rest.startswith("x101") else rest.split("-")
    return Case(load_recipe(name), model, network, style == ["caffe"], kind == "c4", schedule)


def split_resnext(rest: str) -> list[str]:
    """`x101-32x4d-fpn-1x`: the backbone's name has a hyphen of its own."""
    network, width, *others = rest.split("-")
    return [f"{network}-{width}", *others]


@pytest.fixture(scope="module", params=ZOO)
def case(request: pytest.FixtureRequest) -> Case:
    return case_of(request.param)


def test_the_names() -> None:
    names = [entry.name for entry in ENTRIES if entry.weights_of != "mmdet1"]
    assert len(names) == len(set(names))
    assert sorted(row.name for row in ROWS) == sorted(ZOO)
    assert len(ZOO) == 62
    assert {*ZOO, *DEMOS} <= set(names)
    assert [entry.name for entry in ENTRIES if entry.default] == ["mask-rcnn/r50-fpn-1x"]
    assert [entry.name for entry in ENTRIES if entry.demo] == ["mask-rcnn/r18-fpn-demo"]
    assert all(entry.summary for entry in ENTRIES)


def test_names_are_taken_apart() -> None:
    cases = [case_of(name) for name in ("rpn/r50-caffe-c4-1x", "mask-rcnn/x101-64x4d-fpn-2x", "fast-rcnn/r101-fpn-1x")]
    assert [(c.model, c.network, c.caffe, c.c4, c.schedule) for c in cases] == [
        ("rpn", "r50", True, True, "1x"),
        ("mask-rcnn", "x101-64x4d", False, False, "2x"),
        ("fast-rcnn", "r101", False, False, "1x"),
    ]


def test_preprocessing(case: Case) -> None:
    """Caffe-style weights want the means alone, in BGR; their means are those of the original release."""
    config = case.recipe.detector.preprocess
    assert config.order == ("bgr" if case.caffe else "rgb")
    assert config.mean == ((103.53, 116.28, 123.675) if case.caffe else (123.675, 116.28, 103.53))
    assert config.std == ((1.0, 1.0, 1.0) if case.caffe else (58.395, 57.12, 57.375))
    assert config.pad_divisor == 32


PRETRAINED = {
    ("r50", False): "torchvision:resnet50",
    ("r101", False): "torchvision:resnet101",
    ("r50", True): "detectron2:R-50",
    ("r101", True): "detectron2:R-101",
    ("x101-32x4d", False): "mmdet:resnext101_32x4d",
    ("x101-64x4d", False): "torchvision:resnext101_64x4d",
}
GROUPS = {"x101-32x4d": (32, 4), "x101-64x4d": (64, 4)}


def test_backbone(case: Case) -> None:
    groups, width = GROUPS.get(case.network, (1, 64))
    assert case.recipe.detector.backbone == ResNetConfig(
        depth=50 if case.network == "r50" else 101,
        groups=groups,
        base_width=width,
        style="caffe" if case.caffe else "pytorch",
        stages=(3,) if case.c4 else (1, 2, 3, 4),
        frozen_stages=1,
        norm=FrozenBatchNormConfig() if case.caffe else BatchNormConfig(eps=1e-5, frozen_statistics=True),
        conv=Conv2dConfig(),
        zero_init_residual=True,
        pretrained=PRETRAINED[case.network, case.caffe],
    )


def test_features(case: Case) -> None:
    neck = case.recipe.detector.neck
    if case.c4:
        assert neck is None
        assert case.recipe.detector.feature_spec() == FeatureSpec(channels=(1024,), strides=(16,))
    else:
        assert neck == FPNConfig(channels=256, levels=5, start=0, extra="max_pool", norm=None)
        assert case.recipe.detector.feature_spec() == FeatureSpec(channels=(256,) * 5, strides=(4, 8, 16, 32, 64))


def test_proposals(case: Case) -> None:
    if case.fast:
        assert case.recipe.detector.dense_head is None
        return
    alone = case.model == "rpn"
    if case.c4:
        train = ProposalLimits(before_nms=12000, after_nms=2000)
        test = train if alone else ProposalLimits(before_nms=6000, after_nms=1000)
    else:
        train = ProposalLimits(before_nms=2000, after_nms=1000)
        test = ProposalLimits(before_nms=2000 if alone else 1000, after_nms=1000)
    assert case.recipe.detector.dense_head == RPNConfig(
        channels=1024 if case.c4 else 256,
        anchors=GridAnchorsConfig(scales=(2.0, 4.0, 8.0, 16.0, 32.0) if case.c4 else (8.0,), ratios=(0.5, 1.0, 2.0)),
        coder=DeltaCoderConfig(means=(0.0, 0.0, 0.0, 0.0), stds=(1.0, 1.0, 1.0, 1.0), max_ratio=16 / 1000),
        assigner=MaxIoUAssignerConfig(positive=0.7, negative=0.3, low_quality=True, min_positive=0.3, all_ties=True),
        sampler=RandomSamplerConfig(count=256, positive_fraction=0.5),
        cls_loss=BinaryCrossEntropyConfig(weight=1.0),
        box_loss=L1Config(weight=1.0),
        allowed_border=0 if case.c4 and case.model == "mask-rcnn" else -1,
        nms_threshold=0.7,
        conv=Conv2dConfig(),
        train_limits=train,
        test_limits=test,
    )


def test_second_stage(case: Case) -> None:
    if case.model == "rpn":
        assert case.recipe.detector.roi_head is None
        return
    pool = RoIAlignConfig(
        size=14 if case.c4 else 7,
        strides=(16,) if case.c4 else (4, 8, 16, 32),
        sampling=0,
        alignment="aligned",
        finest_scale=56.0,
        mode="avg",
    )
    backbone = case.recipe.detector.backbone
    assert isinstance(backbone, ResNetConfig)
    trunk = ResNetStageConfig(
        depth=backbone.depth, number=4, stride=2, style=backbone.style, norm=backbone.norm,
        pretrained=backbone.pretrained,
    )  # fmt: skip
    masks = ConvMaskHeadConfig(num_convs=0 if case.c4 else 4, channels=256, class_agnostic=False, norm=None)
    assert case.recipe.detector.roi_head == RCNNHeadConfig(
        roi_pool=pool,
        trunk=trunk if case.c4 else None,
        box_head=FCBoxHeadConfig(
            num_convs=0, num_fcs=0 if case.c4 else 2, fc_channels=1024, class_agnostic=False, norm=None
        ),
        mask_roi_pool=attrs.evolve(pool, size=14) if case.masks and not case.c4 else None,
        mask_head=masks if case.masks else None,
        assigner=MaxIoUAssignerConfig(
            positive=0.5, negative=0.5, low_quality=case.masks and not case.c4, min_positive=0.5, all_ties=True
        ),
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


def test_data(case: Case) -> None:
    resize = ResizeConfig(scales=((1333, 800),), keep_ratio=True)
    data = case.recipe.data
    best = 2000 if case.fast else None
    assert data.train == CocoConfig(split="train", filter_empty=True, min_size=32, proposals=None, max_proposals=best)
    assert data.val == CocoConfig(split="val", filter_empty=False, min_size=0, proposals=None, max_proposals=None)
    assert data.train_transforms == (resize, FlipConfig(probability=0.5, vertical_probability=0.0))
    assert data.test_transforms == (resize,)
    assert (data.repeat, data.images_per_rank, data.group_by_aspect) == (1, 2, True)


def test_optimisation(case: Case) -> None:
    optimizer, schedule = case.recipe.optimizer, case.recipe.schedule
    assert (optimizer.type, optimizer.lr, optimizer.lr_batch) == ("sgd", 0.02, 16)
    assert (optimizer.momentum, optimizer.weight_decay) == (0.9, 1e-4)
    expected = {"1x": (12, (8, 11)), "2x": (24, (16, 22))}[case.schedule]
    assert (schedule.epochs, schedule.learning_rate.milestones, schedule.learning_rate.gamma) == (*expected, 0.1)
    assert (schedule.warmup_steps, schedule.warmup_factor) == (500, 0.001)
    assert (schedule.clip_norm, schedule.ema_decay, schedule.precision, schedule.accumulate) == (None, None, "fp32", 1)


def test_evaluation(case: Case) -> None:
    kinds, best = (("box", "mask") if case.masks else ("box",)), "box_ap"
    if case.model == "rpn":
        kinds, best = ("proposal",), "ar1000"
    assert case.recipe.evaluation.evaluators == (CocoEvaluatorConfig(kinds=kinds, max_detections=100),)
    assert (case.recipe.evaluation.best, case.recipe.evaluation.every_epochs) == (best, 1)
    assert case.recipe.detector.needs_masks() == case.masks


def test_every_row_has_a_published_figure_of_what_it_is_judged_by(case: Case) -> None:
    figures = case.recipe.published
    assert figures is not None
    assert (figures.dataset, figures.source) == ("coco", "mmdetection model zoo, 2019 (modern: 3.3.0)")
    assert (figures.ar1000 is not None) == (case.model == "rpn")
    assert (figures.box_ap is not None) == (case.model != "rpn")
    assert (figures.mask_ap is not None) == case.masks
    assert bool(figures.note) == (case.model == "fast-mask-rcnn" and case.c4)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_figures(name: str) -> None:
    figures = Published(**PUBLISHED[name])  # type: ignore[arg-type]
    assert load_recipe(name).published == figures
    assert {e.name: e.published for e in ENTRIES}[name] == figures


@pytest.mark.parametrize("name", [*ZOO, *DEMOS])
def test_every_recipe_builds_and_goes_through_yaml(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe_from_plain(recipe.to_plain()) == recipe
    with torch.device("meta"):
        detector = recipe.detector.build(num_classes=80)
    assert detector.needs_masks == ("mask-rcnn/" in name)
    assert (detector.roi_head is None) == name.startswith("rpn/")
    assert (detector.dense_head is None) == name.startswith("fast-")


def counts(name: str, *parts: str) -> dict[str, int]:
    """Numbers of parameters of a recipe's parts at 80 classes, after checking that they are all there is."""
    with torch.device("meta"):
        detector = load_recipe(name).detector.build(num_classes=80)
    found = {part: sum(p.numel() for p in detector.get_submodule(part).parameters()) for part in parts}
    assert sum(found.values()) == sum(p.numel() for p in detector.parameters())
    return found


R50 = 25_557_032 - 2048 * 1000 - 1000  # ResNet-50 without its classifier
RES5 = 14_964_736  # its last stage


def test_the_number_of_parameters_part_by_part() -> None:
    conv = 256 * 256 * 9 + 256
    found = counts("mask-rcnn/r50-fpn-1x", "backbone", "neck", "dense_head", "roi_head.box_head", "roi_head.mask_head")
    assert found == {
        "backbone": R50,
        "neck": (256 + 512 + 1024 + 2048) * 256 + 4 * 256 + 4 * conv,
        "dense_head": conv + 257 * 3 + 257 * 12,
        "roi_head.box_head": (49 * 256 + 1) * 1024 + 1025 * 1024 + 1025 * 81 + 1025 * 320,
        "roi_head.mask_head": 4 * conv + (256 * 256 * 4 + 256) + 257 * 80,
    }
    assert sum(found.values()) == 44_396_336


def test_the_number_of_parameters_on_one_level() -> None:
    """C4 has the same ResNet-50 in two parts, the last stage in the RoI head."""
    found = counts(
        "mask-rcnn/r50-c4-1x", "backbone", "dense_head", "roi_head.trunk", "roi_head.box_head", "roi_head.mask_head"
    )
    assert found == {
        "backbone": R50 - RES5,
        "dense_head": (1024 * 1024 * 9 + 1024) + 1025 * 15 + 1025 * 60,
        "roi_head.trunk": RES5,
        "roi_head.box_head": 2049 * 81 + 2049 * 320,
        "roi_head.mask_head": (2048 * 256 * 4 + 256) + 257 * 80,
    }


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("x101-32x4d", 44_177_704 - 2049 * 1000),  # as published for ResNeXt-101 32x4d, without its classifier
        ("x101-64x4d", 83_455_272 - 2049 * 1000),
    ],
)
def test_the_number_of_parameters_of_resnext(name: str, parameters: int) -> None:
    assert counts(f"rpn/{name}-fpn-1x", "backbone", "neck", "dense_head")["backbone"] == parameters


@pytest.mark.parametrize("name", DEMOS)
def test_the_demos_train_a_small_model_on_the_bundled_sample(name: str) -> None:
    recipe = load_recipe(name)
    assert isinstance(recipe.data.train, SampleConfig)
    assert isinstance(recipe.data.val, SampleConfig)
    assert (recipe.data.train.split, recipe.data.val.split) == ("train", "val")
    assert recipe.published is None
    detector = recipe.detector.build(num_classes=1)
    assert sum(p.numel() for p in detector.parameters()) < 20e6
    assert all(p.requires_grad for p in detector.parameters())
    assert getattr(recipe.detector.backbone, "pretrained", "") is None  # nothing is downloaded


def test_the_c4_demo_is_c4() -> None:
    recipe = load_recipe(C4_DEMO)
    features, head = recipe.detector.feature_spec(), recipe.detector.roi_head
    assert (features.channels, features.strides) == ((256,), (16,))
    assert recipe.detector.neck is None
    assert isinstance(head, RCNNHeadConfig)
    assert head.trunk == ResNetStageConfig(depth=18, norm=GroupNormConfig(groups=16))
    regions = head.box_regions(features)
    assert (regions.channels, regions.size) == (512, (3, 3))
    assert recipe.data.train_transforms[0] == recipe.data.test_transforms[0]


def test_the_contract_of_the_plugin() -> None:
    contract_checks.check_plugin("rcnn")
