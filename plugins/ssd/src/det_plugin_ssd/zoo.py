"""The zoo of SSD: published baselines under modern conventions, with the figures others measured."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

from det_core.data.config import CocoConfig, FlipConfig, ResizeConfig, VocConfig
from det_core.evaluation.config import CocoEvaluatorConfig, VocEvaluatorConfig
from det_core.model.detector_config import DetectorConfig, PreprocessConfig
from det_core.recipe import DataConfig, EvaluationConfig, OptimizerConfig, Published, Recipe, ScheduleConfig
from det_core.settings import evolve
from det_core.slots import TransformConfig
from det_plugin_ssd.augment_config import IoUCropConfig, PhotometricDistortConfig, ZoomOutConfig
from det_plugin_ssd.config import (
    COCO_300,
    COCO_512,
    EXTRA_300,
    EXTRA_512,
    VOC_300,
    VOC_512,
    SSDHeadConfig,
    SSDNeckConfig,
    VGGConfig,
)

SUMMARY = "boxes, at every location in one stage (Liu et al., 2016)"
CAFFE = PreprocessConfig(mean=(123.675, 116.28, 103.53), std=(1.0, 1.0, 1.0), pad_divisor=1)
VGG16 = VGGConfig(pretrained="torchvision:vgg16@IMAGENET1K_FEATURES")


ANCHORS = {("coco", 300): COCO_300, ("coco", 512): COCO_512, ("voc", 300): VOC_300, ("voc", 512): VOC_512}


@frozen
class Row:
    """One baseline: `ssd/vgg16-<size>-<data>-<schedule>`."""

    size: Literal[300, 512]
    data: Literal["coco", "voc"]
    published: Published

    @property
    def name(self) -> str:
        """Of its recipe; a schedule counts passes over the data, several in an epoch."""
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


def coco(size: int) -> DataConfig:
    """COCO five times over in an epoch; 64 images on 8 GPUs."""
    train, test = transforms(size)
    return DataConfig(
        train=CocoConfig(split="train", filter_empty=True, min_size=32),
        val=CocoConfig(split="val"),
        train_transforms=train,
        test_transforms=test,
        repeat=5,
        images_per_rank=8,
        group_by_aspect=False,  # all images are squares
    )


def voc(size: int) -> DataConfig:
    """The union of VOC2007 and VOC2012 ten times over in an epoch, tested on VOC2007; 32 images on 8 GPUs."""
    return evolve(
        coco(size),
        train=VocConfig(split="train", sets=("VOC2007/trainval", "VOC2012/trainval"), filter_empty=True, min_size=32),
        val=VocConfig(split="val", sets=("VOC2007/test",)),
        repeat=10,
        images_per_rank=4,
    )


def zoo_recipe(row: Row) -> Recipe:
    """The published baseline of a row under modern conventions."""
    of_coco = row.data == "coco"
    return Recipe(
        name=row.name,
        detector=detector(row.size, SSDHeadConfig(anchors=ANCHORS[row.data, row.size])),
        data=coco(row.size) if of_coco else voc(row.size),
        optimizer=OptimizerConfig(
            lr=2e-3 if of_coco else 1e-3, lr_batch=64 if of_coco else 32, momentum=0.9, weight_decay=5e-4
        ),
        schedule=ScheduleConfig(epochs=24, milestones=(16, 22) if of_coco else (16, 20)),
        evaluation=(
            EvaluationConfig(evaluators=(CocoEvaluatorConfig(kinds=("box",)),))
            if of_coco
            else EvaluationConfig(evaluators=(VocEvaluatorConfig(),), best="voc_map11")
        ),
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
    Row(
        300,
        "voc",
        Published(
            voc_ap50=77.5,
            memory_gb=2.5,
            train_s_per_iter=0.159,
            inference_fps=35.7,
            dataset="voc",
            note="53.6 images per second in batches of 8",
        ),
    ),
    Row(
        512,
        "voc",
        Published(
            voc_ap50=80.0,
            memory_gb=4.3,
            train_s_per_iter=0.214,
            inference_fps=27.5,
            dataset="voc",
            note="35.9 images per second in batches of 8",
        ),
    ),
)
