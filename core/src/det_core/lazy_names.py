"""Import a package's public names on first use (PEP 562), so that importing the package itself is fast."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping

Lazy = tuple[Callable[[str], object], Callable[[], list[str]], list[str]]


def lazy_names(package: str, modules: Mapping[str, str]) -> Lazy:
    """Return `__getattr__`, `__dir__` and `__all__` for a package.

        __getattr__, __dir__, __all__ = lazy_names(__name__, {"neck": "FPN", "config": "FPNConfig"})

    For type checkers, import the same names under TYPE_CHECKING, with `as` to mark each as public.

    Args:
        package: the package's `__name__`.
        modules: maps a module (relative to the package) to its public names, separated by spaces.
    """
    home = {name: f"{package}.{module}" for module, names in modules.items() for name in names.split()}

    def load(name: str) -> object:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(home[name]), name)
        setattr(sys.modules[package], name, value)  # later lookups skip `__getattr__`
        return value

    return load, lambda: sorted({*vars(sys.modules[package]), *home}), sorted(home)
