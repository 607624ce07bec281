"""`det-core`: the verbs, each imported only when it is asked for.

A verb `some-verb` lives in `det_core.cli.some_verb`, whose `command` is a click command. Its line of help is here, so
that `det-core --help` imports none of them. A `DetError` becomes a line or two on stderr and exit status 1.
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
from det_core.plugins import plugin_manager

VERBS = {
    "train": "Train a detector: a recipe, a plugin's own, or yours.",
    "test": "Evaluate a checkpoint on a data set.",
    "predict": "Detect objects in images: pictures and JSON.",
    "proposals": "Write an RPN's proposals, for Fast R-CNN to train on.",
    "import-weights": "Convert a checkpoint of mmdet, torchvision or detectron2.",
    "recipes": "List recipes, show one whole, print their schema.",
    "plugins": "List what is installed and what it adds; write a new plugin.",
    "data": "Report on a data set before anything trains on it.",
    "doctor": "Check versions, devices, compiler, operators and plugins.",
}


class _Failure(click.ClickException):
    """A user's mistake, as it is shown."""

    def show(self, file: Any = None) -> None:
        click.echo(f"error: {self.message}", err=True)


class _Verbs(click.Group):
    """A group that knows its commands' names, and imports a command when it runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"det_core.cli.{cmd_name.replace('-', '_')}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            ctx.fail(f"no command {args[0]!r}{nearest(args[0], VERBS) or '; there are: ' + ', '.join(VERBS)}")
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
        except OSError as error:  # a full disk, a folder that cannot be written, a file that is gone
            if ctx.params.get("debug") or error.filename is None:
                raise
            raise _Failure(f"{error.filename}: {error.strerror or error}") from error


@click.command(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="det-core")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.option("--strict-plugins", is_flag=True, help="Stop if any installed plugin fails (for CI).")
def cli(debug: bool, strict_plugins: bool) -> None:
    """Object detection in PyTorch, every architecture a plugin."""
    # Verbs tell what was left out themselves; Python's last-resort handler would say it twice.
    logging.getLogger("det_core").addHandler(logging.NullHandler())
    if strict_plugins:
        plugin_manager().require_all()


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line on these arguments (by default the process's own) and return its exit status."""
    try:
        status = cli.main(
            args=None if arguments is None else list(arguments), prog_name="det-core", standalone_mode=False
        )
    except click.exceptions.Abort:  # click makes it of KeyboardInterrupt
        click.echo("interrupted", err=True)
        return 130
    except click.ClickException as error:
        error.show()
        return error.exit_code
    return status if isinstance(status, int) else 0


def main() -> None:
    """The console script `det-core`."""
    sys.exit(run())
