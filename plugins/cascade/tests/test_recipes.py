"""The zoo entries, setting by setting against the published tables, and that every one builds."""

from __future__ import annotations

import attrs
import pytest
import torch

from det_core.boxes.box_config import GridAnchorsConfig, MaxIoUAssignerConfig, RandomSamplerConfig
from det_core.data.data_config import CocoConfig, FlipConfig, ResizeConfig, SampleConfig
from det_core.evaluation.metric_config import CocoEvaluatorConfig
from det_core.load import load_recipe, recipe_from_plain
from det_core.model.layer_config import FrozenBatchNormConfig, RoIAlignConfig
from det_core.model.loss_config import SmoothL1Config
from det_core.recipe import Published, Recipe
from det_core.specs import ProposalLimits
from det_core.testing import contract_checks
from det_plugin_cascade.config import THREE_STAGES, CascadeHeadConfig
from det_plugin_cascade.recipes import ENTRIES, ROWS, STRONG_ROWS
from det_plugin_fpn.config import FPNConfig
from det_plugin_rcnn.config import ConvMaskHeadConfig, FCBoxHeadConfig, RPNConfig
from det_plugin_resnet.config import ResNetConfig, ResNetStageConfig

# The published table: which schedules each model has with each backbone.
NETWORKS = {
    "r50-caffe-c4": ("1x",),
    "r50-caffe-fpn": ("1x",),
    "r50-fpn": ("1x", "20e"),
    "r101-caffe-fpn": ("1x",),
    "r101-fpn": ("1x", "20e"),
    "x101-32x4d-fpn": ("1x", "20e"),
    "x101-64x4d-fpn": ("1x", "20e"),
}
MODELS = ("cascade-rcnn", "cascade-mask-rcnn")
ZOO = [f"{m}/{n}-{schedule}" for m in MODELS for n, schedules in NETWORKS.items() for schedule in schedules]
DEMOS = [f"{model}/r18-fpn-demo" for model in MODELS]

# (AP, GB, s/iter, images/s) of the 2019 zoo, and (AP, GB) of its modern re-runs; AP is box, or box and mask.
PUBLISHED = {
    "cascade-rcnn/r50-caffe-c4-1x": ((38.7,), 8.7, 0.92, 5.0, (), None),
    "cascade-rcnn/r50-fpn-1x": ((40.4,), 4.1, 0.455, 11.9, (40.3,), 4.4),
    "cascade-rcnn/r50-fpn-20e": ((41.1,), None, None, None, (41.0,), None),
    "cascade-rcnn/r101-caffe-fpn-1x": ((42.4,), 5.8, 0.569, 9.6, (42.3,), 6.2),
    "cascade-rcnn/x101-64x4d-fpn-20e": ((44.7,), None, None, None, (44.5,), None),
    "cascade-mask-rcnn/r50-caffe-c4-1x": ((39.3, 32.8), 9.1, 0.99, 4.5, (), None),
    "cascade-mask-rcnn/r50-fpn-1x": ((41.2, 35.7), 5.3, 0.683, 7.4, (41.2, 35.9), 6.0),
    "cascade-mask-rcnn/r50-fpn-20e": ((42.3, 36.6), None, None, None, (41.9, 36.5), None),
    "cascade-mask-rcnn/x101-32x4d-fpn-1x": ((44.4, 38.2), 8.4, 0.976, 6.6, (44.3, 38.3), 9.2),
    "cascade-mask-rcnn/x101-64x4d-fpn-1x": ((45.4, 39.1), 11.4, 1.33, 5.3, (45.3, 39.2), 12.2),
}


@attrs.frozen
class Case:
    """A recipe and what its name says."""

    name: str
    recipe: Recipe

    @property
    def masks(self) -> bool:
        return self.name.startswith("cascade-mask-rcnn/")

    @property
    def c4(self) -> bool:
        return "-c4-" in self.name

    @property
    def caffe(self) -> bool:
        return "-caffe-" in self.name


@pytest.fixture(scope="module", params=ZOO)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param, load_recipe(request.param))


def test_the_names() -> None:
    names = [entry.name for entry in ENTRIES if not entry.weights_of]
    assert sorted(row.name for row in ROWS) == sorted(ZOO)
    assert len(ZOO) == 22
    assert sorted(names) == sorted([*ZOO, *DEMOS, *(row.name for row in STRONG_ROWS)])


def test_stronger_training() -> None:
    found = {
        row.name.partition("/")[2]: (row.published.box_ap, row.published.mask_ap, load_recipe(row.name))
        for row in STRONG_ROWS
    }
    assert {name: figures for name, (*figures, _) in found.items()} == {
        "r50-fpn-ms-3x": [44.3, 38.5],
        "r101-fpn-ms-3x": [45.5, 39.6],
        "x101-32x4d-fpn-ms-3x": [46.3, 40.1],
        "x101-64x4d-fpn-ms-3x": [46.6, 40.3],
        "r50-fpn-rsb-1x": [44.8, 39.9],
    }
    plain = load_recipe("cascade-mask-rcnn/r50-fpn-1x")
    sizes, newer = found["r50-fpn-ms-3x"][2], found["r50-fpn-rsb-1x"][2]
    assert sizes.detector == plain.detector
    assert sizes.schedule.epochs * sizes.data.repeat == 36
    backbone = newer.detector.backbone
    assert isinstance(backbone, ResNetConfig)
    assert backbone.pretrained == "mmcls:resnet50_rsb_a1"
    assert (newer.optimizer.type, newer.optimizer.lr, newer.optimizer.weight_decay) == ("adamw", 2e-4, 0.05)
    assert (newer.schedule, newer.data) == (plain.schedule, plain.data)


def test_backbone_and_features(case: Case) -> None:
    detector = case.recipe.detector
    backbone = detector.backbone
    assert isinstance(backbone, ResNetConfig)
    assert backbone.depth == (50 if "/r50" in case.name else 101)
    assert (backbone.groups, backbone.base_width) == {"/x101-32": (32, 4), "/x101-64": (64, 4)}.get(
        case.name[case.name.index("/") :][:8], (1, 64)
    )
    assert backbone.style == ("caffe" if case.caffe else "pytorch")
    assert isinstance(backbone.norm, FrozenBatchNormConfig) == case.caffe
    assert backbone.frozen_stages == 1
    assert detector.preprocess.order == ("bgr" if case.caffe else "rgb")
    assert detector.neck == (None if case.c4 else FPNConfig())
    assert backbone.stages == ((3,) if case.c4 else (1, 2, 3, 4))


def test_the_first_stage_keeps_the_settings_of_2019(case: Case) -> None:
    assert case.recipe.detector.dense_head == RPNConfig(
        channels=1024 if case.c4 else 256,
        anchors=GridAnchorsConfig(scales=(2.0, 4.0, 8.0, 16.0, 32.0) if case.c4 else (8.0,)),
        assigner=MaxIoUAssignerConfig(positive=0.7, negative=0.3, low_quality=True, min_positive=0.3),
        sampler=RandomSamplerConfig(count=256, positive_fraction=0.5),
        box_loss=SmoothL1Config(beta=1 / 9),
        allowed_border=0,
        train_limits=ProposalLimits(before_nms=12000 if case.c4 else 2000, after_nms=2000),
        test_limits=ProposalLimits(before_nms=6000 if case.c4 else 1000, after_nms=1000),
    )


def test_the_stages(case: Case) -> None:
    pool = RoIAlignConfig(size=14 if case.c4 else 7, strides=(16,) if case.c4 else (4, 8, 16, 32))
    backbone = case.recipe.detector.backbone
    assert isinstance(backbone, ResNetConfig)
    trunk = ResNetStageConfig(
        depth=backbone.depth, number=4, stride=2, style=backbone.style, norm=backbone.norm,
        pretrained=backbone.pretrained,
    )  # fmt: skip
    masks = ConvMaskHeadConfig(num_convs=0 if case.c4 else 4, channels=256)
    assert case.recipe.detector.roi_head == CascadeHeadConfig(
        roi_pool=pool,
        trunk=trunk if case.c4 else None,
        box_head=FCBoxHeadConfig(num_fcs=0 if case.c4 else 2, fc_channels=1024, class_agnostic=True),
        mask_roi_pool=attrs.evolve(pool, size=14) if case.masks and not case.c4 else None,
        mask_head=masks if case.masks else None,
        stages=THREE_STAGES,
        score_threshold=0.05,
        nms_threshold=0.5,
        max_detections=100,
        mask_threshold=0.5,
    )


def test_data_schedule_and_evaluation(case: Case) -> None:
    recipe = case.recipe
    resize = ResizeConfig(scales=((1333, 800),), keep_ratio=True)
    assert recipe.data.train == CocoConfig(split="train", filter_empty=True, min_size=32)
    assert recipe.data.train_transforms == (resize, FlipConfig(probability=0.5))
    assert recipe.data.test_transforms == (resize,)
    assert (recipe.optimizer.type, recipe.optimizer.lr, recipe.optimizer.lr_batch) == ("sgd", 0.02, 16)
    expected = {"1x": (12, (8, 11)), "20e": (20, (16, 19))}[case.name.rpartition("-")[2]]
    assert (recipe.schedule.epochs, recipe.schedule.learning_rate.milestones) == expected
    kinds = ("box", "mask") if case.masks else ("box",)
    assert recipe.evaluation.evaluators == (CocoEvaluatorConfig(kinds=kinds, max_detections=100),)
    assert recipe.detector.needs_masks() == case.masks


def test_every_row_has_published_figures(case: Case) -> None:
    figures = case.recipe.published
    assert figures is not None
    assert figures.box_ap is not None
    assert (figures.mask_ap is not None) == case.masks
    assert (figures.modern_box_ap is None) == case.c4
    assert (figures.modern_mask_ap is not None) == (case.masks and not case.c4)
    assert (figures.memory_gb is not None) == case.name.endswith("1x")


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_figures(name: str) -> None:
    (box, *mask), memory, seconds, fps, modern, modern_memory = PUBLISHED[name]
    assert load_recipe(name).published == Published(
        box_ap=box,
        mask_ap=mask[0] if mask else None,
        memory_gb=memory,
        train_s_per_iter=seconds,
        inference_fps=fps,
        modern_box_ap=modern[0] if modern else None,
        modern_mask_ap=modern[1] if len(modern) > 1 else None,
        modern_memory_gb=modern_memory,
    )


@pytest.mark.parametrize("name", [*ZOO, *DEMOS])
def test_every_recipe_builds_and_goes_through_yaml(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe_from_plain(recipe.to_plain()) == recipe
    with torch.device("meta"):
        detector = recipe.detector.build(num_classes=80)
    assert detector.needs_masks == ("mask-rcnn/" in name)


R50 = 25_557_032 - 2048 * 1000 - 1000  # ResNet-50 without its classifier
RES5 = 14_964_736  # its last stage
CONV = 256 * 256 * 9 + 256


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "cascade-mask-rcnn/r50-fpn-1x",
            {
                "backbone": R50,
                "neck": (256 + 512 + 1024 + 2048) * 256 + 4 * 256 + 4 * CONV,
                "dense_head": CONV + 257 * 3 + 257 * 12,
                "roi_head.box_heads": 3 * ((49 * 256 + 1) * 1024 + 1025 * 1024 + 1025 * 81 + 1025 * 4),
                "roi_head.mask_heads": 3 * (4 * CONV + (256 * 256 * 4 + 256) + 257 * 80),
            },
        ),
        (
            "cascade-mask-rcnn/r50-caffe-c4-1x",
            {
                "backbone": R50 - RES5,
                "dense_head": (1024 * 1024 * 9 + 1024) + 1025 * 15 + 1025 * 60,
                "roi_head.trunk": RES5,
                "roi_head.box_heads": 3 * (2049 * 81 + 2049 * 4),
                "roi_head.mask_heads": 3 * ((2048 * 256 * 4 + 256) + 257 * 80),
            },
        ),
    ],
)
def test_the_number_of_parameters_part_by_part(name: str, expected: dict[str, int]) -> None:
    with torch.device("meta"):
        detector = load_recipe(name).detector.build(num_classes=80)
    tensors = {key: value.numel() for key, value in detector.state_dict().items()}
    counters = ("running_mean", "running_var", "num_batches_tracked")
    found = {
        part: sum(n for key, n in tensors.items() if key.startswith(f"{part}.") and not key.endswith(counters))
        for part in expected
    }
    assert found == expected


@pytest.mark.parametrize("name", DEMOS)
def test_the_demos_train_a_small_model_on_the_bundled_sample(name: str) -> None:
    recipe = load_recipe(name)
    assert isinstance(recipe.data.train, SampleConfig)
    assert isinstance(recipe.data.val, SampleConfig)
    head = recipe.detector.roi_head
    single = load_recipe("mask-rcnn/r18-fpn-demo" if "mask" in name else "faster-rcnn/r18-fpn-demo").detector.roi_head
    assert isinstance(head, CascadeHeadConfig)
    assert head.mask_head == single.mask_head
    assert [s.loss_weight for s in head.stages] == [1.0, 0.5, 0.25]
    assert {s.sampler for s in head.stages} == {single.sampler}
    detector = recipe.detector.build(num_classes=1)
    assert sum(p.numel() for p in detector.parameters()) < 24e6
    assert getattr(recipe.detector.backbone, "pretrained", "") is None  # nothing is downloaded


def test_what_the_plugin_trains_by_itself() -> None:
    marked = {kind: [e.name for e in ENTRIES if getattr(e, kind)] for kind in ("default", "demo")}
    assert marked == {"default": ["cascade-mask-rcnn/r50-fpn-1x"], "demo": ["cascade-mask-rcnn/r18-fpn-demo"]}


def test_the_contract_of_the_plugin() -> None:
    contract_checks.check_plugin("cascade")
