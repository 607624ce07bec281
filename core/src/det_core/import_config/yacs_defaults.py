"""What detectron2 takes for keys that a configuration does not have (detectron2/config/defaults.py, version 2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from det_core.import_config.ledger import Node, shown
from det_core.weights.mmdet_values import number

_RPN, _ROI, _BOX, _MASK = "MODEL.RPN", "MODEL.ROI_HEADS", "MODEL.ROI_BOX_HEAD", "MODEL.ROI_MASK_HEAD"
_RETINA, _RESNET = "MODEL.RETINANET", "MODEL.RESNETS"

DEFAULTS: Mapping[str, Any] = {
    "MODEL.META_ARCHITECTURE": "GeneralizedRCNN",
    "MODEL.LOAD_PROPOSALS": False,
    "MODEL.MASK_ON": False,
    "MODEL.KEYPOINT_ON": False,
    "MODEL.WEIGHTS": "",
    "MODEL.PIXEL_MEAN": [103.53, 116.28, 123.675],
    "MODEL.PIXEL_STD": [1.0, 1.0, 1.0],
    "MODEL.BACKBONE.NAME": "build_resnet_backbone",
    "MODEL.BACKBONE.FREEZE_AT": 2,
    "MODEL.FPN.IN_FEATURES": [],
    "MODEL.FPN.OUT_CHANNELS": 256,
    "MODEL.FPN.NORM": "",
    "MODEL.PROPOSAL_GENERATOR.NAME": "RPN",
    "MODEL.PROPOSAL_GENERATOR.MIN_SIZE": 0,
    "MODEL.ANCHOR_GENERATOR.SIZES": [[32, 64, 128, 256, 512]],
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [[0.5, 1.0, 2.0]],
    f"{_RESNET}.DEPTH": 50,
    f"{_RESNET}.NUM_GROUPS": 1,
    f"{_RESNET}.WIDTH_PER_GROUP": 64,
    f"{_RESNET}.NORM": "FrozenBN",
    f"{_RESNET}.STRIDE_IN_1X1": True,
    f"{_RESNET}.RES5_DILATION": 1,
    f"{_RESNET}.OUT_FEATURES": ["res4"],
    f"{_RESNET}.DEFORM_ON_PER_STAGE": [False] * 4,
    f"{_RESNET}.DEFORM_MODULATED": False,
    f"{_RESNET}.DEFORM_NUM_GROUPS": 1,
    f"{_RPN}.IOU_THRESHOLDS": [0.3, 0.7],
    f"{_RPN}.BATCH_SIZE_PER_IMAGE": 256,
    f"{_RPN}.POSITIVE_FRACTION": 0.5,
    f"{_RPN}.BBOX_REG_LOSS_TYPE": "smooth_l1",
    f"{_RPN}.BBOX_REG_LOSS_WEIGHT": 1.0,
    f"{_RPN}.BBOX_REG_WEIGHTS": [1.0] * 4,
    f"{_RPN}.SMOOTH_L1_BETA": 0.0,
    f"{_RPN}.LOSS_WEIGHT": 1.0,
    f"{_RPN}.PRE_NMS_TOPK_TRAIN": 12000,
    f"{_RPN}.PRE_NMS_TOPK_TEST": 6000,
    f"{_RPN}.POST_NMS_TOPK_TRAIN": 2000,
    f"{_RPN}.POST_NMS_TOPK_TEST": 1000,
    f"{_RPN}.NMS_THRESH": 0.7,
    f"{_RPN}.CONV_DIMS": [-1],
    f"{_ROI}.NAME": "Res5ROIHeads",
    f"{_ROI}.NUM_CLASSES": 80,
    f"{_ROI}.IOU_THRESHOLDS": [0.5],
    f"{_ROI}.BATCH_SIZE_PER_IMAGE": 512,
    f"{_ROI}.POSITIVE_FRACTION": 0.25,
    f"{_ROI}.SCORE_THRESH_TEST": 0.05,
    f"{_ROI}.NMS_THRESH_TEST": 0.5,
    f"{_ROI}.PROPOSAL_APPEND_GT": True,
    f"{_BOX}.BBOX_REG_LOSS_TYPE": "smooth_l1",
    f"{_BOX}.BBOX_REG_LOSS_WEIGHT": 1.0,
    f"{_BOX}.BBOX_REG_WEIGHTS": [10.0, 10.0, 5.0, 5.0],
    f"{_BOX}.SMOOTH_L1_BETA": 0.0,
    f"{_BOX}.POOLER_RESOLUTION": 14,
    f"{_BOX}.POOLER_SAMPLING_RATIO": 0,
    f"{_BOX}.POOLER_TYPE": "ROIAlignV2",
    f"{_BOX}.NUM_FC": 0,
    f"{_BOX}.FC_DIM": 1024,
    f"{_BOX}.NUM_CONV": 0,
    f"{_BOX}.CONV_DIM": 256,
    f"{_BOX}.NORM": "",
    f"{_BOX}.CLS_AGNOSTIC_BBOX_REG": False,
    "MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS": [[10.0 * n, 10.0 * n, 5.0 * n, 5.0 * n] for n in (1, 2, 3)],
    "MODEL.ROI_BOX_CASCADE_HEAD.IOUS": [0.5, 0.6, 0.7],
    f"{_MASK}.POOLER_RESOLUTION": 14,
    f"{_MASK}.POOLER_SAMPLING_RATIO": 0,
    f"{_MASK}.POOLER_TYPE": "ROIAlignV2",
    f"{_MASK}.NUM_CONV": 0,
    f"{_MASK}.CONV_DIM": 256,
    f"{_MASK}.NORM": "",
    f"{_MASK}.CLS_AGNOSTIC_MASK": False,
    f"{_RETINA}.NUM_CLASSES": 80,
    f"{_RETINA}.NUM_CONVS": 4,
    f"{_RETINA}.IOU_THRESHOLDS": [0.4, 0.5],
    f"{_RETINA}.PRIOR_PROB": 0.01,
    f"{_RETINA}.SCORE_THRESH_TEST": 0.05,
    f"{_RETINA}.TOPK_CANDIDATES_TEST": 1000,
    f"{_RETINA}.NMS_THRESH_TEST": 0.5,
    f"{_RETINA}.BBOX_REG_WEIGHTS": [1.0] * 4,
    f"{_RETINA}.FOCAL_LOSS_GAMMA": 2.0,
    f"{_RETINA}.FOCAL_LOSS_ALPHA": 0.25,
    f"{_RETINA}.BBOX_REG_LOSS_TYPE": "smooth_l1",
    f"{_RETINA}.SMOOTH_L1_LOSS_BETA": 0.1,
    f"{_RETINA}.NORM": "",
    "INPUT.FORMAT": "BGR",
    "INPUT.MIN_SIZE_TRAIN": [800],
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": "choice",
    "INPUT.MAX_SIZE_TRAIN": 1333,
    "INPUT.MIN_SIZE_TEST": 800,
    "INPUT.MAX_SIZE_TEST": 1333,
    "INPUT.RANDOM_FLIP": "horizontal",
    "DATASETS.TRAIN": [],
    "DATASETS.TEST": [],
    "DATALOADER.ASPECT_RATIO_GROUPING": True,
    "DATALOADER.SAMPLER_TRAIN": "TrainingSampler",
    "DATALOADER.REPEAT_THRESHOLD": 0.0,
    "DATALOADER.FILTER_EMPTY_ANNOTATIONS": True,
    "SOLVER.LR_SCHEDULER_NAME": "WarmupMultiStepLR",
    "SOLVER.MAX_ITER": 40000,
    "SOLVER.STEPS": [30000],
    "SOLVER.GAMMA": 0.1,
    "SOLVER.BASE_LR": 0.001,
    "SOLVER.BASE_LR_END": 0.0,
    "SOLVER.MOMENTUM": 0.9,
    "SOLVER.NESTEROV": False,
    "SOLVER.WEIGHT_DECAY": 0.0001,
    "SOLVER.WEIGHT_DECAY_NORM": 0.0,
    "SOLVER.WEIGHT_DECAY_BIAS": None,
    "SOLVER.WARMUP_FACTOR": 0.001,
    "SOLVER.WARMUP_ITERS": 1000,
    "SOLVER.IMS_PER_BATCH": 16,
    "SOLVER.REFERENCE_WORLD_SIZE": 0,
    "SOLVER.CLIP_GRADIENTS.ENABLED": False,
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": "value",
    "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": 1.0,
    "SOLVER.CLIP_GRADIENTS.NORM_TYPE": 2.0,
    "SOLVER.AMP.ENABLED": False,
    "SEED": -1,
    "TEST.DETECTIONS_PER_IMAGE": 100,
}


def taken(root: Node, key: str) -> Any:
    """The value of a key, which counts as used; detectron2's default if there is none, or one of another kind."""
    node, default = root.at(key), DEFAULTS[key]
    found = node.take(default)
    if found is None:
        return default
    kind, fits = _kind(default)
    if fits(found):
        return found
    node.refuse(f"{shown(found)}: expected {kind}; {shown(default)} is used, detectron2's default")
    return default


def _kind(default: Any) -> tuple[str, Callable[[Any], bool]]:
    """What a value must be, in words and as a test: of the kind of the default. One value may stand for a list."""
    if isinstance(default, bool):
        return "true or false", lambda found: isinstance(found, bool)
    if isinstance(default, str):
        return "text", lambda found: isinstance(found, str)
    if isinstance(default, list):
        return "a list", lambda found: not isinstance(found, (Mapping, bool))
    return "a number", lambda found: number(found) is not None
