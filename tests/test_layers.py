"""Who may import whom: packages, core's layers, and no circles. Read from the sources, nothing is imported."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# From the top down: a module imports from its own row and those below. The longest prefix decides.
LAYERS = (
    ("det_core.cli", "det_core.__main__", "det_core.testing", "det_core.hooks"),
    ("det_core.engine", "det_core.zoo"),
    ("det_core.recipe", "det_core.model"),
    ("det_core.weights", "det_core.data", "det_core.evaluation", "det_core.reports.drawing"),
    ("det_core.config", "det_core.boxes"),
    ("det_core.plugins", "det_core.structures"),
    ("det_core.hookspecs", "det_core.config.base"),
    ("det_core",),
)


def packages() -> dict[str, Path]:
    """The import name and source folder of every package of this repository."""
    found = {}
    for project in [ROOT / "ops", ROOT / "core", *sorted((ROOT / "plugins").iterdir())]:
        for folder in sorted((project / "src").glob("det_*")):
            if (folder / "__init__.py").exists():
                found[folder.name] = folder
    return found


PACKAGES = packages()
PLUGINS = sorted(name for name in PACKAGES if name.startswith("det_plugin_"))


def modules(package: str) -> Iterator[tuple[str, Path]]:
    """The modules of a package by dotted name."""
    folder = PACKAGES[package]
    for file in sorted(folder.rglob("*.py")):
        parts = [package, *file.relative_to(folder).with_suffix("").parts]
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), file


KNOWN = {name for package in PACKAGES for name, _ in modules(package)}


def imports(file: Path, *, lazy: bool = True) -> set[str]:
    """The modules that a file imports at run time; those inside functions only where `lazy` is true."""
    return set(_imports(ast.parse(file.read_text(encoding="utf8")), lazy))


def _imports(node: ast.AST, lazy: bool) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"relative import in line {node.lineno}"
        for alias in node.names:
            name = f"{node.module}.{alias.name}"
            yield name if name in KNOWN else str(node.module)
    elif lazy or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
        only_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for child in node.orelse if only_types else ast.iter_child_nodes(node):  # type: ignore[attr-defined]
            yield from _imports(child, lazy)


def first_party(names: set[str]) -> set[str]:
    return {n.partition(".")[0] for n in names if n.partition(".")[0] in PACKAGES}


def requirements(package: str) -> set[str]:
    """The import names of what a package's pyproject requires."""
    project = tomllib.loads((PACKAGES[package].parents[1] / "pyproject.toml").read_text(encoding="utf8"))["project"]
    optional = [r for extra in project.get("optional-dependencies", {}).values() for r in extra]
    names = [re.match(r"[\w.-]+", r)[0].lower() for r in project["dependencies"] + optional]  # type: ignore[index]
    renamed = {"pyyaml": "yaml", "attrs": "attrs"}
    return {renamed.get(n, n.replace("-", "_")) for n in names}


def test_all_packages_are_looked_at():
    names = ("resnet", "fpn", "rcnn", "cascade", "htc", "retinanet", "ssd", "gn_ws_dcn", "guided_anchoring")
    plugins = {f"det_plugin_{name}" for name in names}
    assert {"det_ops", "det_core", *plugins} <= set(PACKAGES)
    assert len(KNOWN) > 50


def test_ops_import_torch_and_nothing_of_this_project():
    for name, file in modules("det_ops"):
        allowed = {"torch", "torchvision", "det_ops", *sys.stdlib_module_names}
        assert {n.partition(".")[0] for n in imports(file)} <= allowed, name
        assert "torchvision" not in {n.partition(".")[0] for n in imports(file, lazy=False)}, f"{name}: lazily, please"


def test_core_imports_ops_and_no_plugin():
    for name, file in modules("det_core"):
        assert first_party(imports(file)) <= {"det_ops", "det_core"}, name


@pytest.mark.parametrize("plugin", PLUGINS)
def test_a_plugin_imports_only_what_its_pyproject_names(plugin):
    required = requirements(plugin)
    assert "det_core" in required
    for name, file in modules(plugin):
        found = imports(file)
        assert first_party(found) <= {plugin, *required}, name
        others = {n.partition(".")[0] for n in found} - set(PACKAGES) - set(sys.stdlib_module_names)
        # what core requires comes with core; naming torch as well is good style, not needed
        assert others <= required | requirements("det_core"), name


@pytest.mark.parametrize("package", ["det_ops", "det_core"])
def test_a_package_imports_only_what_its_pyproject_names(package):
    allowed = {package, *requirements(package), *sys.stdlib_module_names}
    allowed |= {"PIL"} if "torchvision" in allowed else set()  # torchvision requires pillow
    allowed |= {"faster_coco_eval"}
    for name, file in modules(package):
        found = {n.partition(".")[0] for n in imports(file)} - {"attr", "pytest"}
        assert found <= allowed, name


def layer(module: str) -> int:
    """The row of a core module, 0 at the bottom."""
    rows = {prefix: len(LAYERS) - 1 - row for row, prefixes in enumerate(LAYERS) for prefix in prefixes}
    fitting = [p for p in rows if module == p or module.startswith(f"{p}.")]
    return rows[max(fitting, key=len)]


def test_the_rows_are_read_as_meant():
    order = [
        "det_core",
        "det_core.config.base",
        "det_core.structures",
        "det_core.config.convert",
        "det_core.data.coco_dataset",
        "det_core.model.detector",
        "det_core.engine.train",
        "det_core.cli.main",
    ]
    assert [layer(m) for m in order] == list(range(8))


@pytest.mark.parametrize(("name", "file"), list(modules("det_core")), ids=lambda v: v if isinstance(v, str) else "")
def test_core_imports_downwards(name, file):
    for imported in imports(file):
        if imported.startswith("det_core."):
            assert layer(imported) <= layer(name), f"{name} imports {imported}, which lies above it"


def test_no_two_rows_import_each_other_and_no_module_itself_in_a_circle():
    graph = {
        name: {i for i in imports(file, lazy=False) if i in KNOWN and i != name}
        for package in PACKAGES
        for name, file in modules(package)
    }
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"modules import each other in a circle: {' -> '.join(error.args[1])}")
    assert set(order) == KNOWN


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
    for file in ("__init__.py", "hooks.py", "config.py", "weights.py", "py.typed"):
        assert (folder / file).exists(), f"{plugin} has no {file}"
    assert (folder / "recipes.py").exists() == (folder / "published.csv").exists(), f"{plugin}: one without the other"
    project = folder.parents[1]
    assert (project / "README.md").exists()
    data = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf8"))["project"]
    name = plugin.removeprefix("det_plugin_")
    assert data["name"] == plugin.replace("_", "-")
    assert data["entry-points"]["det_core.plugins"] == {name: f"{plugin}.hooks"}


def test_the_reader_of_imports_reads(tmp_path):
    file = tmp_path / "x.py"
    file.write_text(
        "from typing import TYPE_CHECKING\nimport a.b\nfrom c import d\nif TYPE_CHECKING:\n    import hidden\n"
        "else:\n    import shown\n"
        "def f():\n    import lazy\nclass C:\n    import inner\n    def g(self):\n        from lazier import x\n"
        "try:\n    import tried\nexcept ImportError:\n    pass\n",
        encoding="utf8",
    )
    eager = {"typing", "a.b", "c", "shown", "inner", "tried"}
    assert imports(file, lazy=False) == eager
    assert imports(file) == eager | {"lazy", "lazier"}
