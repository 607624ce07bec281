"""The cost of a detector: parameters, and FLOPs of one test image.

Letters: H W input size, R proposals. Boxes are xyxy in pixels of the padded network input.
"""

from __future__ import annotations

from typing import Any

import torch
from attrs import frozen
from torch.utils.flop_counter import FlopCounterMode

from det_core.boxes.spread_boxes import spread_boxes
from det_core.contracts import ProposalHead
from det_core.data.class_choice import class_entries
from det_core.data.data_config import ResizeConfig, SampleConfig, VocConfig
from det_core.data.dataset_settings import RecordSettings
from det_core.model.detector import Detector, build_detector
from det_core.model.detector_config import DetectorConfig
from det_core.recipe import Recipe
from det_core.settings import evolve
from det_core.structures import Batch, ImageInfo

PROPOSALS = 1000  # proposals per image if no head sets their number
COCO_CLASSES, VOC_CLASSES, SAMPLE_CLASSES = 80, 20, 1


@frozen
class Cost:
    """The cost of one detector.

    parameters: number of values. trainable: those that training changes. flops: of an image of `size` (H, W), by part
    (backbone, neck, dense_head, roi_head), as torch.utils.flop_counter counts: two per multiply-add of convolutions and
    matrix products, none for other operations.
    """

    parameters: int
    trainable: int
    size: tuple[int, int]
    flops: dict[str, int]

    @property
    def total_flops(self) -> int:
        """The FLOPs of all parts."""
        return sum(self.flops.values())


def recipe_cost(recipe: Recipe, size: tuple[int, int] | None = None) -> Cost:
    """The cost of a recipe's detector with the classes of its data set.

    size: (H, W) of the image; by default the recipe's test size, with the short edge as the height.
    """
    return measure_cost(recipe.detector, class_count(recipe), size or size_at_test(recipe))


def class_count(recipe: Recipe) -> int:
    """The number of classes of a recipe's data set, without opening it: that of COCO, VOC or the sample."""
    data = recipe.data.val or recipe.data.train
    if isinstance(data, (RecordSettings, SampleConfig, VocConfig)) and data.classes is not None:
        return len({entry.new for entry in class_entries(data.classes)})
    if isinstance(data, SampleConfig):
        return SAMPLE_CLASSES
    if isinstance(data, VocConfig):
        return VOC_CLASSES
    return COCO_CLASSES


def size_at_test(recipe: Recipe) -> tuple[int, int]:
    """(H, W) of the largest test image of a recipe, before padding."""
    resize = next((t for t in recipe.data.test_transforms if isinstance(t, ResizeConfig)), ResizeConfig())
    long, short = resize.scales[0]
    return short, long


def measure_cost(config: DetectorConfig, num_classes: int, size: tuple[int, int]) -> Cost:
    """Count parameters, and FLOPs of one image of `size` (H, W) before padding.

    Backbone, neck and dense head run on torch's meta device, without computation. A RoI head computes, with the test
    number of proposals and without score threshold, which gives the upper bound.
    """
    with torch.device("meta"):
        detector = build_detector(config, num_classes, None).eval()
    flops: dict[str, int] = {}
    divisor = config.preprocess.pad_divisor
    padded = [-(-side // divisor) * divisor for side in size]
    infos = (ImageInfo(size=size, original_size=size),)
    batch = Batch(images=torch.zeros(1, len(config.preprocess.mean), *padded, device="meta"), infos=infos)
    with torch.no_grad():
        maps = _counted(flops, "backbone", detector.backbone, batch.images)
        if detector.neck is not None:
            maps = _counted(flops, "neck", detector.neck, maps)
        if detector.dense_head is not None:
            _counted(flops, "dense_head", detector.dense_head, maps)
        if config.roi_head is not None:
            _count_regions(flops, config, detector, num_classes, [tuple(x.shape) for x in maps], batch)
    parameters = list(detector.parameters())
    return Cost(
        parameters=sum(p.numel() for p in parameters),
        trainable=sum(p.numel() for p in parameters if p.requires_grad),
        size=size,
        flops=flops,
    )


def _counted(flops: dict[str, int], part: str, call: Any, *args: Any) -> Any:
    with FlopCounterMode(display=False) as counter:
        result = call(*args)
    flops[part] = counter.get_total_flops()
    return result


def _count_regions(
    flops: dict[str, int],
    config: DetectorConfig,
    detector: Detector,
    num_classes: int,
    shapes: list[tuple[int, ...]],
    batch: Batch,
) -> None:
    """Run the RoI head on real tensors, all 0 except the boxes, since its number of detections depends on values."""
    assert config.roi_head is not None
    head_config: Any = config.roi_head
    if hasattr(head_config, "score_threshold"):
        head_config = evolve(head_config, score_threshold=0.0)
    head: Any = head_config.build(config.feature_spec(), num_classes).eval()
    maps = [torch.zeros(shape).contiguous(memory_format=torch.channels_last) for shape in shapes]
    count = PROPOSALS
    if isinstance(detector.dense_head, ProposalHead):
        count = detector.dense_head.test_limits.after_nms
    images = torch.zeros(1, 1, 1, 1).expand(batch.images.shape)
    given = Batch(images=images, infos=batch.infos)
    _counted(flops, "roi_head", head.predict, maps, [spread_boxes(count, batch.infos[0].size)], given)
