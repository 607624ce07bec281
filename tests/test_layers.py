"""Who may import whom: packages, the rooms of core, no circles, public names. Nothing is imported."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from import_graph import Arrow, Import, arrows, circle_in, longest_circle, modules, packages, read_imports, way_back

from det_core.hookspecs import COMPONENT_HOOKS

ROOT = Path(__file__).resolve().parents[1]

# The rooms of core, from the ground up: a module imports from its own room and those above it in this list, for types
# too. The longest prefix decides.
ROOMS = (
    (
        "errors",
        "file_lock",
        "lazy_names",
        "optional_packages",
        "run_folder",
        "safe_write",
        "text_files",
        "torch_internals",
    ),
    ("settings", "conventions", "config.plain", "config.yaml_text"),
    ("specs",),
    ("structures", "compressed_masks", "padded"),
    ("contracts",),
    ("slots",),
    ("boxes", "data", "model", "evaluation", "optim"),
    ("recipe",),
    ("offers",),
    ("hookspecs",),
    ("known", "plugins", "plugin_file"),
    ("config", "load"),
    ("zoo",),
    ("weights", "import_config"),
    ("engine", "reports", "export", "analysis"),
    ("",),  # det_core itself: the public names
    ("testing", "cli", "hooks", "__main__"),
)

PACKAGES = packages()
PLUGINS = sorted(name for name in PACKAGES if name.startswith("det_plugin_"))
SOURCES = {
    name: file.read_text(encoding="utf8")
    for package, folder in PACKAGES.items()
    for name, file in modules(package, folder)
}
ARROWS = arrows(SOURCES)


def members(package: str) -> list[str]:
    """The modules of a package."""
    return [name for name in SOURCES if name == package or name.startswith(f"{package}.")]


def imported(module: str, *kinds: str) -> set[str]:
    """The top-level packages that a module imports; without kinds, all that it imports at run time."""
    wanted = kinds or ("eager", "lazy")
    return {item.module.partition(".")[0] for item in read_imports(SOURCES[module]) if item.kind in wanted}


def requirements(package: str) -> set[str]:
    """The import names of what a package's pyproject requires."""
    project = tomllib.loads((PACKAGES[package].parents[1] / "pyproject.toml").read_text(encoding="utf8"))["project"]
    optional = [r for extra in project.get("optional-dependencies", {}).values() for r in extra]
    names = [re.match(r"[\w.-]+", r)[0].lower() for r in project["dependencies"] + optional]  # type: ignore[index]
    renamed = {"pyyaml": "yaml", "attrs": "attrs", "mlflow-skinny": "mlflow"}
    return {renamed.get(n, n.replace("-", "_")) for n in names}


def test_all_packages_are_looked_at():
    names = (
        "resnet",
        "fpn",
        "rcnn",
        "cascade",
        "htc",
        "retinanet",
        "ssd",
        "mobilenet",
        "timm",
        "gn_ws_dcn",
        "guided_anchoring",
        "hub",
        "mlflow",
        "wandb",
    )
    assert {"det_ops", "det_core", *(f"det_plugin_{name}" for name in names)} <= set(PACKAGES)
    assert len(SOURCES) > 150
    assert len(ARROWS) > 500


def test_ops_import_torch_and_nothing_of_this_project():
    for name in members("det_ops"):
        assert imported(name) <= {"torch", "torchvision", "det_ops", *sys.stdlib_module_names}, name
        assert "torchvision" not in imported(name, "eager"), f"{name}: lazily, please"


def test_core_imports_ops_and_no_plugin():
    for name in members("det_core"):
        assert imported(name, "eager", "lazy", "types") & set(PACKAGES) <= {"det_ops", "det_core"}, name


@pytest.mark.parametrize("plugin", PLUGINS)
def test_a_plugin_imports_only_what_its_pyproject_names(plugin):
    required = requirements(plugin)
    assert "det_core" in required
    for name in members(plugin):
        found = imported(name)
        assert found & set(PACKAGES) <= {plugin, *required}, name
        # what core requires comes with core; naming torch as well is good style, not needed
        assert found - set(PACKAGES) <= {*sys.stdlib_module_names, *required, *requirements("det_core")}, name


@pytest.mark.parametrize("package", ["det_ops", "det_core"])
def test_a_package_imports_only_what_its_pyproject_names(package):
    allowed = {package, *requirements(package), *sys.stdlib_module_names}
    allowed |= {"PIL"} if "torchvision" in allowed else set()  # torchvision requires pillow
    allowed |= {"faster_coco_eval"}
    for name in members(package):
        assert imported(name) - {"attr", "pytest"} <= allowed, name


# The rooms of core


def room(module: str) -> int:
    """The place of a core module in ROOMS."""
    inner = module.removeprefix("det_core").removeprefix(".")
    fitting = {
        prefix: place
        for place, prefixes in enumerate(ROOMS)
        for prefix in prefixes
        if inner == prefix or (prefix and inner.startswith(f"{prefix}."))
    }
    assert fitting, f"{module} is in no room of ROOMS"
    return fitting[max(fitting, key=len)]


def upward(found: list[Arrow]) -> list[str]:
    """Arrows inside core that lead up: from a module to one that stands below it in ROOMS."""
    core = [a for a in found if a.source.startswith("det_core") and a.target.startswith("det_core")]
    return [f"{a.source} imports {a.target} ({a.kind})" for a in core if room(a.target) > room(a.source)]


def test_the_rooms_are_read_as_meant():
    order = ["errors", "settings", "specs", "structures", "contracts", "slots", "model.detector", "recipe", "offers"]
    order += ["hookspecs", "plugins", "config.convert", "zoo", "weights.fill_detector", "engine.train"]
    order = [*(f"det_core.{m}" for m in order), "det_core", "det_core.cli.main"]
    assert [room(m) for m in order] == list(range(len(ROOMS)))
    assert room("det_core.config.plain") == room("det_core.settings")


def test_core_imports_what_stands_above_it():
    assert upward(ARROWS) == []


def test_no_circle_but_a_configuration_with_the_module_it_builds():
    circle = circle_in([a for a in ARROWS if a.source not in PACKAGES])
    assert circle == [], f"modules import each other in a circle: {' -> '.join(circle)}"


def test_the_way_back_is_between_a_configuration_and_the_modules_it_builds():
    back = way_back(ARROWS)
    assert len(back) > 30
    assert all(source.endswith("config") for source, _ in back)


@pytest.mark.parametrize(
    ("module", "line", "found"),
    [
        (
            "det_core.errors",
            "from det_core.settings import setting",
            "det_core.errors imports det_core.settings (eager)",
        ),
        (
            "det_core.specs",
            "if TYPE_CHECKING:\n    from det_core import slots",
            "det_core.specs imports det_core.slots (types)",
        ),
        ("det_core.recipe", "def f():\n    import det_core.load", "det_core.recipe imports det_core.load (lazy)"),
        (
            "det_core.model.layers",
            "import det_core.cli.main",
            "det_core.model.layers imports det_core.cli.main (eager)",
        ),
    ],
)
def test_a_wrong_arrow_is_found(module, line, found):
    wrong = arrows({**SOURCES, module: f"{SOURCES[module]}\n{line}\n"})
    assert upward(wrong) == [found]


@pytest.mark.parametrize(
    "line",
    [
        "from det_core.model import detector",
        "def f():\n    from det_core.model import detector",
        "if TYPE_CHECKING:\n    from det_core.model import detector",
    ],
)
def test_a_wrong_circle_is_found(line):
    module = "det_core.model.fold_batch_norm"
    wrong = arrows(
        {
            **SOURCES,
            module: f"{SOURCES[module]}\n{line}\n",
            "det_core.model.detector": "from det_core.model import layers",
        }
    )
    circle = circle_in([a for a in wrong if a.source not in PACKAGES])
    assert circle == [
        "det_core.model.detector",
        "det_core.model.layers",
        "det_core.model.fold_batch_norm",
        "det_core.model.detector",
    ]


# Public names


def private_modules() -> set[str]:
    """The modules of core that docs/architecture.md lists as not public."""
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf8")
    table = text.partition("## What is not public")[2].partition("\n## ")[0]
    return set(re.findall(r"^\| `(det_core\.[\w.]+)`", table, re.M))


def is_private(item: Import, own: str) -> bool:
    """Whether an import takes a name that begins with an underscore, or a module of core that is not public."""
    if item.module.partition(".")[0] not in {"det_core", "det_ops", *PLUGINS} - {own}:
        return False
    full = f"{item.module}.{item.name}"
    underscored = any(part.startswith("_") and not part.startswith("__") for part in full.split("."))
    return underscored or any(full == m or full.startswith(f"{m}.") for m in private_modules())


def private_uses(plugin: str, source: str) -> list[str]:
    """Private names of other packages that a module of a plugin imports, or takes from a module that it imports."""
    items = read_imports(source)
    found = [f"{i.module}.{i.name}" for i in items if is_private(i, plugin)]
    foreign = {i.name or i.module for i in items if i.module.startswith(("det_core", "det_ops", "det_plugin_"))}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in foreign:
            found += [f"{node.value.id}.{node.attr}"] if re.match("_(?!_)", node.attr) else []
    return found


def test_the_page_lists_modules_that_are_there():
    listed = private_modules()
    assert listed
    assert {m for m in listed if m not in SOURCES} == set()


@pytest.mark.parametrize("plugin", PLUGINS)
def test_a_plugin_imports_public_names(plugin):
    for name in members(plugin):
        assert private_uses(plugin, SOURCES[name]) == [], name


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from det_core.model.layers import _hidden", "det_core.model.layers._hidden"),
        ("from det_core.plugins import plugin_manager", "det_core.plugins.plugin_manager"),
        ("from det_core import slots\nslots._hidden", "slots._hidden"),
        ("def f():\n    import det_core.engine.train", "det_core.engine.train."),
        ("from det_plugin_rcnn.config import _hidden", "det_plugin_rcnn.config._hidden"),
    ],
)
def test_a_private_name_is_found(source, found):
    assert private_uses("det_plugin_htc", source) == [found]


# Packages


def test_packages_require_each_other_without_a_circle():
    graph = {package: requirements(package) & set(PACKAGES) for package in PACKAGES}
    assert set(TopologicalSorter(graph).static_order()) == set(PACKAGES)
    assert graph["det_ops"] == set()
    assert graph["det_core"] == {"det_ops"}


def test_all_packages_share_one_version():
    projects = {
        p: tomllib.loads((f.parents[1] / "pyproject.toml").read_text(encoding="utf8")) for p, f in PACKAGES.items()
    }
    assert len({p["project"]["version"] for p in projects.values()}) == 1
    major = int(next(iter(projects.values()))["project"]["version"].split(".")[0])
    for plugin in PLUGINS:
        (core,) = [r for r in projects[plugin]["project"]["dependencies"] if r.startswith("det-core")]
        assert core.endswith(f"<{major + 1}")


@pytest.mark.parametrize("plugin", PLUGINS)
def test_every_plugin_has_the_same_anatomy(plugin):
    folder = PACKAGES[plugin]
    for file in ("__init__.py", "hooks.py", "py.typed"):
        assert (folder / file).exists(), f"{plugin} has no {file}"
    hooks = set(re.findall(r"\bdet_[a-z_]+\b", SOURCES[f"{plugin}.hooks"]))
    assert (folder / "config.py").exists() == bool(hooks & set(COMPONENT_HOOKS)), f"{plugin}: parts without config.py"
    assert (folder / "weights.py").exists() == ("det_weight_maps" in hooks), f"{plugin}: weight maps and weights.py"
    assert (folder / "recipes.py").exists() == (folder / "published.csv").exists(), f"{plugin}: one without the other"
    project = folder.parents[1]
    assert (project / "README.md").exists()
    data = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf8"))["project"]
    name = plugin.removeprefix("det_plugin_")
    assert data["name"] == plugin.replace("_", "-")
    assert data["entry-points"]["det_core.plugins"] == {name: f"{plugin}.hooks"}


def test_the_reader_of_imports_reads():
    source = (
        "from typing import TYPE_CHECKING\nimport a.b\nfrom c import d\nif TYPE_CHECKING:\n    import hidden\n"
        "else:\n    import shown\n"
        "def f():\n    import lazy\nclass C:\n    import inner\n    def g(self):\n        from lazier import x\n"
        "try:\n    import tried\nexcept ImportError:\n    pass\n"
    )
    found = {(i.module, i.kind, i.function) for i in read_imports(source)}
    eager = {(m, "eager", "") for m in ("typing", "a.b", "c", "shown", "inner", "tried")}
    assert found == {*eager, ("hidden", "types", ""), ("lazy", "lazy", "f"), ("lazier", "lazy", "g")}


def test_the_longest_circle_is_shown():
    pairs = [("a", "b"), ("b", "a"), ("c", "d"), ("d", "e"), ("e", "c"), ("c", "a")]
    assert longest_circle([Arrow(s, t, "eager") for s, t in pairs]) == ["c", "d", "e", "c"]
    assert longest_circle([Arrow("a", "b", "eager")]) == []
