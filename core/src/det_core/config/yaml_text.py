"""YAML text to plain data and back, with PyYAML's safe loader and dumper."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from det_core.errors import DetError


class _Loader(yaml.SafeLoader):
    """The safe loader, except that `1e-4` is a number and a duplicate key is an error, unlike in YAML 1.1."""

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
    try:
        text = path.read_text(encoding="utf8")
    except FileNotFoundError:
        raise DetError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DetError(f"{path}: cannot be read: {error}") from None
    value = parse_yaml(text, str(path))
    if not isinstance(value, dict):
        found = "nothing" if value is None else type(value).__name__
        raise DetError(f"{path}: found {found}, expected a mapping of recipe keys (detector:, data:, schedule: ...)")
    return value


def parse_yaml(text: str, where: str) -> Any:
    """Plain data from YAML text; DetError with line and column if it is not valid YAML."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a subclass of SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise DetError(f"{where}{place}: not valid YAML: {getattr(error, 'problem', None) or error}") from None


def to_yaml(plain: object) -> str:
    """Plain data as YAML: keys keep their order, and lists of scalars are on one line."""
    return yaml.dump(plain, Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True)
