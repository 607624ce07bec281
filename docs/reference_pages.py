"""The pages of the site that are written from the code: commands, settings and the Python API."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import attrs
import click

import det_core
from det_core.cli.main import cli
from det_core.config.plain import unstructure
from det_core.plugins import plugin_manager
from det_core.recipe import Recipe
from det_core.settings import Component, fields_of, is_config, is_union, limits_of
from det_core.slots import SLOTS

ARCHITECTURE = Path(__file__).resolve().parent / "architecture.md"
RECIPE = "recipe"  # the page of settings that are no parts
OBJECTS = {  # public names that are neither functions nor classes, which have no docstring of their own
    "det_core": {"hookimpl": "Marks a function as the implementation of a hook: `@hookimpl`."},
}


def paragraphs(text: str | None) -> list[str]:
    """The paragraphs of a docstring, each on one line."""
    return [" ".join(p.split()) for p in inspect.cleandoc(text or "").replace("\b", "").split("\n\n") if p.strip()]


def cell(text: str) -> str:
    """Text for a cell of a Markdown table."""
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()))
    return "".join(p if p.startswith("`") else re.sub(r"([<*\[\]])", r"\\\1", p) for p in parts).replace("|", "\\|")


# Commands


def commands() -> str:
    """Every command of `det-core` with its help and its options."""
    context = click.Context(cli, info_name="det-core", **cli.context_settings)
    parts = ["## det-core\n", options(cli, context)]
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        parts += command_section(command, name, context, "##")
    return "\n".join(parts)


def command_section(command: click.Command, name: str, parent: click.Context, level: str) -> list[str]:
    """A command and, for a group, those inside it."""
    context = click.Context(command, info_name=name, parent=parent, **command.context_settings)
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    text = [cell(p).replace("\\|", "|") + "\n" for p in paragraphs(command.help)]
    title = context.command_path.removeprefix("det-core ")
    parts = [f"{level} {title}\n", f"```text\n{usage}\n```\n", *text, options(command, context)]
    if isinstance(command, click.Group):
        for inner in command.list_commands(context):
            found = command.get_command(context, inner)
            assert found is not None
            parts += command_section(found, inner, context, "###")
    return parts


def options(command: click.Command, context: click.Context) -> str:
    records = [p.get_help_record(context) for p in command.get_params(context)]
    return "\n".join(f"- `{names}`: {cell(text)}".replace("\\|", "|") for names, text in filter(None, records)) + "\n"


# Settings


@cache
def settings_pages() -> dict[str, str]:
    """A page for the recipe and for each slot that has parts: name to Markdown."""
    manager = plugin_manager()
    found = {RECIPE: recipe_page()}
    for slot in SLOTS:
        classes = [manager.component(slot, name) for name in manager.types(slot)]
        if classes:
            intro = "\n\n".join(paragraphs(SLOTS[slot].__doc__))
            found[slot] = "\n".join([f"# {slot}\n", f"{intro}\n", *(part_section(c) for c in classes)])
    return found


def recipe_page() -> str:
    intro = (
        "# The recipe\n\nA recipe in YAML has these settings; so have the classes of these names in Python. A setting "
        "whose type is a slot takes a part, which `type` names.\n"
    )
    return "\n".join([intro, *(group_section(c) for c in setting_groups())])


@cache
def setting_groups() -> list[type]:
    """The configuration classes that are no parts: the recipe, and those that it and the parts have as fields."""
    manager = plugin_manager()
    found: dict[type, None] = {}
    waiting: list[Any] = [Recipe, *(manager.component(slot, n) for slot in SLOTS for n in manager.types(slot))]
    seen: set[Any] = set()
    while waiting:
        kind = waiting.pop(0)
        if kind in seen:
            continue
        seen.add(kind)
        waiting += get_args(kind) if get_origin(kind) is not Literal else ()
        if isinstance(kind, type) and is_config(kind):
            if not issubclass(kind, Component):
                found[kind] = None
            waiting += [f.type for f in fields_of(kind)]
    return list(found)


def part_section(config: type[Component]) -> str:
    state = plugin_manager().provider(config)
    origin = f"`{config.__module__}.{config.__name__}`" + (f" of {state.distribution}" if state else "")
    return "\n".join(
        [f"## {config.type}\n", *(f"{p}\n" for p in markdown(config)), f"{origin}\n", settings_table(config)]
    )


def group_section(config: type) -> str:
    origin = f"`{config.__module__}.{config.__name__}`\n"
    return "\n".join([f"## {config.__name__}\n", *(f"{p}\n" for p in markdown(config)), origin, settings_table(config)])


def markdown(config: type) -> list[str]:
    """The docstring of a configuration; indented code as it is."""
    parts = inspect.cleandoc(config.__doc__ or "").split("\n\n")
    return [p if p.startswith("    ") else cell(p).replace("\\|", "|") for p in parts]


def settings_table(config: type) -> str:
    rows = [
        f"| `{f.name}` | {type_words(f.type)} | {default_words(f)} | {cell(doc_words(f))} |" for f in fields_of(config)
    ]
    if not rows:
        return "No settings.\n"
    return "\n".join(["| setting | type | default | |", "|---|---|---|---|", *rows]) + "\n"


def doc_words(field: attrs.Attribute[Any]) -> str:
    """The description of a setting and its bounds."""
    limits = limits_of(field)
    extra = [limits.bounds()]
    if limits.min_items:
        extra.append(f"at least {limits.min_items} item{'s' * (limits.min_items > 1)}")
    words = "; ".join(filter(None, extra))
    return f"{field.metadata.get('doc', '')}{f' ({words})' if words else ''}"


def default_words(field: attrs.Attribute[Any]) -> str:
    if field.default is attrs.NOTHING:
        return "required"
    plain = unstructure(field.default)
    text = {None: "null", True: "true", False: "false"}.get(plain) if isinstance(plain, bool | None) else str(plain)
    if isinstance(plain, dict):
        rest = {k: v for k, v in plain.items() if k != "type"}
        if "type" not in plain:
            return "its defaults"
        text = plain["type"] + (", ..." if rest else "")
    text = (text or '""') if len(str(text)) <= 40 else f"{str(text)[:37]}..."
    return f"`{text}`".replace("|", "\\|")


def type_words(kind: Any, link: bool = True) -> str:
    """A type in words, with links to the pages of slots and groups."""
    if kind is type(None):
        return "null"
    args = get_args(kind)
    if get_origin(kind) is Literal:
        return ", ".join(f"`{a}`" for a in args)
    if is_union(kind):
        return " or ".join(type_words(a, link) for a in args)
    if get_origin(kind) is tuple:
        if len(args) == 2 and args[1] is Ellipsis:
            return f"list of {type_words(args[0], link)}"
        return f"[{', '.join(type_words(a, False) for a in args)}]".replace("[", "\\[").replace("]", "\\]")
    if issubclass(kind, Component):
        return f"[{kind.slot}]({kind.slot}.md)" if link else kind.slot
    if is_config(kind):
        return f"[{kind.__name__}]({RECIPE}.md#{kind.__name__.lower()})" if link else kind.__name__
    return "text" if kind in (str, Path) else str(kind.__name__)


def add_settings(_app: Any, what: str, _name: str, thing: Any, _options: Any, lines: list[str]) -> None:
    """Put the bases of a class before its docstring, and the settings of a configuration after it (autodoc's event)."""
    if what != "class" or not isinstance(thing, type):
        return
    bases = [f":py:class:`~{b.__module__}.{b.__qualname__}`" for b in thing.__bases__ if is_ours(b)]
    if bases:
        lines[:0] = [f"Base{'s' * (len(bases) > 1)}: {', '.join(bases)}", ""]
    if not is_config(thing):
        return
    for field in fields_of(thing):
        kind = type_words(field.type, link=False).replace("`", "").replace("\\", "")
        default = default_words(field).strip("`").replace("\\|", "|")
        known = default if default == "required" else f"default {default}"
        lines += ["", escaped(f"``{field.name}`` : {kind}, {known}"), escaped(f"    {doc_words(field)}")]


def is_ours(base: type) -> bool:
    return base.__module__.startswith("det_") and "[" not in base.__qualname__


def escaped(line: str) -> str:
    """A line of a docstring in which only backticks and *emphasis* are markup."""
    parts = re.split(r"(`+[^`]*`+|(?<!\S)\*\w[^*]*\w\*(?!\w))", line)
    return "".join(p if i % 2 else re.sub(r"([*|])", r"\\\1", p) for i, p in enumerate(parts))


def mark_code(_app: Any, _what: str, _name: str, _thing: Any, _options: Any, lines: list[str]) -> None:
    """Indented blocks of a docstring are code, the rest is text (an event of autodoc, before that of napoleon)."""
    made: list[str] = []
    before = ""  # the last line with text
    for line in lines:
        indented = line.startswith("    ") and made and not made[-1].strip()
        if indented and before and not before.startswith(" ") and not re.fullmatch(r"[A-Z]\w+:", before):
            made += ["::", ""]
        before = line if line.strip() else before
        made.append(line if line.startswith("    ") and "::" in made else escaped(line))
    lines[:] = made


def hide_signature(_app: Any, what: str, _name: str, thing: Any, *_: Any) -> tuple[str, str] | None:
    """No signature for a configuration class, whose settings follow (an event of autodoc)."""
    return ("", "") if what == "class" and isinstance(thing, type) and is_config(thing) else None


# Python


@cache
def public_modules() -> tuple[str, ...]:
    """The modules of core that docs/architecture.md does not list as private, and `det_ops`."""
    table = ARCHITECTURE.read_text(encoding="utf8").partition("## What is not public")[2].partition("\n## ")[0]
    private = set(re.findall(r"^\| `(det_core\.[\w.]+)`", table, re.MULTILINE))
    found = [m.name for m in pkgutil.walk_packages(det_core.__path__, "det_core.")]
    public = [m for m in found if not any(m == p or m.startswith(f"{p}.") for p in private) and "._" not in m]
    documented = [m for m in public if m != "det_core.__main__" and summary(m) and not empty(m)]
    return ("det_core", *documented, "det_ops")


def source_of(module: str) -> ast.Module:
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return ast.parse(Path(spec.origin).read_text(encoding="utf8"))


def empty(module: str) -> bool:
    """Whether a module defines nothing, as the `__init__` of a folder does."""
    return len(source_of(module).body) <= 1


def summary(module: str) -> str:
    """The first sentence of a module's docstring."""
    first = (paragraphs(ast.get_docstring(source_of(module))) or [""])[0]
    return re.split(r"(?<=[.:]) ", first)[0].rstrip(":")


@cache
def api_pages() -> dict[str, str]:
    """A page for each public module of core, or for all modules of one folder: name to Markdown."""
    rooms: dict[str, list[str]] = {}
    for module in public_modules():
        rooms.setdefault(".".join(module.split(".")[:2]), []).append(module)
    return {room: api_page(room, modules) for room, modules in rooms.items()}


def api_page(room: str, modules: list[str]) -> str:
    parts = [f"# {room}\n"]
    for module in modules:
        imported = module in ("det_core", "det_ops")  # whose names come from other modules
        lines = [f".. automodule:: {module}", *(["   :imported-members:"] if imported else [])]
        parts += [f"## {module}\n"] if module != room else []
        for name, text in OBJECTS.get(module, {}).items():
            lines += ["", f".. py:data:: {module}.{name}", "", f"   {text}"]
        parts.append("\n".join(["```{eval-rst}", *lines, "```"]) + "\n")
    return "\n".join(parts)


def api_list() -> str:
    """A table of the pages, with the modules on each."""
    rows = []
    for room in api_pages():
        inside = [m for m in public_modules() if m.startswith(f"{room}.") and room != "det_core"]
        text = ", ".join(f"`{m.removeprefix(f'{room}.')}`" for m in inside) or cell(summary(room))
        rows.append(f"| [{room}](api/{room}.md) | {text} |")
    return "\n".join(["| module | |", "|---|---|", *rows]) + "\n"
