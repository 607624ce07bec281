"""Converting a data set to another format: its splits are read, checked and written to a new folder."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from attrs import define, field, frozen

from det_core.config.yaml_text import to_yaml
from det_core.contracts import BadSample, DetectionDataset
from det_core.data.bad_samples import raise_or_log
from det_core.data.coco_checks import check_sections
from det_core.data.coco_columns import Record
from det_core.data.coco_sections import Sections
from det_core.data.data_root import data_root
from det_core.data.dataset_settings import RecordSettings
from det_core.data.files_config import YoloConfig
from det_core.data.yolo_files import read_yolo
from det_core.data.yolo_lines import to_line, without_values
from det_core.data.yolo_list import read_list
from det_core.errors import DataError, counted
from det_core.safe_write import write_text
from det_core.slots import DatasetConfig
from det_core.specs import OnBadSample, Split
from det_core.structures import Classes

Target = Literal["coco", "yolo"]
Images = Literal["link", "copy"]


@frozen(eq=False, kw_only=True)
class SplitRecords:
    """A checked split. files: path of each image. annotations: records of COCO's format, of these images."""

    name: str
    classes: Classes
    images: Sequence[Record]
    files: Sequence[str]
    annotations: Sequence[Record]
    skipped: Sequence[BadSample]
    notes: Sequence[str]


@define(eq=False)
class Converted:
    """What was written: numbers by split, what of annotations was lost, and lines to tell."""

    images: Counter[str] = field(factory=Counter)
    annotations: Counter[str] = field(factory=Counter)
    lost: Counter[str] = field(factory=Counter)
    notes: list[str] = field(factory=list)

    def lines(self) -> Iterator[str]:
        """A report, a line each."""
        for split, count in self.images.items():
            yield f"{split}: {counted(count, 'image')}, {counted(self.annotations[split], 'annotation')}"
        for what, count in self.lost.items():
            yield f"{counted(count, 'annotation')} {what}"
        yield from self.notes


def convert(
    splits: dict[Split, DatasetConfig],
    root: str,
    out: Path,
    target: Target,
    *,
    images: Images = "link",
    on_bad_sample: OnBadSample = "error",
) -> Converted:
    """Write the splits of a data set to the folder `out`, which must not exist or be empty.

    COCO's format is instances_SPLIT.json, YOLO's is data.yaml and labels/SPLIT; images are in images/SPLIT, as links to
    the given ones or copies of them.

    Raises:
        DetError: if the folder has files, or the data set cannot be read.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"--out {out}: exists and is not an empty folder; choose another, or empty it")
    records: dict[str, SplitRecords] = {s: read_split(config, root, on_bad_sample) for s, config in splits.items()}
    classes = _classes(records)
    report = Converted()
    for split, part in records.items():
        names = _names(part.files)
        for file, name in zip(part.files, names, strict=True):
            _place(Path(file), out / "images" / split / name, images)
        if target == "coco":
            _write_coco(out / f"instances_{split}.json", part, names)
        else:
            _write_yolo(out / "labels" / split, part, names, report.lost)
        report.images[split] += len(part.images)
        report.annotations[split] += len(part.annotations)
        lines = [*part.notes, *(f"left out: {bad}" for bad in part.skipped)]
        report.notes += [line for line in lines if line not in report.notes]
    if target == "yolo":
        content: dict[str, Any] = {split: f"images/{split}" for split in records}
        write_text(out / "data.yaml", to_yaml({**content, "names": dict(enumerate(classes.names))}))
    return report


def _classes(records: Mapping[str, SplitRecords]) -> Classes:
    """The classes of all splits; DataError if they differ."""
    first, *others = records.values()
    for part in others:
        if part.classes != first.classes:
            raise DataError(f"{part.name}: its classes are not those of the other splits; correct them first")
    return first.classes


def read_split(config: DatasetConfig, root: str, on_bad_sample: OnBadSample) -> SplitRecords:
    """The checked records of a data set; DetError with what is wrong."""
    if not isinstance(config, RecordSettings):
        return _of_dataset(config.build(root, on_bad_sample=on_bad_sample))
    sections, folder = _sections(config, root)
    checked = check_sections(sections, folder, masks=False)
    raise_or_log(str(sections.path), checked.bad, on_bad_sample)
    return SplitRecords(
        name=str(sections.path),
        classes=sections.classes,
        images=checked.images,
        files=[str(folder / record["file_name"]) for record in checked.images],
        annotations=checked.annotations,
        skipped=checked.bad,
        notes=sections.notes,
    )


def _sections(config: RecordSettings, root: str) -> tuple[Sections, Path]:
    if not isinstance(config, YoloConfig):
        return config.read(root)
    data = read_list(data_root(config.place(root)), config.list_file)
    return read_yolo(data, config.split, keep_values=True), data.root


def _of_dataset(dataset: DetectionDataset) -> SplitRecords:
    truth = dataset.ground_truth()
    return SplitRecords(
        name=dataset.name,
        classes=dataset.classes,
        images=truth["images"],
        files=[dataset.file(index) for index in range(len(dataset))],
        annotations=truth["annotations"],
        skipped=dataset.skipped,
        notes=dataset.notes,
    )


def _names(files: Sequence[str]) -> list[str]:
    """Names of images in their new folder: their paths below the folder that all are in."""
    folder = os.path.commonpath([os.path.dirname(os.path.abspath(file)) for file in files])
    return [os.path.relpath(os.path.abspath(file), folder) for file in files]


def _place(source: Path, target: Path, images: Images) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if images == "copy":
        shutil.copyfile(source, target)
    else:
        target.symlink_to(source.resolve())


def _write_coco(path: Path, part: SplitRecords, names: Sequence[str]) -> None:
    sizes = _sizes(part)
    images = [{**record, "file_name": name} for record, name in zip(part.images, names, strict=True)]
    annotations = [
        without_values(record, sizes[record["image_id"]]) if "yolo" in record else record for record in part.annotations
    ]
    content = {"images": images, "annotations": annotations, "categories": part.classes.categories()}
    write_text(path, json.dumps(content))


def _sizes(part: SplitRecords) -> dict[int, tuple[int, int]]:
    """(width, height) of the images by id."""
    return {record["id"]: (record["width"], record["height"]) for record in part.images}


def _write_yolo(folder: Path, part: SplitRecords, names: Sequence[str], lost: Counter[str]) -> None:
    """A text file for each image with objects; counts what is lost."""
    files = {record["id"]: Path(name).with_suffix(".txt") for record, name in zip(part.images, names, strict=True)}
    if len(set(files.values())) < len(files):
        twice = next(file for file, count in Counter(files.values()).items() if count > 1)
        raise DataError(f"{part.name}: several images would have the text file {twice}; rename one of them")
    labels = {number: label for label, number in enumerate(part.classes.ids)}
    sizes = _sizes(part)
    lines: dict[int, list[str]] = {number: [] for number in files}
    for record in part.annotations:
        if record.get("iscrowd"):
            lost["of crowd regions left out, which YOLO's format does not have"] += 1
            continue
        line, what = to_line(record, labels[record["category_id"]], sizes[record["image_id"]])
        lines[record["image_id"]].append(line)
        if what:
            lost[what] += 1
    for number, own in lines.items():
        if own:
            path = folder / files[number]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(own) + "\n", encoding="utf8")
    folder.mkdir(parents=True, exist_ok=True)
