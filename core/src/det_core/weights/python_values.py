"""Values of Python expressions, read from their syntax tree without running anything.

Read are numbers, strings, lists, tuples and dicts, also `dict(...)` and `**`, earlier names, items and attributes,
arithmetic, `+`, `copy`, and `[... for x in LIST]`. Every name is copied where it is used, so values are trees, and
their number and depth are bounded. Dicts are `PlacedDict`s, which know where each of their keys was written.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from attrs import frozen

from det_core.errors import DetError

MAX_VALUES = 100_000  # each reference to a name counted as what it stands for, and text that is computed
MAX_DEPTH = 60  # of values in values
MAX_BITS = 256  # of a whole number that is computed
CHARS = 100  # of computed text that count as one value
SHOWN = 100  # characters of source text in a message

LINE_END = re.compile(r"\r\n|\r|\n")

_OPERATORS: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}


@frozen
class Place:
    """A line of a file, from 1; line 0: the file as a whole."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


class PlacedDict(dict[Any, Any]):
    """A dict with the place of each key.

    merges: whether its method `update` merges dicts in dicts, as mmengine's dicts of base files do.
    """

    def __init__(self, items: Mapping[Any, Any] | Iterable[tuple[Any, Any]] = (), merges: bool = False) -> None:
        super().__init__(items)
        self.places: dict[Any, Place] = dict(items.places) if isinstance(items, PlacedDict) else {}
        self.merges = merges


@frozen
class Unread:
    """A value or statement that cannot be read without running it.

    path: where it is, such as `model.backbone.depth`; for a statement the name that it sets, or "". text: its source,
    shortened. line: its line number, from 1. file: the file that it is in; "" for a text without files.
    """

    path: str
    text: str
    line: int
    file: str = ""

    def __str__(self) -> str:
        return f"line {self.line}: {f'{self.path} = ' if self.path else ''}{self.text}"


class _CannotRead(Exception):
    """An expression has a part that cannot be read."""


class ValueReader:
    """Reads expressions of one source text.

    where: what the text is, for messages. names: the values of names; the caller sets them. classes: the dotted names
    of imported classes and modules, by the names that they have here. unread: all that could not be read.

    All methods raise DetError if the text expands to too many values, or is nested too deep.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        self.file = ""
        self.names: PlacedDict = PlacedDict()
        self.classes: dict[str, str] = {}
        self.unread: list[Unread] = []
        self.lines: list[bytes] = []
        self.count = 0

    def start(self, text: str, file: str = "") -> None:
        """Read expressions of another text from now on; file: where it is from."""
        self.file = file
        self.names, self.classes = PlacedDict(), {}
        self.lines = [line.encode(errors="replace") for line in LINE_END.split(text)]  # columns count bytes

    def value(self, node: ast.expr, path: str, depth: int = 0) -> Any:
        """The value of an expression, or an `Unread`, which is listed.

        path: where the value will be. depth: how deep it will be in another value.
        """
        try:
            return self._read(node, path, depth)
        except _CannotRead:
            return self.skip(node, path)

    def skip(self, node: ast.AST, path: str) -> Unread:
        """List a node as unread."""
        unread = Unread(path, self.source(node), getattr(node, "lineno", 0), self.file)
        self.unread.append(unread)
        return unread

    def place(self, node: ast.AST) -> Place:
        """Where a node is."""
        return Place(self.file or self.where, getattr(node, "lineno", 0))

    def source(self, node: ast.AST) -> str:
        """The source text of a node, shortened; of several lines, the first."""
        first, last = getattr(node, "lineno", 1), getattr(node, "end_lineno", 1)
        start, end = getattr(node, "col_offset", 0), getattr(node, "end_col_offset", 0)
        line = self.lines[first - 1] if first <= len(self.lines) else b""
        text = line[start : start + 4 * SHOWN if first != last else end][: 4 * SHOWN + 1].decode(errors="replace")
        return f"{text[:SHOWN].strip()} ..." if first != last or len(text) > SHOWN else text.strip()

    def _read(self, node: ast.expr, path: str, depth: int) -> Any:
        self._count(depth)
        match node:
            case ast.Constant(value=None | bool() | int() | float() | str() as value):
                return value
            case ast.Name(id=name) if name in self.names:
                return self.copied(self.names[name], depth)
            case ast.Name(id=name) if name in self.classes:
                return self.classes[name]
            case ast.Attribute(value=inner, attr=name):
                return self._attribute(self._whole(inner, path, depth), name, depth)
            case ast.Call(
                func=ast.Attribute(value=ast.Name("copy"), attr="copy" | "deepcopy"), args=[one], keywords=[]
            ):
                return self._whole(one, path, depth)
            case ast.Call(func=ast.Name("copy" | "deepcopy"), args=[one], keywords=[]):
                return self._whole(one, path, depth)
            case ast.Call(func=ast.Attribute(value=inner, attr="copy"), args=[], keywords=[]):
                return self._whole(inner, path, depth)
            case ast.List(elts=items):
                return self._items(items, path, depth)
            case ast.Tuple(elts=items):
                return tuple(self._items(items, path, depth))
            case ast.Dict(keys=keys, values=values):
                return self._dict(zip(keys, values, strict=True), path, depth)
            case ast.Call(func=ast.Name(id="dict"), args=args, keywords=keywords):
                return self._dict_call(args, keywords, path, depth)
            case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]):
                return self._convert(name, self._whole(argument, path, depth))
            case ast.UnaryOp(op=op, operand=operand):
                return _sign(op, self._whole(operand, path, depth))
            case ast.BinOp(left=left, op=op, right=right):
                return self._combine(op, self._whole(left, path, depth), self._whole(right, path, depth), depth)
            case ast.Subscript(value=inner, slice=key):
                return self._item(self._whole(inner, path, depth), self._whole(key, path, depth), depth)
            case ast.ListComp(elt=item, generators=[ast.comprehension(ast.Name(id=name), source, [], 0)]):
                return self._comprehension(item, name, self._sequence(self._whole(source, path, depth)), path, depth)
            case ast.JoinedStr(values=parts):
                return self._bounded("".join(self._text(part, path, depth) for part in parts))
        raise _CannotRead

    def _whole(self, node: ast.expr, path: str, depth: int) -> Any:
        """A value that is needed to compute another: without any part that cannot be read."""
        before = len(self.unread)
        value = self._read(node, path, depth + 1)
        if len(self.unread) > before or isinstance(value, Unread):
            del self.unread[before:]  # the whole expression is listed instead
            raise _CannotRead
        return value

    def _items(self, nodes: list[ast.expr], path: str, depth: int) -> list[Any]:
        found: list[Any] = []
        for node in nodes:
            if isinstance(node, ast.Starred):
                found += self._sequence(self._whole(node.value, path, depth))
            else:
                found.append(self.value(node, f"{path}[{len(found)}]", depth + 1))
        return found

    def _comprehension(self, item: ast.expr, name: str, values: list[Any], path: str, depth: int) -> list[Any]:
        """`[item for name in values]`; the name has its earlier value afterwards."""
        before = self.names.get(name, self)
        found = []
        try:
            for number, value in enumerate(values):
                self.names[name] = value
                found.append(self.value(item, f"{path}[{number}]", depth + 1))
        finally:
            if before is self:
                self.names.pop(name, None)
            else:
                self.names[name] = before
        return found

    def _dict_call(self, args: list[ast.expr], keywords: list[ast.keyword], path: str, depth: int) -> PlacedDict:
        found = PlacedDict()
        if args:
            first = self._whole(args[0], path, depth)
            if len(args) > 1 or not isinstance(first, dict):
                raise _CannotRead
            found = PlacedDict(first)
        pairs = ((ast.copy_location(ast.Constant(k.arg), k) if k.arg else None, k.value) for k in keywords)
        over = self._dict(pairs, path, depth)
        found.update(over)
        found.places.update(over.places)
        return found

    def _dict(self, pairs: Iterable[tuple[ast.expr | None, ast.expr]], path: str, depth: int) -> PlacedDict:
        """Pairs of a key (None for `**value`) and a value."""
        found = PlacedDict()
        for key_node, node in pairs:
            if key_node is None:
                inner = self.value(node, f"{path}.**", depth)
                if isinstance(inner, dict):
                    found.update(inner)
                    found.places.update(inner.places if isinstance(inner, PlacedDict) else {})
                elif not isinstance(inner, Unread):
                    self.skip(node, f"{path}.**")
                continue
            key = self._key(key_node, path, depth)
            found[key] = self.value(node, f"{path}.{key}", depth + 1)
            found.places[key] = self.place(key_node)
        return found

    def _key(self, node: ast.expr, path: str, depth: int) -> Any:
        """A key; one that cannot be read is its source text (mmcv writes dotted keys without quotes)."""
        try:
            key = self._whole(node, path, depth)
        except _CannotRead:
            return self.source(node)
        return key if isinstance(key, (str, int, float, bool)) else self.source(node)

    def _convert(self, function: str, value: Any) -> Any:
        """`list(...)`, `tuple(...)`, `float("inf")` and `int(...)`."""
        try:
            if function in ("list", "tuple"):
                return tuple(self._sequence(value)) if function == "tuple" else list(self._sequence(value))
            if function in ("float", "int") and isinstance(value, (int, float, str)) and len(str(value)) < SHOWN:
                return float(value) if function == "float" else int(value)
        except (ValueError, OverflowError):
            pass
        raise _CannotRead

    def _sequence(self, value: Any) -> list[Any]:
        if not isinstance(value, (list, tuple)):
            raise _CannotRead
        return list(value)

    def _combine(self, op: ast.operator, left: Any, right: Any, depth: int) -> Any:
        """Arithmetic of numbers; `+` of strings and lists; a list times a number."""
        try:
            if all(isinstance(side, (bool, int, float)) for side in (left, right)):
                return _number(op, left, right)
            if isinstance(op, ast.Add) and type(left) is type(right) and isinstance(left, (str, list, tuple)):
                return self._bounded(left + right)
            if isinstance(op, ast.Mult) and isinstance(left, (list, tuple)) and isinstance(right, int):
                self._bounded(range(len(left) * right))
                return type(left)(self.copied(item, depth + 1) for _ in range(right) for item in left)
        except (ArithmeticError, ValueError):
            pass
        raise _CannotRead

    def _item(self, container: Any, key: Any, depth: int) -> Any:
        try:
            if isinstance(container, (dict, list, tuple)):
                return self.copied(container[key], depth)
        except (KeyError, IndexError, TypeError):
            pass
        raise _CannotRead

    def _attribute(self, container: Any, name: str, depth: int) -> Any:
        """`base.key` of a dict, or a name in an imported module."""
        if isinstance(container, dict):
            return self._item(container, name, depth)
        if isinstance(container, str) and container in self.classes.values():
            return f"{container}.{name}"
        raise _CannotRead

    def _text(self, node: ast.expr, path: str, depth: int) -> str:
        """A part of an f-string: text, or a number or string without a format."""
        if isinstance(node, ast.FormattedValue) and node.conversion == -1 and node.format_spec is None:
            node = node.value
        value = self._whole(node, path, depth)
        if not isinstance(value, (str, int, float)):
            raise _CannotRead
        return str(value)

    # Bounds

    def _count(self, depth: int, number: int = 1) -> None:
        """Count more values."""
        self.count += number
        if self.count > MAX_VALUES:
            raise DetError(f"{self.where}: not readable as a configuration: more than {MAX_VALUES} values")
        if depth > MAX_DEPTH:
            raise DetError(f"{self.where}: not readable as a configuration: nested too deep")

    def copied(self, value: Any, depth: int) -> Any:
        """A copy of a value, so that no two places share one; counts all that it contains."""
        self._count(depth)
        if isinstance(value, dict):
            made = PlacedDict(((key, self.copied(inner, depth + 1)) for key, inner in value.items()))
            if isinstance(value, PlacedDict):
                made.places, made.merges = dict(value.places), value.merges
            return made
        if isinstance(value, (list, tuple)):
            return type(value)(self.copied(inner, depth + 1) for inner in value)
        return value

    def _bounded(self, value: Any) -> Any:
        """A computed value, counted."""
        self._count(0, len(value) // CHARS if isinstance(value, str) else len(value))
        return value


def _sign(op: ast.unaryop, value: Any) -> Any:
    if isinstance(op, ast.Not):
        return not value
    if isinstance(value, (int, float)) and isinstance(op, (ast.USub, ast.UAdd)):
        return -value if isinstance(op, ast.USub) else value
    raise _CannotRead


def _number(op: ast.operator, left: float, right: float) -> float:
    """Arithmetic with bounded results: `9**9**9` is refused before it is computed."""
    if type(op) not in _OPERATORS or (isinstance(op, ast.Pow) and (abs(right) > MAX_BITS or abs(left) > 1e6)):
        raise _CannotRead
    result = _OPERATORS[type(op)](left, right)
    if not isinstance(result, (int, float)) or (isinstance(result, int) and result.bit_length() > MAX_BITS):
        raise _CannotRead
    return result
