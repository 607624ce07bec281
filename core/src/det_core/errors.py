"""Errors for mistakes of the user, and helpers for their messages."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence

from attrs import frozen


@frozen
class Problem:
    """One mistake in a configuration: where it is (`detector.roi_head.box_head.num_convs`) and what is wrong.

    line: of the configuration file, from 1; None if it is not known.
    """

    path: str
    message: str
    line: int | None = None

    def under(self, parent: str) -> Problem:
        """The same problem, seen from one level up."""
        dot = "" if not parent or not self.path or self.path.startswith("[") else "."
        return Problem(f"{parent}{dot}{self.path}", self.message, self.line)

    def __str__(self) -> str:
        line = "" if self.line is None else f"line {self.line}: "
        return f"{line}{self.path}: {self.message}" if self.path else f"{line}{self.message}"


class DetError(Exception):
    """A mistake of the user (input, data, environment). The command line shows it without a traceback."""


class ConfigError(DetError, ValueError):
    """A configuration is invalid. `problems` lists every mistake.

    source: the configuration file. owner: the class that raised the error, for a configuration made in Python.
    """

    def __init__(self, problems: Iterable[Problem], source: str = "", owner: str = "") -> None:
        self.problems = tuple(problems)
        self.source, self.owner = source, owner
        super().__init__(self.problems, source, owner)

    @classmethod
    def at(cls, path: str, message: str, source: str = "") -> ConfigError:
        """An error with one problem. If `path` is empty, the caller adds it with `under`."""
        return cls([Problem(path, message)], source)

    def under(self, path: str) -> ConfigError:
        """The same error, with every problem below `path`."""
        return ConfigError([p.under(path) for p in self.problems])

    def with_lines(self, lines: Mapping[str, int]) -> ConfigError:
        """The same error, each problem with the line of its path, or else of the innermost part that has a line."""
        problems = [Problem(p.path, p.message, _line_of(p.path, lines)) for p in self.problems]
        return ConfigError(problems, self.source, self.owner)

    def __str__(self) -> str:
        lines = [str(p.under(self.owner)) for p in self.problems]
        if self.source:
            return "\n".join([f"{self.source}: {counted(len(lines), 'problem')}", *(f"  {line}" for line in lines)])
        return "\n".join(lines)


def _line_of(path: str, lines: Mapping[str, int]) -> int | None:
    while path and path not in lines:
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    return lines.get(path)


class DataError(DetError):
    """The files of a data set are missing or invalid."""


class PluginError(DetError):
    """A plugin, or something that a plugin should provide, is missing or broken."""


class WeightsError(DetError, ValueError):
    """Weights cannot be read or do not fit the detector."""

    @classmethod
    def listing(cls, title: str, problems: Sequence[str], limit: int = 20) -> WeightsError:
        """An error that lists problems: a title with their count, then the first `limit` of them."""
        return cls("\n".join([f"{title}: {counted(len(problems), 'problem')}", *listing(problems, limit)]))


def counted(count: int, noun: str, ending: str = "s") -> str:
    """`1 problem`, `2 problems`; ending: of the plural."""
    return f"{count} {noun}{'' if count == 1 else ending}"


def listing(items: Sequence[object], limit: int = 10) -> list[str]:
    """An indented line for each of the first `limit` items, and one line that counts the rest."""
    more = [f"  ... and {len(items) - limit} more"] if len(items) > limit else []
    return [*(f"  {item}" for item in items[:limit]), *more]


def first_few(items: Sequence[object], limit: int = 5) -> str:
    """The first `limit` items, separated by commas, then `, ...` if there are more."""
    return ", ".join(map(str, items[:limit])) + (", ..." if len(items) > limit else "")


def nearest(name: str, candidates: Iterable[str]) -> str:
    """`; did you mean "x"?` with the closest names, or an empty string if no name is close."""
    close = difflib.get_close_matches(name, list(candidates), n=3, cutoff=0.6)
    ratios = [difflib.SequenceMatcher(None, c, name).ratio() for c in close]
    best = [c for c, ratio in zip(close, ratios, strict=True) if ratio > ratios[0] - 0.1]
    return "; did you mean " + " or ".join(f'"{c}"' for c in best) + "?" if best else ""


# A path has one slash of the two, and an absolute one begins with the working folder.
_ADDRESS = re.compile(r"(?:^|/)(https?|ftp|s3|gs|hf):/+")


def no_such(path: object, what: str) -> str:
    """`PATH: what`, for a path that does not exist; of a web address, that it is one and must be downloaded first."""
    text = str(path)
    if address := _ADDRESS.search(text):
        return f"{address[1]}://{text[address.end() :]}: a web address; only local files are read, so download it first"
    return f"{text}: {what}"
