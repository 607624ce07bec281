"""A plugin manager isolated from installed plugins, and plugins defined in tests."""

from __future__ import annotations

import abc
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from det_core.hookspecs import hookimpl
from det_core.plugins import EntryPoint, PluginManager, use_manager
from det_core.settings import configclass

T = TypeVar("T")


def make_plugin(name: str, **hooks: Callable[..., object]) -> types.ModuleType:
    """A module named `name` with hook implementations, like a plugin's `hooks.py`.

    Example: `make_plugin("mine", det_backbones=lambda: [MyBackboneConfig])`.
    """
    module = types.ModuleType(name)
    for hook, function in hooks.items():
        setattr(module, hook, hookimpl(specname=hook)(function))
    return module


def entry_point(plugin: object, name: str = "", distribution: str = "", version: str = "1.0") -> EntryPoint:
    """The entry point of a plugin. If `plugin` is an exception, loading the entry point raises it."""
    name = name or getattr(plugin, "__name__", type(plugin).__name__).rpartition(".")[2]

    def load() -> object:
        if isinstance(plugin, BaseException):
            raise plugin
        return plugin

    return name, distribution or f"det-plugin-{name}", version, load


@contextmanager
def isolated_manager(*plugins: object, choice: str | None = None) -> Iterator[PluginManager]:
    """Make `plugin_manager()` return a manager with only these plugins, and restore the old one at the end.

    plugins: modules or objects with hooks, or results of `entry_point`. choice: the value of DET_PLUGINS.
    """
    points = [p if isinstance(p, tuple) else entry_point(p) for p in plugins]
    manager = PluginManager(points, choice=choice)
    before = use_manager(manager)
    try:
        yield manager
    finally:
        use_manager(before)


def stub_config(cls: type[T]) -> type[T]:
    """A `configclass` for tests of its environment: abstract methods that it does not define raise when called."""
    for name in getattr(cls, "__abstractmethods__", ()):
        setattr(cls, name, _undefined(f"{cls.__name__}.{name}()"))
    return configclass(abc.update_abstractmethods(cls))


def _undefined(what: str) -> Callable[..., object]:
    def method(*args: object, **kwargs: object) -> object:
        raise NotImplementedError(f"{what} is not defined by this stub")

    return method
