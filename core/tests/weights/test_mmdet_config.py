"""Configurations of mmdetection from their text: what is read, what is listed as unread, what is refused."""

from __future__ import annotations

import builtins
import os
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, strategies as st

from det_core.errors import DetError
from det_core.weights.mmdet_config import MAX_CHARS, merged, parse_config
from det_core.weights.python_values import MAX_VALUES, Unread


def values(text: str) -> Any:
    """The values of a text that can be read completely."""
    parsed = parse_config(text, "x.py")
    assert parsed.unread == ()
    return parsed.values


def refused(text: str) -> str:
    with pytest.raises(DetError) as caught:
        parse_config(text, "x.py")
    return str(caught.value)


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("None", None),
        ("True", True),
        ("12", 12),
        ("-1", -1),
        ("+2.5e-3", 0.0025),
        ("'a' 'b'", "ab"),
        ("[1, (2, 3), []]", [1, (2, 3), []]),
        ("(2, )", (2,)),
        ("dict()", {}),
        ("dict(a=1, b=dict(c=[dict(d=None)]))", {"a": 1, "b": {"c": [{"d": None}]}}),
        ("{'a': 1, 2: 'b'}", {"a": 1, 2: "b"}),
        ("dict(dict(a=1), b=2)", {"a": 1, "b": 2}),
        ("1 / 9.0", 1 / 9),
        ("1.0 / 3 * 2 - 1 + 2 ** 3", 1.0 / 3 * 2 - 1 + 8),
        ("7 // 2 % 2", 1),
        ("not True", False),
        ("'data/' + 'coco/'", "data/coco/"),
        ("[1] + [2]", [1, 2]),
        ("[256] * 3", [256, 256, 256]),
        ("[*(1, 2), 3]", [1, 2, 3]),
        ("tuple([1, 2])", (1, 2)),
        ("list((1, 2))", [1, 2]),
        ("float('inf')", float("inf")),
        ("int(2.5)", 2),
        ("f'a/{1}/{\"b\"}'", "a/1/b"),
        ("[10, 20][-1]", 20),
        ("dict(a=(1, 2))['a'][1]", 2),
        ("[2 * n for n in (1, 2)]", [2, 4]),
        ("[dict(a=[n]) for n in [3]]", [{"a": [3]}]),
        ("[[n for n in [m, 2 * m]] for m in [1, 2]]", [[1, 2], [2, 4]]),
    ],
)
def test_an_expression(source, value):
    found = values(f"x = {source}")["x"]
    assert found == value
    assert type(found) is type(value)


def test_names_stand_for_their_values():
    text = """
norm = dict(mean=[123.675, 116.28], to_rgb=True)
root = 'data/'
data = dict(
    pipeline=[dict(type='Normalize', **norm), dict(type='Pad', size_divisor=32)],
    mean=norm['mean'],
    file=root + 'a.json',
    norm=norm)
norm['mean'][0] = 0
norm['std'] = [1]
epochs: int = 12
epochs += 1
a = b = []
"""
    found = values(text)
    assert found["data"] == {
        "pipeline": [
            {"type": "Normalize", "mean": [123.675, 116.28], "to_rgb": True},
            {"type": "Pad", "size_divisor": 32},
        ],
        "mean": [123.675, 116.28],
        "file": "data/a.json",
        "norm": {"mean": [123.675, 116.28], "to_rgb": True},
    }
    assert found["norm"] == {"mean": [0, 116.28], "to_rgb": True, "std": [1]}
    assert found["epochs"] == 13
    assert (found["a"], found["b"]) == ([], [])


def test_the_name_of_a_loop_in_a_list_is_its_own():
    assert values("n = 1\nx = [n for n in [2, 3]]\ny = n") == {"n": 1, "x": [2, 3], "y": 1}
    assert parse_config("x = [n for n in [2]]\ny = n", "x.py").unread == (Unread("y", "n", 2),)


def test_what_is_not_part_of_the_configuration():
    text = '"""A title."""\n# a comment\n__all__ = 1\npass\nx = 1\n'
    assert values(text) == {"x": 1}


def test_bases_and_imports_are_recorded_and_not_followed():
    text = """
_base_ = ['../a.py', 'b.py']
import os.path as path
from mmdet.models import RPN
with read_base():
    from .._base_.default_runtime import *
x = 1
"""
    parsed = parse_config(text, "x.py")
    assert parsed.values == {"x": 1}
    assert parsed.bases == ("from .._base_.default_runtime import *", "../a.py", "b.py")
    assert parsed.imports == ("import os.path as path", "from mmdet.models import RPN")
    assert parse_config("_base_ = 'a.py'", "x.py").bases == ("a.py",)


@pytest.mark.parametrize(
    ("text", "path", "source", "line"),
    [
        ("x = 1\nids = range(8)", "ids", "range(8)", 2),
        ("model = dict(\n    a=dict(depth=depth()))", "model.a.depth", "depth()", 2),
        ("x = [1, 2 if y else 3]", "x[1]", "2 if y else 3", 1),
        ("x = dict(a=1, **other)", "x.**", "other", 1),
        ("x = dict(a=1, **[2])", "x.**", "[2]", 1),
        ("x = unknown", "x", "unknown", 1),
        ("x = 'é' + open('secret').read()", "x", "'é' + open('secret').read()", 1),
        ("x = [i for i in y]", "x", "[i for i in y]", 1),
        ("x = [i for i in [1] if i]", "x", "[i for i in [1] if i]", 1),
        ("x = [i for i, j in [(1, 2)]]", "x", "[i for i, j in [(1, 2)]]", 1),
        ("x = [i for i in [1] for j in [2]]", "x", "[i for i in [1] for j in [2]]", 1),
        ("x = [f(i) for i in [1]]", "x[0]", "f(i)", 1),
        ("x = {i for i in [1]}", "x", "{i for i in [1]}", 1),
        ("x = lambda: 1", "x", "lambda: 1", 1),
        ("x = b'a'", "x", "b'a'", 1),
        ("x = 1j", "x", "1j", 1),
        ("x = {1, 2}", "x", "{1, 2}", 1),
        ("x = 1 / 0", "x", "1 / 0", 1),
        ("x = (-1) ** 0.5", "x", "(-1) ** 0.5", 1),
        ("x = 9 ** 9 ** 9", "x", "9 ** 9 ** 9", 1),
        ("x = 1 << 9", "x", "1 << 9", 1),
        ("x = 'a' * 9", "x", "'a' * 9", 1),
        ("x = 'a' + 1", "x", "'a' + 1", 1),
        ("x = [1][5]", "x", "[1][5]", 1),
        ("x = [1, 2][0:1]", "x", "[1, 2][0:1]", 1),
        ("x = 'abc'[0]", "x", "'abc'[0]", 1),
        ("x = -'a'", "x", "-'a'", 1),
        ("x = ~1", "x", "~1", 1),
        ("x = list('ab')", "x", "list('ab')", 1),
        ("x = float('a')", "x", "float('a')", 1),
        ("x = int('9' + 'e9')", "x", "int('9' + 'e9')", 1),
        ("x = dict([('a', 1)])", "x", "dict([('a', 1)])", 1),
        ("x = f'{1:03d}'", "x", "f'{1:03d}'", 1),
        ("x = f'{[1]}'", "x", "f'{[1]}'", 1),
        ("x = '{}'.format(1)", "x", "'{}'.format(1)", 1),
        ("x = {{_base_.x}}", "x", "{{_base_.x}}", 1),
        ("x = [y] + [1]\ny = 2", "x", "[y] + [1]", 1),
        ("x = foo(\n  1)", "x", "foo( ...", 1),
        ("x = foo('" + "a" * 200 + "')", "x", "foo('" + "a" * 95 + " ...", 1),
        ("model.depth = 3", "", "model.depth = 3", 1),
        ("a, b = 1, 2", "", "a, b = 1, 2", 1),
        ("if x:\n    y = 1", "", "if x: ...", 1),
        ("def f():\n    pass", "", "def f(): ...", 1),
        ("print('x')", "", "print('x')", 1),
        ("del x", "", "del x", 1),
        ("x += 1", "", "x += 1", 1),
        ("x['a'] = 1", "x.a", "x['a'] = 1", 1),
        ("x = [1]\nx[3] = 2", "x[3]", "x[3] = 2", 2),
        ("x = (1,)\nx[0] = 2", "x[0]", "x[0] = 2", 2),
        ("x = [1]\nx[-1] = 2", "", "x[-1] = 2", 2),
        ("f().a[0] = 2", "", "f().a[0] = 2", 1),
    ],
)
def test_what_cannot_be_read_is_listed(text, path, source, line):
    parsed = parse_config(text, "x.py")
    assert parsed.unread == (Unread(path, source, line),)
    assert str(parsed.unread[0]) == f"line {line}: {f'{path} = ' if path else ''}{source}"


def test_the_rest_of_a_value_with_an_unread_part_is_kept():
    parsed = parse_config("a = dict(x=1, y=f(), z=[2, g()])\nb = dict(**a, w=a['x'])\nc = a['y']", "x.py")
    unread = [Unread("a.y", "f()", 1), Unread("a.z[1]", "g()", 1)]
    expected = {"x": 1, "y": unread[0], "z": [2, unread[1]]}
    assert parsed.values["a"] == expected
    assert parsed.values["b"] == {**expected, "w": 1}
    assert parsed.unread[:2] == tuple(unread)


def test_keys_without_quotes_are_their_source():
    """mmcv 0.6 to 1.0 writes dicts with dotted keys so."""
    assert values("x = dict(custom_keys={backbone.layer1: dict(lr_mult=0.1), 'b': 2})")["x"]["custom_keys"] == {
        "backbone.layer1": {"lr_mult": 0.1},
        "b": 2,
    }


def test_nothing_is_run(tmp_path, monkeypatch):
    mark = tmp_path / "mark"
    text = f"""
x = __import__('os').mkdir({str(mark)!r})
y = open({str(mark)!r}, 'w')
@decorator
class A:
    z = open({str(mark)!r}, 'w')
"""

    def never(*arguments: object, **settings: object) -> None:
        raise AssertionError("something was run")

    for name in ("eval", "exec", "open"):
        monkeypatch.setattr(builtins, name, never)
    monkeypatch.setattr(os, "mkdir", never)
    parsed = parse_config(text, "x.py")
    assert len(parsed.unread) == 3
    assert not mark.exists()


# Texts of several files


def test_a_text_that_starts_with_the_path_of_its_file():
    """mmcv 0.3 to 0.6 writes so, and mmdet 1.1 and 1.2 saved it."""
    parsed = parse_config("/data/a b/configs/x.py\nx = 1\ny = f()\n", "x.py")
    assert parsed.values["x"] == 1
    assert parsed.files == ("/data/a b/configs/x.py",)
    assert parsed.unread == (Unread("y", "f()", 3),)
    assert parse_config("C:\\a\\x.py\r\nx = 1\r\n", "x.py").files == ("C:\\a\\x.py",)


def test_later_files_are_merged_into_their_bases():
    text = """/a/base.py
model = dict(type='A', backbone=dict(depth=50, style='caffe'), neck=dict(a=1))
steps = [8, 11]

/a/x.py
_base_ = './base.py'
model = dict(backbone=dict(depth=101), neck=dict(_delete_=True, b=2))
steps = [1]
"""
    parsed = parse_config(text, "x.py")
    assert parsed.values == {
        "model": {"type": "A", "backbone": {"depth": 101, "style": "caffe"}, "neck": {"b": 2}},
        "steps": [1],
    }
    assert parsed.files == ("/a/base.py", "/a/x.py")
    assert parsed.bases == ("./base.py",)


def test_a_single_file_keeps_its_marks_to_delete():
    assert values("x = dict(_delete_=True, a=1)") == {"x": {"_delete_": True, "a": 1}}


def test_merging_changes_neither_side():
    base, over = {"a": {"b": 1}}, {"a": {"c": {"_delete_": True}}, "d": {"_delete_": True, "e": 1}}
    assert merged(base, over) == {"a": {"b": 1, "c": {}}, "d": {"e": 1}}
    assert base == {"a": {"b": 1}}
    assert over["a"] == {"c": {"_delete_": True}}


# Refusals


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = (", "x.py:1: not readable as a configuration in Python: '(' was never closed"),
        ("x = 1\nprint 'x'", "x.py:2: not readable as a configuration in Python: Missing parentheses in call"),
        ("\0", "x.py: not readable as a configuration in Python: source code string cannot contain null bytes"),
        ("x = '\ud800'", "x.py: not readable as a configuration in Python: 'utf-8' codec can't encode character"),
        (
            "if 1:\n\tx = 1\n        y = 2",
            "x.py:3: not readable as a configuration in Python: inconsistent use of tabs",
        ),
        ("x = " + "9" * 5000, "x.py:1: not readable as a configuration in Python: Exceeds the limit"),
    ],
)
def test_texts_that_are_not_python(text, message):
    assert refused(text).startswith(message)


def test_a_line_of_an_error_counts_all_files():
    assert refused("/a/b.py\nx = 1\n/a/c.py\nx = (\n").startswith("x.py:4: ")


def test_a_text_that_is_too_long():
    assert refused("#" * (MAX_CHARS + 1)) == "x.py: 1000001 characters; a configuration has at most 1000000"


@pytest.mark.parametrize(
    "text",
    [
        "x = " + "[" * 100 + "]" * 100,
        "x = " + "-" * 100_000 + "1",
        "x = " + "not " * 100_000 + "1",
        "x = " + "+".join(["1"] * 100_000),
        "x = a" + ".b" * 100_000,
        "x = a" + "[0]" * 100_000,
        "x = " + "dict(a=" * 90 + "1" + ")" * 90,
        "x = []\n" + "x = [x]\n" * 100,
        "x = {}\n" + "x['a'] = x\n" * 100,
        "x = 1\n" + "x = dict(a=x)\n" * 100,
    ],
)
def test_texts_that_are_nested_too_deep(text):
    assert refused(text) in (
        "x.py: not readable as a configuration: nested too deep",
        "x.py:1: not readable as a configuration in Python: too many nested parentheses",
    )


@pytest.mark.parametrize(
    "text",
    [
        "x = [0]\n" + "x = x + x\n" * 60,
        "x = [0]\n" + "x = x * 10\n" * 60,
        "x = [0] * 10 ** 9",
        "x = 'a'\n" + "x = x + x\n" * 60,
        "x = 'aaaaaaaaaa'\n" + "x = f'{x}{x}{x}{x}'\n" * 60,
        "x = [0]\n" + "x = [x, x]\n" * 50,
        "x = dict(a=0)\n" + "x = dict(a=x, b=x, c=x)\n" * 50,
        "x = [" + "0," * (MAX_VALUES + 1) + "]",
        "x = [0] * 1000\ny = [[a for a in x] for b in x]",
    ],
)
def test_texts_that_expand_to_too_many_values(text):
    assert refused(text) == "x.py: not readable as a configuration: more than 100000 values"


def test_numbers_do_not_grow_without_bound():
    parsed = parse_config("x = 3\n" + "x = x * x\n" * 100, "x.py")
    assert isinstance(parsed.values["x"], Unread)
    assert parsed.unread[0].line == 9


def test_many_unread_values_in_one_long_line_take_no_time():
    parsed = parse_config("x = [" + "a, " * 90_000 + "]", "x.py")
    assert len(parsed.unread) == 90_000


@given(st.text(st.sampled_from("x=1,()[]{}'dict\n *-+/.:#\\\"f0a_ \0\r\t\u2028é"), max_size=60))
def test_any_text_is_read_or_refused(text):
    with suppress(DetError):
        parse_config(text, "x.py")
