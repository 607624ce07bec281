"""What an index shows of a package: every package has it, and so has a new plugin's."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import workspace

from det_core.cli.new_plugin import write_plugin

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = [package.folder for package in (*workspace.packages(), *workspace.examples())]
LINK = re.compile(r"\]\(([^)\s]+)\)|<(?:img|a)\b[^>]*\b(?:src|href)=\"([^\"]+)\"|^\[[^\]]+\]:\s*(\S+)", re.MULTILINE)
CLASSIFIERS = {
    "Development Status :: 3 - Alpha",
    "Intended Audience :: Developers",
    "Intended Audience :: Science/Research",
    "Programming Language :: Python :: 3",
    *(f"Programming Language :: Python :: 3.{minor}" for minor in range(11, 15)),
    "Topic :: Scientific/Engineering :: Artificial Intelligence",
    "Topic :: Scientific/Engineering :: Image Recognition",
    "Typing :: Typed",
}


@pytest.fixture(scope="module")
def new_plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package that `det-core plugins new` writes."""
    return write_plugin("my-head", tmp_path_factory.mktemp("new")).folder


def declared(folder: Path) -> dict:
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf8"))


def relative_links(text: str) -> list[str]:
    """Links that lead to another file: on a package's page they lead nowhere."""
    found = [next(filter(None, match)) for match in LINK.findall(text)]
    return [link for link in found if not link.startswith(("https://", "http://", "#"))]


def check(folder: Path) -> None:
    data = declared(folder)
    project = data["project"]
    # The first setuptools that writes `license` as an expression.
    assert data["build-system"]["requires"][0] == "setuptools>=77.0.3"
    assert project["readme"] == "README.md"
    assert project["license"] == "Apache-2.0"
    assert set(project["classifiers"]) == CLASSIFIERS  # none about the licence: `license` says it
    assert project["requires-python"] == ">=3.11"
    assert 10 <= len(project["description"]) <= 120
    assert {"object detection", "pytorch"} < set(project["keywords"])
    assert len(set(project["keywords"])) == len(project["keywords"]) >= 4
    assert all(author["name"] for author in project["authors"])
    readme = (folder / "README.md").read_text(encoding="utf8")
    assert readme.startswith(f"# {project['name']}\n")
    assert relative_links(readme) == []
    (module,) = (f for f in (folder / "src").iterdir() if f.name == project["name"].replace("-", "_"))
    assert (module / "py.typed").is_file()
    assert data["tool"]["setuptools"]["package-data"][module.name].count("py.typed") == 1


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: f.name)
def test_a_package_has_all_that_its_page_shows(folder: Path) -> None:
    check(folder)
    assert declared(folder)["project"]["license-files"] == ["LICENSE"]
    assert (folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_a_new_plugin_has_it_too(new_plugin: Path) -> None:
    """All but the text of the licence, which is its author's choice."""
    check(new_plugin)
    assert declared(new_plugin)["project"]["authors"] == [{"name": "the authors of det-plugin-my-head"}]
    assert "choose your own" in (new_plugin / "pyproject.toml").read_text(encoding="utf8")


def test_keywords_say_what_a_package_adds() -> None:
    words = [frozenset(declared(folder)["project"]["keywords"]) for folder in FOLDERS]
    assert len(set(words)) == len(words)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("see [hooks](../docs/hooks.md)", ["../docs/hooks.md"]),
        ('<img src="images/a.png">', ["images/a.png"]),
        ("[a]\n\n[a]: other.md", ["other.md"]),
        ("[a](https://example.org) [b](#options)", []),
    ],
)
def test_relative_links_are_found(text: str, found: list[str]) -> None:
    assert relative_links(text) == found
