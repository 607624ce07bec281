"""The packages of `det-core plugins new --kind`: of every kind, each in style, and passing its own tests."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from det_core.cli.main import run
from det_core.cli.plugin_kinds import KINDS
from det_core.hookspecs import COMPONENT_HOOKS
from det_core.slots import SLOTS
from det_core.testing.isolated_plugins import isolated_manager

# What a reader of the packages' READMEs does: the YAML is loaded, and the Python run.
READMES = """
import re
from pathlib import Path

import pytest
from det_core.load import load_recipe


@pytest.mark.parametrize("readme", Path(__file__).parent.glob("*/README.md"), ids=lambda path: path.parent.name)
def test_readme(readme, tmp_path):
    blocks = dict(re.findall(r"^```(yaml|python)\\n(.*?)^```$", readme.read_text(), re.MULTILINE | re.DOTALL))
    (tmp_path / "mine.yaml").write_text(blocks["yaml"])
    assert load_recipe(tmp_path / "mine.yaml").name == "mine"
    exec(blocks["python"], {})
"""


@pytest.fixture(scope="module")
def packages(tmp_path_factory) -> Path:
    """A folder with a package of every kind."""
    out = tmp_path_factory.mktemp("kinds")
    with isolated_manager():
        for kind in KINDS:
            assert run(["plugins", "new", f"new-{kind}", "--kind", kind, "--out", str(out)]) == 0
    return out


def succeeded(arguments: list[str], folder: Path, **environment: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_kinds_are_slots_and_their_hooks():
    for kind in KINDS.values():
        assert kind.slot in SLOTS
        assert kind.slot in COMPONENT_HOOKS[kind.hook]
    assert {kind.replace("-", "_") for kind in KINDS} == {kind.slot for kind in KINDS.values()}


def test_an_unknown_kind_is_refused(tmp_path, capsys):
    assert run(["plugins", "new", "x", "--kind", "head", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "'head' is not one of 'backbone', 'neck', 'dense-head'" in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_package_has_the_part_and_its_module(kind, packages):
    slot = KINDS[kind].slot
    source = packages / f"det-plugin-new-{kind}" / "src" / f"det_plugin_new_{slot}"
    names = {"__init__.py", "config.py", "hooks.py", "py.typed", "recipes.py", f"{slot}.py"}
    assert {file.name for file in source.iterdir()} == names
    for file in source.parents[1].rglob("*"):
        if file.is_file():
            assert "$" not in file.read_text(encoding="utf8"), file


def test_the_next_commands_are_printed(tmp_path, capsys):
    with isolated_manager():
        assert run(["plugins", "new", "mine", "--kind", "dataset", "--out", str(tmp_path)]) == 0
        assert "  det-core train --plugin mine --data my_data\n" in capsys.readouterr().out
        assert run(["plugins", "new", "other", "--out", str(tmp_path)]) == 0
        assert "  det-core train --plugin other\n" in capsys.readouterr().out


def test_the_packages_pass_ruff(packages):
    succeeded(["ruff", "check", "."], packages)
    succeeded(["ruff", "format", "--check", "."], packages)


@pytest.mark.slow
def test_the_packages_pass_their_own_tests(packages):
    """As if they were installed: their sources on the path, and their entry points where installers write them."""
    pytest.importorskip("det_plugin_rcnn", reason="the packages' recipes use det-plugin-rcnn")
    pytest.importorskip("det_plugin_retinanet", reason="the dense head's recipe uses det-plugin-retinanet")
    site, paths = packages / "site", []
    for folder in sorted(packages.glob("det-plugin-*")):
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf8"))["project"]
        info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
        info.mkdir(parents=True)
        header = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
        (info / "METADATA").write_text(header, encoding="utf8")
        points = [f"{name} = {module}\n" for name, module in project["entry-points"]["det_core.plugins"].items()]
        (info / "entry_points.txt").write_text("[det_core.plugins]\n" + "".join(points), encoding="utf8")
        paths.append(str(folder / "src"))
    (packages / "test_readmes.py").write_text(READMES, encoding="utf8")
    before = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    command = ["pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib", f"--rootdir={packages}"]
    succeeded([*command, str(packages)], packages, PYTHONPATH=os.pathsep.join([str(site), *paths, *before]))
