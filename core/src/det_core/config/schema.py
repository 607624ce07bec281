"""JSON Schema of a configuration class, so that an editor completes and checks recipes."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

import attrs

from det_core.config.plain import unstructure
from det_core.plugins import plugin_manager
from det_core.settings import Component, fields_of, is_union

_PRIMITIVES = {bool: "boolean", int: "integer", float: "number", str: "string"}


def json_schema(cls: type, title: str, *, partial: bool = False) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of an attrs configuration class with all installed components.

    partial: nothing is required, at any depth, as in a file that `extends` a recipe and gives only what differs.
    """
    schema = _Schema(partial)
    root = schema.of(cls)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title, **root, "$defs": schema.defs}


class _Schema:
    """Walks types, and gathers the definitions of the classes it meets."""

    def __init__(self, partial: bool) -> None:
        self.partial = partial
        self.defs: dict[str, Any] = {}

    def of(self, cls: Any) -> dict[str, Any]:
        """The schema of one type, classes by reference."""
        if cls in _PRIMITIVES:
            return {"type": _PRIMITIVES[cls]}
        if cls is type(None):
            return {"type": "null"}
        args = get_args(cls)
        if get_origin(cls) is Literal:
            return {"enum": list(args)}
        if is_union(cls):
            return {"anyOf": [self.of(a) for a in args]}
        if get_origin(cls) is tuple:
            return self._tuple(args)
        if get_origin(cls) is dict:
            return {"type": "object", "additionalProperties": self.of(args[1])}
        if issubclass(cls, Component) and not ("type" in vars(cls) and cls.type):
            return self._slot(cls)
        return self._reference(cls)

    def _tuple(self, args: tuple[Any, ...]) -> dict[str, Any]:
        if len(args) == 2 and args[1] is Ellipsis:
            return {"type": "array", "items": self.of(args[0])}
        items = [self.of(a) for a in args]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}

    def _slot(self, cls: type[Component]) -> dict[str, Any]:
        """One of the installed components; only here must `type` be said, where one class fits it may be left out."""
        manager = plugin_manager()
        fitting = [c for c in (manager.component(cls.slot, n) for n in manager.types(cls.slot)) if issubclass(c, cls)]
        required = {} if self.partial else {"required": ["type"]}
        return {"anyOf": [{**self._reference(c), **required} for c in fitting]}

    def _reference(self, cls: type) -> dict[str, Any]:
        name = f"{cls.slot}.{cls.type}" if issubclass(cls, Component) else cls.__name__
        if name not in self.defs:
            self.defs[name] = {}  # taken before the fields are walked: configurations may nest
            self.defs[name] = self._object(cls)
        return {"$ref": f"#/$defs/{name}"}

    def _object(self, cls: type) -> dict[str, Any]:
        properties: dict[str, Any] = {"type": {"const": cls.type}} if issubclass(cls, Component) else {}
        required: list[str] = []
        for attribute in fields_of(cls):
            entry = self.of(attribute.type)
            if "doc" in attribute.metadata:
                entry["description"] = attribute.metadata["doc"]
            if attribute.default is attrs.NOTHING:
                required.append(attribute.name)
            elif not isinstance(attribute.default, attrs.Factory):  # type: ignore[arg-type]
                entry["default"] = unstructure(attribute.default)
            properties[attribute.name] = entry
        text = " ".join((cls.__doc__ or "").strip().split("\n\n")[0].split())
        return {
            "type": "object",
            "description": text,
            "properties": properties,
            "required": [] if self.partial else required,
            "additionalProperties": False,
        }
