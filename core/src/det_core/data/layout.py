"""The files of data sets in COCO format: where common tools write them, and what is found elsewhere."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

from det_core.data.data_root import LayoutError, SeveralFilesError, data_root
from det_core.data.file_suffixes import image_files
from det_core.data.format_search import ALIASES, LAYOUTS, Files, coco_files, formats_at
from det_core.errors import first_few

SHOWN = 8


@frozen(kw_only=True)
class Layout:
    """The files of one split."""

    annotations: Path
    images: Path
    semantic: Path | None = None


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


def _explicit_file(root: Path, name: str, split: str) -> Path:
    path = root / Path(name).expanduser()
    if not path.is_file():
        raise LayoutError(
            f"annotation file {path}: {'not a file' if path.exists() else 'does not exist'}; correct `annotations` of "
            f"the {split} data set, or remove it to search the usual layouts"
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


def _find_file(root: Path, split: str) -> tuple[Path, tuple[str, ...]]:
    """The annotation file of a layout, or else the only one that looks like COCO's, and possible image folders."""
    files = Files(root)
    tried = []
    for alias in ALIASES[split]:
        for file, folders in LAYOUTS:
            name = file.format(s=alias)
            found = files.find(name)
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


def _lone_file(root: Path) -> Path | None:
    """The only file below a root that looks like COCO's, but for those of other splits; LayoutError for several."""
    files = Files(root)
    others = {
        files.find(file.format(s=alias)) for split in ("val", "test") for alias in ALIASES[split] for file, _ in LAYOUTS
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
