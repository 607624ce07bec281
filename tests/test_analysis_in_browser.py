"""The page of `det-core analyze` in a browser: from a cell of the matrix to images, sorting, searching, two widths.

It requires Chromium. The screenshots of the page are written to the folder that DET_SCREENSHOTS names, if it does.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "core" / "tests" / "analysis"))

CHROMIUM = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to open the page in")

WIDTHS = (1280, 390)


@pytest.fixture(scope="module")
def page_file(tmp_path_factory) -> Path:
    """A page of two runs on the bundled sample, whose single class is told apart into two by size."""
    from det_core.analysis.report import Run, make_report
    from det_core.analysis.write import write_report
    from det_core.data.data_config import SampleConfig
    from det_core.structures import Classes

    dataset = SampleConfig(split="val").build("", masks=True)
    truth = dataset.ground_truth()
    for record in truth["annotations"]:
        record["category_id"] = 1 + int(record["area"] > 200)
    names = ("small cell", "large cell", "never there")
    dataset.classes = Classes(names=names, ids=(1, 2, 3))
    dataset.ground_truth = lambda: truth  # type: ignore[method-assign]
    runs = []
    for shift in (0, 1):
        records = []
        for number, record in enumerate(truth["annotations"]):
            x, y, width, height = record["bbox"]
            moved = [x + (number + shift) % 5, y, width, height]
            label = 3 - record["category_id"] if number % 7 == shift else record["category_id"]
            score = 0.3 + 0.6 * ((number * 37) % 100) / 100
            records.append({"image_id": record["image_id"], "category_id": label, "bbox": moved, "score": score})
        runs.append(Run(f"run {'AB'[shift]}", records[shift::3] + records[1::3], {}))
    return write_report(make_report(dataset, runs, resamples=10), tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        # Without its sandbox, which a container does not permit to root.
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture(params=WIDTHS)
def page(request, browser, page_file) -> Iterator[Any]:
    """The page in a window of each width; nothing may be written to the console, and nothing fetched."""
    context = browser.new_context(viewport={"width": request.param, "height": 900})
    page = context.new_page()
    noise: list[str] = []
    page.on("console", lambda message: noise.append(message.text))
    page.on("pageerror", lambda error: noise.append(str(error)))
    page.on("request", lambda asked: noise.append(asked.url) if asked.url.startswith("http") else None)
    page.goto(page_file.as_uri())
    yield page
    context.close()
    assert not noise


def test_page_fits_its_window_and_is_pictured(page, tmp_path):
    folder = Path(os.environ.get("DET_SCREENSHOTS", tmp_path))
    width = page.viewport_size["width"]
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.screenshot(path=folder / f"analysis-{width}.png", full_page=True)
    assert (folder / f"analysis-{width}.png").stat().st_size > 50000
    for chart in page.locator(".charts svg").all():
        assert chart.get_attribute("aria-label")
        assert chart.bounding_box()["width"] > 200


def test_cell_of_the_matrix_leads_to_its_images(page):
    cell = page.get_by_role("button", name="truth small cell, detected large cell")
    count = int(cell.inner_text())
    cell.click()
    panel = page.locator("#cell")
    title = f"small cell detected as large cell: {count}"
    assert panel.locator("h3").inner_text() == title
    assert panel.locator("h3").evaluate("e => e === document.activeElement")
    photos = panel.locator("figure")
    assert photos.count() == min(count, 8)
    assert photos.first.locator("use").get_attribute("href").startswith("#i")
    assert photos.first.locator("g.error text").text_content().startswith("large cell 0.")
    assert photos.first.locator("figcaption").inner_text().endswith(")")
    assert cell.get_attribute("aria-pressed") == "true"
    page.get_by_role("button", name="truth small cell, detected background").click()
    assert "small cell not found" in panel.locator("h3").inner_text()
    assert cell.get_attribute("aria-pressed") == "false"


def test_link_of_a_confusion_opens_its_cell(page):
    page.get_by_role("link", name="large cell as small cell").click()
    assert "large cell detected as small cell" in page.locator("#cell h3").inner_text()


def test_keyboard_moves_between_cells(page):
    buttons = page.locator(".matrix button")
    assert [b.get_attribute("tabindex") for b in buttons.all()].count("0") == 1
    buttons.first.focus()
    page.keyboard.press("ArrowRight")
    focused = "document.activeElement.getAttribute('aria-label')"
    assert page.evaluate(focused).startswith("truth small cell, detected large cell")
    page.keyboard.press("ArrowDown")
    assert page.evaluate(focused).startswith("truth large cell, detected large cell")
    page.keyboard.press("Enter")
    assert page.locator("#cell h3").inner_text().startswith("large cell found")
    assert [b.get_attribute("tabindex") for b in buttons.all()].count("0") == 1


def test_headings_sort_and_a_field_searches(page):
    table = page.locator("#class-table")
    names = lambda: table.locator("tbody tr:visible th").all_inner_texts()  # noqa: E731
    assert names()[-1] == "never there"
    heading = table.get_by_role("button", name="objects", exact=True)
    heading.click()
    counts = [int(t) for t in table.locator("tbody tr td:nth-child(2)").all_inner_texts()]
    assert counts == sorted(counts, reverse=True)
    heading.click()
    counts = [int(t) for t in table.locator("tbody tr td:nth-child(2)").all_inner_texts()]
    assert counts == sorted(counts)
    assert table.locator("th[aria-sort=ascending]").inner_text() == "objects"
    table.get_by_role("button", name="class", exact=True).click()
    assert names() == ["large cell", "never there", "small cell"]
    table.get_by_role("button", name="AP", exact=True).click()
    assert names()[-1] == "never there"  # without a value: last


def test_page_in_print_has_no_navigation(page):
    page.emulate_media(media="print")
    assert not page.locator("nav").is_visible()
    assert page.locator("#errors").is_visible()
