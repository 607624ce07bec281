"""The abstract configuration of each slot.

A *slot* is a place in a detector that a plugin can fill. Each slot has one base class here. A concrete configuration is
a `configclass` derived from it, with a `type` name that is unique in the slot. Nothing here imports torch, so that
configurations can be read, checked and listed without it; `build()` imports the module that it makes.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from det_core.settings import Component, configclass, setting
from det_core.specs import (
    RGB,
    ConvSpec,
    FeatureSpec,
    OnBadSample,
    ParameterRule,
    PixelFormat,
    ProposalLimits,
    RegionSpec,
    Split,
    TrainingLength,
)

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from det_core.contracts import (
        AnchorGenerator,
        Assigner,
        Backbone,
        BoxCoder,
        BoxHead,
        DenseHead,
        DetectionDataset,
        Evaluator,
        Loss,
        MaskHead,
        Neck,
        ProposalHead,
        RoIHead,
        RoIPool,
        Sampler,
        Transform,
        Trunk,
    )


IN_CHANNELS = (
    "channels of the images, as many as `preprocess.mean` has values; if not 3, each channel of a pretrained first "
    "convolution is the mean over RGB, times 3 / in_channels"
)


@configclass
class BackboneConfig(Component):
    """Images `(N, C, H, W)` to feature maps: `feature_spec()`, and `build()` of a `Backbone` with these features.

    Necks and heads are checked and built from the feature spec. Initial weights (ImageNet) are loaded not by `build()`
    but by `Backbone.load_initial_weights`, which only training calls.
    """

    slot: ClassVar[str] = "backbone"

    def input_channels(self) -> int:
        """The channels C of the images that the built module takes."""
        return RGB.channels

    @abstractmethod
    def feature_spec(self) -> FeatureSpec:
        """The features of the built module, computed without torch."""

    @abstractmethod
    def build(self) -> Backbone:
        """The module, with random weights."""


@configclass
class NeckConfig(Component):
    """Feature maps to feature maps: `feature_spec(inputs)`, and `build(inputs)` of a `Neck` with these features.

    `inputs` is the feature spec of the backbone.
    """

    slot: ClassVar[str] = "neck"

    @abstractmethod
    def feature_spec(self, inputs: FeatureSpec) -> FeatureSpec:
        """The features of the built module, computed without torch. ConfigError if it cannot take `inputs`."""

    @abstractmethod
    def build(self, inputs: FeatureSpec) -> Neck:
        """The module, with random weights."""


@configclass
class DenseHeadConfig(Component):
    """A head that works on every location of the feature maps: `build` of a `DenseHead`.

    It is the whole detector but for backbone and neck, or, if it is a `ProposalHeadConfig`, the first stage before a
    RoI head. A head that detects objects should inherit from `det_core.model.detection_config.DetectingHeadConfig`,
    which has the settings that `--score-threshold` and `--max-detections` change.
    """

    slot: ClassVar[str] = "dense_head"

    def anchor_config(self) -> AnchorConfig | None:
        """Its anchors, for reports; None if it has none."""
        return None

    def check(self, features: FeatureSpec) -> None:
        """Raise ConfigError if the head cannot take these features. Does not import torch."""

    @abstractmethod
    def build(self, features: FeatureSpec, num_classes: int) -> DenseHead[Any]:
        """The module, with random weights."""


@configclass
class ProposalHeadConfig(DenseHeadConfig):
    """A dense head that proposes boxes to a RoI head: `build` of a `ProposalHead`.

    Without a RoI head it is a detector of one class, evaluated by the recall of its proposals.
    """

    train_limits: ProposalLimits = setting("proposals that a RoI head trains on", default=ProposalLimits())
    test_limits: ProposalLimits = setting("proposals at test time", default=ProposalLimits(before_nms=1000))

    @abstractmethod
    def build(self, features: FeatureSpec, num_classes: int) -> ProposalHead[Any]:
        """The module, with random weights."""


@configclass
class RoIHeadConfig(Component):
    """A head that works on proposals: `build` of a `RoIHead`, from the features of the neck.

    What training needs besides boxes is asked before data are opened: `needs_masks()`, `semantic_classes()`. A head
    should also inherit from `det_core.model.detection_config.DetectionSettings`, as a dense head that detects does.
    """

    slot: ClassVar[str] = "roi_head"

    def needs_masks(self) -> bool:
        """Whether training needs instance masks."""
        return False

    def semantic_classes(self) -> int:
        """Number n of ids 0..n-1 in the semantic maps that training uses; 0 if it uses none."""
        return 0

    def needs_semantic(self) -> bool:
        """Whether training needs semantic maps (`Targets.semantic`). Inference never does."""
        return self.semantic_classes() > 0

    def check(self, features: FeatureSpec) -> None:
        """Raise ConfigError if the head cannot take these features. Does not import torch."""

    @abstractmethod
    def build(self, features: FeatureSpec, num_classes: int) -> RoIHead:
        """The module, with random weights."""


@configclass
class RoIPoolConfig(Component):
    """Feature maps and RoIs to one small map per RoI: `region_spec(inputs)`, and `build(inputs)` of a `RoIPool`.

    `inputs` is the feature spec of the neck. The heads of a RoI head are built from the region spec.
    """

    slot: ClassVar[str] = "roi_pool"

    @abstractmethod
    def region_spec(self, inputs: FeatureSpec) -> RegionSpec:
        """The regions of the built module, computed without torch. ConfigError if it cannot take `inputs`."""

    @abstractmethod
    def build(self, inputs: FeatureSpec) -> RoIPool:
        """The module, with random weights."""


@configclass
class TrunkConfig(Component):
    """A stage that the branches of a RoI head share (res5 of C4 models), between RoI pooling and the heads.

    `build(inputs)` gives a `Trunk` with the regions of `region_spec(inputs)`.
    """

    slot: ClassVar[str] = "trunk"

    @abstractmethod
    def region_spec(self, inputs: RegionSpec) -> RegionSpec:
        """The regions of the built module, computed without torch."""

    @abstractmethod
    def build(self, inputs: RegionSpec) -> Trunk:
        """The module, with random weights."""


@configclass
class BoxHeadConfig(Component):
    """Pooled regions to class scores and box deltas: `build` of a `BoxHead`.

    The RoI head assigns, samples, applies the losses, decodes the deltas and suppresses duplicates.
    """

    slot: ClassVar[str] = "box_head"

    @abstractmethod
    def build(self, inputs: RegionSpec, num_classes: int) -> BoxHead:
        """The module, with random weights."""


@configclass
class MaskHeadConfig(Component):
    """Pooled regions to one mask per class: `build` of a `MaskHead`.

    The RoI head crops the targets to the regions, applies the loss, and pastes the masks into the image.
    """

    slot: ClassVar[str] = "mask_head"

    @abstractmethod
    def build(self, inputs: RegionSpec, num_classes: int) -> MaskHead:
        """The module, with random weights."""


@configclass
class NormConfig(Component):
    """A normalisation layer over channels: `build(channels)` of a module from (N, C, H, W) to the same shape."""

    slot: ClassVar[str] = "norm"

    @abstractmethod
    def build(self, channels: int) -> nn.Module:
        """The module, with its initial weights."""


@configclass
class ConvConfig(Component):
    """A 2-d convolution, or a layer that replaces one: `build(spec)` of a module of the shapes of `nn.Conv2d`.

    It takes (N, in_channels, H, W), and gives the size that kernel, stride, padding and dilation of the spec determine.
    """

    slot: ClassVar[str] = "conv"

    @abstractmethod
    def build(self, spec: ConvSpec) -> nn.Module:
        """The module, with random weights."""


@configclass
class LossConfig(Component):
    """A loss: `build()` of a `Loss`, which has the `weight`.

    A head has a setting for each of its losses, and calls it with all elements of a batch. Class losses are given
    logits and labels; box losses (n, 4) deltas twice or, with `decoded`, (n, 4) boxes twice, xyxy in pixels of the
    padded network input.
    """

    slot: ClassVar[str] = "loss"
    decoded: ClassVar[bool] = False

    weight: float = setting("factor on the loss", default=1.0, least=0)

    @abstractmethod
    def build(self) -> Loss:
        """The loss module."""


@configclass
class AnchorConfig(Component):
    """Anchors: reference boxes on a grid. `build(strides)` gives an `AnchorGenerator` for levels of these strides."""

    slot: ClassVar[str] = "anchors"

    @abstractmethod
    def anchors_per_cell(self) -> int:
        """Anchors per cell, for a head that shares its layers over all levels; ConfigError if levels differ."""

    def anchors_per_level(self, levels: int) -> tuple[int, ...]:
        """Anchors per cell of each level; ConfigError if the configuration has another number of levels."""
        return (self.anchors_per_cell(),) * levels

    @abstractmethod
    def build(self, strides: tuple[int, ...]) -> AnchorGenerator:
        """The generator."""


@configclass
class CoderConfig(Component):
    """Boxes to regression targets (deltas) and back: `build()` of a `BoxCoder`."""

    slot: ClassVar[str] = "coder"

    @abstractmethod
    def build(self) -> BoxCoder:
        """The coder."""


@configclass
class AssignerConfig(Component):
    """Assigns candidate boxes (anchors, proposals) to ground-truth boxes or background: `build()` of an `Assigner`."""

    slot: ClassVar[str] = "assigner"

    @abstractmethod
    def build(self) -> Assigner:
        """The assigner."""


@configclass
class SamplerConfig(Component):
    """Selects the assigned candidates that a loss uses: `build()` of a `Sampler`, random in the image's key alone."""

    slot: ClassVar[str] = "sampler"

    @abstractmethod
    def build(self) -> Sampler:
        """The sampler."""


@configclass
class DatasetConfig(Component):
    """A data set: images with annotations. `build` opens and checks one split, as a `DetectionDataset`.

    `data.train` and `data.val` are such configurations; `root` is `data.root`, or what `--data` names. It is opened
    once per process and then sent to loader processes.
    """

    slot: ClassVar[str] = "dataset"

    def has_proposals(self) -> bool | None:
        """Whether samples have proposals; None if this is known only after opening the data set."""
        return None

    def is_there(self, root: str) -> bool:
        """Whether there are data for it below `root`, as far as that is known without opening it."""
        return True

    def with_split(self, split: Split) -> DatasetConfig | None:
        """Another split of the same data; None if it cannot be selected by name."""
        return None

    def with_part(self, low: float, high: float) -> DatasetConfig | None:
        """The same with only the images whose `content_share` is in [low, high); None if it has no such setting."""
        return None

    @abstractmethod
    def build(
        self, root: str, *, masks: bool = False, semantic: bool = False, on_bad_sample: OnBadSample = "error"
    ) -> DetectionDataset:
        """Open the data set. Paths are relative to `root`.

        masks, semantic: load instance masks, semantic maps; DataError if the data set has none. on_bad_sample: raise
        BadSamplesError with all bad images and annotations, or skip them and record them in `skipped`
        (`det_core.data.bad_samples.raise_or_log` does both).
        """


@configclass
class TransformConfig(Component):
    """A transform of a decoded image and its targets: `build()` of a `Transform`.

    `data.train_transforms` and `data.test_transforms` are applied in loader processes, in their order.
    """

    slot: ClassVar[str] = "transform"

    def needs_masks(self) -> bool:
        """Whether samples must have instance masks, even for a detector that does not train on them."""
        return False

    def mixes(self) -> bool:
        """Whether it mixes samples (`MixingTransform`), which only training allows."""
        return False

    def refusal(self, pixels: PixelFormat) -> str:
        """Why it cannot transform images of a format, or "". A transform takes 8-bit RGB images unless it says more."""
        return "" if pixels == RGB else f"takes only {RGB}"

    @abstractmethod
    def build(self) -> Transform:
        """The transform."""


@configclass
class EvaluatorConfig(Component):
    """A metric over a data set's detections: `build(dataset)` of an `Evaluator`.

    `evaluation.evaluators` are built once per evaluation on every rank. `evaluation.best` is one of their metrics.
    """

    slot: ClassVar[str] = "evaluator"

    def needs_masks(self) -> bool:
        """Whether the ground truth must have instance masks."""
        return False

    def metric_names(self) -> tuple[str, ...] | None:
        """The names of its metrics, to check names when a recipe is loaded; None if they are known only later."""
        return None

    @abstractmethod
    def build(self, dataset: DetectionDataset) -> Evaluator:
        """The evaluator for a data set; DataError if the data set lacks what it requires."""


@configclass
class OptimizerConfig(Component):
    """An optimiser, its learning rate, and the parameters that are trained in another way than the rest."""

    slot: ClassVar[str] = "optimizer"

    lr: float = setting("learning rate for a total batch of `lr_batch` images", default=0.02, above=0)
    lr_batch: int = setting(
        "total batch that `lr` is for; `lr` is scaled to the actual total batch; 0: do not scale", default=16, least=0
    )
    weight_decay: float = setting("weight decay of all parameters", default=1e-4, least=0)
    norm_weight_decay: float | None = setting(
        "weight decay of the parameters of norms; null: as of all others", default=None, least=0
    )
    bias_weight_decay: float | None = setting(
        "weight decay of biases other than those of norms; null: as of all others", default=None, least=0
    )
    layer_decay: float | None = setting(
        "factor on the learning rate from each layer of the backbone to the one before it, so that the last layer has "
        "this factor, and the first its highest power; null: none",
        default=None,
        above=0,
        most=1,
    )
    rules: tuple[ParameterRule, ...] = setting("changes for parameters by name", default=())

    @abstractmethod
    def build(self, groups: list[dict[str, Any]]) -> Optimizer:
        """The optimiser of these parameter groups, each with its `params`, `lr` and `weight_decay`.

        The learning rate of every group is set before each step.
        """


@configclass
class LearningRateConfig(Component):
    """A schedule of the learning rate: a factor on the optimiser's rate, as a function of the step.

    It has no state, so a resumed run needs none. Warm-up multiplies it (`schedule.warmup_steps`).
    """

    slot: ClassVar[str] = "learning_rate"
    warms_up: ClassVar[bool] = False  # whether it begins with a warm-up of its own

    @abstractmethod
    def factor(self, step: int, length: TrainingLength) -> float:
        """The factor of 0-based step `step`, at least 0."""


SLOTS: dict[str, type[Component]] = {base.slot: base for base in Component.__subclasses__()}
