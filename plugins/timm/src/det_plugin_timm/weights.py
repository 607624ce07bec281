"""Weight maps of timm's networks: the Swin Transformer of mmdet 2.x and 3.x, and the ConvNeXt of mmpretrain.

Both have a layer norm on each map (`out_norm: layer_norm`), which they name after the stage.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from det_core.errors import WeightsError
from det_core.offers import Change, Names, WeightMap
from det_plugin_timm.config import TimmConfig

if TYPE_CHECKING:
    from torch import Tensor


def _merged_in_timm_s_order(value: Tensor) -> Tensor:
    """Weights (..., 4C) of merged patches from mmdet's order to timm's.

    Patches of 2x2 cells become channels in the order (channel, row, column) in mmdet, which unfolds them, and in the
    order (column, row, channel) in timm and in Swin's own code.
    """
    cells = value.unflatten(-1, (-1, 2, 2))
    return cells.movedim((-3, -2, -1), (-1, -2, -3)).flatten(-3)


MERGED = Change("merged patches in timm's order", _merged_in_timm_s_order)


def _swin(config: TimmConfig) -> Names:
    block, theirs = r"body\.layers\.(\d+)\.blocks\.(\d+)\.", r"stages.\1.blocks.\2."
    merging = tuple((rf"body\.layers\.{n}\.downsample\.", f"stages.{n - 1}.downsample.") for n in (1, 2, 3))
    return Names(
        rules=(
            (r"body\.patch_embed\.proj\.", "patch_embed.projection."),
            (r"body\.patch_embed\.", "patch_embed."),
            *merging,
            (rf"{block}attn\.", rf"{theirs}attn.w_msa."),
            (rf"{block}mlp\.fc1\.", rf"{theirs}ffn.layers.0.0."),
            (rf"{block}mlp\.fc2\.", rf"{theirs}ffn.layers.1."),
            (block, theirs),
        ),
        changes=((r"body\.layers\.\d+\.downsample\.", MERGED),),
    )


# timm's small networks have 1x1 convolutions, where mmpretrain and timm's larger ones have linear layers.
CONVOLVED = Change("a linear layer as a 1x1 convolution", lambda value: value.reshape(*value.shape[:2], 1, 1))
_SMALL = ("zepto", "atto", "femto", "pico", "nano", "tiny_hnf")


def _convnext(config: TimmConfig) -> Names:
    block, theirs = r"body\.stages\.(\d+)\.blocks\.(\d+)\.", r"stages.\1.\2."
    small = config.name.partition("_")[2].startswith(_SMALL)
    return Names(
        rules=(
            (r"body\.stem\.", "downsample_layers.0."),
            (r"body\.stages\.(\d+)\.downsample\.", r"downsample_layers.\1."),
            (rf"{block}conv_dw\.", rf"{theirs}depthwise_conv."),
            (rf"{block}mlp\.fc1\.", rf"{theirs}pointwise_conv1."),
            (rf"{block}mlp\.fc2\.", rf"{theirs}pointwise_conv2."),
            (rf"{block}mlp\.grn\.weight", rf"{theirs}grn.gamma"),  # of ConvNeXt V2
            (rf"{block}mlp\.grn\.bias", rf"{theirs}grn.beta"),
            (block, theirs),
        ),
        changes=((rf"{block}mlp\.fc\d\.weight", CONVOLVED),) if small else (),
    )


FAMILIES = {"swin": _swin, "convnext": _convnext, "convnextv2": _convnext}


def _mmdet(config: TimmConfig) -> Names:
    """The names of a network's family, with output norms numbered by stage."""
    family = config.name.partition("_")[0]
    if family not in FAMILIES:
        raise WeightsError(
            f"there are no names of mmdet for {config.name!r} of timm; weights of mmdet are imported for networks "
            f"named {', '.join(f'{name}_...' for name in FAMILIES)}"
        )
    stages = list(config.available())
    norms = tuple(
        (rf"out_norms\.{number}\.", f"norm{stages.index(stride)}.") for number, stride in enumerate(config.taken())
    )
    names = FAMILIES[family](config)
    return Names(rules=(*norms, *names.rules), changes=names.changes)


WEIGHT_MAPS = (WeightMap("mmdet", TimmConfig, _mmdet),)
