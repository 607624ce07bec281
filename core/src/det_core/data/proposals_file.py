"""Proposals files: the boxes of an RPN on a data set, for detectors without a proposal head.

A file is safetensors, so that reading it runs no code and only the required parts are read. Letters: N images, P boxes
of all images, p boxes of one image. Boxes are float32 xyxy in pixels of the original images, best first in each image.

    image_ids (N,) int64, unique    sizes (N, 2) int64 (height, width)    names uint8, UTF-8, a line per image
    offsets (N + 1,) int64          boxes (P, 4) float32                  scores (P,) float32

The boxes of image i are offsets[i]..offsets[i + 1]. Names are those of the image files, without folder and suffix. The
header contains `format` and, as JSON, `facts`: the source of the boxes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attrs import field, frozen
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from det_core.contracts import DetectionDataset
from det_core.errors import DataError, first_few
from det_core.safe_write import replacing

FORMAT = "det proposals 1"
SUFFIX = ".safetensors"
CHUNK = 1 << 20  # boxes checked at a time
SLACK = 0.01  # pixels that a box may extend outside its image, due to rounding
MAKE = "make the file with `det-core proposals`"

DTYPES = {
    "image_ids": torch.int64,
    "sizes": torch.int64,
    "names": torch.uint8,
    "offsets": torch.int64,
    "boxes": torch.float32,
    "scores": torch.float32,
}


@frozen(eq=False)
class ImageProposals:
    """One image's boxes (p, 4) and scores (p,), best first; xyxy in pixels of the original, size (height, width).

    file: path of the image, of which the name is stored.
    """

    image_id: int
    file: str
    size: tuple[int, int]
    boxes: Tensor
    scores: Tensor


@frozen(eq=False, kw_only=True)
class Proposals:
    """An opened and checked proposals file; the module docstring describes its arrays."""

    file: Path
    image_ids: Tensor
    sizes: Tensor
    names: Tensor = field(repr=False)
    offsets: Tensor
    boxes: Tensor = field(repr=False)
    scores: Tensor = field(repr=False)
    facts: dict[str, Any] = field(factory=dict)

    def __len__(self) -> int:
        return len(self.image_ids)

    def of_row(self, row: int, limit: int | None = None) -> Tensor:
        """A copy of the best boxes (p, 4) of the image in this row, at most `limit`."""
        start, end = int(self.offsets[row]), int(self.offsets[row + 1])
        return self.boxes[start : end if limit is None else min(end, start + limit)].clone()

    def rows_of(self, dataset: DetectionDataset) -> NDArray[np.int64]:
        """The row of each image of a data set; DataError if the file lacks an image or has another with its id."""
        row_of = {number: row for row, number in enumerate(self.image_ids.tolist())}
        missing = [number for number in dataset.image_ids.tolist() if number not in row_of]
        if missing:
            raise DataError(
                f"{self.file}: has no proposals for {len(missing)} of {len(dataset)} images of {dataset.name} (image "
                f"ids {first_few(missing)}); {self._origin()}; {MAKE} --data and --split of this data set, with the "
                "same filter_empty and min_size"
            )
        rows = np.array([row_of[number] for number in dataset.image_ids.tolist()], np.int64)
        ours = [_described(_name(dataset.file(i)), dataset.sizes[i].tolist()) for i in range(len(dataset))]
        names, sizes = _lines(self.names), self.sizes.tolist()
        theirs = [_described(names[row], sizes[row]) for row in rows]
        differing = [index for index in range(len(ours)) if ours[index] != theirs[index]]
        if differing:
            first = differing[0]
            raise DataError(
                f"{self.file}: has the proposals of other images: image id {int(dataset.image_ids[first])} is "
                f"{theirs[first]} in it, but {ours[first]} in {dataset.name} ({len(differing)} of {len(dataset)} "
                f"differ); {self._origin()}; {MAKE} of this data set"
            )
        return rows

    def _origin(self) -> str:
        known = [f"{key} {self.facts[key]}" for key in ("dataset", "split", "checkpoint") if key in self.facts]
        return f"the file was made from {', '.join(known)}" if known else "the file does not record its source"


@frozen(eq=False)
class DatasetProposals:
    """The proposals of a data set's images. rows: (N,) int64, the row of each image. limit: maximum per image."""

    proposals: Proposals
    rows: NDArray[np.int64]
    limit: int | None

    @classmethod
    def open(cls, path: str | Path, dataset: DetectionDataset, limit: int | None) -> DatasetProposals:
        """Open a proposals file for a data set; DataError if it cannot be used or lacks an image."""
        proposals = read_proposals(path)
        return cls(proposals, proposals.rows_of(dataset), limit)

    def of_image(self, index: int) -> Tensor:
        """The boxes (p, 4) of an image of the data set."""
        return self.proposals.of_row(int(self.rows[index]), self.limit)


def write_proposals(path: str | Path, found: Sequence[ImageProposals], facts: Mapping[str, object]) -> None:
    """Check the proposals, write them to a temporary file and rename it.

    Args:
        path: the file; its folder is created if necessary.
        found: the images, in any order; they are stored by ascending id.
        facts: the source of the boxes, as JSON types.

    Raises:
        DataError: for boxes that `read_proposals` would reject.
    """
    path = Path(path)
    ordered = sorted(found, key=lambda image: image.image_id)
    counts = [len(image.boxes) for image in ordered]
    arrays = {
        "image_ids": torch.tensor([image.image_id for image in ordered], dtype=torch.int64),
        "sizes": torch.tensor([image.size for image in ordered], dtype=torch.int64).reshape(-1, 2),
        "names": torch.tensor([*"\n".join(_name(image.file) for image in ordered).encode()], dtype=torch.uint8),
        "offsets": torch.tensor([0, *counts], dtype=torch.int64).cumsum(0),
        "boxes": torch.cat([torch.zeros(0, 4), *(image.boxes.float().cpu() for image in ordered)]),
        "scores": torch.cat([torch.zeros(0), *(image.scores.float().cpu() for image in ordered)]),
    }
    _check(path, arrays)
    with replacing(path) as temporary:
        save_file(arrays, temporary, metadata={"format": FORMAT, "facts": json.dumps(dict(facts))})


def read_proposals(path: str | Path) -> Proposals:
    """Open and check a proposals file; boxes are read from the disk when they are used.

    Raises:
        DataError: for a missing or damaged file, or another kind of file, with what to do.
    """
    path = Path(path)
    _check_kind(path)
    try:
        with safe_open(path, framework="pt") as opened:
            metadata = opened.metadata() or {}
            names = set(opened.keys())
            arrays = {name: opened.get_tensor(name) for name in DTYPES if name in names}
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: not a proposals file, or truncated ({error}); {MAKE}") from None
    if metadata.get("format") != FORMAT:
        what = "weights of a detector" if "recipe" in metadata else f"format {metadata.get('format')!r}"
        raise DataError(f"{path}: found {what}, expected {FORMAT!r}; {MAKE} from a checkpoint of an RPN")
    missing = sorted(set(DTYPES) - names)
    if missing:
        raise DataError(f"{path}: damaged: no {', '.join(missing)} in it; {MAKE}")
    _check(path, arrays)
    return Proposals(file=path, facts=_facts(path, metadata), **arrays)


def proposals_path(root: str | Path, name: str) -> Path:
    """The path of a data set's `proposals`: relative to `root`, or absolute; DataError if it does not exist."""
    given = Path(name).expanduser()
    path = Path(root).expanduser() / given
    if path.is_file():
        return path
    here = given.resolve()
    remedy = f"use the path of {here}" if str(root) and here.is_file() else f"correct the path, or {MAKE}"
    where = f" (paths are relative to the data folder {root})" if str(root) and not given.is_absolute() else ""
    raise DataError(f"{path}: no such proposals file{where}; {remedy}")


def _name(file: str) -> str:
    """The name of an image file as stored in proposals files."""
    return Path(file).stem.replace("\n", " ")


def _described(name: str, size: Sequence[int]) -> str:
    return f"{name} of {size[1]}x{size[0]} pixels"


def _lines(text: Tensor) -> list[str]:
    """The lines of UTF-8 text; invalid bytes are replaced."""
    return text.numpy().tobytes().decode(errors="replace").split("\n")


def _check_kind(path: Path) -> None:
    """Raise DataError for a pickle or a missing file."""
    if path.suffix in (".pkl", ".pickle"):
        raise DataError(
            f"{path}: a pickle can run code when it is read, so pickled proposals are not supported; {MAKE} from a "
            f"checkpoint of the RPN (the result is a {SUFFIX} file)"
        )
    if not path.is_file():
        raise DataError(f"{path}: no such proposals file; {MAKE}")


def _facts(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        facts = json.loads(metadata.get("facts", "{}"))
    except ValueError:
        facts = None
    if not isinstance(facts, dict):
        raise DataError(f"{path}: damaged: the facts in its header are not a JSON object; {MAKE}")
    return facts


def _check(path: Path, arrays: Mapping[str, Tensor]) -> None:
    """Raise DataError if the arrays are not as the module docstring describes."""
    for name, dtype in DTYPES.items():
        if arrays[name].dtype != dtype:
            raise DataError(f"{path}: damaged: {name} are {arrays[name].dtype}, expected {dtype}; {MAKE}")
        if not arrays[name].dim():
            raise DataError(f"{path}: damaged: {name} is a single number, expected an array; {MAKE}")
    images, boxes = len(arrays["image_ids"]), len(arrays["boxes"])
    names = arrays["names"].reshape(-1)
    if images and len(_lines(names)) != images:
        raise DataError(f"{path}: damaged: names of {len(_lines(names))} images, expected {images}; {MAKE}")
    shapes: dict[str, tuple[int, ...]] = {
        "image_ids": (images,),
        "names": tuple(names.shape),
        "sizes": (images, 2),
        "offsets": (images + 1,),
        "boxes": (boxes, 4),
        "scores": (boxes,),
    }
    for name, shape in shapes.items():
        if tuple(arrays[name].shape) != shape:
            raise DataError(f"{path}: damaged: {name} are {tuple(arrays[name].shape)}, expected {shape}; {MAKE}")
    _check_images(path, arrays)
    _check_boxes(path, arrays)


def _check_images(path: Path, arrays: Mapping[str, Tensor]) -> None:
    ids, counts = arrays["image_ids"].unique(return_counts=True)
    if bool((counts > 1).any()):
        raise DataError(f"{path}: damaged: image ids {first_few(ids[counts > 1].tolist())} appear twice; {MAKE}")
    offsets = arrays["offsets"]
    if int(offsets[0]) != 0 or int(offsets[-1]) != len(arrays["boxes"]) or bool((offsets.diff() < 0).any()):
        raise DataError(f"{path}: damaged: offsets do not ascend from 0 to {len(arrays['boxes'])} boxes; {MAKE}")


def _check_boxes(path: Path, arrays: Mapping[str, Tensor]) -> None:
    """Check in chunks that boxes are finite, valid and inside their image, and scores finite and descending."""
    total = len(arrays["boxes"])
    for start in range(0, total, CHUNK):
        first = max(start - 1, 0)  # includes the last score of the chunk before, for the comparison
        part = slice(first, min(start + CHUNK, total))
        images = torch.searchsorted(arrays["offsets"], torch.arange(first, part.stop), right=True) - 1
        boxes, scores = arrays["boxes"][part], arrays["scores"][part]
        limits = (arrays["sizes"][images].flip(1) + SLACK).repeat(1, 2)
        outside = ~((boxes >= -SLACK) & (boxes <= limits)).all(1) | (boxes[:, :2] > boxes[:, 2:]).any(1)
        _raise_first(path, arrays, images, first, outside, "reaches outside its image, or is not x1 <= x2, y1 <= y2")
        wrong = ~scores.isfinite()
        wrong[1:] |= (images[1:] == images[:-1]) & (scores.diff() > 0)
        _raise_first(path, arrays, images, first, wrong, "has no finite score, or a better one than the box before it")


def _raise_first(path: Path, arrays: Mapping[str, Tensor], images: Tensor, start: int, bad: Tensor, what: str) -> None:
    """Raise DataError for the first bad box of a chunk that begins at `start`; `images` are the rows of its boxes."""
    if not bool(bad.any()):
        return
    at = int(bad.nonzero()[0])
    image = int(images[at])
    height, width = arrays["sizes"][image].tolist()
    box = [round(x, 2) for x in arrays["boxes"][start + at].tolist()]
    raise DataError(
        f"{path}: image id {int(arrays['image_ids'][image])} ({width}x{height} pixels): box {box} with score "
        f"{float(arrays['scores'][start + at]):.4g} {what}; boxes are x1, y1, x2, y2 in pixels of the original image, "
        f"best first; {MAKE}"
    )
