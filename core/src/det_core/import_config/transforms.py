"""Pipelines of mmdetection as lists of transforms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from det_core.import_config.ledger import NO_COUNTERPART, Node, shown
from det_core.plugins import plugin_manager
from det_core.weights.mmdet_values import number, numbers, parts, type_of

Made = list[dict[str, Any]]
# What every data set does here, or the collation of a batch; it has no transform of its own.
_LOADING = ("LoadImageFromFile", "LoadAnnotations", "LoadImageFromWebcam", "LoadProposals")
_PACKING = (
    *("DefaultFormatBundle", "Collect", "ImageToTensor", "PackDetInputs", "ToTensor", "SegRescale"),
    "SegResizeFlipPadRescale",
)
# Settings of data sets before 1.0: those of their transforms, and what has no effect here.
OLDER = (
    *("img_scale", "multiscale_mode", "resize_keep_ratio", "flip_ratio", "img_norm_cfg", "size_divisor"),
    *("with_mask", "with_crowd", "with_label", "with_semantic_seg", "seg_scale_factor", "num_max_proposals", "debug"),
)
# Transforms with a similar one here, whose random numbers differ too much to translate their settings.
_SIMILAR = {
    "Mosaic": "mosaic",
    "CachedMosaic": "mosaic",
    "MixUp": "mix_up",
    "CachedMixUp": "mix_up",
    "CopyPaste": "copy_paste",
    "RandomAffine": "affine",
    "YOLOXHSVRandomAug": "color_jitter",
    "ColorTransform": "color_jitter",
    "Corrupt": "gaussian_blur",
    "Albu": "v2",
    "AutoAugment": "v2",
    "RandAugment": "v2",
}


def train_transforms(pipeline: Node, resize: Mapping[str, Any], *, modern: bool) -> Made:
    """The transforms of training images.

    Args:
        pipeline: the list of transforms.
        resize: the recipe's `resize`, whose conventions a resize of the pipeline gets.
        modern: whether the words are those of 3.x.
    """
    made: Made = []
    for node in pipeline.items():
        kind = node.type
        if kind in _LOADING:
            _loading(node)
        elif kind in _PACKING:
            node.take()
        elif kind == "ProposalBroadcaster":  # its transforms are applied to proposals, too, as all are here
            made += train_transforms(node.at("transforms"), resize, modern=modern)
            node.take()
        elif kind in _TRANSFORMS:
            found = _TRANSFORMS[kind](node, resize, modern)
            node.finish()
            made += _installed(node, found)
        else:
            node.refuse(_unknown(node, kind))
    return made


def older_transforms(data: Node, resize: Mapping[str, Any]) -> Made:
    """The transforms of training images of mmdetection before 1.0, which are settings of the data set.

    resize: as for `train_transforms`.
    """
    scales = scale_list(data.at("img_scale"))
    mode = "choice" if data.at("multiscale_mode").take("value") == "value" or len(scales) == 1 else "range"
    made = _extra(data.at("extra_aug"))
    made.append(_resized(resize, scales, bool(data.at("resize_keep_ratio").take(True)), mode))
    chance = data.at("flip_ratio").number(0)
    if chance:
        made.append({"type": "flip", "probability": float(chance), "vertical_probability": 0.0})
    return _installed(data, made)


def _extra(node: Node) -> Made:
    """SSD's transforms, by the names that they had before 1.0."""
    made: Made = []
    words = {"photo_metric_distortion": _photometric, "expand": _expand, "random_crop": _iou_crop}
    for name, read in words.items():
        if isinstance(node.at(name).value, Mapping):
            made += read(node.at(name), {}, False)
            node.at(name).finish()
    node.finish()
    return made


def _unknown(node: Node, kind: str) -> str:
    similar = _SIMILAR.get(kind)
    hint = f"; {similar!r} is similar (add it to data.train_transforms)" if similar else ""
    return f"transform {kind or shown(node.value)} {NO_COUNTERPART}{hint}"


def _installed(node: Node, made: Made) -> Made:
    """The transforms whose plugins are installed; a note on the others."""
    types = plugin_manager().types("transform")
    for part in made:
        if part["type"] not in types:
            node.refuse(f"transform {node.type} needs {part['type']!r}, whose plugin is not installed")
    return [part for part in made if part["type"] in types]


def _loading(node: Node) -> None:
    node.ignore("type", "to_float32", "with_bbox", "with_mask", "with_label", "with_seg", "poly2mask")
    node.ignore("num_max_proposals", "color_type")
    for key in ("file_client_args", "backend_args"):
        inner = node.at(key)
        inner.expect("backend", "disk", "local", why="images are read from local files")
        inner.take()
    node.finish()


# One function per transform


def _resize(node: Node, template: Mapping[str, Any], modern: bool) -> Made:
    scale, ratios = node.first("scale", "img_scale", "scales"), node.at("ratio_range")
    keep = bool(node.at("keep_ratio").take(not modern))
    scales = scale_list(scale)
    node.ignore("override", "backend", "interpolation", "clip_object_border", "bbox_clip_border", "resize_type")
    mode = node.at("multiscale_mode").take("range")
    if ratios.given and ratios.value is not None:
        return _jittered(template, scales, ratios, keep)
    if node.type == "RandomResize":
        mode = "range"
    if node.type in ("RandomChoiceResize", "Resize") and modern:
        mode = "choice"
    if not scales:
        factor = node.at("scale_factor")
        kept = "; the recipe's resize is kept" if template else ""
        why = f"{shown(node.value)}: a factor on the size {NO_COUNTERPART}" if factor.given else "no size could be read"
        (factor if factor.given else node).refuse(f"{why}{kept}")
        return [dict(template)] if template else []
    if len(scales) == 1 or (mode == "range" and len(scales) == 2):
        return [_resized(template, scales, keep, "choice" if len(scales) == 1 else "range")]
    if mode == "range":
        scale.refuse(f"a range between {len(scales)} scales {NO_COUNTERPART}, only between two; one of them is drawn")
    return [_resized(template, scales, keep, "choice")]


def _resized(template: Mapping[str, Any], scales: list[list[int]], keep: bool, mode: str) -> dict[str, Any]:
    return {**template, "type": "resize", "scales": scales, "keep_ratio": keep, "mode": mode}


def scale_list(node: Node) -> list[list[int]]:
    """One scale, or a list of them."""
    value = node.take()
    many = [value] if numbers(value) else parts(value)
    found = [numbers(scale) for scale in many]
    # A single number for both edges is possible in 3.x.
    return [[int(v) for v in scale] for scale in found if scale is not None and len(scale) == 2]


def _jittered(template: Mapping[str, Any], scales: list[list[int]], ratios: Node, keep: bool) -> Made:
    span = numbers(ratios.take())
    if len(scales) == 1 and len(set(scales[0])) == 1 and keep and span is not None:
        return [{"type": "scale_jitter", "size": list(scales[0]), "factors": [float(v) for v in span]}]
    ratios.refuse("factors on a scale that is not square, or without keep_ratio, have no counterpart here; left out")
    return [_resized(template, scales[:1], keep, "choice")] if scales else [dict(template)] if template else []


def _flip(node: Node, template: Mapping[str, Any], modern: bool) -> Made:
    chance, direction = node.first("prob", "flip_ratio"), node.at("direction").take("horizontal")
    value = chance.take()
    if value is None and not chance.given:
        return []
    directions = list(parts(direction))
    chances = list(parts(value))
    if len(chances) == 1:
        chances = [(number(chances[0]) or 0.0) / len(directions)] * len(directions)
    by = dict(zip(directions, chances, strict=False))
    if len(directions) > 1 or not set(directions) <= {"horizontal", "vertical"}:
        node.refuse("one of several directions is drawn; here, horizontal and vertical flips are drawn alone")
    ours = {"probability": float(by.get("horizontal", 0)), "vertical_probability": float(by.get("vertical", 0))}
    return [{"type": "flip", **ours}]


def _normalize(node: Node, template: Mapping[str, Any], modern: bool) -> Made:
    node.ignore("mean", "std", "to_rgb")  # of the detector; `models.preprocess` reads them
    return []


def _pad(node: Node, template: Mapping[str, Any], modern: bool) -> Made:
    node.ignore("size_divisor", "pad_val", "pad_to_square")
    if node.at("pad_to_square").value is True:
        node.at("pad_to_square").refuse("batches are padded to their largest image")
    node.expect("size", None, why="images are not padded to a fixed size, but to the largest of their batch")
    return []


def _photometric(node: Node, template: Mapping[str, Any], modern: bool) -> Made:
    brightness = (node.at("brightness_delta").number(32) or 0.0) / 256
    hue = (node.at("hue_delta").number(18) or 0.0) / 360
    made: dict[str, Any] = {"type": "photometric_distort", "brightness": [1 - brightness, 1 + brightness]}
    for key, ours in (("contrast_range", "contrast"), ("saturation_range", "saturation")):
        made[ours] = [float(v) for v in numbers(node.at(key).take((0.5, 1.5))) or (0.5, 1.5)]
    return [{**made, "hue": [-hue, hue]}]


def _expand(node: Node, template: Mapping[str, Any], modern: bool) -> Made:
    mean = numbers(node.at("mean").take((0, 0, 0))) or (0.0, 0.0, 0.0)
    rgb = mean if node.at("to_rgb").take(True) else mean[::-1]
    sides = numbers(node.at("ratio_range").take((1, 4))) or (1.0, 4.0)
    chance = node.at("prob").number(0.5)
    node.ignore("seg_ignore_label")
    return [
        {"type": "zoom_out", "fill": list(map(float, rgb)), "sides": list(map(float, sides)), "probability": chance}
    ]


def _iou_crop(node: Node, template: Mapping[str, Any], modern: bool) -> Made:
    overlaps = numbers(node.at("min_ious").take((0.1, 0.3, 0.5, 0.7, 0.9))) or ()
    least = node.at("min_crop_size").number(0.3)
    node.ignore("bbox_clip_border")
    return [{"type": "iou_crop", "overlaps": [0.0, *map(float, overlaps), 1.0], "sides": [least, 1.0]}]


def _crop(node: Node, template: Mapping[str, Any], modern: bool) -> Made:
    size, kind = node.at("crop_size"), node.at("crop_type").take("absolute")
    found = numbers(size.take())
    node.ignore("bbox_clip_border", "recompute_bbox")
    node.expect("allow_negative_crop", False, True)
    if found is not None and len(found) == 2 and kind == "relative_range" and found[0] == found[1]:
        return [{"type": "random_crop", "sides": [float(found[0]), 1.0]}]
    if found is not None and len(found) == 2 and kind in ("absolute", "absolute_range"):
        what = " of the full size, not of a random one," if kind == "absolute_range" else ","
        node.at("crop_size").refuse(f"taken over as fixed_size_crop{what} which also pads images that are smaller")
        return [{"type": "fixed_size_crop", "size": [int(v) for v in found]}]
    node.refuse(f"a crop of type {kind!r} and size {shown(size.value)} {NO_COUNTERPART}; left out")
    return []


def _filter(node: Node, template: Mapping[str, Any], modern: bool) -> Made:
    node.ignore("by_box", "by_mask", "keep_empty", "min_gt_mask_area")
    least = numbers(node.at("min_gt_bbox_wh").take((1, 1))) or (1.0, 1.0)
    if max(least) > 1:
        node.at("min_gt_bbox_wh").refuse("small objects are kept; only empty boxes are dropped")
    return []


def _sometimes(node: Node, template: Mapping[str, Any], modern: bool) -> Made:
    node.refuse("a choice between, or a chance of, whole lists of transforms has no counterpart here; left out")
    return []


_TRANSFORMS: Mapping[str, Callable[[Node, Mapping[str, Any], bool], Made]] = {
    "Resize": _resize,
    "RandomResize": _resize,
    "RandomChoiceResize": _resize,
    "FixShapeResize": _resize,
    "RandomFlip": _flip,
    "Normalize": _normalize,
    "Pad": _pad,
    "PhotoMetricDistortion": _photometric,
    "Expand": _expand,
    "MinIoURandomCrop": _iou_crop,
    "RandomCrop": _crop,
    "FilterAnnotations": _filter,
    "RandomChoice": _sometimes,
    "RandomApply": _sometimes,
}

# Test images


def check_test_pipeline(pipeline: Node) -> None:
    """Use the transforms of test images, of which the resize is set elsewhere, with notes on what is not done."""
    for node in pipeline.items():
        kind = node.type
        if kind in (*_LOADING, *_PACKING, "Normalize", "Pad", "RandomFlip", "Resize", "FixShapeResize"):
            node.take()
        elif kind == "ProposalBroadcaster":
            check_test_pipeline(node.at("transforms"))
            node.take()
        elif kind == "MultiScaleFlipAug":
            _flip_aug(node)
        else:
            node.refuse(f"transform {kind or shown(node.value)} of test images {NO_COUNTERPART}")
    pipeline.take()


def _flip_aug(node: Node) -> None:
    node.ignore("scale_factor")
    scales = scale_list(node.at("img_scale"))
    flip = node.at("flip").take(False)
    if len(scales) > 1 or flip:
        words = " ".join([*(f"--scale {a}x{b}" for a, b in scales), *(["--flip"] if flip else [])])
        node.refuse(f"test-time augmentation is an option of the command: det-core test {words}")
    check_test_pipeline(node.at("transforms"))
    node.take()


def tta_options(pipeline: Node) -> str:
    """The options of `det-core test` for a `tta_pipeline` of 3.x."""
    words = []
    for part in pipeline.walk():
        if type_of(part.value) not in ("Resize", "RandomFlip"):
            continue
        if part.type == "Resize":
            words += [f"--scale {a}x{b}" for a, b in scale_list(part.at("scale"))]
        elif number(part.at("prob").value if part.at("prob").given else None):
            words.append("--flip")
    return " ".join(dict.fromkeys(words))
