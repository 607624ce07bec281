"""The folder of a prediction run: what it was begun with, what is done, and COCO's results of all of it.

`predictions.json` is COCO's results, `images.json` the images and categories that its ids mean, `run.json` says with
which model, settings and images the folder was begun, and `result_log` writes the rest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from attrs import asdict, frozen

from det_core.data.image_list import KEY, ImageList, key
from det_core.engine.checkpoint import Header
from det_core.engine.result_log import Record, log_file, log_files, records_of
from det_core.engine.share import Share
from det_core.errors import DetError
from det_core.safe_write import replacing, write_text
from det_core.settings import show
from det_core.structures import Classes

if TYPE_CHECKING:
    from numpy.typing import NDArray

RUN, COCO, IMAGES = "run.json", "predictions.json", "images.json"


def model_name(weights: Path, header: Header | None = None) -> str:
    """What tells the model of a result: recipe and step, or an exported file's name, and the start of the SHA-256."""
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:12]
    return f"{weights.name if header is None else f'{header.recipe.name} step {header.step}'} {digest}"


@frozen
class RunFacts:
    """What a folder was begun with. settings: all that results depend on. images: number and digest of the list."""

    model: str
    settings: dict[str, Any]
    images: tuple[int, str]
    shares: int

    @classmethod
    def read(cls, folder: Path) -> RunFacts | None:
        """The facts of a folder, or None if no run was begun in it; DetError if the file is damaged."""
        file = folder / RUN
        try:
            plain = json.loads(file.read_text(encoding="utf8"))
            count, digest = plain["images"]
            return cls(str(plain["model"]), dict(plain["settings"]), (int(count), str(digest)), int(plain["shares"]))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise DetError(f"{file}: damaged ({type(error).__name__}: {error}); choose another --out") from None

    def difference(self, other: RunFacts) -> str:
        """What differs in model or settings, or ""."""
        if self.model != other.model:
            return f"the model was {self.model}, now it is {other.model}"
        names = [name for name in self.settings | other.settings if self.settings.get(name) != other.settings.get(name)]
        return "; ".join(
            f"{name} was {show(self.settings.get(name))}, now it is {show(other.settings.get(name))}" for name in names
        )


def begin(folder: Path, facts: RunFacts, share: Share, *, resume: bool, overwrite: bool) -> None:
    """Check that this share may write into a folder, and record what the run is.

    Raises:
        DetError: if the folder has results, and neither `resume` nor `overwrite` says what to do; if a run that is to
            go on had another model, other settings or, with several shares, other images.
    """
    found = RunFacts.read(folder)
    if overwrite and share.count > 1 and found is not None:
        raise DetError(
            f"{folder}: with several shares nothing is overwritten; remove the folder, or choose another --out"
        )
    if overwrite:
        _remove(folder)
        found = None
    if found is None:
        if log_files(folder):
            raise DetError(f"{folder} has results, but no {RUN} that says of what; choose another --out")
        write_text(folder / RUN, json.dumps(asdict(facts)) + "\n")
        return
    joins = share.count > 1 and found.shares == share.count and not log_file(folder, share).exists()
    if not resume and not joins:
        raise DetError(
            f"{folder} has the results of an earlier run; go on with it with --resume, replace it with --overwrite, or "
            "choose another --out"
        )
    if difference := found.difference(facts):
        raise DetError(f"{folder} was begun otherwise: {difference}; use the same options, or choose another --out")
    if found.images != facts.images:
        if share.count > 1:
            raise DetError(
                f"{folder} was begun with {found.images[0]} images, now there are {facts.images[0]}, or others; "
                "processes that share a list need the same one: finish with one process (--share 1/1)"
            )
        write_text(folder / RUN, json.dumps(asdict(facts)) + "\n")


def _remove(folder: Path) -> None:
    """Remove the results of an earlier run, its facts last."""
    for file in (*log_files(folder), *(folder / name for name in (COCO, IMAGES, RUN))):
        file.unlink(missing_ok=True)


@frozen(eq=False)
class Progress:
    """How far a share is. remaining: the indices of its images that no file of results in the folder has, ascending.

    bad, detections: in the share's own file; of a single share in all files.
    """

    remaining: NDArray[np.int64]
    bad: int
    detections: int

    @classmethod
    def read(cls, folder: Path, images: ImageList, share: Share) -> Progress:
        """From all files of results in a folder, each of which is read once."""
        keys, bad, detections = bytearray(), 0, 0
        for file in log_files(folder):
            own = share.count == 1 or file == log_file(folder, share)
            for record in records_of(file):
                keys += key(record["file"], record.get("image_id"))
                bad += own and "error" in record
                detections += len(record.get("detections", ())) if own else 0
        indices = np.arange(share.index, len(images), share.count)
        left = indices[~np.isin(images.keys[indices], np.frombuffer(keys, KEY))] if keys else indices
        return cls(left, bad, detections)


def all_records(folder: Path) -> Iterator[Record]:
    """The records of all files of results in a folder."""
    for file in log_files(folder):
        yield from records_of(file)


def write_coco(folder: Path, images: ImageList, classes: Classes) -> None:
    """Write `predictions.json` and `images.json` from all records in the folder, one record at a time.

    Images that are not of a COCO file are numbered from 1 in the order of the list. Records of images that the list no
    longer has are left out, as are images that cannot be read.
    """
    order = np.argsort(images.keys)
    with (
        replacing(folder / COCO) as results,
        replacing(folder / IMAGES) as names,
        _ListWriter(results, "", "") as found,
        _ListWriter(names, f'{{"categories": {json.dumps(classes.categories())}, "images": ', "}") as described,
    ):
        for record in all_records(folder):
            place = _place(record, images, order)
            if place is None or "error" in record:
                continue
            number = record.get("image_id", place + 1)
            size = {"height": record["height"], "width": record["width"]}
            described.add({"id": number, "file_name": record["file"], **size})
            for detection in record["detections"]:
                found.add(_result(detection, number, classes))


def _place(record: Record, images: ImageList, order: NDArray[np.int64]) -> int | None:
    """The index of a record's image in the list, or None. order: (N,) the images by their keys."""
    wanted = np.array(key(record["file"], record.get("image_id")), KEY)
    at = int(np.searchsorted(images.keys, wanted, sorter=order))
    return int(order[at]) if at < len(order) and images.keys[order[at]] == wanted else None


def _result(detection: Record, image_id: int, classes: Classes) -> Record:
    """A detection of a record in COCO's results format."""
    x1, y1, x2, y2 = detection["box"]
    result = {
        "image_id": image_id,
        "category_id": classes.ids[detection["label"]],
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "score": detection["score"],
    }
    return result | ({"segmentation": detection["mask"]} if "mask" in detection else {})


class _ListWriter:
    """Writes a JSON list to a file item by item, between two texts."""

    def __init__(self, path: Path, before: str, after: str) -> None:
        self._file = path.open("w", encoding="utf8")
        self._after, self._between = after, ""
        self._file.write(f"{before}[")

    def __enter__(self) -> _ListWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.write(f"]{self._after}\n")
        self._file.close()

    def add(self, item: Record) -> None:
        """Write an item."""
        self._file.write(self._between + json.dumps(item))
        self._between = ",\n"
