"""The configuration of MobileNetV3. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from attrs import frozen

from det_core.errors import ConfigError
from det_core.model.layer_config import BatchNormConfig
from det_core.settings import configclass, setting
from det_core.slots import IN_CHANNELS, BackboneConfig, NormConfig
from det_core.specs import FeatureSpec

if TYPE_CHECKING:
    from det_plugin_mobilenet.backbone import MobileNetV3

Size = Literal["large", "small"]
Stage = Literal[1, 2, 3, 4, 5]
Taken = Literal["last", "first", "expanded"]
LAST_STAGE = 5  # one 1x1 convolution
REDUCED = 4  # the first stage whose widths `reduced_tail` halves


@frozen(kw_only=True)
class Layout:
    """Where the stages of a network begin, and their widths (Howard et al., 2019, tables 1 and 2).

    starts: index of the first block of stages 1..5 in torchvision's `features`. first, last, expanded: channels after
    the first and the last block of stages 1..4, and after the expansion in the first block (0: it has none).
    final: channels of stage 5.
    """

    starts: tuple[int, ...]
    first: tuple[int, ...]
    last: tuple[int, ...]
    expanded: tuple[int, ...]
    final: int


LAYOUTS: dict[Size, Layout] = {
    "large": Layout(
        starts=(2, 4, 7, 13, 16),
        first=(24, 40, 80, 160),
        last=(24, 40, 112, 160),
        expanded=(64, 72, 240, 672),
        final=960,
    ),
    "small": Layout(
        starts=(1, 2, 4, 9, 12),
        first=(16, 24, 40, 96),
        last=(16, 24, 48, 96),
        expanded=(0, 72, 96, 288),
        final=576,
    ),
}


@configclass
class MobileNetV3Config(BackboneConfig):
    """MobileNetV3 (Howard et al., 2019), of torchvision's modules.

    Stages 1 to 4 each begin with a block of stride 2. Stage 5 is the 1x1 convolution after the last block.
    """

    type: ClassVar[str] = "mobilenet_v3"

    size: Size = setting("the network of the paper's table 1 (large) or table 2 (small)", default="large")
    stages: tuple[Stage, ...] = setting(
        "stages to return: 1 is C1 at stride 4, 4 is C4 at stride 32, 5 also at stride 32; later blocks are not built",
        default=(2, 3, 5),
        min_items=1,
    )
    taken: Taken = setting(
        "where a stage is left: after its last block; after its first block (torchvision's Faster R-CNN); or expanded: "
        "in its first block, before the stride, at the stride of the stage before (SSDLite). Stage 5 has one layer",
        default="last",
    )
    reduced_tail: bool = setting(
        "half as many channels in stages 4 and 5 (Howard et al., table 6), for which there are no ImageNet weights",
        default=False,
    )
    frozen_stages: int = setting(
        "-1: train everything; 0: freeze what is before stage 1; n: freeze it and stages 1..n",
        default=0,
        least=-1,
        most=LAST_STAGE,
    )
    norm: NormConfig = setting(
        "after every convolution", default=BatchNormConfig(eps=0.001, momentum=0.01, frozen_statistics=True)
    )
    initial: Literal["fan_out", "small"] = setting(
        "random weights of convolutions: Kaiming-normal, or N(0, 0.03^2) (torchvision's SSDLite)", default="fan_out"
    )
    in_channels: int = setting(IN_CHANNELS, default=3, least=1)
    pretrained: str | None = setting(
        "initial weights: torchvision:mobilenet_v3_large, torchvision:NAME@WEIGHTS, or a file with torchvision's "
        "parameter names",
        default=None,
    )

    def __attrs_post_init__(self) -> None:
        if list(self.stages) != sorted(set(self.stages)):
            raise ConfigError.at("stages", f"{list(self.stages)} must ascend without repeats")
        if self.taken == "expanded":
            for stage in self.stages:
                if stage != LAST_STAGE and not self.layout.expanded[stage - 1]:
                    raise ConfigError.at(
                        "stages",
                        f"the first block of stage {stage} of size {self.size!r} has no expansion, so taken: expanded "
                        f"cannot return it; leave out stage {stage}, or use taken: last",
                    )
        if self.reduced_tail and self.pretrained is not None and self.pretrained.startswith("torchvision:"):
            raise ConfigError.at(
                "pretrained",
                f"{self.pretrained!r} has the full tail, but reduced_tail is true; use null or a file with weights of "
                "the reduced network, or set reduced_tail to false",
            )

    @property
    def layout(self) -> Layout:
        """Indices and widths of the network, without `reduced_tail`."""
        return LAYOUTS[self.size]

    def stride(self, stage: int) -> int:
        """Stride of the map that is returned of a stage."""
        if stage == LAST_STAGE:
            return 32
        return 2 ** (stage if self.taken == "expanded" else stage + 1)

    def channels(self, stage: int) -> int:
        """Channels of the map that is returned of a stage. The expansion before stage 4 is not reduced."""
        layout, half = self.layout, self.reduced_tail
        if stage == LAST_STAGE:
            return layout.final // 2 if half else layout.final
        if self.taken == "expanded":
            return layout.expanded[stage - 1]
        width = (layout.first if self.taken == "first" else layout.last)[stage - 1]
        return width // 2 if half and stage >= REDUCED else width

    def input_channels(self) -> int:
        return self.in_channels

    def feature_spec(self) -> FeatureSpec:
        return FeatureSpec(
            channels=[self.channels(stage) for stage in self.stages],
            strides=[self.stride(stage) for stage in self.stages],
        )

    def build(self) -> MobileNetV3:
        from det_plugin_mobilenet.backbone import MobileNetV3

        return MobileNetV3(self)
