"""Weight maps of ResNet. det and mmdet use torchvision's names; detectron2 has other names."""

from det_core.offers import Names, WeightMap
from det_core.weights.detectron2_names import detectron_maps
from det_core.weights.mmdet_names import mmdet_maps
from det_plugin_resnet.config import ResNetConfig, ResNetStageConfig


def _mmdet(config: ResNetConfig | ResNetStageConfig) -> Names:
    """mmdet names group norms gn1, gn2, ... and batch norms bn1, bn2, ..."""
    if config.norm.type != "group_norm":
        return Names()
    return Names(rules=((r"bn1\.", "gn1."), (r"(layer\d\.\d+\.)bn(\d)\.", r"\1gn\2.")))


def _detectron2(config: ResNetConfig | ResNetStageConfig) -> Names:
    stem = ((r"conv1\.", "stem.conv1."), (r"bn1\.", "stem.conv1.norm."))
    stages: list[tuple[str, str]] = []
    for number in (1, 2, 3, 4):
        block, theirs = rf"layer{number}\.(\d+)\.", rf"res{number + 1}.\1."
        stages += [
            (rf"{block}conv(\d)\.", rf"{theirs}conv\2."),
            (rf"{block}bn(\d)\.", rf"{theirs}conv\2.norm."),
            (rf"{block}downsample\.0\.", rf"{theirs}shortcut."),
            (rf"{block}downsample\.1\.", rf"{theirs}shortcut.norm."),
        ]
    return Names(rules=(*stem, *stages))


WEIGHT_MAPS = (
    *mmdet_maps(ResNetConfig, _mmdet),
    *mmdet_maps(ResNetStageConfig, _mmdet),
    WeightMap("torchvision", ResNetConfig, lambda config: Names()),
    WeightMap("torchvision", ResNetStageConfig, lambda config: Names()),
    *detectron_maps(ResNetConfig, _detectron2),
    *detectron_maps(ResNetStageConfig, _detectron2),
)
