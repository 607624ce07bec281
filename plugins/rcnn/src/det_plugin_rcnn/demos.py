"""Small models that learn the bundled sample from random weights on a CPU in minutes."""

from __future__ import annotations

from det_core.boxes.config import GridAnchorsConfig, RandomSamplerConfig
from det_core.data.config import FlipConfig, ResizeConfig
from det_core.model.detector_config import DetectorConfig
from det_core.model.layer_config import GroupNormConfig, RoIAlignConfig
from det_core.recipe import OptimizerConfig, Recipe
from det_core.settings import evolve
from det_core.specs import ProposalLimits
from det_core.zoo import sample_recipe
from det_plugin_fpn.config import FPNConfig
from det_plugin_rcnn.config import ConvMaskHeadConfig, FCBoxHeadConfig, RCNNHeadConfig, RPNConfig
from det_plugin_rcnn.zoo import zoo_recipe
from det_plugin_resnet.config import ResNetConfig, ResNetStageConfig
from det_plugin_resnet.zoo import Row

DEMO_RPN = RPNConfig(
    channels=64,
    anchors=GridAnchorsConfig(scales=(4.0,)),  # nuclei are small: anchors of 16 pixels and more
    train_limits=ProposalLimits(before_nms=400, after_nms=200),
    test_limits=ProposalLimits(before_nms=400, after_nms=200),
)


def demo_recipe(model: str) -> Recipe:
    """A small model that learns the bundled sample from random weights on a CPU in minutes.

    Fast R-CNN takes the proposals that the RPN's demo leaves (`det-core proposals`).
    """
    norm = GroupNormConfig(groups=16)
    row = Row(model, "r50", "fpn", "1x")
    recipe = zoo_recipe(row)
    roi_head = recipe.detector.roi_head
    if isinstance(roi_head, RCNNHeadConfig):
        roi_head = evolve(
            roi_head,
            box_head=FCBoxHeadConfig(fc_channels=256),
            sampler=RandomSamplerConfig(count=96, positive_fraction=0.25),
        )
        if roi_head.mask_head is not None:
            roi_head = evolve(roi_head, mask_head=ConvMaskHeadConfig(num_convs=2, channels=64))
    return sample_recipe(
        f"{model}/r18-fpn-demo",
        DetectorConfig(
            backbone=ResNetConfig(depth=18, norm=norm, frozen_stages=-1),
            neck=FPNConfig(channels=64, norm=norm),
            dense_head=None if row.fast else DEMO_RPN,
            roi_head=roi_head,
        ),
        evolve(recipe.evaluation, every_epochs=10),
        lr=0.02,
    )


def c4_demo() -> Recipe:
    """Faster R-CNN on one map at stride 16, with the last stage shared by all regions.

    The nuclei are small for such a map, so the images are larger than in the other demos. A step is one image, to have
    many steps in few epochs.
    """
    norm = GroupNormConfig(groups=16)
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
            backbone=ResNetConfig(depth=18, stages=(3,), norm=norm, frozen_stages=-1),
            dense_head=evolve(DEMO_RPN, channels=128, anchors=GridAnchorsConfig(scales=(1.0, 2.0, 4.0))),
            roi_head=RCNNHeadConfig(
                roi_pool=RoIAlignConfig(size=6, strides=(16,)),
                trunk=ResNetStageConfig(depth=18, norm=norm),
                box_head=FCBoxHeadConfig(num_fcs=0),
                sampler=RandomSamplerConfig(count=64, positive_fraction=0.25),
            ),
        ),
        optimizer=OptimizerConfig(kind="adamw", lr=5e-4, lr_batch=0, weight_decay=0.01),
        schedule=evolve(recipe.schedule, epochs=20, milestones=(16, 19)),
    )
