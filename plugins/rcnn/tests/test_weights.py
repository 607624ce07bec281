"""Pooling that has weights of its own: the names of mmdetection, whoever provides it."""

from __future__ import annotations

from typing import ClassVar

import pytest
from attrs import evolve

from det_core.errors import WeightsError
from det_core.model.layer_config import RoIAlignConfig
from det_core.offers import Part
from det_core.testing.isolated_plugins import stub_config
from det_core.weights.translate_names import translate
from det_plugin_rcnn.config import ConvMaskHeadConfig, RCNNHeadConfig
from det_plugin_rcnn.weights import pooling_parts


@stub_config
class LearnedPoolConfig(RoIAlignConfig):
    """Pooling of a plugin that says nothing of other projects' names."""

    type: ClassVar[str] = "learned_pool"


BOXES = RCNNHeadConfig(roi_pool=LearnedPoolConfig())
MASKS = RCNNHeadConfig(mask_roi_pool=RoIAlignConfig(size=14), mask_head=ConvMaskHeadConfig())


def test_pooling_is_in_the_extractors() -> None:
    assert pooling_parts(BOXES) == {"roi_pool": Part(BOXES.roi_pool, "bbox_roi_extractor")}
    assert MASKS.mask_roi_pool is not None
    assert pooling_parts(MASKS) == {
        "roi_pool": Part(MASKS.roi_pool, "bbox_roi_extractor"),
        "mask_roi_pool": Part(MASKS.mask_roi_pool, "mask_roi_extractor"),
    }


def test_pooling_without_a_map_has_names_that_nobody_knows() -> None:
    with pytest.raises(WeightsError, match="roi_pool type 'learned_pool' has no weight map for 'mmdet'"):
        translate("mmdet", BOXES, "roi_pool.pools.0.weight")


@pytest.mark.parametrize("head", [BOXES, MASKS, evolve(MASKS, roi_pool=LearnedPoolConfig())])
def test_other_names_do_not_ask_for_it(head: RCNNHeadConfig) -> None:
    assert translate("mmdet", head, "box_head.fcs.0.weight") == "bbox_head.shared_fcs.0.weight"
