"""mmdetection's configurations as plain values, from their Python text, which is parsed and never run.

The text is a file of mmdetection 0.5 to 3.x, or the copy of one in a checkpoint. It consists of assignments whose
values are numbers, strings, lists, tuples and `dict(...)`, and may use earlier names, `**name`, arithmetic and `+`.
Whatever else it contains becomes an `Unread` value, and is listed, so that no setting disappears without notice.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from attrs import frozen

from det_core.errors import DetError
from det_core.weights.python_values import LINE_END, Unread, ValueReader

MAX_CHARS = 1_000_000  # of a text; the longest of the published ones have 30,000
# mmcv 0.3 to 0.6 writes the path of each file in a line above its text.
_FILE_LINE = re.compile(r"(?:/|[A-Za-z]:[\\/]).*\.py\s*")


@frozen(eq=False)
class ParsedConfig:
    """A configuration as plain values.

    values: the top-level names and their values: None, bool, int, float, str, list, tuple, dict, or `Unread`. unread:
    everything that could not be read, in order. bases: the files of `_base_` and of `read_base()`. imports: the import
    statements. files: the paths of the files that the text was joined from, if it names them. None of these files is
    opened.
    """

    values: Mapping[str, Any]
    unread: tuple[Unread, ...] = ()
    bases: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


def parse_config(text: str, where: str) -> ParsedConfig:
    """The values of a configuration text; nothing in it is run.

    If the text was joined from several files (bases first), later files are merged into earlier ones, as mmcv does.

    Args:
        text: Python source.
        where: what the text is, for messages, such as the path of its file.

    Raises:
        DetError: if the text is not valid Python, or is too long, too deeply nested or expands to too many values.
    """
    if len(text) > MAX_CHARS:
        raise DetError(f"{where}: {len(text)} characters; a configuration has at most {MAX_CHARS}")
    reader = _Reader(where)
    values: dict[str, Any] = {}
    for number, file in enumerate(_sections(text, reader.files)):
        found = reader.read(file)
        values = merged(values, found) if number else found
    return ParsedConfig(
        values, tuple(reader.values.unread), tuple(reader.bases), tuple(reader.imports), tuple(reader.files)
    )


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` updated with `over`, as mmcv merges a configuration into its base: dicts recursively, other values whole.

    A dict with `_delete_=True` replaces the base's.
    """
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        if isinstance(value, Mapping):
            value = dict(value)
            delete = value.pop("_delete_", False)
            if isinstance(below, Mapping) and not delete:
                value = merged(below, value)
        result[key] = value
    return result


def _sections(text: str, files: list[str]) -> Iterator[str]:
    """The texts of the joined files, each with as many empty lines above it as precede it; adds paths to `files`."""
    lines = LINE_END.split(text)
    named = [number for number, line in enumerate(lines) if _FILE_LINE.fullmatch(line)]
    files += [lines[number].strip() for number in named]
    for above, end in pairwise([-1, *named, len(lines)]):
        section = lines[above + 1 : end]
        if above >= 0 or not named or any(line.strip() for line in section):
            yield "\n" * (above + 1) + "\n".join(section) + "\n"


class _Reader:
    """Reads the files of one text; collects what it cannot read."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.values = ValueReader(where)
        self.bases: list[str] = []
        self.imports: list[str] = []
        self.files: list[str] = []

    def read(self, text: str) -> dict[str, Any]:
        """The values of one file."""
        self.values.start(text)
        for statement in self._parse(text).body:
            self._statement(statement)
        base = self.values.names.pop("_base_", None)
        for name in base if isinstance(base, (list, tuple)) else [base]:
            if isinstance(name, str):
                self.bases.append(name)
        return {name: value for name, value in self.values.names.items() if not name.startswith("__")}

    def _parse(self, text: str) -> ast.Module:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of strings such as "\d"
                return ast.parse(text)
        except (RecursionError, MemoryError):
            raise DetError(f"{self.where}: not readable as a configuration: nested too deep") from None
        except (SyntaxError, ValueError) as error:  # ValueError: null bytes, numbers of thousands of digits
            line = getattr(error, "lineno", None)
            place = f":{line}" if line else ""
            reason = getattr(error, "msg", None) or error
            raise DetError(f"{self.where}{place}: not readable as a configuration in Python: {reason}") from None

    def _statement(self, node: ast.stmt) -> None:
        match node:
            case ast.Assign(targets=[*targets], value=value) if all(isinstance(t, ast.Name) for t in targets):
                for target in targets:
                    assert isinstance(target, ast.Name)
                    self.values.names[target.id] = self.values.value(value, target.id)
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                self.values.names[name] = self.values.value(value, name)
            case ast.AugAssign(target=ast.Name(id=name) as target, op=op, value=value) if name in self.values.names:
                whole = ast.BinOp(ast.copy_location(ast.Name(name, ast.Load()), target), op, value)
                self.values.names[name] = self.values.value(ast.copy_location(whole, node), name)
            case ast.Assign(targets=[ast.Subscript() as target], value=value):
                self._set_item(node, target, value)
            case ast.Import() | ast.ImportFrom():
                self.imports.append(self.values.source(node))
            case ast.With(items=[ast.withitem(ast.Call(ast.Name("read_base")))], body=body):
                self.bases += [self.values.source(inner) for inner in body]
            case ast.Expr(value=ast.Constant()) | ast.Pass():
                pass  # a docstring
            case _:
                self.values.skip(node, "")

    def _set_item(self, node: ast.stmt, target: ast.Subscript, value: ast.expr) -> None:
        """`name[key]... = value`, in the value that the name has."""
        path, keys = _steps(target)
        container, last = self._container(keys), keys[-1] if keys else None
        known = isinstance(container, list) and isinstance(last, int) and 0 <= last < len(container)
        if known or isinstance(container, dict):
            container[last] = self.values.value(value, path, len(keys))
        else:
            self.values.skip(node, path)

    def _container(self, keys: list[Any]) -> Any:
        """The value that all keys but the last lead to; None if there is none."""
        found: Any = self.values.names if len(keys) > 1 else None
        try:
            for key in keys[:-1]:
                found = found[key]
        except (KeyError, IndexError, TypeError):
            return None
        return found


def _steps(target: ast.Subscript) -> tuple[str, list[Any]]:
    """The path and the keys of `name[key][key]`, the name first; ("", []) for anything else."""
    keys: list[Any] = []
    node: ast.expr = target
    while isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        keys.append(node.slice.value)
        node = node.value
    if not isinstance(node, ast.Name):
        return "", []
    keys.reverse()
    path = "".join(f".{key}" if isinstance(key, str) else f"[{key}]" for key in keys)
    return f"{node.id}{path}", [node.id, *keys]
