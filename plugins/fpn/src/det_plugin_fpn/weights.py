"""How other projects name FPN's weights."""

from det_core.offers import Names, WeightMap
from det_plugin_fpn.config import FPNConfig


def _mmdet(config: FPNConfig) -> Names:
    # Its convolution modules call a norm after its kind.
    norm = {"group_norm": "gn"}.get(config.norm.type, "bn") if config.norm else "norm"
    return Names(
        rules=(
            (r"lateral\.(\d+)\.norm", rf"lateral_convs.\1.{norm}"),
            (r"(?:output|extra)\.(\d+)\.norm", rf"fpn_convs.\1.{norm}"),
            (r"lateral\.", "lateral_convs."),
            (r"(?:output|extra)\.", "fpn_convs."),
        )
    )


def _torchvision(config: FPNConfig) -> Names:
    # Each is a sequence of the convolution and its norm; extra convolutions are plain, named after their level.
    extra = tuple((rf"extra\.{i}\.conv", f"extra_blocks.p{2 + config.start + i}") for i in range(config.levels))
    return Names(
        rules=(
            *extra,
            (r"lateral\.(\d+)\.conv", r"inner_blocks.\1.0"),
            (r"lateral\.(\d+)\.norm", r"inner_blocks.\1.1"),
            (r"output\.(\d+)\.conv", r"layer_blocks.\1.0"),
            (r"output\.(\d+)\.norm", r"layer_blocks.\1.1"),
        )
    )


WEIGHT_MAPS = (WeightMap("mmdet", FPNConfig, _mmdet), WeightMap("torchvision", FPNConfig, _torchvision))
