"""One small detector of each family, and of the settings that select its detections; with random weights."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

from random_weights import spread_out

from det_core import load_recipe
from det_core.data.data_config import ResizeConfig
from det_core.model.detector import Detector

SMALL_FPN = (
    "detector.neck={type: fpn, channels: 32}",
    "detector.dense_head.channels=32",
)
PROPOSALS = "detector.dense_head.test_limits={before_nms: 60, after_nms: 40}"
BOXES = (*SMALL_FPN, PROPOSALS, "detector.roi_head.box_head.fc_channels=32", "detector.roi_head.score_threshold=0.25")
MASKS = (*BOXES, "detector.roi_head.mask_head={type: conv_mask_head, num_convs: 1, channels: 16}")
RETINA = (
    "detector.neck={type: fpn, channels: 32, start: 1, levels: 5, extra: conv_input}",
    "detector.dense_head.channels=32",
    "detector.dense_head.num_convs=1",
    "detector.dense_head.score_threshold=0.5",
    "detector.dense_head.before_nms=80",
)
GUIDED = ("detector.dense_head={type: ga_rpn, channels: 32, test_limits: {before_nms: 60, after_nms: 40}}",)
# Without norms, as SSD300. torch's group norm of maps in channels-last memory adds up squares in float32 alone: on the
# dark images of the sample it loses digits, and with it the detector would differ from ONNX Runtime by 1e-2 pixels.
SSD = (
    "detector.backbone.norm=null",
    "detector.neck.norm=null",
    "detector.dense_head.score_threshold=0.3",
    "detector.dense_head.before_nms=150",
)
SSDLITE = (
    "detector.backbone.size=small",
    "detector.dense_head.score_threshold=0.3",
    "detector.dense_head.before_nms=50",
)


def head(place: str, **settings: object) -> tuple[str, ...]:
    """`--set` values of a head."""
    return tuple(f"detector.{place}.{name}={value}" for name, value in settings.items())


FAMILIES = {
    "rpn": ("rpn/r18-fpn-demo", (*SMALL_FPN, PROPOSALS)),
    "rpn, high scores alone": ("rpn/r18-fpn-demo", (*SMALL_FPN, PROPOSALS, "detector.dense_head.score_threshold=0.5")),
    "faster": ("faster-rcnn/r18-fpn-demo", BOXES),
    "faster, network": ("faster-rcnn/r18-fpn-demo", (*BOXES, *head("roi_head", nms_in="network", min_size=20.0))),
    "faster, clipped": ("faster-rcnn/r18-fpn-demo", (*BOXES, *head("roi_head", clip_original="true"))),
    "faster, agnostic": ("faster-rcnn/r18-fpn-demo", (*BOXES, *head("roi_head", class_agnostic_nms="true"))),
    "faster, original": ("faster-rcnn/r18-fpn-demo", (*BOXES, *head("roi_head", decode_in="original"))),
    "fast": ("fast-rcnn/r18-fpn-demo", (SMALL_FPN[0], *BOXES[-2:])),
    "mask": ("mask-rcnn/r18-fpn-demo", MASKS),
    "mask, padded": ("mask-rcnn/r18-fpn-demo", (*MASKS, *head("roi_head", mask_paste="padded", mask_threshold=0.4))),
    "c4": ("faster-rcnn/r18-c4-demo", (PROPOSALS, "detector.roi_head.score_threshold=0.25")),
    "cascade": ("cascade-mask-rcnn/r18-fpn-demo", (*MASKS, *head("roi_head", mean_of="probabilities"))),
    "htc": ("htc/r18-fpn-demo", MASKS),
    "retinanet": ("retinanet/r18-fpn-demo", RETINA),
    "retinanet, anchors": ("retinanet/r18-fpn-demo", (*RETINA, *head("dense_head", candidates="anchor"))),
    "retinanet, all": ("retinanet/r18-fpn-demo", (*RETINA, *head("dense_head", before_nms="null"))),
    "retinanet, after": (
        "retinanet/r18-fpn-demo",
        (*RETINA, *head("dense_head", clip="after", clip_original="true", nms_in="network")),
    ),
    "retinanet, detectron": ("retinanet/r18-fpn-demo", (*RETINA, *head("dense_head", clip="original", coarsest="all"))),
    "ga-rpn": ("rpn/r18-fpn-demo", (SMALL_FPN[0], *GUIDED)),
    "ga-faster": ("faster-rcnn/r18-fpn-demo", (SMALL_FPN[0], *GUIDED, *BOXES[-2:])),
    "ga-retinanet": ("ga-retinanet/r18-fpn-demo", RETINA),
    "ga-retinanet, all": ("ga-retinanet/r18-fpn-demo", (*RETINA, *head("dense_head", before_nms="null", min_size=5.0))),
    "ssd": ("ssd/vgg16-demo", SSD),
    "ssd, classes": ("ssd/vgg16-demo", (*SSD, *head("dense_head", candidates="class", before_nms=50))),
    "ssd, all": ("ssd/vgg16-demo", (*SSD, *head("dense_head", before_nms="null", min_size=3.0))),
    "ssdlite": ("ssd/torchvision-mobilenet-v3-large-320", SSDLITE),
    "deformable": ("faster-rcnn/r18-fpn-gn-ws-mdconv-demo", (PROPOSALS, "detector.roi_head.score_threshold=0.25")),
}


def built(name: str, settings: tuple[str, ...]) -> Detector:
    """A detector with random weights whose scores and boxes differ from region to region."""
    torch.manual_seed(0)
    detector = load_recipe(name, list(settings)).detector.build(num_classes=3)
    spread_out(detector)
    detector.test_transforms = (ResizeConfig(scales=((192, 192),)),)
    return detector
