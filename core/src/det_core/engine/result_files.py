"""Detections on a data set in files that other tools read: COCO's results, and VOC's text file for each class.

Letters: n detections of a class.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from det_core.contracts import DetectionDataset
from det_core.errors import DetError, first_few
from det_core.safe_write import write_text

PREFIX = "comp4_det_"  # the challenge's name for results of detectors trained on any data


def write_results(path: Path, records: Sequence[Mapping[str, Any]], dataset: DetectionDataset) -> list[Path]:
    """Write records in COCO's results format into a `.json` file, or into a folder as VOC's text files.

    A text file `comp4_det_<class>.txt` has a line `image score xmin ymin xmax ymax` for each detection. Coordinates
    are those of pixels, counted from 1; the image is its file's name without suffix. Masks are in COCO's format only.

    Returns:
        The files that were written.

    Raises:
        DetError: if the folder is a file, a class has a name that no file can have, or two images have one name.
    """
    if path.suffix.lower() == ".json":
        write_text(path, json.dumps(records) + "\n")
        return [path]
    if path.is_file():
        raise DetError(f"{path}: is a file; give a `.json` file for COCO's format, or a folder for VOC's text files")
    return list(_write_voc(path, records, dataset))


def voc_file(dataset: DetectionDataset, label: int) -> str:
    """The name of the text file of a class."""
    name = dataset.classes.names[label]
    if not name or "/" in name or "\0" in name:
        raise DetError(f"class {name!r} cannot be part of a file's name; write a `.json` file in COCO's format")
    return f"{PREFIX}{name}.txt"


def voc_names(dataset: DetectionDataset) -> dict[int, str]:
    """The names of images, without suffix, by their ids; DetError if two images have one name."""
    names = {int(number): Path(dataset.file(index)).stem for index, number in enumerate(dataset.image_ids)}
    if len(set(names.values())) < len(names):
        seen: set[str] = set()
        twice = sorted({name for name in names.values() if name in seen or seen.add(name)})  # type: ignore[func-returns-value]
        raise DetError(
            f"{dataset.name}: images share the names {first_few(twice)}, by which VOC's text files tell them apart; "
            "use a `.json` file in COCO's format"
        )
    return names


def _write_voc(folder: Path, records: Sequence[Mapping[str, Any]], dataset: DetectionDataset) -> Iterator[Path]:
    names = voc_names(dataset)
    lines: dict[int, list[str]] = defaultdict(list)
    for record in records:
        x, y, width, height = record["bbox"]
        place = f"{x + 1:.6f} {y + 1:.6f} {x + width:.6f} {y + height:.6f}"
        lines[record["category_id"]].append(f"{names[record['image_id']]} {record['score']:.9f} {place}\n")
    for label, number in enumerate(dataset.classes.ids):
        path = folder / voc_file(dataset, label)
        write_text(path, "".join(lines[number]))
        yield path


def read_voc_results(folder: Path, dataset: DetectionDataset) -> list[dict[str, Any]]:
    """The records of a folder that `write_results` has written for VOC, or another tool.

    The file of a class is `comp4_det_<class>.txt`, or any `.txt` file whose name ends in `_<class>`. Images that the
    data set does not have get the id None.

    Raises:
        DetError: if a class has no file or several, or a line is not `image score xmin ymin xmax ymax`.
    """
    ids = {name: number for number, name in voc_names(dataset).items()}
    return [
        _record(line, f"{path}, line {row}", ids, number)
        for label, number in enumerate(dataset.classes.ids)
        for path in [_file_of(folder, dataset.classes.names[label])]
        for row, line in enumerate(path.read_text(encoding="utf8").splitlines(), start=1)
        if line.strip()
    ]


def has_voc_results(folder: Path, dataset: DetectionDataset) -> bool:
    """Whether a folder has a text file for a class of the data set."""
    return any(path.stem.endswith(f"_{name}") for path in folder.glob("*.txt") for name in dataset.classes.names)


def _file_of(folder: Path, name: str) -> Path:
    exact = folder / f"{PREFIX}{name}.txt"
    found = [exact] if exact.is_file() else sorted(p for p in folder.glob("*.txt") if p.stem.endswith(f"_{name}"))
    if len(found) != 1:
        what = "no file" if not found else f"the files {first_few([p.name for p in found])}"
        raise DetError(f"{folder}: {what} for class {name!r}, expected {PREFIX}{name}.txt")
    return found[0]


def _record(line: str, where: str, ids: Mapping[str, int], category: int) -> dict[str, Any]:
    parts = line.split()
    try:
        name, (score, x, y, x2, y2) = parts[0], (float(part) for part in parts[1:])
    except ValueError:
        raise DetError(f"{where}: found {line.strip()!r}, expected `image score xmin ymin xmax ymax`") from None
    return {
        "image_id": ids.get(name),
        "category_id": category,
        "bbox": [x - 1, y - 1, x2 - x + 1, y2 - y + 1],
        "score": score,
    }
