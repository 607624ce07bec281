"""The JSON Schema of configurations: structure, references, and what an editor shows."""

from __future__ import annotations

import json
from typing import Any, ClassVar, Literal

import pytest

from det_core.config.schema import json_schema
from det_core.load import recipe_schema
from det_core.settings import setting
from det_core.slots import BackboneConfig, NormConfig
from det_core.testing.isolated_plugins import isolated_manager, make_plugin, stub_config


@stub_config
class PlainNorm(NormConfig):
    """A norm.

    With more to say.
    """

    type: ClassVar[str] = "plain"

    inner: NormConfig | None = None


@stub_config
class Tower(BackboneConfig):
    """A backbone."""

    type: ClassVar[str] = "tower"

    depth: int = setting("number of layers")
    norm: NormConfig = PlainNorm()
    fixed: PlainNorm = PlainNorm()


@stub_config
class Whole:
    """All shapes of field."""

    backbone: BackboneConfig
    style: Literal["pytorch", "caffe"] = "pytorch"
    pair: tuple[int, int] = (1, 2)
    many: tuple[float, ...] = ()
    maybe: float | None = setting("", default=None, above=0)


@pytest.fixture
def schema() -> dict[str, Any]:
    plugin = make_plugin("parts", det_backbones=lambda: [Tower], det_layers=lambda: [PlainNorm])
    with isolated_manager(plugin):
        return json_schema(Whole, "whole")


def references(node: object) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if "$ref" in node else set()
        return own.union(*(references(v) for v in node.values()))
    if isinstance(node, list):
        return set().union(*(references(v) for v in node))
    return set()


def test_the_schema_is_json_and_every_reference_leads_somewhere(schema):
    assert json.loads(json.dumps(schema)) == schema
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"] == "whole"
    assert references(schema) == {f"#/$defs/{name}" for name in schema["$defs"]}
    assert set(schema["$defs"]) == {"Whole", "backbone.tower", "norm.plain"}
    assert schema["$ref"] == "#/$defs/Whole"


def test_objects_are_closed_and_say_what_they_require(schema):
    whole, tower = schema["$defs"]["Whole"], schema["$defs"]["backbone.tower"]
    for definition in schema["$defs"].values():
        assert definition["type"] == "object"
        assert definition["additionalProperties"] is False
    assert whole["required"] == ["backbone"]
    assert tower["required"] == ["depth"]
    assert tower["properties"]["type"] == {"const": "tower"}
    assert tower["properties"]["depth"] == {"type": "integer", "description": "number of layers"}
    assert schema["$defs"]["norm.plain"]["description"] == "A norm."


def test_the_type_is_required_where_several_could_stand_and_not_where_one_does(schema):
    properties = schema["$defs"]["backbone.tower"]["properties"]
    assert properties["norm"]["anyOf"] == [{"$ref": "#/$defs/norm.plain", "required": ["type"]}]
    assert properties["fixed"]["$ref"] == "#/$defs/norm.plain"
    assert "required" not in properties["fixed"]


def test_each_kind_of_field(schema):
    properties = schema["$defs"]["Whole"]["properties"]
    assert properties["backbone"] == {"anyOf": [{"$ref": "#/$defs/backbone.tower", "required": ["type"]}]}
    assert properties["style"] == {"enum": ["pytorch", "caffe"], "default": "pytorch"}
    assert properties["pair"] == {
        "type": "array",
        "prefixItems": [{"type": "integer"}] * 2,
        "minItems": 2,
        "maxItems": 2,
        "default": [1, 2],
    }
    assert properties["many"] == {"type": "array", "items": {"type": "number"}, "default": []}
    assert properties["maybe"] == {
        "anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "null"}],
        "default": None,
    }
    assert schema["$defs"]["backbone.tower"]["properties"]["norm"]["default"] == {"type": "plain", "inner": None}


def test_a_recipe_file_may_extend_a_recipe_and_give_a_part_of_anything():
    plugin = make_plugin("parts", det_backbones=lambda: [Tower], det_layers=lambda: [PlainNorm])
    with isolated_manager(plugin):
        schema = recipe_schema()
    recipe = schema["$defs"]["Recipe"]
    assert next(iter(recipe["properties"])) == "extends"
    assert {"name", "detector", "data", "optimizer", "schedule", "evaluation"} <= set(recipe["properties"])
    assert all(definition["required"] == [] for definition in schema["$defs"].values())
    assert schema["$defs"]["DetectorConfig"]["properties"]["backbone"]["anyOf"] == [{"$ref": "#/$defs/backbone.tower"}]
