"""The zoo of Hybrid Task Cascade: published baselines under modern conventions, with the figures others measured."""

from __future__ import annotations

from det_core.data.config import CocoConfig
from det_core.recipe import Published, Recipe
from det_core.settings import evolve
from det_plugin_cascade.zoo import cascade_proposals
from det_plugin_fpn.config import FPNConfig
from det_plugin_htc.config import HTCHeadConfig
from det_plugin_resnet.zoo import COCO, MASKS, Row, compose

SUMMARIES = {
    "htc": "boxes and masks in three interleaved stages, with a semantic branch (Chen et al., 2019)",
    "htc-without-semantic": "boxes and masks in three interleaved stages (Chen et al., 2019)",
}
# Maps of COCO-Stuff, beside the images of COCO: https://github.com/nightrome/cocostuff
COCO_STUFF = evolve(
    COCO,
    train=CocoConfig(split="train", filter_empty=True, min_size=32, semantic_dir="stuffthingmaps/train2017"),
)


def zoo_recipe(row: Row) -> Recipe:
    """The published baseline of a row under modern conventions."""
    semantic = row.model == "htc"
    return compose(
        row,
        neck=FPNConfig() if row.kind == "fpn" else None,
        dense_head=cascade_proposals(row),
        roi_head=HTCHeadConfig() if semantic else HTCHeadConfig(semantic=None),
        evaluation=MASKS,
        data=COCO_STUFF if semantic else COCO,
    )


# From the published tables: the 2019 model zoo, and its re-runs under modern conventions.
ROWS = (
    Row(
        "htc",
        "r50",
        "fpn",
        "1x",
        Published(
            box_ap=42.1,
            mask_ap=37.3,
            memory_gb=7.4,
            train_s_per_iter=0.936,
            inference_fps=4.1,
            modern_box_ap=42.3,
            modern_mask_ap=37.4,
            modern_memory_gb=8.2,
        ),
    ),
    Row(
        "htc",
        "r50",
        "fpn",
        "20e",
        Published(box_ap=43.2, mask_ap=38.1, modern_box_ap=43.3, modern_mask_ap=38.3, modern_memory_gb=8.2),
    ),
    Row(
        "htc",
        "r101",
        "fpn",
        "20e",
        Published(
            box_ap=44.9,
            mask_ap=39.4,
            memory_gb=9.3,
            train_s_per_iter=1.051,
            inference_fps=4.0,
            modern_box_ap=44.8,
            modern_mask_ap=39.6,
            modern_memory_gb=10.2,
        ),
    ),
    Row(
        "htc",
        "x101-32x4d",
        "fpn",
        "20e",
        Published(
            box_ap=46.1,
            mask_ap=40.3,
            memory_gb=5.8,
            train_s_per_iter=0.769,
            inference_fps=3.8,
            modern_box_ap=46.1,
            modern_mask_ap=40.5,
            modern_memory_gb=11.4,
            note="memory and speed of 2019: one image per GPU, 16 GPUs",
        ),
    ),
    Row(
        "htc",
        "x101-64x4d",
        "fpn",
        "20e",
        Published(
            box_ap=46.9,
            mask_ap=40.8,
            memory_gb=7.5,
            train_s_per_iter=1.12,
            inference_fps=3.5,
            modern_box_ap=47.0,
            modern_mask_ap=41.4,
            modern_memory_gb=14.5,
            note="memory and speed of 2019: one image per GPU, 16 GPUs",
        ),
    ),
    Row("htc-without-semantic", "r50", "fpn", "1x", Published()),
)
