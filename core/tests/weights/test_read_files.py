"""Old containers of checkpoints: torch's format before zip files, Python 2, arrays in pickles; and hostile ones."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from det_core.errors import WeightsError
from det_core.weights.python2_strings import without_byte_strings
from det_core.weights.read_files import SourceFile, read_source, read_state_dict

# A writer of Python 2's pickles and of torch's format before 1.6


class Stored:
    """A tensor's values, which the file has after its pickles."""

    def __init__(self, key: str, value: Tensor, *, kind: Any, location: str, count: int | None = None) -> None:
        self.key, self.value, self.kind, self.location = key, value, kind, location
        self.count = value.numel() if count is None else count


class Python2Pickler(pickle._Pickler):  # type: ignore[name-defined]
    """Writes `str` and `bytes` as Python 2 wrote its `str`, in protocol 2; tensors as torch 0.4 did, or 0.3."""

    dispatch: ClassVar[dict[type, Any]] = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def __init__(
        self, file: Any, *, rebuild: str = "_rebuild_tensor_v2", cuda: bool = False, count: Any = None
    ) -> None:
        super().__init__(file, protocol=2)
        self.rebuild, self.cuda, self.count = rebuild, cuda, count
        self.stored: dict[str, Stored] = {}

    def save_string(self, value: str | bytes) -> None:
        raw = value.encode("utf8") if isinstance(value, str) else value
        if len(raw) < 256:
            self.write(pickle.SHORT_BINSTRING + bytes([len(raw)]) + raw)
        else:
            self.write(pickle.BINSTRING + struct.pack("<i", len(raw)) + raw)
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = save_string

    def persistent_id(self, value: object) -> Any:
        if isinstance(value, Stored):
            return ("storage", value.kind, value.key, value.location, value.count, None)
        return None

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, torch.nn.Parameter) and self.rebuild == "_rebuild_tensor":
            return torch._utils._rebuild_parameter, (value.data, True, OrderedDict())
        if not isinstance(value, Tensor):
            return NotImplemented
        key = str(10**12 + len(self.stored))  # an address
        home = torch.cuda if self.cuda else torch
        kind = getattr(home, f"{'Half' if value.dtype == torch.half else 'Float'}Storage")
        place = "cuda:0" if self.cuda else "cpu"
        self.stored[key] = stored = Stored(key, value, kind=kind, location=place, count=self.count)
        arguments = (stored, 0, tuple(value.shape), value.stride())
        if self.rebuild == "_rebuild_tensor_v2":
            return torch._utils._rebuild_tensor_v2, (*arguments, False, OrderedDict())
        return torch._utils._rebuild_tensor, arguments


def python2_bytes(content: object, **settings: Any) -> bytes:
    """A torch file of Python 2."""
    file = io.BytesIO()
    for part in (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True}):
        Python2Pickler(file).dump(part)
    pickler = Python2Pickler(file, **settings)
    pickler.dump(content)
    keys = sorted(pickler.stored)
    Python2Pickler(file).dump(keys)
    for key in keys:
        value = pickler.stored[key].value
        file.write(struct.pack("<q", value.numel()) + value.detach().numpy().tobytes())
    return file.getvalue()


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    """Writes bytes to a file and returns its path."""

    def write(content: bytes, name: str = "x.pth") -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


STATE = {"conv.weight": torch.arange(6.0).view(2, 3), "conv.bias": torch.zeros(2)}


def same(found: Any, expected: Any = STATE) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[k], expected[k]) for k in expected)


# Files of Python 2


def test_the_writer_writes_what_torch_refuses(written):
    """It is what it is meant to be: a long byte string is read by Python's unpickler, and not by torch's."""
    content = python2_bytes({"a": "x" * 300})
    assert pickle.BINSTRING + struct.pack("<i", 300) in content
    assert pickle.SHORT_BINSTRING + b"\x01a" in content
    with pytest.raises(pickle.UnpicklingError, match="Unsupported operand 84"):
        torch.load(written(content), weights_only=True)


@pytest.mark.parametrize("rebuild", ["_rebuild_tensor", "_rebuild_tensor_v2"])
@pytest.mark.parametrize("cuda", [False, True])
def test_a_file_of_python_2(written, rebuild, cuda):
    meta = {"mmdet_version": "0.5.7", "config": f"model = 1\n# {'é' * 200}", "epoch": 12, "time": "now", "iter": 2**40}
    # in Python 2 a number of 64 bits is a `long`
    optimizer = {
        "state": {2**33: {"momentum_buffer": torch.ones(2)}},
        "param_groups": [{"lr": 0.02, "params": [2**33]}],
    }
    content = {"meta": meta, "state_dict": OrderedDict(STATE), "optimizer": optimizer}
    file = read_source(written(python2_bytes(content, rebuild=rebuild, cuda=cuda)))
    assert same(file.state)
    assert all(value.device.type == "cpu" for value in file.state.values())
    assert file.meta == meta
    assert file.version == "0.5.7"
    assert file.config_text == meta["config"]


def test_parameters_of_python_2(written):
    parameters = {"conv.weight": torch.nn.Parameter(STATE["conv.weight"])}
    assert same(read_state_dict(written(python2_bytes(parameters, rebuild="_rebuild_tensor"))), parameters)


def test_numpy_scalars_of_python_2_are_ignored(written):
    """Their values are byte strings that are no UTF-8."""
    for lr in (np.float64(0.1), np.float32(1e-3), np.arange(300.0)):
        content = python2_bytes({"meta": {"lr": lr, "epoch": 3}, "state_dict": STATE})
        assert b"\x80" in content or b"\x3f" in content
        file = read_source(written(content))
        assert same(file.state)
        assert file.meta["epoch"] == 3


def test_only_files_of_python_2_are_rewritten(written, tmp_path):
    torch.save(STATE, tmp_path / "3.pth", _use_new_zipfile_serialization=False)
    assert without_byte_strings(tmp_path / "3.pth") is None
    path = written(python2_bytes(STATE))
    rewritten = without_byte_strings(path)
    assert rewritten is not None
    assert rewritten.getvalue() != path.read_bytes()
    assert without_byte_strings(written(b"S'damaged")) is None


def test_a_truncated_file_of_python_2(written):
    whole = python2_bytes({"state_dict": STATE, "meta": {"config": "x" * 300}})
    for size in range(0, len(whole), 5):
        with pytest.raises(WeightsError, match=r"x\.pth: (not a readable checkpoint|contains no state dict)"):
            read_source(written(whole[:size]))


# Torch's format before zip files


def test_a_file_of_mmdet_1(tmp_path):
    """The layout of mmcv 0.2: torch's old format, half precision, an optimiser, and any other values."""
    half = {name: value.half() for name, value in STATE.items()}
    content = {
        "meta": {
            "mmdet_version": "1.0rc0+abc",
            "config": "model = dict()",
            "CLASSES": ("a", "b"),
            "epoch": 12,
            "iter": 9,
        },
        "state_dict": OrderedDict((f"module.{name}", value) for name, value in half.items()),
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.02, "nesterov": False, "params": [1, 2]}]},
        "extra": [1, 2.5, None, "text", b"", b"bytes", {1, 2}, frozenset({3}), (), 10**12, np.float64(1), np.zeros(3)],
    }
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    file = read_source(tmp_path / "x.pth")
    assert same(file.state, half)
    assert file.class_names == ("a", "b")
    assert (file.version, file.config_text) == ("1.0rc0+abc", "model = dict()")


def test_a_prefix_that_not_all_names_have_is_kept(tmp_path):
    mixed = {"module.a": torch.ones(1), "b": torch.ones(1)}
    torch.save(mixed, tmp_path / "x.pth")
    assert same(read_state_dict(tmp_path / "x.pth"), mixed)


def test_a_tar_file_of_torch_0_1(tmp_path):
    with tarfile.open(tmp_path / "x.pth", "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("storages"), io.BytesIO())
    with pytest.raises(WeightsError) as caught:
        read_state_dict(tmp_path / "x.pth")
    assert str(caught.value) == (
        f"{tmp_path / 'x.pth'}: not a readable checkpoint (a tar file, as torch 0.1 wrote; load it with a torch of its "
        "time and save it again)"
    )


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_file_of_another_pickle_protocol(tmp_path):
    torch.save(STATE, tmp_path / "x.pth", pickle_protocol=4)
    with pytest.raises(WeightsError) as caught:
        read_state_dict(tmp_path / "x.pth")
    assert str(caught.value) == (
        f"{tmp_path / 'x.pth'}: not a readable checkpoint (damaged, not a file of torch.save, or saved with another "
        "pickle protocol than 2: instruction 149 is not supported; load it where you trust it, and save it again)"
    )


def test_a_whole_module_is_refused_by_name(tmp_path):
    torch.save(torch.nn.Linear(1, 1), tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(WeightsError, match=r"it contains a torch\.nn\.modules\.linear\.Linear, but only tensors and"):
        read_state_dict(tmp_path / "x.pth")


@pytest.mark.parametrize("count", [10**15, -5, 3])
def test_a_storage_of_another_size_than_the_file_has(written, count):
    with pytest.raises(WeightsError, match=r"x\.pth: not a readable checkpoint \(.+\)$"):
        read_state_dict(written(python2_bytes({"a": torch.ones(2)}, count=count)))


class Shell:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


class Method:
    """Calls a method of an object when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return self.mark.mkdir, ()


@pytest.mark.parametrize(
    ("evil", "message"),
    [(Shell, "it contains a {}.system, but only tensors and plain values are loaded"), (Method, "damaged, or not a")],
)
def test_evil_in_a_file_of_python_2_runs_nothing(written, tmp_path, evil, message):
    mark = tmp_path / "mark"
    content = {"a": torch.ones(2), "note": "x" * 300, "evil": evil(mark)}
    with pytest.raises(WeightsError) as caught:
        read_state_dict(written(python2_bytes(content)))
    assert message.format(os.name) in str(caught.value)
    assert not mark.exists()


def deep_tuples(how: str, depth: int) -> bytes:
    """A pickle of {((((...)))): 1}, which crashes Python if it is read."""
    empty, one, first, second, last = b")", b"\x85", b"(", b"t", b"K\x01s."
    nested = {
        "TUPLE1": empty + one * depth,
        "TUPLE2": empty + b"K\x00\x86" * depth,
        "TUPLE3": empty + b"K\x00K\x00\x87" * depth,
        "TUPLE": first * depth + empty + second * depth,
        "memo": empty + b"q\x01" + b"0h\x01\x85q\x01" * depth,
        "in a list": empty + b"q\x01" + b"]h\x01\x85q\x01a0h\x01" * depth,
    }[how]
    return b"\x80\x02}" + nested + last


@pytest.mark.parametrize("how", ["TUPLE1", "TUPLE2", "TUPLE3", "TUPLE", "memo", "in a list"])
@pytest.mark.parametrize("container", ["old", "zip", "arrays"])
def test_tuples_that_would_crash_python(tmp_path, how, container):
    path = tmp_path / ("x.pkl" if container == "arrays" else "x.pth")

    def write(content: bytes) -> None:
        if container == "zip":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("x/data.pkl", content)
                archive.writestr("x/version", "3")
        elif container == "old":
            parts = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {})]
            path.write_bytes(b"".join([*parts, content, pickle.dumps([], 2)]))
        else:
            path.write_bytes(content)

    write(deep_tuples(how, 1_000_000))
    with pytest.raises(WeightsError) as caught:
        read_source(path)
    message = f"{path}: not a readable checkpoint (tuples in it are nested more than 100 times)"
    assert str(caught.value) == message
    write(deep_tuples(how, 50))
    with pytest.raises(WeightsError) as caught:
        read_source(path)
    assert str(caught.value) != message


# Weights that are none


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (torch.eye(3).to_sparse(), "a sparse or quantized tensor"),
        (torch.empty(2, device="meta"), "a tensor without values"),
        (torch.ones(2, dtype=torch.complex64), "a tensor of torch.complex64"),
        (torch.ones(1).expand(10**6, 10**6), "1 values repeated to 1000000000000"),
    ],
)
@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
def test_tensors_that_are_no_weights(tmp_path, value, reason):
    torch.save({"a.weight": value}, tmp_path / "x.pth")
    with pytest.raises(WeightsError) as caught:
        read_state_dict(tmp_path / "x.pth")
    assert str(caught.value) == f"{tmp_path / 'x.pth'}: only arrays of numbers are loaded, but a.weight is {reason}"


def test_views_and_expanded_weights_are_taken(tmp_path):
    views = {"a": torch.arange(10.0)[2:5], "b": torch.ones(1).expand(64), "c": torch.arange(6).view(2, 3).t()}
    torch.save(views, tmp_path / "x.pth")
    assert same(read_state_dict(tmp_path / "x.pth"), views)


# Pickles of arrays


def array_bytes(content: object) -> bytes:
    file = io.BytesIO()
    Python2Pickler(file).dump(content)
    return file.getvalue()


def test_a_pickle_of_arrays_of_python_2(written):
    """As Detectron's and detectron2's files."""
    arrays = {"conv1_w": np.arange(300, dtype=np.float32).reshape(3, 100), "big": np.arange(3, dtype=">f4")}
    path = written(array_bytes({"blobs": OrderedDict(arrays), "cfg": "x" * 300, "__author__": "Detectron"}), "x.pkl")
    state = read_source(path).state
    assert np.array_equal(state["conv1_w"], arrays["conv1_w"])
    assert torch.equal(torch.as_tensor(state["big"]), torch.arange(3.0))


@pytest.mark.parametrize(
    ("value", "reason"),
    [(np.array(["a"]), "<U1"), (np.array([None]), "object"), (np.ones(1, complex), "complex128")],
)
def test_arrays_that_are_no_numbers(written, value, reason):
    path = written(array_bytes({"model": {"a": value}}), "x.pkl")
    with pytest.raises(WeightsError) as caught:
        read_source(path)
    assert str(caught.value) == f"{path}: only arrays of numbers are loaded, but a is an array of {reason}"


def test_a_pickle_of_arrays_that_would_run_something(written, tmp_path):
    path = written(array_bytes({"model": {"a": Shell(tmp_path / "mark")}}), "x.pkl")
    with pytest.raises(WeightsError, match=r"it contains a \w+\.system, but only arrays and plain values are loaded"):
        read_source(path)
    assert not (tmp_path / "mark").exists()


def test_a_truncated_pickle_of_arrays(written):
    whole = array_bytes({"model": {"a": np.ones(3), "b": "x" * 300}})
    for size in range(0, len(whole), 3):
        with pytest.raises(WeightsError, match=r"x\.pkl: (not a readable pickle of arrays \(damaged\)|contains no)"):
            read_source(written(whole[:size], "x.pkl"))


# What a file says of itself


def test_the_configuration_text_of_all_generations(tmp_path):
    def text(**contents: Any) -> str:
        torch.save({"state_dict": STATE, **contents}, tmp_path / "x.pth")
        return read_source(tmp_path / "x.pth").config_text

    assert text(meta={"config": "model = 1"}) == "model = 1"
    assert text(meta={"cfg": "model = 3"}) == "model = 3"
    assert text(message_hub={"runtime_info": {"cfg": "model = 3"}, "log_scalars": {}}) == "model = 3"
    assert text(meta={"config": " ", "cfg": "model = 3"}) == "model = 3"
    assert text(meta={"config": {"model": 1}}) == ""
    assert text(meta=[1], message_hub=3) == ""
    assert text() == ""


def test_a_file_of_safetensors_says_nothing(tmp_path):
    save_file(STATE, tmp_path / "x.safetensors")
    file = read_source(tmp_path / "x.safetensors")
    assert same(file.state)
    assert (file.version, file.config_text, file.class_names) == ("", "", None)


def test_a_version_that_is_no_text():
    assert SourceFile(Path("x"), {}, {"mmdet_version": 2.1}).version == ""
