"""Reading other people's checkpoint files without running anything that they bring.

torch files are read with `weights_only=True`; the log objects that they carry beside their weights become inert
stand-ins. Other pickles are read by an unpickler that can rebuild arrays, and nothing else.
"""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
from attrs import frozen

from det_core.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

# Classes and functions that checkpoints of mmdet, mmengine and torchvision's training scripts name beside the weights.
# None of them is imported or called: each name stands for `Inert`. `getattr` is how a pickle names a method.
STAND_INS = (
    "mmengine.logging.history_buffer.HistoryBuffer",
    "mmengine.config.config.Config",
    "mmengine.config.config.ConfigDict",
    "mmcv.utils.config.Config",
    "mmcv.utils.config.ConfigDict",
    "addict.addict.Dict",
    "argparse.Namespace",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "pathlib.PurePosixPath",
    "datetime.datetime",
    "datetime.timedelta",
    "builtins.getattr",
    "__builtin__.getattr",
    "_codecs.encode",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy.ndarray",
    "numpy.dtype",
    *(f"numpy.dtypes.{kind}DType" for kind in ("Bool", "Int32", "Int64", "UInt8", "Float32", "Float64")),
)


class Inert:
    """Stands for an object that is not wanted: takes anything, keeps nothing, does nothing."""

    def __new__(cls, *args: object, **kwargs: object) -> Inert:
        return object.__new__(cls)

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


@frozen(eq=False)
class SourceFile:
    """A checkpoint of another project: its weights by name, and the plain values that it carries beside them."""

    path: Path
    state: Mapping[str, Any]
    meta: Mapping[str, Any] = attrs.field(factory=dict)

    @property
    def version(self) -> str:
        """Of mmdet, where the file says so."""
        return str(self.meta.get("mmdet_version") or "")

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes, where the file says so (mmdet)."""
        described = self.meta.get("dataset_meta")
        inner = described if isinstance(described, dict) else {}
        for found in (self.meta.get("CLASSES"), inner.get("classes"), inner.get("CLASSES")):
            if isinstance(found, (list, tuple)) and found and all(isinstance(name, str) for name in found):
                return tuple(found)
        return None


def read_source(path: Path) -> SourceFile:
    """A checkpoint file of any source, nothing executed: `.safetensors`, torch's own, or a pickle of arrays (`.pkl`).

    Raises WeightsError for a file that is missing, damaged, holds no weights, or wants anything run.
    """
    content = _arrays(path) if path.suffix == ".pkl" else _content(path)
    state = _state_dict(path, content)
    meta = content.get("meta")
    return SourceFile(path, state, meta if isinstance(meta, dict) else {})


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """A state dict from a `.safetensors` file or a torch file (read with `weights_only=True`), nothing executed.

    Raises WeightsError for a file that is missing, damaged, holds anything but tensors, or is something else.
    """
    return _state_dict(path, _content(path))


def _content(path: Path) -> Any:
    import torch
    from safetensors.torch import load_file

    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    # torch's type for a pair of a stand-in and the name that it stands for is wider than what it takes
    admitted: list[Any] = [(Inert, name) for name in STAND_INS]
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals(admitted):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can fail in any way that a pickle can
        raise WeightsError(f"{path}: not a readable checkpoint ({_unreadable(error)})") from None


def _state_dict(path: Path, content: Any) -> dict[str, Any]:
    """The weights of what a file holds, by name: the whole of it, or what it has under `state_dict` or `model`."""
    import numpy as np
    import torch

    for name in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    if not isinstance(content, dict) or not all(
        isinstance(k, str) and isinstance(v, (torch.Tensor, np.ndarray)) for k, v in content.items()
    ):
        raise WeightsError(f"{path}: holds no state dict (a mapping of names to tensors)")
    return dict(content)


def _unreadable(error: Exception) -> str:
    """Why a file cannot be read, in a line, without torch's advice to let it run whatever code it brings."""
    if isinstance(error, pickle.UnpicklingError):
        named = re.search(r"GLOBAL (\S+)", str(error))
        if named is None:
            return "damaged, or no file of torch.save"
        return f"it holds a {named[1]}, and only tensors and plain values are loaded; save the state dict alone"
    sentence = str(error).partition("\n")[0].partition(". ")[0]
    return sentence or type(error).__name__


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """What `_codecs.encode` does for bytes in a pickle of protocol 2, and for nothing else."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"GLOBAL _codecs.encode to {encoding}")
    return text.encode("latin1")


class _ArrayUnpickler(pickle.Unpickler):
    """Rebuilds numpy arrays and plain values; refuses every other name before anything is imported or called."""

    def find_class(self, module: str, name: str) -> Any:
        import numpy as np

        wanted = (module.replace("numpy._core", "numpy.core"), name)
        if wanted == ("numpy.core.multiarray", "_reconstruct"):
            return np.ndarray.__reduce__(np.empty(0))[0]  # numpy's own function, wherever this version keeps it
        if wanted == ("numpy", "ndarray"):
            return np.ndarray
        if wanted == ("numpy", "dtype"):
            return np.dtype
        if wanted == ("_codecs", "encode"):
            return _encode
        raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")


def _arrays(path: Path) -> Any:
    """What a pickle of arrays holds, as detectron2's ImageNet models are."""
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    try:
        # Python 2 wrote some of these files; its byte strings are latin1
        content = _ArrayUnpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except Exception as error:  # a damaged file can fail in any way that a pickle can
        named = re.search(r"GLOBAL (.+)", str(error))
        reason = f"it holds a {named[1]}, and only arrays and plain values are loaded" if named else "damaged"
        raise WeightsError(f"{path}: not a readable pickle of arrays ({reason})") from None
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        content = content["model"]
    if isinstance(content, dict) and isinstance(content.get("blobs"), dict):
        content = content["blobs"]
    return content
