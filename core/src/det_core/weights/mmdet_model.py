"""det's names of the model that a configuration of mmdetection describes: model, network, kind, variant, schedule.

The names are those of the zoo: `<model>/<network>-<kind>[-<variant>]-<schedule>` (`det_core.zoo.Row`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from det_core.optim.learning_rate_config import StepRateConfig
from det_core.weights.mmdet_values import at, find, first_at, numbers, parts, type_of, whole
from det_core.zoo import SCHEDULES

# mmdet's class of the detector and of its dense head, and whether it has a mask head (None: either).
_MODELS: Mapping[tuple[str, str, bool | None], str] = {
    ("RPN", "RPNHead", None): "rpn",
    ("RPN", "GARPNHead", None): "ga-rpn",
    ("FastRCNN", "", False): "fast-rcnn",
    ("FastRCNN", "", True): "fast-mask-rcnn",
    ("FasterRCNN", "RPNHead", False): "faster-rcnn",
    ("FasterRCNN", "GARPNHead", False): "ga-faster-rcnn",
    ("MaskRCNN", "RPNHead", True): "mask-rcnn",
    ("CascadeRCNN", "RPNHead", False): "cascade-rcnn",
    ("CascadeRCNN", "RPNHead", True): "cascade-mask-rcnn",
    ("HybridTaskCascade", "RPNHead", True): "htc",
    ("RetinaNet", "RetinaHead", None): "retinanet",
    ("RetinaNet", "GARetinaHead", None): "ga-retinanet",
    ("SingleStageDetector", "SSDHead", None): "ssd",
}
GUIDED_FAST = (0.05, 0.05, 0.1, 0.1)  # deviations of the box targets for better proposals, those of a GA-RPN
# An SSD's image size, and the least size of its anchors in percent, to the data set that they are for.
SSD_DATA: Mapping[tuple[int | None, int | None], str] = {
    (300, 15): "coco",
    (300, 20): "voc",
    (512, 10): "coco",
    (512, 15): "voc",
}
_SWIN = {(96, (2, 2, 6, 2)): "t", (96, (2, 2, 18, 2)): "s"}  # channels of the first stage and blocks, to the size
_STAGES = {2: "c3", 3: "c4", 4: "c5"}  # of the backbone, counted from 1, with deformable convolutions


def roi_part(model: Any, name: str) -> Any:
    """A part of the RoI head, which is at the top before 2.0. Single-stage models have none."""
    if at(model, "rpn_head") is None and type_of(model) != "FastRCNN" and at(model, "roi_head") is None:
        return None
    return first_at(model, f"roi_head.{name}", name)


def dense_part(model: Any) -> Any:
    """The head that works on every location; None in a Fast R-CNN."""
    rpn = at(model, "rpn_head")
    if rpn is not None or type_of(model) == "FastRCNN":
        return rpn
    return at(model, "bbox_head")


def model_name(model: Any) -> str | None:
    """The model, such as `mask-rcnn`; None if it is not a published baseline's."""
    masks = roi_part(model, "mask_head") is not None
    head = type_of(dense_part(model))
    name = next((_MODELS[key] for m in (masks, None) if (key := (type_of(model), head, m)) in _MODELS), None)
    if name == "htc" and roi_part(model, "semantic_head") is None:
        return "htc-without-semantic"
    if name == "fast-rcnn" and box_deviations(model) == (GUIDED_FAST,):
        return "ga-fast-rcnn"
    return name


def box_deviations(model: Any) -> tuple[tuple[float, ...], ...] | None:
    """Standard deviations of the box targets of each stage of the RoI head."""
    found = tuple(numbers(first_at(head, "bbox_coder.target_stds", "target_stds")) for head in box_heads(model))
    return tuple(stds for stds in found if stds is not None) if found and None not in found else None


def box_heads(model: Any) -> list[Any]:
    """The box heads of the RoI head, one per stage."""
    return parts(roi_part(model, "bbox_head"))


def class_counts(model: Any) -> list[int]:
    """`num_classes` of all heads after the first stage, as the configuration has them."""
    heads = [*box_heads(model), *parts(roi_part(model, "mask_head"))] or [at(model, "bbox_head")]
    counts = [whole(at(head, "num_classes")) for head in heads]
    return [count for count in counts if count is not None]


def network_name(backbone: Any) -> str | None:
    """The backbone, such as `r50-caffe`, `x101-32x4d`, `vgg16` or `swin-t`; None if its configuration does not say."""
    kind, depth = type_of(backbone), whole(at(backbone, "depth"))
    if kind == "SwinTransformer":
        size = whole(at(backbone, "embed_dims")) or 96, numbers(at(backbone, "depths")) or (2, 2, 6, 2)
        return f"swin-{_SWIN[size]}" if size in _SWIN else None
    if kind == "ConvNeXt":
        arch = at(backbone, "arch") or "tiny"
        return f"convnext-{arch[0]}" if arch in ("tiny", "small", "base", "large") else None
    if depth is None or kind not in ("ResNet", "ResNeXt", "SSDVGG"):
        return None
    if kind == "SSDVGG":
        return f"vgg{depth}"
    if kind == "ResNeXt":
        groups, width = whole(at(backbone, "groups")), whole(at(backbone, "base_width"))
        return f"x{depth}-{groups or 1}x{width or 4}d"
    return f"r{depth}-caffe" if at(backbone, "style") == "caffe" else f"r{depth}"


def kind_name(model: Any) -> str | None:
    """`fpn` or `c4`, or the image size of an SSD; other necks by their class, which no recipe has."""
    if type_of(at(model, "bbox_head")) == "SSDHead":
        size, _ = ssd_anchors(model)
        return None if size is None else str(size)
    necks = [type_of(neck) for neck in parts(at(model, "neck"))]
    if necks:
        return "-".join(neck.lower() for neck in necks)
    return "c4" if list(parts(at(model, "backbone.out_indices"))) == [2] else None


def ssd_anchors(model: Any) -> tuple[int | None, int | None]:
    """The image size of an SSD, and the least size of its anchors in percent of it (the finest level apart)."""
    sizes = ("bbox_head.anchor_generator.input_size", "bbox_head.input_size", "backbone.input_size")
    spans = ("bbox_head.anchor_generator.basesize_ratio_range", "bbox_head.basesize_ratio_range")
    span = numbers(first_at(model, *spans))
    return whole(first_at(model, *sizes)), None if span is None else int(span[0] * 100)


def variant_name(model: Any, order: str | None) -> str:
    """What differs from the plain model, such as `gn-ws` or `mdconv-c3-c5`; "" if nothing does.

    An SSD's is the data set that its anchors are for.

    order: of the colours. Detectron's weights with group norm expect BGR, the contributed ones (`gn-contrib`) RGB.
    """
    if type_of(at(model, "bbox_head")) == "SSDHead":
        return SSD_DATA.get(ssd_anchors(model), "")
    return "-".join(part for part in (_norm(model, order), _deformable(at(model, "backbone")), _pooling(model)) if part)


def _norm(model: Any, order: str | None) -> str:
    backbone = at(model, "backbone")
    if type_of(first_at(backbone, "norm_cfg", "normalize")) != "GN":
        return ""
    if type_of(at(backbone, "conv_cfg")) == "ConvWS":
        return "gn-ws"
    return "gn-contrib" if order == "rgb" else "gn"


def _deformable(backbone: Any) -> str:
    """Deformable convolutions. 0.5 to 1.0 tell the modulated ones by `modulated`, later versions by the class."""
    layer = at(backbone, "dcn")
    where = [_STAGES.get(n, f"c{n + 1}") for n, on in enumerate(parts(at(backbone, "stage_with_dcn")), 1) if on is True]
    if not isinstance(layer, Mapping) or not where:
        return ""
    modulated = layer.get("modulated") is True or type_of(layer) == "DCNv2"
    groups = whole(first_at(layer, "deform_groups", "deformable_groups")) or 1
    words = ["mdconv" if modulated else "dconv", f"group{groups}" if groups > 1 else "", where[0], where[-1]]
    return "-".join(word for word in words[: None if len(where) > 1 else -1] if word)


def _pooling(model: Any) -> str:
    for extractor in parts(roi_part(model, "bbox_roi_extractor")):
        layer = type_of(at(extractor, "roi_layer"))
        if layer in ("DeformRoIPoolingPack", "DeformRoIPoolPack"):
            return "dpool"
        if layer in ("ModulatedDeformRoIPoolingPack", "ModulatedDeformRoIPoolPack"):
            return "mdpool"
    return ""


def schedule_name(config: Any, *, repeated: bool) -> str | None:
    """The training schedule, such as `2x`; None if the configuration does not say.

    repeated: count passes over the data, as the names of SSD's recipes do, not epochs of a data set that is repeated.
    """
    epochs = whole(first_at(config, "total_epochs", "runner.max_epochs", "train_cfg.max_epochs", "max_epochs"))
    if epochs is None:
        return None
    if repeated:
        times = next((whole(data.get("times")) for data in find(config, "RepeatDataset")), None)
        return f"{epochs * (times or 1)}e"
    drops = numbers(at(config, "lr_config.step")) or next(
        (numbers(step.get("milestones")) for step in find(at(config, "param_scheduler"), "MultiStepLR")), None
    )
    same = [name for name, schedule in SCHEDULES.items() if schedule.epochs == epochs]
    exact = [
        name
        for name in same
        if isinstance(rate := SCHEDULES[name].learning_rate, StepRateConfig) and rate.milestones == tuple(drops or ())
    ]
    return next(iter([*exact, *same]), f"{epochs}e")
