"""Contract checks of data sets.

Letters: N images, n objects of one image, H W its size, K classes. Boxes are xyxy in pixels of the image.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from det_core.contracts import DetectionDataset, Sample
from det_core.slots import DatasetConfig
from det_core.structures import UNLABELLED
from det_core.testing.config_checks import check_config, equal, who
from det_core.testing.sample_checks import bitmaps, check_pickled, check_same, check_tensor

ROUNDING = 1.5  # pixels by which a sample's box and the ground truth's may differ


def check_dataset(
    config: DatasetConfig, root: str | Path = "", *, masks: bool = False, semantic: bool = False, limit: int = 8
) -> None:
    """Check a data set's lists, its samples, its ground truth, and that loader processes can be sent it.

    root: the folder that it is opened in. masks, semantic: also load instance masks, semantic maps. limit: samples that
    are read, the first ones.
    """
    check_config(config)
    dataset = config.build(str(root), masks=masks, semantic=semantic)
    _check_lists(config, dataset)
    truth = dataset.ground_truth()
    assert truth is not dataset.ground_truth(), (
        f"{who(config)}: ground_truth() gives the same dict twice; make a new one"
    )
    _check_truth(config, dataset, truth)
    indices = range(min(len(dataset), limit))
    for index in indices:
        sample = dataset.load(index)
        _check_sample(config, dataset, index, sample, masks=masks, semantic=semantic)
        _check_sample_in_truth(config, dataset, index, sample, truth)
    sent = check_pickled(config, dataset)
    for index in indices[:1]:
        check_same(config, "its copy loads", dataset.load(index), sent.load(index))


def _check_lists(config: object, dataset: DetectionDataset) -> None:
    count = len(dataset)
    assert count, f"{who(config)}: it has no images"
    assert dataset.name, f"{who(config)}: it has no `name`, which messages use"
    equal(config, "shape and type of sizes", (dataset.sizes.shape, dataset.sizes.dtype.name), ((count, 2), "int64"))
    found = (dataset.image_ids.shape, dataset.image_ids.dtype.name)
    equal(config, "shape and type of image_ids", found, ((count,), "int64"))
    equal(config, "number of different image_ids", len(np.unique(dataset.image_ids)), count)
    assert len(dataset.classes), f"{who(config)}: it has no classes"
    equal(config, "number of different ids of classes", len(set(dataset.classes.ids)), len(dataset.classes))
    assert isinstance(dataset.skipped, list), f"{who(config)}: `skipped` is no list of BadSample"


def _check_sample(
    config: object, dataset: DetectionDataset, index: int, sample: Sample, *, masks: bool, semantic: bool
) -> None:
    where, n = f"of sample {index}", len(sample.boxes)
    height, width = map(int, dataset.sizes[index])
    assert Path(dataset.file(index)).is_file(), f"{who(config)}: the file {where} does not exist: {dataset.file(index)}"
    equal(config, f"file {where}", sample.file, dataset.file(index))
    equal(config, f"image_id {where}", sample.image_id, int(dataset.image_ids[index]))
    check_tensor(config, f"image {where}", sample.image, (3, height, width), torch.uint8)
    check_tensor(config, f"boxes {where}", sample.boxes, (n, 4), torch.float32)
    check_tensor(config, f"labels {where}", sample.labels, (n,), torch.int64)
    check_tensor(config, f"ignored {where}", sample.ignored, (n,), torch.bool)
    inside = (sample.boxes >= 0) & (sample.boxes <= torch.tensor([width, height, width, height]))
    assert bool(inside.all()), f"{who(config)}: boxes {where} leave the image, which is {width}x{height}"
    sides = sample.boxes[:, 2:] - sample.boxes[:, :2]
    assert bool((sides > 0).all()), f"{who(config)}: boxes {where} have no area"
    known = (sample.labels >= 0) & (sample.labels < len(dataset.classes))
    assert bool(known.all()), f"{who(config)}: labels {where} are outside 0..{len(dataset.classes) - 1}"
    equal(config, "has_masks", dataset.has_masks, dataset.has_masks or masks)
    if masks:
        assert sample.masks is not None, f"{who(config)}: sample {index} has no masks"
        check_tensor(config, f"masks {where}", bitmaps(sample), (n, height, width), torch.uint8)
    if semantic:
        assert sample.semantic is not None, f"{who(config)}: sample {index} has no semantic map"
        check_tensor(config, f"semantic map {where}", sample.semantic, (height, width), torch.uint8)
        ids = sample.semantic.unique().tolist()
        wrong = [i for i in ids if not (i < dataset.semantic_classes or i == UNLABELLED)]
        assert not wrong, f"{who(config)}: the semantic map {where} has ids {wrong}, of {dataset.semantic_classes}"


def _check_truth(config: object, dataset: DetectionDataset, truth: dict[str, Any]) -> None:
    """Check the ground truth's form, and that its images and categories are those of the data set."""
    for part in ("images", "annotations", "categories"):
        assert part in truth, f"{who(config)}: ground_truth() has no {part!r}"
    equal(
        config, "ids of ground_truth()'s categories", tuple(c["id"] for c in truth["categories"]), dataset.classes.ids
    )
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    expected = dict(zip(dataset.image_ids.tolist(), map(tuple, dataset.sizes.tolist()), strict=True))
    equal(config, "(height, width) of ground_truth()'s images by id", sizes, expected)
    keys = {"id", "image_id", "category_id", "bbox", "area", "iscrowd"}
    for record in truth["annotations"]:
        assert keys <= record.keys(), (
            f"{who(config)}: annotations of ground_truth() lack {sorted(keys - record.keys())}"
        )
        assert record["image_id"] in sizes, f"{who(config)}: an annotation is of image {record['image_id']}, unknown"
    numbers = [record["id"] for record in truth["annotations"]]
    equal(config, "number of different ids of annotations", len(set(numbers)), len(numbers))


def _check_sample_in_truth(
    config: object, dataset: DetectionDataset, index: int, sample: Sample, truth: dict[str, Any]
) -> None:
    """Check that every object of a sample is in the ground truth: its box, class, and whether it is ignored."""
    own = [record for record in truth["annotations"] if record["image_id"] == sample.image_id]
    rows = zip(sample.boxes.tolist(), sample.labels.tolist(), sample.ignored.tolist(), strict=True)
    for box, label, ignored in rows:
        x1, y1, x2, y2 = box
        category = dataset.classes.ids[label]
        same = [
            record
            for record in own
            if record["category_id"] == category
            and bool(record["iscrowd"]) == ignored
            and max(abs(a - b) for a, b in zip(record["bbox"], (x1, y1, x2 - x1, y2 - y1), strict=True)) < ROUNDING
        ]
        assert same, (
            f"{who(config)}: sample {index} has a box {[round(v, 1) for v in box]} of category {category} "
            f"(ignored: {ignored}), which ground_truth() has not; its `bbox` is x, y, width, height"
        )
