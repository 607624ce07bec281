"""Configurations in the style of detectron2, written for the tests of `det-core import-config`."""

from __future__ import annotations

TRAINING = """\
DATASETS:
  TRAIN: ("coco_2017_train",)
  TEST: ("coco_2017_val",)
SOLVER:
  IMS_PER_BATCH: 16
  BASE_LR: 0.02
  STEPS: (60000, 80000)
  MAX_ITER: 90000
INPUT:
  MIN_SIZE_TRAIN: (640, 672, 704, 736, 768, 800)
VERSION: 2
"""
PYRAMID = f"""\
MODEL:
  META_ARCHITECTURE: GeneralizedRCNN
  BACKBONE:
    NAME: build_resnet_fpn_backbone
  RESNETS:
    OUT_FEATURES: [res2, res3, res4, res5]
  FPN:
    IN_FEATURES: [res2, res3, res4, res5]
  ANCHOR_GENERATOR:
    SIZES: [[32], [64], [128], [256], [512]]
    ASPECT_RATIOS: [[0.5, 1.0, 2.0]]
  RPN:
    IN_FEATURES: [p2, p3, p4, p5, p6]
    PRE_NMS_TOPK_TRAIN: 2000
    PRE_NMS_TOPK_TEST: 1000
    POST_NMS_TOPK_TRAIN: 1000
    POST_NMS_TOPK_TEST: 1000
  ROI_HEADS:
    NAME: StandardROIHeads
    IN_FEATURES: [p2, p3, p4, p5]
  ROI_BOX_HEAD:
    NAME: FastRCNNConvFCHead
    NUM_FC: 2
    POOLER_RESOLUTION: 7
  ROI_MASK_HEAD:
    NAME: MaskRCNNConvUpsampleHead
    NUM_CONV: 4
    POOLER_RESOLUTION: 14
{TRAINING}"""
STAGE = f"""\
MODEL:
  META_ARCHITECTURE: GeneralizedRCNN
  RPN:
    PRE_NMS_TOPK_TEST: 6000
    POST_NMS_TOPK_TEST: 1000
  ROI_HEADS:
    NAME: Res5ROIHeads
{TRAINING}"""
DILATED = """\
MODEL:
  META_ARCHITECTURE: GeneralizedRCNN
  RESNETS:
    OUT_FEATURES: [res5]
    RES5_DILATION: 2
  RPN:
    IN_FEATURES: [res5]
  ROI_HEADS:
    NAME: StandardROIHeads
    IN_FEATURES: [res5]
  ROI_BOX_HEAD:
    NAME: FastRCNNConvFCHead
    NUM_FC: 2
    POOLER_RESOLUTION: 7
  ROI_MASK_HEAD:
    NUM_CONV: 4
    POOLER_RESOLUTION: 14
DATASETS:
  TRAIN: ("coco_2017_train",)
  TEST: ("coco_2017_val",)
SOLVER: {IMS_PER_BATCH: 16, BASE_LR: 0.02, STEPS: "(60000, 80000)", MAX_ITER: 90000}
INPUT: {MIN_SIZE_TRAIN: "(640, 672, 704, 736, 768, 800)"}
"""
RETINA = """\
MODEL:
  META_ARCHITECTURE: RetinaNet
  BACKBONE:
    NAME: build_retinanet_resnet_fpn_backbone
  RESNETS:
    OUT_FEATURES: [res3, res4, res5]
  ANCHOR_GENERATOR:
    SIZES: !!python/object/apply:eval ["[[a, a * 2 ** (1.0 / 3), a * 2 ** (2.0 / 3)] for a in [32, 64, 128, 256, 512]]"]
  FPN:
    IN_FEATURES: [res3, res4, res5]
  RETINANET:
    IOU_THRESHOLDS: [0.4, 0.5]
    IOU_LABELS: [0, -1, 1]
    SMOOTH_L1_LOSS_BETA: 0.0
DATASETS:
  TRAIN: ("coco_2017_train",)
  TEST: ("coco_2017_val",)
SOLVER:
  IMS_PER_BATCH: 16
  BASE_LR: 0.01
  STEPS: (60000, 80000)
  MAX_ITER: 90000
INPUT:
  MIN_SIZE_TRAIN: (640, 672, 704, 736, 768, 800)
"""
BASES = {"bases/fpn.yaml": PYRAMID, "bases/c4.yaml": STAGE, "bases/dc5.yaml": DILATED, "bases/retinanet.yaml": RETINA}
R50 = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"


def on(base: str, text: str = "MODEL: {}", weights: str = R50) -> str:
    """A configuration with a base; text: YAML, whose mapping MODEL gets the initial weights."""
    placed = text.replace("MODEL:", f"MODEL:\n  WEIGHTS: {weights!r}", 1) if "MODEL: {}" not in text else ""
    return f'_BASE_: "../bases/{base}.yaml"\n' + (placed or f"MODEL:\n  WEIGHTS: {weights!r}\n")


LONG = "SOLVER:\n  STEPS: (210000, 250000)\n  MAX_ITER: 270000\n"
MASKS = "MODEL:\n  MASK_ON: True\n"
GROUP_NORM = """\
MODEL:
  MASK_ON: True
  RESNETS: {NORM: GN, STRIDE_IN_1X1: False}
  FPN: {NORM: GN}
  ROI_BOX_HEAD: {NAME: FastRCNNConvFCHead, NUM_CONV: 4, NUM_FC: 1, NORM: GN}
  ROI_MASK_HEAD: {NORM: GN}
"""
DEFORMABLE = "MODEL:\n  MASK_ON: True\n  RESNETS: {DEFORM_ON_PER_STAGE: [False, True, True, True]}\n"
CASCADE = """\
MODEL:
  MASK_ON: True
  ROI_HEADS: {NAME: CascadeROIHeads}
  ROI_BOX_HEAD: {CLS_AGNOSTIC_BBOX_REG: True}
  RPN: {POST_NMS_TOPK_TRAIN: 2000}
"""
AGNOSTIC = """\
MODEL:
  MASK_ON: True
  ROI_BOX_HEAD: {CLS_AGNOSTIC_BBOX_REG: True}
  ROI_MASK_HEAD: {CLS_AGNOSTIC_MASK: True}
"""
GIOU = """\
MODEL:
  MASK_ON: True
  RPN: {BBOX_REG_LOSS_TYPE: giou, BBOX_REG_LOSS_WEIGHT: 2.0}
  ROI_BOX_HEAD: {BBOX_REG_LOSS_TYPE: giou, BBOX_REG_LOSS_WEIGHT: 10.0}
"""
LIKE_DETECTRON = """\
MODEL:
  RPN: {SMOOTH_L1_BETA: 0.1111}
  ROI_BOX_HEAD: {POOLER_SAMPLING_RATIO: 2, POOLER_TYPE: ROIAlign, SMOOTH_L1_BETA: 1.0}
INPUT: {MIN_SIZE_TRAIN: "(800,)"}
"""
LVIS = """\
MODEL:
  MASK_ON: True
  ROI_HEADS: {NUM_CLASSES: 1203, SCORE_THRESH_TEST: 0.0001}
DATASETS: {TRAIN: '("lvis_v1_train",)', TEST: '("lvis_v1_val",)'}
TEST: {DETECTIONS_PER_IMAGE: 300}
DATALOADER: {SAMPLER_TRAIN: RepeatFactorTrainingSampler, REPEAT_THRESHOLD: 0.001}
"""
VOC = """\
MODEL:
  ROI_HEADS: {NUM_CLASSES: 20}
DATASETS:
  TRAIN: ("voc_2007_trainval", "voc_2012_trainval")
  TEST: ("voc_2007_test",)
SOLVER: {STEPS: "(12000, 16000)", MAX_ITER: 18000, WARMUP_ITERS: 100}
INPUT: {MIN_SIZE_TRAIN: "(480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)"}
"""
FAST = """\
MODEL:
  LOAD_PROPOSALS: True
  PROPOSAL_GENERATOR: {NAME: PrecomputedProposals}
"""
ALONE = """\
MODEL:
  META_ARCHITECTURE: ProposalNetwork
  RPN: {POST_NMS_TOPK_TEST: 2000}
"""
# Each published model that a configuration of its own describes: the recipe, and the configuration.
PUBLISHED = {
    "rpn/detectron2-r50-fpn-1x": on(
        "fpn", "MODEL:\n  META_ARCHITECTURE: ProposalNetwork\n  RPN: {POST_NMS_TOPK_TEST: 2000}\n"
    ),
    "rpn/detectron2-r50-c4-1x": on(
        "c4",
        "MODEL:\n  META_ARCHITECTURE: ProposalNetwork\n  RPN: {PRE_NMS_TOPK_TEST: 12000, POST_NMS_TOPK_TEST: 2000}\n",
    ),
    "fast-rcnn/detectron2-r50-fpn-1x": on("fpn", FAST),
    "faster-rcnn/detectron2-r50-fpn-1x": on("fpn"),
    "faster-rcnn/detectron2-r50-fpn-3x": on("fpn", "MODEL: {}") + LONG,
    "faster-rcnn/detectron2-r50-c4-1x": on("c4"),
    "faster-rcnn/detectron2-r50-dc5-1x": on("dc5"),
    "faster-rcnn/detectron2-r50-fpn-noaug-1x": on("fpn", LIKE_DETECTRON),
    "faster-rcnn/detectron2-r50-c4-voc-18k": on("c4", VOC),
    "mask-rcnn/detectron2-r50-fpn-1x": on("fpn", MASKS),
    "mask-rcnn/detectron2-r50-c4-3x": on("c4", MASKS) + LONG,
    "mask-rcnn/detectron2-r50-dc5-1x": on("dc5", MASKS),
    "mask-rcnn/detectron2-r50-fpn-gn-3x": on("fpn", GROUP_NORM, "") + LONG,
    "mask-rcnn/detectron2-r50-fpn-dconv-c3-c5-1x": on("fpn", DEFORMABLE),
    "mask-rcnn/detectron2-r50-fpn-agnostic-1x": on("fpn", AGNOSTIC),
    "mask-rcnn/detectron2-r50-fpn-giou-1x": on("fpn", GIOU),
    "mask-rcnn/detectron2-r50-fpn-lvis-v1-1x": on("fpn", LVIS),
    "cascade-mask-rcnn/detectron2-r50-fpn-1x": on("fpn", CASCADE),
    "retinanet/detectron2-r50-fpn-1x": on("retinanet"),
}
