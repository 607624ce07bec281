"""Configuration files of mmdetection with their bases, as plain values; none of them is run.

Bases are named by `_base_` (a file or a list of files, relative to the file) or, in the style of Python modules,
imported in `with read_base():`. A file may use values of its bases as `{{_base_.key}}` and `_base_.key`, and its own
name as `{{ fileDirname }}` and the like.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from det_core.errors import DetError
from det_core.text_files import read_text
from det_core.weights.mmdet_config import MAX_CHARS, StatementReader, merged, parsed_module
from det_core.weights.mmdet_values import at
from det_core.weights.python_values import Place, PlacedDict, Unread, ValueReader

MAX_FILES = 100  # of a configuration, a file that several name counted each time
OPTIONS = "--cfg-options"
_FILE_WORD = re.compile(r"\{\{[ \t]*(fileDirname|fileBasename|fileBasenameNoExtension|fileExtname)[ \t]*\}\}")
_BASE_WORD = re.compile(r"\{\{[ \t]*_base_\.([\w.]+)[ \t]*\}\}")
_TOKEN = re.compile(r"__base_value_\d+__")


@frozen(eq=False)
class ConfigFile:
    """A configuration with the values of its bases.

    values: as of `ParsedConfig`; its dicts have the place of each key. unread: what could not be read, with its file.
    files: all that were read, bases first.
    """

    values: PlacedDict
    unread: tuple[Unread, ...]
    files: tuple[Path, ...]


def read_config_file(path: Path, options: Sequence[str] = ()) -> ConfigFile:
    """The values of a configuration file; nothing in it, or in its bases, is run.

    Args:
        path: a Python file of mmdetection 0.5 to 3.x.
        options: changes, each `KEY=VALUE` with a dotted key, as `--cfg-options` of mmdetection has them.

    Raises:
        DetError: if a file is missing, too long, no Python, or its own base; if two bases define one name; if a
            value of a base is not there; if an option does not fit.
    """
    files = _Files()
    values = files.read(path, ())
    for option in options:
        _apply_option(values, option)
    return ConfigFile(values, tuple(files.unread), tuple(files.read_files))


class _Files:
    """Reads a file and its bases."""

    def __init__(self) -> None:
        self.unread: list[Unread] = []
        self.read_files: list[Path] = []
        self.count = 0  # of values, of all files
        self.opened = 0

    def read(self, path: Path, above: tuple[Path, ...], said: str = "") -> PlacedDict:
        """The values of a file. above: the files that it is a base of. said: where it is named, for messages."""
        real = path.resolve()
        if real in above:
            raise DetError(f"{said}{path}: is its own base: {' -> '.join(p.name for p in (*above, real))}")
        self.opened += 1
        if self.opened > MAX_FILES:
            raise DetError(f"{path}: the configuration has more than {MAX_FILES} base files")
        text = _file_words(_text(path, said), path)
        tree = parsed_module(_BASE_WORD.sub("0", text), str(path))
        chain = (*above, real)
        base = self._bases(path, tree, chain)

        def read_base(node: ast.ImportFrom) -> PlacedDict:
            place = f"{path}:{node.lineno}: "
            found = self.read(_module_file(path, node, place), chain, place)
            _mark(found)
            reader.values.count = self.count
            return found

        reader = _Reader(str(path), read_base)
        reader.values.count = self.count
        given: dict[str, Any] = {"_base_": base} if base is not None else {}
        own = reader.read(_base_words(text, base, path, given), str(path), given)
        self.count = reader.values.count
        self.unread += reader.values.unread
        self.read_files.append(path)
        return own if base is None else merged(base, own)

    def _bases(self, path: Path, tree: ast.Module, chain: tuple[Path, ...]) -> PlacedDict | None:
        """The merged values of the files that `_base_` names; None if there is no `_base_`."""
        node = next((n for n in tree.body if _is_base(n)), None)
        if node is None:
            return None
        assert isinstance(node, ast.Assign)
        place = f"{path}:{node.lineno}: _base_: "
        reader = ValueReader(str(path))
        found = reader.value(node.value, "_base_")
        names = [found] if isinstance(found, str) else found
        if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
            raise DetError(f"{place}expected the name of a file, or a list of names, without anything to compute")
        result = PlacedDict(merges=True)
        for name in names:
            if "::" in name:
                raise DetError(f"{place}{name}: is in a package; only files are read, so give the file's path")
            values = self.read(path.parent / name, chain, place)
            both = [key for key in values if key in result]
            if both:
                raise DetError(f"{place}{name}: defines {', '.join(both)}, and so does another base; bases must differ")
            result = merged(result, values)
        _mark(result)
        return result


class _Reader(StatementReader):
    """Reads a file in which placeholders stand for values of its bases."""

    def parse(self, text: str) -> ast.Module:
        tree = super().parse(text)
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and _TOKEN.search(node.value):
                node.value = _TOKEN.sub(lambda found: str(self.tokens[found[0]]), node.value)
        return tree

    tokens: Mapping[str, Any] = {}

    def read(self, text: str, file: str = "", given: Mapping[str, Any] | None = None) -> PlacedDict:
        self.tokens = given or {}
        return super().read(text, file, given)


def _is_base(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "_base_" for t in node.targets)


def _mark(value: Any) -> None:
    """Let all dicts of a base merge when they are updated."""
    if isinstance(value, PlacedDict):
        value.merges = True
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ():
        _mark(inner)


def _text(path: Path, said: str) -> str:
    text = read_text(path, said, 4 * MAX_CHARS)
    if len(text) > MAX_CHARS:
        raise DetError(f"{said}{path}: {len(text)} characters; a configuration has at most {MAX_CHARS}")
    return text


def _file_words(text: str, path: Path) -> str:
    """The text with the words for its own name replaced."""
    words = {
        "fileDirname": path.resolve().parent.as_posix(),
        "fileBasename": path.name,
        "fileBasenameNoExtension": path.stem,
        "fileExtname": path.suffix,
    }
    return _FILE_WORD.sub(lambda found: words[found[1]], text)


def _base_words(text: str, base: PlacedDict | None, path: Path, given: dict[str, Any]) -> str:
    """The text with placeholders for values of its bases, which are added to `given`."""

    def placeholder(found: re.Match[str]) -> str:
        value = at(base, found[1])
        if value is None and not _there(base, found[1]):
            line = text.count("\n", 0, found.start()) + 1
            raise DetError(f"{path}:{line}: {found[0]}: its bases define no such value")
        name = f"__base_value_{len(given)}__"
        given[name] = value
        return name

    return _BASE_WORD.sub(placeholder, text)


def _there(values: Any, path: str) -> bool:
    above, _, last = path.rpartition(".")
    inner = at(values, above) if above else values
    return isinstance(inner, Mapping) and last in inner


def _module_file(path: Path, node: ast.ImportFrom, place: str) -> Path:
    """The file of `from ..package.module import ...` in a file."""
    if not node.level or not node.module:
        raise DetError(
            f"{place}from {node.module} import: is in a package; only files are read, so write a relative import, such "
            "as `from .base import *`"
        )
    folder = path.resolve().parent
    for _ in range(node.level - 1):
        folder = folder.parent
    return folder.joinpath(*node.module.split(".")).with_suffix(".py")


# --cfg-options


def _apply_option(values: PlacedDict, option: str) -> None:
    """Set `key.key=value` in the values; a whole number is an item of a list."""
    key, equals, text = option.partition("=")
    steps = [step for step in re.split(r"[.\[\]]+", key.strip()) if step]
    if not equals or not steps:
        raise DetError(f"{OPTIONS} {option!r}: expected KEY=VALUE, such as data.samples_per_gpu=4")
    node: Any = values
    for number, step in enumerate(steps):
        last = number == len(steps) - 1
        if isinstance(node, list):
            if not step.isdecimal() or int(step) >= len(node):
                raise DetError(f"{OPTIONS} {option!r}: no item {step!r} in a list of {len(node)}")
            if last:
                node[int(step)] = _option_value(text)
            node = node[int(step)]
            continue
        if not isinstance(node, dict):
            raise DetError(f"{OPTIONS} {option!r}: {'.'.join(steps[:number])} is {node!r}, which has no key {step!r}")
        if last:
            node[step] = _option_value(text)
            if isinstance(node, PlacedDict):
                node.places[step] = Place(OPTIONS, 0)
        else:
            if node.get(step) is None:
                node[step] = PlacedDict()
            node = node[step]


def _option_value(text: str) -> Any:
    """The value of an option: a number, true or false, none, a list, or text."""
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    reader = ValueReader(OPTIONS)
    reader.start(text)
    try:
        found = reader.value(ast.parse(text.strip(), mode="eval").body, "")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        found = Unread("", text, 0)
    if not isinstance(found, Unread) and not reader.unread:
        return list(found) if isinstance(found, tuple) and not text.lstrip().startswith("(") else found
    return [_option_value(part) for part in text.split(",")] if "," in text and text[:1] not in "[(" else text
