"""`det-core`: the command line. Each verb is imported only when it runs.

The verbs of core are in `det_core.cli.verbs`; plugins add commands by the hook `det_commands`. A `DetError` becomes a
message on stderr and exit status 1.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Any

import click

from det_core import __version__
from det_core.cli.verbs import COMMANDS, VERBS
from det_core.errors import DetError, PluginError
from det_core.plugin_file import load_plugin_file
from det_core.plugins import plugin_manager


class _Failure(click.ClickException):
    """A mistake of the user, shown as `error: ...`."""

    def show(self, file: Any = None) -> None:
        click.echo(f"error: {self.message}", err=True)


class _Verbs(click.Group):
    """A group that lists its commands without importing them: core's own, which no plugin can replace, and plugins'."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_helps())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        own = next((entry for entry in COMMANDS if entry.name == cmd_name), None)
        if own is None and cmd_name not in plugin_manager().commands():
            return None
        command = plugin_manager().command(cmd_name) if own is None else own.load()
        if not any(p.name == PLUGIN_FILE for p in command.params):
            command.params.append(_plugin_file_option())
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS:
            _load_plugin_files(ctx.params.get(PLUGIN_FILE, ()))  # which may add this command
            if args[0] not in plugin_manager().commands() and not args[0].startswith("-"):
                try:
                    plugin_manager().command(args[0])
                except PluginError as error:
                    ctx.fail(str(error))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_helps().items()))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except DetError as error:
            if ctx.params.get("debug"):
                raise
            raise _Failure(str(error)) from error
        except OSError as error:  # a full disk, a folder without write permission, a deleted file
            if ctx.params.get("debug"):
                raise
            where = "" if error.filename is None else f"{error.filename}: "
            raise _Failure(f"{where}{error.strerror or error}") from error


def _helps() -> dict[str, str]:
    """Each command with its line of help: core's, then those of plugins."""
    return {**{name: entry.help for name, entry in plugin_manager().commands().items()}, **VERBS}


PLUGIN_FILE = "plugin_files"


def _plugin_file_option() -> click.Option:
    """`--plugin-file`, which every verb takes, too: its parts are there before the other options are read."""
    return click.Option(
        ["--plugin-file", PLUGIN_FILE],
        multiple=True,
        metavar="FILE.py",
        is_eager=True,
        expose_value=False,
        callback=lambda ctx, param, files: _load_plugin_files(files),
        help="Run this Python file, and use the parts that it registers; may be repeated.",
    )


def _load_plugin_files(files: Sequence[str]) -> None:
    for file in files:
        load_plugin_file(file)


class _Warnings(logging.Handler):
    """Prints warnings and errors, but for those of skipped samples, which the verbs list."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.name != "det_core.skipped":
            kind = "error" if record.levelno >= logging.ERROR else "warning"
            click.echo(f"{kind}: {record.getMessage()}", err=True)


WARNINGS = _Warnings(logging.WARNING)


@click.command(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="det-core")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.option(
    "--plugin-file", "plugin_files", multiple=True, metavar="FILE.py", help="Use the parts of a file; may be repeated."
)
@click.option("--strict-plugins", is_flag=True, help="Stop if any installed plugin fails (for CI).")
def cli(debug: bool, plugin_files: tuple[str, ...], strict_plugins: bool) -> None:
    """Object detection in PyTorch, every architecture a plugin."""
    logging.getLogger("det_core").addHandler(WARNINGS)
    _load_plugin_files(plugin_files)
    if strict_plugins:
        plugin_manager().require_all()


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line with the given arguments (by default those of the process); returns the exit status."""
    try:
        status = cli.main(
            args=None if arguments is None else list(arguments), prog_name="det-core", standalone_mode=False
        )
    except click.exceptions.Abort:  # click raises it for KeyboardInterrupt
        click.echo("interrupted", err=True)
        return 130
    except click.ClickException as error:
        error.show()
        return error.exit_code
    return status if isinstance(status, int) else 0


def main() -> None:
    """The console script `det-core`."""
    sys.exit(run())
