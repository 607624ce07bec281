"""Between plain data (YAML, JSON) and configuration objects, strictly.

One cattrs converter does it. cattrs alone is lax: it drops unknown keys, turns 3.7 into 3 for an int field and loses
validators' texts. The hooks here make each of these an error, collect all errors of a file, and say for each where it
is, what was found and what is allowed.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import attrs
import cattrs

from det_core.config.base import Component, ConfigError, DetError, Problem
from det_core.plugins import PluginError, nearest, plugin_manager


def show(value: object) -> str:
    """A value as an error message shows it, cut to a readable length."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def fail(message: str) -> ConfigError:
    """An error at the value at hand; whoever holds the value adds where it is."""
    return ConfigError.at("", message)


T = TypeVar("T")


def structure(value: object, cls: type[T], source: str = "") -> T:
    """`value` (plain data) as a `cls`; ConfigError with every problem found, `source` naming the file."""
    try:
        return converter().structure(value, cls)
    except ConfigError as error:
        raise ConfigError(error.problems, source) from None


def unstructure(config: object) -> Any:
    """A configuration as plain data that `structure` turns into an equal one; components carry their `type`."""
    return converter().unstructure(config)


@cache
def converter() -> cattrs.Converter:
    """The one converter; types it does not know are refused."""
    conv = cattrs.Converter()
    for primitive, hook in ((bool, _bool), (int, _int), (float, _float), (str, _str)):
        conv.register_structure_hook(primitive, hook)
    conv.register_structure_hook_func(_is_a(Literal), _literal)
    conv.register_structure_hook_func(is_union, lambda v, t: _union(conv, v, t))
    conv.register_structure_hook_func(_is_a(tuple), lambda v, t: _tuple(conv, v, t))
    conv.register_structure_hook_func(_is_a(dict), lambda v, t: _dict(conv, v, t))
    conv.register_structure_hook_func(attrs.has, lambda v, t: _config(conv, v, t))
    conv.register_unstructure_hook_func(lambda t: isinstance(t, type) and attrs.has(t), lambda v: _plain(conv, v))
    conv.register_unstructure_hook_func(_is_a(tuple), lambda v: [conv.unstructure(x) for x in v])
    return conv


def _is_a(origin: Any) -> Callable[[Any], bool]:
    """Whether a type is a parametrised `origin`, such as tuple[int, ...]."""
    return lambda cls: get_origin(cls) is origin


def _bool(value: object, _: type) -> bool:
    if isinstance(value, bool):
        return value
    raise fail(f"found {show(value)}, expected true or false")


def _int(value: object, _: type) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise fail(f"found {show(value)}, expected a whole number")


def _float(value: object, _: type) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise fail(f"found {show(value)}, expected a finite number")


def _str(value: object, _: type) -> str:
    if isinstance(value, str):
        return value
    raise fail(f"found {show(value)}, expected text (in quotes, if it looks like a number)")


def _literal(value: object, cls: Any) -> object:
    allowed = get_args(cls)
    for choice in allowed:
        if value == choice and type(value) is type(choice):
            return value
    hint = nearest(value, [str(a) for a in allowed]) if isinstance(value, str) else ""
    raise fail(f"found {show(value)}, allowed: {', '.join(map(str, allowed))}{hint}")


def is_union(cls: object) -> bool:
    """Whether a type is `A | B` or `Optional[A]`."""
    return get_origin(cls) in (Union, types.UnionType)


def _union(conv: cattrs.Converter, value: object, cls: Any) -> object:
    options = [a for a in get_args(cls) if a is not type(None)]
    if value is None:
        if type(None) in get_args(cls):
            return None
        raise fail("found null, expected a value")
    if len(options) == 1:
        return conv.structure(value, options[0])
    problems: list[Problem] = []
    for option in options:
        try:
            return conv.structure(value, option)
        except ConfigError as error:
            problems += error.problems
    raise fail(" or ".join(dict.fromkeys(p.message for p in problems)))


def _tuple(conv: cattrs.Converter, value: object, cls: Any) -> tuple[object, ...]:
    args = get_args(cls)
    if not isinstance(value, (list, tuple)):
        raise fail(f"found {show(value)}, expected a list")
    repeated = len(args) == 2 and args[1] is Ellipsis
    if not repeated and len(value) != len(args):
        raise fail(f"found {len(value)} values, expected {len(args)}")
    item_types = [args[0]] * len(value) if repeated else args
    items, problems = [], []
    for i, (item, item_type) in enumerate(zip(value, item_types, strict=True)):
        try:
            items.append(conv.structure(item, item_type))
        except ConfigError as error:
            problems += [p.under(f"[{i}]") for p in error.problems]
    if problems:
        raise ConfigError(problems)
    return tuple(items)


def _dict(conv: cattrs.Converter, value: object, cls: Any) -> dict[object, object]:
    key_type, value_type = get_args(cls)
    if not isinstance(value, Mapping):
        raise fail(f"found {show(value)}, expected a mapping")
    result, problems = {}, []
    for key, item in value.items():
        try:
            result[conv.structure(key, key_type)] = conv.structure(item, value_type)
        except ConfigError as error:
            problems += [p.under(str(key)) for p in error.problems]
    if problems:
        raise ConfigError(problems)
    return result


def _config(conv: cattrs.Converter, value: object, cls: type) -> object:
    if isinstance(value, cls):
        return value
    if not isinstance(value, Mapping):
        wanted = f"a mapping with `type`: {_allowed(cls)}" if issubclass(cls, Component) else "a mapping"
        raise fail(f"found {show(value)}, expected {wanted}")
    if issubclass(cls, Component):
        cls, value = _concrete(cls, value)
    return _fill(conv, cls, value)


def _allowed(cls: type[Component]) -> str:
    names = [n for n in plugin_manager().types(cls.slot) if issubclass(plugin_manager().component(cls.slot, n), cls)]
    return ", ".join(names) or "none is installed"


def _concrete(cls: type[Component], value: Mapping[str, object]) -> tuple[type, Mapping[str, object]]:
    """The class that `type` names, and the other fields. `type` may be left out where only one class fits."""
    rest = {k: v for k, v in value.items() if k != "type"}
    name = value.get("type")
    if name is None:
        if cls.type and "type" in vars(cls):
            return cls, rest
        raise fail(f"required key `type` is missing; allowed: {_allowed(cls)}")
    if not isinstance(name, str):
        raise ConfigError.at("type", f"found {show(name)}, expected a name; allowed: {_allowed(cls)}")
    if cls.type == name and "type" in vars(cls):
        return cls, rest
    try:
        concrete = plugin_manager().component(cls.slot, name)
    except PluginError as error:
        raise ConfigError.at("type", str(error)) from None
    if not issubclass(concrete, cls):
        raise ConfigError.at("type", f"{name!r} does not fit here; allowed: {_allowed(cls)}")
    return concrete, rest


@cache
def fields_of(cls: type) -> tuple[attrs.Attribute[Any], ...]:
    """The fields of an attrs class with their annotations resolved."""
    try:
        attrs.resolve_types(cls)
    except NameError as error:
        raise DetError(
            f"{cls.__module__}.{cls.__qualname__}: the type of a field cannot be resolved ({error}); a configuration "
            "module must import the types of its fields at run time, not under TYPE_CHECKING"
        ) from error
    return tuple(f for f in attrs.fields(cls) if f.init)


def _fill(conv: cattrs.Converter, cls: type, value: Mapping[str, object]) -> object:
    """An instance of `cls`; all problems of all fields at once."""
    known = {f.name: f for f in fields_of(cls)}
    allowed = f"; allowed: {', '.join(known) or 'none'}"
    problems = [
        Problem(str(key), f"unknown key{nearest(str(key), known) or allowed}") for key in value if key not in known
    ]
    arguments: dict[str, object] = {}
    for name, attribute in known.items():
        if name not in value:
            if attribute.default is attrs.NOTHING:
                meaning = attribute.metadata.get("doc")
                problems.append(Problem(name, f"required key is missing{f' ({meaning})' if meaning else ''}"))
            continue
        try:
            arguments[name] = conv.structure(value[name], attribute.type)  # type: ignore[arg-type]
            _validate(attribute, arguments[name])
        except ConfigError as error:
            problems += [p.under(name) for p in error.problems]
    if problems:
        raise ConfigError(problems)
    try:
        return cls(**arguments)
    except ConfigError:
        raise
    except (ValueError, TypeError, NotImplementedError) as error:  # a check over several fields, or of the parts' fit
        raise fail(_text(error)) from None


def _text(error: Exception) -> str:
    """What a validator says; attrs' own put the field, the allowed values and the value into `args` as well."""
    return str(error.args[0]) if error.args else str(error)


def _validate(attribute: attrs.Attribute[Any], value: object) -> None:
    """Run a field's own validator, so that each field's problem is found, not only the first of its class."""
    if attribute.validator is None:
        return
    try:
        attribute.validator(None, attribute, value)
    except (ValueError, TypeError) as error:
        text = _text(error).removeprefix(f"'{attribute.name}' ")
        raise fail(f"found {show(value)}: {text}") from None
    except AttributeError:
        return  # it looks at other fields of the instance: it runs again when there is one


def _plain(conv: cattrs.Converter, config: Any) -> dict[str, object]:
    plain: dict[str, object] = {}
    if isinstance(config, Component):
        plain["type"] = config.type
    for attribute in attrs.fields(type(config)):
        if attribute.init:
            plain[attribute.name] = conv.unstructure(getattr(config, attribute.name))
    return plain
