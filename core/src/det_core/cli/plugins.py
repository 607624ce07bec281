"""`det-core plugins`: list installed plugins, what each provides, and failures; `plugins new` creates a plugin."""

from __future__ import annotations

import textwrap
from pathlib import Path

import attrs
import click

from det_core.cli.output import print_json, print_table
from det_core.cli.plugin_kinds import DEFAULT_KIND, KINDS
from det_core.plugins import PluginManager, PluginState, plugin_manager


@click.group(name="plugins", invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """List installed plugins: name, distribution, version, state, and what each one adds.

    The environment variable DET_PLUGINS limits what is loaded: `a,b` only these, `-a` all except a, empty only core.
    """
    if ctx.invoked_subcommand is not None:
        return
    manager = plugin_manager()
    if as_json:
        print_json([attrs.asdict(p, filter=attrs.filters.exclude("trace")) for p in manager.plugins])
    else:
        _show(manager, debug=bool(ctx.find_root().params.get("debug")))


def _show(manager: PluginManager, *, debug: bool) -> None:
    rows = [(p.name, p.distribution, p.version, p.state, _adds(p)) for p in manager.plugins]
    print_table(("plugin", "distribution", "version", "state", "adds"), rows)
    failed = [p for p in manager.plugins if p.errors]
    for plugin in failed:
        click.echo(f"\n{plugin.label} ({plugin.state}):")
        for error in plugin.errors:
            click.echo(textwrap.indent(error, "  "))
        if debug and plugin.trace:
            click.echo(textwrap.indent(plugin.trace, "    "))
    if any(p.trace for p in failed) and not debug:
        click.echo("\n`det-core --debug plugins` shows the tracebacks.")
    for warning in manager.warnings():
        click.echo(f"\nwarning: {warning}")


def _adds(plugin: PluginState) -> str:
    """`backbone: resnet; 6 recipes`: names of components and commands, and counts of recipes and weight maps."""
    parts = []
    for kind, names in plugin.provides.items():
        if kind in ("recipe", "weight map"):
            parts.append(f"{len(names)} {kind}{'s' if len(names) != 1 else ''}")
        elif kind == "run hook":
            parts.append("follows training runs")
        else:
            parts.append(f"{kind}: {', '.join(names)}")
    return "; ".join(parts) or "nothing"


@command.command()
@click.argument("name")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    show_default="the current folder",
    help="Folder in which the package's folder is created.",
)
@click.option(
    "--kind",
    type=click.Choice(list(KINDS)),
    default=DEFAULT_KIND,
    show_default=True,
    help="What the package adds.",
)
def new(name: str, out: Path, kind: str) -> None:
    """Create a package det-plugin-NAME with a small working part, a recipe, and tests that check det's contracts."""
    from det_core.cli.new_plugin import write_plugin

    package = write_plugin(name, out, kind)
    click.echo(f"wrote {package.folder}:")
    for file in package.files:
        click.echo(f"  {file}")
    click.echo(f"next:\n  pip install -e {package.folder}\n  pytest {package.folder}\n  {package.command}")
