"""A data set of three small images in memory, for the checks of evaluators and transforms.

Letters: n objects of one image, H W its size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from det_core.compressed_masks import CompressedMasks
from det_core.contracts import DetectionDataset, Sample
from det_core.structures import Classes, Detections
from det_core.testing.tiny_inputs import filled_masks

SIZE = (96, 128)
# Apart from each other, and none where a mirrored one would be.
BOXES = ((6.0, 5.0, 30.0, 21.0), (70.0, 4.0, 92.0, 20.0), (5.0, 53.0, 27.0, 69.0), (68.0, 54.0, 91.0, 69.0))
LABELS = (0, 1, 2, 3)
CROWD = 3  # the label of the ignored object
BACKGROUND = 4  # its id in semantic maps; objects have their labels
LIGHT, DARK = (220, 200, 170), (30, 50, 40)  # colours of objects and background


class TinyDataset(DetectionDataset):
    """Light objects on a dark background: four in images 11 and 22, the last one a crowd region, and none in 33.

    They have masks that fill their boxes, and a semantic map.
    """

    def __init__(self) -> None:
        self.name, self.skipped, self.has_masks, self.semantic_classes = "tiny", [], True, BACKGROUND + 1
        self.classes = Classes(names=("nut", "bolt", "screw", "nail"), ids=(2, 3, 5, 7))
        self.image_ids = np.array([11, 22, 33], np.int64)
        self.sizes = np.array([SIZE] * 3, np.int64)

    def file(self, index: int) -> str:
        return f"{self.image_ids[index]}.png"

    def load(self, index: int) -> Sample:
        return make_sample(empty=index == 2, file=self.file(index), image_id=int(self.image_ids[index]))

    def ground_truth(self) -> dict[str, Any]:
        samples = [self.load(index) for index in range(len(self))]
        records = [record for sample in samples for record in self._records(sample)]
        return {
            "info": {},
            "categories": self.classes.categories(),
            "images": [{"id": s.image_id, "height": 96, "width": 128, "file_name": s.file} for s in samples],
            "annotations": [{**record, "id": number} for number, record in enumerate(records, 1)],
        }

    def _records(self, sample: Sample) -> list[dict[str, Any]]:
        truth = Detections(boxes=sample.boxes, scores=torch.ones(len(sample.boxes)), labels=sample.labels)
        codes = CompressedMasks.of_bitmaps(filled_masks(sample.boxes, SIZE))
        truth = Detections(boxes=truth.boxes, scores=truth.scores, labels=truth.labels, masks=codes)
        return [
            {
                "image_id": record["image_id"],
                "category_id": record["category_id"],
                "bbox": record["bbox"],
                "segmentation": record["segmentation"],
                "area": record["bbox"][2] * record["bbox"][3],
                "iscrowd": int(record["category_id"] == self.classes.ids[CROWD]),
            }
            for record in truth.to_coco(sample.image_id, self.classes)
        ]


def make_sample(*, masks: bool = True, empty: bool = False, file: str = "11.png", image_id: int = 11) -> Sample:
    """An image (3, 96, 128) with four objects or none, in which every object has a label of its own."""
    boxes = torch.tensor(() if empty else BOXES).reshape(-1, 4)
    labels = torch.tensor(() if empty else LABELS, dtype=torch.int64)
    bitmaps = filled_masks(boxes, SIZE)
    objects = bitmaps.bool().any(0)
    image = torch.where(objects, torch.tensor(LIGHT)[:, None, None], torch.tensor(DARK)[:, None, None])
    semantic = torch.full(SIZE, BACKGROUND, dtype=torch.uint8)
    for bitmap, label in zip(bitmaps, labels.tolist(), strict=True):
        semantic[bitmap.bool()] = label
    return Sample(
        image=image.to(torch.uint8),
        boxes=boxes,
        labels=labels,
        ignored=labels == CROWD,
        masks=bitmaps if masks else None,
        semantic=semantic,
        file=file,
        image_id=image_id,
    )


def perfect_detections(sample: Sample) -> Detections:
    """The objects of a sample that are not ignored as detections, with masks, best first."""
    keep = ~sample.ignored
    count = int(keep.sum())
    assert isinstance(sample.masks, torch.Tensor)
    return Detections(
        boxes=sample.boxes[keep],
        scores=torch.linspace(0.9, 0.6, count) - 0.001 * (sample.image_id % 10),
        labels=sample.labels[keep],
        masks=sample.masks[keep].bool(),
    )
