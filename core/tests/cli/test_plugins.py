"""`det-core plugins` and `plugins new`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest

from det_core.cli.main import run
from det_core.offers import CheckpointSource, CommandEntry, RecipeEntry
from det_core.slots import NeckConfig
from det_core.testing.isolated_plugins import entry_point, isolated_manager, make_plugin, stub_config


@stub_config
class SomeNeck(NeckConfig):
    """A neck."""

    type: ClassVar[str] = "some"


def fails():
    raise ValueError("no heads [bold]today[/bold]")


ENTRIES = [RecipeEntry(name=f"m/{i}", make=pytest.fail) for i in range(2)]
GOOD = make_plugin("good", det_necks=lambda: [SomeNeck], det_recipes=lambda: ENTRIES)
BROKEN = entry_point(ImportError("no module named 'gone'"), "broken", "det-plugin-broken", "2.0")
PARTLY = make_plugin("partly", det_heads=fails)


def test_the_table_says_what_each_adds_and_what_failed(capsys):
    with isolated_manager(GOOD, BROKEN, PARTLY):
        assert run(["plugins"]) == 0
    out = capsys.readouterr().out
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line and not line.startswith(" ")}
    assert rows["good"][1:4] == ["det-plugin-good", "1.0", "ok"]
    assert " ".join(rows["good"][4:]) == "neck: some; 2 recipes"
    assert rows["broken"][1:] == ["det-plugin-broken", "2.0", "failed", "nothing"]
    assert "det-plugin-broken 2.0 (failed):\n  import: ImportError: no module named 'gone'\n" in out
    assert "det-plugin-partly 1.0 (partly):\n  det_heads: ValueError: no heads [bold]today[/bold]\n" in out
    assert "Traceback" not in out
    assert "`det-core --debug plugins` shows the tracebacks." in out


def test_the_table_says_who_follows_runs_and_adds_commands_and_addresses(capsys):
    plugin = make_plugin(
        "more",
        det_run_started=lambda: None,
        det_run_finished=lambda: None,
        det_commands=lambda: [CommandEntry(name="greet", help="Say hello.", load=pytest.fail)],
        det_checkpoint_sources=lambda: [CheckpointSource(scheme="store", fetch=pytest.fail)],
    )
    with isolated_manager(plugin):
        assert run(["plugins"]) == 0
    row = capsys.readouterr().out.splitlines()[1].split(maxsplit=4)
    assert row[4].strip() == "checkpoint source: store://; command: greet; follows training runs"


def test_debug_shows_tracebacks(capsys):
    with isolated_manager(PARTLY):
        assert run(["--debug", "plugins"]) == 0
    assert "Traceback" in capsys.readouterr().out


def test_json_has_all_of_it(capsys):
    with isolated_manager(GOOD, BROKEN, choice="good,brokn"):
        assert run(["plugins", "--json"]) == 0
    broken, good = json.loads(capsys.readouterr().out)
    assert good == {
        "name": "good",
        "distribution": "det-plugin-good",
        "version": "1.0",
        "state": "ok",
        "errors": [],
        "provides": {"neck": ["some"], "recipe": ["m/0", "m/1"]},
    }
    assert broken["state"] == "off"


def test_a_wrong_det_plugins_is_pointed_out(capsys):
    with isolated_manager(GOOD, choice="good,goood"):
        assert run(["plugins"]) == 0
    assert "warning: DET_PLUGINS names 'goood', which is not installed; did you mean" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["My-head", "1head", "my head", "../x", "my--head", "-x", "x-", "kopf_ü", ""])
def test_names_that_cannot_be_packages(name, tmp_path, capsys):
    with isolated_manager():
        assert run(["plugins", "new", "--out", str(tmp_path), "--", name]) == 1
    assert "is not a valid plugin name; use lower-case letters and digits" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_name_with_the_prefix_and_one_that_is_taken(tmp_path, capsys):
    with isolated_manager(GOOD):
        assert run(["plugins", "new", "det-plugin-x", "--out", str(tmp_path)]) == 1
        assert "remove the prefix, det adds it: det-core plugins new x" in capsys.readouterr().err
        assert run(["plugins", "new", "good", "--out", str(tmp_path)]) == 1
        assert "a plugin 'good' is already installed (det-plugin-good 1.0); choose" in capsys.readouterr().err


def test_a_folder_that_exists_is_left_alone(tmp_path, capsys):
    (tmp_path / "det-plugin-mine").mkdir()
    with isolated_manager():
        assert run(["plugins", "new", "mine", "--out", str(tmp_path)]) == 1
    assert (
        "det-plugin-mine: already exists; choose another name or --out, or remove the folder" in capsys.readouterr().err
    )
    assert list((tmp_path / "det-plugin-mine").iterdir()) == []


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("new")
    with isolated_manager():
        assert run(["plugins", "new", "two-words", "--out", str(out)]) == 0
    return out / "det-plugin-two-words"


def test_the_package_has_the_anatomy_of_a_plugin(package):
    files = sorted(str(p.relative_to(package)) for p in package.rglob("*") if p.is_file())
    module = "src/det_plugin_two_words"
    assert files == [
        "README.md",
        "pyproject.toml",
        f"{module}/__init__.py",
        f"{module}/box_head.py",
        f"{module}/config.py",
        f"{module}/hooks.py",
        f"{module}/py.typed",
        f"{module}/recipes.py",
        "tests/test_contract.py",
    ]
    for file in package.rglob("*"):
        if file.is_file():
            assert "$" not in file.read_text(encoding="utf8"), file
    assert 'two_words = "det_plugin_two_words.hooks"' in (package / "pyproject.toml").read_text(encoding="utf8")


@pytest.mark.slow
def test_the_package_installs_and_passes_its_own_tests(package, tmp_path):
    pytest.importorskip("det_plugin_rcnn", reason="the package's recipe uses det-plugin-rcnn")
    site = tmp_path / "site"
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--disable-pip-version-check",
        "--target",
        str(site),
        str(package),
    ]
    subprocess.run(install, check=True)
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=package,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    listed = subprocess.run(
        [sys.executable, "-m", "det_core", "plugins", "--json"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    (plugin,) = [p for p in json.loads(listed.stdout) if p["name"] == "two_words"]
    assert plugin["state"] == "ok"
    assert plugin["provides"] == {"box_head": ["two_words_box_head"], "recipe": ["two-words/demo"]}
