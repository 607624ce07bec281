"""The zoo of the R-CNN family: published baselines (figures in `published.csv`), torchvision's detectors, and demos."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from det_core.boxes.box_config import DeltaCoderConfig, GridAnchorsConfig, MaxIoUAssignerConfig, RandomSamplerConfig
from det_core.data.data_config import FlipConfig, ResizeConfig
from det_core.model.detector_config import DetectorConfig
from det_core.model.layer_config import BatchNormConfig, Conv2dConfig, RoIAlignConfig
from det_core.model.loss_config import SmoothL1Config
from det_core.offers import RecipeEntry
from det_core.optim.learning_rate_config import StepRateConfig
from det_core.optim.optimizer_config import AdamWConfig
from det_core.recipe import Published, Recipe
from det_core.settings import evolve
from det_core.slots import ConvConfig, NormConfig
from det_core.specs import ProposalLimits
from det_core.zoo import (
    BOXES,
    COCO,
    COCO_TRAIN,
    MASKS,
    PROPOSALS,
    Row,
    as_mmdet1,
    compose,
    compose_torchvision,
    evolve_part,
    published_rows,
    sample_recipe,
    zoo_entries,
)
from det_plugin_fpn.config import FPNConfig
from det_plugin_rcnn.config import ConvMaskHeadConfig, FCBoxHeadConfig, RCNNHeadConfig, RPNConfig
from det_plugin_resnet.backbones import (
    DEMO_R18,
    TORCHVISION_R50,
    TORCHVISION_R50_V2,
    backbone_of,
    c4_trunk_of,
    preprocess_of,
)
from det_plugin_resnet.config import ResNetConfig, ResNetStageConfig

ROWS = published_rows(Path(__file__).with_name("published.csv"))
SUMMARIES = {
    "rpn": "region proposals (Ren et al., 2015)",
    "fast-rcnn": "boxes from given proposals (Girshick, 2015)",
    "faster-rcnn": "boxes (Ren et al., 2015; Lin et al., 2017)",
    "fast-mask-rcnn": "boxes and masks from given proposals (He et al., 2017)",
    "mask-rcnn": "boxes and masks (He et al., 2017)",
}
EVALUATIONS = {"rpn": PROPOSALS, "fast-rcnn": BOXES, "faster-rcnn": BOXES, "fast-mask-rcnn": MASKS, "mask-rcnn": MASKS}
# Fast R-CNN trains on the best 2000 given proposals of an image, and is tested on all of them (in 2019: 1000 in both).
COCO_WITH_PROPOSALS = evolve(COCO, train=evolve(COCO_TRAIN, max_proposals=2000))
C4_POOL = RoIAlignConfig(size=14, strides=(16,))

# Published baselines under modern conventions


def baseline(row: Row) -> Recipe:
    """The recipe of a published row."""
    given = row.model.startswith("fast-")
    return compose(
        row,
        DetectorConfig(
            preprocess=preprocess_of(row),
            backbone=backbone_of(row),
            neck=FPNConfig() if row.kind == "fpn" else None,
            dense_head=None if given else rpn_of(row),
            roi_head=second_stage_of(row),
        ),
        data=COCO_WITH_PROPOSALS if given else COCO,
        evaluation=EVALUATIONS[row.model],
    )


def rpn_of(row: Row) -> RPNConfig:
    """The first stage of a row's model."""
    alone = row.model == "rpn"
    if row.kind == "fpn":
        # The table of published settings has 1000 per level for the RPN alone; the reference results show 2000.
        return RPNConfig(test_limits=ProposalLimits(before_nms=2000 if alone else 1000, after_nms=1000))
    return RPNConfig(
        channels=1024,
        anchors=GridAnchorsConfig(scales=(2.0, 4.0, 8.0, 16.0, 32.0)),
        allowed_border=0 if row.model == "mask-rcnn" else -1,
        train_limits=ProposalLimits(before_nms=12000, after_nms=2000),
        test_limits=ProposalLimits(before_nms=12000, after_nms=2000) if alone else ProposalLimits(before_nms=6000),
    )


def second_stage_of(row: Row) -> RCNNHeadConfig | None:
    """The RoI head on FPN, or on C4 with ResNet's last stage as its trunk. None for an RPN alone."""
    if row.model == "rpn":
        return None
    masks = row.model.endswith("mask-rcnn")
    if row.kind == "c4":
        return RCNNHeadConfig(
            roi_pool=C4_POOL,
            trunk=c4_trunk_of(row),
            box_head=FCBoxHeadConfig(num_fcs=0),
            mask_head=ConvMaskHeadConfig(num_convs=0) if masks else None,
        )
    if not masks:
        return RCNNHeadConfig()
    # The reference enables low-quality matches in the second stage of Mask R-CNN on FPN only.
    return RCNNHeadConfig(
        assigner=MaxIoUAssignerConfig(low_quality=True),
        mask_roi_pool=RoIAlignConfig(size=14),
        mask_head=ConvMaskHeadConfig(),
    )


def mmdet1(row: Row) -> Recipe:
    """The recipe of a published row with the conventions of mmdet 0.x and 1.x, and their losses."""
    recipe = baseline(row)
    rpn, head = recipe.detector.dense_head, recipe.detector.roi_head
    if isinstance(rpn, RPNConfig):
        rpn = rpn_of_2019(rpn)
    if isinstance(head, RCNNHeadConfig):
        assigner = MaxIoUAssignerConfig(low_quality=True)
        head = evolve(head, assigner=assigner, box_loss=SmoothL1Config())
    return as_mmdet1(evolve(recipe, detector=evolve(recipe.detector, dense_head=rpn, roi_head=head)), row.name)


def rpn_of_2019(rpn: RPNConfig) -> RPNConfig:
    """An RPN that ignores anchors across the image border, has a smooth L1 loss, and trains with 2000 proposals."""
    return evolve(
        rpn,
        box_loss=SmoothL1Config(beta=1 / 9),
        allowed_border=0,
        train_limits=ProposalLimits(before_nms=rpn.train_limits.before_nms, after_nms=2000),
    )


def with_norm(detector: DetectorConfig, norm: NormConfig, conv: ConvConfig | None = None) -> DetectorConfig:
    """A norm in backbone, FPN and heads, and a box head of four convolutions and one fully connected layer.

    conv: of all convolutions; None: plain ones.
    """
    backbone, head, conv = detector.backbone, detector.roi_head, conv or Conv2dConfig()
    assert isinstance(backbone, ResNetConfig)
    assert isinstance(head, RCNNHeadConfig)
    head = evolve(head, box_head=FCBoxHeadConfig(num_convs=4, num_fcs=1, norm=norm, conv=conv))
    if head.mask_head is not None:
        head = evolve(head, mask_head=ConvMaskHeadConfig(norm=norm, conv=conv))
    return evolve(
        detector,
        backbone=evolve(backbone, norm=norm, conv=conv),
        neck=FPNConfig(norm=norm, conv=conv),
        roi_head=head,
    )


# torchvision's `fasterrcnn_resnet50_fpn` and `maskrcnn_resnet50_fpn`, for weights that it trained

TORCHVISION_MODELS = {"faster-rcnn": "boxes", "mask-rcnn": "boxes and masks"}


def torchvision_recipe(model: str) -> Recipe:
    """The model with all conventions in which torchvision differs from the published baselines."""
    box_loss = SmoothL1Config(beta=1 / 9)
    roi_pool = RoIAlignConfig(size=7, sampling=2, alignment="unaligned", level_rule="torchvision")
    masks = model == "mask-rcnn"
    return compose_torchvision(
        f"{model}/torchvision-r50-fpn",
        DetectorConfig(
            backbone=TORCHVISION_R50,
            neck=FPNConfig(),
            dense_head=RPNConfig(
                anchors=GridAnchorsConfig(rounded=True, spacing="image"),
                coder=DeltaCoderConfig(clip_shrinking=False),
                assigner=MaxIoUAssignerConfig(
                    positive=0.7, negative=0.3, low_quality=True, min_positive=0.0, low_quality_object="nearest"
                ),
                box_loss=box_loss,
                min_size=0.001,
                train_limits=ProposalLimits(before_nms=2000, after_nms=2000),
                test_limits=ProposalLimits(before_nms=1000, after_nms=1000),
            ),
            roi_head=RCNNHeadConfig(
                roi_pool=roi_pool,
                mask_roi_pool=evolve(roi_pool, size=14) if masks else None,
                mask_head=ConvMaskHeadConfig() if masks else None,
                coder=DeltaCoderConfig(stds=(0.1, 0.1, 0.2, 0.2), clip_shrinking=False),
                box_loss=box_loss,
                min_size=0.01,
                nms_in="network",
                mask_paste="resized",
            ),
        ),
        evaluation=EVALUATIONS[model],
        lr=0.02,
    )


# Its `fasterrcnn_resnet50_fpn_v2` and `maskrcnn_resnet50_fpn_v2`

# Of the weights COCO_V1 (pytorch/vision, pull requests 5763 and 5773).
V2_NOTE = (
    "trained by torchvision from random weights for 400 epochs, with large-scale jitter and synchronised batch norm, "
    "as by the recipe ...-v2-400e, unlike this one, which is for fine-tuning"
)
PUBLISHED_V2 = {
    "faster-rcnn": Published(box_ap=46.7, source="torchvision, COCO_V1", note=V2_NOTE),
    "mask-rcnn": Published(box_ap=47.4, mask_ap=41.8, source="torchvision, COCO_V1", note=V2_NOTE),
}


def torchvision_v2_recipe(model: str) -> Recipe:
    """The model with batch norm everywhere but in the RPN, which has two convolutions, and with larger heads."""
    recipe = torchvision_recipe(model)
    detector = with_norm(evolve(recipe.detector, backbone=TORCHVISION_R50_V2), BatchNormConfig(synchronised=True))
    made = evolve(recipe, name=f"{recipe.name}-v2", detector=detector, published=PUBLISHED_V2[model])
    return evolve_part(made, "dense_head", num_convs=2)


# Demos: small models that train on the bundled sample from random weights in minutes on a CPU

DEMO_RPN = RPNConfig(
    channels=64,
    anchors=GridAnchorsConfig(scales=(4.0,)),  # nuclei are small: anchors of 16 pixels and more
    train_limits=ProposalLimits(before_nms=400, after_nms=200),
    test_limits=ProposalLimits(before_nms=400, after_nms=200),
)


def demo_recipe(model: str) -> Recipe:
    """The model with ResNet-18 and a narrow FPN. Fast R-CNN requires proposals of the RPN (`det-core proposals`)."""
    recipe = baseline(Row(model=model, network="r50", kind="fpn", schedule="1x"))
    roi_head = recipe.detector.roi_head
    if isinstance(roi_head, RCNNHeadConfig):
        roi_head = evolve(
            roi_head,
            box_head=FCBoxHeadConfig(fc_channels=256),
            sampler=RandomSamplerConfig(count=96, positive_fraction=0.25),
            mask_head=None if roi_head.mask_head is None else ConvMaskHeadConfig(num_convs=2, channels=64),
        )
    return sample_recipe(
        f"{model}/r18-fpn-demo",
        DetectorConfig(
            backbone=DEMO_R18,
            neck=FPNConfig(channels=64, norm=DEMO_R18.norm),
            dense_head=None if recipe.detector.dense_head is None else DEMO_RPN,
            roi_head=roi_head,
        ),
        evolve(recipe.evaluation, every_epochs=10),
        lr=0.02,
    )


def c4_demo() -> Recipe:
    """Faster R-CNN on one map at stride 16, with the last stage as the RoI head's trunk.

    Nuclei are small for this stride, so images are larger than in the other demos. The batch size is one, for many
    steps in few epochs.
    """
    recipe = demo_recipe("faster-rcnn")
    resize = ResizeConfig(scales=((512, 512),))
    return evolve(
        recipe,
        name="faster-rcnn/r18-c4-demo",
        data=evolve(
            recipe.data,
            train_transforms=(resize, FlipConfig(vertical_probability=0.5)),
            test_transforms=(resize,),
            images_per_rank=1,
        ),
        detector=DetectorConfig(
            backbone=evolve(DEMO_R18, stages=(3,)),
            dense_head=evolve(DEMO_RPN, channels=128, anchors=GridAnchorsConfig(scales=(1.0, 2.0, 4.0))),
            roi_head=RCNNHeadConfig(
                roi_pool=RoIAlignConfig(size=6, strides=(16,)),
                trunk=ResNetStageConfig(depth=18, norm=DEMO_R18.norm),
                box_head=FCBoxHeadConfig(num_fcs=0),
                sampler=RandomSamplerConfig(count=64, positive_fraction=0.25),
            ),
        ),
        optimizer=AdamWConfig(lr=5e-4, lr_batch=0, weight_decay=0.01),
        schedule=evolve(recipe.schedule, epochs=20, learning_rate=StepRateConfig(milestones=(16, 19))),
    )


def demo_entries(make: Callable[[str], Recipe], summaries: Mapping[str, str], demo: str) -> list[RecipeEntry]:
    """The entries of one demo per model; `demo` is the model that `--plugin` selects without `--data`."""
    return [
        RecipeEntry(
            name=f"{model}/r18-fpn-demo",
            make=partial(make, model),
            demo=model == demo,
            summary=f"{summary}, small, on the bundled sample",
        )
        for model, summary in summaries.items()
    ]


ENTRIES = (
    *(
        RecipeEntry(
            name=f"{model}/torchvision-r50-fpn",
            make=partial(torchvision_recipe, model),
            summary=what,
            weights_of="torchvision",
            published_weights=f"torchvision:{model.replace('-', '')}_resnet50_fpn",
        )
        for model, what in TORCHVISION_MODELS.items()
    ),
    *(
        RecipeEntry(
            name=f"{model}/torchvision-r50-fpn-v2",
            make=partial(torchvision_v2_recipe, model),
            published=PUBLISHED_V2[model],
            summary=f"{what}, second version",
            weights_of="torchvision",
            published_weights=f"torchvision:{model.replace('-', '')}_resnet50_fpn_v2",
        )
        for model, what in TORCHVISION_MODELS.items()
    ),
    *zoo_entries(
        ROWS, baseline, default="mask-rcnn/r50-fpn-1x", summary=lambda row: SUMMARIES[row.model], mmdet1=mmdet1
    ),
    *demo_entries(demo_recipe, {m: s for m, s in SUMMARIES.items() if m != "fast-mask-rcnn"}, demo="mask-rcnn"),
    RecipeEntry(
        name="faster-rcnn/r18-c4-demo",
        make=c4_demo,
        summary=f"{SUMMARIES['faster-rcnn']}, on one map with a shared last stage, on the bundled sample",
    ),
)
