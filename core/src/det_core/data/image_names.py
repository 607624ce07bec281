"""Image files of annotations that name them in another way than where they are.

Annotation tools write names with a folder of their own, backslashes, or the folders of a server (Label Studio:
`images\\1/90fbb0c7-a.jpg`), and images are moved into folders below or out of them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs

from det_core.data.coco_sections import Sections
from det_core.data.file_names import Folder
from det_core.data.file_suffixes import image_files

UPLOAD = re.compile(r"[0-9a-f]{8}-")  # what Label Studio puts in front of the name of an uploaded file

Find = Callable[[str], str | None]


def with_found_names(sections: Sections, folder: Path, beside: Path) -> Sections:
    """The data set with names of images that exist below `folder`, if those in the annotations do not.

    Names are only changed if no image is where its name says; then the first way that finds the most images is taken,
    for all, and noted. Images that it does not find keep their names.

    Args:
        sections: the data set.
        folder: of the images.
        beside: the folder of the annotation file; names may be relative to it.
    """
    names = [r["file_name"] for r in sections.images if isinstance(r, dict) and _is_name(r.get("file_name"))]
    files = Folder(folder)
    if not names or any(name in files for name in names):
        return sections
    best: dict[str, str] = {}
    how = ""
    for words, find in _ways(folder, beside):
        found = {name: path for name in names if (path := find(name)) is not None}
        if len(found) > len(best):
            best, how = found, words
    if not best:
        return sections
    first = next(name for name in names if name in best)
    count = f"{len(best)} of {len(names)}"
    note = f"names of images are taken {how}, as in {folder} ({count} images; {first!r} is {best[first]!r})"
    return attrs.evolve(
        sections, images=[_renamed(record, best) for record in sections.images], notes=(*sections.notes, note)
    )


def _is_name(name: object) -> bool:
    return isinstance(name, str) and bool(name) and "\0" not in name


def _renamed(record: Any, names: dict[str, str]) -> Any:
    name = record.get("file_name") if isinstance(record, dict) else None
    return {**record, "file_name": names[name]} if isinstance(name, str) and name in names else record


def _ways(folder: Path, beside: Path) -> Iterator[tuple[str, Find]]:
    """What is done to names, in words, and the function that finds an image by a name."""
    files, others = Folder(folder), Folder(beside)

    def in_folder(name: str) -> str | None:
        path = _slashes(name)
        return path if path in files else None

    def beside_annotations(name: str) -> str | None:
        path = _slashes(name)
        return os.path.relpath(beside / path, folder) if path in others else None

    yield "with slashes for backslashes", in_folder
    yield "relative to the annotation file", beside_annotations
    by_name: dict[str, str | None] = {}
    for path in image_files(folder):
        name = os.path.basename(path)
        by_name[name] = None if name in by_name else path  # of two files of one name, neither is meant
    yield "without their folders", lambda name: by_name.get(os.path.basename(_slashes(name)))
    yield (
        "without their folders and upload hashes",
        lambda name: by_name.get(UPLOAD.sub("", os.path.basename(_slashes(name)), count=1)),
    )


def _slashes(name: str) -> str:
    return name.replace("\\", "/")
