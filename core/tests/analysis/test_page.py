"""The page, the JSON and the charts of a report, of all kinds of data."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from attrs import evolve
from made_data import MadeDataset, Record, box, random_case

from det_core.analysis.report import Report, Run, make_report
from det_core.analysis.write import write_report
from det_core.contracts import BadSample, Sample
from det_core.data.bad_samples import BadImage
from det_core.errors import DetError
from det_core.recipe import Published
from det_core.testing.tiny_dataset import TinyDataset

VOID = {"meta", "input", "br", "link", "img"}


class Tags(HTMLParser):
    """Checks that elements are closed in order, and collects ids, links and texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.outside: list[str] = []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(str(value))
            if name in ("href", "xlink:href", "src") and value:
                (self.links if value.startswith("#") else self.outside).append(value)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def written(report: Report, folder: Path, pictures: int = 150) -> str:
    """The page of a report, whose links lead to what is on it, and nowhere else."""
    page = write_report(report, folder, pictures).read_text()
    tags = Tags(page)
    assert {link[1:] for link in tags.links} <= set(tags.ids)
    assert all(link.startswith("data:image/") for link in tags.outside)
    assert len(tags.ids) == len(set(tags.ids))
    numbers = json.loads((folder / "analysis.json").read_text())
    assert numbers["summary"]
    assert "nan" not in re.sub(r"<script.*?</script>|[A-Za-z]*nan[a-z]+", "", page, flags=re.DOTALL)
    return page


class Pictured(MadeDataset):
    """A made data set with pictures; that of image 2 cannot be read."""

    def load(self, index: int) -> Sample:
        if index == 1:
            raise BadImage(BadSample(what="truncated", file=self.file(index)))
        image = torch.full((3, 200, 200), 60 + index, dtype=torch.uint8)
        empty = torch.zeros(0)
        return Sample(image=image, boxes=empty.reshape(0, 4), labels=empty.long(), ignored=empty.bool())


def case(seed: int = 0) -> tuple[Pictured, list[Record]]:
    dataset, records = random_case(seed, images=20)
    return Pictured(dataset.records, 20), records


def test_page_of_boxes_and_masks(tmp_path: Path):
    dataset, records = case()
    published = Published(box_ap=41.5, mask_ap=37.25)
    run = Run("first", records, {"box_ap": 0.3}, "--checkpoint runs/first", published)
    report = make_report(dataset, [run], kinds=("box", "mask"))
    page = written(report, tmp_path)
    for text in ("published: 41.5 (coco)", "AP (masks)", "det-core predict --checkpoint runs/first --score-threshold"):
        assert text in page
    assert "2.png: truncated" in page  # the picture that cannot be read is listed
    assert page.count('href="data:image/jpeg') == page.count("<image id=")
    figures = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert len(figures) == 18
    assert figures[0] == "box-aspect-ratio.png"
    numbers = json.loads((tmp_path / "analysis.json").read_text())
    ap = np.nanmean(report.main.ap)
    assert numbers["summary"]["AP"] == pytest.approx(ap)
    assert f"<dd>{100 * ap:.1f}<" in page
    assert [c["name"] for c in numbers["runs"][0]["mask"]["classes"]] == ["a", "b", "c"]
    cells = numbers["runs"][0]["box"]["confusion"]["cells"]
    assert sum(c["count"] for c in cells) == report.main.confusion.counts.sum()


def test_number_of_pictures_is_limited(tmp_path: Path):
    dataset, records = case()
    report = make_report(dataset, [Run("one", records, {})])
    assert written(report, tmp_path, pictures=3).count("<image id=") <= 3
    assert written(report, tmp_path, pictures=0).count("<image id=") == 0


def test_page_of_two_runs(tmp_path: Path):
    dataset, records = case()
    other = [{**r, "score": r["score"] ** 2} for r in records[::2]]
    report = make_report(dataset, [Run("a <b>", records, {}), Run("b", other, {})], resamples=20)
    page = written(report, tmp_path)
    assert page.count("a &lt;b&gt;") > 5
    assert "&amp;lt;" not in page
    assert "<b>" not in page.replace("<br>", "")
    for text in ("95 % interval", "Better images: ", "Worse images: ", "20 resamples"):
        assert text in page
    assert json.loads((tmp_path / "analysis.json").read_text())["comparison"]["resamples"] == 20


def test_page_of_proposals(tmp_path: Path):
    dataset, records = case()
    report = make_report(dataset, [Run("rpn", records, {})], proposals=True)
    page = written(report, tmp_path)
    assert "Recall over the number of proposals" in page
    assert "Confusion matrix" not in page
    assert report.proposals is not None
    assert (np.diff(report.proposals.recall, axis=1) >= 0).all()
    right = report.main.matches.right[0].sum() / (~report.main.columns.objects.ignored).sum()
    assert report.proposals.recall[0, -1] == pytest.approx(right)


@pytest.mark.parametrize("classes", [1, 1000])
def test_page_of_one_class_and_of_a_thousand(tmp_path: Path, classes: int):
    truth = [box(i, (37 * i) % classes, (10, 10, 90, 90)) for i in range(1, 41)]
    found = [box(i, (37 * i + i % 2) % classes, (12, 10, 90, 95), score=0.02 * i) for i in range(1, 41)]
    dataset = NoPictures(truth, images=40)
    dataset.classes = evolve(
        dataset.classes, names=tuple(f"class {k}" for k in range(classes)), ids=tuple(range(1, classes + 1))
    )
    page = written(make_report(dataset, [Run("run", found, {})]), tmp_path)
    assert len(page) < 4e6
    assert ("of 1 class," in page) == (classes == 1)


class NoPictures(MadeDataset):
    """A data set whose images cannot be read."""

    def load(self, index: int) -> Sample:
        raise BadImage(BadSample(what="no such file", file=self.file(index)))


@pytest.mark.parametrize("truth", [[], [box(1, 0, (10, 10, 50, 50))]])
def test_page_without_detections(tmp_path: Path, truth: list[Record]):
    page = written(make_report(Pictured(truth, images=3), [Run("nothing", [], {})]), tmp_path)
    assert "No object is found at any threshold" in page
    assert "n/a" in page
    assert "0 detections" in page


def test_perfect_detections(tmp_path: Path):
    truth = [box(1, 0, (10, 10, 50, 50))]
    page = written(
        make_report(Pictured(truth, images=1), [Run("best", [box(1, 0, (10, 10, 50, 50), score=0.9)], {})]), tmp_path
    )
    assert "There are no errors." in page
    assert "No annotation stands out." in page


def test_annotations_to_check(tmp_path: Path):
    truth = [
        box(1, 0, (10, 10, 50, 50)),
        box(2, 1, (10, 10, 50, 50)),
        box(3, 2, (10, 10, 190, 190)),
        box(3, 0, (0, 0, 9, 9)),
    ]
    found = [
        box(1, 0, (100, 100, 150, 150), score=0.95),
        box(1, 0, (100, 20, 150, 60), score=0.4),
        box(2, 0, (10, 10, 50, 50), score=0.9),
    ]
    report = make_report(Pictured(truth, images=3), [Run("run", found, {})])
    checks = json.loads(write_report(report, tmp_path).with_name("analysis.json").read_text())["check_these_labels"]
    assert [(c["image_id"], c["detected"], c["score"]) for c in checks["unlabelled"]] == [(1, "a", 0.95)]
    assert [(c["annotated"], c["detected"]) for c in checks["other_class"]] == [("b", "a")]
    assert [(c["image_id"], c["annotated"]) for c in checks["never_found"]] == [(3, "c"), (1, "a"), (3, "a")]
    other = Run("other", [box(3, 1, (20, 20, 190, 190), score=0.1)], {})
    both = make_report(Pictured(truth, images=3), [other, Run("run", found, {})], resamples=2)
    assert [int(c.object) for c in both.checks.never_found] == [0, 3]  # the other run has seen the large one


def test_names_of_classes_are_text(tmp_path: Path):
    dataset, records = case()
    dataset.classes = evolve(dataset.classes, names=("<script>alert(1)</script>", "a & b", 'c"d'))
    page = written(make_report(dataset, [Run("</script><b>", records, {})]), tmp_path)
    assert "alert(1)</script>" not in page.replace("&lt;", "<<")
    assert "\\u003cscript>alert(1)\\u003c/script>" in page


def test_tiny_dataset_of_plugin_authors(tmp_path: Path):
    dataset = TinyDataset()
    records = [
        {**{k: r[k] for k in ("image_id", "category_id", "bbox", "segmentation")}, "score": 0.8}
        for r in dataset.ground_truth()["annotations"]
    ]
    report = make_report(dataset, [Run("truth", records, {})], kinds=("box", "mask"))
    assert np.nanmean(report.main.ap) == pytest.approx(1)
    written(report, tmp_path)


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    dataset, records = case()
    report = make_report(dataset, [Run("run", records, {})])
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(DetError, match=r"an analysis requires matplotlib.*det-core\[plots\]"):
        write_report(report, tmp_path)
    assert not list(tmp_path.iterdir())
