"""Who imports whom in this repository, read from the sources: nothing is imported.

An arrow leads from a module to one that it imports: when it is imported itself (`eager`), inside a function (`lazy`),
or for type checkers alone (`types`).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from attrs import frozen

ROOT = Path(__file__).resolve().parents[1]
Kind = Literal["eager", "lazy", "types"]


@frozen
class Import:
    """One imported name. module: the module that it is in (or is). function: where it is imported, if in one."""

    module: str
    name: str
    kind: Kind
    function: str = ""


@frozen
class Arrow:
    """A module imports another of this repository."""

    source: str
    target: str
    kind: Kind
    function: str = ""


def packages() -> dict[str, Path]:
    """The import name and source folder of every package of this repository."""
    found = {}
    for project in [ROOT / "ops", ROOT / "core", *sorted((ROOT / "plugins").iterdir())]:
        for folder in sorted((project / "src").glob("det_*")):
            if (folder / "__init__.py").exists():
                found[folder.name] = folder
    return found


def modules(package: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """The modules of a package by dotted name."""
    for file in sorted(folder.rglob("*.py")):
        parts = [package, *file.relative_to(folder).with_suffix("").parts]
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), file


def read_imports(source: str) -> list[Import]:
    """All imports of a module's source, wherever they are."""
    return list(_imports(ast.parse(source), "eager", ""))


def _imports(node: ast.AST, kind: Kind, function: str) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        yield from (Import(alias.name, "", kind, function) for alias in node.names)
        return
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"relative import in line {node.lineno}"
        yield from (Import(str(node.module), alias.name, kind, function) for alias in node.names)
        return
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
        kind, function = "lazy", getattr(node, "name", "")
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
        for child in node.body:
            yield from _imports(child, "types", function)
        for child in node.orelse:
            yield from _imports(child, kind, function)
        return
    for child in ast.iter_child_nodes(node):
        yield from _imports(child, kind, function)


def arrows(sources: Mapping[str, str]) -> list[Arrow]:
    """All arrows between the modules of these sources (dotted name to text)."""
    found = []
    for source, text in sources.items():
        for item in read_imports(text):
            inner = f"{item.module}.{item.name}"
            target = inner if inner in sources else item.module
            if target in sources and target != source:
                found.append(Arrow(source, target, item.kind, item.function))
    return found


def way_back(found: list[Arrow]) -> set[tuple[str, str]]:
    """Configurations with the modules beside them that they import inside `build`: the one circle that is allowed."""
    return {
        (a.source, a.target)
        for a in found
        if a.function == "build" and a.source.rpartition(".")[0] == a.target.rpartition(".")[0]
    }


def circle_in(found: list[Arrow]) -> list[str]:
    """The longest circle that is not allowed, its first module again at the end; empty if there is none."""
    allowed = way_back(found)
    return longest_circle([a for a in found if (a.source, a.target) not in allowed])


def longest_circle(found: list[Arrow]) -> list[str]:
    """The longest of the shortest circles through each module, the first module again at the end; empty for none."""
    targets: dict[str, set[str]] = {}
    for arrow in found:
        targets.setdefault(arrow.source, set()).add(arrow.target)
    circles = (_way(targets, start) for start in sorted(targets))
    return max(circles, key=len, default=[])


def _way(targets: Mapping[str, set[str]], start: str) -> list[str]:
    """The shortest way from a module back to itself; empty if there is none."""
    came_from: dict[str, str] = {}
    front = [start]
    while front:
        reached = []
        for module in front:
            for target in sorted(targets.get(module, ())):
                if target == start:
                    way = [start, module]
                    while way[-1] != start:
                        way.append(came_from[way[-1]])
                    return way[::-1] if way[-1] == start else []
                if target not in came_from:
                    came_from[target] = module
                    reached.append(target)
        front = reached
    return []
