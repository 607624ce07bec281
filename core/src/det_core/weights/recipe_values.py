"""Values in a recipe's plain data, and whether a file of another project has the same. Imports no torch."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

MISSING = object()


def look_up(plain: Any, path: str) -> Any:
    """The value at a path such as `a.b[2].c`; `MISSING` if there is none."""
    for step in re.findall(r"[^.\[\]]+", path):
        if isinstance(plain, list) and step.isdecimal() and int(step) < len(plain):
            plain = plain[int(step)]
        elif isinstance(plain, Mapping) and step in plain:
            plain = plain[step]
        else:
            return MISSING
    return plain


def differs(plain: Any, path: str, value: Any) -> bool:
    """Whether the recipe has this setting with another value. Where the file says nothing (None) nothing differs."""
    ours = look_up(plain, path)
    return value is not None and ours is not MISSING and not _same(ours, value)


def _same(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, (list, tuple)) and isinstance(theirs, (list, tuple)):
        return len(ours) == len(theirs) and all(map(_same, ours, theirs))
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        return ours.keys() == theirs.keys() and all(_same(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, (int, float)) and isinstance(theirs, (int, float)):
        try:
            return math.isclose(ours, theirs, rel_tol=1e-6)
        except OverflowError:  # a whole number above all floats
            return ours == theirs
    return bool(ours == theirs)


def as_setting(value: Any) -> str:
    """A value as `--set` reads it."""
    return value if isinstance(value, str) else json.dumps(value)
