"""YAML in and out, `extends`, and `--set path=value`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from det_core.config.base import ConfigError, DetError, Problem


class _Loader(yaml.SafeLoader):
    """The safe loader, with two of YAML 1.1's traps closed: `1e-4` is a number, and a key given twice an error."""

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
    """Block style, but lists of plain values in flow style; floats in a form that reads back as floats."""

    def ignore_aliases(self, data: object) -> bool:
        return True


# Reader and writer must agree on it: text that looks like such a number is then written in quotes.
for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)$"),
        list("-+0123456789."),
    )


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping; DetError with file, line and reason otherwise."""
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
    """Plain data from YAML text; DetError with line and column otherwise."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a subclass of SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise DetError(f"{where}{place}: not valid YAML: {getattr(error, 'problem', None) or error}") from None


def to_yaml(plain: object) -> str:
    """Plain data as YAML, in its own order, short lists on one line."""
    return yaml.dump(plain, Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True)


def _represent_list(dumper: yaml.SafeDumper, value: list[Any]) -> yaml.Node:
    flat = all(isinstance(v, (int, float, str, bool)) or v is None for v in value)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=flat)


_Dumper.add_representer(list, _represent_list)


def merge(base: Any, over: Any) -> Any:
    """`over` laid on `base`: mappings merge key by key, all else is replaced whole.

    A mapping whose `type` differs from the base's replaces it, so that no field of the old part stays behind.
    """
    if not isinstance(base, Mapping) or not isinstance(over, Mapping):
        return over
    if "type" in over and over["type"] != base.get("type", over["type"]):
        return dict(over)
    return {**base, **{k: merge(base[k], v) if k in base else v for k, v in over.items()}}


_NAME = r"[A-Za-z_][\w-]*"
_PATH = re.compile(rf"{_NAME}(?:\.{_NAME}|\[\d+\])*")
_STEP = re.compile(rf"({_NAME})|\[(\d+)\]")


def parse_override(text: str) -> tuple[list[str | int], Any]:
    """`a.b[2].c=value` as path and value (read as YAML); ConfigError if it has another form."""
    path, equals, value = text.partition("=")
    path = path.strip()
    if not equals or not _PATH.fullmatch(path):
        raise _problem(f"--set {text!r}: expected path=value, such as detector.backbone.depth=101")
    steps: list[str | int] = [match[1] or int(match[2]) for match in _STEP.finditer(path)]
    return steps, parse_yaml(value, f"--set {path}")


def _problem(message: str) -> ConfigError:
    return ConfigError.at("", message)


def apply_overrides(plain: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Plain data with each `path=value` laid on it, in order; unknown keys are left for the converter to report.

    Raises ConfigError with the problems of all overrides whose path cannot be followed.
    """
    problems: list[Problem] = []
    for text in overrides:
        try:
            steps, value = parse_override(text)
            plain = _assign(plain, steps, value, text)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return plain


def _kind(node: Any) -> str:
    names = {
        dict: "a mapping",
        list: "a list",
        str: "a text",
        int: "a number",
        float: "a number",
        bool: "true or false",
    }
    return names.get(type(node), "nothing")


def _assign(node: Any, steps: list[str | int], value: Any, text: str) -> Any:
    step, rest = steps[0], steps[1:]
    if isinstance(step, int):
        if not isinstance(node, list) or step >= len(node):
            size = f"a list of {len(node)}" if isinstance(node, list) else _kind(node)
            raise _problem(f"--set {text!r}: no item [{step}] in {size}")
        return [
            _assign(item, rest, value, text) if rest and i == step else (value if i == step else item)
            for i, item in enumerate(node)
        ]
    if node is not None and not isinstance(node, Mapping):
        raise _problem(f"--set {text!r}: {step!r} is asked of {_kind(node)}, not of a mapping")
    node = dict(node or {})
    if not rest and step == "type":
        return merge(node, {"type": value})
    node[step] = merge(node.get(step), value) if not rest else _assign(node.get(step), rest, value, text)
    return node
