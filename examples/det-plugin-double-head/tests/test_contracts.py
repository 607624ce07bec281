"""det's contracts hold for this plugin. Needs the package to be installed: pip install -e ."""

from __future__ import annotations

import pytest
from det_core.errors import ConfigError
from det_core.load import load_recipe
from det_core.model.layer_config import BatchNormConfig
from det_core.specs import FeatureSpec
from det_core.testing import contract_checks

from det_plugin_double_head import DoubleHeadConfig, PlainNetConfig
from det_plugin_double_head.recipes import DEMO


def test_plugin() -> None:
    contract_checks.check_plugin("double_head")


@pytest.mark.parametrize(
    "config",
    [PlainNetConfig(width=8), PlainNetConfig(width=6, depth=1, norm=BatchNormConfig())],
    ids=["group norm", "batch norm"],
)
def test_backbone(config: PlainNetConfig) -> None:
    contract_checks.check_backbone(config)


@pytest.mark.parametrize(
    "config",
    [
        DoubleHeadConfig(fc_channels=16, conv_channels=16),
        DoubleHeadConfig(fc_channels=8, num_fcs=1, conv_channels=8, num_blocks=0, norm=None, box_region_scale=1.0),
    ],
    ids=["with blocks", "least"],
)
def test_roi_head(config: DoubleHeadConfig) -> None:
    contract_checks.check_roi_head(config)


def test_recipe() -> None:
    contract_checks.check_detector(load_recipe(DEMO, ["detector.backbone.width=8"]).detector)


def test_levels_that_do_not_fit_are_refused_before_building() -> None:
    with pytest.raises(ConfigError, match="stride 16, but the levels have strides"):
        DoubleHeadConfig().check(FeatureSpec(channels=(8, 8), strides=(4, 8)))
