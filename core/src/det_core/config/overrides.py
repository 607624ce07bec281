"""Changes to plain data: `extends`, and `--set path=value`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from det_core.config.yaml_text import parse_yaml
from det_core.errors import ConfigError, Problem
from det_core.settings import fail


def merge(base: Any, over: Any) -> Any:
    """`base` updated with `over`: mappings merge recursively, all other values are replaced.

    A mapping with another `type` than the base's replaces it, since the fields of the old part no longer apply.
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
    """Split `a.b[2].c=value` into path and value (parsed as YAML); ConfigError if it has another form."""
    path, equals, value = text.partition("=")
    path = path.strip()
    if not equals or not _PATH.fullmatch(path):
        raise fail(f"--set {text!r}: expected path=value, such as detector.backbone.depth=101")
    steps: list[str | int] = [match[1] or int(match[2]) for match in _STEP.finditer(path)]
    return steps, parse_yaml(value, f"--set {path}")


def apply_overrides(plain: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Plain data with each `path=value` set, in order. The converter reports unknown keys later.

    Raises ConfigError with the problems of all overrides whose path does not exist.
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


def _type_in_words(node: Any) -> str:
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
            size = f"a list of {len(node)}" if isinstance(node, list) else _type_in_words(node)
            raise fail(f"--set {text!r}: no item [{step}] in {size}")
        return [
            _assign(item, rest, value, text) if rest and i == step else (value if i == step else item)
            for i, item in enumerate(node)
        ]
    if node is not None and not isinstance(node, Mapping):
        raise fail(f"--set {text!r}: no key {step!r} in {_type_in_words(node)}")
    node = dict(node or {})
    if not rest and step == "type":
        return merge(node, {"type": value})
    node[step] = merge(node.get(step), value) if not rest else _assign(node.get(step), rest, value, text)
    return node
