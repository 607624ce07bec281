"""What hooks return beside configurations: zoo entries, and how other projects name the weights of a component."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs
from attrs import frozen

from det_core.recipe import Published, Recipe
from det_core.settings import Component

if TYPE_CHECKING:
    from torch import Tensor


@frozen(kw_only=True)
class RecipeEntry:
    """A zoo entry as a plugin lists it: cheap to make, its recipe is made only when asked for.

    requires: distributions beyond the plugin's own. default, demo: what `--plugin` means with and without `--data`.
    """

    name: str
    make: Callable[[], Recipe]
    requires: tuple[str, ...] = ()
    published: Published | None = None
    default: bool = False
    demo: bool = False
    summary: str = ""

    def missing(self) -> list[str]:
        """Required distributions that are not installed."""
        return [name for name in self.requires if not _installed(name)]


def _installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


@frozen
class Part:
    """A component inside a component: its configuration, and what its names begin with in the source (or nothing)."""

    config: Component
    prefix: str


@frozen(eq=False)
class Change:
    """What is done to a source's value on import: in words, and the function."""

    note: str
    apply: Callable[[Tensor], Tensor]


@frozen
class Names:
    """Our names to theirs, for one component.

    rules: (regular expression, replacement), the first that matches from the start of our name is applied; a name
    that none matches is the same in both. parts: our sub-module's name to what is inside it. changes: (regular
    expression, change), for values that the source lays out otherwise; the first that matches our name is applied.
    """

    rules: tuple[tuple[str, str], ...] = ()
    parts: Mapping[str, Part] = attrs.field(factory=dict)
    changes: tuple[tuple[str, Change], ...] = ()


@frozen(eq=False)
class WeightMap:
    """How checkpoints of `source` name the weights of a component."""

    source: str
    component: type[Component]
    names: Callable[[Any], Names]
