"""A stage of ResNet on pooled regions: the trunk of the C4 models (Ren et al., Faster R-CNN, 2015; He et al., 2016).

Letters: R regions, C channels, h w region size.
"""

from __future__ import annotations

from torch import Tensor, nn

from det_core.contracts import Trunk
from det_core.specs import RegionSpec
from det_core.weights.initial_weights import load_initial
from det_plugin_resnet.blocks import initialise, make_stage
from det_plugin_resnet.config import ResNetStageConfig


class ResNetStage(Trunk):
    """Stage 1..4 of a ResNet, named `layer<number>` as in the backbone."""

    def __init__(self, config: ResNetStageConfig, inputs: RegionSpec) -> None:
        super().__init__()
        self.config = config
        self.out = config.region_spec(inputs)
        self.name = f"layer{config.number}"
        self.add_module(self.name, make_stage(config.number, config.stride, config))
        initialise(self, config.zero_init_residual)

    def load_initial_weights(self) -> None:
        """Load this stage from the weights of a whole ResNet, if the configuration names them."""
        if self.config.pretrained is not None:
            load_initial(self, self.config.pretrained, only=f"{self.name}.")

    def forward(self, regions: Tensor) -> Tensor:
        """(R, C, h, w) to (R, C', h / stride, w / stride)."""
        stage: nn.Module = self.get_submodule(self.name)
        result: Tensor = stage(regions)
        return result
