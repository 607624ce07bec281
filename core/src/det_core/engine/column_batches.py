"""Batches of columns, as Ray Data's `map_batches`, Spark's and Daft's batch functions pass them to a `Predictor`.

In: a dict of arrays of one length N. The images are in the column `image` ((N, h, w, 3) uint8, or N objects of any form
that a predictor takes), `bytes` (contents of image files) or `path`. Out: a dict of arrays of length N: the other
columns unchanged, and

    boxes    N arrays (n, 4) float32, xyxy in pixels of the original image, best first
    scores   N arrays (n,) float32
    labels   N arrays (n,) int64
    classes  N arrays (n,) of the labels' names
    masks    if the detector has masks, N arrays (n,) of COCO's compressed run-length codes
    error    N texts: why the image cannot be read, otherwise empty; it then has no detections

Letters: N images in a batch, n detections of one image, h w size of an image.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from det_core.errors import DetError
from det_core.structures import Classes, Detections

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from det_core.engine.image_inputs import Image

NAMES = ("image", "bytes", "path")  # of the column with the images, in this order


def images_of(columns: Mapping[str, NDArray[Any]], column: str | None) -> tuple[str, Sequence[Image]]:
    """The name of the column with the N images, and the images (h, w).

    column: its name; None: the first of `NAMES`.

    Raises:
        DetError: if there is no such column, or the columns have different lengths.
    """
    wanted = NAMES if column is None else (column,)
    name = next((name for name in wanted if name in columns), None)
    if name is None:
        raise DetError(
            f"columns: found {', '.join(columns) or 'none'}, expected one with images: {' or '.join(wanted)}; name it "
            "with Predictor(..., column=NAME)"
        )
    lengths = {key: len(value) for key, value in columns.items()}
    if len(set(lengths.values())) > 1:
        raise DetError(f"columns have different lengths: {', '.join(f'{k} {n}' for k, n in lengths.items())}")
    return name, [str(value) if isinstance(value, np.str_) else value for value in columns[name]]


def found_columns(
    columns: Mapping[str, NDArray[Any]],
    images: str,
    found: Iterator[Detections],
    errors: Sequence[str],
    classes: Classes,
) -> dict[str, NDArray[Any]]:
    """The columns that go out.

    Args:
        columns: that came in. images: the name of the one with the images, which is left out unless it has paths.
        found: the detections of the images that could be read, in their order.
        errors: why an image cannot be read, or "".
        classes: of the labels.
    """
    none = Detections(boxes=torch.zeros(0, 4), scores=torch.zeros(0), labels=torch.zeros(0, dtype=torch.int64))
    rows = [none if error else next(found) for error in errors]
    arrays = [_without_masks(row).to_numpy() for row in rows]
    kept = {name: value for name, value in columns.items() if name != images or images == "path"}
    made = {name: _column([row[name] for row in arrays]) for name in ("boxes", "scores", "labels")}
    made["classes"] = _column([np.array([classes.names[i] for i in row["labels"]], np.str_) for row in arrays])
    if any(row.has_masks for row in rows):
        codes = [[code["counts"] for code in row.mask_codes() or ()] for row in rows]
        made["masks"] = _column([np.array(texts, np.str_) for texts in codes])
    return {**kept, **made, "error": np.array(errors, np.str_)}


def _without_masks(found: Detections) -> Detections:
    return Detections(boxes=found.boxes, scores=found.scores, labels=found.labels)


def _column(rows: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """N arrays of any shapes as one array of objects: numpy would stack those of one shape."""
    column = np.empty(len(rows), dtype=object)
    for number, row in enumerate(rows):
        column[number] = row
    return column
