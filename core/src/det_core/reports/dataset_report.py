"""What is in a data set, before anything trains on it.

Letters: M boxes, A anchor shapes. Sizes of boxes are in pixels of the network's input where a `resize` is given, of
the images otherwise.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
from attrs import frozen
from rich.console import Console
from rich.table import Table

from det_core.contracts import BadSample, DetectionDataset
from det_core.data.bad_samples import BadImage, objects_problem, summary
from det_core.data.categories import category_mismatch
from det_core.data.data_config import ResizeConfig
from det_core.data.image_content import shared_files
from det_core.data.transforms import keep_ratio_size
from det_core.errors import counted, listing

if TYPE_CHECKING:
    from numpy.typing import NDArray

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
AREA_LIMITS = (32.0**2, 96.0**2)  # COCO's small | medium | large
POOR_IOU = 0.5
WIDTH = 80
CHUNK = 1 << 16

AnchorSetting = tuple[Sequence[float], Sequence[float], Sequence[float]]  # scales, ratios (h / w), strides


@frozen(kw_only=True)
class ClassCount:
    """How often a class occurs: objects (crowd aside) and images that have one."""

    name: str
    id: int
    objects: int
    images: int


@frozen(kw_only=True)
class AnchorFit:
    """How well anchor shapes fit the boxes, each box centred on an anchor.

    poor: share of boxes whose best anchor has an IoU below 0.5; by COCO area in `poor_by_area`. smallest, largest:
    square roots of anchor areas in pixels.
    """

    poor: float
    poor_by_area: dict[str, float]
    mean_iou: float
    smallest: float
    largest: float


@frozen(kw_only=True)
class Report:
    """Counts and sizes of a data set, and what is wrong with it. Fractions are of 1, lengths in pixels.

    crowd: annotations that are ignored; ignored_kind: what they are. semantic_classes: ids that the semantic maps may
    hold; 0 where no maps were asked for. notes: what opening did to the data. dropped: annotations that training does
    not use, by what they are. shared: images that are in the other split, too. useless: why nothing can be learned from
    the data set, or "".
    """

    name: str
    images: int
    objects: int
    crowd: int
    ignored_kind: str
    dropped: dict[str, int]
    filtered: int
    semantic_classes: int
    empty_images: int
    objects_per_image: dict[str, float]
    image_sizes: dict[str, int]
    classes: tuple[ClassCount, ...]
    areas: dict[str, int]
    percentiles: dict[str, float]
    resized: bool
    anchors: AnchorFit | None
    notes: tuple[str, ...]
    bad: tuple[BadSample, ...]
    mismatch: tuple[str, ...]
    shared: tuple[str, ...]
    useless: str

    def has_problems(self) -> bool:
        """Whether something is to be corrected before training."""
        return bool(self.bad or self.mismatch or self.useless)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, for JSON."""
        return attrs.asdict(
            self, value_serializer=lambda _, __, value: list(value) if isinstance(value, tuple) else value
        )

    def render(self) -> str:
        """The report as text of at most 80 columns, but for file paths, which are not broken."""
        console = Console(
            file=io.StringIO(),
            width=WIDTH,
            color_system=None,
            force_terminal=False,
            highlight=False,
            markup=False,
            emoji=False,
        )
        for part in _parts(self):
            if isinstance(part, (str, Table)):
                console.print(part)
            else:  # lines with file paths stay whole, to be copied
                console.print("\n".join(part), soft_wrap=True)
        assert isinstance(console.file, io.StringIO)
        return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def data_report(
    dataset: DetectionDataset,
    anchors: AnchorSetting | None = None,
    resize: ResizeConfig | None = None,
    other: DetectionDataset | None = None,
    read_images: bool = False,
) -> Report:
    """What is in a data set; open it with on_bad_sample="skip" to have what is wrong listed rather than raised.

    anchors: scales, ratios (h / w) and strides of a recipe: a shape has sqrt(area) = scale * stride. resize: the
    recipe's, so that boxes are measured as the network sees them (at the largest scale). other: the other split, whose
    categories are to be the same, and whose images others. read_images decodes every image, to find those that are
    truncated.
    """
    truth = dataset.ground_truth()
    objects = [a for a in truth["annotations"] if not a["iscrowd"]]
    counts = _objects_per_image(dataset, objects)
    sides = _sides(dataset, objects, resize)
    mismatch = () if other is None else tuple(category_mismatch(dataset, other))
    shared = () if other is None else tuple(f"{b} equals {a}" for a, b in shared_files(dataset, other))
    bad = [*dataset.skipped, *(_unreadable(dataset) if read_images else ())]
    return Report(
        name=dataset.name,
        images=len(dataset),
        objects=len(objects),
        crowd=len(truth["annotations"]) - len(objects),
        ignored_kind=dataset.ignored_kind,
        dropped=dict(dataset.dropped),
        useless=objects_problem(dataset),
        filtered=dataset.filtered,
        semantic_classes=dataset.semantic_classes,
        empty_images=int((counts == 0).sum()),
        objects_per_image=_spread(counts),
        image_sizes=_image_sizes(dataset),
        classes=_class_counts(dataset, objects),
        areas={name: int(group.sum()) for name, group in _area_groups(sides).items()},
        percentiles=_percentiles(sides),
        resized=resize is not None,
        anchors=None if anchors is None or not len(sides) else anchor_fit(sides, anchors),
        notes=tuple(dataset.notes),
        bad=tuple(bad),
        mismatch=mismatch,
        shared=shared,
    )


def _objects_per_image(dataset: DetectionDataset, objects: Sequence[dict[str, Any]]) -> NDArray[np.int64]:
    """(N,) objects of each image."""
    position = {int(number): i for i, number in enumerate(dataset.image_ids)}
    rows = np.array([position[a["image_id"]] for a in objects], np.int64)
    return np.bincount(rows, minlength=len(dataset)).astype(np.int64)


def _spread(counts: NDArray[np.int64]) -> dict[str, float]:
    return {"mean": float(counts.mean()), "median": float(np.median(counts)), "max": float(counts.max())}


def _sides(
    dataset: DetectionDataset, objects: Sequence[dict[str, Any]], resize: ResizeConfig | None
) -> NDArray[np.float64]:
    """(M, 2) width and height of each object's box."""
    sides = np.array([a["bbox"][2:] for a in objects], np.float64).reshape(-1, 2)
    if resize is None:
        return sides
    factors = {
        int(number): _factors((int(h), int(w)), resize)
        for number, (h, w) in zip(dataset.image_ids, dataset.sizes, strict=True)
    }
    return sides * np.array([factors[a["image_id"]] for a in objects], np.float64).reshape(-1, 2)


def _factors(size: tuple[int, int], resize: ResizeConfig) -> tuple[float, float]:
    """(x, y) factors of an image of (height, width) at the largest scale."""
    scale = max(resize.scales, key=lambda s: s[0] * s[1])
    new = keep_ratio_size(size, scale) if resize.keep_ratio else (scale[1], scale[0])
    return new[1] / size[1], new[0] / size[0]


def _image_sizes(dataset: DetectionDataset) -> dict[str, int]:
    low, high = dataset.sizes.min(axis=0), dataset.sizes.max(axis=0)
    return {"min_height": int(low[0]), "min_width": int(low[1]), "max_height": int(high[0]), "max_width": int(high[1])}


def _class_counts(dataset: DetectionDataset, objects: Sequence[dict[str, Any]]) -> tuple[ClassCount, ...]:
    counts = dict.fromkeys(dataset.classes.ids, 0)
    images: dict[int, set[int]] = {number: set() for number in dataset.classes.ids}
    for annotation in objects:
        counts[annotation["category_id"]] += 1
        images[annotation["category_id"]].add(annotation["image_id"])
    return tuple(
        ClassCount(name=name, id=number, objects=counts[number], images=len(images[number]))
        for name, number in zip(dataset.classes.names, dataset.classes.ids, strict=True)
    )


def _area_groups(sides: NDArray[np.float64]) -> dict[str, NDArray[np.bool_]]:
    """Which boxes are small, medium and large."""
    area = sides.prod(axis=1)
    return {
        "small": area < AREA_LIMITS[0],
        "medium": (area >= AREA_LIMITS[0]) & (area < AREA_LIMITS[1]),
        "large": area >= AREA_LIMITS[1],
    }


def _percentiles(sides: NDArray[np.float64]) -> dict[str, float]:
    """Percentiles of the square root of the boxes' areas."""
    if not len(sides):
        return {}
    values = np.percentile(np.sqrt(sides.prod(axis=1)), PERCENTILES)
    return {str(p): float(v) for p, v in zip(PERCENTILES, values, strict=True)}


def anchor_shapes(anchors: AnchorSetting) -> NDArray[np.float64]:
    """(A, 2) width and height of anchors: stride * scale / sqrt(ratio) and stride * scale * sqrt(ratio)."""
    scales, ratios, strides = anchors
    return np.array(
        [
            (stride * scale / math.sqrt(ratio), stride * scale * math.sqrt(ratio))
            for stride in strides
            for ratio in ratios
            for scale in scales
        ],
        np.float64,
    )


def anchor_fit(sides: NDArray[np.float64], anchors: AnchorSetting) -> AnchorFit:
    """How well these anchors fit boxes of these widths and heights, (M, 2) with M at least 1."""
    shapes = anchor_shapes(anchors)
    best = np.concatenate([_best_iou(sides[i : i + CHUNK], shapes) for i in range(0, len(sides), CHUNK)])
    poor = best < POOR_IOU
    roots = np.sqrt(shapes.prod(axis=1))
    return AnchorFit(
        poor=float(poor.mean()),
        mean_iou=float(best.mean()),
        smallest=float(roots.min()),
        largest=float(roots.max()),
        poor_by_area={
            name: float(poor[group].mean()) if group.any() else 0.0 for name, group in _area_groups(sides).items()
        },
    )


def _best_iou(sides: NDArray[np.float64], shapes: NDArray[np.float64]) -> NDArray[np.float64]:
    """(M,) IoU of each box with its best shape, the two centred on one point."""
    common = np.minimum(sides[:, None, 0], shapes[:, 0]) * np.minimum(sides[:, None, 1], shapes[:, 1])
    union = sides.prod(axis=1)[:, None] + shapes.prod(axis=1) - common
    best: NDArray[np.float64] = (common / union).max(axis=1)
    return best


def _unreadable(dataset: DetectionDataset) -> list[BadSample]:
    """Images that cannot be decoded."""
    bad = []
    for index in range(len(dataset)):
        try:
            dataset.load(index)
        except BadImage as error:
            bad.append(error.sample)
    return bad


def _parts(report: Report) -> list[str | Table | list[str]]:
    """The report's paragraphs and tables, in order."""
    parts: list[str | Table | list[str]] = [_overview(report), _class_table(report), _size_table(report)]
    if report.percentiles:
        parts.append(_percentile_line(report))
    if report.anchors is not None:
        parts.append(_anchor_lines(report.anchors))
    if report.bad:
        parts.append([f"Not usable: {summary(report.bad)}", *listing(report.bad)])
    if report.mismatch:
        parts.append(["Categories differ between the splits:", *listing(report.mismatch)])
    if report.shared:
        title = f"Images of equal content in both splits, so metrics say too much: {len(report.shared)}"
        parts.append([title, *listing(report.shared)])
    if report.useless:
        parts.append([report.useless])
    if not report.has_problems():
        parts.append("No problems found.")
    return parts


def _overview(report: Report) -> str:
    size, per = report.image_sizes, report.objects_per_image
    lines = [
        report.name,
        f"  {report.images} images of {size['min_width']}x{size['min_height']} to "
        f"{size['max_width']}x{size['max_height']} pixels, {report.empty_images} without objects",
    ]
    lines.append(
        f"  {report.objects} objects: {per['mean']:.1f} per image (median {per['median']:.0f}, most "
        f"{per['max']:.0f}), and {report.crowd} {report.ignored_kind}"
    )
    lines += [
        f"  {counted(count, 'annotation')} left out of training: {what}"
        for what, count in report.dropped.items()
        if what != report.ignored_kind
    ]
    if report.filtered:
        lines.append(f"  {report.filtered} images are left out by the settings filter_empty and min_size")
    lines += [f"  {note}" for note in report.notes]
    if report.semantic_classes:
        lines.append(f"  a semantic map for every image, of ids 0..{report.semantic_classes - 1} and 255 (unlabelled)")
    return "\n".join(lines)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right", overflow="fold")
    return table


def _class_table(report: Report) -> Table:
    table = _table(f"{len(report.classes)} classes", "class", "id", "objects", "share", "images")
    for entry in sorted(report.classes, key=lambda c: -c.objects):
        share = entry.objects / max(report.objects, 1)
        table.add_row(entry.name, str(entry.id), str(entry.objects), f"{share:.1%}", str(entry.images))
    return table


def _size_table(report: Report) -> Table:
    where = "as the network sees them" if report.resized else "in the images"
    columns = ["boxes", "objects", "share"] + (["best anchor below 0.5 IoU"] if report.anchors else [])
    table = _table(f"Boxes by area, {where}", *columns)
    ranges = {"small": "small (< 32x32)", "medium": "medium", "large": "large (>= 96x96)"}
    for name, title in ranges.items():
        row = [title, str(report.areas[name]), f"{report.areas[name] / max(report.objects, 1):.1%}"]
        if report.anchors:
            row.append(f"{report.anchors.poor_by_area[name]:.1%}" if report.areas[name] else "n/a")
        table.add_row(*row)
    return table


def _percentile_line(report: Report) -> str:
    values = ", ".join(f"{value:.0f} ({p}%)" for p, value in report.percentiles.items())
    return f"Square root of the box area in pixels, by percentile: {values}"


def _anchor_lines(fit: AnchorFit) -> str:
    line = (
        f"Anchors of {fit.smallest:.0f} to {fit.largest:.0f} pixels: {fit.poor:.1%} of the boxes have no anchor "
        f"shape of IoU 0.5 or more; the best IoU is {fit.mean_iou:.2f} on average."
    )
    if fit.poor > 0.1:
        line += " Smaller or larger anchors, or another input scale, may find more of them."
    return line
