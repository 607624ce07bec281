"""The optional packages that exporting requires."""

from __future__ import annotations

import importlib
from types import ModuleType

from det_core.errors import DetError


def require(package: str, purpose: str) -> ModuleType:
    """Import a package of the extra `export`; DetError, with what to install, if it is not installed."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise DetError(
            f"{purpose} requires {package}, which cannot be imported ({error}); install it with "
            "`pip install 'det-core[export]'`, or from a checkout with `pip install './core[export]'`"
        ) from None
