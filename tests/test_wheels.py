"""From wheels alone: a plugin and what it requires, installed by pip into an environment far from this repository."""

from __future__ import annotations

import json
import tarfile
import zipfile
from pathlib import Path

import pytest
from check_dist import Environment, fresh_environment, install, succeeded
from distributions import PROJECTS, ROOT, Built, file_of, name_of

RECIPE = "cascade-rcnn/r18-fpn-demo"
SMALL = (
    "data.train_transforms=[{type: resize, scales: [[64, 64]]}, {type: flip}]",
    "data.workers=0",
    "data.images_per_rank=2",
    "detector.dense_head.train_limits={before_nms: 50, after_nms: 30}",
)


def without_ours(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """A fresh environment without a package of this repository."""
    made = fresh_environment(tmp_path_factory.mktemp("fresh"))
    assert "No module named 'det_core'" in made.run("python", "-c", "import det_core").stderr
    made.variables["DET_OPS_NATIVE"] = "off"
    return made


@pytest.fixture(scope="module")
def environment(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """A fresh environment where pip installed one plugin."""
    made = without_ours(tmp_path_factory)
    install(made, built.dist, ["det-plugin-cascade"])
    return made


def contents(wheel: Path) -> dict[str, bytes]:
    """The files of a wheel, without the list of their digests."""
    with zipfile.ZipFile(wheel) as file:
        return {name: file.read(name) for name in file.namelist() if not name.endswith(".dist-info/RECORD")}


def test_every_package_has_a_wheel_with_all_that_is_in_its_sources(built: Built) -> None:
    assert len(list(built.direct.iterdir())) == len(PROJECTS)
    for folder in PROJECTS:
        inside = {n for n in contents(file_of(folder, built.direct, "whl")) if ".dist-info/" not in n}
        files = {f.relative_to(folder / "src") for f in (folder / "src").rglob("*") if f.is_file()}
        made = {f for f in files if f.suffix in (".so", ".pyc") or f.parts[0].endswith(".egg-info")}
        sources = {f.as_posix() for f in files - made}
        assert inside == sources, f"{folder.name}: {sorted(inside ^ sources)}"


@pytest.mark.parametrize("folder", PROJECTS, ids=lambda f: f.name)
def test_a_source_distribution_gives_the_same_wheel(folder: Path, built: Built) -> None:
    direct = contents(file_of(folder, built.direct, "whl"))
    assert contents(file_of(folder, built.dist, "whl")) == direct
    (licence,) = (text for name, text in direct.items() if name.endswith(".dist-info/licenses/LICENSE"))
    assert licence == (ROOT / "LICENSE").read_bytes()


@pytest.mark.parametrize("folder", PROJECTS, ids=lambda f: f.name)
def test_a_source_distribution_has_sources_and_no_tests(folder: Path, built: Built) -> None:
    with tarfile.open(file_of(folder, built.dist, "tar.gz")) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    assert {"LICENSE", "README.md", "PKG-INFO", "pyproject.toml"} <= names
    assert not [name for name in names if name.startswith("tests")]
    assert (folder / "tests").is_dir()  # so the line above can fail


def test_all_files_would_be_accepted_by_an_index(built: Built) -> None:
    """`twine check --strict`, of the metadata and of the README as it is shown."""
    check = pytest.importorskip("twine.commands.check", reason="twine is not installed (make env installs it)")
    files = [str(file) for file in built.dist.iterdir()]
    assert len(files) == 2 * len(PROJECTS)
    assert not check.check(files, strict=True)


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


def test_without_one_plugin_all_other_recipes_work(built: Built, tmp_path_factory: pytest.TempPathFactory) -> None:
    environment = without_ours(tmp_path_factory)
    install(environment, built.dist, [name_of(folder) for folder in PROJECTS])
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
