"""The zoo of the cascades: published baselines under modern conventions (figures in `published.csv`), and demos."""

from __future__ import annotations

from pathlib import Path

from det_core.model.detector_config import DetectorConfig
from det_core.model.loss_config import SmoothL1Config
from det_core.recipe import Recipe
from det_core.settings import evolve
from det_core.slots import RoIHeadConfig
from det_core.specs import ProposalLimits
from det_core.zoo import BOXES, MASKS, Row, compose, published_rows, zoo_entries
from det_plugin_cascade.config import THREE_STAGES, CascadeHeadConfig
from det_plugin_fpn.config import FPNConfig
from det_plugin_rcnn import recipes as rcnn
from det_plugin_rcnn.config import FCBoxHeadConfig, RCNNHeadConfig, RPNConfig
from det_plugin_resnet.backbones import backbone_of, preprocess_of

ROWS = published_rows(Path(__file__).with_name("published.csv"))
SUMMARIES = {
    "cascade-rcnn": "boxes, refined in three stages (Cai and Vasconcelos, 2018)",
    "cascade-mask-rcnn": "boxes and masks, refined in three stages (Cai and Vasconcelos, 2019)",
}


def baseline(row: Row) -> Recipe:
    """The recipe of a published row."""
    return compose(
        row,
        DetectorConfig(
            preprocess=preprocess_of(row),
            backbone=backbone_of(row),
            neck=FPNConfig() if row.kind == "fpn" else None,
            dense_head=cascade_rpn_of(row),
            roi_head=_cascade_of(rcnn.second_stage_of(row)),
        ),
        evaluation=MASKS if row.model == "cascade-mask-rcnn" else BOXES,
    )


def cascade_rpn_of(row: Row) -> RPNConfig:
    """The first stage of a cascade, which keeps three settings of 2019 that the other models have changed since.

    Anchors that cross the image border are ignored, the box loss is smooth L1, and training uses 2000 proposals.
    """
    rpn = rcnn.rpn_of(row)
    return evolve(
        rpn,
        box_loss=SmoothL1Config(beta=1 / 9),
        allowed_border=0,
        train_limits=ProposalLimits(before_nms=rpn.train_limits.before_nms, after_nms=2000),
    )


def _cascade_of(config: RoIHeadConfig | None) -> CascadeHeadConfig:
    """The parts of a head with one box stage, in three stages with its sampler."""
    assert isinstance(config, RCNNHeadConfig)
    assert isinstance(config.box_head, FCBoxHeadConfig)
    return CascadeHeadConfig(
        roi_pool=config.roi_pool,
        trunk=config.trunk,
        box_head=evolve(config.box_head, class_agnostic=True),
        mask_roi_pool=config.mask_roi_pool,
        mask_head=config.mask_head,
        stages=tuple(evolve(stage, sampler=config.sampler) for stage in THREE_STAGES),
    )


def demo_recipe(model: str) -> Recipe:
    """The demo of Faster or Mask R-CNN with three box stages instead of one."""
    single = rcnn.demo_recipe({"cascade-rcnn": "faster-rcnn", "cascade-mask-rcnn": "mask-rcnn"}[model])
    cascade = _cascade_of(single.detector.roi_head)
    return evolve(single, name=f"{model}/r18-fpn-demo", detector=evolve(single.detector, roi_head=cascade))


ENTRIES = (
    *zoo_entries(ROWS, baseline, default="cascade-mask-rcnn/r50-fpn-1x", summary=lambda row: SUMMARIES[row.model]),
    *rcnn.demo_entries(demo_recipe, SUMMARIES, demo="cascade-mask-rcnn"),
)
