"""Checkpoints: folders that are written completely or not at all.

`<run>/checkpoints/step-0000200/` contains `model.safetensors` (weights; recipe, classes and plugins in its header) and
`training.pt` (optimiser, step, random states; loadable with `weights_only=True`). With a moving average of the weights,
`model.safetensors` has the average, and `raw.safetensors` the weights that training continues from.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from attrs import field, frozen
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from det_core.engine.manifest import DamagedError, check_file, check_folder, write_manifest
from det_core.engine.shared_classes import SharedClasses, with_shared_rows
from det_core.errors import ConfigError, DetError, listing, no_such
from det_core.known import install_hint
from det_core.load import recipe_from_plain
from det_core.model.detector import Detector
from det_core.model.memory_layout import to_channels_last
from det_core.plugins import plugin_manager
from det_core.recipe import Recipe
from det_core.safe_write import TEMPORARY, cause, replacing, sync, write_text
from det_core.structures import Classes
from det_core.weights.read_files import is_finite

WEIGHTS, RAW_WEIGHTS, TRAINING = "model.safetensors", "raw.safetensors", "training.pt"
_STEP = re.compile(r"step-\d+")
_ADDRESS = re.compile(r"([a-z][a-z0-9]+):/+(.+)")  # a Path has one slash of the two


class CheckpointError(DetError):
    """A checkpoint is missing, damaged, or does not fit."""


@frozen(kw_only=True)
class Header:
    """The recipe, classes, plugins (version by distribution) and step of a checkpoint.

    registered: the file or module of each part without a plugin, by `slot type`.
    """

    recipe: Recipe
    classes: Classes
    plugins: dict[str, str] = field(factory=dict)
    step: int = 0
    registered: dict[str, str] = field(factory=dict)

    def to_metadata(self) -> dict[str, str]:
        """The metadata of the safetensors file: text by name."""
        return {
            "format": "det 1",
            "recipe": json.dumps(self.recipe.to_plain()),
            "classes": json.dumps({"names": self.classes.names, "ids": self.classes.ids}),
            "plugins": json.dumps(self.plugins),
            "registered": json.dumps(self.registered),
            "step": str(self.step),
        }


FOREIGN_SUFFIXES = (".pth", ".pt", ".pkl", ".bin", ".ckpt")


def local_checkpoint(checkpoint: str | Path) -> Path:
    """The local path of a checkpoint; one at an address of a plugin, such as `hf://OWNER/NAME`, is fetched.

    Everything that takes a checkpoint calls this function, most by `weights_file`.
    """
    address = _ADDRESS.fullmatch(str(checkpoint))
    if address is None or Path(checkpoint).exists():
        return Path(checkpoint)
    fetched = plugin_manager().fetch_checkpoint(address[1], f"{address[1]}://{address[2]}")
    return Path(checkpoint) if fetched is None else fetched


def weights_file(path: str | Path) -> Path:
    """The weights file of a `.safetensors` path, a checkpoint folder, a run (its best, or else last checkpoint), or the
    address of one, such as `hf://OWNER/NAME`.

    Raises:
        CheckpointError: if there is none.
        PluginError: for an address, if its plugin is not there or fails.
    """
    path = local_checkpoint(path)
    if path.is_file() and path.suffix in FOREIGN_SUFFIXES:
        raise CheckpointError(
            f"{path}: found a {path.suffix} file, expected a checkpoint of det; convert it with "
            f"`det-core import-weights {path} --from PROJECT --recipe RECIPE -o {path.stem}.safetensors`"
        )
    if path.is_file():
        return path
    if (path / WEIGHTS).is_file():
        return path / WEIGHTS
    found = best_checkpoint(path) or last_checkpoint(path)
    if found is not None:
        return found / WEIGHTS
    if not path.exists():
        raise CheckpointError(no_such(path, "no such file or folder"))
    raise CheckpointError(
        f"{path}: contains no checkpoint; give a .safetensors file, a folder with {WEIGHTS}, or a run folder"
    )


def checkpoints(run: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    folder = run / "checkpoints"
    found = [p for p in folder.glob("step-*") if _STEP.fullmatch(p.name) and (p / WEIGHTS).is_file()]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """The step of a checkpoint's folder."""
    return int(checkpoint.name.removeprefix("step-"))


def last_checkpoint(run: Path) -> Path | None:
    """The newest complete checkpoint of a run, or None."""
    found = checkpoints(run)
    return found[-1] if found else None


def best_checkpoint(run: Path) -> Path | None:
    """The checkpoint in `best.json`, or None if it does not exist; CheckpointError if that file is damaged."""
    file = run / "checkpoints" / "best.json"
    try:
        name = json.loads(file.read_text(encoding="utf8"))["checkpoint"]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{file}: damaged ({type(error).__name__}: {error}); delete it, or name a checkpoint"
        ) from None
    if not (isinstance(name, str) and _STEP.fullmatch(name)):
        raise CheckpointError(
            f"{file}: names the checkpoint {name!r}, expected one of this run such as step-0000200; delete the file, "
            "or name a checkpoint"
        )
    path = run / "checkpoints" / name
    return path if (path / WEIGHTS).is_file() else None


def check_checkpoint(folder: Path) -> None:
    """Compare the files of a checkpoint with its manifest.

    Raises:
        CheckpointError: with the file that is damaged, and the newest whole checkpoint of the run.
    """
    try:
        check_folder(folder)
    except DamagedError as error:
        whole = next((p for p in reversed(checkpoints(folder.parent.parent)) if p != folder and _is_whole(p)), None)
        kept = f"the last whole checkpoint is {whole}" if whole else "the run has no other whole checkpoint"
        raise CheckpointError(f"{error}; {kept}; remove {folder} to continue from there") from None


def _is_whole(folder: Path) -> bool:
    try:
        check_folder(folder)
    except DamagedError:
        return False
    return True


def save_checkpoint(
    run: Path,
    header: Header,
    weights: dict[str, Tensor],
    training: dict[str, Any] | None = None,
    raw_weights: dict[str, Tensor] | None = None,
) -> Path:
    """Write a checkpoint to a temporary folder, sync and rename it. A kill at any time leaves the earlier checkpoints.

    A run is deterministic, so a complete checkpoint of the same step is not written again.
    """
    folder = run / "checkpoints"
    for stale in folder.glob(f"{TEMPORARY}*"):
        shutil.rmtree(stale, ignore_errors=True)
    target = folder / f"step-{header.step:07d}"
    if (target / WEIGHTS).is_file():
        return target
    temporary = folder / f"{TEMPORARY}{target.name}"
    try:
        temporary.mkdir(parents=True)
        save_file(_plain(weights), temporary / WEIGHTS, metadata=header.to_metadata())
        if raw_weights is not None:
            save_file(_plain(raw_weights), temporary / RAW_WEIGHTS)
        if training is not None:
            with (temporary / TRAINING).open("wb") as opened:  # of a path, torch would not say why it failed
                torch.save(training, opened)
        write_manifest(temporary)
        for file in temporary.iterdir():
            sync(file)
        sync(temporary)
        temporary.rename(target)
        sync(folder)
    except (OSError, SafetensorError, RuntimeError) as error:  # torch raises RuntimeError if the disk is full
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(f"{target}: cannot be saved ({cause(error)}); {kept_of(run)}") from error
    return target


def kept_of(run: Path) -> str:
    """What is kept of a run that cannot go on, for its message."""
    last = last_checkpoint(run)
    return f"the last checkpoint is {last}" if last else "there is no earlier checkpoint"


def mark_best(run: Path, checkpoint: Path, metric: str, value: float) -> None:
    """Record the best checkpoint."""
    content = {"checkpoint": checkpoint.name, "metric": metric, "value": value}
    write_text(run / "checkpoints" / "best.json", json.dumps(content) + "\n")


def prune(run: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints and the best one."""
    best = best_checkpoint(run)
    for path in checkpoints(run)[:-keep]:
        if path != best:
            shutil.rmtree(path, ignore_errors=True)


def save_detector(detector: Detector, file: str | Path, recipe: Recipe) -> Path:
    """Write a detector to a `.safetensors` file that `load_detector`, `--checkpoint` and `--init` read.

    Args:
        detector: with its classes.
        file: written aside, then renamed; its folder is made.
        recipe: that the detector was built from; it becomes part of the file.

    Raises:
        CheckpointError: for a file name with another suffix, or a detector that the recipe does not build.
        PluginError: for a part that is not registered, so that the file could not be read.
        WriteError: if it cannot be written.
    """
    path = Path(file)
    if path.suffix != ".safetensors":
        raise CheckpointError(f"{path}: a detector is written as .safetensors; use a name with this suffix")
    if detector.config is not None and detector.config != recipe.detector:
        raise CheckpointError(f"{path}: the detector was not built from recipe {recipe.name}; give its own recipe")
    manager = plugin_manager()
    manager.check_registered(recipe)
    header = Header(
        recipe=recipe,
        classes=detector.classes,
        plugins=manager.versions(),
        registered=manager.unpackaged(recipe),
    )
    write_weights(path, detector.state_dict(), header.to_metadata())
    return path


def write_weights(file: Path, weights: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a lone weights file, whole or not at all, and its folder.

    Args:
        file: a `.safetensors` file.
        weights: tensors (...) of any shape by name.
        metadata: such as `Header.to_metadata`.

    Raises:
        WriteError: if it cannot be written.
    """
    with replacing(file) as temporary:
        save_file(_plain(weights), temporary, metadata=dict(metadata))


def _plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous copies on the CPU without shared storage, as safetensors requires."""
    return {k: v.detach().to("cpu", copy=True).contiguous() for k, v in state.items()}


def read_header(file: Path) -> Header:
    """The header of a checkpoint's weights file.

    Raises CheckpointError for a damaged file, one without a recipe, or one with missing plugins (with what to install).
    """
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file}: not a readable safetensors file ({error})") from None
    if "recipe" not in metadata or "classes" not in metadata:
        raise CheckpointError(f"{file}: contains no recipe; import weights of another project first")
    try:
        plugins: dict[str, str] = json.loads(metadata.get("plugins", "{}"))
        plain, named = json.loads(metadata["recipe"]), json.loads(metadata["classes"])
        classes = Classes(names=tuple(named["names"]), ids=tuple(named["ids"]))
        registered = {str(k): str(v) for k, v in json.loads(metadata.get("registered", "{}")).items()}
        step = int(metadata.get("step", "0"))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{file}: its header is damaged ({type(error).__name__}: {error})") from None
    try:
        recipe = recipe_from_plain(plain, str(file))
    except ConfigError as error:
        raise CheckpointError(f"{error}{_missing_plugins(plugins)}{not_registered(registered)}") from None
    return Header(recipe=recipe, classes=classes, plugins=plugins, step=step, registered=registered)


def not_registered(parts: Mapping[str, str]) -> str:
    """What to do about parts of a checkpoint that no plugin provides and that are not registered now, or "".

    parts: the file or module of each part, by `slot type`.
    """
    missing = {}
    for part, origin in parts.items():
        slot, _, name = part.partition(" ")
        if name not in plugin_manager().types(slot):
            missing[part] = origin
    if not missing:
        return ""
    files = sorted({f"--plugin-file {origin}" for origin in missing.values() if origin.endswith(".py")})
    how = f"give {' '.join(files)}, or call det_core.register" if files else "call det_core.register"
    listed = ", ".join(f"{part!r} ({origin})" for part, origin in missing.items())
    return f"\nit has parts that were registered without a plugin: {listed}; {how} for them first"


def _missing_plugins(plugins: dict[str, str]) -> str:
    """The plugins of a checkpoint that are not installed, with what to install."""
    installed = plugin_manager().versions()
    missing = [f"{name} {version} ({install_hint(name)})" for name, version in plugins.items() if name not in installed]
    return f"\nthe checkpoint uses plugins that are not installed: {', '.join(missing)}" if missing else ""


def read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of a weights file, on the CPU; CheckpointError for a damaged file."""
    try:
        check_file(file)
    except DamagedError as error:
        raise CheckpointError(str(error)) from None
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file}: not a readable safetensors file ({error})") from None


def load_detector(
    checkpoint: str | Path, device: str | torch.device = "cpu", *, recipe: Recipe | None = None
) -> Detector:
    """The trained detector of a checkpoint (file, folder, run or address), in evaluation mode; see its `classes`.

    recipe: the checkpoint's recipe with other test settings (thresholds, sizes); by default the checkpoint's.

    Raises CheckpointError as `read_header`.
    """
    file = weights_file(checkpoint)
    header = read_header(file)
    recipe = recipe or header.recipe
    detector = recipe.detector.build(classes=header.classes)
    try:
        detector.load_state_dict(read_weights(file))
    except RuntimeError as error:
        raise CheckpointError(f"{file}: the weights do not fit its recipe: {error}") from None
    detector.test_transforms = recipe.data.test_transforms
    to_channels_last(detector)
    return detector.to(device).eval()


@frozen
class InitReport:
    """The result of `--init`.

    loaded: names of loaded weights. fresh: names re-initialised because classes differ. kept: names of classes whose
    own rows of these weights were loaded.
    """

    loaded: tuple[str, ...]
    fresh: tuple[str, ...]
    kept: tuple[str, ...] = ()


def initialise(detector: Detector, checkpoint: str | Path) -> InitReport:
    """Load a checkpoint's weights into a detector, as `--init` does.

    If the classes differ (names, in order), layers whose shape depends on the number of classes keep their initial
    values, except for the rows of classes that both lists name, and of the background.

    Raises CheckpointError if other weights are missing, unexpected or of another shape.
    """
    file = weights_file(checkpoint)
    header = read_header(file)
    values = read_weights(file)
    ours = detector.state_dict()
    same = header.classes.names == detector.classes.names
    fresh = () if same else tuple(detector.class_dependent())
    problems = [f"not in the checkpoint: {k}" for k in ours if k not in values and k not in fresh]
    problems += [f"left over in the checkpoint: {k}" for k in values if k not in ours]
    problems += [
        f"shapes differ: {k} is {tuple(values[k].shape)} in the checkpoint, {tuple(v.shape)} in the detector"
        for k, v in ours.items()
        if k in values and k not in fresh and values[k].shape != v.shape
    ]
    problems += [f"not finite (NaN or inf): {k}" for k, v in values.items() if not is_finite(v)]
    if problems:
        title = f"{file} does not fit this detector (recipe {header.recipe.name}):"
        raise CheckpointError("\n".join([title, *listing(problems)]))
    loaded = {k: v for k, v in values.items() if k not in fresh}
    shared = SharedClasses.of(header.classes, detector.classes)
    rows = {} if same or not shared.pairs else with_shared_rows(detector, values, shared)
    detector.load_state_dict({**loaded, **rows}, strict=False)
    kept = tuple(detector.classes.names[now] for _, now in shared.pairs) if rows else ()
    return InitReport(tuple(loaded), fresh, kept)
