"""How other projects name ResNet's weights: as torchvision does, and so do we."""

from det_core.weights import Names, WeightMap
from det_plugin_resnet.config import ResNetConfig, ResNetStageConfig


def _same_names(config: ResNetConfig | ResNetStageConfig) -> Names:
    return Names()


WEIGHT_MAPS = (WeightMap("mmdet", ResNetConfig, _same_names), WeightMap("mmdet", ResNetStageConfig, _same_names))
