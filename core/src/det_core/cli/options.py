"""Options of several verbs, and options made from a configuration class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, get_args

import attrs
import click

from det_core import specs
from det_core.settings import fields_of, limits_of
from det_core.specs import OnBadSample, Split

Command = TypeVar("Command", bound=Callable[..., Any])

CHECKPOINT_HELP = (
    "A run folder (its best checkpoint), a checkpoint, a .safetensors file, or an address such as hf://OWNER/NAME."
)
CHECKPOINT = click.option("--checkpoint", required=True, help=CHECKPOINT_HELP)
DATA = click.option("--data", help="Root folder of the data set. Default: the training run's data.")
OVERRIDES = click.option(
    "--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Change one setting; may be repeated."
)
DEVICE = click.option("--device", help="cpu, cuda, cuda:N or mps. Default: the GPU if there is one.")
AMP = click.option("--amp", "use_amp", is_flag=True, help="Mixed precision (bfloat16, unless the recipe sets fp16).")
ON_BAD_SAMPLE = click.option(
    "--on-bad-sample",
    type=click.Choice(get_args(OnBadSample)),
    help="Stop at bad data, skip it, or repair it (clip boxes).",
)
ALLOW_OUTSIDE = click.option(
    "--allow-outside", is_flag=True, help="Take images that the annotations name outside of the image folder."
)
TIMEOUT = click.option(
    "--timeout",
    type=click.IntRange(min=1),
    default=specs.TIMEOUT,
    show_default=True,
    help="Seconds without news from another rank or a loader process before an error.",
)
SPLIT = click.option(
    "--split",
    type=click.Choice(get_args(Split)),
    default="train",
    show_default=True,
    help="Which split of the recipe's data to use.",
)


def setting_options(cls: type, *, leave_out: tuple[str, ...] = ()) -> Callable[[Command], Command]:
    """A decorator that adds an option for each setting of a class to a command, such as `--max-steps` for `max_steps`.

    The option's help is the setting's doc. No option is required. Settings in `leave_out` get no option.
    """

    def decorate(command: Command) -> Command:
        for field in reversed(fields_of(cls)):
            if field.name not in leave_out:
                command = _option(field)(command)
        return command

    return decorate


def _option(field: attrs.Attribute[Any]) -> Callable[[Command], Command]:
    name, text = f"--{field.name.replace('_', '-')}", str(field.metadata["doc"])
    kinds = get_args(field.type) or (field.type,)
    if bool in kinds:
        return click.option(name, is_flag=True, help=text)
    default = None if field.default is attrs.NOTHING else field.default
    if int in kinds:
        least = limits_of(field).least
        number = click.IntRange(min=None if least is None else int(least))
        return click.option(name, type=number, default=default, show_default=default is not None, help=text)
    return click.option(name, default=default, help=text)
