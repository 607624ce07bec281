"""The small detectors on MobileNetV3: torchvision's (figures in `published.csv`), and a demo."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from det_core.boxes.box_config import DeltaCoderConfig, GridAnchorsConfig
from det_core.data.data_config import FlipConfig, ResizeConfig
from det_core.model.detector_config import DetectorConfig, PreprocessConfig
from det_core.model.layer_config import BatchNormConfig, FrozenBatchNormConfig, GroupNormConfig, RoIAlignConfig
from det_core.offers import RecipeEntry
from det_core.optim.learning_rate_config import StepRateConfig
from det_core.optim.optimizer_config import SGDConfig
from det_core.recipe import Recipe, ScheduleConfig
from det_core.settings import evolve
from det_core.specs import ProposalLimits
from det_core.zoo import BOXES, COCO, Row, name_under, published_rows
from det_plugin_fpn.config import FPNConfig
from det_plugin_mobilenet.config import MobileNetV3Config
from det_plugin_rcnn import recipes as rcnn
from det_plugin_rcnn.config import RCNNHeadConfig, RPNConfig
from det_plugin_ssd.augment_config import IoUCropConfig
from det_plugin_ssd.config import EXTRA_LITE, LITE_320, SSDHeadConfig, SSDNeckConfig

ROWS = published_rows(Path(__file__).with_name("published.csv"))

# torchvision's Faster R-CNN on MobileNetV3: `fasterrcnn_mobilenet_v3_large_fpn`, and `..._320_fpn` for small images

SMALL = "mobilenet-v3-large-320"  # the network of the second one's row
ANCHORS = GridAnchorsConfig(sides=(32.0, 64.0, 128.0, 256.0, 512.0), rounded=True, spacing="image")


def recipe_name(row: Row) -> str:
    """The name of a row's recipe. torchvision's schedules are not part of it."""
    return name_under("torchvision", row.name.removesuffix(f"-{row.schedule}"))


def faster_rcnn(row: Row) -> Recipe:
    """The model on two maps of stride 32 and one of stride 64, with anchors of all sizes on each.

    The second stage pools from the first map only. The conventions, and what remains different in training, are those
    of `det_core.zoo.compose_torchvision`.
    """
    recipe, small = rcnn.torchvision_recipe("faster-rcnn"), row.network == SMALL
    rpn, roi_head = recipe.detector.dense_head, recipe.detector.roi_head
    assert isinstance(rpn, RPNConfig)
    assert isinstance(roi_head, RCNNHeadConfig)
    assert isinstance(roi_head.roi_pool, RoIAlignConfig)
    limits = ProposalLimits(before_nms=150, after_nms=150) if small else rpn.test_limits
    detector = evolve(
        recipe.detector,
        backbone=MobileNetV3Config(
            stages=(4, 5),
            taken="first",
            frozen_stages=2,
            norm=FrozenBatchNormConfig(),
            pretrained="torchvision:mobilenet_v3_large",
        ),
        neck=FPNConfig(levels=3),
        dense_head=evolve(rpn, anchors=ANCHORS, score_threshold=0.05, test_limits=limits),
        roi_head=evolve(roi_head, roi_pool=evolve(roi_head.roi_pool, strides=(32,))),
    )
    recipe = evolve(recipe, name=recipe_name(row), detector=detector, published=row.published)
    return _on_small_images(recipe) if small else recipe


def _on_small_images(recipe: Recipe) -> Recipe:
    """Short sides of 320 pixels, long sides of at most 640, in training and test."""
    (resize,) = recipe.data.test_transforms
    assert isinstance(resize, ResizeConfig)
    resize = evolve(resize, scales=((640, 320),))
    return evolve(recipe, data=evolve(recipe.data, train_transforms=(resize, FlipConfig()), test_transforms=(resize,)))


# torchvision's SSDLite: `ssdlite320_mobilenet_v3_large`

LITE_NORM = BatchNormConfig(eps=0.001, momentum=0.03)


def ssdlite(row: Row) -> Recipe:
    """SSDLite with 320 x 320 pixels (Sandler et al., 2018; Howard et al., 2019), trained from random weights.

    Candidates are the best 300 anchors of each class. Pixels are in -1..1. torchvision's learning rate follows a
    cosine; here it drops twice.
    """
    resize = ResizeConfig(scales=((320, 320),), keep_ratio=False, arithmetic="float")
    return Recipe(
        name=recipe_name(row),
        detector=DetectorConfig(
            preprocess=PreprocessConfig(mean=(127.5,) * 3, std=(127.5,) * 3, pad_divisor=1),
            backbone=MobileNetV3Config(
                stages=(4, 5), taken="expanded", reduced_tail=True, frozen_stages=-1, norm=LITE_NORM, initial="small"
            ),
            neck=SSDNeckConfig(scale=None, extra=EXTRA_LITE, separable=True, norm=LITE_NORM),
            dense_head=SSDHeadConfig(
                anchors=LITE_320,
                coder=DeltaCoderConfig(stds=(0.1, 0.1, 0.2, 0.2), clip_shrinking=False),
                separable=True,
                norm=LITE_NORM,
                candidates="class",
                before_nms=300,
                score_threshold=0.001,
                nms_threshold=0.55,
                max_detections=300,
                min_size=-1.0,
                nms_in="network",
            ),
        ),
        data=evolve(
            COCO,
            train_transforms=(IoUCropConfig(), resize, FlipConfig()),
            test_transforms=(resize,),
            images_per_rank=24,
            group_by_aspect=False,  # all images are square
        ),
        optimizer=SGDConfig(lr=0.15, lr_batch=192, weight_decay=4e-5),
        schedule=ScheduleConfig(epochs=660, learning_rate=StepRateConfig(milestones=(440, 605))),
        evaluation=BOXES,
        published=row.published,
    )


# A small model that trains on the bundled sample from random weights in minutes on a CPU


def demo_recipe() -> Recipe:
    """Faster R-CNN on MobileNetV3-Small with group norm and maps at strides 4 to 32. Nuclei are small."""
    norm = GroupNormConfig(groups=8)
    recipe = rcnn.demo_recipe("faster-rcnn")
    return evolve(
        recipe,
        name="faster-rcnn/mobilenet-v3-small-fpn-demo",
        detector=evolve(
            recipe.detector,
            backbone=MobileNetV3Config(size="small", stages=(1, 2, 3, 4), frozen_stages=-1, norm=norm),
            neck=FPNConfig(channels=64, norm=norm),
        ),
    )


WEIGHTS = {  # torchvision's names, by recipe
    "faster-rcnn/torchvision-mobilenet-v3-large-fpn": "torchvision:fasterrcnn_mobilenet_v3_large_fpn",
    "faster-rcnn/torchvision-mobilenet-v3-large-320-fpn": "torchvision:fasterrcnn_mobilenet_v3_large_320_fpn",
    "ssd/torchvision-mobilenet-v3-large-320": "torchvision:ssdlite320_mobilenet_v3_large",
}
MAKERS = {"faster-rcnn": faster_rcnn, "ssd": ssdlite}
SUMMARIES = {
    "faster-rcnn": "boxes, on MobileNetV3",
    "ssd": "boxes, SSDLite on MobileNetV3",
}
ENTRIES = (
    *(
        RecipeEntry(
            name=recipe_name(row),
            make=partial(MAKERS[row.model], row),
            published=row.published,
            default=row.network == SMALL,
            summary=SUMMARIES[row.model],
            weights_of="torchvision",
            published_weights=WEIGHTS[recipe_name(row)],
        )
        for row in ROWS
    ),
    RecipeEntry(
        name="faster-rcnn/mobilenet-v3-small-fpn-demo",
        make=demo_recipe,
        demo=True,
        summary="boxes, on MobileNetV3-Small, small, on the bundled sample",
    ),
)
