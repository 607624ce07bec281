"""Where a COCO-format data set keeps its files: the layouts that people's tools write."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

from det_core.data.dataset import DataError

# The names a split goes by, the likeliest first. Roboflow writes `valid`; sets without one are evaluated on `test`.
ALIASES = {"train": ("train",), "val": ("val", "valid", "validation", "test")}

# (annotation file, image folders in order of likelihood); {s} is the split's name.
LAYOUTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("annotations/instances_{s}2017.json", ("{s}2017", "images/{s}2017", "images")),
    ("annotations/instances_{s}.json", ("images/{s}", "{s}", "images", "JPEGImages", ".")),
    ("instances_{s}.json", ("images/{s}", "{s}", "images", "JPEGImages", ".")),
    ("{s}/_annotations.coco.json", ("{s}",)),
    ("annotations/{s}.json", ("images/{s}", "{s}", "images", "JPEGImages", ".")),
    ("{s}.json", ("images/{s}", "{s}", "images", "JPEGImages", ".")),
)


class LayoutError(DataError):
    """A data set's files are not where they are looked for."""


@frozen(kw_only=True)
class Layout:
    """The files of one split."""

    annotations: Path
    images: Path
    semantic: Path | None = None


def find_layout(
    root: str | Path, split: str, annotations: str | None = None, images: str | None = None, semantic: str | None = None
) -> Layout:
    """The annotation file and folders of `split` ("train" or "val") below `root`; given paths win over guesses.

    Raises LayoutError that lists every place that was looked at.
    """
    folder = _root(root, bool(annotations and images))
    found, guesses = (_explicit_file(folder, annotations, split), ()) if annotations else _find_file(folder, split)
    image_folder = (
        _explicit_folder(folder, images, "images")
        if images
        else _image_folder(folder, found, guesses or _guesses(folder, found, split))
    )
    semantic_folder = _explicit_folder(folder, semantic, "semantic_dir") if semantic else None
    return Layout(annotations=found, images=image_folder, semantic=semantic_folder)


def _root(root: str | Path, explicit: bool) -> Path:
    if not str(root):
        if explicit:
            return Path()
        raise LayoutError(
            "no data folder was given: pass `--data ROOT` (or set `data.root`), the folder that holds "
            "the annotation files and images"
        )
    folder = Path(root).expanduser()
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise LayoutError(
            f"data folder {folder}: {what}; `--data` (`data.root`) takes the folder that holds the "
            "annotation files and images"
        )
    return folder


def _explicit_file(root: Path, name: str, split: str) -> Path:
    path = root / Path(name).expanduser()
    if not path.is_file():
        raise LayoutError(
            f"annotation file {path}: {_missing(path)}; correct `annotations` of the {split} data set, "
            "or leave it out to look in the usual places"
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
    """The first annotation file that exists, and the image folders that go with it."""
    tried = []
    for alias in ALIASES[split]:
        for file, folders in LAYOUTS:
            name = file.format(s=alias)
            if (root / name).is_file():
                return root / name, tuple(f.format(s=alias) for f in folders)
            tried.append(name)
    raise LayoutError(
        f"{root}: no annotation file for the {split} split; looked for\n"
        + "\n".join(f"  {name}" for name in tried)
        + "\nrename yours to one of these, or name it with `annotations` (and `images`) of the data set"
    )


def _guesses(root: Path, found: Path, split: str) -> tuple[str, ...]:
    """Image folders for an annotation file that was named: those of its layout, or of any."""
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
        + "\nname yours with `images` of the data set"
    )
