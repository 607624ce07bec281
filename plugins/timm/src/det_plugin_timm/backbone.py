"""timm's networks as backbones.

Letters: N images, C channels, H W input size, H' W' input size padded to multiples of `unit`.
"""

from __future__ import annotations

from typing import Any

from timm.models import group_parameters
from torch import Tensor, nn
from torch.nn import functional as F

from det_core.contracts import Backbone
from det_core.errors import ConfigError, counted
from det_plugin_timm.config import TimmConfig
from det_plugin_timm.initial_weights import load_timm
from det_plugin_timm.networks import Network, create_network, indices_of, take_maps
from det_plugin_timm.simple_pyramid import ChannelNorm, SimplePyramid
from det_plugin_timm.window_block import with_whole_windows

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class TimmBackbone(Backbone):
    """A network of timm up to the last layer that is needed, as `body`, with timm's names of parameters.

    The last norm of plain networks (ViTs) belongs to it. `pyramid` and `out_norms` follow, where the configuration has
    them. Images are padded to multiples of `unit` at the right and bottom, and the maps cut accordingly.
    """

    def __init__(self, config: TimmConfig) -> None:
        super().__init__()
        self.config = config
        self.out = config.feature_spec()
        model = config.model
        self.plain = model.plain
        self.body: Network = create_network(
            config.name, in_channels=config.in_channels, drop_path_rate=config.drop_path_rate
        )
        with_whole_windows(self.body)
        indices = indices_of(self.body)
        wanted = [max(indices.values())] if self.plain else [indices[stride] for stride in self.out.strides]
        self.unit = self.out.strides[-1] if model.multiple == 1 else max(indices) * model.multiple
        self.indices: list[int] = self.body.prune_intermediate_layers(wanted, prune_norm=not self.plain)
        self.pyramid: SimplePyramid | None = None
        if self.plain:
            ((stride, channels),) = model.maps.items()
            self.pyramid = SimplePyramid(channels, [taken / stride for taken in self.out.strides])
        self.out_norms = nn.ModuleList()
        if config.out_norm == "layer_norm":
            eps = next((m.eps for m in self.body.modules() if isinstance(m, nn.LayerNorm)), 1e-5)
            self.out_norms.extend(ChannelNorm(channels, eps=eps) for channels in self.out.channels)
        if config.checkpointing:
            self._checkpoint()
        self.frozen = self._freeze()

    def _checkpoint(self) -> None:
        try:
            self.body.set_grad_checkpointing(True)
        except (AssertionError, AttributeError):
            message = f"{self.config.name!r} of timm has no gradient checkpointing; set it to false"
            raise ConfigError.at("checkpointing", message) from None

    def _groups(self, coarse: bool) -> list[list[str]]:
        """timm's groups of parameter names from the input on: the stem, then stages (coarse) or blocks.

        Empty, if timm has none for the network.
        """
        if not hasattr(self.body, "group_matcher"):
            return []
        groups: dict[Any, list[str]] = group_parameters(self.body, self.body.group_matcher(coarse=coarse))
        return [groups[key] for key in sorted(groups)]

    def _freeze(self) -> tuple[str, ...]:
        """Freeze the first stages. Returns the names of modules of which all parameters are frozen."""
        count = self.config.frozen_stages + 1
        if not count:
            return ()
        groups = self._groups(coarse=True)
        if count > len(groups):
            name, most = self.config.name, len(groups) - 1
            found = f"timm's {name!r} has {counted(most, 'stage')}; use -1 to {most}"
            none = f"timm does not divide {name!r} into stages; use -1"
            raise ConfigError.at("frozen_stages", f"found {count - 1}, but {found if groups else none}")
        names = {name for group in groups[:count] for name in group}
        for name, parameter in self.body.named_parameters():
            if name in names:
                parameter.requires_grad_(False)
        return tuple(
            name
            for name, module in self.body.named_modules()
            if (own := [p.requires_grad for p in module.parameters()]) and not any(own)
        )

    def train(self, mode: bool = True) -> TimmBackbone:
        super().train(mode)
        for name in self.frozen:
            self.body.get_submodule(name).eval()
        if self.config.frozen_statistics:
            for module in self.body.modules():
                if isinstance(module, BATCH_NORMS):
                    module.eval()
        return self

    def load_initial_weights(self) -> None:
        if self.config.pretrained is not None:
            load_timm(self.body, self.config)

    def layers(self) -> list[tuple[str, ...]]:
        """timm's layers: the stem, then a layer for each block; what follows the network belongs to the last one."""
        groups = [[f"body.{name}" for name in group] for group in self._groups(coarse=False)]
        if groups:
            groups[-1] += ["pyramid", "out_norms"]
        return [tuple(group) for group in groups]

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, C, H, W) to one map per stride of `out`, (N, C', H / stride, W / stride), sides rounded up."""
        height, width = images.shape[2:]
        unit = self.unit
        images = F.pad(images, (0, -width % unit, 0, -height % unit))  # (N, C, H', W')
        maps = take_maps(self.body, images, self.indices, norm=self.plain)
        if self.pyramid is not None:
            maps = self.pyramid(maps[-1])
        if self.out_norms:
            maps = [norm(x) for norm, x in zip(self.out_norms, maps, strict=True)]
        sizes = [(-(-height // stride), -(-width // stride)) for stride in self.out.strides]
        return [x[:, :, :h, :w].contiguous() for x, (h, w) in zip(maps, sizes, strict=True)]
