"""The image sets of data in PASCAL VOC format."""

from __future__ import annotations

import os
from pathlib import Path

from attrs import frozen

from det_core.data.data_root import LayoutError, data_root
from det_core.data.format_search import VOC_PARTS, formats_at, voc_folders
from det_core.errors import first_few, nearest

# The folder of images, and the folders of VOC 07+12.
VOC_IMAGES = "JPEGImages"
VOC_YEARS = ("VOC2007", "VOC2012")
# Image sets to train and to evaluate on, most common first. The first pair with annotations of both is used.
VOC_PAIRS = (
    ("trainval", "test"),
    ("train", "val"),
    ("train", "valid"),
    ("train", "validation"),
    ("train", "test"),
)
VOC_ALONE = {"train": ("trainval", "train"), "val": (), "test": ("test",)}  # without a pair
SHOWN = 8


@frozen(kw_only=True)
class VocSet:
    """The files of one VOC image set: its list of ids, and the folders with annotations and images."""

    name: str
    ids: Path
    annotations: Path
    images: Path


def find_voc_sets(root: str | Path, split: str, sets: tuple[str, ...] | None = None) -> tuple[VocSet, ...]:
    """The image sets of `split` ("train" or "val"): the given ones (`VOC2007/trainval`), or the usual ones.

    root: a VOC folder (VOC2007, or any with its three parts), or a folder with VOC folders or their VOCdevkit. Raises
    LayoutError with the available image sets.
    """
    folder = data_root(root)
    folders = voc_folders(folder)
    if not folders:
        coco = "; it has annotations in COCO format: use `type: coco`" if "coco" in formats_at(folder) else ""
        raise LayoutError(
            f"{folder}: no VOC data set in it: neither it, nor a folder in it or in its VOCdevkit, has "
            f"{VOC_PARTS[0]}, {VOC_PARTS[1]} and {VOC_IMAGES}{coco}"
        )
    names = [_given_set(folder, split, folders, s) for s in sets] if sets else _usual_sets(folder, split, folders)
    return tuple(_voc_set(folders, *name) for name in names)


def has_voc_split(root: str | Path, split: str) -> bool:
    """Whether a folder has VOC image sets for a split; True if it is not known, which opening reports."""
    folder = Path(root).expanduser()
    folders = voc_folders(folder) if folder.is_dir() else {}
    try:
        return not folders or bool(_usual_sets(folder, split, folders))
    except LayoutError:
        return False


def _given_set(root: Path, split: str, folders: dict[str, Path], text: str) -> tuple[str, str]:
    """Folder and set of `VOC2007/trainval`, or of `trainval` if there is only one folder."""
    folder, _, name = text.rpartition("/")
    if "" in folders and folder == root.resolve().name:
        folder = ""
    if not folder and "" not in folders and len(folders) == 1:
        folder = next(iter(folders))
    if folder not in folders or not _ids_file(folders[folder], name).is_file():
        available = _available_sets(folders)
        raise LayoutError(
            f"{root}: no image set {text!r} for the {split} split{nearest(text, available)}; available: "
            f"{first_few(available, SHOWN) or 'none'}; correct `sets` of the data set, or remove it (null) to use the "
            "usual ones"
        )
    return folder, name


def _usual_sets(root: Path, split: str, folders: dict[str, Path]) -> list[tuple[str, str]]:
    """Folders and sets of the first pair with annotations: of VOC2007 and VOC2012, or of the only folder."""
    chosen = [year for year in VOC_YEARS if year in folders] or list(folders)
    if len(chosen) > 1 and chosen[0] not in VOC_YEARS:
        raise LayoutError(
            f"{root}: several VOC data sets in it ({', '.join(chosen)}); name the image sets with `sets` of the "
            f"{split} data set, such as [{chosen[0]}/train]"
        )
    pairs = () if split == "test" else VOC_PAIRS
    for pair in pairs:
        found = [[(folder, name) for folder in chosen if _annotated(folders[folder], name)] for name in pair]
        if all(found):
            return found[0 if split == "train" else 1]
    for name in VOC_ALONE[split]:
        if alone := [(folder, name) for folder in chosen if _annotated(folders[folder], name)]:
            return alone
    raise LayoutError(
        f"{root}: no image sets with annotations both to train and to evaluate on; looked for "
        + ", ".join(f"{train} with {val}" for train, val in VOC_PAIRS)
        + f"; available: {', '.join(_available_sets(folders)) or 'none'}; set `sets` of each data set"
    )


def _annotated(folder: Path, name: str) -> bool:
    """Whether the image set exists, and any of its images has an annotation."""
    try:
        lines = _ids_file(folder, name).read_text(encoding="utf-8", errors="replace").splitlines()
        files = set(os.listdir(folder / VOC_PARTS[0]))
    except OSError:
        return False
    return any(f"{line.strip()}.xml" in files for line in lines)


def _ids_file(folder: Path, name: str) -> Path:
    return folder / VOC_PARTS[1] / f"{name}.txt"


def _available_sets(folders: dict[str, Path]) -> list[str]:
    """Names of the available image sets, those of single classes last."""
    found = [
        (f"{folder}/" if folder else "") + file.stem
        for folder, path in folders.items()
        for file in sorted((path / VOC_PARTS[1]).glob("*.txt"))
    ]
    return sorted(found, key=lambda name: name.endswith(("_train", "_val", "_trainval", "_test")))


def _voc_set(folders: dict[str, Path], folder: str, name: str) -> VocSet:
    path = folders[folder]
    if not (path / VOC_IMAGES).is_dir():
        raise LayoutError(f"{path}: has {VOC_PARTS[0]}, but no folder {VOC_IMAGES} with the images")
    return VocSet(
        name=f"{folder}/{name}" if folder else name,
        ids=_ids_file(path, name),
        annotations=path / VOC_PARTS[0],
        images=path / VOC_IMAGES,
    )
