"""Configurations of this plugin: timm's networks as a backbone, and a crop. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from det_core.errors import ConfigError
from det_core.settings import check_range, configclass, setting
from det_core.slots import IN_CHANNELS, BackboneConfig, NeckConfig, TransformConfig
from det_core.specs import FeatureSpec, PixelFormat
from det_plugin_timm.known_models import model_of
from det_plugin_timm.model_table import Model

if TYPE_CHECKING:
    from det_core.contracts import Transform
    from det_plugin_timm.backbone import TimmBackbone
    from det_plugin_timm.level_convs import LevelConvs

TIMM = "timm:"  # what the names of timm's weights begin with
USUAL = (4, 32)  # the strides that are returned by default, both included
# Of a plain network of stride p: channels of the map of stride p * factor, as a part of its own (ViTDet, section 3).
PYRAMID = {0.25: 0.25, 0.5: 0.5, 1.0: 1.0, 2.0: 1.0}


@configclass
class TimmConfig(BackboneConfig):
    """A network of timm, and its deepest feature maps of some strides.

    Plain networks, such as ViTs, have maps of one stride p. Maps of strides p/4, p/2, p and 2p are made of the last one
    by the simple pyramid of ViTDet (Li et al., 2022, section 3).
    """

    type: ClassVar[str] = "timm"

    name: str = setting("timm's name of the network without weights, such as convnext_tiny (`timm.list_models()`)")
    strides: tuple[int, ...] | None = setting(
        "strides of the maps to return, ascending; later parts of the network are not built; null: all from "
        f"{USUAL[0]} to {USUAL[1]}",
        default=None,
        min_items=1,
        least=1,
    )
    out_norm: Literal["none", "layer_norm"] = setting(
        "layer_norm: a layer norm over the channels of each map, with the eps of the network's own, as in the Swin and "
        "ConvNeXt of mmdet",
        default="none",
    )
    drop_path_rate: float | None = setting(
        "stochastic depth: the probability of leaving out the last block, which falls linearly to 0 at the first; "
        "null: as timm has it for the network",
        default=None,
        least=0,
        below=1,
    )
    frozen_stages: int = setting(
        "-1: train everything; 0: freeze the stem; n: freeze the stem and timm's first n stages (of ViTs: blocks)",
        default=-1,
        least=-1,
    )
    frozen_statistics: bool = setting(
        "of batch norms, if the network has any: do not update the running statistics, and use them also in training; "
        "the affine part trains",
        default=True,
    )
    checkpointing: bool = setting(
        "compute activations again in the backward pass instead of keeping them, where the network can", default=False
    )
    in_channels: int = setting(IN_CHANNELS, default=3, least=1)
    pretrained: str | None = setting(
        "initial weights: timm:convnext_tiny (timm's default weights of the network), timm:convnext_tiny.fb_in1k "
        "(others), both downloaded once, or a file with timm's parameter names",
        default=None,
    )

    def __attrs_post_init__(self) -> None:
        available = self.available()
        strides = self.strides or ()
        if list(strides) != sorted(set(strides)):
            raise ConfigError.at("strides", f"{list(strides)} must ascend without repeats")
        missing = [stride for stride in strides if stride not in available]
        if missing or not self.taken():
            found = (
                f"has no map of stride {missing[0]}" if missing else f"has no map of strides {USUAL[0]} to {USUAL[1]}"
            )
            raise ConfigError.at("strides", f"{self.name!r} {found}; its strides are {', '.join(map(str, available))}")
        network = (self.pretrained or "").removeprefix(TIMM).partition(".")[0]
        if self.pretrained is not None and self.pretrained.startswith(TIMM) and network != self.name:
            raise ConfigError.at(
                "pretrained",
                f"{self.pretrained!r} are weights of {network!r}, but the network is {self.name!r}; use "
                f"{TIMM}{self.name}, a file with its weights, or null",
            )

    @property
    def model(self) -> Model:
        """What is known of the network."""
        return model_of(self.name)

    def available(self) -> dict[int, int]:
        """Channels of the map of each stride that the network can give."""
        model = self.model
        if not model.plain:
            return model.maps
        ((stride, channels),) = model.maps.items()
        made = {stride * factor: int(channels * part) for factor, part in PYRAMID.items()}
        return {int(stride): channels for stride, channels in made.items() if stride.is_integer()}

    def taken(self) -> tuple[int, ...]:
        """Strides of the maps that are returned."""
        if self.strides is not None:
            return self.strides
        return tuple(stride for stride in self.available() if USUAL[0] <= stride <= USUAL[1])

    def input_channels(self) -> int:
        return self.in_channels

    def feature_spec(self) -> FeatureSpec:
        channels, strides = self.available(), self.taken()
        return FeatureSpec(channels=[channels[stride] for stride in strides], strides=strides)

    def build(self) -> TimmBackbone:
        from det_plugin_timm.backbone import TimmBackbone

        return TimmBackbone(self)


@configclass
class LevelConvsConfig(NeckConfig):
    """Convolutions of each map alone, without the top-down path of an FPN: ViTDet's (Li et al., 2022, section 3).

    A 1x1 and a 3x3 convolution, each with a layer norm over the channels. Extra levels subsample the last output.
    """

    type: ClassVar[str] = "level_convs"

    channels: int = setting("channels of every output level", default=256, least=1)
    levels: int = setting("number of output levels, including extra ones", default=5, least=1, most=16)

    def feature_spec(self, inputs: FeatureSpec) -> FeatureSpec:
        strides = list(inputs.strides)
        if self.levels < len(strides):
            found = f"{self.levels} output levels from {len(strides)} inputs (strides {strides})"
            raise ConfigError.at("levels", f"{found}; give at least {len(strides)} levels")
        strides += [strides[-1] * 2 ** (i + 1) for i in range(self.levels - len(strides))]
        return FeatureSpec(channels=(self.channels,) * self.levels, strides=strides)

    def build(self, inputs: FeatureSpec) -> LevelConvs:
        from det_plugin_timm.level_convs import LevelConvs

        return LevelConvs(self, inputs)


@configclass
class SizedCropConfig(TransformConfig):
    """Resize to a scale, then crop a window of random size at a random place, with some probability.

    Before a resize to random scales, it is the augmentation of DETR (Carion et al., 2020, section A.4). Boxes are those
    of what is left of the masks, if there are masks; objects of which nothing is left are dropped.
    """

    type: ClassVar[str] = "sized_crop"

    scales: tuple[tuple[int, int], ...] = setting(
        "maximum (long edge, short edge) in pixels, of which one is drawn",
        default=((1333, 400), (1333, 500), (1333, 600)),
        min_items=1,
        least=1,
    )
    sides: tuple[int, int] = setting(
        "range in pixels that height and width of the window are drawn from; smaller sides of images are kept",
        default=(384, 600),
        least=1,
        check=check_range,
    )
    probability: float = setting("probability of doing so", default=0.5, least=0, most=1)

    def refusal(self, pixels: PixelFormat) -> str:
        """Why it cannot transform images of a format, or ""."""
        from det_core.data.data_config import ResizeConfig

        return ResizeConfig(scales=self.scales).refusal(pixels)

    def build(self) -> Transform:
        from det_plugin_timm.sized_crop import SizedCrop

        return SizedCrop(self)
