"""Golden cases of 2019: what mmdetection 0.6.0 and 1.0rc0 (float64, CPU) compute for whole detectors.

`mmdet1/NAME.json` and `.npz` hold their results; weights and inputs are those of `generate.py`. Their boxes name the
first and the last pixel, so x2 and y2 are one less than here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import golden
import numpy as np
import torch
from attrs import evolve

from det_core.data.data_config import ResizeConfig
from det_core.load import load_recipe
from det_core.model.detector_config import DetectorConfig, PreprocessConfig
from det_core.specs import ProposalLimits
from det_core.structures import Batch, Detections, ImageInfo
from det_core.weights.fill_detector import import_weights

HERE = Path(__file__).parent


# Case name to the recipe of the same model.
RECIPES = {
    "legacy_rpn_r50_fpn": "rpn/mmdet1-r50-fpn-1x",
    "legacy_fast_rcnn_r50_fpn": "fast-rcnn/mmdet1-r50-fpn-1x",
    "legacy_faster_rcnn_r50_fpn": "faster-rcnn/mmdet1-r50-fpn-1x",
    "legacy_faster_rcnn_r50_caffe_c4": "faster-rcnn/mmdet1-r50-caffe-c4-1x",
    "legacy_mask_rcnn_r50_fpn": "mask-rcnn/mmdet1-r50-fpn-1x",
    "legacy_retinanet_r50_fpn": "retinanet/mmdet1-r50-fpn-1x",
    "legacy_retinanet_r50_fpn_convmodule": "retinanet/mmdet1-r50-fpn-1x",
    "legacy_cascade_rcnn_r50_fpn": "cascade-rcnn/mmdet1-r50-fpn-1x",
    "legacy_cascade_mask_rcnn_r50_fpn": "cascade-mask-rcnn/mmdet1-r50-fpn-1x",
    "legacy_htc_r50_fpn": "htc/mmdet1-r50-fpn-1x",
    "legacy_ssd300_coco": "ssd/mmdet1-vgg16-300-coco-120e",
    "legacy_mask_rcnn_r50_fpn_gn": "mask-rcnn/mmdet1-r50-fpn-gn-2x",
    "legacy_mask_rcnn_r50_fpn_gn_ws": "mask-rcnn/mmdet1-r50-fpn-gn-ws-2x",
    "legacy_faster_rcnn_dconv_c3_c5_r50_fpn": "faster-rcnn/mmdet1-r50-fpn-dconv-c3-c5-1x",
    "legacy_faster_rcnn_mdconv_c3_c5_r50_fpn": "faster-rcnn/mmdet1-r50-fpn-mdconv-c3-c5-1x",
    "legacy_faster_rcnn_dpool_r50_fpn": "faster-rcnn/mmdet1-r50-fpn-dpool-1x",
    "legacy_ga_rpn_r50_caffe_fpn": "ga-rpn/mmdet1-r50-caffe-fpn-1x",
    "legacy_ga_faster_r50_caffe_fpn": "ga-faster-rcnn/mmdet1-r50-caffe-fpn-1x",
    "legacy_ga_retinanet_r50_caffe_fpn": "ga-retinanet/mmdet1-r50-caffe-fpn-1x",
    "legacy_pipeline_mask_rcnn_r50_fpn": "mask-rcnn/mmdet1-r50-fpn-1x",
    "legacy_pipeline_retinanet_r50_caffe_fpn": "retinanet/mmdet1-r50-caffe-fpn-1x",
    "legacy_pipeline_ssd300": "ssd/mmdet1-vgg16-300-coco-120e",
}
# The losses of 0.6 to those of 1.0.
RENAMED = {"reg": "bbox"}


def load_case(name: str, dtype: torch.dtype = torch.float64, device: str = "cpu") -> Any:
    """Read a case, build its recipe's detector on the device and import the weights."""
    facts = json.loads((HERE / "mmdet1" / f"{name}.json").read_text())
    results = golden_of(name)
    detector = detector_config(RECIPES[name], facts).build(num_classes=facts["num_classes"])
    report = import_weights(golden.generate.state_dict(facts), source="mmdet1", detector=detector)
    return golden.Case(name, facts, results, detector.to(device, dtype), report)


def golden_of(name: str) -> dict[str, np.ndarray]:
    """The results of a case."""
    return dict(np.load(HERE / "mmdet1" / f"{name}.npz"))


def detector_config(recipe: str, facts: dict[str, Any]) -> DetectorConfig:
    """The recipe's detector with deterministic sampling and the case's numbers."""
    config = load_recipe(recipe).detector
    options = facts["options"]
    head: Any = config.dense_head
    if head is not None and hasattr(head, "test_limits"):
        head = evolve(golden._sample_everything(head), **_limits(head, facts))
    if hasattr(head, "guided"):
        head = evolve(head, guided=evolve(head.guided, shape_sampler=golden._everything(head.guided.shape_sampler)))
    if "test_cfg.score_thr" in options:
        head = evolve(head, score_threshold=options["test_cfg.score_thr"])
    config = evolve(config, dense_head=head)
    if config.roi_head is not None:
        second = golden._sample_everything(config.roi_head)
        if "test_cfg.rcnn.score_thr" in options:
            second = evolve(second, score_threshold=options["test_cfg.rcnn.score_thr"])
        config = evolve(config, roi_head=second)
    if "preprocess" in facts:
        wanted = facts["preprocess"]
        order = "rgb" if wanted["bgr_to_rgb"] else "bgr"
        mean, std = tuple(wanted["mean"]), tuple(wanted["std"])
        preprocess = PreprocessConfig(order=order, mean=mean, std=std, pad_divisor=wanted["pad_divisor"])
        config = evolve(config, preprocess=preprocess)
    return config


def _limits(head: Any, facts: dict[str, Any]) -> dict[str, ProposalLimits]:
    """The numbers of proposals: of 0.6 the same at test and in training."""
    options = facts["options"]
    if facts["version"] == "0.6.0":
        limits = ProposalLimits(before_nms=2000, after_nms=options.get("test_cfg.rpn.max_num", 2000))
        return {"train_limits": limits, "test_limits": limits}
    found = {}
    for name, source in (("train_limits", "train_cfg.rpn_proposal"), ("test_limits", "test_cfg.rpn")):
        given = getattr(head, name)
        found[name] = ProposalLimits(
            before_nms=options.get(f"{source}.nms_pre", given.before_nms),
            after_nms=options.get(f"{source}.max_num", given.after_nms),
        )
    return found


def loss_names(case: Any) -> dict[str, str]:
    """The losses of the case to ours."""
    one_stage = golden.ONE_STAGE.get(RECIPES[case.name].partition("/")[0])
    names = {k: v for k, v in case.facts["losses"].items() if not k.endswith("acc") and k != "total"}
    known = golden.LOSSES
    if one_stage is not None:
        kinds = {"cls": "cls", "bbox": "box", "shape": "shape", "loc": "location"}
        known = {f"loss_{theirs}": f"{one_stage}_{ours}" for theirs, ours in kinds.items()}
    return {name: known[name.replace("_reg", "_bbox")] for name in names}


def rescaled_batch(case: Any) -> Batch:
    """The case's images as if they had been resized: scale and original size are those of `rescale`."""
    batch = golden.synthetic_batch(case)
    given = case.facts["rescale"]
    scale = given["scale_factor"]
    x, y = (scale[0], scale[1]) if isinstance(scale, list) else (scale, scale)
    sizes = zip(batch.infos, given["ori_shapes"], strict=True)
    infos = tuple(ImageInfo(size=i.size, original_size=tuple(size), scale=(y, x), inclusive=True) for i, size in sizes)
    return Batch(images=batch.images, infos=infos, proposals=batch.proposals)


def file_batches(case: Any) -> list[Batch]:
    """The case's image files, each by itself, through reading, resizing, normalising and padding."""
    long, short = sorted(case.facts["scale"], reverse=True)
    config = ResizeConfig(scales=((long, short),), keep_ratio=case.facts["keep_ratio"], boxes="pixels")
    return [golden.files_to_batch(case, [name], config) for name in case.facts["images"]]


def golden_detections(case: Any, i: int, kind: str = "det") -> Detections:
    """The detections of image i, or with `rescaled`; the boxes end after their last pixel."""
    results = {key.removeprefix(kind): value for key, value in case.golden.items() if key.startswith(f"{kind}{i}.")}
    renamed = {f"det{key}": value for key, value in results.items()}
    found = golden.golden_detections(evolve(case, golden=renamed), i)
    last = torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    return Detections(boxes=found.boxes + last, scores=found.scores, labels=found.labels, masks=found.masks)
