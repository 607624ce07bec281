"""Every public module, class and function says what it is; those that take or give tensors say their shapes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(
    path
    for source in [ROOT / "ops/src", ROOT / "core/src", *(ROOT / "plugins").glob("*/src")]
    for path in source.rglob("*.py")
    if "templates" not in path.parts
)
# (n, 4), (N, C, H, W), (...), (): a shape is letters, numbers and operators in parentheses.
SHAPE = re.compile(r"\((?:\.\.\.|[\w\s*+/.',-]*)\)")


def functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef, ast.ClassDef | None]]:
    """Public functions, and public methods of public classes."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node.name, node, None
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for item in node.body:
                if isinstance(item, ast.FunctionDef) and not item.name.startswith("_"):
                    yield f"{node.name}.{item.name}", item, node


def is_overload(node: ast.ClassDef | ast.FunctionDef) -> bool:
    """Whether this is a signature for type checkers; the function itself is documented."""
    return any(ast.unparse(decorator) == "overload" for decorator in node.decorator_list)


def takes_tensors(function: ast.FunctionDef) -> bool:
    """Whether an annotation speaks of tensors; a state dict's have no one shape."""
    annotations = [a.annotation for a in [*function.args.args, *function.args.kwonlyargs] if a.annotation]
    annotations += [function.returns] if function.returns else []
    return any("Tensor" in ast.unparse(a).replace("dict[str, Tensor]", "") for a in annotations)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_modules_classes_and_functions_have_docstrings(path):
    tree = ast.parse(path.read_text())
    missing = [] if ast.get_docstring(tree) else ["the module"]
    missing += [
        n.name
        for n in tree.body
        if isinstance(n, (ast.ClassDef, ast.FunctionDef))
        and not n.name.startswith("_")
        and not ast.get_docstring(n)
        and not is_overload(n)
    ]
    # Hook implementations are documented by their specification.
    assert not [m for m in missing if not m.startswith("det_")]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_what_takes_or_gives_tensors_says_their_shapes(path):
    silent = []
    for name, function, owner in functions(ast.parse(path.read_text())):
        # A method may leave its shapes to its class, which fulfils a documented contract.
        text = (ast.get_docstring(function) or "") + ((ast.get_docstring(owner) or "") if owner else "")
        if takes_tensors(function) and not is_overload(function) and not SHAPE.search(text) and not inherits(owner):
            silent.append(name)
    assert not silent


def inherits(owner: ast.ClassDef | None) -> bool:
    """Whether a class implements a contract, whose methods are documented there."""
    return owner is not None and bool(owner.bases)
