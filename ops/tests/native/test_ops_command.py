"""`python -m det_ops`."""

from __future__ import annotations

import re
import sys
from types import SimpleNamespace

import pytest

import det_ops
from det_ops import __main__ as command, native


@pytest.fixture
def libraries(make, builds, cache_folder, monkeypatch):
    """Two small libraries in place of the real ones."""
    known = SimpleNamespace(CPU=make(), CUDA=make())
    monkeypatch.setitem(sys.modules, "det_ops.libraries", known)
    served = [
        SimpleNamespace(name="nms", served_by="native", remedy=""),
        SimpleNamespace(name="roi_align", served_by="reference", remedy="install torchvision"),
    ]
    monkeypatch.setattr(det_ops, "status", lambda: served, raising=False)
    return known


def test_status(libraries, capsys):
    path = native.build(libraries.CPU).path
    assert command.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{libraries.CPU.name}: built at {path}"
    assert lines[1].startswith(f"{libraries.CUDA.name}: not built yet: would build with /")
    assert lines[2:] == ["nms: native", "roi_align: reference (install torchvision)"]
    assert command.main(["status"]) == 0
    assert capsys.readouterr().out.splitlines() == lines


def test_build(libraries, capsys, builds):
    assert command.main(["build"]) == 0
    line = rf"{libraries.CPU.name}: built in \d+\.\d seconds: /.*/{libraries.CPU.name}\.so\n"
    assert re.fullmatch(line, capsys.readouterr().out)
    assert command.main(["build", "--cuda"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert re.fullmatch(rf"{libraries.CPU.name}: already built: /.*\.so", first)
    assert re.fullmatch(rf"{libraries.CUDA.name}: built in .*", second)
    assert command.main(["build", "--force"]) == 0
    assert builds() == [libraries.CPU.name, libraries.CUDA.name, libraries.CPU.name]


def test_build_by_hand_ignores_off(libraries, monkeypatch):
    monkeypatch.setenv("DET_OPS_NATIVE", "off")
    assert command.main(["build"]) == 0


def test_a_build_that_fails(libraries, capsys, monkeypatch, make):
    libraries.CPU = make("nonsense\n")
    for _ in range(2):
        assert command.main(["build"]) == 1
        out = capsys.readouterr().out
        assert out.startswith(f"{libraries.CPU.name}: cannot build: building {libraries.CPU.name} failed: ")
        assert "nonsense" in out.partition("\n")[2]  # the log follows
    monkeypatch.setenv("CXX", "/no/such/thing")
    libraries.CPU = make()
    assert command.main(["build"]) == 1
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_clean(libraries, capsys):
    path = native.build(libraries.CPU).path
    assert command.main(["clean"]) == 0
    assert capsys.readouterr().out == f"removed {path.parent}\n"
    assert command.main(["clean"]) == 0
    assert capsys.readouterr().out == "nothing to remove\n"


def test_a_bad_setting(libraries, capsys, monkeypatch):
    monkeypatch.setenv("DET_OPS_NATIVE", "no")
    assert command.main([]) == 2
    message = "error: environment variable DET_OPS_NATIVE is 'no'; allowed: auto, off, require\n"
    assert capsys.readouterr().err == message
