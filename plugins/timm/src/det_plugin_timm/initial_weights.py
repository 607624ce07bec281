"""Initial weights: timm's by name, or a file with timm's parameter names."""

from __future__ import annotations

import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from timm.models import get_pretrained_cfg
from torch import nn

from det_core.errors import WeightsError
from det_core.model.detector_config import PreprocessConfig
from det_core.settings import evolve
from det_core.weights.initial_weights import load_initial
from det_plugin_timm.config import TIMM, TimmConfig
from det_plugin_timm.networks import Network, create_network

log = logging.getLogger(__name__)


def load_timm(body: nn.Module, config: TimmConfig) -> None:
    """Load the weights that the configuration names into the network of a backbone.

    Raises:
        WeightsError: for unknown weights, a failed download, a damaged file, or weights that do not fit.
    """
    spec = config.pretrained
    assert spec is not None
    if not spec.startswith(TIMM):
        with torch.device("meta"):
            whole = create_network(config.name)
        _load(body, spec, whole)
        return
    name = spec.removeprefix(TIMM)
    _check_known(name, config.name)
    whole = _downloaded(name)
    # timm has converted files of other projects, and fitted position embeddings, so its network is what is loaded.
    with TemporaryDirectory() as folder:
        file = Path(folder) / f"{name}.safetensors"
        save_file({key: value.contiguous().clone() for key, value in whole.state_dict().items()}, file)
        _load(body, str(file), whole)
    _say_preprocess(spec)


def _load(body: nn.Module, file: str, whole: Network) -> None:
    """Load a file of timm's names. whole: the network with all its parts, of which `body` may lack some.

    Buffers that `body` computes need not be in the file, and those that the whole network computes may be.
    """
    ours = set(body.state_dict())
    unneeded = {*whole.state_dict(), *(name for name, _ in whole.named_buffers())} - ours
    computed = ours - set(whole.state_dict())
    facts = get_pretrained_cfg(str(whole.pretrained_cfg["architecture"]))
    first = None if facts is None else facts.first_conv
    firsts = (first,) if isinstance(first, str) else first or ("",)
    load_initial(body, file, ignore=tuple(unneeded), fresh=tuple(computed), first=f"{firsts[0]}.weight")


def _check_known(name: str, network: str) -> None:
    """Raise WeightsError if timm has no weights of a name, with or without a tag."""
    known = timm.list_pretrained(f"{network}.*")
    if name == network and known:
        return
    if name not in known:
        allowed = ", ".join(f"{TIMM}{each}" for each in known) or "none; use a file, or null"
        raise WeightsError(f"timm has no weights {TIMM}{name}; of {network!r} it has {allowed}")


def _downloaded(name: str) -> Network:
    """timm's network with its weights, from the cache of huggingface_hub or of torch, or the network."""
    try:
        return create_network(name, pretrained=True)
    except Exception as error:  # of the system, of huggingface_hub, or of what it uses for its requests
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise WeightsError(
            f"{TIMM}{name} cannot be loaded by timm ({reason}); download the weights on another machine, save "
            f"`timm.create_model({name!r}, pretrained=True).state_dict()` with torch.save, and set the file's path "
            "with --set detector.backbone.pretrained=PATH, or train from random weights with "
            "--set detector.backbone.pretrained=null"
        ) from error


def preprocess_of(pretrained: str) -> PreprocessConfig:
    """The preprocessing that weights of timm were trained with, by their name, such as `timm:vit_base_patch16_224`.

    Raises:
        WeightsError: if timm has no such weights.
    """
    name = pretrained.removeprefix(TIMM)
    _check_known(name, name.partition(".")[0])
    found: Any = get_pretrained_cfg(name)
    mean, std = (tuple(round(255 * value, 6) for value in values) for values in (found.mean, found.std))
    return evolve(PreprocessConfig(), mean=mean, std=std)


def _say_preprocess(spec: str) -> None:
    """Say so if weights require another preprocessing than the default."""
    needed = preprocess_of(spec)
    if needed != PreprocessConfig():
        log.warning(
            "initial weights %s require detector.preprocess.mean: %s and std: %s",
            spec,
            list(needed.mean),
            list(needed.std),
        )
