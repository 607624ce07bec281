"""`det-core import-config`: a recipe from a configuration file of mmdetection or detectron2."""

from __future__ import annotations

from pathlib import Path

import click

from det_core.cli.output_files import check_outputs
from det_core.errors import ConfigError, DetError, counted
from det_core.import_config.import_config import YAML, import_config
from det_core.import_config.imported_config import ImportedConfig
from det_core.load import load_recipe
from det_core.safe_write import replacing


@click.command(name="import-config")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), help="The .yaml file to write. Default: print it.")
@click.option(
    "--cfg-options",
    "options",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a value of FILE first, such as data.samples_per_gpu=4; may be repeated.",
)
@click.option("--overwrite", is_flag=True, help="Replace the file of -o if it exists.")
@click.argument("more_options", nargs=-1, metavar="[KEY=VALUE ...]")
def command(
    file: Path, out: Path | None, options: tuple[str, ...], overwrite: bool, more_options: tuple[str, ...]
) -> None:
    """Make a recipe of FILE, a configuration of mmdetection 1.x, 2.x or 3.x (.py), or of detectron2 (.yaml).

    The recipe extends the nearest built-in one, and contains only what differs. Whatever is not taken over is listed
    with its file, its line and the reason.

    FILE and its bases are parsed and never run.
    """
    if out is not None:
        _check_out(out, file, overwrite)
    made = import_config(file, (*options, *more_options))
    text = made.to_yaml()
    if out is None:
        click.echo(text, nl=False)
        return
    _write(out, text)
    click.echo(f"wrote {out}: extends {made.base}, {_summary(made)}")
    for note in made.notes:
        click.echo(f"  {note}")
    root = made.recipe.data.root
    click.echo(f"det-core train --config {out}" + ("" if root else " --data FOLDER"))


def _summary(made: ImportedConfig) -> str:
    if not made.notes:
        return "everything is taken over"
    return f"{counted(len(made.notes), 'note')} on what is not taken over, or in another way:"


def _check_out(out: Path, file: Path, overwrite: bool) -> None:
    """DetError if the file to write has another suffix, is an input, or exists and may not be replaced."""
    if out.suffix not in YAML:
        raise DetError(f"-o {out}: a recipe is written as .yaml; use a name with this suffix")
    check_outputs("-o", [out], [file])
    if out.exists() and not overwrite:
        raise DetError(f"-o {out}: exists; choose another file, or give --overwrite")


def _write(out: Path, text: str) -> None:
    """Write a recipe aside, load it, and only then give it its name."""
    with replacing(out) as temporary:
        temporary.write_text(text, encoding="utf8")
        try:
            load_recipe(temporary)
        except ConfigError as error:
            raise DetError(f"-o {out}: not written, since it would not load: {error}") from error
