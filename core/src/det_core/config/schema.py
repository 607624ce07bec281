"""JSON Schema of a configuration class, with which editors complete and check recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import attrs

from det_core.config.plain import unstructure
from det_core.plugins import plugin_manager
from det_core.settings import NO_LIMITS, Component, Limits, fields_of, is_union, limits_of

_PRIMITIVES = {bool: "boolean", int: "integer", float: "number", str: "string", Path: "string"}


def json_schema(cls: type, title: str, *, partial: bool = False) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a configuration class, including all installed components.

    partial: no key is required, at any depth, since a file that `extends` a recipe contains only the changes.
    """
    schema = _Schema(partial)
    root = schema.of(cls)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title, **root, "$defs": schema.defs}


def _bounds(limits: Limits) -> dict[str, float]:
    words = {
        "minimum": limits.least,
        "exclusiveMinimum": limits.above,
        "maximum": limits.most,
        "exclusiveMaximum": limits.below,
    }
    return {word: bound for word, bound in words.items() if bound is not None}


class _Schema:
    """Makes the schemas of types and collects the definitions of their classes."""

    def __init__(self, partial: bool) -> None:
        self.partial = partial
        self.defs: dict[str, Any] = {}

    def of(self, cls: Any, limits: Limits = NO_LIMITS) -> dict[str, Any]:
        """The schema of one type within limits, with classes by reference."""
        if cls in _PRIMITIVES:
            return {"type": _PRIMITIVES[cls], **(_bounds(limits) if cls in (int, float) else {})}
        if cls is type(None):
            return {"type": "null"}
        args = get_args(cls)
        if get_origin(cls) is Literal:
            return {"enum": list(args)}
        if is_union(cls):
            return {"anyOf": [self.of(a, limits) for a in args]}
        if get_origin(cls) is tuple:
            return self._tuple(args, limits)
        if issubclass(cls, Component) and not ("type" in vars(cls) and cls.type):
            return self._slot(cls)
        return self._reference(cls)

    def _tuple(self, args: tuple[Any, ...], limits: Limits) -> dict[str, Any]:
        if len(args) == 2 and args[1] is Ellipsis:
            minimum = {"minItems": limits.min_items} if limits.min_items else {}
            unique = {"uniqueItems": True} if limits.distinct else {}
            return {"type": "array", "items": self.of(args[0], limits), **minimum, **unique}
        items = [self.of(a, limits) for a in args]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}

    def _slot(self, cls: type[Component]) -> dict[str, Any]:
        """Any of the slot's installed components. `type` is required here; it is optional if only one class fits."""
        manager = plugin_manager()
        fitting = [c for c in (manager.component(cls.slot, n) for n in manager.types(cls.slot)) if issubclass(c, cls)]
        required = {} if self.partial else {"required": ["type"]}
        return {"anyOf": [{**self._reference(c), **required} for c in fitting]}

    def _reference(self, cls: type) -> dict[str, Any]:
        name = f"{cls.slot}.{cls.type}" if issubclass(cls, Component) else cls.__name__
        if name not in self.defs:
            self.defs[name] = {}  # reserve the name first, since configurations may be recursive
            self.defs[name] = self._object(cls)
        return {"$ref": f"#/$defs/{name}"}

    def _object(self, cls: type) -> dict[str, Any]:
        properties: dict[str, Any] = {"type": {"const": cls.type}} if issubclass(cls, Component) else {}
        required: list[str] = []
        for attribute in fields_of(cls):
            entry = self.of(attribute.type, limits_of(attribute))
            if attribute.metadata.get("doc"):
                entry["description"] = attribute.metadata["doc"]
            if attribute.default is attrs.NOTHING:
                required.append(attribute.name)
            else:
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
