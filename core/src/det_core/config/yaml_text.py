"""YAML text to plain data and back, with PyYAML's safe loader and dumper."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from det_core.errors import DetError
from det_core.settings import show
from det_core.text_files import read_text

MAX_NODES = 1_000_000  # values in a file, each alias counted as what it stands for


class _Loader(yaml.SafeLoader):
    """The safe loader, except that `1e-4` is a number and a duplicate key is an error, unlike in YAML 1.1."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, OverflowError, TypeError, AttributeError, KeyError):  # 0x_, 2001-99-99, !!int x
            kind = node.tag.rpartition(":")[2]
            what = f"found {show(node.value)}, which cannot be read as {kind}; put it in quotes if it is text"
            raise yaml.constructor.ConstructorError(None, None, what, node.start_mark) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, (str, int, float, bool)):
                if key in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {key!r} is given twice", key_node.start_mark
                    )
                seen.add(key)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Block style, with lists of scalars in flow style, and without aliases."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _represent_list(dumper: yaml.SafeDumper, value: list[Any]) -> yaml.Node:
    flat = all(isinstance(v, (int, float, str, bool)) or v is None for v in value)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=flat)


_Dumper.add_representer(list, _represent_list)
# The dumper needs the resolver too, so that it quotes text that looks like such a number.
for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)$"),
        list("-+0123456789."),
    )


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that contains a mapping; DetError with file, line and reason otherwise."""
    if path.suffix == ".py":
        raise DetError(_foreign(path, "a configuration in Python"))
    value = parse_yaml(read_text(path), str(path))
    if isinstance(value, dict) and isinstance(value.get("MODEL"), dict):
        raise DetError(_foreign(path, "a configuration of detectron2"))
    if not isinstance(value, dict):
        found = "nothing" if value is None else type(value).__name__
        raise DetError(f"{path}: found {found}, expected a mapping of recipe keys (detector:, data:, schedule: ...)")
    return value


def _foreign(path: Path, what: str) -> str:
    return f"{path}: {what}, not a recipe; make one of it: det-core import-config {path} -o mine.yaml"


def key_lines(path: Path) -> dict[str, int]:
    """The line, from 1, of each key and list item of a YAML file that `read_yaml` reads, by its dotted path."""
    root = yaml.compose(read_text(path), _Loader)
    return {} if root is None else dict(_lines(root, ""))


def _lines(node: yaml.Node, path: str) -> Iterator[tuple[str, int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                inner = f"{path}.{key.value}" if path else key.value
                yield inner, key.start_mark.line + 1
                yield from _lines(value, inner)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield f"{path}[{index}]", value.start_mark.line + 1
            yield from _lines(value, f"{path}[{index}]")


class _TagFreeLoader(_Loader):
    """Takes the values of Python objects for what they are written as: a mapping, a list or text. Makes no object."""

    def construct_python(self, suffix: str, node: yaml.Node) -> Any:
        if isinstance(node, yaml.MappingNode):
            found = self.construct_mapping(node, deep=True)
            return found.get("dictitems", found)  # of a subclass of dict
        if isinstance(node, yaml.SequenceNode):
            return self.construct_sequence(node, deep=True)
        return node.value


_TagFreeLoader.add_multi_constructor("tag:yaml.org,2002:python/", _TagFreeLoader.construct_python)


def parse_yaml(text: str, where: str, *, python_tags: bool = False) -> Any:
    """Plain data from YAML text; DetError with line and column if it is not valid YAML.

    python_tags: read what is written of a Python object, which is otherwise refused; it is never made.
    """
    try:
        loader = (_TagFreeLoader if python_tags else _Loader)(text)
        try:
            node = loader.get_single_node()
            _check_aliases(node)
            return None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except RecursionError:
        raise DetError(f"{where}: not valid YAML: nested too deep; expected at most some hundred levels") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise DetError(f"{where}{place}: not valid YAML: {getattr(error, 'problem', None) or error}") from None


def _check_aliases(root: yaml.Node | None) -> None:
    """Raise an error if an alias (`*name`) is in what it names, or aliases repeat more than `MAX_NODES` values."""
    sizes: dict[int, int] = {}  # of each node with all that its aliases stand for; 0 while its children are counted

    def size(node: yaml.Node) -> int:
        if id(node) not in sizes:
            sizes[id(node)] = 0
            children = node.value if isinstance(node, yaml.CollectionNode) else []
            parts = [part for child in children for part in (child if isinstance(child, tuple) else (child,))]
            sizes[id(node)] = 1 + sum(map(size, parts))
        elif not sizes[id(node)]:
            raise yaml.constructor.ConstructorError(None, None, "an alias is in what it names", node.start_mark)
        if sizes[id(node)] > MAX_NODES:
            what = f"aliases repeat it to more than {MAX_NODES} values"
            raise yaml.constructor.ConstructorError(None, None, what, node.start_mark)
        return sizes[id(node)]

    if root is not None:
        size(root)


def to_yaml(plain: object) -> str:
    """Plain data as YAML: keys keep their order, and lists of scalars are on one line."""
    return yaml.dump(plain, Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True)
