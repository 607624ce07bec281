"""The zoo of Guided Anchoring: published baselines (figures in `published.csv`) and a demo."""

from __future__ import annotations

from pathlib import Path

from det_core.boxes.box_config import DeltaCoderConfig, MaxIoUAssignerConfig, RandomSamplerConfig
from det_core.model.detector_config import DetectorConfig
from det_core.model.loss_config import SmoothL1Config
from det_core.offers import RecipeEntry
from det_core.recipe import Recipe
from det_core.settings import evolve
from det_core.slots import DenseHeadConfig
from det_core.specs import ProposalLimits
from det_core.zoo import (
    BOXES,
    COCO,
    COCO_TRAIN,
    COCO_VAL,
    PROPOSALS,
    Row,
    as_mmdet1,
    compose,
    evolve_part,
    published_rows,
    sample_recipe,
    zoo_entries,
)
from det_plugin_fpn.config import FPNConfig
from det_plugin_guided_anchoring.config import GARetinaNetHeadConfig, GARPNConfig, RetinaNetGuidedAnchorsConfig
from det_plugin_rcnn.config import RCNNHeadConfig
from det_plugin_resnet.backbones import DEMO_R18, backbone_of, preprocess_of

ROWS = published_rows(Path(__file__).with_name("published.csv"))
SUMMARIES = {
    "ga-rpn": "region proposals from guided anchors (Wang et al., 2019)",
    "ga-fast-rcnn": "boxes from given proposals of a GA-RPN (Wang et al., 2019)",
    "ga-faster-rcnn": "boxes, proposed from guided anchors (Wang et al., 2019)",
    "ga-retinanet": "boxes, at every location in one stage, from guided anchors (Wang et al., 2019)",
}
HEADS: dict[str, DenseHeadConfig | None] = {
    # The 2019 release keeps 2000 proposals of a GA-RPN alone. Current reference results have the best 1000, which are
    # enough for AR1000.
    "ga-rpn": GARPNConfig(test_limits=ProposalLimits(before_nms=2000, after_nms=1000)),
    "ga-fast-rcnn": None,
    "ga-faster-rcnn": GARPNConfig(),
    "ga-retinanet": GARetinaNetHeadConfig(),
}
# Better proposals allow higher IoU thresholds in the second stage.
SECOND_STAGE = RCNNHeadConfig(
    assigner=MaxIoUAssignerConfig(positive=0.6, negative=0.6, min_positive=0.6),
    sampler=RandomSamplerConfig(count=256, positive_fraction=0.25),
    coder=DeltaCoderConfig(stds=(0.05, 0.05, 0.1, 0.1)),
    score_threshold=0.001,
)
COCO_WITH_PROPOSALS = evolve(COCO, train=evolve(COCO_TRAIN, max_proposals=300), val=evolve(COCO_VAL, max_proposals=300))


def baseline(row: Row) -> Recipe:
    """The recipe of a published row, under modern conventions. All recipes clip gradients."""
    one_stage = row.model == "ga-retinanet"
    recipe = compose(
        row,
        DetectorConfig(
            preprocess=preprocess_of(row),
            backbone=backbone_of(row),
            neck=FPNConfig(start=1, levels=5, extra="conv_input") if one_stage else FPNConfig(),  # P3-P7, or P2-P6
            dense_head=HEADS[row.model],
            roi_head=SECOND_STAGE if row.model in ("ga-fast-rcnn", "ga-faster-rcnn") else None,
        ),
        data=COCO_WITH_PROPOSALS if row.model == "ga-fast-rcnn" else COCO,
        evaluation=PROPOSALS if row.model == "ga-rpn" else BOXES,
        lr=0.01 if one_stage else 0.02,
    )
    return evolve(recipe, schedule=evolve(recipe.schedule, clip_norm=35.0))


def mmdet1(row: Row) -> Recipe:
    """The recipe of a published row with the conventions of mmdet 0.x and 1.x, and their losses."""
    recipe = baseline(row)
    if recipe.detector.roi_head is not None:
        assigner = evolve(SECOND_STAGE.assigner, low_quality=True)
        recipe = evolve_part(recipe, "roi_head", assigner=assigner, box_loss=SmoothL1Config())
    return as_mmdet1(recipe, row.name)


def demo_recipe() -> Recipe:
    """GA-RetinaNet with two convolutions per tower and group norm, on P3-P6. Squares are small because nuclei are."""
    return sample_recipe(
        "ga-retinanet/r18-fpn-demo",
        DetectorConfig(
            backbone=DEMO_R18,
            neck=FPNConfig(channels=64, start=1, levels=4, extra="conv_input", norm=DEMO_R18.norm),
            dense_head=GARetinaNetHeadConfig(
                channels=64,
                num_convs=2,
                norm=DEMO_R18.norm,
                guided=RetinaNetGuidedAnchorsConfig(base_scale=2.0),
            ),
        ),
        evolve(BOXES, every_epochs=10),
        lr=0.01,
    )


ENTRIES = (
    *zoo_entries(
        ROWS,
        baseline,
        default="ga-faster-rcnn/r50-caffe-fpn-1x",
        summary=lambda row: SUMMARIES[row.model],
        mmdet1=mmdet1,
    ),
    RecipeEntry(
        name="ga-retinanet/r18-fpn-demo",
        make=demo_recipe,
        demo=True,
        summary=f"{SUMMARIES['ga-retinanet']}, small, on the bundled sample",
    ),
)
