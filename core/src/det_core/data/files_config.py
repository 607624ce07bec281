"""Configurations of data sets of other formats than COCO's and VOC's, and of joined ones. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from det_core.data.class_choice import CLASSES_DOC, entries_problem
from det_core.data.dataset_settings import RecordSettings
from det_core.settings import configclass, evolve, setting
from det_core.slots import DatasetConfig
from det_core.specs import OnBadSample, Split

if TYPE_CHECKING:
    from det_core.contracts import DetectionDataset
    from det_core.data.coco_sections import Sections


@configclass
class YoloConfig(RecordSettings):
    """A data set in YOLO format (Ultralytics): data.yaml with class names and splits, and a text file per image.

    The text files are in folders `labels`, beside the folders `images`. Their lines are `class cx cy w h`, a box, or
    `class x1 y1 x2 y2 ...`, a polygon, in fractions of the image's width and height.
    """

    type: ClassVar[str] = "yolo"

    list_file: str | None = setting(
        "file below the root with class names and splits; null: data.yaml, another YAML file with `names`, or "
        "classes.txt",
        default=None,
    )

    def read(self, root: str) -> tuple[Sections, Path]:
        """The data set, not checked, and the folder that its image names are relative to; DataError."""
        from det_core.data.data_root import data_root
        from det_core.data.yolo_files import read_yolo
        from det_core.data.yolo_list import read_list

        data = read_list(data_root(self.place(root)), self.list_file)
        return read_yolo(data, self.split), data.root

    def is_there(self, root: str) -> bool:
        from det_core.data.yolo_list import has_split

        return has_split(self.place(root), self.list_file, self.split)


@configclass
class LabelmeConfig(RecordSettings):
    """A data set in labelme's format: a JSON file per image.

    Polygons, rectangles, circles and masks are objects; shapes with one `group_id` and label are one object. Splits are
    folders `train`, `val` (or `valid`, `validation`) and `test`; without these, all files are training data.
    """

    type: ClassVar[str] = "labelme"

    def read(self, root: str) -> tuple[Sections, Path]:
        """The data set, not checked, and the folder that its image names are relative to; DataError."""
        from det_core.data.data_root import data_root
        from det_core.data.labelme_files import read_labelme

        folder = data_root(self.place(root))
        return read_labelme(folder, self.split), folder

    def is_there(self, root: str) -> bool:
        from det_core.data.labelme_files import has_split

        return has_split(self.place(root), self.split)


@configclass
class JoinedConfig(DatasetConfig):
    """Several data sets as one: the images of all sources, in their order.

    A source below another folder than the root names it with `folder`.
    """

    type: ClassVar[str] = "joined"

    sources: tuple[DatasetConfig, ...] = setting("the data sets, of any types", min_items=1)
    merge_classes: bool = setting(
        "take the classes of all sources, joined by their names; otherwise all sources must have classes of the same "
        "names",
        default=False,
    )
    classes: tuple[str, ...] | None = setting(CLASSES_DOC, default=None, min_items=1, check=entries_problem)

    def __attrs_post_init__(self) -> None:
        found = {source.has_proposals() for source in self.sources}
        if {True, False} <= found:
            raise ValueError("sources: some have `proposals`, others have none; give them to all, or to none")

    def has_proposals(self) -> bool | None:
        found = {source.has_proposals() for source in self.sources}
        return found.pop() if len(found) == 1 else None

    def is_there(self, root: str) -> bool:
        """Whether any source is; opening the data set reports those that are not."""
        return any(source.is_there(root) for source in self.sources)

    def with_split(self, split: Split) -> DatasetConfig | None:
        return self._with([source.with_split(split) for source in self.sources])

    def with_part(self, low: float, high: float) -> DatasetConfig | None:
        return self._with([source.with_part(low, high) for source in self.sources])

    def _with(self, sources: list[DatasetConfig | None]) -> DatasetConfig | None:
        known = tuple(source for source in sources if source is not None)
        return evolve(self, sources=known) if len(known) == len(sources) else None

    def build(
        self, root: str, *, masks: bool = False, semantic: bool = False, on_bad_sample: OnBadSample = "error"
    ) -> DetectionDataset:
        """Open and check all sources; DataError with what is wrong, and in which."""
        from det_core.data.bad_samples import EmptyPartError
        from det_core.data.joined_dataset import JoinedDataset

        opened, empty = [], None
        for source in self.sources:
            try:
                opened.append(source.build(root, masks=masks, semantic=semantic, on_bad_sample=on_bad_sample))
            except EmptyPartError as error:  # a small source may be in the other part as a whole
                empty = error
        if empty is not None and not opened:
            raise empty
        return JoinedDataset(opened, merge=self.merge_classes, classes=self.classes)
