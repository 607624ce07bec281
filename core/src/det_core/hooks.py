"""Core as a plugin: its losses, layers, anchors and samplers, data sets, transforms, metrics and commands."""

from __future__ import annotations

from det_core.boxes.box_config import (
    AllSamplerConfig,
    DeltaCoderConfig,
    GridAnchorsConfig,
    MaxIoUAssignerConfig,
    RandomSamplerConfig,
)
from det_core.cli.verbs import COMMANDS
from det_core.data.augmentation_config import (
    AffineConfig,
    CopyPasteConfig,
    FixedSizeCropConfig,
    MixUpConfig,
    MosaicConfig,
    RandomCropConfig,
    ScaleJitterConfig,
)
from det_core.data.data_config import CocoConfig, ColorJitterConfig, FlipConfig, ResizeConfig, SampleConfig, VocConfig
from det_core.data.files_config import JoinedConfig, LabelmeConfig, YoloConfig
from det_core.data.v2_config import GaussianBlurConfig, GrayscaleConfig, JPEGConfig, V2Config
from det_core.evaluation.metric_config import CocoEvaluatorConfig, VocEvaluatorConfig
from det_core.hookspecs import provides
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
from det_core.optim.learning_rate_config import (
    ConstantRateConfig,
    CosineRateConfig,
    OneCycleRateConfig,
    PolynomialRateConfig,
    StepRateConfig,
)
from det_core.optim.optimizer_config import AdamWConfig, SGDConfig

det_losses = provides(
    CrossEntropyConfig,
    BinaryCrossEntropyConfig,
    FocalConfig,
    L1Config,
    SmoothL1Config,
    BoundedIoUConfig,
    GIoUConfig,
)
det_layers = provides(BatchNormConfig, FrozenBatchNormConfig, GroupNormConfig, Conv2dConfig, RoIAlignConfig)
det_targets = provides(GridAnchorsConfig, DeltaCoderConfig, MaxIoUAssignerConfig, RandomSamplerConfig, AllSamplerConfig)
det_datasets = provides(CocoConfig, VocConfig, YoloConfig, LabelmeConfig, JoinedConfig, SampleConfig)
det_transforms = provides(
    ResizeConfig,
    FlipConfig,
    ColorJitterConfig,
    ScaleJitterConfig,
    FixedSizeCropConfig,
    RandomCropConfig,
    AffineConfig,
    CopyPasteConfig,
    MosaicConfig,
    MixUpConfig,
    GrayscaleConfig,
    GaussianBlurConfig,
    JPEGConfig,
    V2Config,
)
det_evaluators = provides(CocoEvaluatorConfig, VocEvaluatorConfig)
det_optimizers = provides(SGDConfig, AdamWConfig)
det_schedules = provides(StepRateConfig, ConstantRateConfig, CosineRateConfig, PolynomialRateConfig, OneCycleRateConfig)
det_commands = provides(*COMMANDS)
