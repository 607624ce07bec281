"""Building timm's networks for images of any size, and measuring their maps.

Letters: N images, C channels, H W input size, h w size of a map.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import timm
import torch
from torch import Tensor

from det_core.errors import ConfigError
from det_plugin_timm.model_table import Model

# A module of timm, whose classes share methods but no base: `forward_intermediates`, `prune_intermediate_layers`, ...
Network = Any
# Arguments with which networks take images of any size, in the order in which they are tried.
ANY_SIZE: tuple[dict[str, Any], ...] = (
    {"strict_img_size": False, "always_partition": True},  # Swin: windows of one size, also on small maps
    {"strict_img_size": False},
    {"dynamic_img_size": True},
    {},
)
PROBES = ((8, 9), (7, 11))  # sizes that maps are measured at, in the largest stride times a multiple
MULTIPLES = (1, 2, 8)


def create_network(name: str, *, in_channels: int = 3, drop_path_rate: float | None = None, **more: Any) -> Network:
    """A network of timm with its classifier, for images of any size if it takes them.

    more: other arguments of `timm.create_model`.

    Raises:
        ConfigError: for `drop_path_rate` of a network without stochastic depth.
    """
    depth: dict[str, Any] = {} if drop_path_rate is None else {"drop_path_rate": drop_path_rate}
    for arguments in ANY_SIZE:
        try:
            return timm.create_model(name, in_chans=in_channels, **depth, **arguments, **more)
        except TypeError as error:  # of another argument, or of something else
            refused = next((a for a in (*arguments, *depth) if f"'{a}'" in str(error)), None)
            if refused is None:
                raise
            if refused in depth:
                message = f"{name!r} has no stochastic depth; set it to null"
                raise ConfigError.at("drop_path_rate", message) from None
    raise AssertionError("the last arguments are none")


def take_maps(network: Network, images: Tensor, indices: list[int], *, norm: bool = False) -> list[Tensor]:
    """The maps (N, C, h, w) of a network at these indices of its blocks or stages.

    norm: apply the network's last norm.
    """
    made = network.forward_intermediates(images, indices=indices, norm=norm, output_fmt="NCHW", intermediates_only=True)
    maps: list[Tensor] = made
    return maps


def indices_of(network: Network) -> dict[int, int]:
    """Stride to the index of the deepest map of that stride."""
    found = network.feature_info
    strides = [info["reduction"] for info in getattr(found, "info", found)]
    return {stride: index for index, stride in enumerate(strides)}


def measured(name: str) -> Model | None:
    """The maps of a network, from a run without values; None if timm has no network of this name."""
    if not timm.is_model(name) or "." in name:
        return None
    best = Model(maps={})
    with torch.device("meta"), _quiet():
        for multiple in MULTIPLES:
            try:
                network = create_network(name).eval()
                found = Model(maps=_maps(network, multiple), plain=_is_plain(network), multiple=multiple)
            except Exception:  # noqa: S112 - a network may fail in any way at a size that is not its own
                continue
            if len(found.maps) > len(best.maps):
                best = found
            if len(best.maps) == len(indices_of(network)):
                break
    return best


def _is_plain(network: Network) -> bool:
    return len(indices_of(network)) == 1 and len(network.feature_info) > 1


def _maps(network: Network, multiple: int) -> dict[int, int]:
    """Stride to channels of the maps whose sizes are those of the images over the stride."""
    indices = indices_of(network)
    unit = max(indices) * multiple
    kept = {stride: 0 for stride in indices if unit % stride == 0}
    for rows, columns in PROBES:
        images = torch.zeros(1, 3, rows * unit, columns * unit)
        for stride, found in zip(indices, take_maps(network, images, list(indices.values())), strict=True):
            right = tuple(found.shape[2:]) == (rows * unit // stride, columns * unit // stride)
            if stride in kept and right:
                kept[stride] = found.shape[1]
            else:
                kept.pop(stride, None)
    return kept


@contextmanager
def _quiet() -> Iterator[None]:
    """Without timm's remarks on networks that are built only to be measured."""
    logger = logging.getLogger("timm")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
