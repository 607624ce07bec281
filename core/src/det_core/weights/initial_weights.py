"""Initial weights of backbones: ImageNet models by torchvision's name, or from a file."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, cast

from det_core.errors import WeightsError, counted
from det_core.specs import RGB
from det_core.weights.read_files import is_finite, read_state_dict

if TYPE_CHECKING:
    from torch import Tensor, nn

log = logging.getLogger(__name__)

DETECTRON2 = "https://dl.fbaipublicfiles.com/detectron2/ImageNetPretrained/MSRA"
OPENMMLAB = "https://download.openmmlab.com/pretrain/third_party"
MMCLS = "https://download.openmmlab.com/mmclassification/v0"
# Models of other projects, which are not downloaded automatically, and their files.
FOREIGN_MODELS = {
    "detectron2:R-50": f"{DETECTRON2}/R-50.pkl",
    "detectron2:R-101": f"{DETECTRON2}/R-101.pkl",
    "mmdet:resnext101_32x4d": f"{OPENMMLAB}/resnext101_32x4d-a5af3160.pth",
    "mmdet:detectron/resnet50_gn": f"{OPENMMLAB}/resnet50_gn-9186a21c.pth",
    "mmdet:detectron/resnet101_gn": f"{OPENMMLAB}/resnet101_gn-cac0ab98.pth",
    "mmdet:contrib/resnet50_gn": f"{OPENMMLAB}/resnet50_gn_thangvubk-ad1730dd.pth",
    "mmdet:jhu/resnet50_gn_ws": f"{OPENMMLAB}/resnet50_gn_ws-15beedd8.pth",
    "mmdet:jhu/resnet101_gn_ws": f"{OPENMMLAB}/resnet101_gn_ws-3e3c308c.pth",
    "mmdet:jhu/resnext50_32x4d_gn_ws": f"{OPENMMLAB}/resnext50_32x4d_gn_ws-0d87ac85.pth",
    "mmdet:jhu/resnext101_32x4d_gn_ws": f"{OPENMMLAB}/resnext101_32x4d_gn_ws-34ac1a9e.pth",
    "mmcls:resnet50_rsb_a1": f"{MMCLS}/resnet/resnet50_8xb256-rsb-a1-600e_in1k_20211228-20e21305.pth",
}
MMCLS_PARTS = ("backbone.", "neck.", "head.")  # what the names in a classifier of mmcls begin with
TO_SET = "--set detector.backbone.pretrained={path} (and, if the RoI head has a trunk, as in the C4 models, {trunk})"
TRUNK = "--set detector.roi_head.trunk.pretrained={path}"


def how_to_set(path: str) -> str:
    """The overrides that set the initial weights of a recipe to a file."""
    return TO_SET.format(path=path, trunk=TRUNK.format(path=path))


def not_pretrained(module: nn.Module) -> tuple[str, ...]:
    """Prefixes of the names of layers without pretrained weights."""
    from det_core.contracts import NotPretrained

    return tuple(f"{name}." for name, part in module.named_modules() if isinstance(part, NotPretrained))


def load_initial(
    module: nn.Module,
    spec: str,
    *,
    ignore: tuple[str, ...] = ("fc.",),
    only: str = "",
    fresh: tuple[str, ...] = (),
    first: str = "",
) -> None:
    """Load ImageNet weights into a backbone, or into a stage of one. Names in the weights must be torchvision's.

    Args:
        module: the backbone or stage.
        spec: `torchvision:NAME` for IMAGENET1K_V1 weights, `torchvision:NAME@WEIGHTS` for others (both are downloaded
            once), or a local file, also a classifier of mmcls.
        ignore: ignore weights whose names begin with these (the classifier).
        only: ignore weights whose names do not begin with this (the stage).
        fresh: layers of the module with these prefixes keep their initial values and need not be in the weights.
        first: name of the weight of the first convolution. If the module takes images of other than 3 channels, it gets
            the mean over RGB for every channel, times 3 / channels, so that gray images give what they gave as RGB. A
            warning says so.

    Raises:
        WeightsError: for an unknown name, a failed download, a damaged file, or weights that do not fit.
    """
    state = _read(spec)
    state = {k: v for k, v in state.items() if not k.startswith(ignore) and k.startswith(only)}
    ours = module.state_dict()
    if first in state and first in ours:
        state[first] = _for_channels(state[first], ours[first].shape[1], f"initial weights {spec}: {first}")
    fresh = (*fresh, *not_pretrained(module))
    expected = [k for k in ours if not k.startswith(fresh) and not k.endswith("num_batches_tracked")]
    problems = [f"missing: {k}" for k in expected if k not in state]
    problems += [f"left over: {k}" for k in state if k not in ours]
    problems += [
        f"shapes differ: {k} is {tuple(v.shape)}, expected {tuple(ours[k].shape)}"
        for k, v in state.items()
        if k in ours and v.shape != ours[k].shape
    ]
    problems += [f"not finite (NaN or inf): {k}" for k, v in state.items() if not is_finite(v)]
    if problems:
        raise WeightsError.listing(f"initial weights {spec!r} do not fit the backbone", problems)
    module.load_state_dict(state, strict=False)


def _for_channels(weight: Tensor, channels: int, name: str) -> Tensor:
    """The weight (K, 3, h, w) of a first convolution for images of other channels; otherwise the weight."""
    if channels == RGB.channels or weight.dim() != 4 or weight.shape[1] != RGB.channels:
        return weight
    log.warning("%s is the mean over RGB for %s, times 3 / %d", name, counted(channels, "channel"), channels)
    return weight.float().mean(1, keepdim=True).mul(RGB.channels / channels).repeat(1, channels, 1, 1)


def _read(spec: str) -> dict[str, Tensor]:
    if spec.startswith("torchvision:"):
        return _torchvision_weights(spec.removeprefix("torchvision:"))
    if spec in FOREIGN_MODELS or spec.startswith(("detectron2:", "mmdet:", "mmcls:")):
        raise WeightsError(_foreign_model_message(spec))
    path = Path(spec).expanduser()
    if path.suffix == ".pkl":
        raise WeightsError(
            f"{path}: a pickle of another project must be converted: det-core import-weights {path} --from detectron2 "
            f"--recipe RECIPE -o backbone.safetensors, then {how_to_set('backbone.safetensors')}"
        )
    return _without_prefix(read_state_dict(path))


def _without_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights without the prefix and the other parts that they have in a classifier of mmcls."""
    if not all(name.startswith(MMCLS_PARTS) for name in state):
        return state
    prefix = MMCLS_PARTS[0]
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _foreign_model_message(spec: str) -> str:
    source = spec.partition(":")[0]
    if spec not in FOREIGN_MODELS:
        known = ", ".join(FOREIGN_MODELS)
        return f"unknown initial weights {spec!r}; allowed: {known}, torchvision:NAME, or a file's path"
    url = FOREIGN_MODELS[spec]
    file = url.rpartition("/")[2]
    if source == "mmcls":  # read as it is
        use = f"{url} and use it with {how_to_set(file)}"
    else:
        use = (
            f"{url}, convert it with det-core import-weights {file} --from {source} --recipe RECIPE -o "
            f"backbone.safetensors, and use it with {how_to_set('backbone.safetensors')}"
        )
    return (
        f"initial weights {spec!r} are a file of another project, which is not downloaded automatically: download "
        f"{use}; use null as the path to train from random weights"
    )


def _torchvision_weights(name: str) -> dict[str, Tensor]:
    """The weights of a torchvision model, `NAME` or `NAME@WEIGHTS`, from its cache or the network."""
    import torchvision

    from det_core.errors import nearest

    model, _, which = name.partition("@")
    try:
        known_weights = torchvision.models.get_model_weights(model)
    except ValueError:
        known = torchvision.models.list_models(module=torchvision.models)
        raise WeightsError(f"torchvision has no ImageNet weights named {name!r}{nearest(model, known)}") from None
    try:
        weights = known_weights[which or "IMAGENET1K_V1"]
    except KeyError:
        allowed = ", ".join(f"{model}@{w.name}" for w in known_weights)
        raise WeightsError(f"torchvision has no ImageNet weights named {name!r}; available: {allowed}") from None
    try:
        return cast("dict[str, Tensor]", weights.get_state_dict(progress=True, check_hash=True, weights_only=True))
    except (OSError, RuntimeError) as error:
        raise WeightsError(
            f"torchvision:{name} cannot be downloaded from {weights.url} ({error}); download the file on another "
            "machine and set its path with --set detector.backbone.pretrained=PATH, or train from random weights with "
            "--set detector.backbone.pretrained=null"
        ) from None
