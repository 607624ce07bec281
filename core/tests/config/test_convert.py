"""Plain data to configurations: strict, all problems at once, each with its path and what to do."""

from __future__ import annotations

from typing import ClassVar, Literal

import pytest

from det_core.config.convert import structure
from det_core.config.plain import unstructure
from det_core.errors import ConfigError, DetError, Problem
from det_core.settings import setting
from det_core.slots import BackboneConfig, NormConfig
from det_core.specs import FeatureSpec
from det_core.testing.isolated_plugins import entry_point, isolated_manager, make_plugin, stub_config


@stub_config
class PlainNorm(NormConfig):
    """A norm."""

    type: ClassVar[str] = "plain"

    eps: float = setting("", default=1e-5, above=0)


@stub_config
class GroupedNorm(NormConfig):
    """Another norm."""

    type: ClassVar[str] = "grouped"

    groups: int = 32


@stub_config
class Tower(BackboneConfig):
    """A backbone with a part of its own."""

    type: ClassVar[str] = "tower"

    depth: int = setting("number of layers", least=18, most=50)
    norm: NormConfig = PlainNorm()
    style: Literal["pytorch", "caffe"] = "pytorch"
    ratio: float = 1.0
    frozen_: bool = False
    extra: NormConfig | None = None


@stub_config
class Sizes:
    """All shapes of field."""

    pair: tuple[int, int] = (1, 2)
    many: tuple[float, ...] = ()
    parts: tuple[NormConfig, ...] = ()
    either: int | str = 0
    maybe: float | None = None


@stub_config
class Whole:
    """A configuration three levels deep."""

    name: str
    backbone: BackboneConfig
    sizes: Sizes = Sizes()

    def __attrs_post_init__(self) -> None:
        if self.name == "bad":
            raise ValueError("a name other than bad, please")


@stub_config
class Ordered:
    """A check over two fields."""

    low: int = 0
    high: int = 1

    def __attrs_post_init__(self) -> None:
        if self.high < self.low:
            raise ValueError(f"high must not be below low ({self.low})")


@stub_config
class Unresolvable:
    """Names a type that is not there at run time."""

    part: NotImported  # noqa: F821


@pytest.fixture(autouse=True)
def parts():
    plugin = make_plugin("parts", det_backbones=lambda: [Tower], det_layers=lambda: [PlainNorm, GroupedNorm])
    with isolated_manager(plugin) as manager:
        yield manager


def problems_of(value, cls=Whole) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        structure(value, cls)
    return [str(p) for p in caught.value.problems]


def whole(**backbone) -> dict:
    return {"name": "w", "backbone": {"type": "tower", "depth": 50, **backbone}}


def test_a_good_one_becomes_objects_and_round_trips():
    plain = whole(norm={"type": "grouped", "groups": 8}, ratio=2)
    config = structure(plain, Whole)
    assert config == Whole(name="w", backbone=Tower(depth=50, norm=GroupedNorm(groups=8), ratio=2.0))
    assert isinstance(config.backbone.ratio, float)
    again = unstructure(config)
    assert again["backbone"]["norm"] == {"type": "grouped", "groups": 8}
    assert again["sizes"]["pair"] == [1, 2]
    assert structure(again, Whole) == config


def test_objects_in_the_place_of_plain_data_are_taken_as_they_are():
    assert structure({"name": "w", "backbone": Tower(depth=18)}, Whole).backbone == Tower(depth=18)


def test_an_unknown_key_at_depth_gets_the_nearest_name():
    assert problems_of(whole(norm={"type": "grouped", "grups": 8})) == [
        'backbone.norm.grups: unknown key; did you mean "groups"?'
    ]
    assert problems_of(whole(xyzzy=1)) == [
        "backbone.xyzzy: unknown key; allowed: depth, norm, style, ratio, frozen_, extra"
    ]


def test_a_missing_key_says_what_it_means():
    assert problems_of({"name": "w", "backbone": {"type": "tower"}}) == [
        "backbone.depth: required key is missing (number of layers)"
    ]
    assert problems_of({"backbone": Tower(depth=18)}) == ["name: required key is missing"]


def test_all_problems_of_a_file_come_at_once():
    value = {
        "name": 3,
        "backbone": {"type": "tower", "depth": 51, "norm": {"type": "plain", "eps": -1}, "style": "cafe"},
        "sizes": {"pair": [1], "many": [1.0, "x"], "wrong": 0},
    }
    assert problems_of(value) == [
        "name: found 3, expected text (in quotes, if it looks like a number)",
        "backbone.depth: found 51, expected at least 18 and at most 50",
        "backbone.norm.eps: found -1, expected above 0",
        "backbone.style: found 'cafe', allowed: pytorch, caffe; did you mean \"caffe\"?",
        "sizes.wrong: unknown key; allowed: pair, many, parts, either, maybe",
        "sizes.pair: found 1 values, expected 2",
        "sizes.many[1]: found 'x', expected a finite number",
    ]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("depth", 50.0, "found 50.0, expected a whole number"),
        ("depth", 3.7, "found 3.7, expected a whole number"),
        ("depth", True, "found True, expected a whole number"),
        ("depth", "50", "found '50', expected a whole number"),
        ("depth", None, "found None, expected a whole number"),
        ("ratio", "1e-4", "found '1e-4', expected a finite number"),
        ("ratio", True, "found True, expected a finite number"),
        ("ratio", float("nan"), "found nan, expected a finite number"),
        ("ratio", float("inf"), "found inf, expected a finite number"),
        ("frozen_", 1, "found 1, expected true or false"),
        ("frozen_", "yes", "found 'yes', expected true or false"),
        ("style", 1, "found 1, allowed: pytorch, caffe"),
        (
            "norm",
            "plain",
            "found 'plain', expected a part of slot 'norm': a mapping with `type` in YAML, a NormConfig in Python",
        ),
        (
            "norm",
            None,
            "found None, expected a part of slot 'norm': a mapping with `type` in YAML, a NormConfig in Python",
        ),
        ("norm", {}, "required key `type` is missing; allowed: grouped, plain"),
    ],
)
def test_wrong_values_are_named_with_what_is_allowed(key, value, message):
    assert problems_of(whole(**{key: value})) == [f"backbone.{key}: {message}"]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("pair", 3, "sizes.pair: found 3, expected a list"),
        ("pair", "ab", "sizes.pair: found 'ab', expected a list"),
        (
            "parts",
            [{"type": "plain"}, {"type": "groupd"}],
            "sizes.parts[1].type: unknown type 'groupd' for norm; did you mean \"grouped\"?",
        ),
        ("either", 1.5, "sizes.either: found 1.5, expected a whole number or found 1.5, expected text"),
        ("either", None, "sizes.either: found null, expected a value"),
        ("maybe", "x", "sizes.maybe: found 'x', expected a finite number"),
    ],
)
def test_wrong_containers_are_named_with_the_index(key, value, message):
    (found,) = problems_of({**whole(), "sizes": {key: value}})
    assert found.startswith(message)


def test_containers_are_converted():
    plain = {"pair": [3, 4], "many": [1, 2.5], "parts": [{"type": "plain"}], "either": "x"}
    sizes = structure(plain, Sizes)
    assert sizes == Sizes(pair=(3, 4), many=(1.0, 2.5), parts=(PlainNorm(),), either="x")
    assert structure({"maybe": None}, Sizes).maybe is None
    assert structure({"maybe": 2}, Sizes).maybe == 2.0
    assert structure(unstructure(sizes), Sizes) == sizes


def test_unknown_types_get_names_and_reasons():
    assert problems_of(whole(norm={"type": "groupd"})) == [
        "backbone.norm.type: unknown type 'groupd' for norm; did you mean \"grouped\"?"
    ]
    assert problems_of(whole(norm={"type": 3})) == [
        "backbone.norm.type: found 3, expected a name; allowed: grouped, plain"
    ]
    (found,) = problems_of({"name": "w", "backbone": {"type": "resnet"}})
    assert found.startswith("backbone.type: unknown type 'resnet' for backbone; det-plugin-resnet provides it: pip ins")


def test_the_type_of_a_field_with_one_class_may_be_left_out_but_not_be_another():
    assert structure({"eps": 0.1}, PlainNorm) == PlainNorm(eps=0.1)
    assert problems_of({"type": "grouped"}, PlainNorm) == ["found 'grouped', expected plain"]


def test_a_type_of_a_broken_plugin_gives_its_reason():
    with isolated_manager(entry_point(ImportError("no module 'gone'"), "sick")):
        (found,) = problems_of({"name": "w", "backbone": {"type": "tower"}})
        assert found == (
            "backbone.type: unknown type 'tower' for backbone; installed: none; plugins that failed and might provide "
            "it: det-plugin-sick 1.0 (import: ImportError: no module 'gone')"
        )


def test_a_check_over_several_fields_is_reported_at_its_object():
    assert problems_of({**whole(), "name": "bad"}) == ["a name other than bad, please"]
    assert problems_of({"low": 3, "high": 2}, Ordered) == ["high must not be below low (3)"]
    assert structure({"low": 1, "high": 2}, Ordered) == Ordered(low=1, high=2)


def test_the_source_heads_the_message():
    with pytest.raises(ConfigError) as caught:
        structure({"name": "w", "backbone": {"type": "tower"}, "x": 1}, Whole, source="my.yaml")
    assert str(caught.value).splitlines() == [
        "my.yaml: 2 problems",
        "  x: unknown key; allowed: name, backbone, sizes",
        "  backbone.depth: required key is missing (number of layers)",
    ]
    with pytest.raises(ConfigError, match=r"^my\.yaml: 1 problem\n"):
        structure({"name": "w"}, Whole, source="my.yaml")


def test_a_field_whose_type_is_not_importable_names_the_class():
    with pytest.raises(DetError, match=r"Unresolvable: the type of a field cannot be resolved \(name 'NotImported'"):
        structure({"part": 1}, Unresolvable)


def test_python_constructors_are_as_strict_about_names_and_ranges():
    with pytest.raises(ConfigError, match=r'^Tower.dept: unknown key; did you mean "depth"\?\nTower.depth: required'):
        Tower(dept=50)
    with pytest.raises(ConfigError, match="^Tower.depth: found 51, expected at least 18 and at most 50$"):
        Tower(depth=51)


def test_long_values_are_cut_in_messages():
    (found,) = problems_of(whole(depth="x" * 500))
    assert len(found) < 150
    assert found == f"backbone.depth: found '{'x' * 56}..., expected a whole number"


def test_paths_of_problems_nest():
    assert str(Problem("", "m").under("a")) == "a: m"
    assert str(Problem("b", "m").under("[0]").under("a")) == "a[0].b: m"
    assert str(Problem("b", "m").under("")) == "b: m"


def test_specs_say_what_does_not_fit():
    spec = FeatureSpec(channels=(64, 128), strides=(4, 8))
    assert spec.level(8, "a head") == 1
    with pytest.raises(ConfigError, match=r"a head requires a feature level of stride 16, but .* \[4, 8\]"):
        spec.level(16, "a head")
    with pytest.raises(
        ConfigError, match=r"a head requires the same channel count at all levels, but gets .*\[64, 128\].*neck"
    ):
        spec.same_channels("a head")
    assert FeatureSpec(channels=(8, 8), strides=(4, 8)).same_channels("a head") == 8
    with pytest.raises(ValueError, match="2 channel counts but 1 strides"):
        FeatureSpec(channels=(1, 2), strides=(4,))
