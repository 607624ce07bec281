"""Weight maps of FPN."""

from det_core.offers import Names, WeightMap
from det_core.weights.detectron2_names import detectron_maps
from det_core.weights.mmdet_names import conv_rules, mmdet_maps
from det_plugin_fpn.config import FPNConfig


def _mmdet(config: FPNConfig) -> Names:
    norm = config.norm
    return Names(
        rules=(*conv_rules("lateral", "lateral_convs", norm), *conv_rules("(?:output|extra)", "fpn_convs", norm))
    )


def _torchvision(config: FPNConfig) -> Names:
    # Lateral and output layers are sequences of a convolution and a norm; extra layers are named after their level.
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


def _detectron2(config: FPNConfig) -> Names:
    """Layers are named after the logarithm of their level's stride; a norm hangs on its convolution."""
    rules = []
    for i in range(config.levels):
        number = 2 + config.start + i
        for ours, theirs in (("lateral", "fpn_lateral"), ("output", "fpn_output")):
            rules += [
                (rf"{ours}\.{i}\.conv\.", f"{theirs}{number}."),
                (rf"{ours}\.{i}\.norm\.", f"{theirs}{number}.norm."),
            ]
        rules.append((rf"extra\.{i}\.conv\.", f"top_block.p{number}."))
    return Names(rules=tuple(rules))


WEIGHT_MAPS = (
    *mmdet_maps(FPNConfig, _mmdet),
    WeightMap("torchvision", FPNConfig, _torchvision),
    *detectron_maps(FPNConfig, _detectron2),
)
