"""The first thing that a user does: install a plugin from wheels and train, with and without a compiler."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from check_dist import Environment, fresh_environment, install, succeeded
from distributions import ROOT, Built

pytestmark = pytest.mark.slow
TOOL = ROOT / "tools" / "check_dist.py"
LOSSES = ("loss/rpn_cls", "loss/stage1_cls", "loss/stage3_box", "loss/stage3_mask", "loss/semantic")


@pytest.fixture(scope="module")
def environment(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """A fresh environment where pip installed two plugins from a folder."""
    made = fresh_environment(tmp_path_factory.mktemp("fresh"))
    install(made, built.dist, ["det-plugin-htc", "det-plugin-cascade"])
    return made


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the wheel of det-ops-kernels."""
    from det_ops import libraries, native

    outcome = native.build(libraries.CPU)
    if outcome.path is None:
        pytest.skip(f"no native kernels here: {outcome.reason}")
    out = tmp_path_factory.mktemp("kernels")
    command = [sys.executable, str(ROOT / "tools" / "build.py"), "--kernels", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def with_kernels(environment: Environment, kernels: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The environment with the kernels on its path; its working folder is another."""
    where = tmp_path_factory.mktemp("with-kernels")
    pip = ("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--find-links", kernels)
    succeeded(environment.run("python", *pip, "--target", where / "site", "det-ops-kernels"))
    (where / "outside").mkdir()
    return Environment(environment.folder, where / "outside", {"PYTHONPATH": str(where / "site")})


def train(environment: Environment, plugin: str, run: str, steps: int = 3, **variables: str) -> list[dict]:
    """The metrics of the first steps of training, as a user would start it."""
    words = ("train", "--plugin", plugin, "--max-steps", steps, "--log-every", 1, "--device", "cpu", "--work-dir", run)
    out = succeeded(environment.run("det-core", *words, **variables))
    assert f"stopped after step {steps} of " in out
    metrics = (environment.outside / run / "metrics.jsonl").read_text(encoding="utf8")
    return [json.loads(line) for line in metrics.splitlines()][:steps]


def doctor(environment: Environment, **variables: str) -> dict[str, dict]:
    """The lines of `det-core doctor`, by name."""
    lines = json.loads(succeeded(environment.run("det-core", "doctor", "--json", **variables)))
    return {line["name"]: line for line in lines}


def served(lines: dict[str, dict]) -> set[str]:
    return {name.removeprefix("on cpu by ") for name in lines if name.startswith("on cpu by ")}


@pytest.fixture(scope="module")
def compiled(environment: Environment, kernels: Path) -> list[dict]:
    """Metrics of HTC where the kernels are compiled at first use; those of the tests are found in the cache."""
    assert served(doctor(environment)) == {"native (compiled here)"}
    return train(environment, "htc", "compiled")


def test_htc_trains(compiled: list[dict]) -> None:
    assert all(step[loss] > 0 for step in compiled for loss in LOSSES)


def test_cascade_trains(environment: Environment) -> None:
    (step,) = train(environment, "cascade", "cascade", steps=1)
    assert step["loss/stage3_cls"] > 0


def test_without_a_compiler_the_fallbacks_train_and_doctor_says_so(environment: Environment) -> None:
    hidden = environment.without_compiler()
    lines = doctor(environment, **hidden)
    assert lines["C++ compiler"]["state"] == "warn"
    assert lines["native operators"]["found"].startswith("cannot build: there is no C++ compiler: none of c++, g++,")
    assert served(lines) == {"torchvision", "reference (plain PyTorch)"}
    for name in served(lines):
        assert "install g++" in lines[f"on cpu by {name}"]["remedy"]
    assert all(step["loss/stage3_mask"] > 0 for step in train(environment, "htc", "fallbacks", **hidden))


def test_prebuilt_kernels_need_no_compiler_and_give_equal_results(
    with_kernels: Environment, compiled: list[dict]
) -> None:
    hidden = with_kernels.without_compiler()
    lines = doctor(with_kernels, **hidden)
    assert served(lines) == {"native (prebuilt)"}
    assert lines["native operators"]["state"] == "ok"
    assert lines["native operators"]["found"].startswith("prebuilt at ")
    found = train(with_kernels, "htc", "prebuilt", **hidden)
    for one, other in zip(compiled, found, strict=True):
        assert {k: v for k, v in one.items() if k.startswith("loss")} == {
            k: v for k, v in other.items() if k.startswith("loss")
        }


OLDER_TORCH = """
import torch
torch.__version__ = "2.10.0"
import det_ops
from det_ops import libraries, native
print(native.peek(libraries.CPU).note)
print(sorted({op.served_by for op in det_ops.status()}))
"""


def test_prebuilt_kernels_for_a_later_torch_are_refused(with_kernels: Environment) -> None:
    done = with_kernels.run("python", "-c", OLDER_TORCH, **with_kernels.without_compiler())
    note, by = succeeded(done).splitlines()
    assert " is not used: its det_ops_cpu requires torch >= 2.11, found 2.10.0; install a det-ops-kernels" in note
    assert by == "['reference (plain PyTorch)', 'torchvision']"


def test_prebuilt_kernels_of_other_sources_are_refused(with_kernels: Environment, tmp_path: Path) -> None:
    altered = tmp_path / "site"
    (ops,) = with_kernels.folder.glob("lib/python*/site-packages/det_ops")
    shutil.copytree(ops, altered / "det_ops")
    header = altered / "det_ops" / "csrc" / "cpu" / "kernels.h"
    header.write_text(header.read_text(encoding="utf8") + "// changed\n", encoding="utf8")
    path = f"{altered}:{with_kernels.variables['PYTHONPATH']}"
    lines = doctor(with_kernels, **with_kernels.without_compiler(), PYTHONPATH=path)
    assert served(lines) == {"torchvision", "reference (plain PyTorch)"}
    found = lines["native operators"]
    assert found["state"] == "warn"
    assert "was compiled from other sources or flags than those installed here" in found["found"]


OTHERS = [f"3.{minor}" for minor in range(11, 15) if minor != sys.version_info[1]]


@pytest.mark.parametrize("version", OTHERS)
def test_another_python(version: str, built: Built) -> None:
    python = shutil.which(f"python{version}")
    asked = [python, "-c", "import torch, torchvision, cattrs, pycocotools, pip"]
    if python is None or subprocess.run(asked, capture_output=True, check=False).returncode:
        pytest.skip(f"no python{version} with torch and the other requirements: make check-dist tests one by its path")
    command = [sys.executable, str(TOOL), "--dist", str(built.dist), "--python", python, "--plugins", "htc"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    assert f"python {version}." in done.stdout
    assert "det-core train --plugin htc --max-steps 3: trained" in done.stdout


def test_what_cannot_be_installed_is_named(built: Built, tmp_path: Path) -> None:
    command = [sys.executable, str(TOOL), "--dist", str(tmp_path), "--plugins", "htc"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 1
    assert "No matching distribution found for det-plugin-htc" in done.stderr
    assert "Traceback" not in done.stderr
