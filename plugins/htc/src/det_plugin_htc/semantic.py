"""The semantic branch (Chen et al., Hybrid Task Cascade, 2019, section 3.3).

Letters: N images, L levels, C channels, K semantic classes, h w size of the branch's map, H W padded input size,
R regions, S side of a pooled region.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen
from torch import Tensor, nn
from torch.nn import functional as F

from det_core.model.layers import ConvNorm, init_convs, kaiming_init, to_rois, tower
from det_core.specs import FeatureSpec
from det_core.structures import UNLABELLED, LossTerm, Targets, full_precision, semantic_batch
from det_plugin_htc.config import SemanticBranchConfig


@frozen(eq=False)
class SemanticOutputs:
    """logits: (N, K, h, w). embedding: (N, C, h, w), the map that regions are pooled from."""

    logits: Tensor
    embedding: Tensor


class SemanticBranch(nn.Module):
    """Resizes all levels to one size, sums them, and computes class logits and an embedding for regions."""

    def __init__(self, config: SemanticBranchConfig, features: FeatureSpec) -> None:
        super().__init__()
        self.config = config
        self.level = features.level(config.stride, "semantic branch")
        width = features.same_channels("semantic branch")

        def layer(channels: int) -> ConvNorm:
            return ConvNorm(channels, width, 1, conv=config.conv, norm=config.norm, relu=True)

        self.lateral = nn.ModuleList(layer(channels) for channels in features.channels)
        self.convs = tower(width, width, config.num_convs, conv=config.conv, norm=config.norm)
        self.embedding = layer(width)
        self.logits = nn.Conv2d(width, config.classes, 1)
        init_convs(self, kaiming_init)
        self.roi_pool = config.roi_pool.build(config.map_spec(features))

    def forward(self, features: Sequence[Tensor]) -> SemanticOutputs:
        """L maps to logits and embedding at the configured stride."""
        size = features[self.level].shape[-2:]
        x = self.lateral[self.level](features[self.level])
        for number, feature in enumerate(features):
            if number != self.level:
                resized = F.interpolate(feature, size=size, mode="bilinear", align_corners=True)
                x = x + self.lateral[number](resized)
        x = self.convs(x)
        return SemanticOutputs(self.logits(x), self.embedding(x))

    def losses(self, outputs: SemanticOutputs, targets: Sequence[Targets], padded_size: tuple[int, int]) -> LossTerm:
        """Mean cross entropy over the map's pixels: over all, ignored ones counting as 0, or over the labelled ones.

        ValueError if the targets have no semantic map.
        """
        maps = semantic_batch(targets, padded_size)
        labels = maps[:, :: self.config.stride, :: self.config.stride]  # top-left pixel of each cell
        logits = full_precision(outputs.logits)
        total = F.cross_entropy(logits, labels, ignore_index=UNLABELLED, reduction="sum")
        unused = 0.0 * full_precision(outputs.embedding).sum()  # gives the embedding a gradient if no head uses it
        every = self.config.loss_over == "all"
        count = float(labels.numel()) if every else (labels != UNLABELLED).sum().to(total.dtype)
        return LossTerm(self.config.loss_weight * total + unused, count)

    def regions(self, outputs: SemanticOutputs, boxes: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """(R, C, *size): regions of each image's boxes (n, 4) in order, averaged down if pooled at a larger size."""
        return self.regions_of(outputs, to_rois(list(boxes)), size)

    def regions_of(self, outputs: SemanticOutputs, rois: Tensor, size: tuple[int, int]) -> Tensor:
        """As `regions`, of rois (R, 5)."""
        pooled: Tensor = self.roi_pool([outputs.embedding], rois)
        return pooled if tuple(pooled.shape[-2:]) == size else F.adaptive_avg_pool2d(pooled, size)
