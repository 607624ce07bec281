"""The zoo of the R-CNN family for weights of detectron2, Detectron and maskrcnn-benchmark.

The figures are in `detectron2.csv`, `detectron.csv` and `maskrcnn-benchmark.csv`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from det_core.boxes.box_config import MaxIoUAssignerConfig, RandomSamplerConfig
from det_core.conventions import under
from det_core.data.augmentation_config import FixedSizeCropConfig
from det_core.evaluation.metric_config import VocEvaluatorConfig
from det_core.model.detector_config import DetectorConfig
from det_core.model.layer_config import BatchNormConfig, FrozenBatchNormConfig, GroupNormConfig, RoIAlignConfig
from det_core.model.loss_config import GIoUConfig, SmoothL1Config
from det_core.recipe import EvaluationConfig, Recipe
from det_core.settings import evolve
from det_core.slots import NormConfig
from det_core.specs import ProposalLimits
from det_core.zoo import (
    VOC_TRAIN,
    VOC_VAL,
    Row,
    as_detectron2,
    before_detectron2,
    detectron_entries,
    evolve_part,
    jitter_scale,
    published_rows,
)
from det_plugin_rcnn.config import ConvMaskHeadConfig, FCBoxHeadConfig, RCNNHeadConfig, RPNConfig
from det_plugin_rcnn.recipes import SUMMARIES, baseline, rpn_of_2019, with_norm
from det_plugin_resnet.backbones import DETECTRON2_NETWORKS, DIVIDED, detectron_network
from det_plugin_resnet.config import ResNetConfig, ResNetStageConfig

ROWS = {
    source: published_rows(Path(__file__).with_name(f"{source}.csv"))
    for source in ("detectron2", "detectron", "maskrcnn-benchmark")
}

# detectron2's models, which are the same functions with its conventions (figures in `detectron2.csv`)


def detectron2_recipe(row: Row) -> Recipe:
    """A model of detectron2's zoo. Of a variant, the functions in `DETECTRON2_VARIANTS` change the plain one."""
    dilated, known = row.kind == "dc5", row.network in ("r50", "r101")
    network = f"{row.network if known else 'r101'}-caffe"
    recipe = baseline(evolve(row, network=network, kind="c4" if dilated else row.kind))
    detector = _on_dilated_stage(recipe.detector) if dilated else recipe.detector
    if not known:
        backbone, preprocess = DETECTRON2_NETWORKS[row.network]
        detector = evolve(detector, backbone=backbone, preprocess=preprocess)
    if isinstance(detector.dense_head, RPNConfig):
        detector = evolve(detector, dense_head=detectron2_rpn(detector.dense_head, alone=row.model == "rpn"))
    if isinstance(detector.roi_head, RCNNHeadConfig):
        detector = evolve(detector, roi_head=evolve(detector.roi_head, assigner=MaxIoUAssignerConfig()))
    made = as_detectron2(evolve(recipe, detector=detector), row)
    return DETECTRON2_VARIANTS[row.variant](made, row) if row.variant in DETECTRON2_VARIANTS else made


def _as_detectron(recipe: Recipe, row: Row) -> Recipe:
    """With the pooling, the losses and the one image size of Detectron."""
    head = recipe.detector.roi_head
    assert isinstance(head, RCNNHeadConfig)
    pools = {
        name: evolve(pool, alignment="unaligned", sampling=2)
        for name, pool in (("roi_pool", head.roi_pool), ("mask_roi_pool", head.mask_roi_pool))
        if isinstance(pool, RoIAlignConfig)
    }
    recipe = evolve_part(recipe, "dense_head", box_loss=SmoothL1Config(beta=0.1111))
    recipe = evolve_part(recipe, "roi_head", box_loss=SmoothL1Config(), **pools)
    return as_detectron2(recipe, row, short=(800,))


def _with_giou(recipe: Recipe, row: Row) -> Recipe:
    """With the GIoU loss for boxes."""
    recipe = evolve_part(recipe, "dense_head", box_loss=GIoUConfig(weight=2.0))
    return evolve_part(recipe, "roi_head", box_loss=GIoUConfig(weight=10.0))


def _class_agnostic(recipe: Recipe, row: Row) -> Recipe:
    """With one box and one mask for all classes."""
    head = recipe.detector.roi_head
    assert isinstance(head, RCNNHeadConfig)
    masks = evolve(head.mask_head, class_agnostic=True)
    return evolve_part(recipe, "roi_head", box_head=FCBoxHeadConfig(class_agnostic=True), mask_head=masks)


def _normalised(norm: NormConfig, *, scratch: bool, caffe: bool = False) -> Callable[[Recipe, Row], Recipe]:
    """With a norm in backbone, FPN, box head (of four convolutions) and mask head.

    scratch: from random weights, so that nothing is frozen. caffe: a block's stride is in its first convolution.
    """

    def change(recipe: Recipe, row: Row) -> Recipe:
        detector = with_norm(recipe.detector, norm)
        if scratch and row.schedule == "9x":
            detector = evolve(detector, preprocess=DIVIDED)
        changes: dict[str, Any] = {"style": "caffe" if caffe else "pytorch"}
        if scratch:
            changes |= {"pretrained": None, "frozen_stages": -1}
        elif isinstance(norm, GroupNormConfig):
            changes["pretrained"] = None  # detectron2's R-50-GN, which has no name here
        return evolve_part(evolve(recipe, detector=detector), "backbone", **changes)

    return change


def _large_scale_jitter(recipe: Recipe, row: Row) -> Recipe:
    """From random weights with synchronised batch norm, two convolutions in the RPN, and large-scale jitter."""
    recipe = _normalised(SYNCHRONISED, scratch=True, caffe=True)(recipe, row)
    gray = FixedSizeCropConfig(boxes="masks", fill=(128.0, 128.0, 128.0))
    made = jitter_scale(evolve_part(recipe, "dense_head", num_convs=2), crop=gray)
    return evolve(made, data=under(made.data, "detectron2"))


def _many_classes(recipe: Recipe, row: Row) -> Recipe:
    """For LVIS: up to 300 detections with low scores, and images of rare classes repeated."""
    recipe = evolve_part(recipe, "roi_head", score_threshold=0.0001, max_detections=300)
    return evolve(recipe, data=evolve(recipe.data, repeat_threshold=0.001))


def _on_cityscapes(recipe: Recipe, row: Row) -> Recipe:
    made = as_detectron2(recipe, row, short=range(800, 1025, 32), long=2048)
    return evolve(made, optimizer=evolve(made.optimizer, lr=0.01, lr_batch=8))


def _on_voc(recipe: Recipe, row: Row) -> Recipe:
    made = as_detectron2(recipe, row, short=range(480, 801, 32))
    return evolve(
        made,
        data=evolve(made.data, train=VOC_TRAIN, val=VOC_VAL),
        schedule=evolve(made.schedule, warmup_steps=100),
        evaluation=EvaluationConfig(evaluators=(VocEvaluatorConfig(),), best="voc_map11"),
    )


SYNCHRONISED = BatchNormConfig(synchronised=True)
DETECTRON2_VARIANTS: dict[str, Callable[[Recipe, Row], Recipe]] = {
    "noaug": _as_detectron,
    "giou": _with_giou,
    "agnostic": _class_agnostic,
    "gn": _normalised(GroupNormConfig(), scratch=False),
    "syncbn": _normalised(SYNCHRONISED, scratch=False, caffe=True),
    "scratch-gn": _normalised(GroupNormConfig(), scratch=True),
    "scratch-syncbn": _normalised(SYNCHRONISED, scratch=True),
    "lsj": _large_scale_jitter,
    "lvis-v0.5": _many_classes,
    "lvis-v1": _many_classes,
    "cityscapes": _on_cityscapes,
    "voc": _on_voc,
}


def _on_dilated_stage(detector: DetectorConfig) -> DetectorConfig:
    """A C4 model as DC5: everything on the last stage, which keeps stride 16, and heads as on a pyramid."""
    backbone, rpn, head = detector.backbone, detector.dense_head, detector.roi_head
    assert isinstance(backbone, ResNetConfig)
    assert isinstance(rpn, RPNConfig)
    assert isinstance(head, RCNNHeadConfig)
    masks = head.mask_head is not None
    pool = RoIAlignConfig(strides=(16,))
    return evolve(
        detector,
        backbone=evolve(backbone, stages=(4,), dilated=True),
        dense_head=evolve(rpn, channels=2048),
        roi_head=evolve(
            head,
            trunk=None,
            roi_pool=pool,
            box_head=FCBoxHeadConfig(),
            mask_roi_pool=evolve(pool, size=14) if masks else None,
            mask_head=ConvMaskHeadConfig() if masks else None,
        ),
    )


def detectron2_rpn(rpn: RPNConfig, *, alone: bool) -> RPNConfig:
    """An RPN that gives to every object its best anchor, whatever its IoU; alone it keeps 2000 proposals of C4."""
    limits = rpn.test_limits
    if alone and rpn.channels == 256:  # on a pyramid
        limits = ProposalLimits(before_nms=1000, after_nms=2000)
    assigner = MaxIoUAssignerConfig(positive=0.7, negative=0.3, low_quality=True, min_positive=0.0)
    assert isinstance(rpn.sampler, RandomSamplerConfig)
    return evolve(rpn, assigner=assigner, allowed_border=-1, test_limits=limits, loss_anchors=rpn.sampler.count)


# Detectron and maskrcnn-benchmark, which took over its conventions


def older_recipe(source: str, row: Row) -> Recipe:
    """A model of Detectron or maskrcnn-benchmark, with the RPN and the losses of their time."""
    recipe = baseline(evolve(row, network="r101-caffe" if row.network.startswith("x") else f"{row.network}-caffe"))
    detector = evolve(recipe.detector, backbone=detectron_network(source, row.network, row.kind))
    rpn, head = detector.dense_head, detector.roi_head
    if isinstance(rpn, RPNConfig):
        limits = detectron2_rpn(rpn, alone=row.model == "rpn").test_limits
        detector = evolve(detector, dense_head=evolve(rpn_of_2019(rpn), test_limits=limits))
    if isinstance(head, RCNNHeadConfig):
        detector = evolve(detector, roi_head=_older_head(source, head))
    made = before_detectron2(evolve(recipe, detector=detector), row, source)
    return _normalised(GroupNormConfig(), scratch=False)(made, row) if row.variant == "gn" else made


def _older_head(source: str, head: RCNNHeadConfig) -> RCNNHeadConfig:
    """The second stage: two samples per bin on a pyramid, and as many as fit on one map."""

    def pooled(pool: object) -> object:
        return evolve(pool, sampling=2) if isinstance(pool, RoIAlignConfig) and len(pool.strides) > 1 else pool

    changes = {"roi_pool": pooled(head.roi_pool), "mask_roi_pool": pooled(head.mask_roi_pool)}
    if isinstance(head.trunk, ResNetStageConfig) and source == "maskrcnn-benchmark":
        changes["trunk"] = evolve(head.trunk, norm=FrozenBatchNormConfig(eps=0.0))
    return evolve(head, assigner=MaxIoUAssignerConfig(), box_loss=SmoothL1Config(), **changes)


ENTRIES = (
    *detectron_entries("detectron2", ROWS["detectron2"], detectron2_recipe, lambda row: SUMMARIES[row.model]),
    *(
        entry
        for source in ("detectron", "maskrcnn-benchmark")
        for entry in detectron_entries(
            source, ROWS[source], partial(older_recipe, source), lambda row: SUMMARIES[row.model]
        )
    ),
)
