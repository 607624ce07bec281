"""Plugins that are really installed and really broken: shown with distribution and cause, and the rest works."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

NECK = """
from typing import ClassVar
from det_core.hookspecs import hookimpl
from det_core.slots import NeckConfig
from det_core.settings import configclass
from det_core.testing.isolated_plugins import stub_config

@stub_config
class Config(NeckConfig):
    "A neck."
    type: ClassVar[str] = "{type}"

@hookimpl
def {hook}():
    {body}
"""

BROKEN = {
    "import-fails": "import no_such_module_anywhere\n",
    "exits": "import sys\nsys.exit(7)\n",
    "hook-raises": NECK.format(type="a", hook="det_necks", body="raise RuntimeError('no necks today')"),
    "misspelled": NECK.format(type="b", hook="det_neck", body="return [Config]"),
    "twin-one": NECK.format(type="twin", hook="det_necks", body="return [Config]"),
    "twin-two": NECK.format(type="twin", hook="det_necks", body="return [Config]"),
    "unfinished": NECK.format(type="c", hook="det_necks", body="return [Config]").replace(
        "@stub_config", "@configclass"
    ),
    "fine": NECK.format(type="fine", hook="det_necks", body="return [Config]"),
}


def install(site: Path, name: str, source: str) -> None:
    """What pip leaves of a distribution with one module and one entry point."""
    module = f"stranger_{name.replace('-', '_')}"
    (site / f"{module}.py").write_text(source, encoding="utf8")
    info = site / f"stranger_{name.replace('-', '_')}-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: stranger-{name}\nVersion: 1.5\n", encoding="utf8")
    (info / "entry_points.txt").write_text(f"[det_core.plugins]\n{name} = {module}\n", encoding="utf8")


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    site = tmp_path_factory.mktemp("site")
    for name, source in BROKEN.items():
        install(site, name, source)
    return {**os.environ, "PYTHONPATH": str(site)}


def det_core(environment: dict[str, str], *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "det_core", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**environment, **more})


@pytest.fixture(scope="module")
def states(environment) -> dict[str, dict]:
    done = det_core(environment, "plugins", "--json")
    assert done.returncode == 0, done.stderr
    return {plugin["name"]: plugin for plugin in json.loads(done.stdout)}


TWINS = "neck type 'twin' is provided by stranger-twin-one 1.5 and stranger-twin-two 1.5: none of them is used"


@pytest.mark.parametrize(
    ("name", "state", "cause"),
    [
        ("import-fails", "failed", "import: ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
        ("exits", "failed", "import: SystemExit: 7"),
        ("hook-raises", "partly", "det_necks: RuntimeError: no necks today"),
        ("unfinished", "partly", "det_necks: TypeError: Config does not define build(), feature_spec(), as NeckConfig"),
        ("misspelled", "failed", "unknown hook 'det_neck'"),
        ("twin-one", "partly", TWINS),
        ("twin-two", "partly", TWINS),
    ],
)
def test_a_broken_plugin_is_shown_with_its_cause(states, name, state, cause):
    plugin = states[name]
    assert (plugin["distribution"], plugin["version"], plugin["state"]) == (f"stranger-{name}", "1.5", state)
    assert cause in plugin["errors"][0]


def test_a_misspelled_hook_gets_the_nearest_name(states):
    assert 'did you mean "det_necks"?' in states["misspelled"]["errors"][0]


def test_the_rest_works(states, environment):
    assert states["fine"]["state"] == "ok"
    for name in ("core", "resnet", "fpn", "rcnn"):
        assert (states[name]["state"], states[name]["errors"]) == ("ok", [])
    done = det_core(environment, "recipes", "show", "mask-rcnn/r50-fpn-1x", "--set", "detector.neck={type: fine}")
    assert "Config.feature_spec() is not defined by this stub" in done.stderr  # it is found and asked
    assert det_core(environment, "recipes", "show", "mask-rcnn/r50-fpn-1x").returncode == 0


def test_the_table_shows_them_all(environment):
    done = det_core(environment, "plugins")
    assert done.returncode == 0
    for name in BROKEN:
        assert f"stranger-{name}" in done.stdout
    assert "stranger-hook-raises 1.5 (partly):\n  det_necks: RuntimeError: no necks today" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_asking_for_what_a_broken_plugin_should_have_provided_names_it(environment):
    ask = ("recipes", "show", "mask-rcnn/r50-fpn-1x", "--set")
    done = det_core(environment, *ask, "detector.neck={type: twin}")
    assert done.returncode == 1
    assert (
        "type 'twin' is provided twice in slot neck, by stranger-twin-one 1.5 and stranger-twin-two 1.5" in done.stderr
    )
    done = det_core(environment, *ask, "detector.neck={type: zzz}")
    assert "plugins that failed and might provide it: " in done.stderr
    assert "stranger-import-fails 1.5 (import: ModuleNotFoundError" in done.stderr


def test_one_of_two_twins_can_be_switched_off(environment):
    done = det_core(environment, "plugins", "--json", DET_PLUGINS="-twin-two")
    states = {plugin["name"]: plugin for plugin in json.loads(done.stdout)}
    assert (states["twin-one"]["state"], states["twin-two"]["state"]) == ("ok", "off")


def test_strict_mode_stops(environment):
    done = det_core(environment, "--strict-plugins", "recipes")
    assert done.returncode == 1
    assert done.stderr.startswith("error: these plugins failed to load (--strict-plugins is set):\n")
    assert "stranger-exits 1.5: import: SystemExit: 7" in done.stderr
    only = {"DET_PLUGINS": "resnet,fpn,rcnn,fine"}
    assert det_core(environment, "--strict-plugins", "recipes", **only).returncode == 0


def test_listing_broken_plugins_is_light_too(environment):
    code = (
        "import sys; from det_core.cli.main import run; run(['plugins']); "
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, capture_output=True)
