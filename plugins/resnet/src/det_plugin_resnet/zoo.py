"""What the published baselines on ResNet backbones have in common, and how a recipe is put together from it.

A row of a model's zoo says what is particular to it; the tables here say what backbones, schedules and data are.
"""

from __future__ import annotations

from attrs import field, frozen

from det_core.data.config import CocoConfig, FlipConfig, ResizeConfig
from det_core.evaluation.config import CocoEvaluatorConfig
from det_core.model.detector_config import DetectorConfig, PreprocessConfig
from det_core.model.layer_config import FrozenBatchNormConfig
from det_core.recipe import DataConfig, EvaluationConfig, OptimizerConfig, Published, Recipe, ScheduleConfig
from det_core.settings import evolve
from det_core.slots import DenseHeadConfig, NeckConfig, RoIHeadConfig
from det_plugin_resnet.config import ResNetConfig


@frozen
class Row:
    """One baseline: `<model>/<network>-<kind>-<schedule>`."""

    model: str
    network: str  # of BACKBONES
    kind: str  # fpn or c4
    schedule: str
    published: Published = field(factory=Published)
    variant: str = ""

    @property
    def name(self) -> str:
        """Of its recipe: `<model>/<network>-<kind>[-<variant>]-<schedule>`."""
        parts = [self.network, self.kind, self.variant, self.schedule]
        return f"{self.model}/{'-'.join(part for part in parts if part)}"

    @property
    def fast(self) -> bool:
        """Whether it works on given proposals."""
        return self.model.startswith("fast-")

    @property
    def caffe(self) -> bool:
        """Whether the backbone is of caffe style: strides, weights and colours as in the original release."""
        return self.network.endswith("-caffe")


SCHEDULES = {
    "1x": ScheduleConfig(epochs=12, milestones=(8, 11)),
    "20e": ScheduleConfig(epochs=20, milestones=(16, 19)),
    "2x": ScheduleConfig(epochs=24, milestones=(16, 22)),
    "20-23-24e": ScheduleConfig(epochs=24, milestones=(20, 23)),
    "3x": ScheduleConfig(epochs=36, milestones=(28, 34)),
}
RESIZE = ResizeConfig(scales=((1333, 800),))
COCO = DataConfig(
    train=CocoConfig(split="train", filter_empty=True, min_size=32),
    val=CocoConfig(split="val"),
    train_transforms=(RESIZE, FlipConfig()),
    test_transforms=(RESIZE,),
)

# Caffe-style weights want BGR with means alone, and their norms do not train.
CAFFE = PreprocessConfig(order="bgr", mean=(103.53, 116.28, 123.675), std=(1.0, 1.0, 1.0))
BACKBONES = {
    "r50": ResNetConfig(depth=50, pretrained="torchvision:resnet50"),
    "r101": ResNetConfig(depth=101, pretrained="torchvision:resnet101"),
    "r50-caffe": ResNetConfig(depth=50, style="caffe", norm=FrozenBatchNormConfig(), pretrained="detectron2:R-50"),
    "r101-caffe": ResNetConfig(depth=101, style="caffe", norm=FrozenBatchNormConfig(), pretrained="detectron2:R-101"),
    "x50-32x4d": ResNetConfig(depth=50, groups=32, base_width=4, pretrained="torchvision:resnext50_32x4d"),
    "x101-32x4d": ResNetConfig(depth=101, groups=32, base_width=4, pretrained="mmdet:resnext101_32x4d"),
    "x101-64x4d": ResNetConfig(depth=101, groups=64, base_width=4, pretrained="torchvision:resnext101_64x4d"),
}

BOXES = EvaluationConfig(evaluators=(CocoEvaluatorConfig(kinds=("box",)),))
MASKS = EvaluationConfig(evaluators=(CocoEvaluatorConfig(kinds=("box", "mask")),))


def compose(
    row: Row,
    *,
    neck: NeckConfig | None,
    dense_head: DenseHeadConfig | None,
    roi_head: RoIHeadConfig | None = None,
    evaluation: EvaluationConfig = BOXES,
    data: DataConfig = COCO,
    lr: float = 0.02,
    backbone: ResNetConfig | None = None,
    preprocess: PreprocessConfig | None = None,
) -> Recipe:
    """A row's backbone, data and schedule around its neck and heads; `lr` is for 16 images a step.

    backbone, preprocess: others than those of the row's network.
    """
    backbone = backbone or BACKBONES[row.network]
    return Recipe(
        name=row.name,
        detector=DetectorConfig(
            preprocess=preprocess or (CAFFE if row.caffe else PreprocessConfig()),
            backbone=evolve(backbone, stages=(3,)) if row.kind == "c4" else backbone,
            neck=neck,
            dense_head=dense_head,
            roi_head=roi_head,
        ),
        data=data,
        optimizer=OptimizerConfig(lr=lr, lr_batch=16),
        schedule=SCHEDULES[row.schedule],
        evaluation=evaluation,
        published=row.published,
    )
