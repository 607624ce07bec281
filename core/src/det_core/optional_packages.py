"""Packages of the extras of det-core, imported where they are used."""

from __future__ import annotations

import importlib
from types import ModuleType

from det_core.errors import DetError


def require(package: str, purpose: str, extra: str) -> ModuleType:
    """Import a package of an extra; DetError, with what to install, if it cannot be imported.

    purpose: what requires it, as the beginning of the message.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise DetError(
            f"{purpose} requires {package}, which cannot be imported ({error}); install it with "
            f"`pip install 'det-core[{extra}]'`, or from a checkout with `pip install './core[{extra}]'`"
        ) from None
