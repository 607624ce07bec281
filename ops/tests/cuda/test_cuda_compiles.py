"""The CUDA sources compile for real GPUs, and the bindings against torch; neither needs a GPU."""

import os
import shutil
from pathlib import Path

import pytest
from emulated import SOURCES, TORCH, compiler, run

pytestmark = pytest.mark.cpu  # GPUs that this machine need not have
KERNELS = sorted(path.name for path in SOURCES.glob("*.cu"))
BINDINGS = sorted(path.name for path in SOURCES.glob("*.cpp"))


def nvcc() -> str:
    homes = [Path(os.environ[name]) / "bin" for name in ("CUDA_HOME", "CUDA_PATH") if name in os.environ]
    path = os.pathsep.join([*map(str, homes), os.environ.get("PATH", ""), "/usr/local/cuda/bin"])
    found = shutil.which("nvcc", path=path)
    if found is None:
        pytest.skip("there is no nvcc: CUDA_HOME and CUDA_PATH are not set, and none is on PATH")
    return found


def test_there_is_something_to_compile():
    assert KERNELS
    assert BINDINGS


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_compiles_for_two_architectures_without_torch(name, tmp_path):
    archs = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in (80, 90)]
    run([nvcc(), "-c", "-std=c++17", "-Werror", "all-warnings", *archs, str(SOURCES / name), "-o", str(tmp_path / "o")])


def test_half_precisions_compile_where_tensor_cores_do_not_know_bfloat16(tmp_path):
    source = str(SOURCES / "deform_conv.cu")
    run([nvcc(), "-c", "-std=c++17", "-gencode=arch=compute_75,code=sm_75", source, "-o", str(tmp_path / "o")])


@pytest.mark.parametrize("name", BINDINGS)
def test_bindings_compile_against_the_stable_interface_of_torch(name, tmp_path):
    includes = f"-I{TORCH / 'include'}"
    run(
        [
            compiler(),
            "-c",
            "-std=c++17",
            "-fPIC",
            "-Wall",
            "-Werror",
            includes,
            str(SOURCES / name),
            "-o",
            str(tmp_path / "o"),
        ]
    )


@pytest.mark.parametrize("path", sorted(SOURCES.iterdir()), ids=lambda path: path.name)
def test_kernels_include_no_torch_and_bindings_its_stable_headers_alone(path):
    included = [line.split()[1].strip('<>"') for line in path.read_text().splitlines() if line.startswith("#include")]
    foreign = [name for name in included if name.startswith(("torch/", "ATen/", "c10/"))]
    if path.suffix in (".cu", ".cuh") or path.name == "launch.h":
        assert foreign == []
    allowed = ("torch/csrc/stable/", "torch/headeronly/", "torch/csrc/inductor/aoti_torch/c/shim.h")
    assert [name for name in foreign if not name.startswith(allowed)] == []
