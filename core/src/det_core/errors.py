"""What a user did wrong, and how it is said: every error that is shown without a traceback is a `DetError`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from attrs import frozen


@frozen
class Problem:
    """One mistake in a configuration: where it is (`detector.roi_head.box_head.num_convs`) and what is wrong."""

    path: str
    message: str

    def under(self, parent: str) -> Problem:
        """The same problem, seen from one level up."""
        if not parent or not self.path or self.path.startswith("["):
            return Problem(f"{parent}{self.path}", self.message)
        return Problem(f"{parent}.{self.path}", self.message)

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class DetError(Exception):
    """A mistake of the user's (input, data, environment): shown without a traceback by the command line."""


class ConfigError(DetError, ValueError):
    """A configuration is wrong. `problems` lists every mistake found in it.

    source: the file that it is from. owner: the class whose constructor refused it, for what is made in Python.
    """

    def __init__(self, problems: Iterable[Problem], source: str = "", owner: str = "") -> None:
        self.problems = tuple(problems)
        self.source, self.owner = source, owner
        super().__init__(self.problems, source, owner)

    @classmethod
    def at(cls, path: str, message: str, source: str = "") -> ConfigError:
        """The error of one problem; an empty path is the place where the error is caught and placed."""
        return cls([Problem(path, message)], source)

    def under(self, path: str) -> ConfigError:
        """The same error, with every problem below `path`."""
        return ConfigError([p.under(path) for p in self.problems])

    def __str__(self) -> str:
        lines = [str(p.under(self.owner)) for p in self.problems]
        if self.source:
            return "\n".join([f"{self.source}: {counted(len(lines), 'problem')}", *(f"  {line}" for line in lines)])
        return "\n".join(lines)


class DataError(DetError):
    """Something is wrong with a data set's files."""


class PluginError(DetError):
    """A plugin, or something a plugin should provide, is missing or broken."""


class WeightsError(DetError, ValueError):
    """Weights do not fit, or cannot be read."""

    @classmethod
    def listing(cls, title: str, problems: Sequence[str], limit: int = 20) -> WeightsError:
        """The error of several problems: a title with their count, and the first of them."""
        return cls("\n".join([f"{title}: {counted(len(problems), 'problem')}", *listing(problems, limit)]))


def counted(count: int, noun: str) -> str:
    """`1 problem`, `2 problems`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def listing(items: Sequence[object], limit: int = 10) -> list[str]:
    """An indented line for each of the first `limit` items, and one that counts the rest."""
    more = [f"  ... and {len(items) - limit} more"] if len(items) > limit else []
    return [*(f"  {item}" for item in items[:limit]), *more]


def nearest(name: str, candidates: Iterable[str]) -> str:
    """`; did you mean "x"?` for the closest name, and others nearly as close; else an empty string."""
    close = difflib.get_close_matches(name, list(candidates), n=3, cutoff=0.6)
    ratios = [difflib.SequenceMatcher(None, c, name).ratio() for c in close]
    alike = [c for c, ratio in zip(close, ratios, strict=True) if ratio > ratios[0] - 0.1]
    return "; did you mean " + " or ".join(f'"{c}"' for c in alike) + "?" if alike else ""
