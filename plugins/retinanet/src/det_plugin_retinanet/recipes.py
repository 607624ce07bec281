"""The zoo of RetinaNet: baselines (figures in `published.csv`), stronger training (`strong.csv`), presets, a demo."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from det_core.boxes.box_config import DeltaCoderConfig, GridAnchorsConfig, MaxIoUAssignerConfig
from det_core.data.data_config import ResizeConfig
from det_core.model.detector_config import DetectorConfig
from det_core.model.layer_config import GroupNormConfig
from det_core.model.loss_config import GIoUConfig, SmoothL1Config
from det_core.offers import RecipeEntry
from det_core.optim.optimizer_config import AdamWConfig
from det_core.recipe import Published, Recipe
from det_core.settings import evolve
from det_core.zoo import (
    BOXES,
    Row,
    as_detectron2,
    as_mmdet1,
    before_detectron2,
    compose,
    compose_torchvision,
    detectron_entries,
    evolve_part,
    multi_scale,
    published_rows,
    sample_recipe,
    zoo_entries,
)
from det_plugin_fpn.config import FPNConfig
from det_plugin_resnet.backbones import (
    DEMO_R18,
    TORCHVISION_R50,
    TORCHVISION_R50_V2,
    backbone_of,
    detectron_network,
    preprocess_of,
    with_newer_weights,
)
from det_plugin_retinanet.config import OCTAVE, RetinaNetHeadConfig

ROWS = published_rows(Path(__file__).with_name("published.csv"))
STRONG_ROWS = published_rows(Path(__file__).with_name("strong.csv"))
DETECTRON2_ROWS = published_rows(Path(__file__).with_name("detectron2.csv"))
DETECTRON_ROWS = published_rows(Path(__file__).with_name("detectron.csv"))
BENCHMARK_ROWS = published_rows(Path(__file__).with_name("maskrcnn-benchmark.csv"))
TRAININGS = {
    "ms": "trained longer on images of many sizes",
    "rsb": "from the ImageNet weights of ResNet strikes back",
}
SUMMARY = "boxes, at every location in one stage (Lin et al., 2017)"


def baseline(row: Row) -> Recipe:
    """The recipe of a published row, under modern conventions."""
    return compose(
        row,
        DetectorConfig(
            preprocess=preprocess_of(row),
            backbone=backbone_of(row),
            neck=FPNConfig(start=1, levels=5, extra="conv_input"),  # P3-P7, P6 from C5
            dense_head=RetinaNetHeadConfig(),
        ),
        lr=0.01,
    )


def mmdet1(row: Row) -> Recipe:
    """The recipe of a published row with the conventions of mmdet 0.x and 1.x, and their box loss."""
    recipe = baseline(row)
    return as_mmdet1(evolve_part(recipe, "dense_head", box_loss=SmoothL1Config(beta=0.11)), row.name)


def detectron2_recipe(row: Row) -> Recipe:
    """A RetinaNet of detectron2's zoo: a ReLU before P7."""
    recipe = baseline(evolve(row, network=f"{row.network}-caffe"))
    return as_detectron2(evolve_part(recipe, "neck", extra_relu=True), row)


def older_recipe(source: str, row: Row) -> Recipe:
    """A RetinaNet of Detectron, or of maskrcnn-benchmark, whose deltas have the deviations of a second stage."""
    benchmark = source == "maskrcnn-benchmark"
    recipe = baseline(evolve(row, network="r101-caffe" if row.network.startswith("x") else f"{row.network}-caffe"))
    head = RetinaNetHeadConfig(
        box_loss=SmoothL1Config(beta=0.11),
        coder=DeltaCoderConfig(stds=(0.1, 0.1, 0.2, 0.2) if benchmark else (1.0,) * 4),
        nms_threshold=0.4 if benchmark else 0.5,
    )
    detector = evolve(
        recipe.detector,
        backbone=detectron_network(source, row.network, row.kind),
        neck=FPNConfig(start=1, levels=5, extra="conv_input", extra_relu=True),
        dense_head=head,
    )
    return before_detectron2(evolve(recipe, detector=detector), row, source)


def strong_recipe(row: Row) -> Recipe:
    """The recipe of a row with stronger training: on images of many sizes, or from newer ImageNet weights."""
    recipe = baseline(row)
    return multi_scale(recipe) if row.variant == "ms" else with_newer_weights(recipe, row, lr=1e-4, weight_decay=0.05)


def torchvision_recipe() -> Recipe:
    """torchvision's `retinanet_resnet50_fpn`, for its `COCO_V1` weights, whose norms have eps 0.

    All conventions in which it differs from the published baselines are set here and in `compose_torchvision`.
    """
    return compose_torchvision(
        "retinanet/torchvision-r50-fpn",
        DetectorConfig(
            backbone=TORCHVISION_R50,
            neck=FPNConfig(start=1, levels=5, extra="conv_output", extra_relu=True),  # P6 from P5
            dense_head=RetinaNetHeadConfig(
                assigner=MaxIoUAssignerConfig(
                    positive=0.5, negative=0.4, low_quality=True, min_positive=0.0, low_quality_object="nearest"
                ),
                anchors=GridAnchorsConfig(scales=OCTAVE, whole_sides=True, rounded=True, spacing="image"),
                coder=DeltaCoderConfig(clip_shrinking=False),
                min_size=-1.0,
                max_detections=300,
                nms_in="network",
            ),
        ),
        lr=0.01,
    )


# Of the weights COCO_V1 of `retinanet_resnet50_fpn_v2` (pytorch/vision, pull request 5756), which also says how they
# were trained.
PUBLISHED_V2 = Published(box_ap=41.5, source="torchvision, COCO_V1")
V2_SHORT_EDGES = (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)


def torchvision_v2_recipe() -> Recipe:
    """torchvision's `retinanet_resnet50_fpn_v2`: P6 from C5, group norm in the towers, and the GIoU loss.

    It trains on images of many sizes, which torchvision resizes with antialiasing, unlike this recipe.
    """
    recipe = evolve_part(torchvision_recipe(), "dense_head", norm=GroupNormConfig(groups=32), box_loss=GIoUConfig())
    resize, *others = recipe.data.train_transforms
    assert isinstance(resize, ResizeConfig)
    resize = evolve(resize, scales=tuple((1333, edge) for edge in V2_SHORT_EDGES))
    return evolve(
        recipe,
        name=f"{recipe.name}-v2",
        detector=evolve(
            recipe.detector,
            backbone=evolve(TORCHVISION_R50_V2, pretrained="torchvision:resnet50@IMAGENET1K_V2"),
            neck=FPNConfig(start=1, levels=5, extra="conv_input", extra_relu=True),
        ),
        data=evolve(recipe.data, train_transforms=(resize, *others)),
        optimizer=AdamWConfig(lr=1e-4, lr_batch=16, weight_decay=0.05, norm_weight_decay=0.0),
        schedule=evolve(recipe.schedule, warmup_steps=1000),
        published=PUBLISHED_V2,
    )


def demo_recipe() -> Recipe:
    """Two convolutions per tower with group norm, on P3-P6. Anchors are small because nuclei are."""
    return sample_recipe(
        "retinanet/r18-fpn-demo",
        DetectorConfig(
            backbone=DEMO_R18,
            neck=FPNConfig(channels=64, start=1, levels=4, extra="conv_input", norm=DEMO_R18.norm),
            dense_head=RetinaNetHeadConfig(
                channels=64,
                num_convs=2,
                norm=DEMO_R18.norm,
                anchors=GridAnchorsConfig(scales=(2.0, 2.0 * 2 ** (1 / 2))),
            ),
        ),
        evolve(BOXES, every_epochs=10),
        lr=0.01,
    )


ENTRIES = (
    *zoo_entries(ROWS, baseline, default="retinanet/r50-fpn-1x", summary=lambda row: SUMMARY, mmdet1=mmdet1),
    *zoo_entries(STRONG_ROWS, strong_recipe, default="", summary=lambda row: f"{SUMMARY}, {TRAININGS[row.variant]}"),
    *detectron_entries("detectron2", DETECTRON2_ROWS, detectron2_recipe, lambda row: SUMMARY),
    *detectron_entries("detectron", DETECTRON_ROWS, partial(older_recipe, "detectron"), lambda row: SUMMARY),
    *detectron_entries(
        "maskrcnn-benchmark", BENCHMARK_ROWS, partial(older_recipe, "maskrcnn-benchmark"), lambda row: SUMMARY
    ),
    RecipeEntry(
        name="retinanet/torchvision-r50-fpn",
        make=torchvision_recipe,
        summary="boxes",
        weights_of="torchvision",
        published_weights="torchvision:retinanet_resnet50_fpn",
    ),
    RecipeEntry(
        name="retinanet/torchvision-r50-fpn-v2",
        make=torchvision_v2_recipe,
        published=PUBLISHED_V2,
        summary="boxes, second version",
        weights_of="torchvision",
        published_weights="torchvision:retinanet_resnet50_fpn_v2",
    ),
    RecipeEntry(
        name="retinanet/r18-fpn-demo", make=demo_recipe, demo=True, summary=f"{SUMMARY}, small, on the bundled sample"
    ),
)
