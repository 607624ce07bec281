"""The file layouts of data sets in COCO and PASCAL VOC format, as common tools write them; the formats of a folder."""

from __future__ import annotations

import os
from pathlib import Path

from attrs import frozen

from det_core.data.file_suffixes import image_files
from det_core.data.format_search import coco_files, labelme_files, yolo_list
from det_core.errors import DataError, first_few, nearest

# The names of a split, most common first, letter case aside. Roboflow writes `valid`, and CVAT `default` for a task
# without splits; data without a validation split uses `test`.
ALIASES = {"train": ("train", "default"), "val": ("val", "valid", "validation", "test"), "test": ("test",)}

# (annotation file, image folders, most common first); {s} is the split's name.
LAYOUTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("annotations/instances_{s}2017.json", ("{s}2017", "images/{s}2017", "images")),
    ("annotations/instances_{s}.json", ("images/{s}", "{s}", "images", "JPEGImages", ".")),
    ("instances_{s}.json", ("images/{s}", "{s}", "images", "JPEGImages", ".")),
    ("{s}/_annotations.coco.json", ("{s}",)),
    ("annotations/{s}.json", ("images/{s}", "{s}", "images", "JPEGImages", ".")),
    ("{s}.json", ("images/{s}", "{s}", "images", "JPEGImages", ".")),
)

# The parts of a VOC folder, and the folders of VOC 07+12.
VOC_PARTS = ("Annotations", "ImageSets/Main")
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


class LayoutError(DataError):
    """The files of a data set were not found."""


class SeveralFilesError(LayoutError):
    """Several files may be meant."""


@frozen(kw_only=True)
class Layout:
    """The files of one split."""

    annotations: Path
    images: Path
    semantic: Path | None = None


@frozen(kw_only=True)
class VocSet:
    """The files of one VOC image set: its list of ids, and the folders with annotations and images."""

    name: str
    ids: Path
    annotations: Path
    images: Path


def find_layout(
    root: str | Path, split: str, annotations: str | None = None, images: str | None = None, semantic: str | None = None
) -> Layout:
    """The annotation file and folders of `split` ("train" or "val") below `root`; given paths replace the search.

    Raises LayoutError with every path that was tried.
    """
    folder = data_root(root, bool(annotations and images))
    found, guesses = (_explicit_file(folder, annotations, split), ()) if annotations else _find_file(folder, split)
    image_folder = (
        _explicit_folder(folder, images, "images")
        if images
        else _image_folder(folder, found, guesses or _guesses(folder, found, split))
    )
    semantic_folder = _explicit_folder(folder, semantic, "semantic_dir") if semantic else None
    return Layout(annotations=found, images=image_folder, semantic=semantic_folder)


def data_root(root: str | Path, explicit: bool = False) -> Path:
    """The data folder; LayoutError if there is none. explicit: paths are given, so that no folder is required."""
    if not str(root):
        if explicit:
            return Path()
        raise LayoutError(
            "no data folder was given: pass `--data ROOT` (or set `data.root`), the folder with the annotation files "
            "and images"
        )
    folder = Path(root).expanduser()
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise LayoutError(
            f"data folder {folder}: {what}; `--data` (`data.root`) takes the folder with the annotation files and "
            "images"
        )
    return folder


def _explicit_file(root: Path, name: str, split: str) -> Path:
    path = root / Path(name).expanduser()
    if not path.is_file():
        raise LayoutError(
            f"annotation file {path}: {_missing(path)}; correct `annotations` of the {split} data set, "
            "or remove it to search the usual layouts"
        )
    return path


def _explicit_folder(root: Path, name: str, key: str) -> Path:
    path = root / Path(name).expanduser()
    if not path.is_dir():
        raise LayoutError(
            f"{key} folder {path}: {'not a folder' if path.exists() else 'does not exist'}; correct "
            f"`{key}` of the data set"
        )
    return path


def _missing(path: Path) -> str:
    return "not a file" if path.exists() else "does not exist"


def _find_file(root: Path, split: str) -> tuple[Path, tuple[str, ...]]:
    """The annotation file of a layout, or else the only one that looks like COCO's, and possible image folders."""
    tried = []
    for alias in ALIASES[split]:
        for file, folders in LAYOUTS:
            name = file.format(s=alias)
            found = _existing(root, name)
            if found is not None:
                return found, tuple(f.format(s=alias) for f in folders)
            tried.append(name)
    if split == "train" and (lone := _lone_file(root)) is not None:
        return lone, _lone_guesses(root, lone)
    raise LayoutError(
        f"{root}: no annotation file for the {split} split; looked for\n"
        + "\n".join(f"  {name}" for name in tried)
        + _other_format(root)
        + f"\nrename your file to one of these, or set `annotations` (and `images`) of the data set{_without(split)}"
    )


def _other_format(root: Path) -> str:
    """A line for each other format that the folder is in."""
    names = {"voc": "a VOC", "yolo": "a YOLO", "labelme": "a labelme"}
    found = formats_at(root)
    return "".join(
        f"\nthe folder has the layout of {words} data set: use `type: {name}`"
        for name, words in names.items()
        if name in found
    )


def _without(split: str) -> str:
    """What else can be done if there is no such split."""
    if split == "val":
        return (
            "; without a validation split, set `data.val_fraction` (such as 0.1) to validate on a part of the training "
            "images, or `data.val: null` to train without"
        )
    return ""


def _existing(root: Path, name: str) -> Path | None:
    """The file of this name below a root, or else of this name in other letter case."""
    if (root / name).is_file():
        return root / name
    place = root
    for part in name.split("/"):
        same = [entry for entry in _entries(place) if entry.lower() == part.lower()]
        if len(same) != 1:
            return None
        place = place / same[0]
    return place if place.is_file() else None


def _entries(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _lone_file(root: Path) -> Path | None:
    """The only file below a root that looks like COCO's, but for those of other splits; LayoutError for several."""
    others = {
        _existing(root, file.format(s=alias))
        for split in ("val", "test")
        for alias in ALIASES[split]
        for file, _ in LAYOUTS
    }
    found = [path for path in coco_files(root) if path not in others]
    if len(found) > 1:
        names = [path.relative_to(root).as_posix() for path in found]
        raise SeveralFilesError(
            f"{root}: {len(found)} files look like COCO's: {first_few(names, SHOWN)}; name the one to train on, such "
            f"as `--set data.train.annotations={names[0]}` (and `data.val.annotations`)"
        )
    return found[0] if found else None


def _lone_guesses(root: Path, found: Path) -> tuple[str, ...]:
    """Image folders of a lone annotation file: those near it that have images in or below them."""
    near = (found.parent / "images" / found.stem, found.parent / "images", found.parent, root / "images", root)
    return tuple(str(folder) for folder in near if folder.is_dir() and next(image_files(folder), None))


def _guesses(root: Path, found: Path, split: str) -> tuple[str, ...]:
    """Possible image folders of a given annotation file: those of its layout, or of all layouts."""
    relative = found.relative_to(root).as_posix() if found.is_relative_to(root) else found.name
    for alias in ALIASES[split]:
        for file, folders in LAYOUTS:
            if file.format(s=alias) == relative:
                return tuple(f.format(s=alias) for f in folders)
    names = tuple(f"{stem}{alias}" for alias in ALIASES[split] for stem in ("images/", ""))
    return (*names, "images", str(found.parent.resolve()), ".")


def _image_folder(root: Path, found: Path, guesses: tuple[str, ...]) -> Path:
    for name in guesses:
        if (root / name).is_dir():
            return root / name
    raise LayoutError(
        f"{found}: no image folder for it; looked for\n"
        + "\n".join(f"  {root / name}" for name in guesses)
        + "\nset `images` of the data set"
    )


def formats_at(root: str | Path) -> frozenset[str]:
    """Which of the formats "coco", "voc", "yolo" and "labelme" a folder has; empty if it does not exist."""
    folder = Path(root).expanduser()
    names = [file.format(s=alias) for aliases in ALIASES.values() for alias in aliases for file, _ in LAYOUTS]
    found = {
        "coco": any(_existing(folder, name) is not None for name in names),
        "voc": bool(voc_folders(folder)),
        "yolo": yolo_list(folder) is not None,
    }
    if not any(found.values()):  # only then is every file looked at
        found = {"coco": bool(coco_files(folder)), "labelme": bool(labelme_files(folder))}
    return frozenset(name for name, is_there in found.items() if is_there)


def has_coco_split(root: str | Path, split: str) -> bool:
    """Whether a folder has annotations in COCO format for a split; True if it is not known, which opening reports."""
    folder = Path(root).expanduser()
    if not folder.is_dir():
        return True
    for name in dict.fromkeys((split, "train")):  # of several files for training, one may be of this split
        try:
            _find_file(folder, name)
        except SeveralFilesError:
            return True
        except LayoutError:
            continue
        return name == split
    return False


def has_voc_split(root: str | Path, split: str) -> bool:
    """Whether a folder has VOC image sets for a split; True if it is not known, which opening reports."""
    folder = Path(root).expanduser()
    folders = voc_folders(folder) if folder.is_dir() else {}
    try:
        return not folders or bool(_usual_sets(folder, split, folders))
    except LayoutError:
        return False


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


def voc_folders(root: Path) -> dict[str, Path]:
    """The VOC folders of a root, by name: the root (""), or those in it, or those in its VOCdevkit."""
    if _is_voc(root):
        return {"": root}
    for base in (root, root / "VOCdevkit"):
        found = {name: base / name for name in _subfolders(base) if _is_voc(base / name)}
        if found:
            return found
    return {}


def _is_voc(folder: Path) -> bool:
    return all((folder / part).is_dir() for part in VOC_PARTS)


def _subfolders(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir())
    except OSError:
        return []


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
