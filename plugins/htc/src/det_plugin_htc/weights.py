"""Weight maps of the HTC head: those of a cascade, the flows inside mmdet's mask heads, and the semantic head."""

from __future__ import annotations

from attrs import evolve

from det_core.offers import Names
from det_core.weights.mmdet_names import mmdet_maps
from det_plugin_cascade.weights import cascade_names
from det_plugin_htc.config import HTCHeadConfig

SEMANTIC = (
    (r"semantic\.lateral\.", "semantic_head.lateral_convs."),
    (r"semantic\.convs\.", "semantic_head.convs."),
    (r"semantic\.embedding\.", "semantic_head.conv_embedding."),
    (r"semantic\.logits\.", "semantic_head.conv_logits."),
)


def htc_names(config: HTCHeadConfig) -> Names:
    """In mmdet, the layer between two mask heads is part of the second."""
    count = len(config.stages) - 1 if config.information_flow else 0
    flows = tuple((rf"flows\.{i}\.", f"mask_head.{i + 1}.conv_res.") for i in range(count))
    return evolve(cascade_names(config), rules=(*flows, *SEMANTIC))


WEIGHT_MAPS = mmdet_maps(HTCHeadConfig, htc_names)
