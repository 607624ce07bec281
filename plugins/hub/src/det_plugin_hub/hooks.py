"""Hooks of this plugin: addresses `hf://OWNER/NAME`, and the command `push`."""

from __future__ import annotations

from pathlib import Path

import click

from det_core.hookspecs import provides
from det_core.offers import CheckpointSource, CommandEntry


def _fetch(address: str) -> Path:
    from det_plugin_hub.download import fetch

    return fetch(address)


def _push() -> click.Command:
    from det_plugin_hub.push_command import command

    return command


det_checkpoint_sources = provides(CheckpointSource(scheme="hf", fetch=_fetch))
det_commands = provides(
    CommandEntry(name="push", help="Upload a checkpoint with a model card to the Hugging Face Hub.", load=_push)
)
