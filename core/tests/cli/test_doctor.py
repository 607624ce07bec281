"""`det-core doctor`: each line with its state and remedy."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from det_core.cli import doctor
from det_core.cli.main import run
from det_core.testing.isolated_plugins import entry_point, isolated_manager, make_plugin


@pytest.fixture(autouse=True)
def plugins():
    with isolated_manager(make_plugin("core"), make_plugin("good")):
        yield


def checks_of(section) -> dict[str, doctor.Check]:
    return {check.name: check for check in section()}


def test_all_sections_report_and_every_warning_has_a_remedy(capsys):
    assert run(["doctor", "--json"]) == 0
    checks = json.loads(capsys.readouterr().out)
    names = [c["name"] for c in checks]
    for name in (
        "python",
        "det-core",
        "torch",
        "torchvision",
        "C++ compiler",
        "ninja",
        "native operators",
        "plugin core",
        "plugin good",
        "extra tensorboard",
    ):
        assert name in names
    assert all(c["remedy"] for c in checks if c["state"] != "ok")
    assert {c["state"] for c in checks} <= {"ok", "warn"}


def test_the_text_has_a_line_per_check_and_its_remedy(capsys, monkeypatch):
    checks = [doctor.Check("a", "ok", "fine"), doctor.Check("bb", "warn", "slow", "buy a faster one")]
    monkeypatch.setattr(doctor, "examine", lambda: iter(checks))
    assert run(["doctor"]) == 0
    assert capsys.readouterr().out.splitlines() == ["ok    a   fine", "warn  bb  slow", "          -> buy a faster one"]


def test_a_torch_that_does_not_import_is_a_failure(capsys, monkeypatch):
    def broken() -> str:
        raise OSError("libtorch.so: undefined symbol\nmore")

    monkeypatch.setattr(doctor, "_torch_version", broken)
    check = checks_of(doctor._versions)["torch"]
    assert (check.state, check.found) == ("fail", "cannot be used: libtorch.so: undefined symbol")
    assert "pip install --upgrade torch torchvision" in check.remedy
    assert run(["doctor"]) == 1
    assert "fail  torch " in capsys.readouterr().out


def test_no_compiler_and_no_ninja(monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    monkeypatch.setitem(sys.modules, "ninja", None)
    checks = checks_of(doctor._compiler)
    assert checks["C++ compiler"].state == checks["ninja"].state == "warn"
    assert checks["C++ compiler"].found == "there is no C++ compiler: none of c++, g++, clang++ is on PATH"
    assert checks["C++ compiler"].remedy.startswith("install g++")
    assert checks["ninja"].remedy.startswith("pip install ninja")


def test_the_compiler_that_cxx_names(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert checks_of(doctor._compiler)["C++ compiler"].found == "CXX is 'no-such-compiler', which is not a program"
    broken = tmp_path / "broken-compiler"
    broken.write_text("#!/bin/sh\nexit 3\n", encoding="utf8")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    assert checks_of(doctor._compiler)["C++ compiler"].found == f"the C++ compiler fails ({broken}: exit code 3)"


def test_operators_that_are_served_slowly(monkeypatch):
    import det_ops
    from det_ops import native

    reference = "reference (plain PyTorch)"
    slow = [det_ops.OpStatus(name, reference, "no compiler; install g++") for name in ("nms", "soft_nms")]
    broken = native.Outcome("det_ops_cpu", reason="no C++ compiler found", remedy="install g++")
    monkeypatch.setattr(det_ops, "status", lambda device: slow)
    monkeypatch.setattr(native, "peek", lambda library: broken)
    library, served = doctor._operators()
    assert (library.name, library.state, library.remedy) == ("native operators", "warn", "install g++")
    assert library.found == "cannot build: no C++ compiler found; install g++"
    assert served == doctor.Check(f"on cpu by {reference}", "warn", "nms, soft_nms", "no compiler; install g++")


@pytest.mark.parametrize(("origin", "text"), [("prebuilt", "prebuilt at /k/a.so"), ("cache", "built at /k/a.so")])
def test_libraries_say_where_they_are_from_and_why_others_are_not_used(origin, text, monkeypatch):
    import det_ops
    from det_ops import native

    note = "det-ops-kernels 0.1.0 is not used: its det_ops_cpu requires torch >= 2.11, found 2.10"
    found = native.Outcome("det_ops_cpu", path=Path("/k/a.so"), origin=origin, note=note)
    monkeypatch.setenv("DET_OPS_CUDA", "on")
    monkeypatch.setattr(det_ops, "status", lambda device: [])
    monkeypatch.setattr(native, "peek", lambda library: found)
    assert list(doctor._operators()) == [
        doctor.Check(name, "ok", f"{text} ({note})") for name in ("native operators", "native CUDA operators")
    ]


def test_native_operators_are_one_line_each_for_library_and_operators():
    checks = list(doctor._operators())
    assert checks[0].name == "native operators"
    assert "nms, batched_nms" in checks[1].found


def test_plugins_that_fail_or_are_missing_or_off():
    with isolated_manager(make_plugin("core"), entry_point(ImportError("gone"), "rcnn"), choice="-x,rcnn"):
        checks = checks_of(doctor._plugins)
        assert (checks["plugin rcnn"].state, checks["plugin core"].state) == ("warn", "ok")
        assert checks["plugin rcnn"].found == "det-plugin-rcnn 1.0: import: ImportError: gone"
        assert "pip install ./plugins/rcnn (from a checkout of det)" in checks["plugin rcnn"].remedy
        assert checks["DET_PLUGINS"].found == "DET_PLUGINS names 'x', which is not installed"
    with isolated_manager(make_plugin("core"), make_plugin("a"), choice=""):
        assert checks_of(doctor._plugins)["plugin a"].found == "det-plugin-a 1.0 (off: DET_PLUGINS)"
    with isolated_manager(make_plugin("core")):
        assert "so there is no model" in checks_of(doctor._plugins)["plugins"].found
    with isolated_manager(entry_point(ImportError("gone"), "core", "det-core")):
        assert checks_of(doctor._plugins)["plugin core"].state == "fail"


def test_extras_say_what_they_are_for(monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda distribution: "")
    check = checks_of(doctor._extras)["extra matplotlib"]
    assert (check.state, check.found) == ("warn", "not installed: curves of losses and metrics")
    assert check.remedy == "pip install matplotlib"


def test_a_check_that_breaks_is_a_line_itself(monkeypatch):
    def _devices():
        raise RuntimeError("driver says no")
        yield

    monkeypatch.setattr(doctor, "_devices", _devices)
    check = {c.name: c for c in doctor.examine()}["devices"]
    assert (check.state, check.found) == ("fail", "the check itself failed: RuntimeError: driver says no")


def test_devices_of_other_machines(monkeypatch):
    import torch

    class Properties:
        name, total_memory, major, minor = "Some GPU", 24 * 2**30, 8, 9

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: Properties)
    assert checks_of(doctor._devices)["device cuda:0"].found == "Some GPU, 24 GiB, compute capability 8.9"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert "Apple GPU" in checks_of(doctor._devices)["device mps"].found
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    assert "the driver may be too old for CUDA 13.2" in checks_of(doctor._devices)["device"].remedy
