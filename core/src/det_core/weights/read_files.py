"""Reading checkpoints of other projects without running code from them.

torch files, also those of torch's format before zip files and of Python 2, are read with `weights_only=True`; other
objects in them, such as logs, become inert stand-ins. Other pickles are read with an unpickler that can only build
arrays.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
from attrs import frozen

from det_core.errors import WeightsError, first_few, no_such
from det_core.weights.nested_tuples import MAX_NESTED, nested_too_deep
from det_core.weights.older_names import unwrapped
from det_core.weights.python2_strings import PICKLES, without_byte_strings

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
    *(
        f"{home}.{kind}"
        for home in ("builtins", "__builtin__")
        for kind in ("bytes", "dict", "float", "frozenset", "int", "list", "str", "tuple")
    ),
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
MOST_REPEATED = 1_000_000  # a damaged file may repeat one value to any size


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
    """A checkpoint of another project.

    state: its weights by name, without the prefix `module.` of DataParallel. meta: its metadata, as plain values.
    message_hub: what mmengine (mmdet 3.x) records beside it. yacs_text: Detectron's configuration, as YAML, or "".
    """

    path: Path
    state: Mapping[str, Any]
    meta: Mapping[str, Any] = attrs.field(factory=dict)
    message_hub: Mapping[str, Any] = attrs.field(factory=dict)
    yacs_text: str = ""

    @property
    def version(self) -> str:
        """The version of mmdet, if the file records it, or ""."""
        found = self.meta.get("mmdet_version")
        return found if isinstance(found, str) else ""

    @property
    def config_text(self) -> str:
        """The text of mmdet's configuration, if the file records it, or "". It is Python, and never run."""
        facts = self.message_hub.get("runtime_info")
        inner = facts if isinstance(facts, dict) else {}
        for found in (self.meta.get("config"), self.meta.get("cfg"), inner.get("cfg")):
            if isinstance(found, str) and found.strip():
                return found
        return ""

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
    content = read_arrays(path) if path.suffix == ".pkl" else _content(path)
    state = _state_dict(path, content)
    meta, hub, yacs = (content.get(name) for name in ("meta", "message_hub", "cfg"))
    return SourceFile(
        path,
        state,
        meta if isinstance(meta, dict) else {},
        hub if isinstance(hub, dict) else {},
        yacs if isinstance(yacs, str) else "",
    )


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a `.safetensors` file or a torch file, without running code.

    Raises WeightsError for a file that is missing or damaged, or contains anything but tensors.
    """
    return _state_dict(path, _content(path))


def _content(path: Path) -> Any:
    from safetensors.torch import load_file

    if not path.is_file():
        raise WeightsError(no_such(path, "no such file"))
    try:
        return load_file(path) if path.suffix == ".safetensors" else _torch_content(path)
    except WeightsError:
        raise
    except Exception as error:  # a damaged file can fail in any way that a pickle can
        raise WeightsError(f"{path}: not a readable checkpoint ({_reason(error)})") from None


def _torch_content(path: Path) -> Any:
    import torch

    file: Path | BytesIO = path
    if zipfile.is_zipfile(path):
        _check_stored(path)
    elif _is_tar(path):
        raise WeightsError(
            f"{path}: not a readable checkpoint (a tar file, as torch 0.1 wrote; load it with a torch of its time and "
            "save it again)"
        )
    else:
        _check_nesting(path, PICKLES)
        file = without_byte_strings(path) or path
    # Any, since torch's stubs lack pairs of a class and its name
    allowed: list[Any] = [(_plain_dict, "collections.defaultdict"), *((Inert, name) for name in STAND_INS)]
    with torch.serialization.safe_globals(allowed):
        return torch.load(file, map_location="cpu", weights_only=True)


def _is_tar(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(262).endswith(b"ustar")


def _check_stored(path: Path) -> None:
    """Raise WeightsError for a torch file with compressed entries, which may expand to any size, or deep tuples."""
    with zipfile.ZipFile(path) as archive:
        packed = [entry.filename for entry in archive.infolist() if entry.compress_type != zipfile.ZIP_STORED]
        if packed:
            raise WeightsError(
                f"{path}: {first_few(packed)} in it are compressed, which torch.save never does: refused, since they "
                "may expand to any size; load the file where you trust it, and save it again"
            )
        for entry in archive.infolist():
            if entry.filename.lower().endswith(".pkl"):
                with archive.open(entry) as file:
                    _refuse_nesting(path, nested_too_deep(BytesIO(file.read())))


def _check_nesting(path: Path, pickles: int) -> None:
    with path.open("rb") as file:
        _refuse_nesting(path, nested_too_deep(file, pickles))


def _refuse_nesting(path: Path, deep: bool) -> None:
    if deep:
        raise WeightsError(f"{path}: not a readable checkpoint (tuples in it are nested more than {MAX_NESTED} times)")


def _state_dict(path: Path, content: Any) -> dict[str, Any]:
    """The weights in a file's content, by name: under one of the known names, or the whole content.

    DataParallel's prefix `module.` is removed if all names have it.
    """
    import numpy as np
    import torch

    for name in ("state_dict", "model", "model_state", "blobs"):
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    if not isinstance(content, dict) or not all(
        isinstance(k, str) and isinstance(v, (torch.Tensor, np.ndarray)) for k, v in content.items()
    ):
        raise WeightsError(f"{path}: contains no state dict (a mapping of names to tensors)")
    problems = [f"{name} is {what}" for name, value in content.items() if (what := _unusable(value))]
    if problems:
        raise WeightsError(f"{path}: only arrays of numbers are loaded, but {first_few(problems)}")
    return {name: _native(content[key]) for name, key in unwrapped(content).items()}


def _unusable(value: Any) -> str:
    """Why a tensor or array cannot be a weight, or ""."""
    import numpy as np
    import torch

    if isinstance(value, np.ndarray):
        known = value.dtype.kind in "fiub" and value.dtype.itemsize <= 8
        return "" if known else f"an array of {value.dtype}"
    if value.layout != torch.strided or value.is_quantized:
        return "a sparse or quantized tensor"
    if value.device.type != "cpu":
        return "a tensor without values"
    if value.dtype.is_complex:
        return f"a tensor of {value.dtype}"
    stored = value.untyped_storage().nbytes() // max(value.element_size(), 1)
    return f"{stored} values repeated to {value.numel()}" if value.numel() > max(stored, MOST_REPEATED) else ""


def _native(value: Any) -> Any:
    """An array in the byte order of this machine, which torch requires; a tensor unchanged."""
    import numpy as np

    if isinstance(value, np.ndarray) and not value.dtype.isnative:
        return value.astype(value.dtype.newbyteorder("="))
    return value


def _reason(error: Exception) -> str:
    """Why a file cannot be read, in one line, without torch's advice to allow arbitrary code."""
    if isinstance(error, pickle.UnpicklingError):
        named = re.search(r"GLOBAL (\S+)", str(error))
        unknown = re.search(r"Unsupported operand (\d+)", str(error))
        if named is None and unknown is not None:
            return (
                f"damaged, not a file of torch.save, or saved with another pickle protocol than 2: instruction "
                f"{unknown[1]} is not supported; load it where you trust it, and save it again"
            )
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


def _no_bytes() -> bytes:
    """Replaces `bytes` without arguments; with some, which could ask for any amount of memory, it fails."""
    return b""


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
        if wanted == ("__builtin__", "bytes"):  # what protocol 2 of Python 3 writes for the content of an empty array
            return _no_bytes
        if wanted == ("collections", "OrderedDict"):
            return OrderedDict
        raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")


def read_arrays(path: Path) -> Any:
    """The content of a pickle of numpy arrays and plain values, without running code; Python 2 may have written it.

    Raises WeightsError for a file that is missing or damaged, or contains other objects.
    """
    if not path.is_file():
        raise WeightsError(no_such(path, "no such file"))
    _check_nesting(path, 1)
    try:
        # The byte strings of Python 2 are latin1
        return _ArrayUnpickler(BytesIO(path.read_bytes()), encoding="latin1").load()
    except Exception as error:  # a damaged file can fail in any way that a pickle can
        named = re.search(r"GLOBAL (.+)", str(error))
        reason = f"it contains a {named[1]}, but only arrays and plain values are loaded" if named else "damaged"
        raise WeightsError(f"{path}: not a readable pickle of arrays ({reason})") from None
