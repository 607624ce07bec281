"""`det-core data --html`: one page without scripts, with every number of the report, charts and pictures."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import attrs
import numpy as np
import pytest
from PIL import Image

from det_core.cli.main import run
from det_core.data.coco_dataset import CocoDataset
from det_core.reports.bar_chart import Bar, bar_chart, count_bars, power_bars
from det_core.reports.dataset_page import SplitReport, dataset_page
from det_core.reports.dataset_report import data_report

MakeCoco = Callable[..., Path]


class Balanced(HTMLParser):
    """Checks that every element is closed, and keeps the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, given: Any) -> None:
        self.tags.add(tag)
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, given: Any) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data + " "


def parsed(page: str) -> Balanced:
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    return parser


def test_bars() -> None:
    assert power_bars(np.array([1.0, 1.9, 4, 0, 30])) == [
        Bar("1", 2),
        Bar("2", 0),
        Bar("4", 1),
        Bar("8", 0),
        Bar("16", 1),
    ]
    assert power_bars(np.array([0.3]))[0].label == "0.25"
    assert power_bars(np.array([])) == []
    assert count_bars(np.array([0, 2, 2, 50, 9]), most=9) == [
        Bar("0", 1),
        Bar("1", 0),
        Bar("2", 2),
        *(Bar(str(i), 0) for i in range(3, 9)),
        Bar("9+", 2),
    ]


def test_a_chart_is_svg_whose_bars_are_in_proportion() -> None:
    root = ElementTree.fromstring(bar_chart("a < b", [Bar("x & y", 2), Bar("z", 4)], "pixels"))
    heights = [float(bar.attrib["height"]) for bar in root.iter("rect")]
    assert heights[1] == pytest.approx(2 * heights[0], abs=0.11)
    assert [title.text for title in root.iter("title")] == ["x & y: 2", "z: 4"]
    assert "a < b" in [text.text for text in root.iter("text")]
    assert list(ElementTree.fromstring(bar_chart("empty", [], "")).iter("rect")) == []
    many = ElementTree.fromstring(bar_chart("many", [Bar(str(i), i) for i in range(100)], ""))
    assert len(list(many.iter("text"))) <= 3 + 8


def test_the_page_has_the_report_and_pictures(make_coco: MakeCoco) -> None:
    def edit(data: dict[str, Any]) -> None:
        data["categories"][0]["name"] = "<b>cat</b>"
        data["annotations"][0]["bbox"] = [0, 0, -1, 3]

    root = make_coco(edit)
    data = CocoDataset(root / "instances_train.json", root / "images", on_bad_sample="skip")
    report = data_report(data)
    page = dataset_page([SplitReport("train", data, report)], "a note & more")
    found = parsed(page)
    assert not {"script", "link", "iframe"} & found.tags
    assert "http" not in page  # nothing is loaded
    assert "<b>cat</b> " in found.text
    assert "a note & more" in found.text
    assert f"objects {report.objects}" in " ".join(found.text.split())
    assert "has no area" in found.text
    assert "Not usable: 1" in found.text
    pictures = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    assert len(pictures) == len(data)
    with Image.open(io.BytesIO(base64.b64decode(pictures[0]))) as image:
        assert max(image.size) <= 320
    assert page.count("<svg") == 4


def test_images_that_cannot_be_read_have_no_picture(make_coco: MakeCoco) -> None:
    root = make_coco()
    data = CocoDataset(root / "instances_train.json", root / "images", on_bad_sample="skip")
    Path(data.file(0)).write_bytes(Path(data.file(0)).read_bytes()[:60])
    page = dataset_page([SplitReport("train", data, data_report(data, read_images=True))])
    assert page.count("<figure>") == len(data) - 1
    assert "cannot be decoded" in page


def test_long_lists_are_cut(make_coco: MakeCoco) -> None:
    root = make_coco()
    data = CocoDataset(root / "instances_train.json", root / "images")
    report = attrs.evolve(data_report(data), shared=tuple(f"file {i}" for i in range(203)))
    assert "... and 3 more" in dataset_page([SplitReport("train", data, report)])


def test_the_command_writes_the_page(make_coco: MakeCoco, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, page = make_coco(), tmp_path / "report.html"
    assert run(["data", "--data", str(root), "--recipe", "faster-rcnn/r18-fpn-demo", "--html", str(page)]) == 0
    assert f"{page}: the report as a page" in capsys.readouterr().err
    found = parsed(page.read_text())
    assert "No validation data: training does not evaluate." in found.text
    assert "No problems found." in found.text
    make_coco(split="val")
    assert run(["data", "--data", str(root), "--recipe", "faster-rcnn/r18-fpn-demo", "--html", str(page)]) == 0
    assert "Data: train, val" in page.read_text()
    assert page.read_text().count("<h2>") == 2
    image = next((root / "images").iterdir())
    assert run(["data", "--data", str(root), "--recipe", "faster-rcnn/r18-fpn-demo", "--html", str(image)]) == 1
    assert "would be overwritten, but is an input; choose another --html" in capsys.readouterr().err
