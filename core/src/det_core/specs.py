"""Specifications that parts of a detector pass to each other: channels, strides, sizes. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from attrs import field, frozen

from det_core.errors import ConfigError, counted
from det_core.settings import configclass, setting


def _as_tuple(values: Iterable[int]) -> tuple[int, ...]:
    return tuple(values)


Split = Literal["train", "val", "test"]
Runtime = Literal["onnxruntime", "openvino"]  # of exported ONNX models
OnBadSample = Literal["error", "skip", "repair"]
# Projects whose weights are imported; mmdet: of either generation.
Source = Literal["mmdet", "mmdet1", "mmdet2", "torchvision", "detectron2", "detectron", "maskrcnn-benchmark"]
TIMEOUT = 1800  # seconds without news from another rank or a loader process after which a run ends


@frozen
class PixelFormat:
    """What the images are that a detector takes: their number of channels, and the bits of a channel's values.

    Pixels of 8 bits are uint8, those of 16 bits float32 in 0..65535.
    """

    channels: int = 3
    bits: Literal[8, 16] = 8

    def __str__(self) -> str:
        return f"{self.bits}-bit images of {counted(self.channels, 'channel')}"


RGB = PixelFormat()


@frozen(kw_only=True)
class FeatureSpec:
    """Channels and strides (in input pixels) of a backbone's or neck's feature maps, finest level first."""

    channels: tuple[int, ...] = field(converter=_as_tuple)
    strides: tuple[int, ...] = field(converter=_as_tuple)

    def __attrs_post_init__(self) -> None:
        if len(self.channels) != len(self.strides):
            raise ValueError(f"{len(self.channels)} channel counts but {len(self.strides)} strides")

    def same_channels(self, who: str) -> int:
        """The channel count of all levels; ConfigError if they differ. `who` names the part that requires it."""
        if len(set(self.channels)) != 1:
            raise ConfigError.at(
                "",
                f"{who} requires the same channel count at all levels, but gets channels {list(self.channels)} at "
                f"strides {list(self.strides)}; add a neck that makes them equal (for example type: fpn)",
            )
        return self.channels[0]

    def level(self, stride: int, who: str) -> int:
        """The index of the level with this stride; ConfigError that lists the strides if there is none."""
        if stride not in self.strides:
            raise ConfigError.at(
                "",
                f"{who} requires a feature level of stride {stride}, but the levels have strides {list(self.strides)}",
            )
        return self.strides.index(stride)


@frozen
class ConvSpec:
    """The arguments of a 2-d convolution of any kind. Kernels are square."""

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
    """Channels and size `(height, width)` of the regions from RoI pooling or a trunk."""

    channels: int
    size: tuple[int, int]


@configclass
class ProposalLimits:
    """How many proposals a proposal head keeps."""

    before_nms: int = setting("maximum proposals per level before NMS", default=2000, least=1)
    after_nms: int = setting("maximum proposals per image after NMS", default=1000, least=1)


@frozen(kw_only=True)
class TrainingLength:
    """The length of a run, from which a learning-rate schedule computes its factor at a step."""

    epochs: int
    steps_per_epoch: int

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.epochs * self.steps_per_epoch


@configclass
class ParameterRule:
    """A learning rate, weight decay or freezing of the parameters whose names match a pattern.

    All rules that match a parameter apply, in their order: factors are multiplied, the last weight decay is used.
    """

    pattern: str = setting("names of parameters, such as `backbone.*` or `*.bias`; `*` matches any characters")
    lr_factor: float = setting("factor on the learning rate", default=1.0, above=0)
    weight_decay: float | None = setting("weight decay; null: as without the rule", default=None, least=0)
    frozen: bool = setting(
        "do not train; batch norms of which all parameters are frozen also keep their running statistics",
        default=False,
    )
