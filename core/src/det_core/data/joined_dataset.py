"""Several data sets as one, whatever their formats are.

Letters: N images of all sources, K classes of the joined data set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import attrs
import numpy as np
import torch
from numpy.typing import NDArray

from det_core.contracts import DetectionDataset, Sample
from det_core.data.class_choice import ClassEntry, class_entries, unknown_names
from det_core.data.coco_sections import OTHER_CLASSES
from det_core.errors import DataError, first_few
from det_core.specs import PixelFormat
from det_core.structures import Classes

NONE = -1  # the label of objects of other classes


class JoinedDataset(DetectionDataset):
    """The images of several data sets, in their order.

    Classes of one name are one class. If the classes of all sources are equal, they keep their ids, otherwise they are
    numbered from 1. Ids of images are kept if they are unique over all sources, otherwise images are numbered from 1.

    Args:
        sources: the data sets.
        merge: take the classes of all sources, in the order in which they first occur; otherwise all sources must have
            classes of the same names.
        classes: names, or OLD=NEW, in the order of labels; None: all.

    Raises:
        DataError: if the sources have other classes, with the source that differs, or other kinds of masks or maps.
    """

    def __init__(
        self, sources: Sequence[DetectionDataset], *, merge: bool = False, classes: Sequence[str] | None = None
    ) -> None:
        self.sources = tuple(sources)
        self.name = " + ".join(source.name for source in self.sources)
        first = self.sources[0]
        self.has_masks, self.semantic_classes = first.has_masks, max(s.semantic_classes for s in self.sources)
        self.on_bad_sample = first.on_bad_sample
        entries = None if classes is None else class_entries(classes)
        self.classes = _classes(self.name, self.sources, merge, entries)
        self._labels = [_labels(source, self.classes, entries) for source in self.sources]
        self._starts = np.cumsum([0, *map(len, self.sources)])
        self.sizes = np.concatenate([source.sizes for source in self.sources])
        self.image_ids = np.concatenate([source.image_ids for source in self.sources])
        if len(np.unique(self.image_ids)) < len(self.image_ids):
            self.image_ids = np.arange(1, len(self.image_ids) + 1, dtype=np.int64)
        self.notes = tuple(dict.fromkeys(note for source in self.sources for note in source.notes))
        self.filtered = sum(source.filtered for source in self.sources)
        self.ignored_kind = " and ".join(dict.fromkeys(source.ignored_kind for source in self.sources))
        self.skipped = [bad for source in self.sources for bad in source.skipped]
        self.dropped, self.trained = self._counts()

    def _counts(self) -> tuple[dict[str, int], int | None]:
        """The numbers of annotations that do not train, by what they are, and of those that do, if it is known."""
        dropped: Counter[str] = Counter()
        for source in self.sources:
            dropped.update(source.dropped)
        if any((labels == NONE).any() for labels in self._labels):
            kept = Counter(chosen for row in range(len(self.sources)) for chosen in self._are_chosen(row))
            dropped[OTHER_CLASSES] += kept[False]
            return dict(dropped), None if kept[True] else 0
        trained = [source.trained for source in self.sources]
        return dict(dropped), None if None in trained else sum(number or 0 for number in trained)

    def _are_chosen(self, row: int) -> Iterator[bool]:
        """For each annotation of a source, whether its class was chosen."""
        source = self.sources[row]
        label = dict(zip(source.classes.ids, self._labels[row].tolist(), strict=True))
        return (label[record["category_id"]] != NONE for record in source.ground_truth()["annotations"])

    def object_labels(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """As in `DetectionDataset`, of all sources."""
        images, labels = [], []
        for row, source in enumerate(self.sources):
            own, label = source.object_labels()
            label = self._labels[row][label]
            images.append(own[label != NONE] + self._starts[row])
            labels.append(label[label != NONE])
        return np.concatenate(images), np.concatenate(labels)

    def _source(self, index: int) -> tuple[int, int]:
        """The number of the source of an image, and the image's index in it."""
        row = int(np.searchsorted(self._starts, index, side="right")) - 1
        return row, index - int(self._starts[row])

    def read_as(self, pixels: PixelFormat) -> None:
        """Read the images of all sources in a format from now on; DataError if one of them cannot."""
        for source in self.sources:
            source.read_as(pixels)
        self.pixels = pixels

    def file(self, index: int) -> str:
        row, inner = self._source(index)
        return self.sources[row].file(inner)

    def load(self, index: int) -> Sample:
        """Read an image with its annotations, in the joined classes; BadImage if it cannot be used."""
        row, inner = self._source(index)
        sample = self.sources[row].load(inner)
        labels = torch.from_numpy(self._labels[row])[sample.labels]
        kept = labels != NONE
        return attrs.evolve(
            sample,
            labels=labels[kept],
            boxes=sample.boxes[kept],
            ignored=sample.ignored[kept],
            masks=None if sample.masks is None else sample.masks[kept],
            image_id=int(self.image_ids[index]),
        )

    def ground_truth(self) -> dict[str, Any]:
        """All annotations of the joined classes as a new COCO-format dict."""
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for row, source in enumerate(self.sources):
            truth = source.ground_truth()
            start, end = int(self._starts[row]), int(self._starts[row + 1])
            number = dict(zip(source.image_ids.tolist(), self.image_ids[start:end].tolist(), strict=True))
            label = dict(zip(source.classes.ids, self._labels[row].tolist(), strict=True))
            images += [{**image, "id": number[image["id"]]} for image in truth["images"]]
            for record in truth["annotations"]:
                if label[record["category_id"]] == NONE:
                    continue
                category = self.classes.ids[label[record["category_id"]]]
                own = {"id": len(annotations) + 1, "image_id": number[record["image_id"]], "category_id": category}
                annotations.append({**record, **own})
        categories = self.classes.categories()
        return {"info": {}, "licenses": [], "categories": categories, "images": images, "annotations": annotations}


def _classes(
    name: str, sources: Sequence[DetectionDataset], merge: bool, entries: Sequence[ClassEntry] | None
) -> Classes:
    """The classes of the joined data set; DataError if the sources differ, or a chosen class is not there."""
    names = list(dict.fromkeys(name for source in sources for name in source.classes.names))
    if not merge:
        for source in sources[1:]:
            _check_equal(sources[0], source)
    if entries is not None:
        if problem := unknown_names(entries, names):
            raise DataError(f"{name}: {problem}")
        names = list(dict.fromkeys(entry.new for entry in entries))
    elif all(source.classes == sources[0].classes for source in sources):
        return sources[0].classes
    return Classes(names=tuple(names), ids=tuple(range(1, len(names) + 1)))


def _check_equal(first: DetectionDataset, other: DetectionDataset) -> None:
    """Raise DataError if a source has classes of other names than the first."""
    ours, theirs = set(first.classes.names), set(other.classes.names)
    if ours == theirs:
        return
    parts = ((theirs - ours, f"only {other.name} has"), (ours - theirs, f"only {first.name} has"))
    what = "; ".join(f"{words} {first_few(sorted(names), 8)}" for names, words in parts if names)
    raise DataError(
        f"the sources to join do not have the same classes: {what}; rename them with `classes` of a source, or set "
        "`merge_classes: true` to take the classes of all"
    )


def _labels(source: DetectionDataset, classes: Classes, entries: Sequence[ClassEntry] | None) -> NDArray[np.int64]:
    """The joined labels of the labels of a source; `NONE` for classes that were not chosen."""
    new = {name: name for name in source.classes.names}
    if entries is not None:
        new = {entry.old: entry.new for entry in entries}
    place = {name: label for label, name in enumerate(classes.names)}
    labels = [place[new[name]] if name in new else NONE for name in source.classes.names]
    return np.array(labels, np.int64)
