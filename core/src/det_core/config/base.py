"""What every configuration is made of: slots, the specs that travel between parts, and errors.

A *slot* is a place in a detector that a plugin can fill: each slot has one base class here, and a concrete
configuration is a frozen attrs class below it with a `type` name that is unique in the slot. This module imports
attrs alone, so configurations can be read, checked and listed without torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

from attrs import field, frozen, validators

if TYPE_CHECKING:
    from torch import nn

    from det_core.boxes.anchors import AnchorGenerator
    from det_core.boxes.assign import Assigner
    from det_core.boxes.coder import BoxCoder
    from det_core.boxes.sample import Sampler
    from det_core.data.dataset import DetectionDataset
    from det_core.data.transforms import Transform
    from det_core.evaluation.base import Evaluator
    from det_core.model.contracts import (
        Backbone,
        BoxHead,
        DenseHead,
        MaskHead,
        Neck,
        ProposalHead,
        RoIHead,
        RoIPool,
        Trunk,
    )
    from det_core.model.losses import Loss


def doc(text: str) -> dict[str, str]:
    """Metadata that documents a field: shown by `recipes schema` and in error messages."""
    return {"doc": text}


@frozen
class Problem:
    """One mistake in a configuration: where it is (`detector.roi_head.box_head.num_convs`) and what is wrong."""

    path: str
    message: str

    def under(self, parent: str) -> Problem:
        """The same problem, seen from one level up."""
        if not parent or not self.path or self.path.startswith("["):
            return Problem(f"{parent}{self.path}", self.message)
        return Problem(f"{parent}.{self.path}", self.message)

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class DetError(Exception):
    """A mistake of the user's (input, data, environment): shown without a traceback by the command line."""


class ConfigError(DetError, ValueError):
    """A configuration is wrong; `problems` lists every mistake that was found in it."""

    def __init__(self, problems: Iterable[Problem], source: str = "") -> None:
        self.problems = tuple(problems)
        self.source = source
        super().__init__(self.problems, source)

    @classmethod
    def at(cls, path: str, message: str, source: str = "") -> ConfigError:
        """The error of one problem; an empty path is the place where the error is caught and placed."""
        return cls([Problem(path, message)], source)

    def __str__(self) -> str:
        lines = [str(p) for p in self.problems]
        if self.source:
            count = f"{len(lines)} problem{'s' if len(lines) != 1 else ''}"
            return f"{self.source}: {count}\n" + "\n".join(f"  {line}" for line in lines)
        return "\n".join(lines)


def _as_tuple(values: Iterable[int]) -> tuple[int, ...]:
    return tuple(values)


@frozen(kw_only=True)
class FeatureSpec:
    """The feature maps a backbone or neck hands on: channels and strides (in input pixels), finest level first."""

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


@frozen(kw_only=True)
class RegionSpec:
    """What RoI pooling or a trunk hands on for every RoI: channels and size `(height, width)`."""

    channels: int
    size: tuple[int, int]


@frozen(kw_only=True)
class ProposalLimits:
    """How many proposals a proposal head keeps."""

    before_nms: int = field(default=2000, validator=validators.ge(1), metadata=doc("best per level that enter NMS"))
    after_nms: int = field(default=1000, validator=validators.ge(1), metadata=doc("best per image that leave NMS"))


@frozen(kw_only=True)
class Component:
    """Base of all that a config names by `type`. Subclasses of a slot set `type`, a name unique in the slot."""

    slot: ClassVar[str] = ""
    type: ClassVar[str] = ""


@frozen(kw_only=True)
class BackboneConfig(Component):
    """Images `(N, 3, H, W)` to feature maps."""

    slot: ClassVar[str] = "backbone"

    def feature_spec(self) -> FeatureSpec:
        """What the built module hands on; pure, without torch."""
        raise NotImplementedError(f"{type(self).__name__} defines no feature_spec()")

    def build(self) -> Backbone:
        raise NotImplementedError(f"{type(self).__name__} defines no build()")


@frozen(kw_only=True)
class NeckConfig(Component):
    """Feature maps to feature maps."""

    slot: ClassVar[str] = "neck"

    def feature_spec(self, inputs: FeatureSpec) -> FeatureSpec:
        """What the built module hands on; pure, without torch. ConfigError if it cannot take `inputs`."""
        raise NotImplementedError(f"{type(self).__name__} defines no feature_spec()")

    def build(self, inputs: FeatureSpec) -> Neck:
        raise NotImplementedError(f"{type(self).__name__} defines no build()")


@frozen(kw_only=True)
class DenseHeadConfig(Component):
    """A head that works on every location of the feature maps."""

    slot: ClassVar[str] = "dense_head"

    def check(self, features: FeatureSpec) -> None:
        """ConfigError if the head cannot take these features; pure, without torch."""

    def build(self, features: FeatureSpec, num_classes: int) -> DenseHead:
        raise NotImplementedError(f"{type(self).__name__} defines no build()")


@frozen(kw_only=True)
class ProposalHeadConfig(DenseHeadConfig):
    """A dense head that proposes boxes to a RoI head."""

    train_limits: ProposalLimits = field(default=ProposalLimits(), metadata=doc("proposals that a RoI head trains on"))
    test_limits: ProposalLimits = field(default=ProposalLimits(before_nms=1000), metadata=doc("proposals at test time"))

    def build(self, features: FeatureSpec, num_classes: int) -> ProposalHead:
        raise NotImplementedError(f"{type(self).__name__} defines no build()")


@frozen(kw_only=True)
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

    def build(self, features: FeatureSpec, num_classes: int) -> RoIHead:
        raise NotImplementedError(f"{type(self).__name__} defines no build()")


@frozen(kw_only=True)
class RoIPoolConfig(Component):
    """Feature maps and RoIs to one small map per RoI."""

    slot: ClassVar[str] = "roi_pool"

    def region_spec(self, inputs: FeatureSpec) -> RegionSpec:
        """What the built module hands on; pure, without torch. ConfigError if it cannot take `inputs`."""
        raise NotImplementedError(f"{type(self).__name__} defines no region_spec()")

    def build(self, inputs: FeatureSpec) -> RoIPool:
        raise NotImplementedError(f"{type(self).__name__} defines no build()")


@frozen(kw_only=True)
class TrunkConfig(Component):
    """A stage that a RoI head's branches share (res5 of C4 models)."""

    slot: ClassVar[str] = "trunk"

    def region_spec(self, inputs: RegionSpec) -> RegionSpec:
        """What the built module hands on; pure, without torch."""
        raise NotImplementedError(f"{type(self).__name__} defines no region_spec()")

    def build(self, inputs: RegionSpec) -> Trunk:
        raise NotImplementedError(f"{type(self).__name__} defines no build()")


@frozen(kw_only=True)
class BoxHeadConfig(Component):
    """Pooled regions to class scores and box deltas."""

    slot: ClassVar[str] = "box_head"

    def build(self, inputs: RegionSpec, num_classes: int) -> BoxHead:
        raise NotImplementedError(f"{type(self).__name__} defines no build()")


@frozen(kw_only=True)
class MaskHeadConfig(Component):
    """Pooled regions to one mask per class."""

    slot: ClassVar[str] = "mask_head"

    def build(self, inputs: RegionSpec, num_classes: int) -> MaskHead:
        raise NotImplementedError(f"{type(self).__name__} defines no build()")


@frozen(kw_only=True)
class NormConfig(Component):
    """A normalisation layer over channels."""

    slot: ClassVar[str] = "norm"

    def build(self, channels: int) -> nn.Module:
        raise NotImplementedError(f"{type(self).__name__} defines no build()")


@frozen(kw_only=True)
class ConvConfig(Component):
    """A 2-d convolution, or what stands in for one."""

    slot: ClassVar[str] = "conv"

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
        raise NotImplementedError(f"{type(self).__name__} defines no build()")


@frozen(kw_only=True)
class LossConfig(Component):
    """A loss. `decoded` says whether a box loss compares boxes rather than deltas."""

    slot: ClassVar[str] = "loss"
    decoded: ClassVar[bool] = False

    weight: float = field(default=1.0, validator=validators.ge(0), metadata=doc("factor on the loss"))

    def build(self) -> Loss:
        raise NotImplementedError(f"{type(self).__name__} defines no build()")


@frozen(kw_only=True)
class AnchorConfig(Component):
    """Reference boxes on a grid."""

    slot: ClassVar[str] = "anchors"

    def anchors_per_cell(self) -> int:
        """How many at every cell; ConfigError where levels differ, for a head that shares its layers over levels."""
        raise NotImplementedError(f"{type(self).__name__} defines no anchors_per_cell()")

    def anchors_per_level(self, levels: int) -> tuple[int, ...]:
        """How many at every cell of each level; ConfigError for a number of levels that it has no anchors for."""
        return (self.anchors_per_cell(),) * levels

    def build(self, strides: tuple[int, ...]) -> AnchorGenerator:
        raise NotImplementedError(f"{type(self).__name__} defines no build()")


@frozen(kw_only=True)
class CoderConfig(Component):
    """Boxes to regression targets and back."""

    slot: ClassVar[str] = "coder"

    def build(self) -> BoxCoder:
        raise NotImplementedError(f"{type(self).__name__} defines no build()")


@frozen(kw_only=True)
class AssignerConfig(Component):
    """Which ground-truth box, or background, a candidate box stands for."""

    slot: ClassVar[str] = "assigner"

    def build(self) -> Assigner:
        raise NotImplementedError(f"{type(self).__name__} defines no build()")


@frozen(kw_only=True)
class SamplerConfig(Component):
    """Which of the assigned candidates a loss looks at."""

    slot: ClassVar[str] = "sampler"

    def build(self) -> Sampler:
        raise NotImplementedError(f"{type(self).__name__} defines no build()")


@frozen(kw_only=True)
class DatasetConfig(Component):
    """A data set: images with annotations."""

    slot: ClassVar[str] = "dataset"

    def build(
        self, root: str, *, masks: bool = False, semantic: bool = False, on_bad_sample: str = "error"
    ) -> DetectionDataset:
        """Open the data set; relative paths are below `root`.

        `masks` asks for instance masks, `semantic` for semantic maps; DataError where it cannot bring what is asked.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no build()")


@frozen(kw_only=True)
class TransformConfig(Component):
    """One step from a decoded image with its targets to a network input."""

    slot: ClassVar[str] = "transform"

    def build(self) -> Transform:
        raise NotImplementedError(f"{type(self).__name__} defines no build()")


@frozen(kw_only=True)
class EvaluatorConfig(Component):
    """A metric over a data set's detections."""

    slot: ClassVar[str] = "evaluator"

    def needs_masks(self) -> bool:
        """Whether the ground truth must have instance masks."""
        return False

    def metric_names(self) -> tuple[str, ...] | None:
        """The metrics it gives, so that a misspelled one is refused at load; None = known only once measured."""
        return None

    def build(self, dataset: DetectionDataset) -> Evaluator:
        raise NotImplementedError(f"{type(self).__name__} defines no build()")


SLOTS: dict[str, type[Component]] = {
    base.slot: base
    for base in (
        BackboneConfig,
        NeckConfig,
        DenseHeadConfig,
        RoIHeadConfig,
        RoIPoolConfig,
        TrunkConfig,
        BoxHeadConfig,
        MaskHeadConfig,
        NormConfig,
        ConvConfig,
        LossConfig,
        AnchorConfig,
        CoderConfig,
        AssignerConfig,
        SamplerConfig,
        DatasetConfig,
        TransformConfig,
        EvaluatorConfig,
    )
}
