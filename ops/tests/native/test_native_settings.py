"""Environment variables: defaults, values, and the messages for bad ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from det_ops import native
from det_ops.native import settings


def test_defaults():
    assert settings.read() == settings.Settings("auto", None, (), False, False, 600.0)
    assert not settings.cuda_enabled()
    assert settings.isa() is None


def test_values(monkeypatch):
    values = {"NATIVE": "require", "CACHE": "/a b", "PREBUILT": "/p::~/q", "RETRY": "1", "VERBOSE": "1", "CUDA": "on"}
    for name, value in {**values, "LOCK_TIMEOUT": "2.5", "BUILD_TIMEOUT": "9", "ISA": "avx2"}.items():
        monkeypatch.setenv(f"DET_OPS_{name}", value)
    prebuilt = (Path("/p"), Path("~/q").expanduser())
    assert settings.read() == settings.Settings("require", Path("/a b"), prebuilt, True, True, 2.5, 9.0)
    assert settings.cuda_enabled()
    assert settings.isa() == "avx2"


def test_empty_is_unset(monkeypatch):
    for name in ("NATIVE", "CACHE", "PREBUILT", "RETRY", "VERBOSE", "CUDA", "LOCK_TIMEOUT", "BUILD_TIMEOUT", "ISA"):
        monkeypatch.setenv(f"DET_OPS_{name}", "")
    assert settings.read() == settings.Settings()
    assert settings.isa() is None


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("DET_OPS_NATIVE", "never", "auto, off, require"),
        ("DET_OPS_RETRY", "yes", "0, 1"),
        ("DET_OPS_VERBOSE", "2", "0, 1"),
        ("DET_OPS_CACHE", "relative/path", "an absolute path"),
        ("DET_OPS_PREBUILT", "relative", "an absolute path"),
        ("DET_OPS_LOCK_TIMEOUT", "soon", "a number of seconds above 0"),
        ("DET_OPS_LOCK_TIMEOUT", "0", "a number of seconds above 0"),
        ("DET_OPS_LOCK_TIMEOUT", "inf", "a number of seconds above 0"),
        ("DET_OPS_BUILD_TIMEOUT", "never", "a number of seconds above 0"),
    ],
)
def test_a_bad_value_is_named(name, value, allowed, monkeypatch, make):
    monkeypatch.setenv(name, value)
    with pytest.raises(settings.SettingError, match=f"^environment variable {name} is '{value}'; allowed: {allowed}$"):
        native.load(make())


@pytest.mark.parametrize(
    ("name", "read", "allowed"),
    [("DET_OPS_CUDA", settings.cuda_enabled, "off, on"), ("DET_OPS_ISA", settings.isa, "baseline, avx2, avx512")],
)
def test_bad_values_of_the_dispatcher(name, read, allowed, monkeypatch):
    monkeypatch.setenv(name, "AVX")
    with pytest.raises(settings.SettingError, match=f"^environment variable {name} is 'AVX'; allowed: {allowed}$"):
        read()


def test_the_table_names_every_variable():
    source = Path(settings.__file__).read_text()
    used = {word for line in source.splitlines()[30:] for word in line.split('"') if word.startswith("DET_OPS_")}
    listed = {line.split("|")[1].strip() for line in (settings.__doc__ or "").splitlines() if line.startswith("| DET")}
    assert used == listed
