"""MobileNetV3 (Howard et al., Searching for MobileNetV3, 2019, section 5), of torchvision's modules.

Letters: N images, H W input size, I channels of images, C of a map. Layers have torchvision's names.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn
from torchvision.models import mobilenet_v3_large, mobilenet_v3_small
from torchvision.models.mobilenetv3 import InvertedResidual
from torchvision.ops import Conv2dNormActivation

from det_core.contracts import Backbone
from det_core.model.fold_batch_norm import conv_norm
from det_core.model.layers import init_convs, kaiming_init, normal_init
from det_core.specs import RGB
from det_core.weights.initial_weights import load_initial
from det_plugin_mobilenet.config import LAST_STAGE, MobileNetV3Config

FIRST = "features.0.0.weight"
NETWORKS = {"large": mobilenet_v3_large, "small": mobilenet_v3_small}


class MobileNetV3(Backbone):
    """The first convolution, blocks of inverted residuals, and the last convolution. Returns maps of `config.stages`.

    `features` is torchvision's module up to the last layer that is needed.
    """

    def __init__(self, config: MobileNetV3Config) -> None:
        super().__init__()
        self.config = config
        self.out = config.feature_spec()
        network = NETWORKS[config.size](weights=None, norm_layer=config.norm.build, reduced_tail=config.reduced_tail)
        if config.in_channels != RGB.channels:
            stem = network.features[0][0]  # torchvision has no setting for it
            conv = nn.Conv2d(config.in_channels, stem.out_channels, 3, stride=2, padding=1, bias=False)
            network.features[0][0] = conv
            kaiming_init(conv)
        self.places = [self._place(stage) for stage in config.stages]
        self.features: nn.Sequential = network.features[: self.places[-1] + 1]
        self.expanded = config.taken == "expanded"
        if self.expanded and config.stages[-1] != LAST_STAGE:
            last = self.features[-1]
            last.block = last.block[:1]  # the rest of the block is not needed
        if config.initial == "small":
            init_convs(self.features, lambda conv: normal_init(conv, 0.03))
        for module in self._frozen():
            module.requires_grad_(False)

    def _place(self, stage: int) -> int:
        """The index in `features` of the block that a stage's map is taken after, or in."""
        starts = self.config.layout.starts
        if self.config.taken == "last" and stage != LAST_STAGE:
            return starts[stage] - 1
        return starts[stage - 1]

    def _frozen(self) -> list[nn.Module]:
        """The blocks whose parameters and norm statistics are frozen."""
        stages, starts = self.config.frozen_stages, self.config.layout.starts
        if stages < 0:
            return []
        return list(self.features)[: None if stages == LAST_STAGE else starts[stages]]

    def train(self, mode: bool = True) -> MobileNetV3:
        super().train(mode)
        for module in self._frozen():
            module.eval()
        return self

    def load_initial_weights(self) -> None:
        if self.config.pretrained is None:
            return
        total = self.config.layout.starts[-1] + 1
        unbuilt = tuple(f"features.{number}." for number in range(len(self.features), total))
        partial = self.expanded and self.config.stages[-1] != LAST_STAGE
        rest = tuple(f"features.{self.places[-1]}.block.{number}." for number in range(1, 4)) if partial else ()
        load_initial(self, self.config.pretrained, ignore=("classifier.", *unbuilt, *rest), first=FIRST)

    def layers(self) -> list[tuple[str, ...]]:
        """A layer for each block, and for the first and last convolution."""
        return [(f"features.{number}",) for number in range(len(self.features))]

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, I, H, W) to one map (N, C, H / stride, W / stride) per stage in `config.stages`, sides rounded up."""
        maps, x = [], images
        for number, layer in enumerate(self.features):
            taken = number in self.places
            if taken and self.expanded and isinstance(layer, InvertedResidual):
                expand, *rest = layer.block  # a block of stride 2 has no shortcut
                maps.append(_fused(expand, x))
                x = _in_turn(rest, maps[-1])
            else:
                x = _run(layer, x)
                if taken:
                    maps.append(x)
        return maps


def _run(layer: nn.Module, x: Tensor) -> Tensor:
    """A block, or the first or last convolution: (N, C, H, W) to (N, C', H', W')."""
    if not isinstance(layer, InvertedResidual):
        return _fused(layer, x)
    out = _in_turn(layer.block, x)
    return out + x if layer.use_res_connect else out


def _in_turn(parts: Iterable[nn.Module], x: Tensor) -> Tensor:
    """The parts of a block, one after the other: (N, C, H, W) to (N, C', H', W')."""
    for part in parts:
        x = _fused(part, x)
    return x


def _fused(part: nn.Module, x: Tensor) -> Tensor:
    """A convolution with its norm, folded where it can be, and its activation; other parts as they are."""
    if not isinstance(part, Conv2dNormActivation):
        result: Tensor = part(x)
        return result
    conv, norm, *activation = part
    x = conv_norm(conv, norm, x)
    return activation[0](x) if activation else x
