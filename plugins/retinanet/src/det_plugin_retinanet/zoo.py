"""The zoo of RetinaNet: published baselines under modern conventions, with the figures others measured."""

from __future__ import annotations

from det_core.recipe import Published, Recipe
from det_plugin_fpn.config import FPNConfig
from det_plugin_resnet.zoo import Row, compose
from det_plugin_retinanet.config import RetinaNetHeadConfig

SUMMARY = "boxes, at every location in one stage (Lin et al., 2017)"
PYRAMID = FPNConfig(start=1, levels=5, extra="conv_input")  # P3-P7, P6 from C5


def zoo_recipe(row: Row) -> Recipe:
    """The published baseline of a row under modern conventions."""
    return compose(row, neck=PYRAMID, dense_head=RetinaNetHeadConfig(), lr=0.01)


def _row(network: str, schedule: str, figures: Published) -> Row:
    return Row("retinanet", network, "fpn", schedule, figures)


# From the published tables: the 2019 model zoo, and its re-runs under modern conventions.
ROWS = (
    _row(
        "r50-caffe",
        "1x",
        Published(
            box_ap=35.8,
            memory_gb=3.4,
            train_s_per_iter=0.285,
            inference_fps=12.5,
            modern_box_ap=36.3,
            modern_memory_gb=3.5,
        ),
    ),
    _row(
        "r50",
        "1x",
        Published(
            box_ap=35.6,
            memory_gb=3.6,
            train_s_per_iter=0.308,
            inference_fps=12.1,
            modern_box_ap=36.5,
            modern_memory_gb=3.8,
        ),
    ),
    _row("r50", "2x", Published(box_ap=36.5, modern_box_ap=37.4, modern_memory_gb=3.8)),
    _row(
        "r101-caffe",
        "1x",
        Published(
            box_ap=37.8,
            memory_gb=5.3,
            train_s_per_iter=0.41,
            inference_fps=10.4,
            modern_box_ap=38.5,
            modern_memory_gb=5.5,
        ),
    ),
    _row(
        "r101",
        "1x",
        Published(
            box_ap=37.7,
            memory_gb=5.5,
            train_s_per_iter=0.429,
            inference_fps=10.9,
            modern_box_ap=38.5,
            modern_memory_gb=5.7,
        ),
    ),
    _row("r101", "2x", Published(box_ap=38.1, modern_box_ap=38.9, modern_memory_gb=5.7)),
    _row(
        "x101-32x4d",
        "1x",
        Published(
            box_ap=39.0,
            memory_gb=6.7,
            train_s_per_iter=0.632,
            inference_fps=9.3,
            modern_box_ap=39.9,
            modern_memory_gb=7.0,
        ),
    ),
    _row("x101-32x4d", "2x", Published(box_ap=39.3, modern_box_ap=40.1, modern_memory_gb=7.0)),
    _row(
        "x101-64x4d",
        "1x",
        Published(
            box_ap=40.0,
            memory_gb=9.6,
            train_s_per_iter=0.993,
            inference_fps=7.0,
            modern_box_ap=41.0,
            modern_memory_gb=10.0,
        ),
    ),
    _row("x101-64x4d", "2x", Published(box_ap=39.6, modern_box_ap=40.8, modern_memory_gb=10.0)),
)
