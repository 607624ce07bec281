"""torchvision's `ssd300_vgg16` as a recipe, for weights that it trained.

Every convention in which it departs from the published baselines is set here (torchvision/models/detection, read in
version 0.29).
"""

from __future__ import annotations

from det_core.boxes.config import DeltaCoderConfig
from det_core.data.config import ResizeConfig
from det_core.model.detector_config import PreprocessConfig
from det_core.offers import RecipeEntry
from det_core.recipe import Recipe
from det_core.settings import evolve
from det_plugin_ssd.config import COCO_300, SSDHeadConfig
from det_plugin_ssd.zoo import ROWS, detector, zoo_recipe

NAME = "ssd/torchvision-vgg16-300"
RESIZE = ResizeConfig(scales=((300, 300),), keep_ratio=False, arithmetic="float")
MEAN = (0.48235 * 255, 0.45882 * 255, 0.40784 * 255)


def torchvision_recipe() -> Recipe:
    """Sides of anchors cut to the image, the best 400 anchors of each class, suppression in network pixels."""
    head = SSDHeadConfig(
        anchors=evolve(COCO_300, longest=300.0),
        coder=DeltaCoderConfig(stds=(0.1, 0.1, 0.2, 0.2), clip_shrinking=False),
        candidates="class",
        before_nms=400,
        score_threshold=0.01,
        min_size=-1.0,
        nms_in="network",
    )
    zoo = zoo_recipe(ROWS[0])
    config = detector(300, head)
    train = tuple(RESIZE if isinstance(t, ResizeConfig) else t for t in zoo.data.train_transforms)
    return evolve(
        zoo,
        name=NAME,
        detector=evolve(config, preprocess=PreprocessConfig(mean=MEAN, std=(1.0, 1.0, 1.0), pad_divisor=1)),
        data=evolve(zoo.data, train_transforms=train, test_transforms=(RESIZE,)),
        published=None,
    )


TORCHVISION_ENTRY = RecipeEntry(
    name=NAME, make=torchvision_recipe, summary="boxes, with torchvision's conventions, for its weights"
)
