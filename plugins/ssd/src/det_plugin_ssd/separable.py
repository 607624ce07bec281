"""The layers of SSDLite: depthwise and 1x1 convolutions with ReLU6 (Sandler et al., MobileNetV2, 2018, section 6.2).

Letters: N images, C channels, H W size of a level.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from det_core.model.fold_batch_norm import conv_norm
from det_core.model.layer_config import Conv2dConfig
from det_core.model.layers import normal_init
from det_core.slots import ConvConfig, NormConfig
from det_core.specs import ConvSpec


class ConvNormReLU6(nn.Module):
    """Convolution, optional norm, ReLU6."""

    def __init__(self, spec: ConvSpec, conv: ConvConfig, norm: NormConfig | None) -> None:
        super().__init__()
        self.conv = conv.build(spec)
        self.norm = None if norm is None else norm.build(spec.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', H', W')."""
        return F.relu6(conv_norm(self.conv, self.norm, x), inplace=True)


class SeparablePrediction(nn.Module):
    """A depthwise 3x3 convolution with ReLU6, then a 1x1 convolution to the predictions."""

    def __init__(self, channels: int, out: int, norm: NormConfig | None) -> None:
        super().__init__()
        spec = ConvSpec(channels, channels, 3, padding=1, groups=channels, bias=norm is None)
        self.depthwise = ConvNormReLU6(spec, Conv2dConfig(), norm)
        self.predict = nn.Conv2d(channels, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, out, H, W)."""
        return conv_norm(self.predict, None, self.depthwise(x))


def small_init(module: nn.Module) -> None:
    """Initialise weights from N(0, 0.03^2) and a zero bias, in place, as torchvision does for SSDLite."""
    normal_init(module, 0.03)
