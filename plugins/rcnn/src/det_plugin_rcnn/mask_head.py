"""The mask head (He et al., Mask R-CNN, 2017, figure 4).

Letters: R regions, C channels, h w pooled size, K foreground classes.
"""

from __future__ import annotations

from torch import Tensor, nn

from det_core.contracts import HiddenMaskHead
from det_core.model.layers import kaiming_init, tower
from det_core.specs import RegionSpec
from det_plugin_rcnn.config import ConvMaskHeadConfig


class ConvMaskHead(HiddenMaskHead):
    """3x3 convolutions, a 2x2 transposed convolution with stride 2, a 1x1 convolution to one logit per class."""

    def __init__(self, config: ConvMaskHeadConfig, inputs: RegionSpec, num_classes: int) -> None:
        super().__init__()
        self.num_classes, self.class_agnostic = num_classes, config.class_agnostic
        self.size = (inputs.size[0] * 2, inputs.size[1] * 2)
        width = config.channels
        self.convs = tower(inputs.channels, width, config.num_convs, conv=config.conv, norm=config.norm)
        self.hidden_channels = width if config.num_convs else inputs.channels
        self.upsample = nn.ConvTranspose2d(self.hidden_channels, width, 2, stride=2)
        self.logits = nn.Conv2d(width, 1 if config.class_agnostic else num_classes, 1)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                kaiming_init(module)

    def class_dependent(self) -> tuple[str, ...]:
        return () if self.class_agnostic else ("logits",)

    def hidden(self, regions: Tensor) -> Tensor:
        """(R, C, h, w) to the outputs of the 3x3 convolutions, (R, C', h, w)."""
        hidden: Tensor = self.convs(regions)
        return hidden

    def logits_of(self, hidden: Tensor) -> Tensor:
        """(R, C', h, w) to logits (R, K, 2h, 2w)."""
        logits: Tensor = self.logits(self.upsample(hidden).relu_())
        return logits
