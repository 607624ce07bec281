"""The zoo of the cascades: every published baseline under modern conventions, with the figures others measured."""

from __future__ import annotations

from det_core.model.layer_config import RoIAlignConfig
from det_core.model.loss_config import SmoothL1Config
from det_core.recipe import Published, Recipe
from det_core.settings import evolve
from det_core.specs import ProposalLimits
from det_plugin_cascade.config import CascadeHeadConfig
from det_plugin_fpn.config import FPNConfig
from det_plugin_rcnn.config import ConvMaskHeadConfig, FCBoxHeadConfig, RPNConfig
from det_plugin_rcnn.zoo import C4_POOL, proposals_of, shared_trunk
from det_plugin_resnet.zoo import BOXES, MASKS, Row, compose

SUMMARIES = {
    "cascade-rcnn": "boxes, refined in three stages (Cai and Vasconcelos, 2018)",
    "cascade-mask-rcnn": "boxes and masks, refined in three stages (Cai and Vasconcelos, 2019)",
}


def cascade_proposals(row: Row) -> RPNConfig:
    """The first stage of a cascade: it kept what the other models' have given up since 2019.

    Anchors that cross the image's border do not train, the box loss is smooth, and 2000 proposals train the stages.
    """
    first = proposals_of(row)
    return evolve(
        first,
        box_loss=SmoothL1Config(beta=1 / 9),
        allowed_border=0,
        train_limits=ProposalLimits(before_nms=first.train_limits.before_nms, after_nms=2000),
    )


def _second_stages(row: Row) -> CascadeHeadConfig:
    """On the pyramid, or behind res5 on C4, where the mask heads get the box branch's regions."""
    masks = row.model == "cascade-mask-rcnn"
    if row.kind == "c4":
        return CascadeHeadConfig(
            roi_pool=C4_POOL,
            trunk=shared_trunk(row),
            box_head=FCBoxHeadConfig(num_fcs=0, class_agnostic=True),
            mask_head=ConvMaskHeadConfig(num_convs=0) if masks else None,
        )
    if not masks:
        return CascadeHeadConfig()
    return CascadeHeadConfig(mask_roi_pool=RoIAlignConfig(size=14), mask_head=ConvMaskHeadConfig())


def zoo_recipe(row: Row) -> Recipe:
    """The published baseline of a row under modern conventions."""
    return compose(
        row,
        neck=FPNConfig() if row.kind == "fpn" else None,
        dense_head=cascade_proposals(row),
        roi_head=_second_stages(row),
        evaluation=MASKS if row.model == "cascade-mask-rcnn" else BOXES,
    )


# From the published tables: the 2019 model zoo, and its re-runs under modern conventions.
ROWS = (
    Row(
        "cascade-rcnn",
        "r50-caffe",
        "c4",
        "1x",
        Published(box_ap=38.7, memory_gb=8.7, train_s_per_iter=0.92, inference_fps=5.0),
    ),
    Row(
        "cascade-rcnn",
        "r50-caffe",
        "fpn",
        "1x",
        Published(
            box_ap=40.5,
            memory_gb=3.9,
            train_s_per_iter=0.464,
            inference_fps=10.9,
            modern_box_ap=40.4,
            modern_memory_gb=4.2,
        ),
    ),
    Row(
        "cascade-rcnn",
        "r50",
        "fpn",
        "1x",
        Published(
            box_ap=40.4,
            memory_gb=4.1,
            train_s_per_iter=0.455,
            inference_fps=11.9,
            modern_box_ap=40.3,
            modern_memory_gb=4.4,
        ),
    ),
    Row("cascade-rcnn", "r50", "fpn", "20e", Published(box_ap=41.1, modern_box_ap=41.0)),
    Row(
        "cascade-rcnn",
        "r101-caffe",
        "fpn",
        "1x",
        Published(
            box_ap=42.4,
            memory_gb=5.8,
            train_s_per_iter=0.569,
            inference_fps=9.6,
            modern_box_ap=42.3,
            modern_memory_gb=6.2,
        ),
    ),
    Row(
        "cascade-rcnn",
        "r101",
        "fpn",
        "1x",
        Published(
            box_ap=42.0,
            memory_gb=6.0,
            train_s_per_iter=0.584,
            inference_fps=10.3,
            modern_box_ap=42.0,
            modern_memory_gb=6.4,
        ),
    ),
    Row("cascade-rcnn", "r101", "fpn", "20e", Published(box_ap=42.5, modern_box_ap=42.5)),
    Row(
        "cascade-rcnn",
        "x101-32x4d",
        "fpn",
        "1x",
        Published(
            box_ap=43.6,
            memory_gb=7.2,
            train_s_per_iter=0.77,
            inference_fps=8.9,
            modern_box_ap=43.7,
            modern_memory_gb=7.6,
        ),
    ),
    Row("cascade-rcnn", "x101-32x4d", "fpn", "20e", Published(box_ap=44.0, modern_box_ap=43.7)),
    Row(
        "cascade-rcnn",
        "x101-64x4d",
        "fpn",
        "1x",
        Published(
            box_ap=44.5,
            memory_gb=10.0,
            train_s_per_iter=1.133,
            inference_fps=6.7,
            modern_box_ap=44.7,
            modern_memory_gb=10.7,
        ),
    ),
    Row("cascade-rcnn", "x101-64x4d", "fpn", "20e", Published(box_ap=44.7, modern_box_ap=44.5)),
    Row(
        "cascade-mask-rcnn",
        "r50-caffe",
        "c4",
        "1x",
        Published(box_ap=39.3, mask_ap=32.8, memory_gb=9.1, train_s_per_iter=0.99, inference_fps=4.5),
    ),
    Row(
        "cascade-mask-rcnn",
        "r50-caffe",
        "fpn",
        "1x",
        Published(
            box_ap=40.9,
            mask_ap=35.5,
            memory_gb=5.1,
            train_s_per_iter=0.692,
            inference_fps=7.6,
            modern_box_ap=41.2,
            modern_mask_ap=36.0,
            modern_memory_gb=5.9,
        ),
    ),
    Row(
        "cascade-mask-rcnn",
        "r50",
        "fpn",
        "1x",
        Published(
            box_ap=41.2,
            mask_ap=35.7,
            memory_gb=5.3,
            train_s_per_iter=0.683,
            inference_fps=7.4,
            modern_box_ap=41.2,
            modern_mask_ap=35.9,
            modern_memory_gb=6.0,
        ),
    ),
    Row(
        "cascade-mask-rcnn",
        "r50",
        "fpn",
        "20e",
        Published(box_ap=42.3, mask_ap=36.6, modern_box_ap=41.9, modern_mask_ap=36.5),
    ),
    Row(
        "cascade-mask-rcnn",
        "r101-caffe",
        "fpn",
        "1x",
        Published(
            box_ap=43.1,
            mask_ap=37.2,
            memory_gb=7.0,
            train_s_per_iter=0.803,
            inference_fps=7.2,
            modern_box_ap=43.2,
            modern_mask_ap=37.6,
            modern_memory_gb=7.8,
        ),
    ),
    Row(
        "cascade-mask-rcnn",
        "r101",
        "fpn",
        "1x",
        Published(
            box_ap=42.6,
            mask_ap=37.0,
            memory_gb=7.2,
            train_s_per_iter=0.807,
            inference_fps=6.8,
            modern_box_ap=42.9,
            modern_mask_ap=37.3,
            modern_memory_gb=7.9,
        ),
    ),
    Row(
        "cascade-mask-rcnn",
        "r101",
        "fpn",
        "20e",
        Published(box_ap=43.3, mask_ap=37.6, modern_box_ap=43.4, modern_mask_ap=37.8),
    ),
    Row(
        "cascade-mask-rcnn",
        "x101-32x4d",
        "fpn",
        "1x",
        Published(
            box_ap=44.4,
            mask_ap=38.2,
            memory_gb=8.4,
            train_s_per_iter=0.976,
            inference_fps=6.6,
            modern_box_ap=44.3,
            modern_mask_ap=38.3,
            modern_memory_gb=9.2,
        ),
    ),
    Row(
        "cascade-mask-rcnn",
        "x101-32x4d",
        "fpn",
        "20e",
        Published(box_ap=44.7, mask_ap=38.6, modern_box_ap=45.0, modern_mask_ap=39.0),
    ),
    Row(
        "cascade-mask-rcnn",
        "x101-64x4d",
        "fpn",
        "1x",
        Published(
            box_ap=45.4,
            mask_ap=39.1,
            memory_gb=11.4,
            train_s_per_iter=1.33,
            inference_fps=5.3,
            modern_box_ap=45.3,
            modern_mask_ap=39.2,
            modern_memory_gb=12.2,
        ),
    ),
    Row(
        "cascade-mask-rcnn",
        "x101-64x4d",
        "fpn",
        "20e",
        Published(box_ap=45.7, mask_ap=39.4, modern_box_ap=45.6, modern_mask_ap=39.5),
    ),
)
