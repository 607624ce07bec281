"""CUDA libraries: each part that may be missing, none of which affects the CPU library."""

from __future__ import annotations

import re

import pytest
import torch

from det_ops import native
from det_ops.native import archs, probe, probe_cuda, staging

NVCC = 'echo "Cuda compilation tools, release {release}, V{release}.88"'


@pytest.fixture
def toolkit(tmp_path, monkeypatch, tools, torch_with_cuda):
    """Makes a toolkit with a scripted nvcc, as CUDA_HOME."""

    def make(text: str = NVCC.format(release="13.0")):
        home = tmp_path / "cuda"
        tools["script"](home / "bin" / "nvcc", text)
        monkeypatch.setenv("CUDA_HOME", str(home))
        return home

    return make


def _failing(make, reason, remedy):
    cuda, cpu = native.load(make(cuda=True)), native.load(make())
    assert not cuda.loaded
    assert re.fullmatch(reason, cuda.reason), cuda.reason
    assert remedy in cuda.remedy
    assert cpu.loaded, cpu.reason


def test_torch_without_cuda(make, builds, cache_folder, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    _failing(make, "this torch is built without CUDA", "install a CUDA build of torch")


def test_no_nvcc(make, builds, cache_folder, torch_with_cuda, bare_path, monkeypatch):
    bare_path("c++", "g++", "clang++", "as", "ld", "ninja")
    monkeypatch.setattr(probe_cuda, "USUAL", probe_cuda.USUAL / "none")
    reason = "there is no nvcc: CUDA_HOME is not set and none is on PATH or in /usr/local/cuda"
    _failing(make, reason, "install the CUDA toolkit that matches torch.version.cuda and set CUDA_HOME to its folder")


@pytest.mark.parametrize("name", ["CUDA_HOME", "CUDA_PATH"])
def test_cuda_home_without_nvcc(name, make, builds, cache_folder, torch_with_cuda, tmp_path, monkeypatch):
    monkeypatch.setenv(name, str(tmp_path))
    _failing(make, f"{name} is {tmp_path}, which holds no bin/nvcc", f"correct {name}, or install the CUDA toolkit")


def test_nvcc_does_not_run(make, builds, cache_folder, toolkit):
    home = toolkit("echo broken >&2; exit 1")
    _failing(make, rf"nvcc fails \({home}/bin/nvcc: broken\)", "install the CUDA toolkit")


def test_nvcc_says_no_version(make, builds, cache_folder, toolkit):
    home = toolkit("echo hello")
    _failing(make, rf"nvcc \({home}/bin/nvcc\) does not report its version", "install the CUDA toolkit")


def test_nvcc_of_another_major_version(make, builds, cache_folder, toolkit):
    toolkit(NVCC.format(release="12.8"))
    reason = r"nvcc is from CUDA 12.8 and torch from CUDA 13.2; expected the same major version"
    _failing(make, reason, "set CUDA_HOME to the toolkit of CUDA 13, or change torch")


def test_no_gpu_and_no_list(make, builds, cache_folder, toolkit, monkeypatch):
    toolkit()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    reason = "no GPU is visible and TORCH_CUDA_ARCH_LIST is not set"
    _failing(make, reason, "make a GPU visible, or set TORCH_CUDA_ARCH_LIST, for instance to 8.0;9.0")


def test_a_minor_mismatch_is_fine(toolkit):
    assert probe_cuda.version(toolkit() / "bin" / "nvcc") == "nvcc 13.0.88"


def test_nvcc_on_path_may_be_a_script(tmp_path, monkeypatch, tools, torch_with_cuda):
    home = tmp_path / "real"
    nvcc = tools["script"](home / "bin" / "nvcc", f'echo "#$ TOP={home}/bin/.." >&2')
    path = tools["script"](tmp_path / "bin" / "nvcc", f'exec {nvcc} "$@"')
    monkeypatch.setenv("PATH", str(path.parent))
    assert probe_cuda.nvcc() == path
    assert probe_cuda.home(path) == home


def test_nvcc_on_path_may_be_a_link(tmp_path, tools):
    home = tmp_path / "real"
    nvcc = tools["script"](home / "bin" / "nvcc", "exit 1")
    (home / "include").mkdir()
    (home / "include" / "cuda_runtime.h").write_text("")
    link = tmp_path / "bin" / "nvcc"
    link.parent.mkdir()
    link.symlink_to(nvcc)
    assert probe_cuda.home(link) == home


def test_the_list_of_architectures(monkeypatch):
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "9.0 8.0;8.0+PTX")
    assert archs.required(cuda=True).to_build() == "8.0;8.0+PTX;9.0"
    assert archs.required(cuda=False) == archs.Archs()


@pytest.mark.parametrize("text", ["", "native"])
def test_the_architectures_of_the_visible_devices(text, monkeypatch):
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", text)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda i: [(9, 0), (8, 0), (9, 0)][i])
    assert archs.required(cuda=True).to_build() == "8.0;9.0"


def test_the_environment_of_the_builder(make, toolkit, monkeypatch, tmp_path, tools):
    tools["needs_compiler"]()
    home = toolkit()
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "9.0")
    library = make(cuda=True)
    stage = tmp_path / "stage"
    stage.mkdir()
    chain = probe.toolchain(True, archs.required(cuda=True))
    staging.fill(stage, library, native.loader.snapshot(library), chain)
    environment = staging.environment(stage, chain)
    assert (environment["CUDA_HOME"], environment["TORCH_CUDA_ARCH_LIST"]) == (str(home), "9.0")
    monkeypatch.setenv("CXX", chain.cxx[0])  # who chooses the compiler chooses it for nvcc too
    assert staging.environment(stage, chain)["CC"] == chain.cxx[0]
    assert str(chain).endswith(" and nvcc 13.0.88, for 9.0")


def test_a_real_cuda_build(cache_folder, tmp_path, monkeypatch, make, tools):
    tools["needs_compiler"]()
    try:
        probe_cuda.version(probe_cuda.nvcc())
    except Exception as error:
        pytest.skip(f"no CUDA to build with: {error}")
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "9.0")
    folder = tmp_path / "sources"
    folder.mkdir()
    kernel = "__global__ void k(float* x) { x[threadIdx.x] *= 2; }\n"
    (folder / "k.cu").write_text(f"{kernel}void run(float* x) {{ k<<<1, 32>>>(x); }}\n")
    (folder / "b.cpp").write_text("void run(float* x);\nvoid call(float* x) { run(x); }\n")
    library = native.NativeLibrary("cuda_demo", (folder / "b.cpp", folder / "k.cu"), cuda=True)
    outcome = native.load(library)
    assert outcome.loaded, (outcome.reason, outcome.log)
    log = outcome.path.with_name("build.log").read_text()
    assert "code=sm_90" in log
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert native.peek(library).path == outcome.path  # found where no GPU is visible
