"""Proposals files of mmdet: a pickled list with the boxes of every image of the annotation file, in its order.

Letters: N images, p boxes of one image.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from det_core.data.proposals_file import ImageProposals
from det_core.errors import DataError
from det_core.weights.read_files import read_arrays

if TYPE_CHECKING:
    from det_core.contracts import DetectionDataset

BEYOND = 1.0  # pixels that a box may end outside its image; it is clipped


def read_mmdet_proposals(path: str | Path, dataset: DetectionDataset, *, inclusive: bool) -> list[ImageProposals]:
    """Read a proposals file of mmdet for all images of a data set, without running code in it.

    Args:
        path: the pickle: a list of N arrays (p, 5) of x1, y1, x2, y2 and score, or (p, 4), whose scores become 1.
        dataset: all images of the annotation file, in its order.
        inclusive: whether x2 and y2 are the last pixel, as in mmdet 0.x and 1.x.

    Raises:
        DataError: for a file that is missing, damaged or has another content, another number of images, or boxes that
            do not lie in their images.
    """
    path = Path(path)
    lists = _lists(path, read_arrays(path))
    if len(lists) != len(dataset):
        raise DataError(
            f"{path}: boxes of {len(lists)} images, but {dataset.name} has {len(dataset)}; such a file has no names, "
            "only the order of the annotation file that it was made with; give the data with that file"
        )
    return [_image(path, row, boxes, dataset, inclusive) for row, boxes in enumerate(lists)]


def _lists(path: Path, content: Any) -> Sequence[Any]:
    if not isinstance(content, (list, tuple)):
        raise DataError(f"{path}: holds a {type(content).__name__}, expected a list with an array of boxes per image")
    return content


def _image(path: Path, row: int, found: Any, dataset: DetectionDataset, inclusive: bool) -> ImageProposals:
    size = int(dataset.sizes[row][0]), int(dataset.sizes[row][1])
    where = f"{path}: image {row} (id {int(dataset.image_ids[row])})"
    array = found if isinstance(found, np.ndarray) else None
    if array is None or array.ndim != 2 or array.shape[1] not in (4, 5) or not np.issubdtype(array.dtype, np.floating):
        what = type(found).__name__ if array is None else f"{array.dtype} of shape {array.shape}"
        raise DataError(f"{where}: found {what}, expected floats of shape (p, 5) or (p, 4)")
    values = torch.from_numpy(np.ascontiguousarray(array, np.float32))
    boxes, scores = values[:, :4].clone(), values[:, 4] if array.shape[1] == 5 else torch.ones(len(values))
    if inclusive:
        boxes[:, 2:] += 1
    order = scores.argsort(descending=True, stable=True)
    return ImageProposals(
        image_id=int(dataset.image_ids[row]),
        file=dataset.file(row),
        size=size,
        boxes=_clipped(where, boxes[order], size),
        scores=scores[order],
    )


def _clipped(where: str, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes (p, 4) clipped to the image, which they leave only because sides were rounded when it was resized."""
    limits = torch.tensor([size[1], size[0], size[1], size[0]], dtype=torch.float32)
    inside = boxes.clamp(min=0).minimum(limits)
    furthest = (boxes - inside).abs().max().item() if len(boxes) else 0.0
    if not furthest <= BEYOND:  # also of boxes that are not finite
        raise DataError(
            f"{where}: a box extends {furthest:.1f} pixels beyond its image of {size[1]}x{size[0]} pixels; is this the "
            "annotation file that the proposals were made with?"
        )
    return inside
