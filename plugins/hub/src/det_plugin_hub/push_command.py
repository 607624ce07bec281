"""`det-core push`."""

from __future__ import annotations

from typing import Any

import click


@click.command(name="push")
@click.argument("checkpoint")
@click.argument("repository", metavar="OWNER/NAME")
@click.option("--private", is_flag=True, help="Make a repository that only you (or your organisation) can read.")
@click.option("--revision", help="The branch to upload to, made if necessary. Default: the main branch.")
@click.option("--message", help="The message of the commit.")
@click.option(
    "--metrics",
    help="A file of `det-core test --json`. Default: what the run folder says of the checkpoint.",
)
@click.option("--pictures", is_flag=True, help="Also upload the run's pictures, which show images of your data.")
def command(checkpoint: str, repository: str, **options: Any) -> None:
    """Upload CHECKPOINT (a run folder, a checkpoint or a .safetensors file) to the Hugging Face Hub.

    The repository has the weights as safetensors, the recipe, the metrics and a model card. `hf://OWNER/NAME` then
    stands for the checkpoint in every command.
    """
    from det_plugin_hub.push import push

    address = push(checkpoint, repository, say=click.echo, **options)
    click.echo(f"pushed; next: det-core predict --checkpoint {address} IMAGES")
