"""Golden cases of detectron2 itself (float64, CPU): what it computes for whole detectors.

`detectron2/NAME.json` and `.npz` hold its results; weights and inputs are those of `generate.py`.
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
from det_core.model.detector_config import DetectorConfig
from det_core.specs import ProposalLimits
from det_core.structures import Batch
from det_core.weights.fill_detector import import_weights

HERE = Path(__file__).parent


# Case name to the recipe of the same model.
RECIPES = {
    "d2_rpn_R_50_FPN": "rpn/detectron2-r50-fpn-1x",
    "d2_rpn_R_50_C4": "rpn/detectron2-r50-c4-1x",
    "d2_fast_rcnn_R_50_FPN": "fast-rcnn/detectron2-r50-fpn-1x",
    "d2_faster_rcnn_R_50_FPN": "faster-rcnn/detectron2-r50-fpn-1x",
    "d2_faster_rcnn_R_50_C4": "faster-rcnn/detectron2-r50-c4-1x",
    "d2_faster_rcnn_X_101_32x8d_FPN": "faster-rcnn/detectron2-x101-32x8d-fpn-3x",
    "d2_mask_rcnn_R_50_FPN": "mask-rcnn/detectron2-r50-fpn-1x",
    "d2_mask_rcnn_R_50_C4": "mask-rcnn/detectron2-r50-c4-1x",
    "d2_mask_rcnn_R_50_FPN_gn": "mask-rcnn/detectron2-r50-fpn-gn-3x",
    "d2_mask_rcnn_R_50_FPN_dconv": "mask-rcnn/detectron2-r50-fpn-dconv-c3-c5-1x",
    "d2_mask_rcnn_R_50_FPN_noaug": "mask-rcnn/detectron2-r50-fpn-noaug-1x",
    "d2_mask_rcnn_R_50_FPN_lsj": "mask-rcnn/detectron2-r50-fpn-lsj-100e",
    "d2_faster_rcnn_R_50_DC5": "faster-rcnn/detectron2-r50-dc5-1x",
    "d2_cascade_mask_rcnn_R_50_FPN": "cascade-mask-rcnn/detectron2-r50-fpn-1x",
    "d2_retinanet_R_50_FPN": "retinanet/detectron2-r50-fpn-1x",
    "d2_pipeline_faster_rcnn_R_50_FPN": "faster-rcnn/detectron2-r50-fpn-1x",
    "d2_pipeline_mask_rcnn_R_50_FPN": "mask-rcnn/detectron2-r50-fpn-1x",
    "d2_pipeline_retinanet_R_50_FPN": "retinanet/detectron2-r50-fpn-1x",
}
SAMPLED_ANCHORS = 32768  # of an image in every case: the RPN's losses are divided by it, though there are fewer
# Its losses to ours.
LOSSES = {
    "loss_rpn_cls": "rpn_cls",
    "loss_rpn_loc": "rpn_box",
    "loss_cls": "roi_cls",
    "loss_box_reg": "roi_box",
    "loss_mask": "roi_mask",
}
CASCADE_LOSSES = {
    "loss_rpn_cls": "rpn_cls",
    "loss_rpn_loc": "rpn_box",
    **{f"loss_cls_stage{i}": f"stage{i + 1}_cls" for i in range(3)},
    **{f"loss_box_reg_stage{i}": f"stage{i + 1}_box" for i in range(3)},
    "loss_mask": "stage1_mask",
}
RETINANET_LOSSES = {"loss_cls": "retina_cls", "loss_box_reg": "retina_box"}


def load_case(name: str, dtype: torch.dtype = torch.float64, device: str = "cpu") -> Any:
    """Read a case, build its detector on the device and import the weights."""
    facts = json.loads((HERE / "detectron2" / f"{name}.json").read_text())
    facts.setdefault("proposals", False)
    facts.setdefault("semantic", False)
    results = dict(np.load(HERE / "detectron2" / f"{name}.npz"))
    detector = detector_config(name, facts).build(num_classes=facts["num_classes"])
    report = import_weights(golden.generate.state_dict(facts), source="detectron2", detector=detector)
    return golden.Case(name, facts, results, detector.to(device, dtype), report)


def loss_names(case: Any) -> dict[str, str]:
    """Of a case, its losses to ours."""
    names = CASCADE_LOSSES if "cascade" in case.name else RETINANET_LOSSES if "retinanet" in case.name else LOSSES
    return {theirs: ours for theirs, ours in names.items() if theirs in case.facts["losses"]}


def detector_config(name: str, facts: dict[str, Any]) -> DetectorConfig:
    """The detector of a case with deterministic sampling and its numbers."""
    config = load_recipe(RECIPES[name]).detector
    options = facts["options"]
    head: Any = config.dense_head
    if hasattr(head, "test_limits"):
        limits = {}
        for i, (field, split) in enumerate((("train_limits", "TRAIN"), ("test_limits", "TEST"))):
            given = getattr(head, field)
            after = options.get(f"MODEL.RPN.POST_NMS_TOPK_{split}", given.after_nms)
            if "proposal_generator.post_nms_topk" in options:
                after = options["proposal_generator.post_nms_topk"][i]
            limits[field] = ProposalLimits(before_nms=given.before_nms, after_nms=after)
        head = evolve(golden._sample_everything(head), loss_anchors=SAMPLED_ANCHORS, **limits)
    for key in ("MODEL.RETINANET.SCORE_THRESH_TEST", "MODEL.ROI_HEADS.SCORE_THRESH_TEST"):
        if key in options and config.roi_head is None:
            head = evolve(head, score_threshold=options[key])
    config = evolve(config, dense_head=head)
    if config.roi_head is not None:
        second = golden._sample_everything(config.roi_head)
        if "MODEL.ROI_HEADS.SCORE_THRESH_TEST" in options:
            second = evolve(second, score_threshold=options["MODEL.ROI_HEADS.SCORE_THRESH_TEST"])
        config = evolve(config, roi_head=second)
    return config


def file_batch(case: Any) -> Batch:
    """The case's image files through reading, resizing, normalising and padding."""
    long, short = case.facts["max_size"], case.facts["min_size"]
    config = ResizeConfig(scales=((long, short),), arithmetic="antialiased")
    return golden.files_to_batch(case, case.facts["images"], config)
