"""Upload a checkpoint with its recipe, metrics and model card as one commit. Everything is made and checked before."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs

import det_core
from det_core.recipe import Recipe
from det_core.settings import evolve
from det_plugin_hub.address import HubAddress, check_repository
from det_plugin_hub.download import WEIGHTS
from det_plugin_hub.hub_errors import HubError, hub_errors
from det_plugin_hub.model_card import model_card
from det_plugin_hub.results import Results, results_of_file, results_of_run

CURVES, PICTURES = "curves.png", "pictures"
OURS = ("metrics.json", CURVES, f"{PICTURES}/*")  # of an earlier push, removed if this one has none


def push(
    checkpoint: str | Path,
    repository: str,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    metrics: str | Path | None = None,
    pictures: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> str:
    """Upload a checkpoint to the Hub; returns its address, `hf://OWNER/NAME`, for everything that takes a checkpoint.

    The detector is loaded and saved again, so that what is uploaded can be loaded. The name of the local data folder
    is removed from the recipe.

    Args:
        checkpoint: a run folder (its best checkpoint), a checkpoint or a `.safetensors` file.
        repository: `OWNER/NAME`, made if it is not there. Other files that it has are kept.
        private: make a private repository.
        revision: the branch to upload to, made if necessary; by default the main one.
        message: of the commit.
        metrics: a file of `det-core test --json`; by default what the run folder says of this checkpoint.
        pictures: also upload the run's pictures, which show images of the validation data.
        say: called with lines for the user.

    Raises:
        CheckpointError: if the checkpoint cannot be loaded.
        HubError: if the repository cannot be used, or is public although `private` was asked for.
    """
    check_repository(repository)
    file = det_core.weights_file(checkpoint)
    header = det_core.read_header(file)
    recipe = evolve(header.recipe, data=evolve(header.recipe.data, root=""))
    run = _run_of(file)
    results = Results() if run is None else results_of_run(run, header.step)
    if metrics is not None:
        results = attrs.evolve(results_of_file(metrics), analysis=results.analysis)
    for path, value in local_paths(recipe.to_plain()):
        say(f"the recipe names a path of this machine, which will be readable there: {path}: {value}")
    address = str(HubAddress(repository, revision))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        det_core.save_detector(det_core.load_detector(file), folder / WEIGHTS, recipe)
        (folder / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf8")
        if results.metrics:
            (folder / "metrics.json").write_text(results.to_json(), encoding="utf8")
        shown = [] if run is None else list(_copy_pictures(run, folder, pictures))
        card = model_card(repository, address, header.recipe, header.classes, results, shown)
        (folder / "README.md").write_text(card, encoding="utf8")
        _upload(folder, repository, private, revision, message or _message(header.recipe, results))
    return address


def _run_of(file: Path) -> Path | None:
    """The run folder of RUN/checkpoints/step-0000200/model.safetensors; None for another file."""
    return file.parents[2] if len(file.parents) > 2 and file.parents[1].name == "checkpoints" else None


def local_paths(plain: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """The settings of a plain recipe that are absolute paths, with their values."""
    if isinstance(plain, dict):
        for name, value in plain.items():
            yield from local_paths(value, f"{path}.{name}".removeprefix("."))
    elif isinstance(plain, (list, tuple)):
        for index, value in enumerate(plain):
            yield from local_paths(value, f"{path}[{index}]")
    elif isinstance(plain, str) and os.path.isabs(plain):
        yield path, plain


def _message(recipe: Recipe, results: Results) -> str:
    best = results.metrics.get(recipe.evaluation.best)
    return f"{recipe.name}" + ("" if best is None else f": {recipe.evaluation.best} {100 * best:.1f} %")


def _copy_pictures(run: Path, folder: Path, pictures: bool) -> Iterator[str]:
    """Copy what a run drew; the names in the repository."""
    found = [run / CURVES, *(sorted((run / PICTURES).glob("*.png")) if pictures else [])]
    for source in found:
        if source.is_file():
            target = folder / source.relative_to(run)
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(source, target)
            yield source.relative_to(run).as_posix()


def _upload(folder: Path, repository: str, private: bool, revision: str | None, message: str) -> None:
    from huggingface_hub import HfApi

    api = HfApi(library_name="det", library_version=det_core.__version__)
    with hub_errors(f"hf://{repository}"):
        api.create_repo(repository, private=private or None, exist_ok=True)
        if private and not api.repo_info(repository).private:
            raise HubError(
                f"hf://{repository}: this repository is public, but --private was given; make it private on its page, "
                "or choose another name. Nothing was uploaded"
            )
        if revision is not None:
            api.create_branch(repository, branch=revision, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            revision=revision,
            commit_message=message,
            delete_patterns=list(OURS),
        )
