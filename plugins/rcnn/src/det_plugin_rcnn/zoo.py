"""The zoo of the R-CNN family: every published baseline under modern conventions, with the figures others measured.

A row says what is particular to it; what kinds and models have in common stands above the rows.
"""

from __future__ import annotations

from det_core.boxes.config import GridAnchorsConfig, MaxIoUAssignerConfig
from det_core.data.config import CocoConfig
from det_core.evaluation.config import CocoEvaluatorConfig
from det_core.model.layer_config import RoIAlignConfig
from det_core.recipe import EvaluationConfig, Published, Recipe
from det_core.settings import evolve
from det_core.specs import ProposalLimits
from det_plugin_fpn.config import FPNConfig
from det_plugin_rcnn.config import ConvMaskHeadConfig, FCBoxHeadConfig, RCNNHeadConfig, RPNConfig
from det_plugin_resnet.config import ResNetStageConfig
from det_plugin_resnet.zoo import BACKBONES, BOXES, COCO, MASKS, Row, compose

# Fast R-CNN trains on the best 2000 given boxes of an image, and is tested on all of them (2019: 1000 in both).
COCO_WITH_PROPOSALS = evolve(COCO, train=CocoConfig(split="train", filter_empty=True, min_size=32, max_proposals=2000))

C4_POOL = RoIAlignConfig(size=14, strides=(16,))

EVALUATIONS = {
    "rpn": EvaluationConfig(evaluators=(CocoEvaluatorConfig(kinds=("proposal",)),), best="ar1000"),
    "fast-rcnn": BOXES,
    "faster-rcnn": BOXES,
    "fast-mask-rcnn": MASKS,
    "mask-rcnn": MASKS,
}
SUMMARIES = {
    "rpn": "region proposals (Ren et al., 2015)",
    "fast-rcnn": "boxes from given proposals (Girshick, 2015)",
    "faster-rcnn": "boxes (Ren et al., 2015; Lin et al., 2017)",
    "fast-mask-rcnn": "boxes and masks from given proposals (He et al., 2017)",
    "mask-rcnn": "boxes and masks (He et al., 2017)",
}
MODELS = tuple(SUMMARIES)


def proposals_of(row: Row) -> RPNConfig:
    """The first stage of a model that has one."""
    if row.kind == "fpn":
        # The table of published settings has 1000 per level for the RPN alone; the reference results show 2000.
        limits = (
            ProposalLimits(before_nms=2000, after_nms=1000) if row.model == "rpn" else ProposalLimits(before_nms=1000)
        )
        return RPNConfig(test_limits=limits)
    alone = row.model == "rpn"
    return RPNConfig(
        channels=1024,
        anchors=GridAnchorsConfig(scales=(2.0, 4.0, 8.0, 16.0, 32.0)),
        allowed_border=0 if row.model == "mask-rcnn" else -1,
        train_limits=ProposalLimits(before_nms=12000, after_nms=2000),
        test_limits=ProposalLimits(before_nms=12000, after_nms=2000) if alone else ProposalLimits(before_nms=6000),
    )


def shared_trunk(row: Row) -> ResNetStageConfig:
    """The last stage of a C4 row's backbone, on all regions."""
    backbone = BACKBONES[row.network]
    return ResNetStageConfig(
        depth=backbone.depth, style=backbone.style, norm=backbone.norm, pretrained=backbone.pretrained
    )


def _second_stage(row: Row) -> RCNNHeadConfig | None:
    """RoI heads: on the pyramid, or behind res5 on C4. RPN alone has none."""
    if row.model == "rpn":
        return None
    masks = row.model.endswith("mask-rcnn")
    if row.kind == "c4":
        return RCNNHeadConfig(
            roi_pool=C4_POOL,
            trunk=shared_trunk(row),
            box_head=FCBoxHeadConfig(num_fcs=0),
            mask_head=ConvMaskHeadConfig(num_convs=0) if masks else None,
        )
    if not masks:
        return RCNNHeadConfig()
    # The reference has low-quality matches on in Mask R-CNN's second stage on the pyramid, and off in all others.
    return RCNNHeadConfig(
        assigner=MaxIoUAssignerConfig(low_quality=True),
        mask_roi_pool=RoIAlignConfig(size=14),
        mask_head=ConvMaskHeadConfig(),
    )


def zoo_recipe(row: Row) -> Recipe:
    """The published baseline of a row under modern conventions."""
    return compose(
        row,
        neck=FPNConfig() if row.kind == "fpn" else None,
        dense_head=None if row.fast else proposals_of(row),
        roi_head=_second_stage(row),
        evaluation=EVALUATIONS[row.model],
        data=COCO_WITH_PROPOSALS if row.fast else COCO,
    )


# From the published tables: the 2019 model zoo, and its re-runs under modern conventions.
ROWS = (
    Row("rpn", "r50-caffe", "c4", "1x", Published(ar1000=51.1, inference_fps=20.5)),
    Row(
        "rpn", "r50-caffe", "c4", "2x", Published(ar1000=52.2, memory_gb=2.2, train_s_per_iter=0.17, inference_fps=20.3)
    ),
    Row("rpn", "r50", "c4", "1x", Published(ar1000=50.2, inference_fps=20.1)),
    Row("rpn", "r50", "c4", "2x", Published(ar1000=51.1, inference_fps=20.0)),
    Row(
        "rpn",
        "r50-caffe",
        "fpn",
        "1x",
        Published(
            ar1000=58.2,
            memory_gb=3.3,
            train_s_per_iter=0.253,
            inference_fps=16.9,
            modern_ar1000=58.7,
            modern_memory_gb=3.5,
        ),
    ),
    Row(
        "rpn",
        "r50",
        "fpn",
        "1x",
        Published(
            ar1000=57.1,
            memory_gb=3.5,
            train_s_per_iter=0.276,
            inference_fps=17.7,
            modern_ar1000=58.2,
            modern_memory_gb=3.8,
        ),
    ),
    Row("rpn", "r50", "fpn", "2x", Published(ar1000=57.6, modern_ar1000=58.6)),
    Row(
        "rpn",
        "r101-caffe",
        "fpn",
        "1x",
        Published(
            ar1000=59.4,
            memory_gb=5.2,
            train_s_per_iter=0.379,
            inference_fps=13.9,
            modern_ar1000=60.0,
            modern_memory_gb=5.4,
        ),
    ),
    Row(
        "rpn",
        "r101",
        "fpn",
        "1x",
        Published(
            ar1000=58.6,
            memory_gb=5.4,
            train_s_per_iter=0.396,
            inference_fps=14.4,
            modern_ar1000=59.7,
            modern_memory_gb=5.8,
        ),
    ),
    Row("rpn", "r101", "fpn", "2x", Published(ar1000=59.1, modern_ar1000=60.2)),
    Row(
        "rpn",
        "x101-32x4d",
        "fpn",
        "1x",
        Published(
            ar1000=59.4,
            memory_gb=6.6,
            train_s_per_iter=0.589,
            inference_fps=11.8,
            modern_ar1000=60.6,
            modern_memory_gb=7.0,
        ),
    ),
    Row("rpn", "x101-32x4d", "fpn", "2x", Published(ar1000=59.9, modern_ar1000=61.1)),
    Row(
        "rpn",
        "x101-64x4d",
        "fpn",
        "1x",
        Published(
            ar1000=59.8,
            memory_gb=9.5,
            train_s_per_iter=0.955,
            inference_fps=8.3,
            modern_ar1000=61.0,
            modern_memory_gb=10.1,
        ),
    ),
    Row("rpn", "x101-64x4d", "fpn", "2x", Published(ar1000=60.0, modern_ar1000=61.5)),
    Row("faster-rcnn", "r50-caffe", "c4", "1x", Published(box_ap=34.9, inference_fps=9.5, modern_box_ap=35.6)),
    Row(
        "faster-rcnn",
        "r50-caffe",
        "c4",
        "2x",
        Published(box_ap=36.5, memory_gb=4.0, train_s_per_iter=0.39, inference_fps=9.3),
    ),
    Row("faster-rcnn", "r50", "c4", "1x", Published(box_ap=33.9, inference_fps=9.3)),
    Row("faster-rcnn", "r50", "c4", "2x", Published(box_ap=35.9, inference_fps=9.4)),
    Row(
        "faster-rcnn",
        "r50-caffe",
        "fpn",
        "1x",
        Published(
            box_ap=36.6,
            memory_gb=3.6,
            train_s_per_iter=0.333,
            inference_fps=13.5,
            modern_box_ap=37.8,
            modern_memory_gb=3.8,
        ),
    ),
    Row(
        "faster-rcnn",
        "r50",
        "fpn",
        "1x",
        Published(
            box_ap=36.4,
            memory_gb=3.8,
            train_s_per_iter=0.353,
            inference_fps=13.6,
            modern_box_ap=37.4,
            modern_memory_gb=4.0,
        ),
    ),
    Row("faster-rcnn", "r50", "fpn", "2x", Published(box_ap=37.7, modern_box_ap=38.4)),
    Row(
        "faster-rcnn",
        "r101-caffe",
        "fpn",
        "1x",
        Published(
            box_ap=38.8,
            memory_gb=5.5,
            train_s_per_iter=0.465,
            inference_fps=11.5,
            modern_box_ap=39.8,
            modern_memory_gb=5.7,
        ),
    ),
    Row(
        "faster-rcnn",
        "r101",
        "fpn",
        "1x",
        Published(
            box_ap=38.5,
            memory_gb=5.7,
            train_s_per_iter=0.474,
            inference_fps=11.9,
            modern_box_ap=39.4,
            modern_memory_gb=6.0,
        ),
    ),
    Row("faster-rcnn", "r101", "fpn", "2x", Published(box_ap=39.4, modern_box_ap=39.8)),
    Row(
        "faster-rcnn",
        "x101-32x4d",
        "fpn",
        "1x",
        Published(
            box_ap=40.1,
            memory_gb=6.9,
            train_s_per_iter=0.672,
            inference_fps=10.3,
            modern_box_ap=41.2,
            modern_memory_gb=7.2,
        ),
    ),
    Row("faster-rcnn", "x101-32x4d", "fpn", "2x", Published(box_ap=40.4, modern_box_ap=41.2)),
    Row(
        "faster-rcnn",
        "x101-64x4d",
        "fpn",
        "1x",
        Published(
            box_ap=41.3,
            memory_gb=9.8,
            train_s_per_iter=1.04,
            inference_fps=7.3,
            modern_box_ap=42.1,
            modern_memory_gb=10.3,
        ),
    ),
    Row("faster-rcnn", "x101-64x4d", "fpn", "2x", Published(box_ap=40.7, modern_box_ap=41.6)),
    Row("mask-rcnn", "r50-caffe", "c4", "1x", Published(box_ap=35.9, mask_ap=31.5, inference_fps=8.1)),
    Row(
        "mask-rcnn",
        "r50-caffe",
        "c4",
        "2x",
        Published(box_ap=37.9, mask_ap=32.9, memory_gb=4.2, train_s_per_iter=0.43, inference_fps=8.1),
    ),
    Row("mask-rcnn", "r50", "c4", "1x", Published(box_ap=35.1, mask_ap=31.2, inference_fps=7.9)),
    Row("mask-rcnn", "r50", "c4", "2x", Published(box_ap=37.2, mask_ap=32.5, inference_fps=8.0)),
    Row(
        "mask-rcnn",
        "r50-caffe",
        "fpn",
        "1x",
        Published(
            box_ap=37.4,
            mask_ap=34.3,
            memory_gb=3.8,
            train_s_per_iter=0.43,
            inference_fps=10.2,
            modern_box_ap=38.0,
            modern_mask_ap=34.4,
            modern_memory_gb=4.3,
        ),
    ),
    Row(
        "mask-rcnn",
        "r50",
        "fpn",
        "1x",
        Published(
            box_ap=37.3,
            mask_ap=34.2,
            memory_gb=3.9,
            train_s_per_iter=0.453,
            inference_fps=10.6,
            modern_box_ap=38.2,
            modern_mask_ap=34.7,
            modern_memory_gb=4.4,
        ),
    ),
    Row("mask-rcnn", "r50", "fpn", "2x", Published(box_ap=38.5, mask_ap=35.1, modern_box_ap=39.2, modern_mask_ap=35.4)),
    Row(
        "mask-rcnn",
        "r101-caffe",
        "fpn",
        "1x",
        Published(
            box_ap=39.9,
            mask_ap=36.1,
            memory_gb=5.7,
            train_s_per_iter=0.534,
            inference_fps=9.4,
            modern_box_ap=40.4,
            modern_mask_ap=36.4,
        ),
    ),
    Row(
        "mask-rcnn",
        "r101",
        "fpn",
        "1x",
        Published(
            box_ap=39.4,
            mask_ap=35.9,
            memory_gb=5.8,
            train_s_per_iter=0.571,
            inference_fps=9.5,
            modern_box_ap=40.0,
            modern_mask_ap=36.1,
            modern_memory_gb=6.4,
        ),
    ),
    Row(
        "mask-rcnn", "r101", "fpn", "2x", Published(box_ap=40.3, mask_ap=36.5, modern_box_ap=40.8, modern_mask_ap=36.6)
    ),
    Row(
        "mask-rcnn",
        "x101-32x4d",
        "fpn",
        "1x",
        Published(
            box_ap=41.1,
            mask_ap=37.1,
            memory_gb=7.1,
            train_s_per_iter=0.759,
            inference_fps=8.3,
            modern_box_ap=41.9,
            modern_mask_ap=37.5,
            modern_memory_gb=7.6,
        ),
    ),
    Row(
        "mask-rcnn",
        "x101-32x4d",
        "fpn",
        "2x",
        Published(box_ap=41.4, mask_ap=37.1, modern_box_ap=42.2, modern_mask_ap=37.8),
    ),
    Row(
        "mask-rcnn",
        "x101-64x4d",
        "fpn",
        "1x",
        Published(
            box_ap=42.1,
            mask_ap=38.0,
            memory_gb=10.0,
            train_s_per_iter=1.102,
            inference_fps=6.5,
            modern_box_ap=42.8,
            modern_mask_ap=38.4,
            modern_memory_gb=10.7,
        ),
    ),
    Row(
        "mask-rcnn",
        "x101-64x4d",
        "fpn",
        "2x",
        Published(box_ap=42.0, mask_ap=37.7, modern_box_ap=42.7, modern_mask_ap=38.1),
    ),
    Row("fast-rcnn", "r50-caffe", "c4", "1x", Published(box_ap=35.0, inference_fps=6.7)),
    Row(
        "fast-rcnn",
        "r50-caffe",
        "c4",
        "2x",
        Published(box_ap=36.4, memory_gb=3.8, train_s_per_iter=0.34, inference_fps=6.6),
    ),
    Row("fast-rcnn", "r50", "c4", "1x", Published(box_ap=34.2, inference_fps=6.3)),
    Row("fast-rcnn", "r50", "c4", "2x", Published(box_ap=35.8, inference_fps=6.1)),
    Row(
        "fast-rcnn",
        "r50-caffe",
        "fpn",
        "1x",
        Published(box_ap=36.6, memory_gb=3.3, train_s_per_iter=0.242, inference_fps=18.4),
    ),
    Row(
        "fast-rcnn",
        "r50",
        "fpn",
        "1x",
        Published(box_ap=35.8, memory_gb=3.5, train_s_per_iter=0.25, inference_fps=16.5),
    ),
    Row(
        "fast-mask-rcnn",
        "r50-caffe",
        "c4",
        "1x",
        Published(
            box_ap=35.9,
            mask_ap=31.5,
            inference_fps=8.1,
            note="every figure equals the Mask R-CNN C4 row: not a Fast R-CNN result",
        ),
    ),
    Row(
        "fast-mask-rcnn",
        "r50-caffe",
        "c4",
        "2x",
        Published(
            box_ap=37.9,
            mask_ap=32.9,
            memory_gb=4.2,
            train_s_per_iter=0.43,
            inference_fps=8.1,
            note="every figure equals the Mask R-CNN C4 row: not a Fast R-CNN result",
        ),
    ),
    Row(
        "fast-mask-rcnn",
        "r50",
        "c4",
        "1x",
        Published(
            box_ap=35.1,
            mask_ap=31.2,
            inference_fps=7.9,
            note="every figure equals the Mask R-CNN C4 row: not a Fast R-CNN result",
        ),
    ),
    Row(
        "fast-mask-rcnn",
        "r50",
        "c4",
        "2x",
        Published(
            box_ap=37.2,
            mask_ap=32.5,
            inference_fps=8.0,
            note="every figure equals the Mask R-CNN C4 row: not a Fast R-CNN result",
        ),
    ),
    Row("fast-rcnn", "r50", "fpn", "2x", Published(box_ap=37.1)),
    Row(
        "fast-rcnn",
        "r101-caffe",
        "fpn",
        "1x",
        Published(box_ap=38.6, memory_gb=5.2, train_s_per_iter=0.355, inference_fps=14.4),
    ),
    Row(
        "fast-rcnn",
        "r101",
        "fpn",
        "1x",
        Published(box_ap=38.1, memory_gb=5.4, train_s_per_iter=0.388, inference_fps=13.2),
    ),
    Row("fast-rcnn", "r101", "fpn", "2x", Published(box_ap=38.8)),
    Row(
        "fast-mask-rcnn",
        "r50-caffe",
        "fpn",
        "1x",
        Published(box_ap=37.3, mask_ap=34.5, memory_gb=3.4, train_s_per_iter=0.328, inference_fps=12.8),
    ),
    Row(
        "fast-mask-rcnn",
        "r50",
        "fpn",
        "1x",
        Published(box_ap=36.8, mask_ap=34.1, memory_gb=3.5, train_s_per_iter=0.346, inference_fps=12.7),
    ),
    Row("fast-mask-rcnn", "r50", "fpn", "2x", Published(box_ap=37.9, mask_ap=34.8)),
    Row(
        "fast-mask-rcnn",
        "r101-caffe",
        "fpn",
        "1x",
        Published(box_ap=39.4, mask_ap=36.1, memory_gb=5.2, train_s_per_iter=0.429, inference_fps=11.2),
    ),
    Row(
        "fast-mask-rcnn",
        "r101",
        "fpn",
        "1x",
        Published(box_ap=38.9, mask_ap=35.8, memory_gb=5.4, train_s_per_iter=0.462, inference_fps=10.9),
    ),
    Row("fast-mask-rcnn", "r101", "fpn", "2x", Published(box_ap=39.9, mask_ap=36.4)),
)
