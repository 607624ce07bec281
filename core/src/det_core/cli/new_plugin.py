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
from det_core.cli.plugin_kinds import DEFAULT_KIND, KINDS, Kind
from det_core.errors import DetError
from det_core.plugins import plugin_manager
from det_core.safe_write import write_text

_NAME = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*")
_SUFFIX = ".template"
EXAMPLES = {"yaml": "example.yaml.template", "python": "example.py.template"}  # blocks of the README


@frozen
class Package:
    """A created package: its folder, the plugin's entry-point name, a command that trains, and its files.

    The files are relative to the folder.
    """

    folder: Path
    plugin: str
    command: str
    files: tuple[str, ...]


def write_plugin(name: str, out: Path, kind: str = DEFAULT_KIND) -> Package:
    """Create the package `det-plugin-NAME` in `out`, with a part of a kind of `KINDS`.

    Raises:
        DetError: for an invalid or used name, or an existing folder.
    """
    _check_name(name)
    what, templates = KINDS[kind], resources.files("det_core.cli") / "templates"
    folder = out / f"det-plugin-{name.replace('_', '-')}"
    if folder.exists():
        raise DetError(f"{folder}: already exists; choose another name or --out, or remove the folder")
    values = _values(name, what)
    values |= {language: _filled(templates / what.slot / file, values) for language, file in EXAMPLES.items()}
    files = []
    for root in (templates / "common", templates / what.slot):
        for path, text in _templates(root):
            target = Template(path.removesuffix(_SUFFIX).replace("MODULE", "$module")).substitute(values)
            write_text(folder / target, Template(text).substitute(values))
            files.append(target)
    return Package(folder, values["plugin"], values["command"], tuple(sorted(files)))


def _values(name: str, kind: Kind) -> dict[str, str]:
    """What the names in the templates are replaced by."""
    plugin, dashed = name.replace("-", "_"), name.replace("_", "-")
    part = "".join(word.capitalize() for word in plugin.split("_")) + kind.part
    module, type_ = f"det_plugin_{plugin}", f"{plugin}_{kind.slot}"
    public = {kind.slot: kind.export or part, "config": f"{part}Config"}
    version = ".".join(__version__.split(".")[:2])
    next_major = str(int(__version__.split(".")[0]) + 1)
    return {
        "plugin": plugin,
        "distribution": f"det-plugin-{dashed}",
        "module": module,
        "Part": part,
        "type": type_,
        "recipe": f"{dashed}/{'demo' if kind.demo else 'own-data'}",
        "version": version,
        "next_major": next_major,
        "slot": kind.slot,
        "title": kind.title,
        "hook": kind.hook,
        "base": kind.base,
        "changes": "\n".join(f'    "{Template(change).substitute(type=type_)}",' for change in kind.changes),
        "required": kind.requires,
        "requires": f'"{kind.requires}>={version},<{next_major}", ',
        "summary": kind.summary,
        "content": kind.content,
        "demo": str(kind.demo),
        "command": f"det-core train --plugin {plugin}" + ("" if kind.demo else " --data my_data"),
        "where": "on det's bundled sample" if kind.demo else "on your data",
        "imports": "\n".join(
            f"    from {module}.{file} import (\n        {n} as {n},\n    )" for file, n in sorted(public.items())
        ),
        "names": "\n".join(f'        "{file}": "{n}",' for file, n in sorted(public.items())),
    }


def _filled(template: Traversable, values: dict[str, str]) -> str:
    return Template(template.read_text(encoding="utf8")).substitute(values).rstrip()


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
        elif entry.name.endswith(_SUFFIX) and entry.name not in EXAMPLES.values():
            yield f"{prefix}{entry.name}", entry.read_text(encoding="utf8")
