"""Initial weights of backbones: ImageNet models by torchvision's name, or from a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from det_core.errors import WeightsError
from det_core.weights.read_files import read_state_dict

if TYPE_CHECKING:
    from torch import Tensor, nn

DETECTRON2 = "https://dl.fbaipublicfiles.com/detectron2/ImageNetPretrained/MSRA"
OPENMMLAB = "https://download.openmmlab.com/pretrain/third_party"
# Names of models that are not downloaded here, and where their files are.
ELSEWHERE = {
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
}
TO_SET = "--set detector.backbone.pretrained={path} (and, where the RoI head has a trunk, as in the C4 models, {trunk})"
TRUNK = "--set detector.roi_head.trunk.pretrained={path}"


def how_to_set(path: str) -> str:
    """The overrides that make a recipe start from a file."""
    return TO_SET.format(path=path, trunk=TRUNK.format(path=path))


def not_pretrained(module: nn.Module) -> tuple[str, ...]:
    """Beginnings of the names of what no ImageNet model has."""
    from det_core.contracts import NotPretrained

    return tuple(f"{name}." for name, part in module.named_modules() if isinstance(part, NotPretrained))


def load_initial(
    module: nn.Module, spec: str, *, ignore: tuple[str, ...] = ("fc.",), only: str = "", fresh: tuple[str, ...] = ()
) -> None:
    """Fill a backbone with ImageNet weights: `torchvision:NAME` (downloaded once by torchvision) or a local file.

    `torchvision:NAME@WEIGHTS` means others than its IMAGENET1K_V1. Layers of ours that begin with `fresh` are not
    expected in the file, and stay as they are.

    Names must be torchvision's; those that begin with `ignore` (the classifier) are left out, and those that do not
    begin with `only` (the stage of a backbone that `module` is). Raises WeightsError for an unknown name, no network,
    a damaged file, or weights that do not fit.
    """
    state = _read(spec)
    state = {k: v for k, v in state.items() if not k.startswith(ignore) and k.startswith(only)}
    ours = module.state_dict()
    fresh = (*fresh, *not_pretrained(module))
    expected = [k for k in ours if not k.startswith(fresh) and not k.endswith("num_batches_tracked")]
    problems = [f"missing: {k}" for k in expected if k not in state]
    problems += [f"left over: {k}" for k in state if k not in ours]
    problems += [
        f"shapes differ: {k} is {tuple(v.shape)}, expected {tuple(ours[k].shape)}"
        for k, v in state.items()
        if k in ours and v.shape != ours[k].shape
    ]
    if problems:
        raise WeightsError.listing(f"initial weights {spec!r} do not fit the backbone", problems)
    module.load_state_dict(state, strict=False)


def _read(spec: str) -> dict[str, Tensor]:
    """The weights that a name or path means."""
    if spec.startswith("torchvision:"):
        return _torchvision_weights(spec.removeprefix("torchvision:"))
    if spec in ELSEWHERE or spec.startswith(("detectron2:", "mmdet:")):
        raise WeightsError(_elsewhere(spec))
    path = Path(spec).expanduser()
    if path.suffix == ".pkl":
        raise WeightsError(
            f"{path}: a pickle of another project is converted first: det-core import-weights {path} --from detectron2 "
            f"--recipe RECIPE -o backbone.safetensors, then {how_to_set('backbone.safetensors')}"
        )
    return read_state_dict(path)


def _elsewhere(spec: str) -> str:
    """Where the weights of another project come from, and what to do with the file."""
    source = spec.partition(":")[0]
    if spec not in ELSEWHERE:
        known = ", ".join(ELSEWHERE)
        return f"no initial weights are known by the name {spec!r}; known: {known}, torchvision:NAME, or a file's path"
    url = ELSEWHERE[spec]
    file = url.rpartition("/")[2]
    return (
        f"initial weights {spec!r} are a file of another project, which is not downloaded by itself: fetch {url}, "
        f"convert it with det-core import-weights {file} --from {source} --recipe RECIPE -o backbone.safetensors, and "
        f"give it with {how_to_set('backbone.safetensors')}; null in place of the path trains from random weights"
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
        raise WeightsError(f"torchvision has no ImageNet weights named {name!r}; it has {allowed}") from None
    try:
        return cast("dict[str, Tensor]", weights.get_state_dict(progress=True, check_hash=True, weights_only=True))
    except (OSError, RuntimeError) as error:
        raise WeightsError(
            f"torchvision:{name} cannot be downloaded from {weights.url} ({error}); fetch that file elsewhere and give "
            "its path with --set detector.backbone.pretrained=PATH, or train from random weights with "
            "--set detector.backbone.pretrained=null"
        ) from None
