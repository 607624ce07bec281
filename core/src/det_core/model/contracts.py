"""What a part of a detector must offer, slot by slot.

Letters: N images, L feature levels, R regions of interest, K foreground classes, C channels, H W padded input size.
Boxes are xyxy float32 or float64 (never half) in pixels of the padded network input. Labels are 0..K-1, K is
background in softmax heads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from attrs import frozen
from torch import Tensor, nn

from det_core.config.base import FeatureSpec, ProposalLimits, RegionSpec
from det_core.structures import Batch, Detections, LossTerm, Targets

Losses = Mapping[str, LossTerm]


class Backbone(nn.Module, ABC):
    """Images to feature maps. `out` equals the configuration's `feature_spec()`."""

    out: FeatureSpec

    @abstractmethod
    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W) to L maps (N, C_l, H / stride_l, W / stride_l), finest first."""

    def load_initial_weights(self) -> None:
        """Load what the configuration names as initial (ImageNet) weights, if anything; called before training."""


class Neck(nn.Module, ABC):
    """Feature maps to feature maps. `out` equals the configuration's `feature_spec(inputs)`."""

    out: FeatureSpec

    @abstractmethod
    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """L_in maps to L_out maps, finest first."""


class Head(nn.Module):
    """What all heads share."""

    def class_dependent(self) -> tuple[str, ...]:
        """Names (below this module) of layers whose shape hangs on the classes: left fresh in fine-tuning."""
        return ()


class DenseHead(Head, ABC):
    """Works on every location of the feature maps. Its outputs are its own affair: `O` below."""

    @abstractmethod
    def forward(self, features: Sequence[Tensor]) -> object:
        """L feature maps to outputs O (a frozen attrs class of its own)."""

    @abstractmethod
    def losses(self, outputs: object, targets: Sequence[Targets], batch: Batch) -> Losses:
        """Loss terms by name; finite, with gradients to all parameters, also where no image has objects."""

    @abstractmethod
    def predict(self, outputs: object, batch: Batch) -> list[Detections]:
        """Detections per image, in original pixels."""


class ProposalHead(DenseHead):
    """A dense head that proposes boxes to a RoI head."""

    train_limits: ProposalLimits
    test_limits: ProposalLimits

    @abstractmethod
    def proposals(self, outputs: object, batch: Batch, limits: ProposalLimits) -> list[Tensor]:
        """Per image (n, 4) detached boxes, best first, n <= limits.after_nms."""


class RoIHead(Head, ABC):
    """Works on proposals."""

    needs_masks: bool = False
    needs_semantic: bool = False

    @abstractmethod
    def losses(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor], targets: Sequence[Targets], batch: Batch
    ) -> Losses:
        """Loss terms by name; finite, with gradients to all parameters, also where no image has objects."""

    @abstractmethod
    def predict(self, features: Sequence[Tensor], proposals: Sequence[Tensor], batch: Batch) -> list[Detections]:
        """Detections per image, in original pixels."""


class RoIPool(nn.Module, ABC):
    """Feature maps and RoIs to one small map per RoI. `out` equals the configuration's `region_spec(inputs)`."""

    out: RegionSpec

    @abstractmethod
    def forward(self, features: Sequence[Tensor], rois: Tensor) -> Tensor:
        """L maps and (R, 5) rois (image index, x1, y1, x2, y2) to (R, C, height, width)."""


class Trunk(nn.Module, ABC):
    """A stage shared by a RoI head's branches. `out` equals the configuration's `region_spec(inputs)`."""

    out: RegionSpec

    def load_initial_weights(self) -> None:
        """Load the weights that the configuration names, if any; called once before training from scratch."""

    @abstractmethod
    def forward(self, regions: Tensor) -> Tensor:
        """(R, C, h, w) to (R, C', h', w')."""


@frozen(eq=False)
class BoxOutputs:
    """scores (R, K+1) logits, background last; deltas (R, 4K), or (R, 4) where regression is class-agnostic."""

    scores: Tensor
    deltas: Tensor


class BoxHead(Head, ABC):
    """Pooled regions to class scores and box deltas."""

    num_classes: int
    class_agnostic: bool = False

    @abstractmethod
    def forward(self, regions: Tensor) -> BoxOutputs:
        """(R, C, h, w) to scores and deltas."""


class MaskHead(Head, ABC):
    """Pooled regions to mask logits. `size` is the (height, width) of its masks."""

    size: tuple[int, int]
    num_classes: int
    class_agnostic: bool = False

    @abstractmethod
    def forward(self, regions: Tensor) -> Tensor:
        """(R, C, h, w) to (R, K, height, width) logits, K = 1 where class-agnostic."""


class HiddenMaskHead(MaskHead):
    """A mask head that shows its features, so that another stage's head can build on them (HTC's information flow)."""

    hidden_channels: int

    @abstractmethod
    def hidden(self, regions: Tensor) -> Tensor:
        """(R, C, h, w) to features (R, hidden_channels, h, w)."""

    @abstractmethod
    def logits_of(self, hidden: Tensor) -> Tensor:
        """Features (R, hidden_channels, h, w) to logits (R, K, height, width)."""

    def forward(self, regions: Tensor) -> Tensor:
        return self.logits_of(self.hidden(regions))
