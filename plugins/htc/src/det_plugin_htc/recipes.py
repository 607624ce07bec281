"""The zoo of Hybrid Task Cascade: published baselines (figures in `published.csv`) and demos."""

from __future__ import annotations

from pathlib import Path

from det_core.model.detector_config import DetectorConfig
from det_core.recipe import Recipe
from det_core.settings import evolve
from det_core.zoo import COCO, COCO_TRAIN, MASKS, Row, as_mmdet1, compose, published_rows, zoo_entries
from det_plugin_cascade import recipes as cascade
from det_plugin_cascade.config import CascadeHeadConfig
from det_plugin_fpn.config import FPNConfig
from det_plugin_htc.config import HTCHeadConfig, SemanticBranchConfig
from det_plugin_rcnn import recipes as rcnn
from det_plugin_resnet.backbones import backbone_of, preprocess_of

ROWS = published_rows(Path(__file__).with_name("published.csv"))
SUMMARIES = {
    "htc": "boxes and masks in three interleaved stages, with a semantic branch (Chen et al., 2019)",
    "htc-without-semantic": "boxes and masks in three interleaved stages (Chen et al., 2019)",
}
# COCO with the semantic maps of COCO-Stuff: https://github.com/nightrome/cocostuff
COCO_STUFF = evolve(COCO, train=evolve(COCO_TRAIN, semantic_dir="stuffthingmaps/train2017"))


def baseline(row: Row) -> Recipe:
    """The recipe of a published row, under modern conventions."""
    semantic = row.model == "htc"
    recipe = compose(
        row,
        DetectorConfig(
            preprocess=preprocess_of(row),
            backbone=backbone_of(row),
            neck=FPNConfig(),
            dense_head=cascade.cascade_rpn_of(row),
            roi_head=HTCHeadConfig() if semantic else HTCHeadConfig(semantic=None),
        ),
        data=COCO_STUFF if semantic else COCO,
        evaluation=MASKS,
    )
    return cascade.with_low_quality_matches(recipe)  # unlike a cascade of today


def mmdet1(row: Row) -> Recipe:
    """The recipe of a published row with the conventions of mmdet 0.x and 1.x."""
    return as_mmdet1(baseline(row), row.name)


def demo_recipe(model: str) -> Recipe:
    """The demo of Cascade Mask R-CNN with HTC's head. The semantic classes of `htc` are nuclei and background."""
    plain = cascade.demo_recipe("cascade-mask-rcnn")
    head = plain.detector.roi_head
    assert isinstance(head, CascadeHeadConfig)
    htc = HTCHeadConfig(
        box_head=head.box_head,
        mask_roi_pool=head.mask_roi_pool,
        mask_head=head.mask_head,
        stages=head.stages,
        semantic=SemanticBranchConfig(classes=2, num_convs=2) if model == "htc" else None,
    )
    return evolve(plain, name=f"{model}/r18-fpn-demo", detector=evolve(plain.detector, roi_head=htc))


ENTRIES = (
    *zoo_entries(ROWS, baseline, default="htc/r50-fpn-1x", summary=lambda row: SUMMARIES[row.model], mmdet1=mmdet1),
    *rcnn.demo_entries(demo_recipe, SUMMARIES, demo="htc"),
)
