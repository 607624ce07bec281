"""The box head of Fast R-CNN (Girshick, 2015; Lin et al., FPN, 2017, section 4.2).

Letters: R regions, C channels, h w pooled size, K foreground classes.
"""

from __future__ import annotations

from torch import Tensor, nn

from det_core.contracts import BoxHead, BoxOutputs
from det_core.model.layers import init_convs, kaiming_init, normal_init, tower, xavier_init
from det_core.specs import RegionSpec
from det_plugin_rcnn.config import FCBoxHeadConfig


class FCBoxHead(BoxHead):
    """Convolutions, fully connected layers (without them: average pooling), then scores and deltas."""

    def __init__(self, config: FCBoxHeadConfig, inputs: RegionSpec, num_classes: int) -> None:
        super().__init__()
        self.num_classes, self.class_agnostic = num_classes, config.class_agnostic
        width = config.conv_channels
        self.convs = tower(inputs.channels, width, config.num_convs, conv=config.conv, norm=config.norm)
        channels = width if config.num_convs else inputs.channels
        self.pool_first = config.num_fcs == 0
        if not self.pool_first:
            channels *= inputs.size[0] * inputs.size[1]
        self.fcs = nn.ModuleList()
        for _ in range(config.num_fcs):
            self.fcs.append(nn.Linear(channels, config.fc_channels))
            channels = config.fc_channels
        self.scores = nn.Linear(channels, num_classes + 1)
        self.deltas = nn.Linear(channels, 4 if config.class_agnostic else 4 * num_classes)
        self._initialise()

    def _initialise(self) -> None:
        init_convs(self.convs, kaiming_init)
        for layer in self.fcs:
            xavier_init(layer)
        normal_init(self.scores, 0.01)
        normal_init(self.deltas, 0.001)

    def class_dependent(self) -> tuple[str, ...]:
        return ("scores",) if self.class_agnostic else ("scores", "deltas")

    def forward(self, regions: Tensor) -> BoxOutputs:
        """(R, C, h, w) to scores (R, K+1), background last, and deltas (R, 4K) or (R, 4)."""
        x = self.convs(regions)
        x = x.mean((2, 3)) if self.pool_first else x.flatten(1)
        for layer in self.fcs:
            x = layer(x).relu_()
        return BoxOutputs(self.scores(x), self.deltas(x))
