"""Numbers in a configuration of mmdetection 0.5 to 3.x: images, anchors, limits and thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from attrs import frozen

from det_core.weights.mmdet_model import dense_part, roi_part, ssd_anchors
from det_core.weights.mmdet_values import at, find, first_at, number, numbers, parts, type_of, whole

Numbers = tuple[float, ...]


@frozen(kw_only=True)
class ImageFacts:
    """How images are prepared at test. None: the configuration does not say.

    order: of the colours. scale: maximum (long edge, short edge); without keep_ratio (width, height).
    """

    order: Literal["rgb", "bgr"] | None = None
    mean: Numbers | None = None
    std: Numbers | None = None
    pad_divisor: int | None = None
    scale: tuple[int, ...] | None = None
    keep_ratio: bool | None = None


@frozen(kw_only=True)
class AnchorFacts:
    """The anchors of a dense head. None: the configuration does not say.

    scales: relative to the stride. ratios: height to width. sizes: of an SSD, one per level and one more, and
    level_ratios its ratios per level. deviations: of the box targets. guided: deviations of guided anchors.
    """

    scales: Numbers | None = None
    ratios: Numbers | None = None
    strides: Numbers | None = None
    sizes: Numbers | None = None
    level_ratios: tuple[Numbers, ...] | None = None
    deviations: Numbers | None = None
    guided: Numbers | None = None


@frozen(kw_only=True)
class LimitFacts:
    """Limits and thresholds, at test unless said otherwise. None: the configuration does not say.

    soft_nms: its method, sigma and least score, if it is used. before_nms: candidates per level of a single-stage
    model. sampling: samples per bin and axis of RoIAlign. The proposals of an RPN: `rpn_` at test, `rpn_train_` in
    training; before: per level, after: in all.
    """

    score_threshold: float | None = None
    nms_threshold: float | None = None
    max_detections: int | None = None
    before_nms: int | None = None
    mask_threshold: float | None = None
    soft_nms: Mapping[str, object] | None = None
    rpn_before: int | None = None
    rpn_after: int | None = None
    rpn_train_before: int | None = None
    rpn_train_after: int | None = None
    rpn_nms_threshold: float | None = None
    sampling: int | None = None


def image_facts(config: Any) -> ImageFacts:
    """How images are prepared: by the data preprocessor (3.x), the test pipeline (1.0, 2.x) or the data set (0.x)."""
    data = _test_data(config)
    resize = _resize(config, data)
    inner = at(config, "model.data_preprocessor")
    if isinstance(inner, Mapping):
        swaps = inner.get("bgr_to_rgb") is True or inner.get("rgb_to_bgr") is True
        norm: Any = {**inner, "to_rgb": swaps}
        divisor: int | None = whole(inner.get("pad_size_divisor")) or 1
    else:
        norm = next(find(data, "Normalize"), None) or first_at(data, "img_norm_cfg") or at(config, "img_norm_cfg")
        divisor = _divisor(data)
    return ImageFacts(
        order=_order(norm),
        mean=numbers(at(norm, "mean")),
        std=numbers(at(norm, "std")),
        pad_divisor=divisor,
        **resize,
    )


def _order(norm: Any) -> Literal["rgb", "bgr"] | None:
    """Images are read as BGR, and reordered unless `to_rgb` is off."""
    swaps = norm.get("to_rgb", True) if isinstance(norm, Mapping) else None
    return ("rgb" if swaps else "bgr") if isinstance(swaps, bool) else None


def _test_data(config: Any) -> Any:
    """The test data set, or another whose images are prepared likewise."""
    found = first_at(config, "data.test", "test_dataloader.dataset", "data.val", "val_dataloader.dataset")
    data: Any = next(iter(parts(found)), None)
    inner = next((d for d in (data, at(data, "dataset")) if isinstance(d, Mapping)), {})
    pipeline = first_at(inner, "pipeline", "dataset.pipeline") or at(config, "test_pipeline")
    return {**inner, "pipeline": pipeline} if pipeline else inner


def _divisor(data: Any) -> int | None:
    """Sides are padded to a multiple of this; 1 if there is no padding."""
    if at(data, "pipeline") is not None:
        pad = next(find(data, "Pad"), None)
        return 1 if pad is None else whole(pad.get("size_divisor"))
    if isinstance(data, Mapping) and "size_divisor" in data:
        return 1 if data["size_divisor"] is None else whole(data["size_divisor"])
    return None


def _resize(config: Any, data: Any) -> dict[str, Any]:
    resize = next(find(data, "Resize", "FixShapeResize"), None)
    around = next(find(data, "MultiScaleFlipAug"), None)
    scale = first_at(around, "img_scale") or first_at(resize, "scale", "img_scale") or at(data, "img_scale")
    scales = [scale] if numbers(scale) else parts(scale)
    keep = at(data, "resize_keep_ratio") if resize is None else resize.get("keep_ratio", not _modern(config))
    sides = tuple(whole(side) for side in parts(scales[0])) if len(scales) == 1 else ()
    return {
        "scale": tuple(s for s in sides if s) if len(sides) == 2 and all(sides) else None,
        "keep_ratio": keep if isinstance(keep, bool) else True if scales and keep is None else None,
    }


def _modern(config: Any) -> bool:
    """Whether `keep_ratio` is off by default, as in 3.x."""
    return at(config, "test_dataloader") is not None


def anchor_facts(model: Any) -> AnchorFacts:
    """The anchors of the dense head; those of Guided Anchoring are its approximating anchors."""
    head = dense_part(model)
    made = first_at(head, "approx_anchor_generator", "anchor_generator")
    source: Any = made if isinstance(made, Mapping) else head
    ratios = first_at(source, "ratios", "anchor_ratios", "octave_ratios")
    single_shot = type_of(head) == "SSDHead"
    return AnchorFacts(
        scales=None if single_shot else _scales(source),
        ratios=None if single_shot else numbers(ratios),
        strides=numbers(first_at(source, "strides", "anchor_strides")),
        sizes=_ssd_sizes(model) if single_shot else None,
        level_ratios=_all_numbers(ratios) if single_shot else None,
        deviations=numbers(first_at(head, "bbox_coder.target_stds", "target_stds")),
        guided=numbers(first_at(head, "anchor_coder.target_stds", "anchoring_stds")),
    )


def _all_numbers(value: Any) -> tuple[Numbers, ...] | None:
    found = tuple(numbers(level) for level in parts(value))
    known = tuple(level for level in found if level is not None)
    return known if known and len(known) == len(found) else None


def _scales(source: Any) -> Numbers | None:
    base = number(at(source, "octave_base_scale"))
    steps = whole(at(source, "scales_per_octave"))
    if base is not None and steps is not None and 0 < steps <= 100:
        return tuple(base * 2 ** (i / steps) for i in range(steps))
    return numbers(first_at(source, "scales", "anchor_scales"))


def _ssd_sizes(model: Any) -> Numbers | None:
    """Sizes of SSD's squares, as mmdetection computes them: in whole percent of the image size, evenly spaced."""
    head = at(model, "bbox_head")
    size, low = ssd_anchors(model)
    span = numbers(first_at(head, "anchor_generator.basesize_ratio_range", "basesize_ratio_range"))
    levels = len(parts(first_at(head, "anchor_generator.strides", "anchor_strides")))
    if size is None or low is None or span is None or len(span) != 2 or levels < 3:
        return None
    # The finest level has a size of its own, by image size and least ratio.
    smallest = {(300, 15): 7, (300, 20): 10, (512, 10): 4, (512, 15): 7}.get((size, low))
    high = int(span[1] * 100)
    step = (high - low) // (levels - 2)
    if smallest is None or not 0 < step <= 100:
        return None
    shares = [smallest, *range(low, high + 1, step)]
    return tuple(float(int(size * share / 100)) for share in [*shares, shares[-1] + step])


def limit_facts(config: Any) -> LimitFacts:
    """Limits and thresholds, from `test_cfg` and `train_cfg`, which are in `model` from 2.6 on."""
    model = at(config, "model")
    test, train = _phase(config, "test_cfg"), _phase(config, "train_cfg")
    second_stage = roi_part(model, "bbox_head") is not None
    final = at(test, "rcnn") if second_stage else test
    rpn = at(test, "rpn")
    # Before 1.0rc0 the limits at test are those in training, too. `nms_post` is a word of 0.x and 1.x.
    proposals = at(train, "rpn_proposal") or (rpn if at(rpn, "nms_post") is not None else None)
    return LimitFacts(
        score_threshold=number(at(final, "score_thr")),
        nms_threshold=_overlap(final),
        max_detections=whole(at(final, "max_per_img")),
        before_nms=None if second_stage or rpn is not None else whole(at(final, "nms_pre")),
        mask_threshold=number(at(final, "mask_thr_binary")),
        soft_nms=_soft_nms(at(final, "nms")),
        rpn_before=whole(at(rpn, "nms_pre")),
        rpn_after=whole(first_at(rpn, "max_per_img", "max_num")),
        rpn_train_before=whole(at(proposals, "nms_pre")),
        rpn_train_after=whole(first_at(proposals, "max_per_img", "max_num")),
        rpn_nms_threshold=_overlap(rpn),
        sampling=_sampling(model),
    )


def limit_notes(config: Any) -> list[str]:
    """Settings of `test_cfg` that det does not have, one sentence each."""
    test = _phase(config, "test_cfg")
    notes = []
    per_level, total = whole(at(test, "rpn.nms_post")), whole(first_at(test, "rpn.max_per_img", "rpn.max_num"))
    if per_level is not None and total is not None and per_level < total:
        notes.append(f"test_cfg.rpn.nms_post: {per_level} proposals per level are kept; det limits only their sum")
    if at(test, "rpn.nms_across_levels") is True:
        notes.append("test_cfg.rpn.nms_across_levels: is on; det applies NMS to each level of an RPN")
    for path in ("rpn.min_bbox_size", "rcnn.min_bbox_size", "min_bbox_size"):
        if number(at(test, path)):
            notes.append(f"test_cfg.{path}: is {at(test, path)}; boxes of that size are not removed")
    return notes


def _phase(config: Any, name: str) -> Any:
    """`test_cfg` or `train_cfg` of the model. In 3.x the top-level ones are loops."""
    outer = at(config, name)
    return first_at(config, f"model.{name}") or (None if type_of(outer) else outer)


def _overlap(settings: Any) -> float | None:
    """The NMS threshold, by the names of all versions."""
    return number(first_at(settings, "nms.iou_threshold", "nms.iou_thr", "nms_thr"))


def _soft_nms(nms: Any) -> dict[str, object] | None:
    """The settings of soft-NMS with mmdetection's defaults; None if it is not used."""
    if type_of(nms) != "soft_nms":
        return None
    method, sigma, least = at(nms, "method"), number(at(nms, "sigma")), number(at(nms, "min_score"))
    return {
        "method": method if isinstance(method, str) else "linear",
        "sigma": 0.5 if sigma is None else sigma,
        "min_score": 1e-3 if least is None else least,
    }


def _sampling(model: Any) -> int | None:
    """Samples per bin and axis of RoIAlign."""
    layer = at(next(iter(parts(roi_part(model, "bbox_roi_extractor"))), None), "roi_layer")
    return whole(first_at(layer, "sampling_ratio", "sample_num")) if type_of(layer) == "RoIAlign" else None
