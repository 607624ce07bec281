"""Core as a plugin: its losses, layers, anchors and samplers, data sets, transforms and metrics."""

from __future__ import annotations

from collections.abc import Sequence

from det_core.boxes.box_config import DeltaCoderConfig, GridAnchorsConfig, MaxIoUAssignerConfig, RandomSamplerConfig
from det_core.data.data_config import CocoConfig, ColorJitterConfig, FlipConfig, ResizeConfig, SampleConfig, VocConfig
from det_core.evaluation.metric_config import CocoEvaluatorConfig, VocEvaluatorConfig
from det_core.hookspecs import hookimpl
from det_core.model.layer_config import (
    BatchNormConfig,
    Conv2dConfig,
    FrozenBatchNormConfig,
    GroupNormConfig,
    RoIAlignConfig,
)
from det_core.model.loss_config import (
    BinaryCrossEntropyConfig,
    BoundedIoUConfig,
    CrossEntropyConfig,
    FocalConfig,
    GIoUConfig,
    L1Config,
    SmoothL1Config,
)
from det_core.settings import Component
from det_core.slots import DatasetConfig, EvaluatorConfig, LossConfig, TransformConfig


@hookimpl
def det_losses() -> Sequence[type[LossConfig]]:
    return [
        CrossEntropyConfig,
        BinaryCrossEntropyConfig,
        FocalConfig,
        L1Config,
        SmoothL1Config,
        BoundedIoUConfig,
        GIoUConfig,
    ]


@hookimpl
def det_layers() -> Sequence[type[Component]]:
    return [BatchNormConfig, FrozenBatchNormConfig, GroupNormConfig, Conv2dConfig, RoIAlignConfig]


@hookimpl
def det_targets() -> Sequence[type[Component]]:
    return [GridAnchorsConfig, DeltaCoderConfig, MaxIoUAssignerConfig, RandomSamplerConfig]


@hookimpl
def det_datasets() -> Sequence[type[DatasetConfig]]:
    return [CocoConfig, VocConfig, SampleConfig]


@hookimpl
def det_transforms() -> Sequence[type[TransformConfig]]:
    return [ResizeConfig, FlipConfig, ColorJitterConfig]


@hookimpl
def det_evaluators() -> Sequence[type[EvaluatorConfig]]:
    return [CocoEvaluatorConfig, VocEvaluatorConfig]
