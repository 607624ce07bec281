"""Lists of images for prediction: files, folders, glob patterns, text files with paths, and COCO files.

A list of millions takes some hundred bytes an image: names are kept in arrays of bytes. N: images of a list.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from attrs import frozen

from det_core.data.bounds import is_id
from det_core.data.file_names import OUTSIDE, Names, is_outside
from det_core.data.file_suffixes import IMAGE_SUFFIXES, LIST_SUFFIXES, VIDEO_SUFFIXES
from det_core.errors import DetError, first_few, no_such
from det_core.settings import show

if TYPE_CHECKING:
    from numpy.typing import NDArray

KEY = "S16"  # bytes of a key: keys of different images differ


@frozen
class ListedImage:
    """An image of a list: its path, its id in a COCO file if it is from one, and the name of what is made from it.

    name: a path without suffix, below the folder of results; unique in the list. problem: why it is not to be read.
    """

    path: str
    image_id: int | None
    name: str
    problem: str = ""


@frozen(eq=False)
class ImageList:
    """N images, each once, in the order in which they were given.

    paths and names: as of `ListedImage`. ids: (N,) int64, meaningful where has_id (N,) bool. outside: the indices of
    images that their COCO file names outside of the image folder.
    """

    paths: Names
    names: Names
    ids: NDArray[np.int64]
    has_id: NDArray[np.bool_]
    outside: frozenset[int] = frozenset()

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> ListedImage:
        number = int(self.ids[index]) if self.has_id[index] else None
        problem = f"the image {OUTSIDE}" if index in self.outside else ""
        return ListedImage(self.paths[index], number, self.names[index], problem)

    @cached_property
    def keys(self) -> NDArray[np.bytes_]:
        """(N,) the `key` of every image."""
        found = np.empty(len(self), KEY)
        for index in range(len(self)):
            image = self[index]
            found[index] = key(image.path, image.image_id)
        return found

    @cached_property
    def digest(self) -> str:
        """A short text that differs for other lists."""
        return hashlib.sha256(self.keys.tobytes()).hexdigest()[:16]


def key(path: str, image_id: int | None) -> bytes:
    """16 bytes that tell an image from all others: by its path, and its id if it is from a COCO file."""
    text = f"{'' if image_id is None else image_id}\0{path}"
    return hashlib.blake2b(text.encode("utf8", "surrogateescape"), digest_size=16).digest()


def list_images(
    given: Sequence[str],
    *,
    image_root: str | None = None,
    allow_outside: bool = False,
    leave_out: Sequence[Path] = (),
    videos: bool = False,
) -> ImageList:
    """The images that texts of a command line name.

    Args:
        given: image files; folders, with all images below them; glob patterns (`**` crosses folders); text files (.txt,
            .lst) with a path a line, relative to the text file; COCO files (.json), whose `images` are meant.
        image_root: the folder of the images of COCO files; by default that of the file.
        allow_outside: whether COCO files may name images outside of that folder; otherwise these are bad images.
        leave_out: folders whose images are left out of those above them.
        videos: list videos in place of images; COCO files have none.

    Raises:
        DetError: for a text that names nothing, a folder or pattern without images, a file that is not read.
    """
    entries: dict[bytes, _Entry] = {}
    skipped = {os.path.realpath(folder) for folder in leave_out}
    for text in given:
        for entry in _entries(text, image_root, allow_outside, _Kind(videos, skipped)):
            entries.setdefault(key(entry.path, entry.image_id), entry)
    images = list(entries.values())
    return ImageList(
        paths=Names.of([entry.path for entry in images]),
        names=Names.of(_unique([entry.name for entry in images], list(entries))),
        ids=np.array([entry.image_id or 0 for entry in images], np.int64),
        has_id=np.array([entry.image_id is not None for entry in images], np.bool_),
        outside=frozenset(number for number, entry in enumerate(images) if entry.outside),
    )


@frozen
class _Entry:
    path: str
    name: str
    image_id: int | None = None
    outside: bool = False


@frozen
class _Kind:
    """Which files of folders and patterns are meant: images or videos, but not those in `skipped` folders."""

    videos: bool
    skipped: set[str]

    @property
    def suffixes(self) -> frozenset[str]:
        return VIDEO_SUFFIXES if self.videos else IMAGE_SUFFIXES

    @property
    def named(self) -> str:
        """What is meant, with the suffixes, for messages."""
        return f"{'videos' if self.videos else 'images'} ({', '.join(sorted(self.suffixes))})"


def _entries(text: str, image_root: str | None, allow_outside: bool, kind: _Kind) -> Iterator[_Entry]:
    path = Path(text)
    if path.is_dir():
        yield from _in_folder(path, kind)
    elif not path.exists():
        yield from _of_pattern(text, kind)
    elif path.suffix.lower() in LIST_SUFFIXES:
        yield from _of_text_file(path)
    elif path.suffix.lower() == ".json":
        yield from _of_coco(path, path.parent if image_root is None else Path(image_root), allow_outside)
    else:  # a pipe or device is reported when it is read
        yield _Entry(text, path.stem)


def _in_folder(folder: Path, kind: _Kind) -> Iterator[_Entry]:
    count, seen = 0, {os.path.realpath(folder), *kind.skipped}
    for place, folders, files in os.walk(folder, followlinks=True):  # but into each folder once: links may be circular
        inner = {os.path.realpath(os.path.join(place, f)): f for f in sorted(folders, reverse=True)}
        folders[:] = sorted(name for real, name in inner.items() if real not in seen)
        seen |= inner.keys()
        for file in sorted(files):
            if Path(file).suffix.lower() in kind.suffixes:
                count += 1
                name = os.path.relpath(os.path.join(place, Path(file).stem), folder)
                yield _Entry(os.path.join(place, file), name)
    if not count:
        raise DetError(f"{folder}: in this folder and below it there are no {kind.named}")


def _of_pattern(text: str, kind: _Kind) -> Iterator[_Entry]:
    if not glob.has_magic(text):
        raise DetError(no_such(text, "no such file or folder"))
    found = sorted(glob.glob(text, recursive=True))
    images = [file for file in found if Path(file).suffix.lower() in kind.suffixes and not os.path.isdir(file)]
    if not images:
        raise DetError(f"{text}: this pattern matches no {kind.named}")
    yield from (_Entry(file, Path(file).stem) for file in images)


def _of_text_file(path: Path) -> Iterator[_Entry]:
    try:
        lines = path.read_text(encoding="utf8", errors="surrogateescape").splitlines()
    except OSError as error:
        raise DetError(f"{path}: the list of images cannot be read ({error.strerror or error})") from None
    named = [line.strip() for line in lines if line.strip()]
    if not named:
        raise DetError(f"{path}: the list of images is empty; expected a path a line")
    strange = next((line for line in named if "\0" in line), None)
    if strange is not None:
        raise DetError(f"{path}: {show(strange)} is no path; expected a text file with a path a line")
    for line in named:
        yield _Entry(os.path.join(path.parent, line), Path(line).stem)


def _of_coco(path: Path, root: Path, allow_outside: bool) -> Iterator[_Entry]:
    for index, record in enumerate(_image_records(path)):
        name, number = (record.get("file_name"), record.get("id")) if isinstance(record, dict) else (None, None)
        if not isinstance(name, str) or not name or "\0" in name or not is_id(number):
            what = f"`file_name` {show(name)} and `id` {show(number)}"
            raise DetError(f"{path}: images[{index}] has {what}, expected a name and a whole number")
        outside = not allow_outside and is_outside(root, name)
        yield _Entry(os.path.join(root, name), os.path.splitext(name)[0], number, outside)


def _image_records(path: Path) -> list[Any]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise DetError(f"{path}: the COCO file cannot be read ({error.strerror or error})") from None
    except (ValueError, RecursionError) as error:
        raise DetError(f"{path}: not JSON ({error}); expected a COCO file with a list `images`") from None
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list) or not images:
        found = first_few(list(content)) if isinstance(content, dict) else type(content).__name__
        raise DetError(f"{path}: found {found}; expected a COCO file with a list `images`")
    return images


def _unique(names: Sequence[str], keys: Iterable[bytes]) -> list[str]:
    """Safe names, with a part of the key added to those that several images have, letter case aside."""
    safe = [_safe(name) for name in names]
    digests = np.array([hashlib.blake2b(_folded(name), digest_size=16).digest() for name in safe], KEY)
    _, where, counts = np.unique(digests, return_inverse=True, return_counts=True)
    return [
        f"{name}-{own.hex()[:8]}" if count > 1 else name
        for name, own, count in zip(safe, keys, counts[where].tolist(), strict=True)
    ]


def _safe(name: str) -> str:
    """A relative path below the folder that it is put in: without `..`, `.`, drive or root."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return "/".join(part.replace(":", "_") for part in parts) or "image"


def _folded(name: str) -> bytes:
    return name.casefold().encode("utf8", "surrogateescape")
