"""Return types of hooks: zoo entries, weight maps, sources of checkpoints, commands of the command line."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
from attrs import frozen

from det_core.recipe import Published, Recipe
from det_core.settings import Component

if TYPE_CHECKING:
    import click
    from torch import Tensor


@frozen(kw_only=True)
class RecipeEntry:
    """A zoo entry. `make` is called only when the recipe is used, so that listing entries is fast.

    requires: distributions that the recipe needs besides the plugin's. default, demo: whether `--plugin` selects this
    recipe with and without `--data`. weights_of: the source (`mmdet1`, `torchvision`) whose conventions the recipe has,
    for its weights; "" for those of mmdet 2.x and 3.x. published_weights: the name of weights that others published for
    this very model (`torchvision:ssd300_vgg16`), which `--init` and import-weights download; "" if there are none.
    """

    name: str
    make: Callable[[], Recipe]
    requires: tuple[str, ...] = ()
    published: Published | None = None
    default: bool = False
    demo: bool = False
    summary: str = ""
    weights_of: str = ""
    published_weights: str = ""

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
    """A component inside a component: its configuration, and the prefix of its names in the source (may be empty)."""

    config: Component
    prefix: str


@frozen(eq=False)
class Change:
    """A conversion of a source's value on import: a description, and the function."""

    note: str
    apply: Callable[[Tensor], Tensor]


@frozen
class Names:
    """Maps det's parameter names of one component to the source's.

    rules: (regular expression, replacement); the first that matches at the start of det's name is applied, and a name
    without a match is unchanged. parts: det's sub-module name to the component in it. changes: (regular expression,
    change) for values with another layout in the source; the first that matches det's name is applied.
    """

    rules: tuple[tuple[str, str], ...] = ()
    parts: Mapping[str, Part] = attrs.field(factory=dict)
    changes: tuple[tuple[str, Change], ...] = ()


@frozen(eq=False)
class WeightMap:
    """Maps the parameter names of a component to those in checkpoints of `source`."""

    source: str
    component: type[Component]
    names: Callable[[Any], Names]


@frozen(kw_only=True)
class CheckpointSource:
    """Makes addresses `SCHEME://...` usable wherever a checkpoint is taken: `--checkpoint`, `--init`, `load_detector`.

    scheme: lower-case letters and digits, such as `hf`. fetch: from the whole address to a local `.safetensors` file or
    checkpoint folder. It is called every time that the address is used, by each process, so it keeps what it fetched.
    It imports what it needs itself, and raises DetError for an address that does not lead to a checkpoint.
    """

    scheme: str
    fetch: Callable[[str], Path]


@frozen(kw_only=True)
class CommandEntry:
    """A command of `det-core`. `load` imports it, and is called only when it runs, so that `--help` is fast.

    name: as it is typed, such as `push`. help: its line in `det-core --help`. load: returns the click command.
    """

    name: str
    help: str
    load: Callable[[], click.Command]
