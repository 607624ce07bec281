"""Configurations of layers: norms, convolution, RoI pooling. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from attrs import asdict

from det_core.conventions import ANY, of_detectron
from det_core.errors import ConfigError
from det_core.settings import configclass, setting
from det_core.slots import ConvConfig, NormConfig, RoIPoolConfig
from det_core.specs import ConvSpec, FeatureSpec, RegionSpec

if TYPE_CHECKING:
    from torch import nn

    from det_core.model.roi_pool import RoIAlign


@configclass
class BatchNormConfig(NormConfig):
    """torch's batch normalisation."""

    type: ClassVar[str] = "batch_norm"

    eps: float = setting("added to the variance", default=1e-5, above=0)
    momentum: float = setting("weight of a batch in the running statistics", default=0.1, above=0, most=1)
    frozen_statistics: bool = setting(
        "do not update the running statistics, and use them also in training; the affine part trains", default=False
    )
    synchronised: bool = setting(
        "in training by several processes, use the statistics of the images of all of them", default=False
    )

    def __attrs_post_init__(self) -> None:
        if self.synchronised and self.frozen_statistics:
            raise ValueError("synchronised: frozen statistics are not computed, so set only one of the two")

    def build(self, channels: int) -> nn.Module:
        from det_core.model.fold_batch_norm import BatchNorm

        statistics = {"frozen_statistics": self.frozen_statistics, "synchronised": self.synchronised}
        return BatchNorm(channels, eps=self.eps, momentum=self.momentum, **statistics)


@configclass
class FrozenBatchNormConfig(NormConfig):
    """Batch normalisation with fixed statistics and a fixed affine part."""

    type: ClassVar[str] = "frozen_batch_norm"

    eps: float = setting("added to the variance; torchvision's first COCO weights need 0", default=1e-5, least=0)

    def build(self, channels: int) -> nn.Module:
        from det_core.model.fold_batch_norm import BatchNorm

        # Old versions of torch reject eps=0.
        norm = BatchNorm(channels, eps=max(self.eps, 1e-30), frozen_statistics=True)
        norm.requires_grad_(False)
        return norm


@configclass
class GroupNormConfig(NormConfig):
    """torch's group normalisation (Wu and He, 2018)."""

    type: ClassVar[str] = "group_norm"

    groups: int = setting("groups of channels", default=32, least=1)
    eps: float = setting("added to the variance", default=1e-5, above=0)

    def build(self, channels: int) -> nn.Module:
        from torch import nn

        if channels % self.groups:
            message = f"{self.groups} groups do not divide {channels} channels; choose a divisor of {channels}"
            raise ConfigError.at("groups", message)
        return nn.GroupNorm(self.groups, channels, eps=self.eps)


@configclass
class Conv2dConfig(ConvConfig):
    """torch's convolution."""

    type: ClassVar[str] = "conv2d"

    def build(self, spec: ConvSpec) -> nn.Module:
        from torch import nn

        return nn.Conv2d(**asdict(spec))


def pooled_spec(inputs: FeatureSpec, strides: tuple[int, ...], size: int, who: str) -> RegionSpec:
    """The spec of square regions pooled from the levels with these strides; ConfigError if their channels differ.

    who: the RoI pooling, for the error message.
    """
    levels = [inputs.level(stride, who) for stride in strides]
    pooled = FeatureSpec(channels=[inputs.channels[i] for i in levels], strides=strides)
    return RegionSpec(channels=pooled.same_channels(who), size=(size, size))


@configclass
class RoIAlignConfig(RoIPoolConfig):
    """RoIAlign over several levels: each region is pooled from one level, by its size."""

    type: ClassVar[str] = "roi_align"

    size: int = setting("output height and width", default=7, least=1)
    strides: tuple[int, ...] = setting("levels to pool from, finest first", default=(4, 8, 16, 32), min_items=1)
    sampling: int = setting(
        "samples per bin and axis; 0: adaptive",
        default=0,
        least=0,
        conventions={
            "mmdet1": 2,
            "torchvision": 2,
            "mmdet": ANY,
            "detectron2": ANY,
            **of_detectron(ANY),
        },
    )
    alignment: Literal["aligned", "unaligned", "v1", "detectron"] = setting(
        "aligned: pixel centres at integers; unaligned: pixel corners at integers, regions at least one feature pixel "
        "large; v1: pixel corners at integers, regions of any size (mmdet 0.x and 1.x); detectron: as unaligned, up to "
        "a region's last pixel (Detectron and maskrcnn-benchmark)",
        default="aligned",
        conventions={
            "torchvision": "unaligned",
            "mmdet1": "v1",
            "detectron2": ANY,
            **of_detectron("detectron"),
        },
    )
    finest_scale: float = setting("regions with a side below twice this use the finest level", default=56.0, above=0)
    level_rule: Literal["mmdet", "mmdet-v1", "detectron", "detectron2", "torchvision"] = setting(
        "the project whose rounding selects a region's level; they differ at exact borders between levels",
        default="mmdet",
        conventions={
            "torchvision": "torchvision",
            "detectron2": "detectron2",
            **of_detectron("detectron"),
        },
    )
    mode: Literal["avg", "max"] = setting("how a bin's samples are combined", default="avg")

    def region_spec(self, inputs: FeatureSpec) -> RegionSpec:
        return pooled_spec(inputs, self.strides, self.size, f"roi_pool {self.type!r}")

    def build(self, inputs: FeatureSpec) -> RoIAlign:
        from det_core.model.roi_pool import RoIAlign

        return RoIAlign(self, inputs)
