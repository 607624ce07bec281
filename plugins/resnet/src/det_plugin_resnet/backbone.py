"""ResNet (He et al., Deep Residual Learning, 2016), table 1. Layers have torchvision's names.

Letters: N images, H W input size, C channels.
"""

from __future__ import annotations

from torch import Tensor, nn

from det_core.contracts import Backbone
from det_core.model.fold_batch_norm import conv_norm
from det_core.specs import ConvSpec
from det_core.weights.initial_weights import load_initial
from det_plugin_resnet.blocks import initialise, make_stage
from det_plugin_resnet.config import ResNetConfig


class ResNet(Backbone):
    """A stem and up to four stages. Returns the outputs of the stages in `config.stages`."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.config = config
        self.out = config.feature_spec()
        self.conv1 = config.conv.build(ConvSpec(config.in_channels, 64, 7, stride=2, padding=3, bias=False))
        self.bn1 = config.norm.build(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        for stage in range(1, max(config.stages) + 1):
            dilated = config.dilated and stage == 4
            stride = 1 if stage == 1 or dilated else 2
            self.add_module(f"layer{stage}", make_stage(stage, stride, config, dilation=2 if dilated else 1))
        initialise(self, config.zero_init_residual)
        self._freeze()

    def stage(self, number: int) -> nn.Module:
        """Stage 1..4, as `layer<number>`."""
        return self.get_submodule(f"layer{number}")

    def _frozen(self) -> list[nn.Module]:
        """The modules whose parameters and norm statistics are frozen."""
        if self.config.frozen_stages < 0:
            return []
        built = range(1, min(self.config.frozen_stages, max(self.config.stages)) + 1)
        return [self.conv1, self.bn1, *(self.stage(n) for n in built)]

    def _freeze(self) -> None:
        for module in self._frozen():
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> ResNet:
        super().train(mode)
        for module in self._frozen():
            module.eval()
        return self

    def load_initial_weights(self) -> None:
        if self.config.pretrained is not None:
            unbuilt = [f"layer{number}." for number in range(max(self.config.stages) + 1, 5)]
            load_initial(self, self.config.pretrained, ignore=("fc.", *unbuilt), first="conv1.weight")

    def layers(self) -> list[tuple[str, ...]]:
        """The stem, then a layer for each residual block."""
        stages = range(1, max(self.config.stages) + 1)
        blocks = [(f"layer{stage}.{name}",) for stage in stages for name, _ in self.stage(stage).named_children()]
        return [("conv1", "bn1"), *blocks]

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, C, H, W) to one map per stage in `config.stages`, (N, C, H / stride, W / stride)."""
        x = self.maxpool(conv_norm(self.conv1, self.bn1, images, relu=True))
        maps = []
        for number in range(1, max(self.config.stages) + 1):
            x = self.stage(number)(x)
            if number in self.config.stages:
                maps.append(x)
        return maps
