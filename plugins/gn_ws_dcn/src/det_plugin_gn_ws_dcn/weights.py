"""Weight maps of deformable RoI pooling. The convolutions have the same names in det and mmdet."""

from __future__ import annotations

from det_core.offers import Names
from det_core.weights.mmdet_names import mmdet_maps
from det_plugin_gn_ws_dcn.config import DeformRoIPoolConfig

WEIGHT_MAPS = mmdet_maps(DeformRoIPoolConfig, lambda config: Names(rules=((r"pools\.", "roi_layers."),)))
