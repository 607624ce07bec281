"""The commands of core, as entries of the hook `det_commands`. None is imported before it runs.

The click command of a verb `some-verb` is `command` in `det_core.cli.some_verb`. Its line of help is here.
"""

from __future__ import annotations

import importlib
from functools import partial

import click

from det_core.offers import CommandEntry

VERBS = {
    "train": "Train a detector from a recipe, a plugin or a YAML file.",
    "test": "Evaluate a checkpoint on a data set.",
    "predict": "Detect objects in images; write pictures and JSON.",
    "analyze": "Write a page on where and why a detector is wrong.",
    "export": "Write a detector as an ONNX model or a torch.export program.",
    "proposals": "Write the proposals of an RPN, to train Fast R-CNN on.",
    "import-weights": "Convert a checkpoint of another toolbox.",
    "import-config": "Make a recipe of a configuration file of mmdetection.",
    "recipes": "List recipes, show a recipe, print the JSON Schema.",
    "plugins": "List installed plugins and what each adds; create one.",
    "data": "Report on a data set before training.",
    "doctor": "Check versions, devices, compiler, operators and plugins.",
}


def _load(verb: str) -> click.Command:
    command: click.Command = importlib.import_module(f"det_core.cli.{verb.replace('-', '_')}").command
    return command


COMMANDS = tuple(CommandEntry(name=name, help=text, load=partial(_load, name)) for name, text in VERBS.items())
