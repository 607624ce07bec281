"""`det-core`: the command line. Each verb is imported only when it runs.

The click command of a verb `some-verb` is `command` in `det_core.cli.some_verb`. Its line of help is here, so that
`det-core --help` imports no verb. A `DetError` becomes a message on stderr and exit status 1.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Sequence
from typing import Any

import click

from det_core import __version__
from det_core.errors import DetError, nearest
from det_core.plugin_file import load_plugin_file
from det_core.plugins import plugin_manager

VERBS = {
    "train": "Train a detector from a recipe, a plugin or a YAML file.",
    "test": "Evaluate a checkpoint on a data set.",
    "predict": "Detect objects in images; write pictures and JSON.",
    "analyze": "Write a page on where and why a detector is wrong.",
    "export": "Write a detector as an ONNX model or a torch.export program.",
    "proposals": "Write the proposals of an RPN, to train Fast R-CNN on.",
    "import-weights": "Convert a checkpoint of another toolbox.",
    "recipes": "List recipes, show a recipe, print the JSON Schema.",
    "plugins": "List installed plugins and what each adds; create one.",
    "data": "Report on a data set before training.",
    "doctor": "Check versions, devices, compiler, operators and plugins.",
}


class _Failure(click.ClickException):
    """A mistake of the user, shown as `error: ...`."""

    def show(self, file: Any = None) -> None:
        click.echo(f"error: {self.message}", err=True)


class _Verbs(click.Group):
    """A group that lists its commands without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"det_core.cli.{cmd_name.replace('-', '_')}").command
        if not any(p.name == PLUGIN_FILE for p in command.params):
            command.params.append(_plugin_file_option())
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            ctx.fail(f"no command {args[0]!r}{nearest(args[0], VERBS) or '; available: ' + ', '.join(VERBS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))

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
