"""Public names of a package that are imported when they are first used (PEP 562): importing it costs nothing."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping

Lazy = tuple[Callable[[str], object], Callable[[], list[str]], list[str]]


def lazy_names(package: str, homes: Mapping[str, str]) -> Lazy:
    """`__getattr__`, `__dir__` and `__all__` of a package.

        __getattr__, __dir__, __all__ = lazy_names(__name__, {"neck": "FPN", "config": "FPNConfig"})

    Type checkers read the same names from imports under TYPE_CHECKING, each `as` itself, which marks it as public.

    Args:
        package: the package's `__name__`.
        homes: module (below the package) to the public names in it, separated by blanks.
    """
    home = {name: f"{package}.{module}" for module, names in homes.items() for name in names.split()}

    def load(name: str) -> object:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(home[name]), name)
        setattr(sys.modules[package], name, value)  # found at once from now on
        return value

    return load, lambda: sorted({*vars(sys.modules[package]), *home}), sorted(home)
