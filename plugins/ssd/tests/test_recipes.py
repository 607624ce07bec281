"""SSD's recipes, setting by setting against the published tables; torchvision's conventions, and the demo."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from det_core.boxes.box_config import DeltaCoderConfig, MaxIoUAssignerConfig
from det_core.cli.main import cli
from det_core.data.data_config import CocoConfig, FlipConfig, ResizeConfig, SampleConfig, VocConfig
from det_core.data.loader import prepare
from det_core.engine.predict import to_batch, to_targets
from det_core.errors import ConfigError
from det_core.evaluation.metric_config import CocoEvaluatorConfig, VocEvaluatorConfig
from det_core.load import load_recipe, recipe_from_plain
from det_core.model.detector_config import PreprocessConfig
from det_core.model.loss_config import CrossEntropyConfig, SmoothL1Config
from det_core.plugins import plugin_manager
from det_core.recipe import Published, Recipe
from det_core.structures import Key
from det_core.testing import contract_checks
from det_plugin_ssd.augment_config import IoUCropConfig, PhotometricDistortConfig, ZoomOutConfig
from det_plugin_ssd.config import (
    COCO_300,
    COCO_512,
    EXTRA_300,
    EXTRA_512,
    VOC_300,
    VOC_512,
    SSDAnchorsConfig,
    SSDHeadConfig,
    SSDNeckConfig,
    VGGConfig,
)
from det_plugin_ssd.recipes import ENTRIES, ROWS

CASES = Path(__file__).parents[3] / "tests" / "parity" / "cases"

# (GB, s/iter, images/s, images/s in batches of 8) of 2019; COCO also AP of 2019, AP and GB of its modern re-run.
COCO = {
    "ssd/vgg16-300-coco-120e": (3.5, 0.256, 25.9, 34.6, 25.7, 25.5, 9.9),
    "ssd/vgg16-512-coco-120e": (7.6, 0.412, 20.7, 25.4, 29.3, 29.5, 19.4),
}
VOC = {
    "ssd/vgg16-300-voc-240e": (2.5, 0.159, 35.7, 53.6, 77.5),
    "ssd/vgg16-512-voc-240e": (4.3, 0.214, 27.5, 35.9, 80.0),
}
ZOO = (*COCO, *VOC)
OTHERS = ("ssd/torchvision-vgg16-300", "ssd/vgg16-demo")


@pytest.fixture(scope="module", params=ZOO)
def recipe(request: pytest.FixtureRequest) -> Recipe:
    return load_recipe(request.param)


def size_of(recipe: Recipe) -> int:
    return int(recipe.name.split("-")[1])


def head_of(recipe: Recipe) -> SSDHeadConfig:
    head = recipe.detector.dense_head
    assert isinstance(head, SSDHeadConfig)
    return head


def test_the_names() -> None:
    assert sorted(row.name for row in ROWS) == sorted(ZOO)
    assert sorted(entry.name for entry in ENTRIES if entry.weights_of != "mmdet1") == sorted([*ZOO, *OTHERS])
    marked = {kind: [e.name for e in ENTRIES if getattr(e, kind)] for kind in ("default", "demo")}
    assert marked == {"default": ["ssd/vgg16-300-coco-120e"], "demo": ["ssd/vgg16-demo"]}


@pytest.mark.parametrize("name", COCO)
def test_figures_on_coco(name: str) -> None:
    memory, seconds, fps, batched, box, modern_box, modern_memory = COCO[name]
    assert load_recipe(name).published == Published(
        box_ap=box,
        memory_gb=memory,
        train_s_per_iter=seconds,
        inference_fps=fps,
        modern_box_ap=modern_box,
        modern_memory_gb=modern_memory,
        note=f"{batched} images per second in batches of 8",
    )


@pytest.mark.parametrize("name", VOC)
def test_figures_on_voc(name: str) -> None:
    memory, seconds, fps, batched, ap = VOC[name]
    assert load_recipe(name).published == Published(
        voc_ap50=ap,
        memory_gb=memory,
        train_s_per_iter=seconds,
        inference_fps=fps,
        dataset="voc",
        note=f"{batched} images per second in batches of 8",
    )


def test_figures_on_voc_are_listed_apart_from_those_on_coco() -> None:
    lines = CliRunner().invoke(cli, ["recipes", "--model", "ssd"]).output.splitlines()
    assert lines[0] == "ssd: boxes, at every location in one stage (Liu et al., 2016)"
    title = lines[1]
    assert title.split()[:4] == ["box", "AP", "VOC", "AP50"]
    coco, voc = (next(x for x in lines if x.startswith(f"ssd/vgg16-300-{data}")) for data in ("coco", "voc"))
    assert coco.index("(25.5)") < title.index("VOC AP50") < voc.index("77.5")


def test_backbone_and_levels(recipe: Recipe) -> None:
    large = size_of(recipe) == 512
    assert recipe.detector.preprocess == PreprocessConfig(
        order="rgb", mean=(123.675, 116.28, 103.53), std=(1.0, 1.0, 1.0), pad_divisor=1
    )
    assert recipe.detector.backbone == VGGConfig(
        channels=64, norm=None, pretrained="torchvision:vgg16@IMAGENET1K_FEATURES"
    )
    assert recipe.detector.neck == SSDNeckConfig(scale=20.0, extra=EXTRA_512 if large else EXTRA_300)
    assert recipe.detector.feature_spec().strides == (
        (8, 16, 32, 64, 128, 256, 512) if large else (8, 16, 32, 64, 100, 300)
    )


SIZES = {
    "ssd/vgg16-300-coco-120e": (COCO_300, (21, 45, 99, 153, 207, 261, 315)),
    "ssd/vgg16-512-coco-120e": (COCO_512, (20, 51, 133, 215, 296, 378, 460, 542)),
    "ssd/vgg16-300-voc-240e": (VOC_300, (30, 60, 111, 162, 213, 264, 315)),
    "ssd/vgg16-512-voc-240e": (VOC_512, (35, 76, 153, 230, 307, 384, 460, 537)),
}


def test_the_head(recipe: Recipe) -> None:
    anchors, sizes = SIZES[recipe.name]
    assert anchors.sizes == sizes
    middle = 4 if size_of(recipe) == 512 else 3
    assert anchors.ratios == ((2.0,), *[(2.0, 3.0)] * middle, (2.0,), (2.0,))
    assert head_of(recipe) == SSDHeadConfig(
        anchors=anchors,
        coder=DeltaCoderConfig(means=(0.0, 0.0, 0.0, 0.0), stds=(0.1, 0.1, 0.2, 0.2)),
        assigner=MaxIoUAssignerConfig(positive=0.5, negative=0.5, low_quality=True, min_positive=0.0, all_ties=False),
        cls_loss=CrossEntropyConfig(),
        box_loss=SmoothL1Config(beta=1.0),
        negatives=3.0,
        candidates="level",
        before_nms=1000,
        min_size=0.0,
        score_threshold=0.02,
        nms_threshold=0.45,
        max_detections=200,
        nms_in="original",
    )


def test_data_and_augmentation(recipe: Recipe) -> None:
    resize = ResizeConfig(scales=((size_of(recipe),) * 2,), keep_ratio=False)
    assert recipe.data.train_transforms == (
        ZoomOutConfig(fill=(123.675, 116.28, 103.53), sides=(1.0, 4.0), probability=0.5),
        IoUCropConfig(overlaps=(0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0), sides=(0.3, 1.0), aspects=(0.5, 2.0), tries=50),
        resize,
        FlipConfig(probability=0.5),
        PhotometricDistortConfig(
            brightness=(0.875, 1.125), contrast=(0.5, 1.5), saturation=(0.5, 1.5), hue=(-0.05, 0.05), probability=0.5
        ),
    )
    assert recipe.data.test_transforms == (resize,)
    assert not recipe.data.group_by_aspect
    if recipe.name in COCO:
        assert recipe.data.train == CocoConfig(split="train", filter_empty=True, min_size=32)
        assert recipe.data.val == CocoConfig(split="val")
        assert (recipe.data.repeat, recipe.data.images_per_rank) == (5, 8)
    else:
        sets = ("VOC2007/trainval", "VOC2012/trainval")
        assert recipe.data.train == VocConfig(split="train", sets=sets, filter_empty=True, min_size=32)
        assert recipe.data.val == VocConfig(split="val", sets=("VOC2007/test",))
        assert (recipe.data.repeat, recipe.data.images_per_rank) == (10, 4)


def test_schedule_and_metric(recipe: Recipe) -> None:
    optimizer, schedule = recipe.optimizer, recipe.schedule
    rate, batch, last = (2e-3, 64, 22) if recipe.name in COCO else (1e-3, 32, 20)
    assert (optimizer.type, optimizer.lr, optimizer.lr_batch) == ("sgd", rate, batch)
    assert (optimizer.momentum, optimizer.weight_decay) == (0.9, 5e-4)
    assert (schedule.epochs, schedule.learning_rate.milestones, schedule.clip_norm) == (24, (16, last), None)
    assert (schedule.warmup_steps, schedule.warmup_factor) == (500, 0.001)
    evaluation = recipe.evaluation
    if recipe.name in COCO:
        assert evaluation.evaluators == (CocoEvaluatorConfig(kinds=("box",)),)
    else:
        assert evaluation.evaluators == (VocEvaluatorConfig(iou=0.5),)
        assert evaluation.best == "voc_map11"


def test_where_torchvision_departs() -> None:
    recipe, zoo = (load_recipe(name) for name in ("ssd/torchvision-vgg16-300", "ssd/vgg16-300-coco-120e"))
    head = head_of(recipe)
    assert isinstance(head.anchors, SSDAnchorsConfig)
    assert (head.anchors.sizes, head.anchors.longest) == (COCO_300.sizes, 300.0)
    assert (head.candidates, head.before_nms, head.score_threshold) == ("class", 400, 0.01)
    assert (head.min_size, head.nms_in) == (-1.0, "network")
    resize = ResizeConfig(scales=((300, 300),), keep_ratio=False, arithmetic="float")
    assert recipe.data.test_transforms == (resize,)
    kinds = [[t.type for t in r.data.train_transforms] for r in (recipe, zoo)]
    assert kinds[0] == [kinds[1][-1], *kinds[1][:-1]]  # colours first
    assert recipe.data.train_transforms[3] == resize
    assert recipe.published is None


@pytest.mark.parametrize("name", ["300", "512"])
def test_weights_are_the_reference_s(name: str) -> None:
    """As many, and of these shapes."""
    weights = json.loads((CASES / f"ssd{name}_coco.json").read_text())["weights"]
    with torch.device("meta"):
        detector = load_recipe(f"ssd/vgg16-{name}-coco-120e").detector.build(num_classes=80)
    ours, theirs = detector.state_dict().values(), [w["shape"] for w in weights.values()]
    assert sorted(list(v.shape) for v in ours) == sorted(theirs)
    assert sum(v.numel() for v in ours) == sum(math.prod(shape) for shape in theirs)


@pytest.mark.parametrize("name", [*ZOO, *OTHERS])
def test_every_recipe_builds_and_goes_through_yaml(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe_from_plain(recipe.to_plain()) == recipe
    with torch.device("meta"):
        detector = recipe.detector.build(num_classes=20)
    assert not detector.needs_masks


def test_the_demo_trains_on_the_bundled_sample() -> None:
    recipe = load_recipe("ssd/vgg16-demo")
    assert isinstance(recipe.data.train, SampleConfig)
    backbone = recipe.detector.backbone
    assert isinstance(backbone, VGGConfig)
    assert backbone.pretrained is None  # nothing is downloaded
    detector = recipe.detector.build(num_classes=1)
    assert sum(p.numel() for p in detector.parameters()) < 2e6
    data = recipe.open_train()
    transforms = [t.build() for t in recipe.data.train_transforms]
    loaded = [prepare(data.load(i), transforms, Key(index=i)) for i in range(2)]
    batch = to_batch(detector, loaded)
    terms = detector.train().losses(batch, to_targets(batch, loaded))
    assert set(terms) == {"ssd_cls", "ssd_box"}
    torch.stack([term.value() for term in terms.values()]).sum().backward()
    assert all(p.grad is not None for p in detector.parameters())


def refusal(*overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        load_recipe("ssd/vgg16-300-coco-120e", list(overrides))
    return str(error.value)


def test_mistakes_are_placed() -> None:
    assert "detector.dense_head.anchors.sizes: found 6 sizes for 6 levels; give one per level" in refusal(
        "detector.dense_head.anchors.sizes=[20, 40, 60, 80, 100, 120]"
    )
    assert "there are 5" in refusal("detector.neck.extra=[{spacing: 32}, {spacing: 64}, {spacing: 128}]")
    assert "detector.neck.extra[0].spacing: " in refusal("detector.neck.extra=[{channels: 64}]")
    assert "detector.neck.extra[0].channels: found 1, expected at least 2" in refusal(
        "detector.neck.extra=[{channels: 1, spacing: 32}]"
    )
    assert "detector.neck.scale: found 0, expected above 0" in refusal("detector.neck.scale=0")
    assert "detector.backbone.channels: found 0, expected at least 1" in refusal("detector.backbone.channels=0")


def test_the_contract_of_the_plugin() -> None:
    assert plugin_manager().plugin("ssd").provides["transform"] == ["photometric_distort", "zoom_out", "iou_crop"]
    contract_checks.check_plugin("ssd", build=False)
