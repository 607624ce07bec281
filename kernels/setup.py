"""Builds the wheel: compiles the kernels of the installed det-ops, and names the platform in the wheel's tag.

With DET_OPS_CUDA=on, the CUDA kernels are compiled, too, for the architectures in TORCH_CUDA_ARCH_LIST.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py


class BuildKernels(build_py):
    """Compiles the libraries, or takes them from the cache of det-ops, into the package."""

    def run(self) -> None:
        from det_ops import libraries, native
        from det_ops.native import packaged, settings

        super().run()
        package = Path(self.build_lib, "det_ops_kernels")
        shutil.rmtree(package / "libraries", ignore_errors=True)  # of an earlier build
        for library in [libraries.CPU] + [libraries.CUDA] * settings.cuda_enabled():
            outcome = native.build(library)
            if outcome.path is None or outcome.origin == "prebuilt":
                raise SystemExit(f"{library.name}: {outcome.reason or 'is prebuilt: uninstall det-ops-kernels first'}")
            packaged.pack(library, outcome.path, package)


class CompiledDistribution(Distribution):
    """Has compiled files, though no extension modules: the wheel is not pure."""

    def has_ext_modules(self) -> bool:
        return True


class PlatformWheel(bdist_wheel):
    """A wheel for every Python, and for this platform."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


setup(distclass=CompiledDistribution, cmdclass={"build_py": BuildKernels, "bdist_wheel": PlatformWheel})
