"""One gate: what YAML refuses, Python refuses in the same words, at construction and without torch."""

from __future__ import annotations

import inspect
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest

from det_core import DetectorConfig
from det_core.boxes.box_config import GridAnchorsConfig, RandomSamplerConfig
from det_core.config.convert import structure
from det_core.config.plain import unstructure
from det_core.data.data_config import CocoConfig, VocConfig
from det_core.errors import ConfigError, DetError
from det_core.model.layer_config import GroupNormConfig
from det_core.settings import configclass, evolve, fields_of, is_config, setting, with_settings
from det_core.slots import NormConfig
from det_core.testing.isolated_plugins import stub_config
from det_plugin_fpn import FPNConfig
from det_plugin_rcnn import FCBoxHeadConfig, RCNNHeadConfig, RPNConfig
from det_plugin_resnet import ResNetConfig
from det_plugin_ssd.augment_config import IoUCropConfig


@configclass
class Inner:
    """A configuration that is no part of a slot."""

    size: int = setting("a size", default=1, least=1)


@configclass
class Kinds:
    """A field of each kind."""

    flag: bool = setting("a flag", default=False)
    count: int = setting("a count", default=1, least=1, most=9)
    share: float = setting("a share", default=0.5, above=0, below=1)
    name: str = setting("a name", default="x")
    folder: Path = setting("a folder", default=Path("."))
    style: Literal["a", "b", 3] = setting("a choice", default="a")
    pair: tuple[int, int] = setting("a pair", default=(1, 2), least=0)
    many: tuple[float, ...] = setting("several", default=(1.0,), min_items=1, above=0)
    names: tuple[str, ...] | None = setting("names", default=None, distinct=True)
    nested: tuple[tuple[float, ...], ...] = setting("lists of lists", default=(), most=5)
    maybe: float | None = setting("perhaps", default=None, least=0)
    either: int | str = setting("one of two", default=0)
    inner: Inner = setting("another configuration", default=Inner())
    norm: NormConfig = setting("a part", default=GroupNormConfig())
    group_norm: GroupNormConfig | None = setting("a certain part", default=None)
    even: int = setting("an even number", default=2, check=lambda value: "" if value % 2 == 0 else "it must be even")


def refused(make: Any) -> list[tuple[str, str]]:
    with pytest.raises(ConfigError) as caught:
        make()
    return [(p.path, p.message) for p in caught.value.problems]


def refused_twice(cls: type, field: str, value: Any, plain: Any = None) -> list[tuple[str, str]]:
    """The problems of a value in Python, after a look that YAML's are the same."""
    others = {} if cls is Kinds else {k: v for k, v in unstructure(WHOLE[cls]).items() if k not in ("type", field)}
    same = structure  # the converter that reads YAML
    in_yaml = refused(lambda: same({**others, field: value if plain is None else plain}, cls))
    in_python = refused(lambda: evolve(WHOLE[cls], **{field: value}))
    assert in_python == in_yaml
    return in_python


WHOLE: dict[type, Any] = {
    Kinds: Kinds(),
    FCBoxHeadConfig: FCBoxHeadConfig(),
    RPNConfig: RPNConfig(),
    RCNNHeadConfig: RCNNHeadConfig(),
    GridAnchorsConfig: GridAnchorsConfig(),
    DetectorConfig: DetectorConfig(backbone=ResNetConfig(), neck=FPNConfig(), dense_head=RPNConfig()),
    VocConfig: VocConfig(split="train"),
    IoUCropConfig: IoUCropConfig(),
}
PART = "expected a part of slot {0!r}: a mapping with `type` in YAML, a {1} in Python"


@pytest.mark.parametrize(
    ("cls", "field", "value", "plain", "path", "message"),
    [
        # what was accepted once
        (FCBoxHeadConfig, "class_agnostic", "no", None, "", "found 'no', expected true or false"),
        (RPNConfig, "channels", 64.5, None, "", "found 64.5, expected a whole number"),
        (RPNConfig, "channels", "64", None, "", "found '64', expected a whole number"),
        (
            RPNConfig,
            "sampler",
            GridAnchorsConfig(),
            {"type": "grid_anchors"},
            "",
            "found 'grid_anchors', a part of slot 'anchors'; expected a part of slot 'sampler'",
        ),
        (
            RCNNHeadConfig,
            "box_head",
            RPNConfig(),
            {"type": "rpn"},
            "",
            "found 'rpn', a part of slot 'dense_head'; expected a part of slot 'box_head'",
        ),
        (
            DetectorConfig,
            "neck",
            RPNConfig(),
            {"type": "rpn"},
            "",
            "found 'rpn', a part of slot 'dense_head'; expected a part of slot 'neck'",
        ),
        # one of each kind of field
        (Kinds, "flag", 1, None, "", "found 1, expected true or false"),
        (Kinds, "flag", None, None, "", "found None, expected true or false"),
        (Kinds, "count", True, None, "", "found True, expected a whole number"),
        (Kinds, "count", 0, None, "", "found 0, expected at least 1 and at most 9"),
        (Kinds, "count", 10, None, "", "found 10, expected at least 1 and at most 9"),
        (Kinds, "count", [1], None, "", "found [1], expected a whole number"),
        (Kinds, "share", 1, None, "", "found 1, expected above 0 and below 1"),
        (Kinds, "share", float("nan"), None, "", "found nan, expected a finite number"),
        (Kinds, "share", 10**400, None, "", f"found 1{'0' * 56}..., expected a finite number"),
        (Kinds, "share", "0.5", None, "", "found '0.5', expected a finite number"),
        (Kinds, "name", 3, None, "", "found 3, expected text (in quotes, if it looks like a number)"),
        (Kinds, "folder", 3, None, "", "found 3, expected a path"),
        (Kinds, "style", "c", None, "", "found 'c', allowed: a, b, 3"),
        (Kinds, "style", ["a"], None, "", "found ['a'], allowed: a, b, 3"),
        (Kinds, "style", {}, None, "", "found {}, allowed: a, b, 3"),
        (Kinds, "style", 3.0, None, "", "found 3.0, allowed: a, b, 3"),
        (Kinds, "pair", 3, None, "", "found 3, expected a list"),
        (Kinds, "pair", [1, 2, 3], None, "", "found 3 values, expected 2"),
        (Kinds, "pair", [1, -1], None, "[1]", "found -1, expected at least 0"),
        (Kinds, "many", [], None, "", "found 0 values, expected at least 1"),
        (Kinds, "many", [1.0, 0], None, "[1]", "found 0, expected above 0"),
        (Kinds, "many", {1.0}, None, "", "found {1.0}, expected a list"),
        (Kinds, "names", ["a", "b", "a"], None, "", "found 'a' twice, expected each value once"),
        (Kinds, "names", "ab", None, "", "found 'ab', expected a list"),
        (Kinds, "nested", [[1, 2], [3, 6]], None, "[1][1]", "found 6, expected at most 5"),
        (Kinds, "maybe", -1, None, "", "found -1, expected at least 0"),
        (
            Kinds,
            "either",
            1.5,
            None,
            "",
            "found 1.5, expected a whole number or found 1.5, expected text (in quotes, if it looks like a number)",
        ),
        (Kinds, "either", None, None, "", "found null, expected a value"),
        (Kinds, "inner", 3, None, "", "found 3, expected a mapping in YAML, an Inner in Python"),
        (Kinds, "norm", "group_norm", None, "", f"found 'group_norm', {PART.format('norm', 'NormConfig')}"),
        (Kinds, "norm", None, None, "", f"found None, {PART.format('norm', 'NormConfig')}"),
        (
            Kinds,
            "norm",
            RandomSamplerConfig(),
            {"type": "random"},
            "",
            "found 'random', a part of slot 'sampler'; expected a part of slot 'norm'",
        ),
        (
            Kinds,
            "group_norm",
            ResNetConfig().norm,
            {"type": "batch_norm"},
            "",
            "found 'batch_norm', expected group_norm",
        ),
        (Kinds, "even", 3, None, "", "found 3: it must be even"),
        (VocConfig, "classes", ["a", ""], None, "", "found ['a', '']: a name is empty; expected NAME or OLD=NEW"),
        (
            IoUCropConfig,
            "overlaps",
            [0.5],
            None,
            "",
            "found [0.5]: one value must be 1 or more, which keeps the image whole",
        ),
    ],
)
def test_python_and_yaml_refuse_in_the_same_words(cls, field, value, plain, path, message):
    assert refused_twice(cls, field, value, plain) == [(f"{field}{path}", message)]


def test_all_problems_of_all_arguments_come_at_once():
    wrong = {"flag": 1, "many": [1, "x", -1], "cuont": 3}
    expected = [
        ("cuont", 'unknown key; did you mean "count"?'),
        ("flag", "found 1, expected true or false"),
        ("many[1]", "found 'x', expected a finite number"),
        ("many[2]", "found -1, expected above 0"),
    ]
    assert refused(lambda: Kinds(**wrong)) == expected == refused(lambda: structure(wrong, Kinds))


def test_a_missing_argument():
    expected = [("split", "required key is missing (part of the data set)")]
    assert refused(CocoConfig) == expected == refused(lambda: structure({}, CocoConfig))


def test_a_check_over_several_fields():
    settings = {"stages": [2, 1]}
    expected = [("", "stages [2, 1] must ascend without repeats")]
    assert refused(lambda: ResNetConfig(**settings)) == expected
    assert refused(lambda: structure(settings, ResNetConfig)) == expected


def test_the_error_of_a_constructor_names_the_class():
    with pytest.raises(ConfigError) as caught:
        RPNConfig(channels=0, conv=3)
    assert str(caught.value).splitlines() == [
        "RPNConfig.channels: found 0, expected at least 1",
        f"RPNConfig.conv: found 3, {PART.format('conv', 'ConvConfig')}",
    ]


@pytest.mark.parametrize(
    ("field", "value", "made"),
    [
        ("many", [4], (4.0,)),
        ("many", (4, 8.0), (4.0, 8.0)),
        ("pair", [1, 2], (1, 2)),
        ("nested", [[1], (2, 3)], ((1.0,), (2.0, 3.0))),
        ("share", Fraction(1, 4), 0.25),
        ("share", np.float32(0.25), 0.25),
        ("count", np.int64(3), 3),
        ("name", Path("a/b"), "a/b"),
        ("folder", "a/b", Path("a/b")),
        ("maybe", 3, 3.0),
        ("names", ["a", "b"], ("a", "b")),
    ],
)
def test_what_means_the_same_is_converted(field, value, made):
    config = Kinds(**{field: value})
    found = getattr(config, field)
    assert (found, type(found)) == (made, type(made))
    assert repr(found) == repr(made)
    assert structure(unstructure(config), Kinds) == config
    assert hash(config) == hash(Kinds(**{field: made}))


def test_a_list_of_scales_is_equal_to_itself_after_a_round_trip():
    config = GridAnchorsConfig(scales=[4.0])
    assert config.scales == (4.0,)
    assert structure(unstructure(config), GridAnchorsConfig) == config == GridAnchorsConfig(scales=(4.0,))


def test_nothing_of_it_imports_torch():
    code = (
        "import sys\nfrom det_plugin_rcnn import RPNConfig\nfrom det_core import ConfigError\n"
        "try:\n    RPNConfig(channels='64', sampler=RPNConfig())\nexcept ConfigError as error:\n    print(error)\n"
        "print({'torch', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "RPNConfig.channels: found '64', expected a whole number",
        "RPNConfig.sampler: found 'rpn', a part of slot 'dense_head'; expected a part of slot 'sampler'",
        "set()",
    ]


# Declarations


def test_positional_arguments_and_changes_are_refused():
    with pytest.raises(TypeError, match="positional"):
        Inner(3)  # type: ignore[misc]
    with pytest.raises(AttributeError):
        Inner().size = 3  # type: ignore[misc]
    with pytest.raises(ConfigError, match="^Inner.sizes: unknown key"):
        evolve(Inner(), sizes=3)


def test_a_class_is_marked_and_its_undecorated_child_is_not():
    class Child(Inner):
        pass

    assert is_config(Inner)
    assert not is_config(Child)


def test_a_configuration_may_inherit_from_several():
    @configclass
    class Both(Inner, Kinds):
        more: int = 3

    assert {f.name for f in fields_of(Both)} == {f.name for f in (*fields_of(Inner), *fields_of(Kinds))} | {"more"}
    assert Both(size=2, count=3).size == 2


@configclass
class WithMapping:
    """A field of a kind that no configuration has."""

    by_name: dict[str, int] = setting("a mapping", default=None)


@configclass
class WrongDefault:
    """A default of another type."""

    scales: tuple[float, ...] = setting("scales", default=(4,))


@configclass
class DefaultOutOfRange:
    """A default that its own limits refuse."""

    count: int = setting("a count", default=0, least=1)


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (WithMapping, r"WithMapping\.by_name: fields of type dict\[str, int\] are not supported; allowed: bool, int"),
        (WrongDefault, r"WrongDefault\.scales: the default is \(4,\); write \(4\.0,\)"),
        (DefaultOutOfRange, r"DefaultOutOfRange\.count: the default is wrong: found 0, expected at least 1"),
    ],
)
def test_a_declaration_that_cannot_be_is_refused_at_first_use(cls, message):
    with pytest.raises(DetError, match=message):
        cls()


def test_a_stub_raises_for_what_it_does_not_define():
    @stub_config
    class Norm(NormConfig):
        type: ClassVar[str] = "stub"

    with pytest.raises(NotImplementedError, match=r"Norm\.build\(\) is not defined by this stub"):
        Norm().build(3)


@with_settings(Inner)
def sized(name: str, options: Inner) -> str:
    """Say a size.

    Raises:
        DetError: never.
    """
    return f"{name} {options.size}"


def test_a_function_takes_the_settings_of_a_class():
    assert sized("x", size=3) == "x 3"
    assert sized("x") == "x 1"
    with pytest.raises(ConfigError, match="^Inner.size: found 0, expected at least 1$"):
        sized("x", size=0)
    assert str(inspect.signature(sized)) == "(name: 'str', *, size: int = 1) -> 'str'"
    assert inspect.getdoc(sized) == "Say a size.\n\nArgs:\n    size: a size\n\nRaises:\n    DetError: never."
