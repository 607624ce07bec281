"""The documentation site builds without a warning, every page is in its tree, and its reference is complete."""

from __future__ import annotations

import html
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from doc_blocks import FENCE, ROOT

from det_core.cli.verbs import VERBS
from det_core.plugins import plugin_manager
from det_core.recipe import Recipe
from det_core.settings import fields_of
from det_core.slots import SLOTS

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("**/*.md"))


def module(name: str) -> ModuleType:
    """A script of docs/, imported."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(DOCS))
    try:
        spec.loader.exec_module(made)
    finally:
        sys.path.remove(str(DOCS))
    return made


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built site. A warning of Sphinx fails here."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, str(DOCS / "make_site.py"), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{out / 'html' / 'index.html'}\n"
    return out / "html"


def text_of(file: Path) -> str:
    """The text of a page, without tags, in one line."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", file.read_text(encoding="utf8"))).split())


@pytest.mark.slow
def test_every_page_is_in_the_tree(site: Path) -> None:
    """Of the repository: docs/, the packages' READMEs, the examples', CONTRIBUTING.md and SECURITY.md."""
    places = module("make_site").pages()
    assert set(PAGES) <= set(places)
    sidebar = (
        site.joinpath("index.html").read_text(encoding="utf8").partition("sidebar-tree")[2].partition("</aside>")[0]
    )
    links = set(re.findall(r'href="([^"#]+)', sidebar))
    missing = {str(p.with_suffix(".html")) for p in places.values()} - links - {"index.html"}
    assert not missing
    assert all((site / link).is_file() for link in links if not link.startswith("http"))


@pytest.mark.slow
def test_every_command_and_option_is_listed(site: Path) -> None:
    text = text_of(site / "reference" / "commands.html")
    for name in (*VERBS, *plugin_manager().commands(), "plugins new", "data browse"):
        assert f"det-core {name}" in text
    for option in ("--max-steps INTEGER RANGE", "--on-bad-sample [error|skip|repair]", "--plugin-file FILE.py"):
        assert option in text


@pytest.mark.slow
def test_every_setting_is_listed_with_its_default_and_bounds(site: Path) -> None:
    manager = plugin_manager()
    for slot in SLOTS:
        page = text_of(site / "reference" / "settings" / f"{slot}.html")
        for name in manager.types(slot):
            for field in fields_of(manager.component(slot, name)):
                assert field.name in page, f"{slot} {name} {field.name}"
    recipe = text_of(site / "reference" / "settings" / "recipe.html")
    assert all(field.name in recipe for field in fields_of(Recipe))
    assert "share of the training images to evaluate on" in recipe
    assert "(at least 0 and below 1)" in recipe
    api = text_of(site / "reference" / "api" / "det_core.boxes.html")
    assert "max_ratio float, default 0.016" in api
    assert "decoding clips dw and dh to +-|log(max_ratio)| (above 0 and below 1)" in api


@pytest.mark.slow
def test_public_names_are_listed_with_their_docstrings(site: Path) -> None:
    import det_core

    text = text_of(site / "reference" / "api" / "det_core.html")
    for name in det_core.__all__:
        assert name in text, name
    assert "det_core.engine" not in {p.stem for p in (site / "reference" / "api").iterdir()}


def test_what_is_private_is_not_in_the_reference() -> None:
    public = module("reference_pages").public_modules()
    assert {"det_core", "det_core.contracts", "det_core.data.coco_dataset", "det_ops"} <= set(public)
    private = ("det_core.engine", "det_core.cli", "det_core.plugins", "det_core.load", "det_core.reports")
    assert not [m for m in public if m.startswith(private)]


def test_links_are_those_of_the_site(tmp_path: Path) -> None:
    site = module("make_site")
    places = site.pages()
    page = DOCS / "predict.md"
    picture = "[![e](images/box_ap.svg)](images/box_ap.svg)"
    text = f"[a](../plugins/hub/README.md#x) [b](export.md) [c](../examples/ray_data.py) [d](https://x.org) {picture}\n"
    code = "```text\n[a](../plugins/hub/README.md)\n```\n"
    found = site.with_links(text + code, page, places[page], places, tmp_path)
    picture = picture.replace("images", "files/docs/images")
    links = f"[a](packages/hub.md#x) [b](export.md) [c](files/examples/ray_data.py) [d](https://x.org) {picture}\n"
    assert found == links + code
    assert (tmp_path / "files" / "examples" / "ray_data.py").is_file()
    with pytest.raises(SystemExit, match=r"docs/predict.md: ../plugins is no file that the site can show"):
        site.with_links("[a](../plugins)", page, places[page], places, tmp_path)


def test_pages_of_running_are_found_by_themselves(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    site = module("make_site")
    monkeypatch.setattr(site, "HERE", tmp_path)
    (tmp_path / "running").mkdir()
    for name, title in (("a", "Several GPUs"), ("b", "A cluster")):
        (tmp_path / "running" / f"{name}.md").write_text(f"# {title}\n")
    assert site.more_pages("- [GPUs](running/a.md)", "running") == "- [A cluster](running/b.md)"


def test_the_sidebar_has_the_sections_of_the_index_in_their_order() -> None:
    tree = module("make_site").site_tree("# x\n\n## One\n\n- [A](a.md): b\n- [C](d/c.md)\n\n## Two\n\n- [E](e.md)\n")
    assert re.findall(r":caption: (\w+)|^(\w[\w/]*)$", tree, re.MULTILINE) == [
        ("One", ""), ("", "a"), ("", "d/c"), ("Two", ""), ("", "e")
    ]  # fmt: skip


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(DOCS)))
def test_pages_read_well_as_plain_markdown(page: Path) -> None:
    """No directives and roles of Sphinx, which a code host would show as they are; one title."""
    text = page.read_text(encoding="utf8")
    assert not re.search(r"^(```|:::)\{|\{\w+\}`", text, re.MULTILINE)
    assert not re.search(r"^[ >]+```", text, re.MULTILINE), "an indented block, which no test sees"
    assert len(re.findall(r"^# ", FENCE.sub("", text), re.MULTILINE)) == 1


# The chart


def test_the_chart_is_up_to_date() -> None:
    chart = module("make_chart")
    assert chart.CHART.read_text(encoding="utf8") == chart.svg(), "run `python docs/make_chart.py`"


def test_the_chart_can_be_read() -> None:
    """All labels are inside the picture and none is on another; the background is opaque, for dark pages."""
    chart = module("make_chart")
    labels = chart.labels(chart.figures())
    assert len(labels) == len(chart.FAMILIES) + len(chart.SINGLE)
    for i, label in enumerate(labels):
        x1, y1, x2, y2 = label.box()
        assert 0 <= x1 < x2 <= chart.WIDTH, label.text
        assert 0 <= y1 < y2 <= chart.HEIGHT, label.text
        assert not [o.text for o in labels[i + 1 :] if chart.overlap(label, o)], label.text
    assert 'fill="#ffffff"' in chart.svg().splitlines()[2]


def test_the_chart_has_the_published_figures() -> None:
    chart = module("make_chart")
    known = chart.figures()
    entry = plugin_manager().recipe_entry("faster-rcnn/r50-fpn-1x")
    assert entry.published is not None
    assert known["faster-rcnn/r50-fpn-1x"][1] == entry.published.modern_box_ap == 37.4
    assert "ssd/vgg16-300-voc-240e" not in known  # of another data set
    x, y = chart.place((chart.GFLOPS[1], chart.AP[0]))
    assert (x, y) == (chart.RIGHT, chart.BOTTOM)
