"""Checkpoints of mmdetection and the zoo's recipes: settings that a file changes, and what contradicts a recipe."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "core" / "tests" / "weights"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from mmdet_configs import BASES_3, CONVNEXT, SWIN, on_bases
from mmdet_texts import LEGACY, MODERN

from det_core.load import load_recipe
from det_core.plugins import plugin_manager
from det_core.weights.mmdet_config_files import read_config_file
from det_core.weights.mmdet_facts import FileFacts, facts_of, facts_of_config
from det_core.weights.mmdet_presets import contradictions, preset_of, settings_of
from det_core.weights.read_files import SourceFile

MODERN_NAMES = [name.replace("mmdet1-", "") for name in LEGACY]
MEAN = "detector.preprocess.mean"
OLD_MEAN = f"{MEAN}: the recipe has [103.53, 116.28, 123.675], the file [102.9801, 115.9465, 122.7717]"
CAFFE = [name for name in LEGACY if "caffe" in name]


def facts(text: str, version: str = "") -> FileFacts:
    return facts_of(SourceFile(Path("x.pth"), {}, {"mmdet_version": version, "config": text}))


def changed(text: str, *pairs: tuple[str, str]) -> FileFacts:
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    return facts(text)


@pytest.mark.parametrize("name", LEGACY)
def test_texts_of_1_x_agree_with_modern_recipes_but_for_the_mean(name):
    """The models are the same; caffe-style weights had another mean."""
    found = contradictions(facts(LEGACY[name]), load_recipe(name.replace("mmdet1-", "")))
    assert found == ([OLD_MEAN] if name in CAFFE else [])


@pytest.mark.parametrize("name", MODERN)
def test_texts_of_2_x_and_3_x_agree_with_modern_recipes(name):
    recipe, found = load_recipe(name), facts(MODERN[name])
    assert preset_of(found, plugin_manager().recipes()) == name
    assert contradictions(found, recipe) == []
    assert all("rpn" in name or "sampling" in setting for setting in settings_of(found, recipe))


@pytest.mark.parametrize("name", LEGACY)
def test_settings_of_a_file_make_its_recipe_agree(name):
    """What --set takes, and afterwards nothing differs."""
    modern, found = name.replace("mmdet1-", ""), facts(LEGACY[name])
    settings = settings_of(found, load_recipe(modern))
    assert (f"{MEAN}=[102.9801, 115.9465, 122.7717]" in settings) == (name in CAFFE)
    recipe = load_recipe(modern, settings)
    assert settings_of(found, recipe) == []
    assert contradictions(found, recipe) == []


def test_the_settings_of_a_mask_rcnn():
    found = changed(
        LEGACY["mask-rcnn/mmdet1-r50-fpn-1x"],
        ("score_thr=0.05", "score_thr=0.3"),
        ("iou_thr=0.5", "iou_thr=0.6"),
        ("max_per_img=100", "max_per_img=7"),
        ("mask_thr_binary=0.5", "mask_thr_binary=0.4"),
        ("nms_pre=1000", "nms_pre=1500"),
        ("max_num=1000", "max_num=900"),
        ("nms_thr=0.7", "nms_thr=0.8"),
        ("size_divisor=32", "size_divisor=64"),
        ("img_scale=(1333, 800)", "img_scale=(1000, 600)"),
        ("to_rgb=True", "to_rgb=False"),
        ("58.395, 57.12, 57.375", "1e-5, 1, 1.5"),
    )
    assert settings_of(found, load_recipe("mask-rcnn/r50-fpn-1x")) == [
        "detector.preprocess.order=bgr",
        "detector.preprocess.std=[1e-05, 1, 1.5]",
        "detector.preprocess.pad_divisor=64",
        "detector.dense_head.test_limits.before_nms=1500",
        "detector.dense_head.test_limits.after_nms=900",
        "detector.dense_head.train_limits.after_nms=2000",
        "detector.dense_head.nms_threshold=0.8",
        "detector.roi_head.score_threshold=0.3",
        "detector.roi_head.nms_threshold=0.6",
        "detector.roi_head.max_detections=7",
        "detector.roi_head.mask_threshold=0.4",
        "detector.roi_head.roi_pool.sampling=2",
        "detector.roi_head.mask_roi_pool.sampling=2",
        "data.test_transforms[0].scales=[[1000, 600]]",
    ]


def test_the_settings_of_single_stage_models():
    found = changed(LEGACY["retinanet/mmdet1-r50-caffe-fpn-1x"], ("nms_pre=1000", "nms_pre=500"), ("0.05", "0.1"))
    recipe = load_recipe("retinanet/r50-caffe-fpn-1x")
    assert settings_of(found, recipe)[1:] == [
        "detector.dense_head.before_nms=500",
        "detector.dense_head.score_threshold=0.1",
    ]
    found = changed(LEGACY["ssd/mmdet1-vgg16-300-coco-120e"], ("scale=(300, 300)", "scale=(320, 300)"))
    assert settings_of(found, load_recipe("ssd/vgg16-300-coco-120e")) == ["data.test_transforms[0].scales=[[320, 300]]"]


def test_soft_nms_is_a_setting():
    text = LEGACY["faster-rcnn/mmdet1-r50-fpn-1x"]
    found = changed(text, ("dict(type='nms', iou_thr=0.5)", "dict(type='soft_nms', iou_thr=0.5, min_score=0.05)"))
    plain = load_recipe("faster-rcnn/r50-fpn-1x")
    settings = settings_of(found, plain)
    expected = 'detector.roi_head.soft_nms={"method": "linear", "sigma": 0.5, "min_score": 0.05}'
    assert expected in settings
    recipe = load_recipe("faster-rcnn/r50-fpn-1x", settings)
    head: Any = recipe.detector.roi_head
    assert head.soft_nms.min_score == 0.05
    assert settings_of(found, recipe) == []


def test_a_file_that_says_nothing_changes_and_contradicts_nothing():
    for name in plugin_manager().recipes():
        recipe = load_recipe(name)
        assert settings_of(FileFacts(), recipe) == []
        assert contradictions(FileFacts(), recipe) == []


def test_contradictions_of_a_two_stage_model():
    found = changed(
        LEGACY["mask-rcnn/mmdet1-r50-fpn-1x"],
        ("depth=50", "depth=101"),
        ("style='pytorch'", "style='caffe'"),
        ("to_rgb=True", "to_rgb=False"),
        ("58.395, 57.12, 57.375", "1, 1, 1"),
        ("anchor_scales=[8]", "anchor_scales=[4, 8]"),
        ("[0.5, 1.0, 2.0]", "[0.5, 1.0]"),
        ("target_stds=[1.0, 1.0, 1.0, 1.0]", "target_stds=[0.5, 0.5, 1, 1]"),
        ("0.1, 0.1, 0.2, 0.2", "0.05, 0.05, 0.1, 0.1"),
    )
    assert contradictions(found, load_recipe("mask-rcnn/r50-fpn-1x")) == [
        "detector.preprocess.order: the recipe has rgb, the file bgr",
        "detector.preprocess.std: the recipe has [58.395, 57.12, 57.375], the file [1, 1, 1]",
        "detector.backbone.depth: the recipe has 50, the file 101",
        "detector.backbone.style: the recipe has pytorch, the file caffe",
        "detector.dense_head.anchors.scales: the recipe has [8.0], the file [4, 8]",
        "detector.dense_head.anchors.ratios: the recipe has [0.5, 1.0, 2.0], the file [0.5, 1.0]",
        "detector.dense_head.coder.stds: the recipe has [1.0, 1.0, 1.0, 1.0], the file [0.5, 0.5, 1, 1]",
        "detector.roi_head.coder.stds: the recipe has [0.1, 0.1, 0.2, 0.2], the file [0.05, 0.05, 0.1, 0.1]",
    ]


@pytest.mark.parametrize(
    ("text", "recipe", "expected"),
    [
        (
            "faster-rcnn/mmdet1-r50-fpn-1x",
            "mask-rcnn/r50-fpn-1x",
            ["detector: the recipe's model is mask-rcnn, the file's faster-rcnn"],
        ),
        (
            "htc/mmdet1-r50-fpn-20e",
            "htc-without-semantic/r50-fpn-1x",
            ["detector: the recipe's model is htc-without-semantic, the file's htc"],
        ),
        (
            "ga-fast-rcnn/mmdet1-r50-caffe-fpn-1x",
            "fast-rcnn/r50-caffe-fpn-1x",
            [
                OLD_MEAN,
                "detector.roi_head.coder.stds: the recipe has [0.1, 0.1, 0.2, 0.2], the file [0.05, 0.05, 0.1, 0.1]",
            ],
        ),
        (
            "retinanet/mmdet1-r50-caffe-fpn-1x",
            "retinanet/x101-32x4d-fpn-1x",
            [
                "detector.preprocess.order: the recipe has rgb, the file bgr",
                f"{MEAN}: the recipe has [123.675, 116.28, 103.53], the file [102.9801, 115.9465, 122.7717]",
                "detector.preprocess.std: the recipe has [58.395, 57.12, 57.375], the file [1.0, 1.0, 1.0]",
                "detector.backbone.depth: the recipe has 101, the file 50",
                "detector.backbone.groups: the recipe has 32, the file 1",
                "detector.backbone.style: the recipe has pytorch, the file caffe",
            ],
        ),
        (
            "faster-rcnn/mmdet1-x50-32x4d-fpn-gn-ws-1x",
            "faster-rcnn/x101-64x4d-fpn-1x",
            [
                "detector.backbone.depth: the recipe has 101, the file 50",
                "detector.backbone.groups: the recipe has 64, the file 32",
            ],
        ),
    ],
)
def test_another_recipe(text, recipe, expected):
    assert contradictions(facts(LEGACY[text]), load_recipe(recipe)) == expected


def test_contradictions_of_an_ssd():
    found = changed(
        LEGACY["ssd/mmdet1-vgg16-300-coco-120e"], ("(.15, 0.9)", "(.2, 0.9)"), ("[2], [2, 3]", "[3], [2, 3]")
    )
    assert contradictions(found, load_recipe("ssd/vgg16-300-coco-120e")) == [
        "detector.dense_head.anchors.ratios: the recipe has [[2.0], [2.0, 3.0], [2.0, 3.0], [2.0, 3.0], [2.0], [2.0]], "
        "the file [[3], [2, 3], [2, 3], [2, 3], [2], [2]]",
        "detector.dense_head.anchors.sizes: the recipe has [21.0, 45.0, 99.0, 153.0, 207.0, 261.0, 315.0], "
        "the file [30.0, 60.0, 111.0, 162.0, 213.0, 264.0, 315.0]",
    ]


def test_contradictions_of_guided_anchors():
    found = changed(
        LEGACY["ga-retinanet/mmdet1-r50-caffe-fpn-1x"],
        ("octave_base_scale=4", "octave_base_scale=8"),
        ("scales_per_octave=3", "scales_per_octave=2"),
        ("anchoring_stds=[1.0, 1.0, 1.0, 1.0]", "anchoring_stds=[0.1, 0.1, 0.2, 0.2]"),
    )
    assert contradictions(found, load_recipe("ga-retinanet/r50-caffe-fpn-1x"))[1:] == [
        "detector.dense_head.guided.base_scale: the recipe has 4.0, the file 8.0",
        "detector.dense_head.guided.scales_per_octave: the recipe has 3, the file 2",
        "detector.dense_head.guided.coder.stds: the recipe has [1.0, 1.0, 1.0, 1.0], the file [0.1, 0.1, 0.2, 0.2]",
    ]


def test_contradictions_of_a_cascade():
    text = LEGACY["cascade-rcnn/mmdet1-r101-fpn-20e"]
    recipe = load_recipe("cascade-rcnn/r101-fpn-20e")
    found = changed(text, ("0.033, 0.033, 0.067, 0.067", "0.03, 0.03, 0.06, 0.06"))
    assert contradictions(found, recipe) == [
        "detector.roi_head.stages[2].coder.stds: the recipe has [0.033, 0.033, 0.067, 0.067], "
        "the file [0.03, 0.03, 0.06, 0.06]"
    ]
    two = evolve(facts(text), roi_deviations=((0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1)))
    assert contradictions(two, recipe) == ["detector.roi_head.stages: the recipe has 3, the file 2"]


def test_the_trunk_of_a_c4_model_is_compared():
    found = changed(LEGACY["faster-rcnn/mmdet1-r50-caffe-c4-2x"], ("depth=50", "depth=101"))
    assert contradictions(found, load_recipe("faster-rcnn/r50-caffe-c4-1x")) == [
        OLD_MEAN,
        "detector.backbone.depth: the recipe has 50, the file 101",
        "detector.roi_head.trunk.depth: the recipe has 50, the file 101",
    ]


def test_every_text_has_a_recipe_in_the_zoo():
    assert set(MODERN_NAMES) <= set(plugin_manager().recipes())


@pytest.mark.parametrize(
    ("text", "recipe"),
    [(SWIN, "mask-rcnn/swin-t-fpn-1x"), (CONVNEXT, "mask-rcnn/convnext-t-fpn-ms-crop-3x")],
    ids=["swin", "convnext"],
)
def test_networks_of_timm_are_told(text, recipe, tmp_path):
    for name, content in {**BASES_3, "x/mine.py": on_bases("mask", more=text)}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    found = facts_of_config(read_config_file(tmp_path / "x" / "mine.py").values, "mmdet")
    assert preset_of(found, plugin_manager().recipes()) == recipe
    assert contradictions(found, load_recipe(recipe)) == []
