"""Configurations of data sets of other formats than COCO's and VOC's, and of joined ones. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from det_core.data.dataset_settings import RecordSettings
from det_core.settings import configclass, setting

if TYPE_CHECKING:
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
        from det_core.data.layout import data_root
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
        from det_core.data.labelme_files import read_labelme
        from det_core.data.layout import data_root

        folder = data_root(self.place(root))
        return read_labelme(folder, self.split), folder

    def is_there(self, root: str) -> bool:
        from det_core.data.labelme_files import has_split

        return has_split(self.place(root), self.split)
