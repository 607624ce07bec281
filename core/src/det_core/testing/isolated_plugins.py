"""A plugin manager isolated from what is installed, and plugins made on the spot."""

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
    """A module named `name` whose hook implementations are `hooks`, as a plugin's `hooks.py` would have them.

    Example: `make_plugin("mine", det_backbones=lambda: [MyBackboneConfig])`.
    """
    module = types.ModuleType(name)
    for hook, function in hooks.items():
        setattr(module, hook, hookimpl(specname=hook)(function))
    return module


def entry_point(plugin: object, name: str = "", distribution: str = "", version: str = "1.0") -> EntryPoint:
    """An installed plugin, as the manager sees one; an exception in the place of a plugin is raised on import."""
    name = name or getattr(plugin, "__name__", type(plugin).__name__).rpartition(".")[2]

    def load() -> object:
        if isinstance(plugin, BaseException):
            raise plugin
        return plugin

    return name, distribution or f"det-plugin-{name}", version, load


@contextmanager
def isolated_manager(*plugins: object, choice: str | None = None) -> Iterator[PluginManager]:
    """Inside, `plugin_manager()` knows these plugins alone: modules or objects with hooks, or what `entry_point` gives.

    `choice` is what the environment variable DET_PLUGINS would say. The manager from before comes back at the end.
    """
    points = [p if isinstance(p, tuple) else entry_point(p) for p in plugins]
    manager = PluginManager(points, choice=choice)
    before = use_manager(manager)
    try:
        yield manager
    finally:
        use_manager(before)


def stub_config(cls: type[T]) -> type[T]:
    """A `configclass` for tests of what surrounds it: methods of its slot that it does not define raise when called."""
    for name in getattr(cls, "__abstractmethods__", ()):
        setattr(cls, name, _undefined(f"{cls.__name__}.{name}()"))
    return configclass(abc.update_abstractmethods(cls))


def _undefined(what: str) -> Callable[..., object]:
    def method(*args: object, **kwargs: object) -> object:
        raise NotImplementedError(f"{what} is not defined by this stub")

    return method
