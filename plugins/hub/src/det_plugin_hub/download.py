"""`hf://OWNER/NAME` to a local file: downloaded once, then from the cache. Nothing but safetensors."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from det_core.errors import first_few
from det_plugin_hub.address import HubAddress
from det_plugin_hub.hub_errors import HubError, hub_errors

WEIGHTS = "model.safetensors"


def fetch(address: str) -> Path:
    """The local copy of the checkpoint at `hf://OWNER/NAME[@REVISION]`, its `model.safetensors`.

    No other file of the repository is downloaded.

    Raises:
        HubError: for an address that is none, a repository that is not there, is private or has no checkpoint of det,
            and without a connection if the checkpoint is not in the cache.
    """
    where = HubAddress.parse(address)
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import RemoteEntryNotFoundError

    with hub_errors(address):
        try:
            file = Path(hf_hub_download(where.repository, WEIGHTS, revision=where.revision, library_name="det"))
        except RemoteEntryNotFoundError:
            files = HfApi().list_repo_files(where.repository, revision=where.revision)
            raise HubError(
                f"{address}: has no {WEIGHTS} (found {first_few(sorted(files)) or 'no file'}); only files of this name "
                "that `det-core push` or save_detector wrote are loaded, and nothing that is pickled; weights of "
                "another project are converted by `det-core import-weights`"
            ) from None
    _check(file, address)
    return file


def _check(file: Path, address: str) -> None:
    """Raise HubError for a file that is not a checkpoint of det."""
    try:
        with safe_open(file, framework="numpy") as opened:
            metadata = opened.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise HubError(f"{address}: {file.name} is not a readable safetensors file ({error})") from None
    if "recipe" not in metadata:
        raise HubError(
            f"{address}: {file.name} is not a checkpoint of det, since its header has no recipe; weights of another "
            "project are converted by `det-core import-weights`"
        )
