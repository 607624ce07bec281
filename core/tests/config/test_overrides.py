"""YAML in and out, merging, and `--set path=value`."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from det_core.config.overrides import apply_overrides, merge, parse_override
from det_core.config.yaml_text import parse_yaml, read_yaml, to_yaml
from det_core.errors import ConfigError, DetError


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "1.0e-4", "+1e-4", ".1e-3", "1.e-4"])
def test_numbers_with_exponents_are_numbers(text):
    assert parse_yaml(f"lr: {text}", "x") == {"lr": 1e-4}
    assert isinstance(parse_yaml(f"lr: {text}", "x")["lr"], float)


@pytest.mark.parametrize("text", ["e4", "1e", "r50e4x", "'1e-4'", "1e-4x"])
def test_what_only_looks_like_a_number_stays_text(text):
    assert isinstance(parse_yaml(f"a: {text}", "x")["a"], str)


def test_a_key_given_twice_is_an_error_with_line_and_column():
    with pytest.raises(DetError, match=r"^f\.yaml:3:3: not valid YAML: key 'lr' is given twice$"):
        parse_yaml("a:\n  lr: 1\n  lr: 2\n", "f.yaml")


def test_broken_yaml_is_an_error_with_line_and_column():
    with pytest.raises(DetError, match=r"^f\.yaml:2:\d+: not valid YAML: "):
        parse_yaml("a: [1,\nb: }", "f.yaml")


def test_yaml_makes_no_objects():
    with pytest.raises(DetError, match="not valid YAML: could not determine a constructor"):
        parse_yaml("a: !!python/object/apply:os.getcwd []", "f.yaml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"found nothing, expected a mapping of recipe keys \(detector:, data:"),
        (b"- 1\n- 2\n", "found list, expected a mapping"),
        (b"just text", "found str, expected a mapping"),
        (b"a: \xff", "cannot be read: "),
        (b"a: [", "not valid YAML"),
    ],
)
def test_files_that_are_no_recipes(tmp_path, content, message):
    path = tmp_path / "r.yaml"
    path.write_bytes(content)
    with pytest.raises(DetError, match=message) as caught:
        read_yaml(path)
    assert str(caught.value).startswith(str(path))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(DetError, match=r"none\.yaml: no such file"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(DetError, match="cannot be read"):
        read_yaml(tmp_path)


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_characters="\x7f\x85"), max_size=12),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("abcdefgxyz_", min_size=1, max_size=6), inner, max_size=4)
    ),
    max_leaves=12,
)


@pytest.mark.parametrize("text", ["0E0", "1e-4", "1.5e3", "+2E+1", ".5e1", "1e400"])
def test_text_that_looks_like_a_number_stays_text(text):
    assert parse_yaml(to_yaml({"name": text, "list": [text]}), "x") == {"name": text, "list": [text]}


@given(st.dictionaries(st.text("abcdefgxyz_", min_size=1, max_size=6), PLAIN, max_size=4))
def test_what_is_written_reads_back_the_same(value):
    assert parse_yaml(to_yaml(value), "x") == value


def test_written_yaml_keeps_its_order_and_puts_short_lists_on_one_line():
    text = to_yaml({"z": [1, 2], "a": [{"b": 1}], "same": [1, 2], "lr": 1e-5})
    assert text == "z: [1, 2]\na:\n- b: 1\nsame: [1, 2]\nlr: 1.0e-05\n"
    assert parse_yaml(text, "x")["lr"] == 1e-5


def test_mappings_merge_and_lists_are_replaced_whole():
    base = {"a": {"x": 1, "y": [1, 2, 3]}, "b": 2}
    assert merge(base, {"a": {"y": [9]}, "c": 3}) == {"a": {"x": 1, "y": [9]}, "b": 2, "c": 3}
    assert base == {"a": {"x": 1, "y": [1, 2, 3]}, "b": 2}
    assert merge({"a": {"x": 1}}, {"a": None}) == {"a": None}
    assert merge({"a": None}, {"a": {"x": 1}}) == {"a": {"x": 1}}


def test_another_type_drops_the_old_fields_and_the_same_type_keeps_them():
    base = {"neck": {"type": "fpn", "levels": 5}}
    assert merge(base, {"neck": {"type": "pan", "depth": 2}}) == {"neck": {"type": "pan", "depth": 2}}
    assert merge(base, {"neck": {"type": "fpn", "depth": 2}}) == {"neck": {"type": "fpn", "levels": 5, "depth": 2}}
    assert merge(base, {"neck": {"depth": 2}}) == {"neck": {"type": "fpn", "levels": 5, "depth": 2}}


@pytest.mark.parametrize(
    ("text", "steps", "value"),
    [
        ("a=1", ["a"], 1),
        ("a.b[2].c=x", ["a", "b", 2, "c"], "x"),
        ("a[0][1]=[1, 2]", ["a", 0, 1], [1, 2]),
        ("a.b-c=1e-3", ["a", "b-c"], 1e-3),
        ("a={type: x, y: 1}", ["a"], {"type": "x", "y": 1}),
        ("a=", ["a"], None),
        ("a=null", ["a"], None),
        ("a=b=c", ["a"], "b=c"),
        (" a.b =true", ["a", "b"], True),
    ],
)
def test_overrides_are_parsed(text, steps, value):
    assert parse_override(text) == (steps, value)


@pytest.mark.parametrize(
    "text", ["a", "=1", "a..b=1", ".a=1", "a.=1", "[0]=1", "a[x]=1", "a[-1]=1", "a b=1", "a[0]b=1", "a.[0]=1", ""]
)
def test_overrides_of_another_form_are_refused(text):
    with pytest.raises(ConfigError, match="expected path=value, such as detector.backbone.depth=101") as caught:
        parse_override(text)
    assert repr(text) in str(caught.value)


def test_a_value_that_is_no_yaml_is_refused():
    with pytest.raises(DetError, match=r"--set a\.b:1:\d+: not valid YAML"):
        parse_override("a.b=[1")


def test_overrides_are_laid_on_in_order_and_leave_the_base_alone():
    base = {"a": {"b": [{"c": 1}, {"c": 2}]}, "n": {"type": "x", "f": 1}}
    done = apply_overrides(base, ["a.b[1].c=5", "a.b[1].d=6", "n.type=y", "n.g=2", "new.key=3", "n.g=7"])
    assert done == {"a": {"b": [{"c": 1}, {"c": 5, "d": 6}]}, "n": {"type": "y", "g": 7}, "new": {"key": 3}}
    assert base == {"a": {"b": [{"c": 1}, {"c": 2}]}, "n": {"type": "x", "f": 1}}


def test_an_override_with_a_mapping_merges_and_with_a_list_replaces():
    base = {"n": {"type": "x", "f": 1, "g": [1, 2]}}
    assert apply_overrides(base, ["n={f: 2}"])["n"] == {"type": "x", "f": 2, "g": [1, 2]}
    assert apply_overrides(base, ["n={type: y}"])["n"] == {"type": "y"}
    assert apply_overrides(base, ["n.type=x"])["n"] == base["n"]
    assert apply_overrides(base, ["n.g=[3]"])["n"]["g"] == [3]
    assert apply_overrides(base, ["n.g[0]=3"])["n"]["g"] == [3, 2]
    assert apply_overrides(base, ["n="])["n"] is None


def test_paths_that_cannot_be_followed_are_all_reported():
    base = {"a": [1], "b": 5, "c": "t", "d": True}
    overrides = ["a[1]=2", "b[0]=2", "b.c=2", "c.x=1", "a.x=1", "d.x=1", "e[0]=1", "a=7"]
    with pytest.raises(ConfigError) as caught:
        apply_overrides(base, overrides)
    assert [str(p) for p in caught.value.problems] == [
        "--set 'a[1]=2': no item [1] in a list of 1",
        "--set 'b[0]=2': no item [0] in a number",
        "--set 'b.c=2': no key 'c' in a number",
        "--set 'c.x=1': no key 'x' in a text",
        "--set 'a.x=1': no key 'x' in a list",
        "--set 'd.x=1': no key 'x' in true or false",
        "--set 'e[0]=1': no item [0] in nothing",
    ]
