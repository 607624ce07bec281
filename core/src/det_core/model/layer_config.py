"""Configurations of layers: norms, convolution, RoI pooling. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from attrs import field, frozen, validators

from det_core.config.base import (
    ConfigError,
    ConvConfig,
    FeatureSpec,
    NormConfig,
    Problem,
    RegionSpec,
    RoIPoolConfig,
    doc,
)

if TYPE_CHECKING:
    from torch import nn

    from det_core.model.roi_pool import RoIAlign


@frozen(kw_only=True)
class BatchNormConfig(NormConfig):
    """torch's batch normalisation."""

    type: ClassVar[str] = "batch_norm"

    eps: float = field(default=1e-5, validator=validators.gt(0), metadata=doc("added to the variance"))
    frozen_statistics: bool = field(
        default=False, metadata=doc("keep the running statistics as they are, in training too; the affine part trains")
    )

    def build(self, channels: int) -> nn.Module:
        from det_core.model.conv_norm import BatchNorm

        return BatchNorm(channels, eps=self.eps, frozen_statistics=self.frozen_statistics)


@frozen(kw_only=True)
class FrozenBatchNormConfig(NormConfig):
    """Batch normalisation with fixed statistics and a fixed affine part."""

    type: ClassVar[str] = "frozen_batch_norm"

    eps: float = field(
        default=1e-5,
        validator=validators.ge(0),
        metadata=doc("added to the variance; torchvision's first COCO weights want 0"),
    )

    def build(self, channels: int) -> nn.Module:
        from det_core.model.conv_norm import BatchNorm

        # Old torch refuses 0; this vanishes beside any variance.
        norm = BatchNorm(channels, eps=max(self.eps, 1e-30), frozen_statistics=True)
        norm.requires_grad_(False)
        return norm


@frozen(kw_only=True)
class GroupNormConfig(NormConfig):
    """torch's group normalisation (Wu and He, 2018)."""

    type: ClassVar[str] = "group_norm"

    groups: int = field(default=32, validator=validators.ge(1), metadata=doc("groups of channels"))
    eps: float = field(default=1e-5, validator=validators.gt(0), metadata=doc("added to the variance"))

    def build(self, channels: int) -> nn.Module:
        from torch import nn

        if channels % self.groups:
            raise ConfigError(
                [
                    Problem(
                        "groups",
                        (f"{self.groups} groups do not divide {channels} channels; choose a divisor of {channels}"),
                    )
                ]
            )
        return nn.GroupNorm(self.groups, channels, eps=self.eps)


@frozen(kw_only=True)
class Conv2dConfig(ConvConfig):
    """torch's convolution."""

    type: ClassVar[str] = "conv2d"

    def build(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> nn.Module:
        from torch import nn

        return nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)


def pooled_spec(inputs: FeatureSpec, strides: tuple[int, ...], size: int, who: str) -> RegionSpec:
    """Square regions pooled from the levels of these strides; ConfigError (by `who`) if their channels differ."""
    levels = [inputs.level(stride, who) for stride in strides]
    taken = FeatureSpec(channels=[inputs.channels[i] for i in levels], strides=strides)
    return RegionSpec(channels=taken.same_channels(who), size=(size, size))


@frozen(kw_only=True)
class RoIAlignConfig(RoIPoolConfig):
    """RoIAlign over several levels: each region is pooled from the level that fits its size."""

    type: ClassVar[str] = "roi_align"

    size: int = field(default=7, validator=validators.ge(1), metadata=doc("output height and width"))
    strides: tuple[int, ...] = field(
        default=(4, 8, 16, 32), validator=validators.min_len(1), metadata=doc("levels to pool from, finest first")
    )
    sampling: int = field(default=0, validator=validators.ge(0), metadata=doc("samples per bin and axis; 0 = adaptive"))
    alignment: Literal["aligned", "unaligned", "v1"] = field(
        default="aligned",
        validator=validators.in_(("aligned", "unaligned", "v1")),
        metadata=doc("aligned: pixel centres at integers; unaligned: their corners; v1: the inclusive boxes of 2019"),
    )
    finest_scale: float = field(
        default=56.0, validator=validators.gt(0), metadata=doc("regions below twice this side use the finest level")
    )
    level_rule: Literal["mmdet", "mmdet-v1", "detectron2", "torchvision"] = field(
        default="mmdet",
        validator=validators.in_(("mmdet", "mmdet-v1", "detectron2", "torchvision")),
        metadata=doc("whose rounding decides a region's level; they differ at the exact borders between levels"),
    )
    mode: Literal["avg", "max"] = field(
        default="avg", validator=validators.in_(("avg", "max")), metadata=doc("how a bin's samples are combined")
    )

    def region_spec(self, inputs: FeatureSpec) -> RegionSpec:
        return pooled_spec(inputs, self.strides, self.size, f"roi_pool {self.type!r}")

    def build(self, inputs: FeatureSpec) -> RoIAlign:
        from det_core.model.roi_pool import RoIAlign

        return RoIAlign(self, inputs)


@frozen(kw_only=True)
class SoftNMSConfig:
    """Soft-NMS (Bodla et al., 2017): overlapping detections lose score instead of going."""

    method: Literal["linear", "gaussian"] = field(
        default="linear",
        validator=validators.in_(("linear", "gaussian")),
        metadata=doc("linear: times 1 - IoU above the NMS threshold; gaussian: exp(-IoU^2 / sigma) always"),
    )
    sigma: float = field(default=0.5, validator=validators.gt(0), metadata=doc("width of the Gaussian"))
    min_score: float = field(
        default=0.05, validator=[validators.ge(0), validators.le(1)], metadata=doc("detections that decay below it go")
    )
