"""Reading checkpoints of other projects without running code from them.

torch files are read with `weights_only=True`; other objects in them, such as logs, become inert stand-ins. Other
pickles are read with an unpickler that can only build arrays.
"""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
from attrs import frozen

from det_core.errors import WeightsError, first_few

if TYPE_CHECKING:
    from torch import Tensor

# Classes and functions in checkpoints of mmdet, mmengine and torchvision's training scripts besides the weights. None
# of them is imported or called: `Inert` replaces each. Pickles refer to methods with `getattr`.
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
    *(f"datetime.{kind}" for kind in ("date", "datetime", "time", "timedelta", "timezone")),
    *(f"{home}.{kind}" for home in ("builtins", "__builtin__") for kind in ("dict", "float", "int", "list", "str")),
    "builtins.range",
    "__builtin__.xrange",
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


def is_finite(value: Tensor) -> bool:
    """Whether a weight (...) has neither NaN nor inf."""
    return not value.is_floating_point() or bool(value.isfinite().all())


class Inert:
    """Replaces an object that is not needed: accepts all arguments and does nothing."""

    def __new__(cls, *args: object, **kwargs: object) -> Inert:
        return object.__new__(cls)

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def _plain_dict(*factory: object) -> dict[object, object]:
    """Replaces `collections.defaultdict`, whose items torch sets only in a dict of its own."""
    return {}


@frozen(eq=False)
class SourceFile:
    """A checkpoint of another project: its weights by name, and its metadata as plain values."""

    path: Path
    state: Mapping[str, Any]
    meta: Mapping[str, Any] = attrs.field(factory=dict)

    @property
    def version(self) -> str:
        """The version of mmdet, if the file records it, or ""."""
        return str(self.meta.get("mmdet_version") or "")

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The names of the classes, if the file records them (mmdet)."""
        described = self.meta.get("dataset_meta")
        inner = described if isinstance(described, dict) else {}
        for found in (self.meta.get("CLASSES"), inner.get("classes"), inner.get("CLASSES")):
            if isinstance(found, (list, tuple)) and found and all(isinstance(name, str) for name in found):
                return tuple(found)
        return None


def read_source(path: Path) -> SourceFile:
    """Read a checkpoint of any source, without running code: safetensors, a torch file, or a pickle of arrays (`.pkl`).

    Raises WeightsError for a file that is missing or damaged, contains no weights, or requires other objects.
    """
    content = _arrays(path) if path.suffix == ".pkl" else _content(path)
    state = _state_dict(path, content)
    meta = content.get("meta")
    return SourceFile(path, state, meta if isinstance(meta, dict) else {})


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a `.safetensors` file or a torch file, without running code.

    Raises WeightsError for a file that is missing or damaged, or contains anything but tensors.
    """
    return _state_dict(path, _content(path))


def _content(path: Path) -> Any:
    import torch
    from safetensors.torch import load_file

    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    # Any, since torch's stubs lack pairs of a class and its name
    allowed: list[Any] = [(_plain_dict, "collections.defaultdict"), *((Inert, name) for name in STAND_INS)]
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        _check_stored(path)
        with torch.serialization.safe_globals(allowed):
            return torch.load(path, map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except Exception as error:  # a damaged file can fail in any way that a pickle can
        raise WeightsError(f"{path}: not a readable checkpoint ({_reason(error)})") from None


def _check_stored(path: Path) -> None:
    """Raise WeightsError for a torch file with compressed entries, which may expand to any size."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        packed = [entry.filename for entry in archive.infolist() if entry.compress_type != zipfile.ZIP_STORED]
    if packed:
        raise WeightsError(
            f"{path}: {first_few(packed)} in it are compressed, which torch.save never does: refused, since they may "
            "expand to any size; load the file where you trust it, and save it again"
        )


def _state_dict(path: Path, content: Any) -> dict[str, Any]:
    """The weights in a file's content, by name: under `state_dict` or `model`, or the whole content."""
    import numpy as np
    import torch

    for name in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    if not isinstance(content, dict) or not all(
        isinstance(k, str) and isinstance(v, (torch.Tensor, np.ndarray)) for k, v in content.items()
    ):
        raise WeightsError(f"{path}: contains no state dict (a mapping of names to tensors)")
    return dict(content)


def _reason(error: Exception) -> str:
    """Why a file cannot be read, in one line, without torch's advice to allow arbitrary code."""
    if isinstance(error, pickle.UnpicklingError):
        named = re.search(r"GLOBAL (\S+)", str(error))
        if named is None:
            return "damaged, or not a file of torch.save"
        return f"it contains a {named[1]}, but only tensors and plain values are loaded; save only the state dict"
    sentence = str(error).partition("\n")[0].partition(". ")[0]
    return sentence or type(error).__name__


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """Replaces `_codecs.encode`, which pickles of protocol 2 call for bytes; other encodings are refused."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"GLOBAL _codecs.encode to {encoding}")
    return text.encode("latin1")


class _ArrayUnpickler(pickle.Unpickler):
    """Builds numpy arrays and plain values; refuses every other name without importing or calling it."""

    def find_class(self, module: str, name: str) -> Any:
        import numpy as np

        wanted = (module.replace("numpy._core", "numpy.core"), name)
        if wanted == ("numpy.core.multiarray", "_reconstruct"):
            return np.ndarray.__reduce__(np.empty(0))[0]  # independent of where this version of numpy defines it
        if wanted == ("numpy", "ndarray"):
            return np.ndarray
        if wanted == ("numpy", "dtype"):
            return np.dtype
        if wanted == ("_codecs", "encode"):
            return _encode
        raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")


def _arrays(path: Path) -> Any:
    """The content of a pickle of arrays, such as detectron2's ImageNet models."""
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    try:
        # Python 2 wrote some of these files; its byte strings are latin1
        content = _ArrayUnpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except Exception as error:  # a damaged file can fail in any way that a pickle can
        named = re.search(r"GLOBAL (.+)", str(error))
        reason = f"it contains a {named[1]}, but only arrays and plain values are loaded" if named else "damaged"
        raise WeightsError(f"{path}: not a readable pickle of arrays ({reason})") from None
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        content = content["model"]
    if isinstance(content, dict) and isinstance(content.get("blobs"), dict):
        content = content["blobs"]
    return content
