"""What a configuration can name by `type`: the abstract configuration of each slot, and what it must offer.

A *slot* is a place in a detector that a plugin can fill: each slot has one base class here, and a concrete
configuration is a `configclass` below it with a `type` name that is unique in the slot. Nothing here imports torch, so
configurations can be read, checked and listed without it; `build()` imports the module that it makes.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from det_core.settings import Component, configclass, setting
from det_core.specs import ConvSpec, FeatureSpec, ProposalLimits, RegionSpec

if TYPE_CHECKING:
    from torch import nn

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


@configclass
class BackboneConfig(Component):
    """Images `(N, 3, H, W)` to feature maps."""

    slot: ClassVar[str] = "backbone"

    @abstractmethod
    def feature_spec(self) -> FeatureSpec:
        """What the built module gives; pure, without torch."""

    @abstractmethod
    def build(self) -> Backbone:
        """The module, with fresh weights."""


@configclass
class NeckConfig(Component):
    """Feature maps to feature maps."""

    slot: ClassVar[str] = "neck"

    @abstractmethod
    def feature_spec(self, inputs: FeatureSpec) -> FeatureSpec:
        """What the built module gives; pure, without torch. ConfigError if it cannot take `inputs`."""

    @abstractmethod
    def build(self, inputs: FeatureSpec) -> Neck:
        """The module, with fresh weights."""


@configclass
class DenseHeadConfig(Component):
    """A head that works on every location of the feature maps."""

    slot: ClassVar[str] = "dense_head"

    def anchor_config(self) -> AnchorConfig | None:
        """Its reference boxes, for reports; None where it has none."""
        return None

    def check(self, features: FeatureSpec) -> None:
        """ConfigError if the head cannot take these features; pure, without torch."""

    @abstractmethod
    def build(self, features: FeatureSpec, num_classes: int) -> DenseHead[Any]:
        """The module, with fresh weights."""


@configclass
class ProposalHeadConfig(DenseHeadConfig):
    """A dense head that proposes boxes to a RoI head."""

    train_limits: ProposalLimits = setting("proposals that a RoI head trains on", default=ProposalLimits())
    test_limits: ProposalLimits = setting("proposals at test time", default=ProposalLimits(before_nms=1000))

    @abstractmethod
    def build(self, features: FeatureSpec, num_classes: int) -> ProposalHead[Any]:
        """The module, with fresh weights."""


@configclass
class RoIHeadConfig(Component):
    """A head that works on proposals."""

    slot: ClassVar[str] = "roi_head"

    def needs_masks(self) -> bool:
        """Whether training needs instance masks."""
        return False

    def semantic_classes(self) -> int:
        """How many ids of semantic maps training tells apart (0..n-1); 0 where it takes no maps."""
        return 0

    def needs_semantic(self) -> bool:
        """Whether training needs semantic maps (`Targets.semantic`); tests never do."""
        return self.semantic_classes() > 0

    def check(self, features: FeatureSpec) -> None:
        """ConfigError if the head cannot take these features; pure, without torch."""

    @abstractmethod
    def build(self, features: FeatureSpec, num_classes: int) -> RoIHead:
        """The module, with fresh weights."""


@configclass
class RoIPoolConfig(Component):
    """Feature maps and RoIs to one small map per RoI."""

    slot: ClassVar[str] = "roi_pool"

    @abstractmethod
    def region_spec(self, inputs: FeatureSpec) -> RegionSpec:
        """What the built module gives; pure, without torch. ConfigError if it cannot take `inputs`."""

    @abstractmethod
    def build(self, inputs: FeatureSpec) -> RoIPool:
        """The module, with fresh weights."""


@configclass
class TrunkConfig(Component):
    """A stage that a RoI head's branches share (res5 of C4 models)."""

    slot: ClassVar[str] = "trunk"

    @abstractmethod
    def region_spec(self, inputs: RegionSpec) -> RegionSpec:
        """What the built module gives; pure, without torch."""

    @abstractmethod
    def build(self, inputs: RegionSpec) -> Trunk:
        """The module, with fresh weights."""


@configclass
class BoxHeadConfig(Component):
    """Pooled regions to class scores and box deltas."""

    slot: ClassVar[str] = "box_head"

    @abstractmethod
    def build(self, inputs: RegionSpec, num_classes: int) -> BoxHead:
        """The module, with fresh weights."""


@configclass
class MaskHeadConfig(Component):
    """Pooled regions to one mask per class."""

    slot: ClassVar[str] = "mask_head"

    @abstractmethod
    def build(self, inputs: RegionSpec, num_classes: int) -> MaskHead:
        """The module, with fresh weights."""


@configclass
class NormConfig(Component):
    """A normalisation layer over channels."""

    slot: ClassVar[str] = "norm"

    @abstractmethod
    def build(self, channels: int) -> nn.Module:
        """The module, with fresh weights."""


@configclass
class ConvConfig(Component):
    """A 2-d convolution, or what stands in for one."""

    slot: ClassVar[str] = "conv"

    @abstractmethod
    def build(self, spec: ConvSpec) -> nn.Module:
        """The module, with fresh weights."""


@configclass
class LossConfig(Component):
    """A loss. `decoded` says whether a box loss compares boxes rather than deltas."""

    slot: ClassVar[str] = "loss"
    decoded: ClassVar[bool] = False

    weight: float = setting("factor on the loss", default=1.0, least=0)

    @abstractmethod
    def build(self) -> Loss:
        """The module, with fresh weights."""


@configclass
class AnchorConfig(Component):
    """Reference boxes on a grid."""

    slot: ClassVar[str] = "anchors"

    @abstractmethod
    def anchors_per_cell(self) -> int:
        """How many at every cell; ConfigError where levels differ, for a head that shares its layers over levels."""

    def anchors_per_level(self, levels: int) -> tuple[int, ...]:
        """How many at every cell of each level; ConfigError for a number of levels that it has no anchors for."""
        return (self.anchors_per_cell(),) * levels

    @abstractmethod
    def build(self, strides: tuple[int, ...]) -> AnchorGenerator:
        """What the configuration describes."""


@configclass
class CoderConfig(Component):
    """Boxes to regression targets and back."""

    slot: ClassVar[str] = "coder"

    @abstractmethod
    def build(self) -> BoxCoder:
        """What the configuration describes."""


@configclass
class AssignerConfig(Component):
    """Which ground-truth box, or background, a candidate box stands for."""

    slot: ClassVar[str] = "assigner"

    @abstractmethod
    def build(self) -> Assigner:
        """What the configuration describes."""


@configclass
class SamplerConfig(Component):
    """Which of the assigned candidates a loss looks at."""

    slot: ClassVar[str] = "sampler"

    @abstractmethod
    def build(self) -> Sampler:
        """What the configuration describes."""


@configclass
class DatasetConfig(Component):
    """A data set: images with annotations."""

    slot: ClassVar[str] = "dataset"

    def has_proposals(self) -> bool | None:
        """Whether samples carry proposals; None if only opening the data set shows it."""
        return None

    @abstractmethod
    def build(
        self, root: str, *, masks: bool = False, semantic: bool = False, on_bad_sample: str = "error"
    ) -> DetectionDataset:
        """Open the data set; relative paths are below `root`.

        `masks` asks for instance masks, `semantic` for semantic maps; DataError where it cannot bring what is asked.
        """


@configclass
class TransformConfig(Component):
    """One step from a decoded image with its targets to a network input."""

    slot: ClassVar[str] = "transform"

    @abstractmethod
    def build(self) -> Transform:
        """The step, ready to be applied."""


@configclass
class EvaluatorConfig(Component):
    """A metric over a data set's detections."""

    slot: ClassVar[str] = "evaluator"

    def needs_masks(self) -> bool:
        """Whether the ground truth must have instance masks."""
        return False

    def metric_names(self) -> tuple[str, ...] | None:
        """The metrics it gives, so that a misspelled one is refused at load; None = known only once measured."""
        return None

    @abstractmethod
    def build(self, dataset: DetectionDataset) -> Evaluator:
        """The evaluator for a data set; DataError where the data set lacks what it measures."""


SLOTS: dict[str, type[Component]] = {base.slot: base for base in Component.__subclasses__()}
