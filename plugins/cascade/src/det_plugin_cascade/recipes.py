"""The zoo of the cascades: published baselines under modern conventions (figures in `published.csv`), and demos."""

from __future__ import annotations

from pathlib import Path

from det_core.boxes.box_config import AllSamplerConfig, MaxIoUAssignerConfig
from det_core.model.detector_config import DetectorConfig
from det_core.recipe import Recipe
from det_core.settings import evolve
from det_core.slots import RoIHeadConfig
from det_core.specs import ProposalLimits
from det_core.zoo import (
    BOXES,
    MASKS,
    Row,
    as_detectron2,
    as_mmdet1,
    compose,
    detectron_entries,
    evolve_part,
    multi_scale,
    published_rows,
    zoo_entries,
)
from det_plugin_cascade.config import THREE_STAGES, CascadeHeadConfig, StagedHeadConfig
from det_plugin_fpn.config import FPNConfig
from det_plugin_rcnn import recipes as rcnn
from det_plugin_rcnn.config import FCBoxHeadConfig, RCNNHeadConfig, RPNConfig
from det_plugin_rcnn.detectron_recipes import detectron2_recipe as detectron2_recipe_of
from det_plugin_rcnn.strong_recipes import TRAININGS
from det_plugin_resnet.backbones import backbone_of, preprocess_of, with_newer_weights

ROWS = published_rows(Path(__file__).with_name("published.csv"))
STRONG_ROWS = published_rows(Path(__file__).with_name("strong.csv"))
DETECTRON2_ROWS = published_rows(Path(__file__).with_name("detectron2.csv"))
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


def strong_recipe(row: Row) -> Recipe:
    """The recipe of a row with stronger training: on images of many sizes, or from newer ImageNet weights."""
    recipe = baseline(row)
    return multi_scale(recipe) if row.variant == "ms" else with_newer_weights(recipe, row, lr=2e-4, weight_decay=0.05)


def cascade_rpn_of(row: Row) -> RPNConfig:
    """The first stage of a cascade, which keeps three settings of 2019 that the other models have changed since.

    Anchors that cross the image border are ignored, the box loss is smooth L1, and training uses 2000 proposals.
    """
    return rcnn.rpn_of_2019(rcnn.rpn_of(row))


def mmdet1(row: Row) -> Recipe:
    """The recipe of a published row with the conventions of mmdet 0.x and 1.x, and their assignment."""
    return as_mmdet1(with_low_quality_matches(baseline(row)), row.name)


def detectron2_recipe(row: Row) -> Recipe:
    """detectron2's Cascade Mask R-CNN: all losses have weight 1, and boxes of the last stage finer deviations.

    Only the first stage samples; the others take all its regions, refined.
    """
    recipe = detectron2_recipe_of(evolve(row, model="mask-rcnn"))
    single = recipe.detector.roi_head
    assert isinstance(single, RCNNHeadConfig)
    fine = tuple(1 / x for x in (30.0, 30.0, 15.0, 15.0))
    cascade = _cascade_of(single)
    first, *others = (
        evolve(stage, loss_weight=1.0, box_loss=single.box_loss, coder=evolve(stage.coder, stds=stds))
        for stage, stds in zip(cascade.stages, ((0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1), fine), strict=True)
    )
    later = (evolve(stage, sampler=AllSamplerConfig(), add_ground_truth=False) for stage in others)
    head = evolve(cascade, stages=(first, *later))
    recipe = evolve_part(recipe, "dense_head", train_limits=ProposalLimits(before_nms=2000, after_nms=2000))
    return as_detectron2(evolve(recipe, detector=evolve(recipe.detector, roi_head=head)), row)


def with_low_quality_matches(recipe: Recipe) -> Recipe:
    """A recipe of a cascade whose stages assign to each object the best boxes, if good enough."""
    head = recipe.detector.roi_head
    assert isinstance(head, StagedHeadConfig)
    stages = []
    for stage in head.stages:
        assert isinstance(stage.assigner, MaxIoUAssignerConfig)
        stages.append(evolve(stage, assigner=evolve(stage.assigner, low_quality=True)))
    return evolve_part(recipe, "roi_head", stages=tuple(stages))


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
    *detectron_entries("detectron2", DETECTRON2_ROWS, detectron2_recipe, lambda row: SUMMARIES[row.model]),
    *zoo_entries(
        ROWS, baseline, default="cascade-mask-rcnn/r50-fpn-1x", summary=lambda row: SUMMARIES[row.model], mmdet1=mmdet1
    ),
    *zoo_entries(
        STRONG_ROWS, strong_recipe, default="", summary=lambda row: f"{SUMMARIES[row.model]}, {TRAININGS[row.variant]}"
    ),
    *rcnn.demo_entries(demo_recipe, SUMMARIES, demo="cascade-mask-rcnn"),
)
