"""The zoo of SSD: published baselines under modern conventions, with the figures others measured."""

from __future__ import annotations

from attrs import frozen

from det_core.config.base import TransformConfig
from det_core.data.config import CocoConfig, FlipConfig, ResizeConfig
from det_core.evaluation.config import CocoEvaluatorConfig
from det_core.model.detector_config import DetectorConfig, PreprocessConfig
from det_core.recipe import DataConfig, EvaluationConfig, OptimizerConfig, Published, Recipe, ScheduleConfig
from det_plugin_ssd.augment_config import IoUCropConfig, PhotometricDistortConfig, ZoomOutConfig
from det_plugin_ssd.config import (
    COCO_300,
    COCO_512,
    EXTRA_300,
    EXTRA_512,
    SSDHeadConfig,
    SSDNeckConfig,
    VGGConfig,
)

SUMMARY = "boxes, at every location in one stage (Liu et al., 2016)"
CAFFE = PreprocessConfig(mean=(123.675, 116.28, 103.53), std=(1.0, 1.0, 1.0), pad_divisor=1)
VGG16 = VGGConfig(pretrained="torchvision:vgg16@IMAGENET1K_FEATURES")


@frozen
class Row:
    """One baseline: `ssd/vgg16-<size>-<data>-<schedule>`."""

    size: int
    data: str  # coco or voc
    published: Published

    @property
    def name(self) -> str:
        """Of its recipe."""
        return f"ssd/vgg16-{self.size}-{self.data}-{'120e' if self.data == 'coco' else '240e'}"


def detector(size: int, head: SSDHeadConfig) -> DetectorConfig:
    """SSD300 or SSD512, with the anchors of a data set in its head."""
    return DetectorConfig(
        preprocess=CAFFE,
        backbone=VGG16,
        neck=SSDNeckConfig(extra=EXTRA_300 if size == 300 else EXTRA_512),
        dense_head=head,
    )


def transforms(size: int) -> tuple[tuple[TransformConfig, ...], tuple[TransformConfig, ...]]:
    """For training and for tests."""
    resize = ResizeConfig(scales=((size, size),), keep_ratio=False)
    return (ZoomOutConfig(), IoUCropConfig(), resize, FlipConfig(), PhotometricDistortConfig()), (resize,)


def zoo_recipe(row: Row) -> Recipe:
    """The published baseline of a row under modern conventions."""
    train, test = transforms(row.size)
    return Recipe(
        name=row.name,
        detector=detector(row.size, SSDHeadConfig(anchors=COCO_300 if row.size == 300 else COCO_512)),
        data=DataConfig(
            train=CocoConfig(split="train", filter_empty=True, min_size=32),
            val=CocoConfig(split="val"),
            train_transforms=train,
            test_transforms=test,
            repeat=5,
            images_per_rank=8,
            group_by_aspect=False,  # all images are squares
        ),
        optimizer=OptimizerConfig(lr=2e-3, lr_batch=64, weight_decay=5e-4),
        schedule=ScheduleConfig(epochs=24, milestones=(16, 22)),
        evaluation=EvaluationConfig(evaluators=(CocoEvaluatorConfig(kinds=("box",)),)),
        published=row.published,
    )


# From the published tables: the 2019 model zoo, and its re-runs under modern conventions. Frames per second: one image
# at a time.
ROWS = (
    Row(
        300,
        "coco",
        Published(
            box_ap=25.7,
            memory_gb=3.5,
            train_s_per_iter=0.256,
            inference_fps=25.9,
            modern_box_ap=25.5,
            modern_memory_gb=9.9,
            note="34.6 images per second in batches of 8",
        ),
    ),
    Row(
        512,
        "coco",
        Published(
            box_ap=29.3,
            memory_gb=7.6,
            train_s_per_iter=0.412,
            inference_fps=20.7,
            modern_box_ap=29.5,
            modern_memory_gb=19.4,
            note="25.4 images per second in batches of 8",
        ),
    ),
)
