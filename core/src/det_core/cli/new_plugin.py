"""The package that `det-core plugins new NAME` creates: a working plugin with tests."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template

from attrs import frozen

from det_core import __version__
from det_core.errors import DetError
from det_core.plugins import plugin_manager
from det_core.safe_write import replacing

_NAME = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*")
_SUFFIX = ".template"


@frozen
class Package:
    """A created package: its folder, the plugin's entry-point name, and its files relative to the folder."""

    folder: Path
    plugin: str
    files: tuple[str, ...]


def write_plugin(name: str, out: Path) -> Package:
    """Create the package `det-plugin-NAME` in `out`; DetError for an invalid or used name, or an existing folder."""
    _check_name(name)
    plugin, dashed = name.replace("-", "_"), name.replace("_", "-")
    folder = out / f"det-plugin-{dashed}"
    if folder.exists():
        raise DetError(f"{folder}: already exists; choose another name or --out, or remove the folder")
    values = {
        "plugin": plugin,
        "distribution": f"det-plugin-{dashed}",
        "module": f"det_plugin_{plugin}",
        "Class": "".join(part.capitalize() for part in plugin.split("_")),
        "type": f"{plugin}_box_head",
        "recipe": f"{dashed}/demo",
        "version": ".".join(__version__.split(".")[:2]),
        "next_major": str(int(__version__.split(".")[0]) + 1),
    }
    files = []
    for path, text in _templates(resources.files("det_core.cli") / "templates"):
        target = Template(path.removesuffix(_SUFFIX).replace("MODULE", "$module")).substitute(values)
        with replacing(folder / target) as file:
            file.write_text(Template(text).substitute(values), encoding="utf8")
        files.append(target)
    return Package(folder, plugin, tuple(sorted(files)))


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise DetError(
            f"{name!r} is not a valid plugin name; use lower-case letters and digits, in words joined by - or _, "
            "beginning with a letter, such as my-head"
        )
    plain = name.replace("-", "_")
    if name.startswith(("det-plugin-", "det_plugin_")):
        raise DetError(f"{name!r}: remove the prefix, det adds it: det-core plugins new {name[len('det-plugin-') :]}")
    for installed in plugin_manager().plugins:
        if installed.name.replace("-", "_") == plain:
            raise DetError(f"a plugin {installed.name!r} is already installed ({installed.label}); choose another name")


def _templates(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, str]]:
    """The path, relative to the folder, and text of every template."""
    for entry in sorted(folder.iterdir(), key=lambda e: e.name):
        if entry.is_dir():
            yield from _templates(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(_SUFFIX):
            yield f"{prefix}{entry.name}", entry.read_text(encoding="utf8")
