"""Settings that data sets of several formats have. Imports no torch."""

from __future__ import annotations

import os
from abc import abstractmethod
from typing import TYPE_CHECKING

from det_core.data.class_choice import CLASSES_DOC, entries_problem
from det_core.settings import configclass, evolve, setting
from det_core.slots import DatasetConfig
from det_core.specs import OnBadSample, Split

if TYPE_CHECKING:
    from pathlib import Path

    from det_core.contracts import DetectionDataset
    from det_core.data.coco_sections import Sections
    from det_core.data.semantic_maps import SemanticFolder


@configclass
class ProposalsSettings(DatasetConfig):
    """A data set whose samples may have proposals from a file."""

    proposals: str | None = setting(
        "proposals file (`det-core proposals` writes it) for a detector without a proposal head; relative to the data "
        "folder (the sample: to the working folder), or absolute; null: none",
        default=None,
    )
    max_proposals: int | None = setting("maximum proposals per image, best first; null: all", default=None, least=1)

    def has_proposals(self) -> bool:
        return self.proposals is not None


@configclass
class FolderSettings(ProposalsSettings):
    """Settings of data sets of every format in a folder of images."""

    split: Split = setting("part of the data set")
    folder: str = setting("folder of the data set below the root, or an absolute path; empty: the root", default="")
    part: tuple[float, float] | None = setting(
        "[LOW, HIGH]: only images for which a number in [0, 1), computed from the content of the file, is at least LOW "
        "and below HIGH; null: all",
        default=None,
        least=0,
        most=1,
    )
    filter_empty: bool = setting("exclude images without annotations", default=False)
    min_size: int = setting("exclude images with a shorter side below this", default=0, least=0)
    allow_outside: bool = setting(
        "take images whose names in the annotations lead out of the image folder; --allow-outside sets it",
        default=False,
    )

    def __attrs_post_init__(self) -> None:
        if self.part is not None and self.part[0] >= self.part[1]:
            raise ValueError(f"part: found {list(self.part)}, expected two numbers in ascending order")

    def place(self, root: str) -> str:
        """The folder of the data set."""
        return os.path.join(root, os.path.expanduser(self.folder)) if self.folder else root

    def names_files(self) -> bool:
        """Whether it names its files itself, so that another split cannot be found by name."""
        return False

    def with_split(self, split: Split) -> DatasetConfig | None:
        return None if self.names_files() else evolve(self, split=split)

    def with_part(self, low: float, high: float) -> DatasetConfig | None:
        return evolve(self, part=(low, high))


@configclass
class RecordSettings(FolderSettings):
    """Settings of data sets that are read as records in COCO's terms."""

    classes: tuple[str, ...] | None = setting(CLASSES_DOC, default=None, min_items=1, check=entries_problem)

    @abstractmethod
    def read(self, root: str) -> tuple[Sections, Path]:
        """The data set, not checked, and the folder that its image names are relative to; DataError."""

    def build(
        self, root: str, *, masks: bool = False, semantic: bool = False, on_bad_sample: OnBadSample = "error"
    ) -> DetectionDataset:
        """Open and check the data set; DataError (also LayoutError) with what is wrong."""
        from det_core.errors import DataError

        if semantic:
            raise DataError(
                f"{self.place(root)}: semantic maps are required, but data of type {self.type!r} have none; use a "
                "recipe that needs none, or data in COCO format (`type: coco`)"
            )
        return self.open(root, masks=masks, on_bad_sample=on_bad_sample)

    def open(
        self, root: str, *, masks: bool, on_bad_sample: OnBadSample, semantic: SemanticFolder | None = None
    ) -> DetectionDataset:
        """Open and check the data set, with these semantic maps."""
        from det_core.data.coco_dataset import CocoDataset

        sections, images = self.read(root)
        return CocoDataset(
            sections,
            images,
            masks=masks,
            semantic=semantic,
            on_bad_sample=on_bad_sample,
            filter_empty=self.filter_empty,
            min_size=self.min_size,
            allow_outside=self.allow_outside,
            proposals=proposals_file(self.place(root), self.proposals),
            max_proposals=self.max_proposals,
            classes=self.classes,
            part=self.part,
        )


def proposals_file(root: str, name: str | None) -> Path | None:
    """The proposals file that a configuration names; DataError if it does not exist."""
    from det_core.data.proposals_file import proposals_path

    return None if name is None else proposals_path(root, name)
