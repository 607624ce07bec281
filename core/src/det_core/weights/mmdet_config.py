"""mmdetection's configurations as plain values, from their Python text, which is parsed and never run.

The text is a file of mmdetection 0.5 to 3.x, or the copy of one in a checkpoint. It consists of assignments whose
values are numbers, strings, lists, tuples and `dict(...)`, and may use earlier names, `**name`, arithmetic and `+`,
loops over lists, and `update`, `append` and `extend`. Whatever else it contains becomes an `Unread` value, and is
listed, so that no setting disappears without notice.

The bases of a file are read by `mmdet_config_files`, with the same `StatementReader`.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any

from attrs import frozen

from det_core.errors import DetError
from det_core.weights.python_values import LINE_END, Place, PlacedDict, Unread, ValueReader

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
    reader = StatementReader(where)
    values: dict[str, Any] = {}
    for number, file in enumerate(_sections(text, reader.files)):
        found = reader.read(file)
        values = merged(values, found) if number else found
    return ParsedConfig(
        plain_values(values),
        tuple(reader.values.unread),
        tuple(reader.bases),
        tuple(reader.imports),
        tuple(reader.files),
    )


def plain_values(value: Any) -> Any:
    """The value with plain dicts, without places."""
    if isinstance(value, dict):
        return {key: plain_values(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(plain_values(inner) for inner in value)
    return value


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> PlacedDict:
    """`base` updated with `over`, as mmcv merges a configuration into its base: dicts recursively, other values whole.

    A dict with `_delete_=True` replaces the base's. The result has the places of both.
    """
    result = PlacedDict(base, merges=isinstance(base, PlacedDict) and base.merges)
    if isinstance(over, PlacedDict):
        result.places.update(over.places)
    for key, value in over.items():
        below = result.get(key)
        if isinstance(value, Mapping):
            value = PlacedDict(value)
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


class StatementReader:
    """Reads the statements of one text; collects what it cannot read.

    where: what the text is, for messages. read_base: the values of a module that a statement in `with read_base():`
    imports; None: such statements are only recorded.
    """

    def __init__(self, where: str, read_base: Callable[[ast.ImportFrom], PlacedDict] | None = None) -> None:
        self.where = where
        self.read_base = read_base
        self.values = ValueReader(where)
        self.bases: list[str] = []
        self.imports: list[str] = []
        self.files: list[str] = []

    def read(self, text: str, file: str = "", given: Mapping[str, Any] | None = None) -> PlacedDict:
        """The values of one file; given: the values of names that it does not define."""
        self.values.start(text, file)
        tree = self.parse(text)
        self.values.names.update(given or {})
        for statement in tree.body:
            self._statement(statement)
        base = self.values.names.pop("_base_", None)
        for name in base if isinstance(base, (list, tuple)) else [base]:
            if isinstance(name, str):
                self.bases.append(name)
        for name in [name for name in self.values.names if name.startswith("__")]:
            del self.values.names[name]
        return self.values.names

    def parse(self, text: str) -> ast.Module:
        """The statements of the text; a reader of files changes them."""
        return parsed_module(text, self.where)

    def _set(self, name: str, value: Any, node: ast.AST) -> None:
        self.values.names[name] = value
        self.values.names.places[name] = self.values.place(node)

    def _statement(self, node: ast.stmt) -> None:
        match node:
            case ast.Assign(targets=[ast.Name(id="_base_")]) if "_base_" in self.values.names:
                pass  # the caller has read the base files
            case ast.Assign(targets=[*targets], value=value) if all(isinstance(t, ast.Name) for t in targets):
                for target in targets:
                    assert isinstance(target, ast.Name)
                    self._set(target.id, self.values.value(value, target.id), node)
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                self._set(name, self.values.value(value, name), node)
            case ast.AugAssign(target=ast.Name(id=name) as target, op=op, value=value) if name in self.values.names:
                whole = ast.BinOp(ast.copy_location(ast.Name(name, ast.Load()), target), op, value)
                self._set(name, self.values.value(ast.copy_location(whole, node), name), node)
            case ast.Assign(targets=[(ast.Subscript() | ast.Attribute()) as target], value=value):
                self._set_item(node, target, value)
            case ast.Delete(targets=[ast.Name(id=name)]) if name in self.values.names:
                del self.values.names[name]
            case ast.Import() | ast.ImportFrom():
                self.imports.append(self.values.source(node))
                self._name_classes(node)
            case ast.With(items=[ast.withitem(ast.Call(ast.Name("read_base")))], body=body):
                self.bases += [self.values.source(inner) for inner in body]
                for inner in body:
                    self._import_base(inner)
            case ast.For(target=ast.Name(id=name), iter=items, body=body, orelse=[]):
                self._loop(node, name, items, body)
            case ast.Expr(value=ast.Call(func=ast.Attribute(value=target, attr=method)) as call) if method in (
                "update",
                "append",
                "extend",
            ):
                self._change(node, target, method, call)
            case ast.Expr(value=ast.Constant()) | ast.Pass():
                pass  # a docstring
            case _:
                self.values.skip(node, "")

    def _name_classes(self, node: ast.Import | ast.ImportFrom) -> None:
        """Imported classes and modules: their names become their dotted names. Nothing is imported."""
        module = f"{node.module}." if isinstance(node, ast.ImportFrom) and node.module else ""
        for alias in node.names:
            self.values.classes[alias.asname or alias.name] = f"{module}{alias.name}"

    def _import_base(self, node: ast.stmt) -> None:
        """`from .module import *`, or names, in `with read_base():`."""
        if self.read_base is None or isinstance(node, ast.Pass):
            return
        if not isinstance(node, ast.ImportFrom):
            self.values.skip(node, "")
            return
        found = self.read_base(node)
        for alias in node.names:
            if alias.name == "*":
                self.values.names.update(found)
                self.values.names.places.update(found.places)
            elif alias.name in found:
                name = alias.asname or alias.name
                self.values.names[name] = found[alias.name]
                self.values.names.places[name] = found.places.get(alias.name, self.values.place(node))
            else:
                raise DetError(f"{self.values.place(node)}: the base file defines no {alias.name!r}")

    def _loop(self, node: ast.stmt, name: str, items: ast.expr, body: list[ast.stmt]) -> None:
        """A loop over a list, whose statements are read once for each item."""
        found = self.values.value(items, "")
        if isinstance(found, Unread):
            return
        if not isinstance(found, (list, tuple)):
            self.values.skip(node, "")
            return
        for item in found:
            self._set(name, self.values.copied(item, 1), node)
            for statement in body:
                self.values.copied(None, 1)  # each is counted, so that nested loops are bounded
                self._statement(statement)

    def _change(self, node: ast.stmt, target: ast.expr, method: str, call: ast.Call) -> None:
        """`name.update(...)`, `name.append(value)` and `name.extend(values)`."""
        path, keys = _steps(target)
        container = self._container([*keys, None]) if keys else None
        if method == "update" and isinstance(container, PlacedDict):
            as_dict = ast.Call(ast.copy_location(ast.Name("dict", ast.Load()), call), call.args, call.keywords)
            over = self.values.value(ast.copy_location(as_dict, call), path, len(keys))
            if isinstance(over, PlacedDict):
                _update(container, over)
        elif method == "append" and isinstance(container, list) and len(call.args) == 1 and not call.keywords:
            container.append(self.values.value(call.args[0], f"{path}[{len(container)}]", len(keys)))
        elif method == "extend" and isinstance(container, list) and len(call.args) == 1 and not call.keywords:
            more = self.values.value(call.args[0], path, len(keys))
            if isinstance(more, (list, tuple)):
                container.extend(more)
            elif not isinstance(more, Unread):
                self.values.skip(node, path)
        else:
            self.values.skip(node, "")

    def _set_item(self, node: ast.stmt, target: ast.expr, value: ast.expr) -> None:
        """`name[key]... = value` and `name.key = value`, in the value that the name has."""
        path, keys = _steps(target)
        container, last = self._container(keys), keys[-1] if keys else None
        if isinstance(target, ast.Attribute):  # plain dicts have no attributes, those of base files do
            known = isinstance(container, PlacedDict) and container.merges
        else:
            known = isinstance(container, dict) or (
                isinstance(container, list) and isinstance(last, int) and 0 <= last < len(container)
            )
        if known:
            container[last] = self.values.value(value, path, len(keys))
            if isinstance(container, PlacedDict):
                container.places[last] = self.values.place(node)
        else:
            self.values.skip(node, "" if isinstance(target, ast.Attribute) else path)

    def _container(self, keys: list[Any]) -> Any:
        """The value that all keys but the last lead to; None if there is none."""
        found: Any = self.values.names if len(keys) > 1 else None
        try:
            for key in keys[:-1]:
                found = found[key]
        except (KeyError, IndexError, TypeError):
            return None
        return found


def parsed_module(text: str, where: str) -> ast.Module:
    """The syntax tree of a text; DetError if it is not Python, or nested too deep."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of strings such as "\d"
            return ast.parse(text)
    except (RecursionError, MemoryError):
        raise DetError(f"{where}: not readable as a configuration: nested too deep") from None
    except (SyntaxError, ValueError) as error:  # ValueError: null bytes, numbers of thousands of digits
        line = getattr(error, "lineno", None)
        place = f":{line}" if line else ""
        reason = getattr(error, "msg", None) or error
        raise DetError(f"{where}{place}: not readable as a configuration in Python: {reason}") from None


def _update(base: PlacedDict, over: PlacedDict) -> None:
    """`base.update(over)`: dicts in dicts are merged if the dict is one of a base file."""
    for key, value in over.items():
        below = base.get(key)
        if base.merges and isinstance(below, PlacedDict) and isinstance(value, PlacedDict):
            _update(below, value)
        else:
            base[key] = value
        base.places[key] = over.places.get(key, Place("", 0))


def _steps(target: ast.expr) -> tuple[str, list[Any]]:
    """The path and the keys of `name[key].key`, the name first; ("", []) for anything else."""
    keys: list[Any] = []
    node: ast.expr = target
    while True:
        match node:
            case ast.Subscript(value=inner, slice=ast.Constant(value=key)):
                keys.append(key)
            case ast.Attribute(value=inner, attr=key):
                keys.append(key)
            case _:
                break
        node = inner
    if not isinstance(node, ast.Name):
        return "", []
    keys.reverse()
    path = "".join(f".{key}" if isinstance(key, str) else f"[{key}]" for key in keys)
    return f"{node.id}{path}", [node.id, *keys]
