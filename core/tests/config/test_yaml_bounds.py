"""YAML that is well formed but cannot be a value, and YAML that would take all time or memory."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest

from det_core.config.yaml_text import parse_yaml
from det_core.errors import DetError

LEVELS = "abcdefghijkl"
BOMB = "\n".join(
    [f"a: &a [{', '.join('x' * 9)}]"]
    + [f"{now}: &{now} [{', '.join([f'*{before}'] * 9)}]" for before, now in pairwise(LEVELS)]
)
CASES = [
    ("a: 2001-99-99", r"f\.yaml:1:4: not valid YAML: found '2001-99-99', which cannot be read as timestamp; put it in"),
    ("a: 2001-01-01T99:99:99", "cannot be read as timestamp"),
    ("a: 0x_", "found '0x_', which cannot be read as int"),
    ("a: 0b_", "found '0b_', which cannot be read as int"),
    ("a: !!int x", "found 'x', which cannot be read as int"),
    ("a: !!bool x", "found 'x', which cannot be read as bool"),
    ("b: 1\na: " + "9" * 5000, r"f\.yaml:2:4: not valid YAML: found '9+\.\.\., which cannot be read as int"),
    ("[" * 3000 + "]" * 3000, "f.yaml: not valid YAML: nested too deep"),
    ("{a: " * 3000 + "}" * 3000, "nested too deep"),
    (BOMB, r"f\.yaml:7:4: not valid YAML: aliases repeat it to more than 1000000 values"),
    ("a: &x [*x]", "an alias is in what it names"),
    ("a: &x {b: *x}", "an alias is in what it names"),
    ("? [a]\n: b", "found unhashable key"),
    ("<<: 3", "not valid YAML"),
]


@pytest.mark.parametrize(("text", "message"), CASES, ids=range(len(CASES)))
def test_what_cannot_be_read(text: str, message: str) -> None:
    began = time.monotonic()
    with pytest.raises(DetError, match=message):
        parse_yaml(text, "f.yaml")
    assert time.monotonic() - began < 20  # a bomb of twelve levels has 10**11 values


def test_aliases_are_kept() -> None:
    assert parse_yaml("a: &x [1, 2]\nb: *x", "f.yaml") == {"a": [1, 2], "b": [1, 2]}


def test_an_empty_type_is_unknown() -> None:
    from det_core.load import load_recipe

    with pytest.raises(DetError, match=r"detector\.backbone\.type: unknown type ''"):
        load_recipe("rpn/r18-fpn-demo", ["detector.backbone={type: ''}"])
