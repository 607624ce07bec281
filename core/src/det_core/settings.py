"""How a configuration's fields are declared and checked: one gate for YAML and for Python.

    @configclass
    class RPNConfig(ProposalHeadConfig):
        channels: int = setting("channels of the shared 3x3 convolution", default=256, least=1)

A field's type says what it holds: bool, int, float, str, `Literal[...]` (the one place where a closed choice is
listed), another configuration, tuples of these, and unions with None. The constructor refuses everything else with the
message that a YAML file gets, and converts what means the same: a list to a tuple, an int to a float, numpy's numbers
to Python's. It imports attrs alone.
"""

from __future__ import annotations

import math
import numbers
import os
import types
from abc import ABC
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, ClassVar, Literal, TypeVar, Union, dataclass_transform, get_args, get_origin

import attrs

from det_core.errors import ConfigError, DetError, Problem, nearest

T = TypeVar("T")
Read = Callable[[object, type], object]  # a value and the configuration class that its field asks for


@attrs.frozen(kw_only=True)
class Limits:
    """What a field's values must fulfil beside their type. Bounds are those of each number, at any depth of tuples."""

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    min_items: int = 0
    distinct: bool = False
    check: Callable[[Any], str] | None = None

    def bounds(self) -> str:
        """`at least 0 and below 1`."""
        said = (("at least", self.least), ("above", self.above), ("at most", self.most), ("below", self.below))
        return " and ".join(f"{words} {bound}" for words, bound in said if bound is not None)

    def admit(self, number: float) -> bool:
        """Whether a number is within the bounds."""
        return (
            (self.least is None or number >= self.least)
            and (self.above is None or number > self.above)
            and (self.most is None or number <= self.most)
            and (self.below is None or number < self.below)
        )


NO_LIMITS = Limits()


def setting(
    doc: str,
    *,
    default: Any = attrs.NOTHING,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    min_items: int = 0,
    distinct: bool = False,
    check: Callable[[Any], str] | None = None,
) -> Any:
    """A field of a configuration.

    Args:
        doc: what it means: shown by `recipes schema` and in error messages.
        default: a value of the field's type; without it the field is required.
        least, above, most, below: bounds of each number that the field holds (closed, open, closed, open).
        min_items: how many items a tuple has at least.
        distinct: no item of a tuple may appear twice.
        check: what is wrong with a value of the right type, in words ("" if nothing is), for all other rules.
    """
    limits = Limits(
        least=least, above=above, most=most, below=below, min_items=min_items, distinct=distinct, check=check
    )
    return attrs.field(default=default, metadata={"doc": doc, "limits": limits})


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(setting,))
def configclass(cls: type[T]) -> type[T]:
    """Make a frozen, keyword-only attrs class whose constructor checks and converts its arguments.

    A check that concerns several fields goes into `__attrs_post_init__`, which may raise ValueError or ConfigError.
    Classes are not slotted, so that one may inherit from several.

    Raises (the constructor):
        ConfigError: with every problem of every argument.
    """
    made: Any = attrs.frozen(kw_only=True, slots=False, init=False)(cls)
    made.__init__ = _init
    return made


def is_config(cls: type) -> bool:
    """Whether a class itself (not only a base) was made by `configclass`."""
    return vars(cls).get("__init__") is _init


def _init(self: Any, /, **given: object) -> None:
    cls = type(self)
    try:
        self.__attrs_init__(**conform_fields(cls, given))
    except ConfigError as error:
        raise ConfigError(error.problems, owner=cls.__name__) from None
    except (ValueError, TypeError) as error:  # a check over several fields
        raise ConfigError([Problem("", str(error))], owner=cls.__name__) from None


def evolve(config: T, /, **changes: Any) -> T:
    """The same configuration with some fields changed; checked as any other.

    Raises:
        ConfigError: as the constructor.
    """
    cls: Any = type(config)
    return cls(**{**{field.name: getattr(config, field.name) for field in fields_of(cls)}, **changes})


def fields_of(cls: Any) -> tuple[attrs.Attribute[Any], ...]:
    """The fields of a configuration class with their annotations resolved; DetError for one that is not allowed."""
    return _resolved_fields(cls)


@cache
def _resolved_fields(cls: type) -> tuple[attrs.Attribute[Any], ...]:
    try:
        attrs.resolve_types(cls)
    except NameError as error:
        raise DetError(
            f"{_named(cls)}: the type of a field cannot be resolved ({error}); a configuration module must import the "
            "types of its fields at run time, not under TYPE_CHECKING"
        ) from error
    fields = tuple(f for f in attrs.fields(cls) if f.init)
    for field in fields:
        _check_declaration(cls, field)
    return fields


def _check_declaration(cls: type, field: attrs.Attribute[Any]) -> None:
    """DetError unless a field's type is one that configurations hold, and its default is of this type."""
    if not _is_supported(field.type):
        raise DetError(
            f"{_named(cls)}.{field.name}: fields of type {field.type} are not supported; allowed: bool, int, float, "
            "str, Literal, configuration classes, tuples of these, and unions with None"
        )
    if field.default is attrs.NOTHING:
        return
    try:
        value = conform(field.default, field.type, limits_of(field))
    except ConfigError as error:
        raise DetError(f"{_named(cls)}.{field.name}: the default is wrong: {error}") from None
    if repr(value) != repr(field.default):
        raise DetError(f"{_named(cls)}.{field.name}: the default is {field.default!r}; write {value!r}")


def _named(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _is_supported(kind: Any) -> bool:
    if get_origin(kind) is Literal or kind in SCALARS:
        return True
    if is_union(kind) or get_origin(kind) is tuple:
        return all(_is_supported(a) for a in get_args(kind) if a not in (type(None), Ellipsis))
    return isinstance(kind, type) and attrs.has(kind)


def limits_of(field: attrs.Attribute[Any]) -> Limits:
    """The limits that a field was declared with."""
    limits: Limits = field.metadata.get("limits", NO_LIMITS)
    return limits


def conform_fields(cls: type, given: Mapping[str, object], read: Read | None = None) -> dict[str, Any]:
    """The arguments of a configuration class, checked and converted; ConfigError with every problem of all of them.

    read: makes the value of a field that holds a configuration; by default it must be one already.
    """
    known = {field.name: field for field in fields_of(cls)}
    allowed = f"; allowed: {', '.join(known) or 'none'}"
    problems = [
        Problem(str(key), f"unknown key{nearest(str(key), known) or allowed}") for key in given if key not in known
    ]
    values: dict[str, Any] = {}
    for name, field in known.items():
        if name not in given:
            if field.default is attrs.NOTHING:
                meaning = field.metadata.get("doc")
                problems.append(Problem(name, f"required key is missing{f' ({meaning})' if meaning else ''}"))
            continue
        try:
            values[name] = conform(given[name], field.type, limits_of(field), read)
        except ConfigError as error:
            problems += error.under(name).problems
    if problems:
        raise ConfigError(problems)
    return values


def conform(value: object, kind: Any, limits: Limits = NO_LIMITS, read: Read | None = None) -> Any:
    """`value` as a value of the type `kind` within `limits`; ConfigError with every problem, at paths below it."""
    made = _conform(value, kind, limits, read)
    complaint = limits.check(made) if limits.check is not None and made is not None else ""
    if complaint:
        raise fail(f"found {show(value)}: {complaint}")
    return made


def _conform(value: object, kind: Any, limits: Limits, read: Read | None) -> Any:
    if kind in SCALARS:
        return _scalar(value, kind, limits)
    if get_origin(kind) is Literal:
        return _choice(value, get_args(kind))
    if is_union(kind):
        return _any_of(value, get_args(kind), limits, read)
    if get_origin(kind) is tuple:
        return _tuple(value, get_args(kind), limits, read)
    return (read or part)(value, kind)


def is_union(kind: object) -> bool:
    """Whether a type is `A | B` or `Optional[A]`."""
    return get_origin(kind) in (Union, types.UnionType)


def show(value: object) -> str:
    """A value as an error message shows it, cut to a readable length."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def fail(message: str) -> ConfigError:
    """An error at the value at hand; whoever holds the value adds where it is."""
    return ConfigError.at("", message)


def _bool(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _int(value: Any) -> int | None:
    return None if isinstance(value, bool) or not isinstance(value, numbers.Integral) else int(value)


def _float(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    try:
        made = float(value)
    except OverflowError:  # a whole number of hundreds of digits
        return None
    return made if math.isfinite(made) else None


def _str(value: object) -> str | None:
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    return value if isinstance(value, str) else None


# Each type with what makes a value of it (None: it is none), and what is expected in words.
SCALARS: dict[Any, tuple[Callable[[object], Any], str]] = {
    bool: (_bool, "true or false"),
    int: (_int, "a whole number"),
    float: (_float, "a finite number"),
    str: (_str, "text (in quotes, if it looks like a number)"),
}


def _scalar(value: object, kind: Any, limits: Limits) -> Any:
    convert, expected = SCALARS[kind]
    made = convert(value)
    if made is None:
        raise fail(f"found {show(value)}, expected {expected}")
    if kind in (int, float) and not limits.admit(made):
        raise fail(f"found {show(value)}, expected {limits.bounds()}")
    return made


def _choice(value: object, allowed: Sequence[object]) -> object:
    for choice in allowed:
        if type(value) is type(choice) and value == choice:
            return value
    hint = nearest(value, [str(a) for a in allowed]) if isinstance(value, str) else ""
    raise fail(f"found {show(value)}, allowed: {', '.join(map(str, allowed))}{hint}")


def _any_of(value: object, kinds: Sequence[Any], limits: Limits, read: Read | None) -> Any:
    if value is None:
        if type(None) in kinds:
            return None
        raise fail("found null, expected a value")
    options = [kind for kind in kinds if kind is not type(None)]
    problems: list[Problem] = []
    for option in options:
        try:
            return _conform(value, option, limits, read)
        except ConfigError as error:
            if len(options) == 1:
                raise
            problems += error.problems
    raise fail(" or ".join(dict.fromkeys(p.message for p in problems)))


def _tuple(value: object, kinds: Sequence[Any], limits: Limits, read: Read | None) -> tuple[object, ...]:
    if not isinstance(value, (list, tuple)):
        raise fail(f"found {show(value)}, expected a list")
    repeated = len(kinds) == 2 and kinds[1] is Ellipsis
    if not repeated and len(value) != len(kinds):
        raise fail(f"found {len(value)} values, expected {len(kinds)}")
    if len(value) < limits.min_items:
        raise fail(f"found {len(value)} values, expected at least {limits.min_items}")
    items: list[object] = []
    problems: list[Problem] = []
    for i, (item, kind) in enumerate(zip(value, [kinds[0]] * len(value) if repeated else kinds, strict=True)):
        try:
            items.append(_conform(item, kind, limits, read))
        except ConfigError as error:
            problems += error.under(f"[{i}]").problems
    if problems:
        raise ConfigError(problems)
    if limits.distinct and len(set(items)) != len(items):
        again = next(item for i, item in enumerate(items) if item in items[:i])
        raise fail(f"found {show(again)} twice, expected each value once")
    return tuple(items)


def part(value: object, cls: type) -> object:
    """A value that must be a configuration of this class; ConfigError in the words that a YAML file gets."""
    if isinstance(value, cls):
        return value
    slot = getattr(cls, "slot", "")
    if isinstance(value, Component):
        raise misfit(type(value), cls)
    wanted = f"a part of slot {slot!r}: a mapping with `type`" if slot else "a mapping"
    raise fail(f"found {show(value)}, expected {wanted} in YAML, {_article(cls.__name__)} in Python")


def _article(name: str) -> str:
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


@configclass
class Component(ABC):
    """Base of all that a configuration names by `type`. Subclasses of a slot set `type`, a name unique in the slot."""

    slot: ClassVar[str] = ""
    type: ClassVar[str] = ""


def misfit(found: type[Component], wanted: type) -> ConfigError:
    """The error for a part of another slot, or of another class of the same slot."""
    slot = getattr(wanted, "slot", "")
    if found.slot != slot:
        return fail(f"found {found.type!r}, which is of slot {found.slot!r}; expected a part of slot {slot!r}")
    return fail(f"found {found.type!r}, expected {getattr(wanted, 'type', '') or _article(wanted.__name__)}")
