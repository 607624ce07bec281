"""Configuration files of detectron2 (YAML, read with yacs there) with their `_BASE_` chains, as plain values."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from det_core.config.yaml_text import key_lines, parse_yaml
from det_core.errors import DetError
from det_core.text_files import read_text
from det_core.weights.mmdet_config_files import MAX_FILES, OPTIONS, ConfigFile
from det_core.weights.mmdet_values import parts
from det_core.weights.python_values import Place, PlacedDict, ValueReader

BASE = "_BASE_"
MAX_TEXT = 10_000  # characters of text that may be Python


def read_yacs_file(path: Path, options: Sequence[str] = ()) -> ConfigFile:
    """The values of a file and its bases, which it overrides key by key. Nothing in them is run.

    Text that detectron2 reads as Python (`"(640, 672)"`, `!!python/object/apply:eval` of one list) becomes the value
    that is written there.

    Args:
        path: a YAML file.
        options: changes, each `KEY=VALUE` with a dotted key.

    Raises:
        DetError: if a file is missing, no YAML, not a mapping, its own base, or has a base at an address; if an
            option does not fit.
    """
    opened: list[Path] = []
    values = _read(path, (), opened)
    for option in options:
        _apply_option(values, option)
    return ConfigFile(values, (), tuple(dict.fromkeys(reversed(opened))))


def _read(path: Path, above: tuple[Path, ...], opened: list[Path], said: str = "") -> PlacedDict:
    real = path.resolve()
    if real in above:
        raise DetError(f"{said}{path}: is its own base: {' -> '.join(p.name for p in (*above, real))}")
    opened.append(path)
    if len(opened) > MAX_FILES:
        raise DetError(f"{path}: the configuration has more than {MAX_FILES} base files")
    found = parse_yaml(read_text(path, said), str(path), python_tags=True)
    if not isinstance(found, Mapping):
        raise DetError(f"{path}: not a configuration of detectron2, which is a mapping with MODEL, SOLVER and so on")
    lines = key_lines(path)
    own = _placed(found, str(path), lines, "")
    values = PlacedDict()
    bases = own.pop(BASE, None)
    for base in parts(bases):
        where = f"{path}:{lines.get(BASE, 0)}: {BASE}: "
        _merge(values, _read(_base_path(base, path, where), (*above, real), opened, where))
    _merge(values, own)
    return values


def _base_path(base: Any, path: Path, where: str) -> Path:
    if not isinstance(base, str) or "://" in base or not base.isprintable():
        raise DetError(f"{where}{base!r} is not a file; give its path, relative to the configuration")
    return path.parent / Path(base).expanduser()


def _placed(value: Mapping[Any, Any], file: str, lines: Mapping[str, int], path: str) -> PlacedDict:
    """The values as `PlacedDict`s, with text read as the Python that it is."""
    made = PlacedDict()
    for key, inner in value.items():
        below = f"{path}.{key}" if path else str(key)
        made[key] = _placed(inner, file, lines, below) if isinstance(inner, Mapping) else read_value(inner, below)
        made.places[key] = Place(file, lines.get(below, 0))
    return made


def _merge(values: PlacedDict, other: PlacedDict) -> None:
    for key, value in other.items():
        old = values.get(key)
        if isinstance(old, PlacedDict) and isinstance(value, PlacedDict):
            _merge(old, value)
        else:
            values[key] = value
            values.places[key] = other.places[key]


def read_value(value: Any, path: str) -> Any:
    """A value with the Python literals in its text read, as yacs does it; tuples are lists."""
    if isinstance(value, str):
        return _literal(value, path)
    if isinstance(value, list):
        if len(value) == 1 and isinstance(value[0], str) and " for " in value[0]:
            return _literal(value[0], path)  # the argument of `!!python/object/apply:eval`
        return [read_value(item, path) for item in value]
    return value


def _literal(text: str, path: str) -> Any:
    """The value of text that is a Python literal, or one list with `for`; any other text is itself."""
    if len(text) > MAX_TEXT:
        return text
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return text
    if not isinstance(tree, (ast.Tuple, ast.List, ast.ListComp, ast.Constant, ast.UnaryOp, ast.BinOp)):
        return text
    reader = ValueReader(path)
    reader.start(text.strip())
    found = reader.value(tree, path)
    return text if reader.unread else _lists(found)


def _lists(value: Any) -> Any:
    return [_lists(item) for item in value] if isinstance(value, (list, tuple)) else value


def _apply_option(values: PlacedDict, option: str) -> None:
    key, equals, text = option.partition("=")
    if not equals or not re.fullmatch(r"\w+(\.\w+)*", key):
        raise DetError(f"{OPTIONS} {option!r}: expected KEY=VALUE, such as SOLVER.IMS_PER_BATCH=8")
    where = f"{OPTIONS} {option}"
    value = read_value(parse_yaml(text, where), key)
    *above, last = key.split(".")
    node = values
    for number, step in enumerate(above):
        inner = node.setdefault(step, PlacedDict())
        node.places.setdefault(step, Place(OPTIONS, 0))
        if not isinstance(inner, PlacedDict):
            raise DetError(f"{where}: {'.'.join(above[: number + 1])} is {inner!r}, which has no keys")
        node = inner
    node[last] = value
    node.places[last] = Place(OPTIONS, 0)
