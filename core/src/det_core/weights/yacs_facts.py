"""What a configuration of detectron2, Detectron or maskrcnn-benchmark says of a model. Imports no torch.

These are the YAML files of yacs: `config.yaml` beside the checkpoints of a run, `config.yml` for maskrcnn-benchmark,
and text inside of Detectron's files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from det_core.config.yaml_text import parse_yaml
from det_core.errors import DetError, WeightsError
from det_core.recipe import Recipe
from det_core.text_files import read_text
from det_core.weights.mmdet_values import at, number, numbers, whole
from det_core.weights.recipe_values import MISSING, as_setting, differs, look_up

BESIDE = {"detectron2": "config.yaml", "maskrcnn-benchmark": "config.yml"}
DENSE, ROI = "detector.dense_head", "detector.roi_head"
_ALIGNMENTS = {"ROIAlignV2": "aligned", "ROIAlign": "unaligned"}
RATIOS = (1.0, 2.0, 0.5)  # in the order in which the weights of Detectron's RetinaNets have them


def read_yacs(source: str, path: Path, text: str) -> tuple[str, Mapping[str, Any]] | None:
    """The configuration of a checkpoint and where it is; None if there is none.

    text: that inside of the file, or "". WeightsError for one that is not valid.
    """
    where, beside = f"{path} (cfg)", path.with_name(BESIDE.get(source, path.name))
    try:
        if not text and beside != path and beside.is_file():
            where = str(beside)
            text = read_text(beside)
        if not text:
            return None
        found = parse_yaml(text, where, python_tags=True)
    except DetError as error:
        raise WeightsError(str(error)) from None
    if not isinstance(found, Mapping) or not isinstance(found.get("MODEL"), Mapping):
        raise WeightsError(f"{where}: not a configuration of {source}, which has a mapping MODEL")
    return where, found


def _resnet(yacs: Any) -> Iterator[tuple[str, Any]]:
    stride = at(yacs, "MODEL.RESNETS.STRIDE_IN_1X1")
    stride = at(yacs, "RESNETS.STRIDE_1X1") if stride is None else stride
    if isinstance(stride, bool):
        for place in ("detector.backbone", f"{ROI}.trunk"):
            yield f"{place}.style", "caffe" if stride else "pytorch"


def _meanings(source: str, yacs: Any) -> Iterator[tuple[str, Any]]:
    """Paths of what the weights were trained for, and the values; None where the configuration does not say."""
    yield from _resnet(yacs)
    inputs = {"detectron2": "MODEL", "maskrcnn-benchmark": "INPUT"}.get(source)
    yield "detector.preprocess.mean", _flat(at(yacs, f"{inputs}.PIXEL_MEAN") if inputs else yacs.get("PIXEL_MEANS"))
    yield "detector.preprocess.std", _flat(at(yacs, f"{inputs}.PIXEL_STD")) if inputs else None
    if source == "detectron2":
        order = at(yacs, "INPUT.FORMAT")
        yield "detector.preprocess.order", order.lower() if order in ("RGB", "BGR") else None
        for pool, part in (("roi_pool", "BOX"), ("mask_roi_pool", "MASK")):
            kind = at(yacs, f"MODEL.ROI_{part}_HEAD.POOLER_TYPE")
            yield f"{ROI}.{pool}.alignment", _ALIGNMENTS.get(kind) if isinstance(kind, str) else None
    for pool, theirs in (("roi_pool", "BOX"), ("mask_roi_pool", "MASK")):
        yield f"{ROI}.{pool}.sampling", whole(at(yacs, f"MODEL.ROI_{theirs}_HEAD.POOLER_SAMPLING_RATIO"))
    if source == "detectron":
        yield f"{ROI}.roi_pool.sampling", whole(at(yacs, "FAST_RCNN.ROI_XFORM_SAMPLING_RATIO"))
        yield f"{ROI}.mask_roi_pool.sampling", whole(at(yacs, "MRCNN.ROI_XFORM_SAMPLING_RATIO"))


def _flat(value: Any) -> Any:
    """Three numbers, which Detectron nests."""
    while isinstance(value, list) and len(value) == 1:
        (value,) = value
    return numbers(value)


_NUMBERS = {
    "detectron2": {
        "two_stage": (
            ("MODEL.RPN.PRE_NMS_TOPK_TEST", f"{DENSE}.test_limits.before_nms"),
            ("MODEL.RPN.POST_NMS_TOPK_TEST", f"{DENSE}.test_limits.after_nms"),
            ("MODEL.RPN.NMS_THRESH", f"{DENSE}.nms_threshold"),
            ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", f"{ROI}.score_threshold"),
            ("MODEL.ROI_HEADS.NMS_THRESH_TEST", f"{ROI}.nms_threshold"),
            ("TEST.DETECTIONS_PER_IMAGE", f"{ROI}.max_detections"),
        ),
        "one_stage": (
            ("MODEL.RETINANET.SCORE_THRESH_TEST", f"{DENSE}.score_threshold"),
            ("MODEL.RETINANET.NMS_THRESH_TEST", f"{DENSE}.nms_threshold"),
            ("MODEL.RETINANET.TOPK_CANDIDATES_TEST", f"{DENSE}.before_nms"),
            ("TEST.DETECTIONS_PER_IMAGE", f"{DENSE}.max_detections"),
        ),
    },
    "maskrcnn-benchmark": {
        "two_stage": (
            ("MODEL.RPN.PRE_NMS_TOP_N_TEST", f"{DENSE}.test_limits.before_nms"),
            ("MODEL.RPN.NMS_THRESH", f"{DENSE}.nms_threshold"),
            ("MODEL.ROI_HEADS.SCORE_THRESH", f"{ROI}.score_threshold"),
            ("MODEL.ROI_HEADS.NMS", f"{ROI}.nms_threshold"),
            ("MODEL.ROI_HEADS.DETECTIONS_PER_IMG", f"{ROI}.max_detections"),
        ),
        "one_stage": (
            ("MODEL.RETINANET.INFERENCE_TH", f"{DENSE}.score_threshold"),
            ("MODEL.RETINANET.NMS_TH", f"{DENSE}.nms_threshold"),
            ("MODEL.RETINANET.PRE_NMS_TOP_N", f"{DENSE}.before_nms"),
        ),
    },
    "detectron": {
        "two_stage": (
            ("TEST.RPN_PRE_NMS_TOP_N", f"{DENSE}.test_limits.before_nms"),
            ("TEST.RPN_POST_NMS_TOP_N", f"{DENSE}.test_limits.after_nms"),
            ("TEST.RPN_NMS_THRESH", f"{DENSE}.nms_threshold"),
            ("TEST.SCORE_THRESH", f"{ROI}.score_threshold"),
            ("TEST.NMS", f"{ROI}.nms_threshold"),
            ("TEST.DETECTIONS_PER_IM", f"{ROI}.max_detections"),
        ),
        "one_stage": (
            ("RETINANET.INFERENCE_TH", f"{DENSE}.score_threshold"),
            ("RETINANET.PRE_NMS_TOP_N", f"{DENSE}.before_nms"),
            ("TEST.NMS", f"{DENSE}.nms_threshold"),
            ("TEST.DETECTIONS_PER_IM", f"{DENSE}.max_detections"),
        ),
    },
}
_SIZES = {
    "detectron2": ("INPUT.MAX_SIZE_TEST", "INPUT.MIN_SIZE_TEST"),
    "maskrcnn-benchmark": ("INPUT.MAX_SIZE_TEST", "INPUT.MIN_SIZE_TEST"),
    "detectron": ("TEST.MAX_SIZE", "TEST.SCALE"),
}


def yacs_settings(source: str, yacs: Any, recipe: Recipe) -> list[str]:
    """Overrides (`PATH=VALUE`) of the recipe's settings that differ from the configuration's: limits at test, sizes."""
    plain = recipe.to_plain()
    one_stage = look_up(plain, f"{DENSE}.before_nms") is not MISSING
    table = _NUMBERS[source]["one_stage" if one_stage else "two_stage"]
    found: list[tuple[str, Any]] = [(ours, number(at(yacs, theirs))) for theirs, ours in table]
    long, short = (whole(at(yacs, path)) for path in _SIZES[source])
    if long and short:
        found.append(("data.test_transforms[0].scales", [[long, short]]))
    return [f"{path}={as_setting(value)}" for path, value in found if differs(plain, path, value)]


def yacs_contradictions(source: str, yacs: Any, recipe: Recipe) -> list[str]:
    """What a recipe has otherwise than the configuration says, one sentence each; empty if they agree."""
    plain = recipe.to_plain()
    found = [
        f"{path}: the recipe has {as_setting(look_up(plain, path))}, the file's configuration {as_setting(value)}"
        for path, value in _meanings(source, yacs)
        if differs(plain, path, value)
    ]
    ratios = numbers(at(yacs, "RETINANET.ASPECT_RATIOS"))
    if source == "detectron" and look_up(plain, f"{DENSE}.type") == "retinanet" and ratios not in (None, RATIOS):
        found.append(
            f"{DENSE}.anchors.ratios: weights of Detectron's RetinaNet are read in the order {list(RATIOS)}, the "
            f"file's configuration has {list(ratios or ())}"
        )
    return found
