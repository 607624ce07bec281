"""What a checkpoint of mmdetection says of itself, by its version and the text of its configuration."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from mmdet_texts import LEGACY, MODERN, R50, RETINA_FPN, group_norm, model, pipeline_data, schedule

from det_core.data.coco_classes import COCO_CLASSES, COCO_IDS
from det_core.data.data_config import VOC_CLASSES
from det_core.errors import WeightsError
from det_core.weights.mmdet_facts import FileFacts, facts_of
from det_core.weights.mmdet_presets import preset_of
from det_core.weights.read_files import SourceFile

TEXTS = {**{f"old {name}": text for name, text in LEGACY.items()}, **MODERN}


def facts(text: str, version: str = "", **meta: Any) -> FileFacts:
    return facts_of(SourceFile(Path("x.pth"), {}, {"mmdet_version": version, "config": text, **meta}))


def old(name: str) -> FileFacts:
    """The facts of a text of 0.5 to 1.2."""
    return facts(LEGACY[name], "1.0rc0+abc")


@pytest.mark.parametrize("name", TEXTS)
def test_the_model_of_a_text(name):
    found, name, text = facts(TEXTS[name]), name.removeprefix("old "), TEXTS[name]
    assert found.generation == ("mmdet1" if text in LEGACY.values() else "mmdet")  # by the words of the text alone
    assert preset_of(found, name.split()) == name
    assert found.notes == ()
    assert (found.image.order == "bgr") == ("caffe" in name or name.endswith("fpn-gn-2x"))


# Numbers


def test_a_mask_rcnn_of_1_0():
    found = old("mask-rcnn/mmdet1-r50-fpn-1x")
    assert found.version == (1, 0)
    assert found.described == "MaskRCNN (ResNet-50, FPN, RPNHead)"
    image, limits, anchors = found.image, found.limits, found.anchors
    assert (image.order, image.pad_divisor, image.scale, image.keep_ratio) == ("rgb", 32, (1333, 800), True)
    assert image.mean == (123.675, 116.28, 103.53)
    assert image.std == (58.395, 57.12, 57.375)
    assert (found.backbone.depth, found.backbone.groups, found.backbone.style) == (50, 1, "pytorch")
    assert (anchors.scales, anchors.ratios, anchors.strides) == ((8,), (0.5, 1.0, 2.0), (4, 8, 16, 32, 64))
    assert anchors.deviations == (1.0, 1.0, 1.0, 1.0)
    assert found.roi_deviations == ((0.1, 0.1, 0.2, 0.2),)
    assert (limits.rpn_before, limits.rpn_after, limits.rpn_nms_threshold) == (1000, 1000, 0.7)
    assert (limits.rpn_train_before, limits.rpn_train_after) == (2000, 2000)
    assert (limits.score_threshold, limits.nms_threshold, limits.max_detections) == (0.05, 0.5, 100)
    assert (limits.mask_threshold, limits.sampling, limits.before_nms, limits.soft_nms) == (0.5, 2, None, None)


def test_a_faster_rcnn_of_0_6_has_the_same_limits_in_training():
    limits = old("faster-rcnn/mmdet1-r50-fpn-1x").limits
    assert (limits.rpn_before, limits.rpn_after) == (2000, 2000)
    assert (limits.rpn_train_before, limits.rpn_train_after) == (2000, 2000)


def test_a_c4_model():
    found = old("faster-rcnn/mmdet1-r50-caffe-c4-2x")
    assert found.anchors.scales == (2, 4, 8, 16, 32)
    assert (found.limits.rpn_before, found.limits.rpn_after, found.limits.rpn_train_before) == (6000, 1000, 12000)
    assert (found.image.order, found.image.mean) == ("bgr", (102.9801, 115.9465, 122.7717))
    assert found.backbone.style == "caffe"


def test_a_retinanet_of_0_6():
    found = old("retinanet/mmdet1-r50-caffe-fpn-1x")
    assert found.anchors.scales == pytest.approx([4 * 2 ** (i / 3) for i in range(3)])
    assert (found.limits.before_nms, found.limits.score_threshold, found.limits.rpn_before) == (1000, 0.05, None)
    assert found.roi_deviations is None
    assert found.num_classes == 80


def test_a_cascade():
    found = old("cascade-mask-rcnn/mmdet1-x101-64x4d-fpn-1x")
    assert found.roi_deviations == ((0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1), (0.033, 0.033, 0.067, 0.067))
    assert (found.backbone.depth, found.backbone.groups, found.backbone.base_width) == (101, 64, 4)
    assert found.num_classes == 80


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("ssd/mmdet1-vgg16-300-coco-120e", (21, 45, 99, 153, 207, 261, 315)),
        ("ssd/mmdet1-vgg16-512-voc-240e", (35, 76, 153, 230, 307, 384, 460, 537)),
    ],
)
def test_an_ssd_of_0_6(name, sizes):
    found = old(name)
    assert found.anchors.sizes == sizes
    assert found.anchors.level_ratios is not None
    assert found.anchors.level_ratios[:2] == ((2,), (2, 3))
    assert found.anchors.deviations == (0.1, 0.1, 0.2, 0.2)
    assert (found.image.pad_divisor, found.image.keep_ratio) == (1, False)
    assert found.image.scale == (int(found.kind or 0),) * 2
    limits = found.limits
    assert (limits.before_nms, limits.score_threshold, limits.nms_threshold) == (None, 0.02, 0.45)
    assert limits.max_detections == 200


def test_guided_anchors():
    found = old("ga-faster-rcnn/mmdet1-x101-32x4d-fpn-1x")
    assert found.anchors.scales == pytest.approx([8 * 2 ** (i / 3) for i in range(3)])
    assert found.anchors.guided == (0.07, 0.07, 0.14, 0.14)
    assert found.anchors.deviations == (0.07, 0.07, 0.11, 0.11)
    assert found.roi_deviations == ((0.05, 0.05, 0.1, 0.1),)
    assert (found.limits.rpn_before, found.limits.rpn_after, found.limits.rpn_train_after) == (1000, 300, 300)
    assert found.limits.score_threshold == 1e-3
    same = facts(MODERN["ga-rpn/r50-caffe-fpn-1x"]).anchors
    assert (same.scales, same.guided, same.deviations) == (
        found.anchors.scales,
        found.anchors.guided,
        found.anchors.deviations,
    )


def test_a_retinanet_of_3_x():
    found = facts(MODERN["retinanet/r50-caffe-fpn-1x"])
    assert (found.image.order, found.image.mean) == ("bgr", (103.53, 116.28, 123.675))
    assert (found.image.scale, found.image.keep_ratio, found.image.pad_divisor) == ((1333, 800), True, 32)
    assert found.limits.before_nms == 1000
    assert found.num_classes == 80


def test_a_mask_rcnn_of_2_x():
    found = facts(MODERN["mask-rcnn/r50-fpn-1x"], "2.10.0")
    assert (found.version, found.generation, found.num_classes) == ((2, 10, 0), "mmdet", 80)
    limits = found.limits
    assert (limits.rpn_before, limits.rpn_after, limits.rpn_train_before) == (1000, 1000, 2000)
    assert (limits.rpn_train_after, limits.rpn_nms_threshold, limits.sampling) == (1000, 0.7, 0)


def test_soft_nms_has_mmdetections_defaults():
    text = LEGACY["faster-rcnn/mmdet1-r50-fpn-1x"]
    soft = text.replace("dict(type='nms', iou_thr=0.5)", "dict(type='soft_nms', iou_thr=0.5, min_score=0.05)")
    assert facts(soft).limits.soft_nms == {"method": "linear", "sigma": 0.5, "min_score": 0.05}
    assert facts(soft.replace(", min_score=0.05", "")).limits.soft_nms["min_score"] == 1e-3  # type: ignore[index]
    assert facts(soft).limits.nms_threshold == 0.5


@pytest.mark.parametrize(
    ("epochs", "step", "name"),
    [
        (12, "[8, 11]", "1x"),
        (12, "[9, 11]", "1x"),
        (20, "[16, 19]", "20e"),
        (24, "[16, 22]", "2x"),
        (24, "[20, 23]", "20-23-24e"),
        (24, "[1]", "2x"),
        (36, "[28, 34]", "3x"),
        (7, "[1]", "7e"),
        (36, "f()", "3x"),
    ],
)
def test_schedules(epochs, step, name):
    text = model("RPN", R50) + schedule(epochs, step)
    assert facts(text).schedule == name


@pytest.mark.parametrize("stages", ["(False, False, True, True)", "(False, False, False, True)", "(False,) * 4"])
def test_deformable_convolutions_of_other_stages(stages):
    text = LEGACY["faster-rcnn/mmdet1-r50-fpn-mdconv-c3-c5-1x"].replace("(False, True, True, True)", stages)
    expected = {"(False, False, True, True)": "mdconv-c4-c5", "(False, False, False, True)": "mdconv-c5"}
    assert facts(text).variant == expected.get(stages, "")


def test_variants_are_joined():
    names = ("norm_cfg=norm_cfg", "norm_cfg = dict(type='GN', num_groups=32)\n")
    text = group_norm("MaskRCNN", R50[:-1] + ", dcn=dict(type='DCN'), stage_with_dcn=(False, True, True, True))", names)
    assert facts(text + pipeline_data()).variant == "gn-contrib-dconv-c3-c5"


# Classes


def test_classes_by_the_data_set_of_the_text():
    found = old("mask-rcnn/mmdet1-r50-fpn-1x")
    assert (found.num_classes, found.class_names, found.class_ids) == (80, COCO_CLASSES, COCO_IDS)
    found = old("ssd/mmdet1-vgg16-512-voc-240e")
    assert (found.num_classes, found.class_names) == (20, VOC_CLASSES)
    assert found.class_ids == tuple(range(1, 21))


def test_cocos_classes():
    assert len(COCO_CLASSES) == len(set(COCO_CLASSES)) == len(COCO_IDS) == 80
    pairs = dict(zip(COCO_IDS, COCO_CLASSES, strict=True))
    assert pairs[1] == "person"
    assert pairs[13] == "stop sign"
    assert pairs[44] == "bottle"
    assert pairs[67] == "dining table"
    assert pairs[90] == "toothbrush"


def test_classes_that_the_file_records():
    text = LEGACY["mask-rcnn/mmdet1-r50-fpn-1x"]
    mine = text.replace("num_classes=81", "num_classes=3")
    found = facts(mine, "1.1.0", CLASSES=["cat", "dog"])
    assert (found.num_classes, found.class_names, found.class_ids) == (2, ("cat", "dog"), (1, 2))
    # 1.x writes underscores
    underscores = tuple(name.replace(" ", "_") for name in COCO_CLASSES)
    assert "traffic_light" in underscores
    found = facts(text, "1.1.0", CLASSES=underscores)
    assert (found.class_names, found.class_ids) == (COCO_CLASSES, COCO_IDS)
    modern = MODERN["retinanet/r50-fpn-2x"].replace("num_classes=80", "num_classes=2")
    assert facts(modern, dataset_meta={"classes": ("a", "b")}).class_names == ("a", "b")


def test_classes_that_the_text_lists():
    text = MODERN["retinanet/r50-fpn-2x"].replace("num_classes=80", "num_classes=1")
    told = text.replace("type='CocoDataset'", "type='CocoDataset', metainfo=dict(classes=('nucleus', ))")
    assert facts(told).class_names == ("nucleus",)


def test_other_numbers_of_classes_than_names():
    found = facts(LEGACY["mask-rcnn/mmdet1-r50-fpn-1x"].replace("num_classes=81", "num_classes=4"), "0.6.0")
    assert (found.num_classes, found.class_names, found.class_ids) == (3, None, None)
    assert found.notes == ("the file names 80 classes, but its model has 3; the names are ignored",)


def test_a_data_set_of_the_users():
    found = facts(LEGACY["mask-rcnn/mmdet1-r50-fpn-1x"].replace("CocoDataset", "MyDataset"))
    assert (found.num_classes, found.class_names) == (80, None)
    assert found.notes == ("the file does not contain the names of its classes",)


# What cannot be found out


def test_a_file_without_a_text():
    found = facts_of(SourceFile(Path("x.pth"), {}))
    assert found == FileFacts(
        notes=(
            "the file does not contain the text of its configuration",
            "the file does not contain the names of its classes",
        )
    )
    assert facts_of(SourceFile(Path("x"), {}, {"mmengine_version": "0.7.0"})).generation == "mmdet"
    assert facts_of(SourceFile(Path("x"), {}, {}, {"runtime_info": {}})).generation == "mmdet"


def test_a_text_that_cannot_be_read():
    found = facts("model = (", "1.1.0")
    assert found.generation == "mmdet1"
    assert found.notes[0] == ("configuration text:1: not readable as a configuration in Python: '(' was never closed")
    assert facts("x = 1").notes[0] == "the configuration text does not define `model`"


def test_unread_parts_of_the_model_are_noted_and_those_of_training_are_not():
    text = LEGACY["mask-rcnn/mmdet1-r50-fpn-1x"].replace("depth=50", "depth=depth()") + "ids = range(8)\nmodel.x = 1\n"
    found = facts(text, "1.0.0")
    assert (found.network, found.backbone.depth) == (None, None)
    assert [note.partition(": line ")[0] for note in found.notes] == ["not read in the configuration text"] * 2
    assert "model.backbone.depth = depth()" in found.notes[0]
    assert found.notes[1].endswith(": model.x = 1")


def test_limits_that_det_does_not_have_are_noted():
    text = LEGACY["mask-rcnn/mmdet1-r50-fpn-1x"]
    for old_text, new in (("nms_post=1000", "nms_post=500"), ("across_levels=False", "across_levels=True")):
        text = text.replace(old_text, new)
    text = text.replace("min_bbox_size=0", "min_bbox_size=4")
    assert facts(text).notes == (
        "test_cfg.rpn.nms_post: 500 proposals per level are kept; det limits only their sum",
        "test_cfg.rpn.nms_across_levels: is on; det applies NMS to each level of an RPN",
        "test_cfg.rpn.min_bbox_size: is 4; boxes of that size are not removed",
    )


@pytest.mark.parametrize("value", ["None", "[]", "'x'", "dict()", "[None]", "f()", "-1", "1e999", "(f(), 1)", "True"])
@pytest.mark.parametrize("name", ["old cascade-mask-rcnn/mmdet1-x101-64x4d-fpn-1x", "retinanet/r50-fpn-2x"])
def test_no_value_of_a_key_is_an_error(name, value):
    """Each key once with a value that it does not expect."""
    text = TEXTS[name]
    lines = text.replace("(", "(\n").replace(", ", ",\n").splitlines()
    for number, line in enumerate(lines):
        key, equals, _ = line.partition("=")
        if equals and line.endswith(",") and line.count("[") == line.count("]"):
            spoiled = "\n".join([*lines[:number], f"{key}={value},", *lines[number + 1 :]])
            assert isinstance(facts(spoiled), FileFacts)


# Presets


NAMES = [*LEGACY, *MODERN]


def refused(found: FileFacts) -> str:
    with pytest.raises(WeightsError) as caught:
        preset_of(found, NAMES)
    return str(caught.value)


def test_all_presets_are_told_apart():
    for name, text in LEGACY.items():
        assert preset_of(facts(text, "0.6.0"), NAMES) == name
    for name, text in MODERN.items():
        assert preset_of(facts(text, "2.28.0"), NAMES) == name


def test_another_schedule_does_as_well():
    text = LEGACY["mask-rcnn/mmdet1-r50-fpn-1x"].replace("total_epochs = 12", "total_epochs = 7")
    names = ["mask-rcnn/mmdet1-r50-fpn-gn-2x", "mask-rcnn/mmdet1-r50-fpn-2x", "mask-rcnn/mmdet1-r50-fpn-1x"]
    assert preset_of(facts(text), names) == "mask-rcnn/mmdet1-r50-fpn-2x"
    names = ["htc/r50-fpn-1x", "htc/mmdet1-r50-fpn-ms-20e", "htc/mmdet1-r50-fpn-1x", "htc/mmdet1-r50-fpn-20e"]
    assert preset_of(old("htc/mmdet1-r50-fpn-20e"), names) == "htc/mmdet1-r50-fpn-20e"
    assert preset_of(old("htc/mmdet1-r50-fpn-20e"), names[:-1]) == "htc/mmdet1-r50-fpn-ms-20e"


def test_no_recipe_of_the_model():
    text = LEGACY["mask-rcnn/mmdet1-r50-fpn-1x"].replace("depth=50", "depth=34")
    with pytest.raises(WeightsError) as caught:
        preset_of(facts(text), ["mask-rcnn/mmdet1-r50-fpn-1x", "retinanet/r50-fpn-1x"])
    assert str(caught.value) == (
        "the file's model is MaskRCNN (ResNet-34, FPN, RPNHead), and there is no recipe mask-rcnn/mmdet1-r34-fpn-1x; "
        'did you mean "mask-rcnn/mmdet1-r50-fpn-1x"? give --recipe'
    )
    text = LEGACY["ssd/mmdet1-vgg16-300-coco-120e"].replace("(.15, ", "(.3, ")
    assert "and there is no recipe ssd/mmdet1-vgg16-300-120e; " in refused(facts(text))
    with pytest.raises(WeightsError, match="there is no recipe htc/mmdet1-r50-fpn-20e; give --recipe$"):
        preset_of(old("htc/mmdet1-r50-fpn-20e"), [])


@pytest.mark.parametrize(
    ("change", "described"),
    [
        (("'RetinaNet'", "'FCOS'"), "FCOS (ResNet-50, FPN, RetinaHead)"),
        (("'RetinaHead'", "'FreeAnchorRetinaHead'"), "RetinaNet (ResNet-50, FPN, FreeAnchorRetinaHead)"),
        (("'ResNet'", "'HRNet'"), "RetinaNet (HRNet-50, FPN, RetinaHead)"),
    ],
)
def test_models_without_recipes(change, described):
    text = LEGACY["retinanet/mmdet1-r50-caffe-fpn-1x"].replace(*change)
    assert (
        refused(facts(text))
        == f"the file's model is {described}, and there are no recipes of this model; give --recipe"
    )


def test_a_neck_of_several_parts():
    text = LEGACY["retinanet/mmdet1-r50-caffe-fpn-1x"].replace(
        RETINA_FPN, f"neck=[{RETINA_FPN.removeprefix('neck=')}, dict(type='BFP')]"
    )
    assert "RetinaNet (ResNet-50, FPN, BFP, RetinaHead), and there is no recipe" in refused(facts(text))


def test_a_file_of_an_unknown_generation():
    assert refused(facts("model = dict(type='RPN', rpn_head=dict(type='RPNHead'))")) == (
        "the file's model is RPN (RPNHead), but the file does not record its version of mmdetection, and the "
        "conventions of 0.5 to 1.2 differ from later ones; give --from and --recipe"
    )


def test_files_that_do_not_describe_their_model():
    assert refused(facts("")) == "the file does not contain the text of its configuration; give --recipe"
    assert refused(facts("x = (")).endswith("configuration in Python: '(' was never closed; give --recipe")
    assert refused(facts("x = 1")) == "the configuration text does not define `model`; give --recipe"
    assert refused(facts("model = dict(a=1)")) == "the file does not describe its model; give --recipe"


def test_facts_import_no_torch():
    code = (
        "import sys, det_core.weights.mmdet_presets, det_core.weights.mmdet_facts, det_core.weights.mmdet_config, "
        "det_core.weights.read_files; print(*({'torch', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
