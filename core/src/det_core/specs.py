"""Facts that travel between the parts of a detector: what one gives and the next can rely on. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import field, frozen

from det_core.errors import ConfigError
from det_core.settings import configclass, setting


def _as_tuple(values: Iterable[int]) -> tuple[int, ...]:
    return tuple(values)


@frozen(kw_only=True)
class FeatureSpec:
    """The feature maps of a backbone or neck: channels and strides (in input pixels), finest level first."""

    channels: tuple[int, ...] = field(converter=_as_tuple)
    strides: tuple[int, ...] = field(converter=_as_tuple)

    def __attrs_post_init__(self) -> None:
        if len(self.channels) != len(self.strides):
            raise ValueError(f"{len(self.channels)} channel counts but {len(self.strides)} strides")

    def same_channels(self, who: str) -> int:
        """The channel count that all levels share; ConfigError if they differ."""
        if len(set(self.channels)) != 1:
            raise ConfigError.at(
                "",
                f"{who} works on levels of one channel count, but gets channels {list(self.channels)} at strides "
                f"{list(self.strides)}; put a neck before it that makes them equal (for example type: fpn)",
            )
        return self.channels[0]

    def level(self, stride: int, who: str) -> int:
        """The index of the level with this stride; ConfigError that lists the strides there are."""
        if stride not in self.strides:
            raise ConfigError.at(
                "",
                f"{who} asks for a feature level of stride {stride}, but the levels it gets have strides "
                f"{list(self.strides)}",
            )
        return self.strides.index(stride)


@frozen
class ConvSpec:
    """The shape of a 2-d convolution, whatever kind it is; kernels are square."""

    in_channels: int
    out_channels: int
    kernel_size: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1
    bias: bool = True


@frozen(kw_only=True)
class RegionSpec:
    """The regions of RoI pooling or a trunk: channels and size `(height, width)`."""

    channels: int
    size: tuple[int, int]


@configclass
class ProposalLimits:
    """How many proposals a proposal head keeps."""

    before_nms: int = setting("best per level that enter NMS", default=2000, least=1)
    after_nms: int = setting("best per image that leave NMS", default=1000, least=1)
