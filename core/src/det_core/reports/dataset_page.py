"""The report on a data set as one HTML page: tables, histograms and pictures, without scripts or other files."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from html import escape

import numpy as np
from attrs import frozen
from PIL import Image
from torch import Tensor

from det_core.contracts import DetectionDataset
from det_core.data.bad_samples import BadImage
from det_core.reports.bar_chart import bar_chart, count_bars, power_bars
from det_core.reports.dataset_pictures import spread_evenly
from det_core.reports.dataset_report import Report
from det_core.reports.drawing import draw_targets, shown

PICTURES = 12  # of each split
LONGEST = 320  # pixels of the longer side of a picture
LINES = 200  # of each list of problems; the rest is counted
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #222; background: #fff; max-width: 1100px; margin: 2em auto;
  padding: 0 1em }
h1 { font-size: 1.5em } h2 { font-size: 1.25em; border-bottom: 1px solid #ccc; margin-top: 2em } h3 { font-size: 1em }
table { border-collapse: collapse } td, th { padding: .2em .8em; text-align: right; border-bottom: 1px solid #ddd }
td:first-child, th:first-child { text-align: left }
.charts, .pictures { display: flex; flex-wrap: wrap; gap: 1.5em } .charts svg { width: 330px }
svg text { font-size: 11px; fill: #333 } svg .title { font-weight: bold; font-size: 12px }
figure { margin: 0; width: 240px } figure img { max-width: 100%; display: block }
figcaption { font-size: 12px; color: #555; overflow-wrap: anywhere }
.problem { color: #a32020 } pre { white-space: pre-wrap; overflow-wrap: anywhere; background: #f5f5f5; padding: .6em }
"""


@frozen(eq=False)
class SplitReport:
    """A split of a data set and what was found in it."""

    split: str
    dataset: DetectionDataset
    report: Report


def dataset_page(parts: Sequence[SplitReport], note: str = "") -> str:
    """The page on all splits. note: a line for the top of it.

    Images that cannot be read have no picture; the report lists them if it was made with `read_images`.
    """
    title = "Data: " + ", ".join(part.split for part in parts)
    body = "\n".join(line for part in parts for line in _split(part))
    top = f"<p>{escape(note)}</p>" if note else ""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>\n'
        f"<body><h1>{escape(title)}</h1>{top}\n{body}\n</body></html>\n"
    )


def _split(part: SplitReport) -> Iterator[str]:
    report = part.report
    yield f"<h2>{escape(part.split)}</h2><p>{escape(report.name)}</p>"
    yield _table(("", "number"), _overview(report))
    yield "".join(f"<p>{escape(note)}</p>" for note in report.notes)
    yield from _problems(report)
    yield f"<h3>{len(report.classes)} classes</h3>"
    yield _table(
        ("class", "id", "objects", "share", "images"),
        [
            (c.name, str(c.id), str(c.objects), f"{c.objects / max(report.objects, 1):.1%}", str(c.images))
            for c in sorted(report.classes, key=lambda c: -c.objects)
        ],
    )
    yield f'<h3>Histograms</h3><div class="charts">{"".join(_charts(part.dataset))}</div>'
    yield f'<h3>Pictures</h3><div class="pictures">{"".join(_pictures(part.dataset))}</div>'


def _overview(report: Report) -> list[tuple[str, str]]:
    size, where = report.image_sizes, "as the network sees them" if report.resized else "in the images"
    rows = [
        ("images", str(report.images)),
        ("images without objects", str(report.empty_images)),
        ("smallest and largest sides, height", f"{size['min_height']} to {size['max_height']}"),
        ("smallest and largest sides, width", f"{size['min_width']} to {size['max_width']}"),
        ("objects", str(report.objects)),
        ("objects per image", f"{report.objects_per_image['mean']:.1f}"),
        *((f"annotations left out of training: {what}", str(count)) for what, count in report.dropped.items()),
        ("images left out by filter_empty and min_size", str(report.filtered)),
        *((f"{name} boxes, {where}", str(count)) for name, count in report.areas.items()),
    ]
    if report.anchors is not None:
        rows.append(("boxes without an anchor of IoU 0.5", f"{report.anchors.poor:.1%}"))
    return rows


def _problems(report: Report) -> Iterator[str]:
    lists = (
        ("Not usable", [str(bad) for bad in report.bad]),
        ("Categories differ between the splits", report.mismatch),
        ("Images of equal content in both splits, so metrics say too much", report.shared),
        ("Nothing to learn from", [report.useless] if report.useless else []),
    )
    for title, lines in lists:
        if lines:
            more = [f"... and {len(lines) - LINES} more"] if len(lines) > LINES else []
            text = escape("\n".join([*lines[:LINES], *more]))
            yield f'<h3 class="problem">{escape(title)}: {len(lines)}</h3><pre>{text}</pre>'
    if not any(lines for _, lines in lists):
        yield "<p>No problems found.</p>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return f"<table>{row(head, 'th')}{''.join(row(cells, 'td') for cells in rows)}</table>"


def _charts(dataset: DetectionDataset) -> Iterator[str]:
    objects = [a for a in dataset.ground_truth()["annotations"] if not a["iscrowd"]]
    position = {int(number): index for index, number in enumerate(dataset.image_ids)}
    counts = np.bincount([position[a["image_id"]] for a in objects], minlength=len(dataset)).astype(np.int64)
    sides = np.array([a["bbox"][2:] for a in objects], np.float64).reshape(-1, 2)
    ratios = sides[:, 1] / np.where(sides[:, 0] > 0, sides[:, 0], np.inf)
    yield bar_chart("Sizes of boxes", power_bars(np.sqrt(sides.prod(axis=1))), "square root of the area, in pixels")
    yield bar_chart("Shapes of boxes", power_bars(ratios), "height / width")
    yield bar_chart("Objects per image", count_bars(counts), "objects")
    sizes = np.sqrt(dataset.sizes.astype(np.float64).prod(axis=1))
    yield bar_chart("Sizes of images", power_bars(sizes), "square root of the area, in pixels")


def _pictures(dataset: DetectionDataset) -> Iterator[str]:
    for index in spread_evenly(len(dataset), PICTURES):
        try:
            sample = dataset.load(index)
        except BadImage:
            continue
        picture = draw_targets(shown(sample.image), sample.targets(), dataset.classes)
        caption = f"id {int(dataset.image_ids[index])}: {dataset.file(index)}"
        yield (
            f'<figure><img alt="image {int(dataset.image_ids[index])} with its annotations" src="{_embedded(picture)}">'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )


def _embedded(picture: Tensor) -> str:
    """A picture (3, H, W) uint8 as a small JPEG in a data URL."""
    image = Image.fromarray(picture.permute(1, 2, 0).cpu().numpy())
    image.thumbnail((LONGEST, LONGEST))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
