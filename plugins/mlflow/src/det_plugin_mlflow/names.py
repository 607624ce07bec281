"""Names and values that MLflow takes: names of metrics and parameters, and texts of limited length."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping

NAME_LENGTH = 250
VALUE_LENGTH = 500  # of a parameter; what servers since 1.28 take
TAG_LENGTH = 5000

_OTHER = re.compile(r"[^A-Za-z0-9_.\- :/]")


class Names:
    """Makes names valid: other characters become `_`, and names that then are equal get a number, in order."""

    def __init__(self) -> None:
        self._valid: dict[str, str] = {}
        self._used: set[str] = set()

    def __call__(self, name: str) -> str:
        if name not in self._valid:
            plain = _plain(name)
            valid, count = plain, 1
            while valid in self._used:
                count += 1
                valid = f"{plain[: NAME_LENGTH - 6]}-{count}"
            self._used.add(valid)
            self._valid[name] = valid
        return self._valid[name]


def _plain(name: str) -> str:
    """A name of allowed characters that is a normal relative path, as MLflow requires."""
    text = _OTHER.sub("_", name)[:NAME_LENGTH]
    parts = ["_" if part.strip() in ("", ".", "..") else part for part in text.split("/")]
    return posixpath.normpath("/".join(parts))


def apart(metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics of a class under `box_ap_by_class/person`: in a store of files, `box_ap` cannot be a folder, too."""
    return {
        f"{metric}_by_class/{of_class}" if slash and metric in metrics else name: value
        for name, value in metrics.items()
        for metric, slash, of_class in [name.partition("/")]
    }


def shortened(text: str, length: int) -> str:
    """At most `length` characters, with `...` at the end if some are left out."""
    return text if len(text) <= length else text[: length - 3] + "..."
