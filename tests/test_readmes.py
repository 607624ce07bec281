"""What the READMEs show works: their YAML loads, their Python runs, their commands and links exist."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from doc_blocks import FENCE, ROOT, Block, blocks, commands, name_of, problem

from det_core.config.yaml_text import parse_yaml
from det_core.load import load_recipe
from det_core.plugins import EntryPoint, installed_plugins
from det_core.testing.isolated_plugins import entry_point, isolated_manager

READMES = [ROOT / "README.md", *sorted(ROOT.glob("*/README.md")), *sorted(ROOT.glob("*/*/README.md"))]
READMES = [r for r in READMES if r.parent == ROOT or (r.parent / "pyproject.toml").is_file()]
PAGES = [*READMES, *sorted((ROOT / "docs").glob("**/*.md")), ROOT / "CONTRIBUTING.md"]
ONLY_PYTHON = (ROOT / "ops" / "README.md", ROOT / "kernels" / "README.md")  # operators have no recipe

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)|<img[^>]*\bsrc=\"([^\"]+)\"")


def outside_plugins() -> list[EntryPoint]:
    """The plugins in examples/, which are not installed here: as they would be found if they were."""
    found = []
    for file in sorted((ROOT / "examples").glob("*/pyproject.toml")):
        project = tomllib.loads(file.read_text(encoding="utf8"))["project"]
        for name, module in project["entry-points"]["det_core.plugins"].items():
            found.append(entry_point(importlib.import_module(module), name, project["name"], project["version"]))
    return found


@pytest.fixture
def everything(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Inside, the examples' plugins are there beside the installed ones."""
    for folder in sorted((ROOT / "examples").glob("*/src")):
        monkeypatch.syspath_prepend(str(folder))
    with isolated_manager(*installed_plugins(), *outside_plugins()):
        yield


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_blocks_are_found_with_their_lines_and_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```yaml\na: 1\n```\n\n<!-- test: skip-run needs COCO -->\n```python\nx\n```\n\n```python\ny\n```\n",
        encoding="utf8",
    )
    found = [(b.text, b.line, b.skipped) for b in blocks(page, "python")]
    assert found == [("x\n", 6, "needs COCO"), ("y\n", 10, "")]


@pytest.mark.parametrize("readme", READMES, ids=name_of)
def test_a_readme_shows_both_yaml_and_python(readme: Path) -> None:
    languages = ("python",) if readme in ONLY_PYTHON else ("python", "yaml")
    missing = [language for language in languages if not blocks(readme, language)]
    assert not missing, f"{readme}: no block of {' or '.join(missing)}"


def test_every_package_has_a_readme() -> None:
    packages = {file.parent for file in [*ROOT.glob("*/pyproject.toml"), *ROOT.glob("*/*/pyproject.toml")]}
    assert len(packages) >= 6
    assert packages | {ROOT} == {readme.parent for readme in READMES}


@pytest.mark.parametrize("block", [b for r in READMES for b in blocks(r, "yaml", "yml")], ids=name_of)
@pytest.mark.usefixtures("everything")
def test_yaml_loads(block: Block, tmp_path: Path) -> None:
    plain = parse_yaml(block.text, block.place)
    assert isinstance(plain, dict), f"{block.place}: no mapping"
    if {"extends", "detector"} & plain.keys():
        file = tmp_path / "mine.yaml"
        file.write_text(block.text, encoding="utf8")
        assert load_recipe(file).name == "mine"


@pytest.mark.parametrize("readme", READMES, ids=name_of)
@pytest.mark.usefixtures("everything", "one_thread")
def test_python_runs(readme: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a README in order, in one namespace and an empty folder, as a reader would try them."""
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "readme"}
    for block in blocks(readme, "python", "py"):
        # Blank lines in front, so that a traceback shows the README's own line numbers.
        code = compile("\n" * block.line + block.text, str(readme), "exec", dont_inherit=True)
        if not block.skipped:
            with contextlib.redirect_stdout(io.StringIO()):
                exec(code, namespace)


@pytest.mark.parametrize("page", [p for p in PAGES if commands(p)], ids=name_of)
def test_commands_exist(page: Path) -> None:
    problems = [f"{line}: {what}" for line, words in commands(page) if (what := problem(words))]
    assert not problems, "\n".join(problems)


def test_a_command_that_does_not_exist_is_seen() -> None:
    assert problem(["train", "--plugin", "rcnn", "--set", "a=b", "--amp"]) == ""
    assert problem(["plugins", "new", "NAME", "--out", "here"]) == ""
    assert problem(["train", "--epochs", "3"]) == "train has no option --epochs"
    assert problem(["data", "browse", "--json"]) == "browse has no option --json"
    assert problem(["explain", "--checkpoint", "x"]) == "det-core has no command explain"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    targets = [a or b for a, b in LINK.findall(FENCE.sub("", page.read_text(encoding="utf8")))]
    relative = [t.partition("#")[0] for t in targets if not re.match(r"[a-z]+:|#", t)]
    missing = [t for t in relative if not (page.parent / t).exists()]
    assert not missing, f"{page}: links to what is not there: {', '.join(missing)}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_blocks_say_their_language(page: Path) -> None:
    """A block without a language, or of one that no test reads, is a block that no test runs."""
    known = ("sh", "bash", "python", "yaml", "toml", "text")
    languages = {match[1] for match in FENCE.finditer(page.read_text(encoding="utf8"))}
    assert languages <= set(known), f"{page}: {', '.join(sorted(languages - set(known)) or ['none'])}"
