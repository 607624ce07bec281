"""`det-core import-config`: recipes from configuration files of mmdetection 1.x, 2.x and 3.x."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from mmdet_configs import (
    BASES_2,
    BASES_3,
    CONVNEXT,
    FAST,
    FASTER_0,
    FASTER_1,
    GA_RETINA,
    GA_RPN,
    NEXT,
    PURE,
    PURE_FILE,
    RPN_ALONE,
    SSD,
    STANDARDISED,
    SWIN,
    htc_1,
    on_bases,
)

from det_core.cli.main import run
from det_core.errors import DetError
from det_core.import_config.import_config import import_config
from det_core.import_config.imported_config import ImportedConfig
from det_core.load import load_recipe
from det_core.weights.mmdet_config_files import read_config_file

CLASSES = "('bolt', 'nut', 'washer')"


def lay_out(folder: Path, files: dict[str, str], text: str) -> Path:
    """Write a configuration beside its bases."""
    for name, content in {**files, "x/mine.py": text}.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf8")
    return folder / "x" / "mine.py"


@pytest.fixture
def imported(tmp_path):
    def make(files: dict[str, str], text: str, *options: str) -> ImportedConfig:
        return import_config(lay_out(tmp_path, files, text), options)

    return make


def line_of(text: str, part: str) -> int:
    """The line, from 1, of the first appearance of a part of a text."""
    return text[: text.index(part)].count("\n") + 1


def notes(made: ImportedConfig) -> list[str]:
    """Notes with the names of their files, without folders."""
    return [f"{Path(n.place.file).name}:{n.place.line}: {n.key}: {n.why}" for n in made.notes]


# Configurations of the published models are the built-in recipes.

DCN = """
model = dict(backbone=dict(
    dcn=dict(type='DCN', deform_groups=1, fallback_on_stride=False), stage_with_dcn=(False, True, True, True)))
"""
CAFFE = """
model = dict(backbone=dict(
    norm_cfg=dict(requires_grad=False), style='caffe',
    init_cfg=dict(type='Pretrained', checkpoint='open-mmlab://detectron2/resnet50_caffe')))
norm = dict(mean=[103.530, 116.280, 123.675], std=[1.0, 1.0, 1.0], to_rgb=False)
train_pipeline = [
    dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', img_scale=(1333, 800), keep_ratio=True), dict(type='RandomFlip', flip_ratio=0.5),
    dict(type='Normalize', **norm), dict(type='Pad', size_divisor=32), dict(type='DefaultFormatBundle'),
    dict(type='Collect', keys=['img', 'gt_bboxes', 'gt_labels'])]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='MultiScaleFlipAug', img_scale=(1333, 800), flip=False, transforms=[
        dict(type='Resize', keep_ratio=True), dict(type='RandomFlip'), dict(type='Normalize', **norm),
        dict(type='Pad', size_divisor=32), dict(type='ImageToTensor', keys=['img']),
        dict(type='Collect', keys=['img'])])]
data = dict(
    train=dict(pipeline=train_pipeline), val=dict(pipeline=test_pipeline), test=dict(pipeline=test_pipeline))
"""
HTC_DATA = """
train_pipeline = [
    dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True, with_mask=True, with_seg=True),
    dict(type='Resize', img_scale=(1333, 800), keep_ratio=True), dict(type='RandomFlip', flip_ratio=0.5),
    dict(type='Normalize', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True),
    dict(type='Pad', size_divisor=32), dict(type='SegRescale', scale_factor=1 / 8),
    dict(type='DefaultFormatBundle'),
    dict(type='Collect', keys=['img', 'gt_bboxes', 'gt_labels', 'gt_masks', 'gt_semantic_seg'])]
data = dict(train=dict(seg_prefix='data/coco/stuffthingmaps/train2017/', pipeline=train_pipeline))
"""


def on_caffe(model: str, more: str) -> tuple[dict[str, str], str]:
    """A configuration on one with a caffe-style backbone, and its bases."""
    base = on_bases(model, more=CAFFE).replace("../_base_/", "")
    return {**BASES_2, "_base_/caffe.py": base}, f"_base_ = ['../_base_/caffe.py']\n{more}"


PUBLISHED = {
    "1.x": ({}, FASTER_1, "faster-rcnn/mmdet1-r50-fpn-1x"),
    "before 1.0": ({}, FASTER_0, "faster-rcnn/mmdet1-r50-fpn-1x"),
    "HTC of 1.x": ({}, htc_1(), "htc/mmdet1-r50-fpn-1x"),
    "2.x": (BASES_2, on_bases("faster"), "faster-rcnn/r50-fpn-1x"),
    "3.x": (BASES_3, on_bases("faster"), "faster-rcnn/r50-fpn-1x"),
    "pure Python": (PURE, PURE_FILE, "faster-rcnn/r50-fpn-1x"),
    "Mask R-CNN": (BASES_2, on_bases("mask", "masks"), "mask-rcnn/r50-fpn-1x"),
    "RetinaNet": (BASES_2, on_bases("retina", more="optimizer = dict(lr=0.01)\n"), "retinanet/r50-fpn-1x"),
    "Cascade R-CNN with DCN": (BASES_2, on_bases("cascade", more=DCN), "cascade-rcnn/r50-fpn-dconv-c3-c5-1x"),
    "caffe": (BASES_2, on_bases("faster", more=CAFFE), "faster-rcnn/r50-caffe-fpn-1x"),
    "RPN": (BASES_2, on_bases("faster", more=RPN_ALONE), "rpn/r50-fpn-1x"),
    "Fast R-CNN": (BASES_2, on_bases("faster", more=FAST), "fast-rcnn/r50-fpn-1x"),
    "ResNeXt": (BASES_2, on_bases("faster", more=NEXT), "faster-rcnn/x101-32x4d-fpn-1x"),
    "group norm and standardised weights": (
        *(BASES_2, on_bases("faster", more=STANDARDISED), "faster-rcnn/r50-fpn-gn-ws-1x"),
    ),
    "HTC": (BASES_2, on_bases("htc", "masks", HTC_DATA), "htc/r50-fpn-1x"),
    "GA-Faster R-CNN": (*on_caffe("faster", GA_RPN), "ga-faster-rcnn/r50-caffe-fpn-1x"),
    "GA-RetinaNet": (*on_caffe("retina", GA_RETINA), "ga-retinanet/r50-caffe-fpn-1x"),
    "Swin": (BASES_3, on_bases("mask", more=SWIN), "mask-rcnn/swin-t-fpn-1x"),
    "SSD": (BASES_3, SSD, "ssd/vgg16-300-coco-120e"),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_configuration_is_the_recipe(name, imported):
    """The whole recipe but for the folder of the data, and so the same detector."""
    files, text, recipe = PUBLISHED[name]
    made = imported(files, text)
    assert made.base == recipe
    assert made.changes == {"data": {"root": "data/coco"}}
    built_in = load_recipe(recipe).to_plain()
    assert made.recipe.to_plain()["detector"] == built_in["detector"]
    expected = 2 if "mmdet1-" in recipe else 0  # the batch that the rate is for, and the run folder
    assert len(made.notes) == expected, notes(made)


# One change each, and the setting that it becomes.

CHANGES: list[tuple[str, str, str, Any]] = [
    ("model.backbone.depth=101", "2", "detector.backbone.depth", 101),
    ("model.backbone.depth=18", "2", "detector.backbone.depth", 18),
    ("model.backbone.frozen_stages=-1", "2", "detector.backbone.frozen_stages", -1),
    ("model.backbone.norm_eval=False", "2", "detector.backbone.norm.frozen_statistics", False),
    ("model.backbone.zero_init_residual=False", "2", "detector.backbone.zero_init_residual", False),
    ("model.backbone.init_cfg=None", "2", "detector.backbone.pretrained", None),
    ("model.neck.num_outs=6", "2", "detector.neck.levels", 6),
    ("model.neck.out_channels=128", "2", "detector.neck.channels", 128),
    ("model.rpn_head.anchor_generator.scales=[4,8]", "2", "detector.dense_head.anchors.scales", [4.0, 8.0]),
    ("model.rpn_head.anchor_generator.ratios=[1.0]", "2", "detector.dense_head.anchors.ratios", [1.0]),
    ("model.rpn_head.loss_bbox.loss_weight=2.0", "2", "detector.dense_head.box_loss.weight", 2.0),
    ("model.train_cfg.rpn.assigner.pos_iou_thr=0.8", "2", "detector.dense_head.assigner.positive", 0.8),
    ("model.train_cfg.rpn.sampler.num=128", "2", "detector.dense_head.sampler.count", 128),
    ("model.train_cfg.rpn_proposal.nms_pre=500", "2", "detector.dense_head.train_limits.before_nms", 500),
    ("model.train_cfg.rcnn.sampler.pos_fraction=0.5", "2", "detector.roi_head.sampler.positive_fraction", 0.5),
    ("model.train_cfg.rcnn.sampler.add_gt_as_proposals=False", "2", "detector.roi_head.add_ground_truth", False),
    ("model.roi_head.bbox_head.fc_out_channels=512", "2", "detector.roi_head.box_head.fc_channels", 512),
    ("model.roi_head.bbox_head.reg_class_agnostic=True", "2", "detector.roi_head.box_head.class_agnostic", True),
    ("model.roi_head.bbox_head.type=Shared4Conv1FCBBoxHead", "2", "detector.roi_head.box_head.num_convs", 4),
    ("model.roi_head.bbox_head.loss_bbox.type=SmoothL1Loss", "2", "detector.roi_head.box_loss.type", "smooth_l1"),
    ("model.roi_head.bbox_head.loss_bbox.type=GIoULoss", "2", "detector.roi_head.box_loss.type", "giou"),
    ("model.roi_head.bbox_head.loss_cls.type=FocalLoss", "2", "detector.roi_head.cls_loss.type", "focal"),
    (
        "model.roi_head.bbox_head.bbox_coder.target_stds=[1.0,1.0,1.0,1.0]",
        *("2", "detector.roi_head.coder.stds", [1.0] * 4),
    ),
    ("model.test_cfg.rcnn.score_thr=0.3", "2", "detector.roi_head.score_threshold", 0.3),
    ("model.test_cfg.rcnn.nms.type=soft_nms", "2", "detector.roi_head.soft_nms.method", "linear"),
    ("model.test_cfg.rcnn.max_per_img=300", "2", "detector.roi_head.max_detections", 300),
    ("data.samples_per_gpu=4", "2", "data.images_per_rank", 4),
    ("data.workers_per_gpu=0", "2", "data.workers", 0),
    ("data.train.filter_empty_gt=False", "2", "data.train.filter_empty", False),
    ("data.train.pipeline.3.flip_ratio=0.25", "2", "data.train_transforms[1].probability", 0.25),
    ("data.train.pipeline.3.direction=vertical", "2", "data.train_transforms[1].vertical_probability", 0.5),
    ("data.train.pipeline.2.keep_ratio=False", "2", "data.train_transforms[0].keep_ratio", False),
    ("data.test.pipeline.1.img_scale=(1000, 600)", "2", "data.test_transforms[0].scales", [[1000, 600]]),
    ("optimizer.lr=0.005", "2", "optimizer.lr", 0.005),
    ("optimizer.nesterov=True", "2", "optimizer.nesterov", True),
    ("optimizer.paramwise_cfg.norm_decay_mult=0", "2", "optimizer.norm_weight_decay", 0.0),
    ("optimizer_config.grad_clip.max_norm=35", "2", "schedule.clip_norm", 35.0),
    ("auto_scale_lr.base_batch_size=32", "2", "optimizer.lr_batch", 32),
    ("runner.max_epochs=24", "2", "schedule.epochs", 24),
    ("lr_config.step=[5]", "2", "schedule.learning_rate.milestones", [5]),
    ("lr_config.gamma=0.5", "2", "schedule.learning_rate.gamma", 0.5),
    ("lr_config.policy=CosineAnnealing", "2", "schedule.learning_rate.type", "cosine"),
    ("lr_config.policy=poly", "2", "schedule.learning_rate.type", "polynomial"),
    ("lr_config.warmup_iters=1000", "2", "schedule.warmup_steps", 1000),
    ("lr_config.warmup=None", "2", "schedule.warmup_steps", 0),
    ("fp16.loss_scale=512.", "2", "schedule.precision", "fp16"),
    ("evaluation.interval=3", "2", "evaluation.every_epochs", 3),
    ("seed=7", "2", "schedule.seed", 7),
    ("train_dataloader.batch_size=8", "3", "data.images_per_rank", 8),
    ("train_dataloader.batch_sampler=None", "3", "data.group_by_aspect", False),
    ("optim_wrapper.type=AmpOptimWrapper", "3", "schedule.precision", "fp16"),
    ("optim_wrapper.clip_grad.max_norm=1.0", "3", "schedule.clip_norm", 1.0),
    ("optim_wrapper.accumulative_counts=4", "3", "schedule.accumulate", 4),
    ("optim_wrapper.optimizer.type=AdamW", "3", "optimizer.type", "adamw"),
    ("param_scheduler.0.end=250", "3", "schedule.warmup_steps", 250),
    ("param_scheduler.1.milestones=[6,9]", "3", "schedule.learning_rate.milestones", [6, 9]),
    ("param_scheduler.1.type=PolyLR", "3", "schedule.learning_rate.type", "polynomial"),
    ("train_cfg.max_epochs=24", "3", "schedule.epochs", 24),
    ("train_cfg.val_interval=2", "3", "evaluation.every_epochs", 2),
    ("randomness.seed=3", "3", "schedule.seed", 3),
    ("model.data_preprocessor.pad_size_divisor=64", "3", "detector.preprocess.pad_divisor", 64),
    ("model.data_preprocessor.bgr_to_rgb=False", "3", "detector.preprocess.order", "bgr"),
]


def value_at(plain: Any, path: str) -> Any:
    for step in path.replace("[", ".").replace("]", "").split("."):
        plain = plain[int(step)] if isinstance(plain, list) else plain[step]
    return plain


@pytest.mark.parametrize(("option", "generation", "path", "value"), CHANGES, ids=[case[0] for case in CHANGES])
def test_a_value_of_the_configuration_becomes_a_setting(option, generation, path, value, imported):
    made = imported(BASES_2 if generation == "2" else BASES_3, on_bases("faster"), option)
    assert value_at(made.recipe.to_plain(), path) == value


def test_a_value_that_the_recipe_does_not_allow_is_listed_with_its_reason(imported):
    made = imported(BASES_2, on_bases("faster"), "model.backbone.depth=77", "optimizer.lr=0.01")
    assert made.changes == {"data": {"root": "data/coco"}, "optimizer": {"lr": 0.01}}
    assert [str(note) for note in made.notes] == [
        "--cfg-options: model.backbone.depth: is not taken over: detector.backbone.depth: found 77, allowed: 18, 34, "
        "50, 101, 152"
    ]


def test_norms_that_are_synchronised(imported):
    """Statistics that are fixed in training need not be."""
    option, path = "model.backbone.norm_cfg.type=SyncBN", "detector.backbone.norm"
    fixed = imported(BASES_2, on_bases("faster"), option)
    assert value_at(fixed.recipe.to_plain(), f"{path}.synchronised") is False
    moving = imported(BASES_2, on_bases("faster"), option, "model.backbone.norm_eval=False")
    assert value_at(moving.recipe.to_plain(), f"{path}.synchronised") is True
    assert value_at(moving.recipe.to_plain(), f"{path}.frozen_statistics") is False


OF_PARTS: dict[str, list[tuple[str, str, Any]]] = {
    "HTC": [
        ("model.roi_head.interleaved=False", "roi_head.interleaved", False),
        ("model.roi_head.mask_info_flow=False", "roi_head.information_flow", False),
        ("model.roi_head.semantic_head.num_classes=21", "roi_head.semantic.classes", 21),
        ("model.roi_head.semantic_head.loss_seg.loss_weight=0.5", "roi_head.semantic.loss_weight", 0.5),
        ("model.roi_head.semantic_fusion=['mask']", "roi_head.semantic.fuse_boxes", False),
        ("model.roi_head.bbox_head.2.bbox_coder.target_stds=[1.,1.,1.,1.]", "roi_head.stages[2].coder.stds", [1.0] * 4),
        ("model.train_cfg.rcnn.1.assigner.pos_iou_thr=0.65", "roi_head.stages[1].assigner.positive", 0.65),
        ("model.roi_head.mask_head.0.num_convs=2", "roi_head.mask_head.num_convs", 2),
    ],
    "GA-Faster R-CNN": [
        ("model.rpn_head.approx_anchor_generator.scales_per_octave=2", "dense_head.guided.scales_per_octave", 2),
        ("model.rpn_head.anchor_coder.target_stds=[1.,1.,1.,1.]", "dense_head.guided.coder.stds", [1.0] * 4),
        ("model.rpn_head.loc_filter_thr=0.02", "dense_head.guided.location_threshold", 0.02),
        ("model.rpn_head.loss_shape.loss_weight=0.1", "dense_head.guided.shape_loss.weight", 0.1),
        ("model.rpn_head.deform_groups=1", "dense_head.guided.offset_groups", 1),
        ("model.train_cfg.rpn.ga_assigner.pos_iou_thr=0.8", "dense_head.guided.shape_assigner.positive", 0.8),
        ("model.train_cfg.rpn.ga_sampler.num=64", "dense_head.guided.shape_sampler.count", 64),
        ("model.train_cfg.rpn.center_ratio=0.3", "dense_head.guided.centre_ratio", 0.3),
    ],
    "GA-RetinaNet": [("model.bbox_head.stacked_convs=2", "dense_head.num_convs", 2)],
}


@pytest.mark.parametrize("name", OF_PARTS)
def test_settings_of_htc_and_guided_anchoring(name, imported):
    files, text, _ = PUBLISHED[name]
    for option, path, value in OF_PARTS[name]:
        made = imported(files, text, option)
        assert value_at(made.recipe.to_plain()["detector"], path) == value, option


NOT_OF_PARTS: dict[str, list[tuple[str, str]]] = {
    "HTC": [
        ("model.roi_head.semantic_head.type=MyHead", "semantic head MyHead is not a part of this project"),
        ("model.roi_head.semantic_head.fusion_level=2", "maps are fused at stride 8"),
        ("model.roi_head.semantic_head.loss_seg.ignore_index=0", "0 has no counterpart here; pixels with 255 are"),
        ("model.roi_head.semantic_roi_extractor.type=Mine", "Mine is not a part of this project"),
        ("model.test_cfg.rcnn.keep_all_stages=True", "only the last stage's boxes are kept"),
        ("model.roi_head.mask_head.1.num_convs=2", "differs from the first stage's, which is used for all"),
        ("model.roi_head.mask_head=FCNMaskHead", "mask head 'FCNMaskHead' is not a part of this project"),
    ],
    "GA-Faster R-CNN": [
        ("model.rpn_head.square_anchor_generator.scales=[4]", "anchors begin as squares of the base scale"),
        ("model.rpn_head.square_anchor_generator.strides=[4,8]", "anchors have the strides of their feature maps"),
        ("model.train_cfg.rpn.ga_assigner.type=Mine", "assigner Mine is not a part of this project"),
    ],
}


@pytest.mark.parametrize("name", NOT_OF_PARTS)
def test_what_htc_and_guided_anchoring_have_not_is_listed(name, imported):
    files, text, _ = PUBLISHED[name]
    for option, message in NOT_OF_PARTS[name]:
        made = imported(files, text, option)
        assert any(message in note for note in notes(made)), (option, notes(made))


# A configuration of one's own.

MINE = f"""
_base_ = ['../_base_/models/mask.py', '../_base_/masks.py', '../_base_/schedule.py', '../_base_/runtime.py']
classes = {CLASSES}
model = dict(roi_head=dict(bbox_head=dict(num_classes=3), mask_head=dict(num_classes=3)))
train_pipeline = [
    dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='Resize', img_scale=[(1333, 640), (1333, 800)], multiscale_mode='range', keep_ratio=True),
    dict(type='RandomFlip', flip_ratio=0.5)]
data_root = 'parts/'
data = dict(
    train=dict(
        _delete_=True, type='RepeatDataset', times=3,
        dataset=dict(
            type='ClassBalancedDataset', oversample_thr=0.01,
            dataset=dict(
                type='CocoDataset', ann_file=data_root + 'train.json', img_prefix=data_root + 'images', classes=classes,
                pipeline=train_pipeline))),
    val=dict(ann_file=data_root + 'val.json', img_prefix=data_root + 'images', classes=classes),
    test=dict(ann_file=data_root + 'val.json', img_prefix=data_root + 'images', classes=classes))
load_from = 'mask_rcnn.pth'
custom_hooks = [dict(type='EMAHook', momentum=0.001)]
"""


def test_a_mask_rcnn_with_classes_files_and_scales_of_its_own(imported):
    made = imported(BASES_2, MINE)
    assert made.base == "mask-rcnn/r50-fpn-1x"
    assert made.changes == {
        "data": {
            "train": {
                "classes": ["bolt", "nut", "washer"],
                "annotations": "train.json",
                "images": "images",
            },
            "val": {"classes": ["bolt", "nut", "washer"], "annotations": "val.json", "images": "images"},
            "root": "parts",
            "train_transforms": [
                {"type": "resize", "scales": [[1333, 640], [1333, 800]], "mode": "range"},
                {"type": "flip"},
            ],
            "repeat": 3,
            "repeat_threshold": 0.01,
        },
        "schedule": {"ema_decay": 0.999},
    }
    line = line_of(MINE, "load_from")
    assert notes(made) == [
        f"mine.py:{line}: load_from: weights are not part of a recipe: det-core import-weights mask_rcnn.pth --from "
        "mmdet -o init.safetensors, then det-core train --init init.safetensors"
    ]


def test_classes_that_contradict_the_number_are_noted(imported):
    made = imported(BASES_2, MINE, "model.roi_head.bbox_head.num_classes=4", "model.roi_head.mask_head.num_classes=4")
    assert any("4 classes, but the data set has 3 names" in note for note in notes(made))
    made = imported(BASES_2, MINE, "model.roi_head.bbox_head.num_classes=4")
    assert any("the heads have [4, 3]" in note for note in notes(made))


UNKNOWN = """
_base_ = ['../_base_/models/faster.py', '../_base_/data.py', '../_base_/schedule.py', '../_base_/runtime.py']
model = dict(
    neck=dict(
        _delete_=True, type='PAFPN', in_channels=[256, 512, 1024, 2048], out_channels=256, num_outs=5),
    backbone=dict(plugins=[dict(cfg=dict(type='ContextBlock'))]))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='MyRain', drops=7),
    dict(type='Resize', img_scale=(1333, 800), keep_ratio=True, chance=1)]
data = dict(train=dict(pipeline=train_pipeline, my_flag=True))
custom_hooks = [
    dict(type='NumClassCheckHook'),
    dict(type='MyHook', every=5)]
custom_imports = dict(imports=['mine.rain'])
total = len(train_pipeline)
tta_model = dict(type='DetTTAModel')
tta_pipeline = [dict(type='TestTimeAug', transforms=[
    [dict(type='Resize', scale=(1333, 800)), dict(type='Resize', scale=(666, 400))],
    [dict(type='RandomFlip', prob=1.)]])]
"""


def test_what_is_not_known_is_listed_with_its_line(imported):
    def at(part: str, key: str, why: str) -> str:
        return f"mine.py:{line_of(UNKNOWN, part)}: {key}: {why}"

    found = notes(imported(BASES_2, UNKNOWN))
    assert found == [
        at("_delete_", "model.neck", "neck PAFPN is not a part of this project; the recipe's is kept (fpn)").replace(
            f":{line_of(UNKNOWN, '_delete_')}:", f":{line_of(UNKNOWN, 'neck=')}:"
        ),
        at("plugins", "model.backbone.plugins", f"{[{'cfg': {'type': 'ContextBlock'}}]!r} has no counterpart here"),
        at("MyRain", "data.train.pipeline[2]", "transform MyRain has no counterpart here"),
        at("chance", "data.train.pipeline[3].chance", "1 has no counterpart here"),
        at("my_flag", "data.train.my_flag", "True has no counterpart here"),
        at(
            "'MyHook'",
            "custom_hooks[1]",
            "hook MyHook has no counterpart here; write it as a hook of a plugin (docs/hooks.md)",
        ),
        at(
            "custom_imports",
            "custom_imports",
            "modules of the configuration are not imported; write their parts as a plugin (docs/hooks.md)",
        ),
        at("total =", "total", "len(train_pipeline): not read, since it is not run"),
        at(
            "tta_pipeline",
            "tta_pipeline",
            "test-time augmentation is an option of the command: det-core test --scale 1333x800 --scale 666x400 --flip",
        ),
    ]


@pytest.mark.parametrize(
    ("option", "key"),
    [
        ("model.roi_head.bbox_roi_extractor.type=GenericRoIExtractor", "model.roi_head.bbox_roi_extractor"),
        ("model.roi_head.bbox_head.type=DoubleConvFCBBoxHead", "model.roi_head.bbox_head"),
        ("model.train_cfg.rcnn.sampler.type=OHEMSampler", "model.train_cfg.rcnn.sampler"),
        ("model.train_cfg.rpn.assigner.type=ATSSAssigner", "model.train_cfg.rpn.assigner"),
        ("model.backbone.type=Res2Net", "model.backbone"),
        ("model.backbone.with_cp=True", "model.backbone.with_cp"),
        ("model.backbone.depth=77", "model.backbone.depth"),
        ("model.backbone.norm_cfg.type=IN", "model.backbone.norm_cfg"),
        ("model.rpn_head.loss_bbox.type=DIoULoss", "model.rpn_head.loss_bbox"),
        ("model.rpn_head.anchor_generator.strides=[2,4,8,16,32]", "model.rpn_head.anchor_generator.strides"),
        ("model.test_cfg.rcnn.nms.type=nms_match", "model.test_cfg.rcnn.nms"),
        ("model.test_cfg.rcnn.min_bbox_size=3", "model.test_cfg.rcnn.min_bbox_size"),
        ("model.roi_head.semantic_head.type=X", "model.roi_head.semantic_head"),
        ("optimizer.type=Lion", "optimizer"),
        ("lr_config.policy=flat", "lr_config.policy"),
        ("lr_config.warmup=exp", "lr_config.warmup"),
        ("runner.type=IterBasedRunner", "runner.type"),
        ("data.train.type=BoltDataset", "data.train.type"),
        ("data.test.ann_file=data/coco/test.json", "data.test.ann_file"),
        ("data.train.proposal_file=a.pkl", "data.train.proposal_file"),
        ("evaluation.save_best=auto", "evaluation.save_best"),
        ("resume_from=a.pth", "resume_from"),
        ("checkpoint_config.max_keep_ckpts=2", "checkpoint_config.max_keep_ckpts"),
    ],
)
def test_what_has_no_counterpart_is_listed(option, key, imported):
    made = imported(BASES_2, on_bases("faster"), option)
    assert key in [note.key for note in made.notes], notes(made)


def test_values_that_only_variables_have_are_no_settings(imported):
    made = imported(BASES_2, on_bases("faster", more="my_variable = dict(a=1)\n"))
    assert made.notes == ()


# Refusals


def test_a_model_without_recipes(imported, tmp_path):
    with pytest.raises(DetError) as raised:
        imported({}, "x = 1\nmodel = dict(type='FCOS', bbox_head=dict(type='FCOSHead'))\n")
    assert str(raised.value).startswith(
        f"{tmp_path}/x/mine.py:2: the model is FCOS (FCOSHead), and there are no recipes of this model; models with "
        "recipes: cascade-mask-rcnn, "
    )


def test_a_file_without_a_model(imported, tmp_path):
    with pytest.raises(DetError) as raised:
        imported({}, "x = 1\n")
    assert str(raised.value) == (
        f"{tmp_path}/x/mine.py: defines no `model`, so it is not the configuration of a detector, or only a base of one"
    )


# The command


def test_the_command_writes_a_recipe_that_loads(tmp_path, capsys):
    file, out = lay_out(tmp_path, BASES_2, UNKNOWN), tmp_path / "out" / "mine.yaml"
    assert run(["import-config", str(file), "-o", str(out), "--cfg-options", "optimizer.lr=0.01", "seed=5"]) == 0
    printed = capsys.readouterr().out
    assert f"wrote {out}: extends faster-rcnn/r50-fpn-1x, 9 notes on what is not taken over" in printed
    assert f"{file}:{line_of(UNKNOWN, 'MyRain')}: data.train.pipeline[2]: transform MyRain" in printed
    assert printed.endswith(f"det-core train --config {out}\n")
    text = out.read_text(encoding="utf8")
    assert f"# - {file}:{line_of(UNKNOWN, 'MyRain')}: data.train.pipeline[2]: transform MyRain" in text
    recipe = load_recipe(out)
    assert (recipe.name, recipe.optimizer.lr, recipe.schedule.seed) == ("mine", 0.01, 5)
    assert [path.name for path in out.parent.iterdir()] == ["mine.yaml"]


def test_a_file_is_only_replaced_with_overwrite(tmp_path, capsys):
    file, out = lay_out(tmp_path, BASES_2, on_bases("faster")), tmp_path / "mine.yaml"
    out.write_text("mine", encoding="utf8")
    assert run(["import-config", str(file), "-o", str(out)]) == 1
    assert f"-o {out}: exists; choose another file, or give --overwrite" in capsys.readouterr().err
    assert out.read_text(encoding="utf8") == "mine"
    assert run(["import-config", str(file), "-o", str(out), "--overwrite"]) == 0
    assert "everything is taken over" in capsys.readouterr().out
    assert load_recipe(out).data.root == "data/coco"
    assert run(["import-config", str(file), "-o", str(tmp_path / "mine.txt")]) == 1
    assert "a recipe is written as .yaml; use a name with this suffix" in capsys.readouterr().err


def test_without_a_file_the_recipe_is_printed(tmp_path, capsys):
    file = lay_out(tmp_path, BASES_3, on_bases("faster"))
    assert run(["import-config", str(file), "--cfg-options", "train_dataloader.batch_size=4"]) == 0
    assert capsys.readouterr().out == (
        "# From mine.py of mmdetection, by det-core import-config.\n"
        "extends: faster-rcnn/r50-fpn-1x\ndata:\n  root: data/coco\n  images_per_rank: 4\n"
    )


# Values that no configuration has


def keys_of(value: Any, path: str = "") -> list[str]:
    """The dotted paths of all values."""
    items = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    found = [f"{path}.{key}" if path else str(key) for key, _ in items]
    return [name for (_, inner), own in zip(items, found, strict=True) for name in (own, *keys_of(inner, own))]


@pytest.mark.parametrize("value", ["none", "'x'", "1e999", "[1,2]"])
@pytest.mark.parametrize("name", ["SSD", "2.x"])
def test_no_value_of_a_key_is_an_error_without_a_message(name, value, tmp_path):
    """Each key once with a value that it does not expect."""
    files, text, _ = PUBLISHED[name]
    path = lay_out(tmp_path, files, text)
    sections = ("model", "data", "train_dataloader", "optimizer", "optim_wrapper", "lr_config", "param_scheduler")
    values = read_config_file(path).values
    wanted = {key: values[key] for key in (*sections, "train_cfg", "custom_hooks", "evaluation") if key in values}
    for key in keys_of(wanted):
        try:
            import_config(path, [f"{key}={value}"])
        except DetError:
            pass
        except Exception as error:
            raise AssertionError(f"{key}={value}: {error!r}") from error


def test_one_of_several_scales_in_the_3x_style(imported):
    """`RandomChoiceResize` names them `scales`."""
    text = on_bases(
        "faster",
        more="""
train_dataloader = dict(dataset=dict(pipeline=[
    dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomChoiceResize', scales=[(1333, 640), (1333, 800)], keep_ratio=True),
    dict(type='RandomFlip', prob=0.5), dict(type='PackDetInputs')]))
""",
    )
    made = imported(BASES_3, text)
    (resize, flip) = made.recipe.to_plain()["data"]["train_transforms"]
    assert (resize["type"], resize["mode"], resize["scales"]) == ("resize", "choice", [[1333, 640], [1333, 800]])
    assert flip["type"] == "flip"
    assert made.changes["data"]["train_transforms"] == [
        {"type": "resize", "scales": [[1333, 640], [1333, 800]]},
        {"type": "flip"},
    ]
    assert not any("RandomChoiceResize" in note for note in notes(made))


def test_a_resize_that_is_not_taken_over_leaves_the_recipe_s(imported):
    """Training without any resize would be another training."""
    text = on_bases(
        "faster",
        more="""
train_dataloader = dict(dataset=dict(pipeline=[
    dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale_factor=0.5), dict(type='RandomFlip', prob=0.5), dict(type='PackDetInputs')]))
""",
    )
    made = imported(BASES_3, text)
    base = load_recipe("faster-rcnn/r50-fpn-1x").data.train_transforms
    assert made.recipe.data.train_transforms[0] == base[0]
    (note,) = [note for note in notes(made) if "scale_factor" in note]
    assert "a factor on the size has no counterpart here; the recipe's resize is kept" in note


VOC_SETS = """
source = dict(
    type='VOCDataset', data_root='data/VOCdevkit/', filter_cfg=dict(filter_empty_gt=True, min_size=32), pipeline=[
        dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True),
        dict(type='Resize', scale=(1000, 600), keep_ratio=True), dict(type='RandomFlip', prob=0.5),
        dict(type='PackDetInputs')])
older = dict(source)
newer = dict(source)
older.update(ann_file='VOC2007/ImageSets/Main/trainval.txt', data_prefix=dict(sub_data_root='VOC2007/'))
newer.update(ann_file='VOC2012/ImageSets/Main/trainval.txt', data_prefix=dict(sub_data_root='VOC2012/'))
train_dataloader = dict(dataset=dict(_delete_=True, type='RepeatDataset', times=3, dataset=dict(
    type='ConcatDataset', datasets=[older, newer])))
"""


def test_voc_in_two_parts_repeated(imported):
    """Data that differ in their sets alone are one data set, and 20 classes are its own."""
    voc = """
model = dict(roi_head=dict(bbox_head=dict(num_classes=20)))
val_evaluator = dict(_delete_=True, type='VOCMetric', metric='mAP', eval_mode={mode!r})
val_dataloader = dict(dataset=dict(
    _delete_=True, type='VOCDataset', data_root='data/VOCdevkit/', ann_file='VOC2007/ImageSets/Main/test.txt',
    data_prefix=dict(sub_data_root='VOC2007/'), test_mode=True, pipeline=source['pipeline']))
test_dataloader = val_dataloader
"""
    made = imported(BASES_3, on_bases("faster", more=VOC_SETS + voc.format(mode="11points")))
    data = made.recipe.data
    assert data.train.sets == ("VOC2007/trainval", "VOC2012/trainval")
    assert data.train.classes[:2] == ("aeroplane", "bicycle")
    assert made.changes["data"]["train"].keys() == {"type", "split", "sets", "filter_empty", "min_size"}
    assert data.repeat == 3
    assert f"{data.root}/{data.train.folder}".rstrip("/") == "data/VOCdevkit"
    assert data.train_transforms[0].scales == ((1000, 600),)
    assert made.recipe.evaluation.best == "voc_map11"
    assert not made.notes
    area = imported(BASES_3, on_bases("faster", more=VOC_SETS + voc.format(mode="area")))
    assert area.recipe.evaluation.best == "voc_map"


def test_voc_in_two_parts_that_differ_otherwise(imported):
    rule = "newer.update(filter_cfg=dict(filter_empty_gt=True, min_size=8, bbox_min_size=16))\n"
    text = VOC_SETS.replace("train_dataloader = ", f"{rule}train_dataloader = ")
    made = imported(BASES_3, on_bases("faster", more=text))
    assert [source.sets for source in made.recipe.data.train.sources] == [("VOC2007/trainval",), ("VOC2012/trainval",)]
    assert any("16; objects that are smaller are not left out" in note for note in notes(made))


def test_transforms_of_proposals(imported):
    """`ProposalBroadcaster` applies its transforms to proposals too, which all transforms do here."""
    text = (
        on_bases("faster", more=FAST.partition("evaluation")[0])
        + """
pipeline = [
    dict(type='LoadImageFromFile'), dict(type='LoadProposals', num_max_proposals=2000),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='ProposalBroadcaster', transforms=[
        dict(type='Resize', scale=(1333, 400), keep_ratio=True), dict(type='RandomFlip', prob=0.5)]),
    dict(type='PackDetInputs')]
train_dataloader = dict(dataset=dict(pipeline=pipeline, proposal_file='rpn.pkl'))
val_dataloader = dict(dataset=dict(pipeline=pipeline, proposal_file='rpn.pkl'))
test_dataloader = val_dataloader
"""
    )
    made = imported(BASES_3, text)
    assert made.base == "fast-rcnn/r50-fpn-1x"
    assert made.changes["data"]["train_transforms"] == [{"type": "resize", "scales": [[1333, 400]]}, {"type": "flip"}]
    assert {note.why for note in made.notes} == {
        "proposals are made by det-core proposals, and set as data.train.proposals"
    }


JITTERED = """
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    backbone=dict(frozen_stages=-1, norm_eval=False, norm_cfg=norm_cfg, init_cfg=None),
    neck=dict(norm_cfg=norm_cfg), rpn_head=dict(num_convs=2),
    roi_head=dict(
        bbox_head=dict(type='Shared4Conv1FCBBoxHead', conv_out_channels=256, norm_cfg=norm_cfg),
        mask_head=dict(norm_cfg=norm_cfg)))
size = (1024, 1024)
train_dataloader = dict(
    batch_sampler=None,
    dataset=dict(_delete_=True, type='RepeatDataset', times=4, dataset=dict(
        type='CocoDataset', data_root='data/coco/', ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017/'), filter_cfg=dict(filter_empty_gt=True, min_size=32), pipeline=[
            dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
            dict(type='RandomResize', scale=size, ratio_range=(0.1, 2.0), keep_ratio=True),
            dict(type='RandomCrop', crop_type='absolute_range', crop_size=size, recompute_bbox=True,
                 allow_negative_crop=True),
            dict(type='FilterAnnotations', min_gt_bbox_wh=(1e-2, 1e-2)), dict(type='RandomFlip', prob=0.5),
            dict(type='PackDetInputs')])))
val_evaluator = dict(metric=['bbox', 'segm'])
train_cfg = dict(max_epochs=25)
optim_wrapper = dict(optimizer=dict(lr=0.1, weight_decay=0.00004))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.067, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', begin=0, end=25, by_epoch=True, milestones=[22, 24], gamma=0.1)]
auto_scale_lr = dict(base_batch_size=64)
"""


def test_transforms_of_versions_before_1(imported):
    old = "img_scale=(1333, 800), img_norm_cfg=img_norm_cfg, size_divisor=32,\n        flip_ratio=0.5"
    new = (
        "img_scale=[(1333, 640), (1333, 800)], multiscale_mode='range', flip_ratio=0.25, corruption='fog',\n"
        "        extra_aug=dict(expand=dict(mean=[1, 2, 3], to_rgb=True, ratio_range=(1, 3)), mine=3)"
    )
    assert old in FASTER_0
    made = imported({}, FASTER_0.replace(old, new, 1))
    assert made.changes["data"]["train_transforms"] == [
        {"type": "zoom_out", "fill": [1.0, 2.0, 3.0], "sides": [1.0, 3.0]},
        {"type": "resize", "scales": [[1333, 640], [1333, 800]], "mode": "range", "boxes": "pixels"},
        {"type": "flip", "probability": 0.25},
    ]
    found = notes(made)
    assert any("data.train.corruption: 'fog' has no counterpart here" in note for note in found)
    assert any("data.train.extra_aug.mine: 3 has no counterpart here" in note for note in found)


def test_lists_with_for(imported):
    more = """
sizes = [(1333, 800), (666, 400)]
tta_model = dict(type='DetTTAModel')
tta_pipeline = [dict(type='TestTimeAug', transforms=[
    [dict(type='Resize', scale=size, keep_ratio=True) for size in sizes], [dict(type='RandomFlip', prob=1.)]])]
"""
    (note,) = notes(imported(BASES_3, on_bases("faster", more=more)))
    assert note.endswith("det-core test --scale 1333x800 --scale 666x400 --flip")


def test_networks_of_timm(imported):
    made = imported(BASES_3, on_bases("mask", more=CONVNEXT))
    assert made.base == "mask-rcnn/convnext-t-fpn-ms-crop-3x"
    assert "backbone" not in made.changes.get("detector", {})
    assert "rules" not in made.changes.get("optimizer", {})
    small = SWIN.replace("depths=[2, 2, 6, 2]", "depths=[2, 2, 18, 2], frozen_stages=1")
    made = imported(BASES_3, on_bases("mask", more=small))
    assert made.base == "mask-rcnn/swin-t-fpn-1x"
    assert made.changes["detector"]["backbone"] == {
        "name": "swin_small_patch4_window7_224",
        "frozen_stages": 1,
        "pretrained": "timm:swin_small_patch4_window7_224",
    }
    for text, frozen, stages in ((SWIN, 0, 0), (SWIN, 2, 2), (CONVNEXT, 0, -1), (CONVNEXT, 1, 1)):
        text = text.replace("drop_path_rate", f"frozen_stages={frozen}, drop_path_rate")
        made = imported(BASES_3, on_bases("mask", more=text))
        assert made.recipe.to_plain()["detector"]["backbone"]["frozen_stages"] == stages
    large = imported(BASES_3, on_bases("mask", more=CONVNEXT.replace("'tiny'", "'large'")))
    assert any("of this size is not a part of this project" in note for note in notes(large))
    odd = SWIN.replace("embed_dims=96", "embed_dims=100").replace("window_size=7", "window_size=12")
    assert imported(BASES_3, on_bases("mask", more=odd)).base == "mask-rcnn/r50-fpn-1x"
    wide = imported(BASES_3, on_bases("mask", more=SWIN.replace("window_size=7", "window_size=12")))
    assert any("12 has no counterpart here, only 7" in note for note in notes(wide))
    slower = CONVNEXT.replace("'decay_rate': 0.95", "'decay_rate': 0.9")
    assert any(
        "the recipe's rates by layer are kept" in note
        for note in notes(imported(BASES_3, on_bases("mask", more=slower)))
    )


def test_a_configuration_far_from_the_plain_model_extends_a_nearer_recipe(imported):
    made = imported(BASES_3, on_bases("mask", more=JITTERED))
    assert made.base == "mask-rcnn/r50-fpn-syncbn-lsj-100e"
    assert made.changes == {"data": {"root": "data/coco"}}
    (note,) = notes(made)
    assert "taken over as fixed_size_crop of the full size, not of a random one, which also pads images" in note


def test_jitter_crop_rules_and_bfloat16(imported):
    text = on_bases(
        "faster",
        more="""
optim_wrapper = dict(type='AmpOptimWrapper', dtype='bfloat16', paramwise_cfg=dict(custom_keys={
    'backbone': dict(lr_mult=0.1), 'norm': dict(decay_mult=0.), 'neck': dict(lr_mult=0)}))
train_dataloader = dict(dataset=dict(pipeline=[
    dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomResize', scale=(1024, 1024), ratio_range=(0.1, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(1024, 1024), crop_type='absolute', recompute_bbox=True),
    dict(type='RandomFlip', prob=0.5), dict(type='PackDetInputs')]))
""",
    )
    made = imported(BASES_3, text)
    assert made.recipe.schedule.precision == "bf16"
    jitter, crop, _ = made.recipe.data.train_transforms
    assert (jitter.type, jitter.size, jitter.factors) == ("scale_jitter", (1024, 1024), (0.1, 2.0))
    assert (crop.type, crop.size) == ("fixed_size_crop", (1024, 1024))
    rules = {rule.pattern: (rule.lr_factor, rule.weight_decay, rule.frozen) for rule in made.recipe.optimizer.rules}
    assert rules == {"*backbone*": (0.1, None, False), "*norm*": (1, 0, False), "*neck*": (1, None, True)}
    assert sum("names of parameters differ, so check it" in note for note in notes(made)) == 3
