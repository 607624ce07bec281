"""Stronger training of Faster and Mask R-CNN: its figures and settings, and that it trains on the sample."""

from __future__ import annotations

import pytest
import torch

from det_core.compressed_masks import bitmaps_of, mask_boxes
from det_core.data.augmentation_config import CopyPasteConfig, FixedSizeCropConfig, ScaleJitterConfig
from det_core.data.data_config import FlipConfig, ResizeConfig
from det_core.data.loader import prepare
from det_core.engine.predict import to_batch, to_targets
from det_core.load import load_recipe
from det_core.model.layer_config import BatchNormConfig
from det_core.optim.optimizer_config import AdamWConfig, SGDConfig
from det_core.plugins import plugin_manager
from det_core.recipe import Recipe
from det_core.structures import Key
from det_core.testing.contract_checks import check_backward
from det_plugin_fpn.config import FPNConfig
from det_plugin_rcnn.config import ConvMaskHeadConfig, FCBoxHeadConfig, RCNNHeadConfig, RPNConfig
from det_plugin_rcnn.strong_recipes import ENTRIES, ROWS, TRAININGS
from det_plugin_resnet.config import ResNetConfig

# Name: published AP of boxes and masks, and memory.
PUBLISHED = {
    "faster-rcnn/r50-fpn-ms-3x": (40.3, None, 3.9),
    "faster-rcnn/r101-fpn-ms-3x": (41.8, None, 5.8),
    "faster-rcnn/x101-32x4d-fpn-ms-3x": (42.5, None, 7.0),
    "faster-rcnn/x101-64x4d-fpn-ms-3x": (43.1, None, 10.0),
    "faster-rcnn/r50-fpn-rsb-1x": (40.8, None, 3.9),
    "faster-rcnn/r50-fpn-tnr-1x": (40.2, None, None),
    "mask-rcnn/r50-fpn-ms-3x": (40.9, 37.1, 4.1),
    "mask-rcnn/r101-fpn-ms-3x": (42.7, 38.5, 6.1),
    "mask-rcnn/x101-32x4d-fpn-ms-3x": (43.6, 39.0, 7.3),
    "mask-rcnn/x101-64x4d-fpn-ms-3x": (44.5, 39.7, 10.4),
    "mask-rcnn/r50-fpn-rsb-1x": (41.2, 38.2, 4.5),
    "mask-rcnn/r50-fpn-syncbn-lsj-100e": (None, None, None),
    "mask-rcnn/r50-caffe-fpn-syncbn-lsj-100e": (44.7, 40.4, None),
    "mask-rcnn/r50-caffe-fpn-syncbn-lsj-400e": (None, None, None),
    "mask-rcnn/r50-fpn-syncbn-ssj-90k": (43.3, 39.2, None),
    "mask-rcnn/r50-fpn-syncbn-ssj-270k": (43.5, 39.1, None),
    "mask-rcnn/r50-fpn-syncbn-ssj-scp-90k": (43.9, 39.2, None),
    "mask-rcnn/r50-fpn-syncbn-ssj-scp-270k": (45.1, 40.3, None),
}
DEMOS = ("mask-rcnn/r18-fpn-lsj-demo", "mask-rcnn/r18-fpn-copy-paste-demo")
SCRATCH = [row.name for row in ROWS if row.variant.startswith("syncbn")]
SQUARE = FixedSizeCropConfig(size=(1024, 1024), boxes="masks")


def test_figures() -> None:
    found = {row.name: row.published for row in ROWS}
    assert {name: (p.box_ap, p.mask_ap, p.memory_gb) for name, p in found.items()} == PUBLISHED
    assert {p.source for p in found.values()} == {"mmdetection model zoo"}
    assert {name for name, p in found.items() if p.note} == {n for n, (ap, *_) in PUBLISHED.items() if ap is None}
    assert {row.variant for row in ROWS} == set(TRAININGS)
    assert {entry.name for entry in ENTRIES} == {
        *PUBLISHED,
        *DEMOS,
        "faster-rcnn/torchvision-r50-fpn-v2-400e",
        "mask-rcnn/torchvision-r50-fpn-v2-400e",
    }
    assert not any(entry.default or entry.demo for entry in ENTRIES)


@pytest.mark.parametrize("model", ["faster-rcnn", "mask-rcnn"])
def test_many_image_sizes(model: str) -> None:
    recipe, plain = load_recipe(f"{model}/r50-fpn-ms-3x"), load_recipe(f"{model}/r50-fpn-1x")
    assert (recipe.detector, recipe.optimizer) == (plain.detector, plain.optimizer)
    assert recipe.data.train_transforms == (
        ResizeConfig(scales=((1333, 640), (1333, 800)), mode="range"),
        FlipConfig(),
    )
    assert recipe.data.test_transforms == plain.data.test_transforms
    assert (recipe.data.repeat, recipe.schedule.epochs, recipe.schedule.learning_rate.milestones) == (3, 12, (9, 11))


@pytest.mark.parametrize(
    ("variant", "weights", "lr", "decay"),
    [
        ("rsb", "mmcls:resnet50_rsb_a1", 2e-4, 0.05),
        ("tnr", "torchvision:resnet50@IMAGENET1K_V2", 1e-4, 0.1),
    ],
)
def test_newer_weights(variant: str, weights: str, lr: float, decay: float) -> None:
    recipe, plain = load_recipe(f"faster-rcnn/r50-fpn-{variant}-1x"), load_recipe("faster-rcnn/r50-fpn-1x")
    backbone = recipe.detector.backbone
    assert isinstance(backbone, ResNetConfig)
    assert backbone.pretrained == weights
    assert recipe.optimizer == AdamWConfig(lr=lr, lr_batch=16, weight_decay=decay, norm_weight_decay=0.0)
    assert (recipe.data, recipe.schedule) == (plain.data, plain.schedule)
    assert (recipe.detector.neck, recipe.detector.roi_head) == (plain.detector.neck, plain.detector.roi_head)


@pytest.mark.parametrize("name", SCRATCH)
def test_models_from_random_weights(name: str) -> None:
    """Nothing is frozen, norms are everywhere but in the RPN, and their statistics are of all processes."""
    detector, norm = load_recipe(name).detector, BatchNormConfig(synchronised=True)
    backbone, rpn, head = detector.backbone, detector.dense_head, detector.roi_head
    assert isinstance(backbone, ResNetConfig)
    assert (backbone.norm, backbone.frozen_stages, backbone.pretrained) == (norm, -1, None)
    assert backbone.style == ("caffe" if "-caffe-" in name else "pytorch")
    assert detector.preprocess.order == ("bgr" if "-caffe-" in name else "rgb")
    assert isinstance(rpn, RPNConfig)
    assert rpn.num_convs == 2
    assert detector.neck == FPNConfig(norm=norm)
    assert isinstance(head, RCNNHeadConfig)
    assert head.box_head == FCBoxHeadConfig(num_convs=4, num_fcs=1, norm=norm)
    assert head.mask_head == ConvMaskHeadConfig(num_convs=4, norm=norm)


@pytest.mark.parametrize("name", SCRATCH)
def test_training_from_random_weights(name: str) -> None:
    recipe = load_recipe(name)
    factors = (0.1, 2.0) if "-lsj-" in name else (0.8, 1.25)
    expected = (ScaleJitterConfig(size=(1024, 1024), factors=factors), SQUARE, FlipConfig())
    pasting = (CopyPasteConfig(max_objects=100),) if "-scp-" in name else ()
    assert recipe.data.train_transforms == (*expected, *pasting)
    assert recipe.data.test_transforms == (ResizeConfig(scales=((1333, 800),)),)
    assert not recipe.data.group_by_aspect
    assert recipe.optimizer == SGDConfig(lr=0.1, lr_batch=64, momentum=0.9, weight_decay=4e-5)
    assert (recipe.schedule.warmup_steps, recipe.schedule.warmup_factor) == (500, 0.067)
    passes = recipe.data.repeat * recipe.schedule.epochs
    assert passes == {"100e": 100, "400e": 400, "90k": 49, "270k": 147}[name.rpartition("-")[2]]


@pytest.mark.parametrize("model", ["faster-rcnn", "mask-rcnn"])
def test_torchvision_s_second_version(model: str) -> None:
    """Its training command: --epochs 400 --lr-steps 352 384 --lr 0.1 --batch-size 2 (on 32 GPUs) --weight-decay 0.00004
    --sync-bn --data-augmentation lsj.
    """
    recipe, weights = (
        load_recipe(f"{model}/torchvision-r50-fpn-v2-400e"),
        load_recipe(f"{model}/torchvision-r50-fpn-v2"),
    )
    assert recipe.data.train_transforms == (
        ScaleJitterConfig(rounding="down", arithmetic="antialiased"),
        FixedSizeCropConfig(fill=(123.0, 117.0, 104.0)),
        FlipConfig(),
    )
    assert (recipe.schedule.epochs, recipe.schedule.learning_rate.milestones) == (400, (352, 384))
    assert (recipe.optimizer.lr, recipe.optimizer.lr_batch, recipe.optimizer.weight_decay) == (0.1, 64, 4e-5)
    assert recipe.trains_on_masks() == (model == "mask-rcnn")
    assert recipe.published is not None
    assert weights.published is not None
    assert recipe.published.box_ap == weights.published.box_ap == {"faster-rcnn": 46.7, "mask-rcnn": 47.4}[model]
    backbone = recipe.detector.backbone
    assert isinstance(backbone, ResNetConfig)
    assert (backbone.frozen_stages, backbone.pretrained) == (-1, None)
    assert (recipe.detector.neck, recipe.detector.roi_head) == (weights.detector.neck, weights.detector.roi_head)
    assert recipe.data.test_transforms == weights.data.test_transforms


@pytest.mark.parametrize("name", ["r50-fpn-lsj-100e", "r101-fpn-lsj-400e"])
def test_detectron2_s_large_scale_jitter(name: str) -> None:
    recipe = load_recipe(f"mask-rcnn/detectron2-{name}")
    assert recipe.data.train_transforms == (
        ScaleJitterConfig(arithmetic="antialiased"),
        FixedSizeCropConfig(boxes="masks", fill=(128.0, 128.0, 128.0)),
        FlipConfig(),
    )
    assert recipe.data.test_transforms[0] == ResizeConfig(scales=((1333, 800),), arithmetic="antialiased")
    assert (recipe.optimizer.lr, recipe.optimizer.lr_batch, recipe.optimizer.weight_decay) == (0.1, 64, 4e-5)
    assert (recipe.schedule.warmup_steps, recipe.schedule.warmup_factor) == (500, 0.067)


def test_all_models_that_paste_are_given_masks() -> None:
    """Also a detector of boxes alone."""
    recipe = load_recipe("faster-rcnn/r18-fpn-demo", ["data.train_transforms=[{type: copy_paste}]"])
    assert not recipe.detector.needs_masks()
    assert recipe.trains_on_masks()
    assert recipe.open_train().load(0).masks is not None
    assert load_recipe("faster-rcnn/r18-fpn-demo").open_train().load(0).masks is None


def loaded_batch(recipe: Recipe, seed: int) -> list[object]:
    data = recipe.open_train()
    transforms = [t.build() for t in recipe.data.train_transforms]
    return [prepare(data.load(i), transforms, Key(seed=seed, index=i), data) for i in (2, 9)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", DEMOS)
def test_demos_give_finite_losses_of_consistent_targets(name: str, seed: int) -> None:
    recipe = load_recipe(name)
    torch.manual_seed(seed)
    detector = recipe.detector.build(num_classes=1)
    loaded = loaded_batch(recipe, seed)
    batch = to_batch(detector, loaded)  # type: ignore[arg-type]
    targets = to_targets(batch, loaded)  # type: ignore[arg-type]
    assert batch.padded_size == (320, 320)
    for target in targets:
        masks = bitmaps_of(target.masks)
        assert masks is not None
        assert masks.shape == (len(target), 320, 320)
        seen = masks.bool().any(2).any(1)
        assert float((mask_boxes(masks[seen]) - target.boxes[seen]).abs().max()) <= 4
    losses = check_backward(detector.train(), detector.losses(batch, targets))
    assert "roi_mask" in losses


@pytest.mark.parametrize("name", ["mask-rcnn/r50-fpn-syncbn-ssj-scp-90k", "mask-rcnn/detectron2-r50-fpn-lsj-100e"])
def test_a_full_model_trains_on_the_sample(name: str) -> None:
    """One step with small crops: its norms, its heads and its transforms fit each other."""
    small = ["data.train={type: sample, split: train}", "data.train_transforms[0].size=[128, 128]"]
    recipe = load_recipe(name, [*small, "data.train_transforms[1].size=[128, 128]"])
    detector = recipe.detector.build(num_classes=1)
    loaded = loaded_batch(recipe, 0)
    batch = to_batch(detector, loaded)  # type: ignore[arg-type]
    check_backward(detector.train(), detector.losses(batch, to_targets(batch, loaded)))  # type: ignore[arg-type]


def test_entries_need_no_other_plugin() -> None:
    assert not any(entry.missing() for entry in ENTRIES)
    assert all(plugin_manager().recipe_owner(entry.name).name == "rcnn" for entry in ENTRIES)
