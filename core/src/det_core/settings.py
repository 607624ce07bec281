"""Declaration and validation of configuration fields, the same for YAML and Python.

    @configclass
    class RPNConfig(ProposalHeadConfig):
        channels: int = setting("channels of the shared 3x3 convolution", default=256, least=1)

Supported field types: bool, int, float, str, `Literal[...]`, another configuration, tuples of these, and unions with
None. The constructor converts equivalent values (list to tuple, int to float, numpy's numbers to Python's) and rejects
all others, with the same messages as for a YAML file. This module imports only attrs.
"""

from __future__ import annotations

import functools
import inspect
import math
import numbers
import os
import types
from abc import ABC
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import (
    Any,
    ClassVar,
    Concatenate,
    Literal,
    ParamSpec,
    TypeVar,
    Union,
    dataclass_transform,
    get_args,
    get_origin,
)

import attrs

from det_core.errors import ConfigError, DetError, Problem, nearest

T = TypeVar("T")
P = ParamSpec("P")
A = TypeVar("A")
R = TypeVar("R")
Read = Callable[[object, type], object]  # (value, expected configuration class) -> configuration


@attrs.frozen(kw_only=True)
class Limits:
    """Constraints on a field's value, besides its type. Bounds apply to every number, also in nested tuples."""

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    min_items: int = 0
    distinct: bool = False
    check: Callable[[Any], str] | None = None

    def bounds(self) -> str:
        """`at least 0 and below 1`."""
        bounds = (("at least", self.least), ("above", self.above), ("at most", self.most), ("below", self.below))
        return " and ".join(f"{words} {bound}" for words, bound in bounds if bound is not None)

    def allow(self, number: float) -> bool:
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
    conventions: Mapping[str, Any] | None = None,
) -> Any:
    """A field of a configuration.

    Args:
        doc: description, shown by `recipes schema` and in error messages.
        default: a value of the field's type. Without it the field is required.
        least, most: inclusive bounds of each number in the field.
        above, below: exclusive bounds of each number in the field.
        min_items: minimum number of items of a tuple.
        distinct: whether the items of a tuple must differ.
        check: returns what is wrong with a value of the right type, or "" if it is valid.
        conventions: of a setting in which projects differ, the value that weights of a source require; those of every
            other source require the default.
    """
    limits = Limits(
        least=least, above=above, most=most, below=below, min_items=min_items, distinct=distinct, check=check
    )
    metadata = {"doc": doc, "limits": limits}
    if conventions is not None:
        metadata["conventions"] = conventions
    return attrs.field(default=default, metadata=metadata)


def check_range(ends: tuple[float, float]) -> str:
    """The problem of a range, or nothing: a `check` of `setting`."""
    return "" if ends[0] <= ends[1] else "the first value must be at most the second"


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(setting,))
def configclass(cls: type[T]) -> type[T]:
    """Make a frozen, keyword-only attrs class whose constructor checks and converts its arguments.

    The constructor raises ConfigError with the problems of all arguments. A check of several fields belongs in
    `__attrs_post_init__`, which may raise ValueError or ConfigError. The classes have no `__slots__`, so that one may
    inherit from several.
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
    except (ValueError, TypeError) as error:  # from `__attrs_post_init__`
        raise ConfigError([Problem("", str(error))], owner=cls.__name__) from None


def evolve(config: T, /, **changes: Any) -> T:
    """A copy of a configuration with some fields changed; ConfigError as from its constructor."""
    cls: Any = type(config)
    return cls(**{**{field.name: getattr(config, field.name) for field in fields_of(cls)}, **changes})


def with_settings(options: Callable[P, T]) -> Callable[[Callable[[A, T], R]], Callable[Concatenate[A, P], R]]:
    """Decorate a function of two arguments so that the settings of the second become keyword arguments.

        @with_settings(TrainOptions)
        def train(recipe: Recipe, options: TrainOptions) -> TrainResult: ...

        train(recipe, work_dir="runs/first", max_steps=10)

    Its signature and the `Args` of its docstring are generated from the configuration class.
    """

    def decorate(function: Callable[[A, T], R]) -> Callable[Concatenate[A, P], R]:
        @functools.wraps(function)
        def wrapped(first: A, /, *args: P.args, **settings: P.kwargs) -> R:
            return function(first, options(*args, **settings))

        first, _ = inspect.signature(function).parameters.values()
        own = [_parameter(field) for field in fields_of(options)]
        described = "".join(f"\n        {f.name}: {f.metadata['doc']}" for f in fields_of(options))
        text, raises, rest = (function.__doc__ or "").partition("    Raises:")
        wrapped.__doc__ = f"{text}    Args:{described}\n\n{raises}{rest}"
        setattr(wrapped, "__signature__", inspect.signature(function).replace(parameters=[first, *own]))  # noqa: B010
        return wrapped

    return decorate


def _parameter(field: attrs.Attribute[Any]) -> inspect.Parameter:
    default = inspect.Parameter.empty if field.default is attrs.NOTHING else field.default
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(field.name, kind, default=default, annotation=field.type)


def fields_of(cls: Any) -> tuple[attrs.Attribute[Any], ...]:
    """The fields of a configuration class with resolved annotations; DetError for an unsupported type or default."""
    return _resolved_fields(cls)


@cache
def _resolved_fields(cls: type) -> tuple[attrs.Attribute[Any], ...]:
    try:
        attrs.resolve_types(cls)
    except NameError as error:
        raise DetError(
            f"{_full_name(cls)}: the type of a field cannot be resolved ({error}); a configuration module must import "
            "the types of its fields at run time, not under TYPE_CHECKING"
        ) from error
    fields = tuple(f for f in attrs.fields(cls) if f.init)
    for field in fields:
        _check_declaration(cls, field)
    return fields


def _check_declaration(cls: type, field: attrs.Attribute[Any]) -> None:
    """Raise DetError if a field's type is not supported or its default does not conform to it."""
    if not _is_supported(field.type):
        raise DetError(
            f"{_full_name(cls)}.{field.name}: fields of type {field.type} are not supported; allowed: bool, int, "
            "float, str, Literal, configuration classes, tuples of these, and unions with None"
        )
    if field.default is attrs.NOTHING:
        return
    try:
        value = conform(field.default, field.type, limits_of(field))
    except ConfigError as error:
        raise DetError(f"{_full_name(cls)}.{field.name}: the default is wrong: {error}") from None
    if repr(value) != repr(field.default):
        raise DetError(f"{_full_name(cls)}.{field.name}: the default is {field.default!r}; write {value!r}")


def _full_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _is_supported(kind: Any) -> bool:
    if get_origin(kind) is Literal or kind in SCALARS:
        return True
    if is_union(kind) or get_origin(kind) is tuple:
        return all(_is_supported(a) for a in get_args(kind) if a not in (type(None), Ellipsis))
    return isinstance(kind, type) and attrs.has(kind)


def limits_of(field: attrs.Attribute[Any]) -> Limits:
    """The limits of a field."""
    limits: Limits = field.metadata.get("limits", NO_LIMITS)
    return limits


def conform_fields(cls: type, given: Mapping[str, object], read: Read | None = None) -> dict[str, Any]:
    """The arguments of a configuration class, checked and converted; ConfigError with the problems of all of them.

    read: converts the value of a field that holds a configuration. By default the value must be a configuration.
    """
    known = {field.name: field for field in fields_of(cls)}
    allowed = f"; allowed: {', '.join(known) or 'none'}"
    problems = [
        Problem(str(key), f"unknown key{_deeper(str(key), known) or nearest(str(key), known) or allowed}")
        for key in given
        if key not in known
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


def _deeper(key: str, known: Mapping[str, attrs.Attribute[Any]]) -> str:
    """The place of a key that belongs to a configuration in one of these fields; "" if it belongs to none."""
    for name, field in known.items():
        inner = type(field.default)
        if attrs.has(inner) and key in {f.name for f in attrs.fields(inner)}:
            return f'; did you mean "{name}.{key}"?'
    return ""


def conform(value: object, kind: Any, limits: Limits = NO_LIMITS, read: Read | None = None) -> Any:
    """`value` converted to the type `kind` within `limits`; ConfigError with every problem, paths relative to it."""
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
        return _union(value, get_args(kind), limits, read)
    if get_origin(kind) is tuple:
        return _tuple(value, get_args(kind), limits, read)
    return (read or require_config)(value, kind)


def is_union(kind: object) -> bool:
    """Whether a type is `A | B` or `Optional[A]`."""
    return get_origin(kind) in (Union, types.UnionType)


def show(value: object) -> str:
    """A value for an error message: its repr, at most 60 characters."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an int of thousands of digits, or a value that contains itself
        text = f"a {type(value).__name__} too large to show"
    return text if len(text) <= 60 else text[:57] + "..."


def fail(message: str) -> ConfigError:
    """A ConfigError without a path, which the caller adds."""
    return ConfigError.at("", message)


def _bool(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _int(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        return None
    made = int(value)
    if not -(2**63) <= made < 2**63:  # tensors, generators and files hold no other
        raise fail(f"found {show(value)}, expected a whole number of at most 64 bits")
    return made


def _float(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    try:
        made = float(value)
    except OverflowError:  # an int of hundreds of digits
        return None
    return made if math.isfinite(made) else None


def _path(value: object) -> Path | None:
    return Path(value) if isinstance(value, (str, os.PathLike)) else None


def _str(value: object) -> str | None:
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    return value if isinstance(value, str) else None


# Type to its converter (returns None for an invalid value), and the words for what is expected.
SCALARS: dict[Any, tuple[Callable[[object], Any], str]] = {
    bool: (_bool, "true or false"),
    int: (_int, "a whole number"),
    float: (_float, "a finite number"),
    str: (_str, "text (in quotes, if it looks like a number)"),
    Path: (_path, "a path"),
}


def _scalar(value: object, kind: Any, limits: Limits) -> Any:
    convert, expected = SCALARS[kind]
    made = convert(value)
    if made is None:
        raise fail(f"found {show(value)}, expected {expected}")
    if kind in (int, float) and not limits.allow(made):
        raise fail(f"found {show(value)}, expected {limits.bounds()}")
    return made


def _choice(value: object, allowed: Sequence[object]) -> object:
    for choice in allowed:
        if type(value) is type(choice) and value == choice:
            return value
    hint = nearest(value, [str(a) for a in allowed]) if isinstance(value, str) else ""
    raise fail(f"found {show(value)}, allowed: {', '.join(map(str, allowed))}{hint}")


def _union(value: object, kinds: Sequence[Any], limits: Limits, read: Read | None) -> Any:
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


def require_config(value: object, cls: type) -> object:
    """Return `value` if it is a configuration of this class; otherwise raise ConfigError."""
    if isinstance(value, cls):
        return value
    slot = getattr(cls, "slot", "")
    if isinstance(value, Component):
        raise wrong_component(type(value), cls)
    expected = f"a part of slot {slot!r}: a mapping with `type`" if slot else "a mapping"
    raise fail(f"found {show(value)}, expected {expected} in YAML, {_with_article(cls.__name__)} in Python")


def _with_article(name: str) -> str:
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


@configclass
class Component(ABC):
    """Base of every configuration that is selected by `type`. Subclasses of a slot set `type`, unique in the slot."""

    slot: ClassVar[str] = ""
    type: ClassVar[str] = ""


def wrong_component(found: type[Component], expected: type) -> ConfigError:
    """The error for a component of another slot, or of another class of the same slot."""
    slot = getattr(expected, "slot", "")
    if found.slot != slot:
        return fail(f"found {found.type!r}, a part of slot {found.slot!r}; expected a part of slot {slot!r}")
    return fail(f"found {found.type!r}, expected {getattr(expected, 'type', '') or _with_article(expected.__name__)}")
