"""From wheels alone: a plugin and what it requires, installed by pip into an environment far from this repository."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from attrs import frozen

ROOT = Path(__file__).resolve().parents[1]
PROJECTS = [ROOT / "ops", ROOT / "core", *sorted(p.parent for p in (ROOT / "plugins").glob("*/pyproject.toml"))]
LEFT_OUT = shutil.ignore_patterns("*.egg-info", "__pycache__", "*.so")
RECIPE = "cascade-rcnn/r18-fpn-demo"
SMALL = (
    "data.train_transforms=[{type: resize, scales: [[64, 64]]}, {type: flip}]",
    "data.workers=0",
    "data.images_per_rank=2",
    "detector.dense_head.train_limits={before_nms: 50, after_nms: 30}",
)


def name_of(folder: Path) -> str:
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf8"))["project"]["name"]


@frozen
class Environment:
    """A virtual environment, and a folder outside of the repository to run in."""

    folder: Path
    outside: Path

    def run(self, program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        variables = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "DET_", "PIP_", "VIRTUAL_ENV"))}
        command = [str(self.folder / "bin" / program), *map(str, arguments)]
        return subprocess.run(
            command,
            cwd=self.outside,
            env={**variables, "OMP_NUM_THREADS": "1", "DET_OPS_NATIVE": "off", "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )


def succeeded(done: subprocess.CompletedProcess[str]) -> str:
    """What it printed; the test fails with all of it where the command did."""
    assert done.returncode == 0, f"{done.args}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheels of all packages, built from copies, since a build leaves folders in its source."""
    copies, dist = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("dist")
    folders = [copies / name_of(folder) for folder in PROJECTS]
    for folder, copy in zip(PROJECTS, folders, strict=True):
        shutil.copytree(folder / "src", copy / "src", ignore=LEFT_OUT)
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(folder / name, copy)
    pip = ("-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check")
    command = [sys.executable, *pip, "--wheel-dir", str(dist), *map(str, folders)]
    succeeded(subprocess.run(command, capture_output=True, text=True, check=False, timeout=300))
    return dist


def fresh_environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with what others made (torch is large: by links) and nothing of ours."""
    folder, others = tmp_path_factory.mktemp("environment"), tmp_path_factory.mktemp("others")
    venv.create(folder, with_pip=False)
    for site in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(site).iterdir():
            ours = entry.name.startswith(("det_", "__editable__")) or entry.suffix in (".pth", ".egg-link")
            if not ours and not (others / entry.name).exists():
                (others / entry.name).symlink_to(entry)
    (site_packages,) = folder.glob("lib/python*/site-packages")
    (site_packages / "others.pth").write_text(f"{others}\n", encoding="utf8")
    made = Environment(folder, tmp_path_factory.mktemp("outside"))
    assert "No module named 'det_core'" in made.run("python", "-c", "import det_core").stderr
    return made


@pytest.fixture(scope="module")
def environment(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """A fresh environment where pip installed one plugin."""
    made = fresh_environment(tmp_path_factory)
    succeeded(made.run("python", "-m", "pip", "install", "--no-index", "--find-links", wheels, "det-plugin-cascade"))
    return made


def test_every_package_has_a_wheel_with_all_that_is_in_its_sources(wheels: Path) -> None:
    assert len(list(wheels.iterdir())) == len(PROJECTS)
    for folder in PROJECTS:
        (wheel,) = wheels.glob(f"{name_of(folder).replace('-', '_')}-*.whl")
        inside = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
        files = {f.relative_to(folder / "src") for f in (folder / "src").rglob("*") if f.is_file()}
        made = {f for f in files if f.suffix in (".so", ".pyc") or f.parts[0].endswith(".egg-info")}
        sources = {f.as_posix() for f in files - made}
        assert inside == sources, f"{folder.name}: {sorted(inside ^ sources)}"


def test_a_plugin_brings_what_it_requires_and_no_more(environment: Environment) -> None:
    code = "import det_core, det_ops, det_plugin_cascade as p; print(det_core.__file__, det_ops.__file__, p.__file__)"
    for file in succeeded(environment.run("python", "-c", code)).split():
        assert Path(file).is_relative_to(environment.folder)
    states = json.loads(succeeded(environment.run("det-core", "plugins", "--json")))
    assert sorted(s["distribution"] for s in states if s["distribution"].startswith("det-plugin-")) == [
        "det-plugin-cascade",
        "det-plugin-fpn",
        "det-plugin-rcnn",
        "det-plugin-resnet",
    ]
    assert {s["state"] for s in states} == {"ok"}


def test_it_trains_on_the_bundled_sample(environment: Environment) -> None:
    settings = [word for setting in SMALL for word in ("--set", setting)]
    run = environment.outside / "run"
    train = ("train", "--recipe", RECIPE, "--max-steps", 2, "--device", "cpu", "--log-every", 1, "--work-dir", run)
    assert "stopped after step 2 of" in succeeded(environment.run("det-core", *train, *settings))
    first, last = (json.loads(x) for x in (run / "metrics.jsonl").read_text(encoding="utf8").splitlines()[:2])
    for row in (first, last):
        assert {"loss/stage1_cls", "loss/stage2_box", "loss/stage3_box"} <= row.keys()
    assert (run / "checkpoints" / "step-0000002" / "model.safetensors").is_file()


def test_a_plugin_that_is_not_there_is_named_with_what_installs_it(environment: Environment) -> None:
    config = environment.outside / "mine.yaml"
    config.write_text(f"extends: {RECIPE}\ndetector: {{roi_head: {{type: htc}}}}\n", encoding="utf8")
    for words, message in (
        (("--config", config), "det-plugin-htc provides it: pip install ./plugins/htc"),
        (("--plugin", "htc"), "no plugin 'htc' is installed"),
    ):
        done = environment.run("det-core", "train", *words, "--work-dir", environment.outside / "htc")
        assert done.returncode == 1
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    assert not (environment.outside / "htc").exists()


BUILD_ALL = """
import json, torch
from det_core import load_recipe
from det_core.engine.detector_cost import class_count
from det_core.plugins import plugin_manager
built = []
for name in plugin_manager().recipes():
    recipe = load_recipe(name)
    with torch.device("meta"):
        recipe.detector.build(num_classes=class_count(recipe))
    built.append(name)
print(json.dumps(built))
"""


def test_without_one_plugin_all_other_recipes_work(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    environment = fresh_environment(tmp_path_factory)
    names = [name_of(folder) for folder in PROJECTS]
    succeeded(environment.run("python", "-m", "pip", "install", "--no-index", "--find-links", wheels, *names))
    before = json.loads(succeeded(environment.run("python", "-c", BUILD_ALL)))
    succeeded(environment.run("python", "-m", "pip", "uninstall", "--yes", "--quiet", "det-plugin-gn-ws-dcn"))
    after = json.loads(succeeded(environment.run("python", "-c", BUILD_ALL)))
    gone = set(before) - set(after)
    assert len(before) >= 149
    assert set(after) <= set(before)
    words = {"ws", "dconv", "mdconv", "dpool", "mdpool"}
    # Presets of other toolboxes with group norm need no layer of the plugin.
    theirs = ("detectron2-", "detectron-", "maskrcnn-benchmark-")
    with_gn = {name for name in before if "-gn-" in name and not name.partition("/")[2].startswith(theirs)}
    assert gone == with_gn | {name for name in before if words & set(name.split("-"))}
    for name in sorted(gone):
        done = environment.run("det-core", "recipes", "show", name) if name.endswith("dconv-c3-c5-1x") else None
        if done is not None:
            assert done.returncode == 1
            assert "pip install ./plugins/gn_ws_dcn" in done.stderr
