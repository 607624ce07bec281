"""The zoo of SSD: published baselines (figures in `published.csv`), torchvision's SSD300, and a demo.

The published frames per second were measured with batch size 1.
"""

from __future__ import annotations

from pathlib import Path

from det_core.boxes.box_config import DeltaCoderConfig
from det_core.data.data_config import FlipConfig, ResizeConfig
from det_core.evaluation.metric_config import VocEvaluatorConfig
from det_core.model.detector_config import DetectorConfig, PreprocessConfig
from det_core.model.layer_config import GroupNormConfig
from det_core.offers import RecipeEntry
from det_core.optim.learning_rate_config import StepRateConfig
from det_core.optim.optimizer_config import SGDConfig
from det_core.recipe import DataConfig, EvaluationConfig, Recipe, ScheduleConfig
from det_core.settings import evolve
from det_core.zoo import (
    BOXES,
    COCO_TRAIN,
    COCO_VAL,
    VOC_TRAIN,
    VOC_VAL,
    Row,
    as_mmdet1,
    published_rows,
    sample_recipe,
    zoo_entries,
)
from det_plugin_ssd.augment_config import IoUCropConfig, PhotometricDistortConfig, ZoomOutConfig
from det_plugin_ssd.config import (
    COCO_300,
    COCO_512,
    EXTRA_300,
    EXTRA_512,
    VOC_300,
    VOC_512,
    ExtraLevelConfig,
    SSDAnchorsConfig,
    SSDHeadConfig,
    SSDNeckConfig,
    VGGConfig,
)

ROWS = published_rows(Path(__file__).with_name("published.csv"))
SUMMARY = "boxes, at every location in one stage (Liu et al., 2016)"
# By image size (`kind` of a row) and data set (`variant`).
EXTRA = {"300": EXTRA_300, "512": EXTRA_512}
ANCHORS = {("300", "coco"): COCO_300, ("512", "coco"): COCO_512, ("300", "voc"): VOC_300, ("512", "voc"): VOC_512}


def baseline(row: Row) -> Recipe:
    """The recipe of a published row, under modern conventions."""
    coco = row.variant == "coco"
    return Recipe(
        name=row.name,
        detector=DetectorConfig(
            preprocess=PreprocessConfig(mean=(123.675, 116.28, 103.53), std=(1.0, 1.0, 1.0), pad_divisor=1),
            backbone=VGGConfig(pretrained="torchvision:vgg16@IMAGENET1K_FEATURES"),
            neck=SSDNeckConfig(extra=EXTRA[row.kind]),
            dense_head=SSDHeadConfig(anchors=ANCHORS[row.kind, row.variant]),
        ),
        data=_data(row),
        optimizer=SGDConfig(lr=2e-3 if coco else 1e-3, lr_batch=64 if coco else 32, weight_decay=5e-4),
        schedule=ScheduleConfig(epochs=24, learning_rate=StepRateConfig(milestones=(16, 22) if coco else (16, 20))),
        evaluation=BOXES if coco else EvaluationConfig(evaluators=(VocEvaluatorConfig(),), best="voc_map11"),
        published=row.published,
    )


def _data(row: Row) -> DataConfig:
    """Data with COCO repeated 5 times or VOC 10 times per epoch, and 64 or 32 images per step on 8 GPUs.

    Schedule names count passes over the data: `120e` is 24 epochs of COCO repeated 5 times.
    """
    coco, size = row.variant == "coco", int(row.kind)
    resize = ResizeConfig(scales=((size, size),), keep_ratio=False)
    return DataConfig(
        train=COCO_TRAIN if coco else VOC_TRAIN,
        val=COCO_VAL if coco else VOC_VAL,
        train_transforms=(ZoomOutConfig(), IoUCropConfig(), resize, FlipConfig(), PhotometricDistortConfig()),
        test_transforms=(resize,),
        repeat=5 if coco else 10,
        images_per_rank=8 if coco else 4,
        group_by_aspect=False,  # all images are square
    )


def mmdet1(row: Row) -> Recipe:
    """The recipe of a published row with the conventions of mmdet 0.x and 1.x."""
    return as_mmdet1(baseline(row), row.name)


def torchvision_recipe() -> Recipe:
    """torchvision's `ssd300_vgg16`, for torchvision's weights.

    All conventions in which it differs from the published baselines are set here, as of torchvision/models/detection,
    version 0.29. Anchor sides are clipped to the image size, candidates are the best 400 anchors of each class, and NMS
    is applied in network pixels.
    """
    coco = baseline(Row(model="ssd", network="vgg16", kind="300", variant="coco", schedule="120e"))
    resize = ResizeConfig(scales=((300, 300),), keep_ratio=False, arithmetic="float")
    *others, distort = (resize if isinstance(t, ResizeConfig) else t for t in coco.data.train_transforms)
    train = (distort, *others)  # before the resize, which leaves fractions
    mean = (0.48235 * 255, 0.45882 * 255, 0.40784 * 255)
    head = SSDHeadConfig(
        anchors=evolve(COCO_300, longest=300.0),
        coder=DeltaCoderConfig(stds=(0.1, 0.1, 0.2, 0.2), clip_shrinking=False),
        candidates="class",
        before_nms=400,
        score_threshold=0.01,
        min_size=-1.0,
        nms_in="network",
    )
    preprocess = PreprocessConfig(mean=mean, std=(1.0, 1.0, 1.0), pad_divisor=1)
    return evolve(
        coco,
        name="ssd/torchvision-vgg16-300",
        detector=evolve(coco.detector, preprocess=preprocess, dense_head=head),
        data=evolve(coco.data, train_transforms=train, test_transforms=(resize,)),
        published=None,
    )


def demo_recipe() -> Recipe:
    """VGG with a quarter of the width and group norm, and three levels. Anchors are small because nuclei are."""
    norm = GroupNormConfig(groups=16)
    anchors = SSDAnchorsConfig(sizes=(14.0, 28.0, 56.0, 112.0), ratios=((2.0,), (2.0,), (2.0,)))
    return sample_recipe(
        "ssd/vgg16-demo",
        DetectorConfig(
            backbone=VGGConfig(channels=16, norm=norm),
            neck=SSDNeckConfig(extra=(ExtraLevelConfig(channels=128, spacing=32),), norm=norm),
            dense_head=SSDHeadConfig(anchors=anchors),
        ),
        evolve(BOXES, every_epochs=20),
        lr=0.005,
        weight_decay=5e-4,
        epochs=40,
        keep_ratio=False,
    )


ENTRIES = (
    *zoo_entries(ROWS, baseline, default="ssd/vgg16-300-coco-120e", summary=lambda row: SUMMARY, mmdet1=mmdet1),
    RecipeEntry(
        name="ssd/torchvision-vgg16-300",
        make=torchvision_recipe,
        summary="boxes",
        weights_of="torchvision",
        published_weights="torchvision:ssd300_vgg16",
    ),
    RecipeEntry(name="ssd/vgg16-demo", make=demo_recipe, demo=True, summary=f"{SUMMARY}, small, on the bundled sample"),
)
