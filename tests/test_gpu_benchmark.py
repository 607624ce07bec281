"""`benchmarks/gpu.py`: every part runs on the CPU, and a part that fails costs only itself."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
NAMES = ["machine", "environment", "kernels", "operators", "memcheck", "races", "golden", "ops", "models", "zoo"]
NAMES += ["data", "compiled"]


@pytest.fixture(scope="module")
def gpu():
    """The program as a module."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import gpu

        yield gpu
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture
def run_parts(gpu, monkeypatch, tmp_path):
    """Runs these parts instead; returns the exit status and the results by name."""

    def run(*parts, arguments=()):
        monkeypatch.setattr(gpu, "parts", lambda *_: list(parts))
        status = gpu.main(["--dry", "--out", str(tmp_path), *arguments])
        content = json.loads((tmp_path / "gpu.json").read_text(encoding="utf8"))
        return status, {part["name"]: part for part in content["parts"]}

    return run


def python(gpu, name: str, code: str, **more):
    return gpu.Part(name, 10, (sys.executable, "-c", code), **more)


@pytest.mark.slow
def test_every_part_runs_on_the_cpu(tmp_path) -> None:
    command = [sys.executable, BENCHMARKS / "gpu.py", "--dry", "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500)
    logs = "\n".join(f"{path.name}\n{path.read_text()[-2000:]}" for path in tmp_path.glob("*.log"))
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\n{logs}"
    parts = json.loads((tmp_path / "gpu.json").read_text(encoding="utf8"))["parts"]
    assert [(part["name"], part["outcome"]) for part in parts] == [(name, "ok") for name in NAMES]
    assert [p["name"] for p in parts if p["figures"] is None] == ["environment", "kernels"]
    counts = {p["name"]: p["figures"] for p in parts if p["name"] in ("operators", "memcheck", "races", "golden")}
    assert all(c["tests"] > c["failed"] + c["skipped"] == 0 for c in counts.values()), counts
    text = (tmp_path / "gpu.md").read_text(encoding="utf8")
    assert all(f"| {name} | ok |" in text for name in NAMES)
    assert all(f"\n## {name}\n" in text for name in NAMES if name not in ("environment", "kernels"))


def test_a_part_that_fails_costs_only_itself(gpu, run_parts, tmp_path) -> None:
    status, parts = run_parts(
        python(gpu, "fails", "print('here is why'); raise SystemExit(3)"),
        gpu.Part("cannot start", 10, ("/no/such/program",)),
        python(gpu, "writes nothing", "pass", figures="nothing.json"),
        python(gpu, "is left out", "", without="the tool is not there"),
        python(gpu, "good", "open('{}', 'w').write('[{{\"a\": 1.5, \"b\": NaN}}]')".format(tmp_path / "good.json"),
               figures="good.json"),
    )  # fmt: skip
    assert status == 1
    assert {name: part["outcome"] for name, part in parts.items()} == {
        "fails": "failed",
        "cannot start": "failed",
        "writes nothing": "failed",
        "is left out": "skipped",
        "good": "ok",
    }
    assert parts["fails"]["reason"] == "exit status 3"
    assert parts["fails"]["tail"] == "here is why"
    assert parts["cannot start"]["reason"].startswith("FileNotFoundError")
    assert parts["writes nothing"]["reason"].startswith("no figures: FileNotFoundError")
    assert parts["good"]["figures"] == [{"a": 1.5, "b": None}]
    text = (tmp_path / "gpu.md").read_text(encoding="utf8")
    assert "| is left out | skipped | 0 | 0 | the tool is not there |" in text
    assert "| a | b |\n|---|---|\n| 1.5 |  |" in text


def test_a_part_ends_with_its_time_and_keeps_the_figures_so_far(gpu, run_parts, tmp_path) -> None:
    code = (
        "import subprocess, sys, time\n"
        f"open({str(tmp_path / 'slow.json')!r}, 'w').write('[]')\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(tmp_path / 'child')!r}, 'w').write(str(child.pid))\n"
        "time.sleep(600)"
    )
    slow, after = python(gpu, "slow", code, figures="slow.json"), python(gpu, "after", "print('runs')")
    status, parts = run_parts(slow, after, arguments=("--minutes", "0.2"))
    assert status == 1
    assert (parts["slow"]["outcome"], parts["after"]["outcome"]) == ("timed out", "ok")
    assert parts["slow"]["figures"] == []
    assert parts["slow"]["reason"] == "stopped after 6 s"
    state = Path(f"/proc/{(tmp_path / 'child').read_text()}/stat")
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_part_gets_its_share_of_what_is_left(gpu, run_parts) -> None:
    _, parts = run_parts(*(python(gpu, name, "pass") for name in "abc"), arguments=("--minutes", "1"))
    assert [round(parts[name]["limit"]) for name in "abc"] == [20, 30, 60]


def test_other_parts_keep_their_results(gpu, run_parts) -> None:
    parts = [python(gpu, name, "pass") for name in ("one", "two")]
    assert run_parts(*parts)[0] == 0
    broken = [parts[0], python(gpu, "two", "raise SystemExit(1)")]
    status, results = run_parts(*broken, arguments=("--only", "two"))
    assert status == 1
    assert {name: part["outcome"] for name, part in results.items()} == {"one": "ok", "two": "failed"}
    with pytest.raises(SystemExit):
        run_parts(*parts, arguments=("--only", "three"))


def test_without_the_environment_the_sources_are_used(gpu, run_parts) -> None:
    code = "import os; print(os.environ['PYTHONPATH']); raise SystemExit(1)"
    _, parts = run_parts(python(gpu, "environment", "raise SystemExit(1)"), python(gpu, "kernels", code))
    assert parts["kernels"]["tail"].startswith(str(BENCHMARKS.parent / "ops" / "src"))
    part = gpu.without_environment(gpu.Part("kernels", 1, ("/e/bin/python", "-m", "det_ops")), "/e/bin/python")
    assert part.command == (sys.executable, "-m", "det_ops")


def options(tmp_path: Path) -> argparse.Namespace:
    return argparse.Namespace(environment=tmp_path / "environment", wheels=None)


def test_on_a_gpu_the_parts_are_the_same_and_fit_into_25_minutes(gpu, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(gpu, "find_sanitizer", lambda: "/tools/compute-sanitizer")
    real = gpu.parts("/environment/bin/python", tmp_path, False, options(tmp_path))
    assert [part.name for part in real] == NAMES
    assert sum(part.seconds for part in real) <= 25 * 60
    assert not any(part.without for part in real)
    commands = {part.name: " ".join(part.command) for part in real}
    assert all("cuda" in commands[name] for name in NAMES[2:])
    assert commands["races"].startswith("/tools/compute-sanitizer --tool racecheck --error-exitcode 9 ")


def test_a_missing_tool_skips_its_parts(gpu, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(gpu, "find_sanitizer", lambda: None)
    real = gpu.parts("python", tmp_path, False, options(tmp_path))
    reason = "compute-sanitizer is neither on PATH nor in CUDA_HOME/bin or /usr/local/cuda/bin"
    assert {part.name: part.without for part in real if part.without} == {"memcheck": reason, "races": reason}


def test_the_options_of_the_real_run_are_those_of_the_benchmarks(gpu, tmp_path) -> None:
    for part in gpu.parts(sys.executable, tmp_path, False, options(tmp_path)):
        scripts = [word for word in part.command if word.endswith(".py") and Path(word).parent == BENCHMARKS]
        if not scripts or part.name in ("machine", "environment"):
            continue
        used = {word for word in part.command if word.startswith("--")}
        text = Path(scripts[0]).read_text(encoding="utf8")
        assert all(f'add_argument("{word}"' in text for word in used), part.command


def test_what_is_missing_is_named(gpu, tmp_path, monkeypatch) -> None:
    assert {"attrs", "cattrs", "pycocotools", "PyYAML", "torch", "pytest"} <= set(gpu.requirements())
    assert "setuptools>=77.0.3" in gpu.requirements()  # older ones do not read the licence in pyproject.toml
    assert gpu.not_installed(["attrs", "no-such-package"]) == ["no-such-package"]
    assert gpu.not_installed(["setuptools>=77.0.3", "attrs>=9999.0"]) == ["attrs>=9999.0"]
    monkeypatch.setattr(gpu, "requirements", lambda: ["no-such-package"])
    with pytest.raises(SystemExit, match="not installed: no-such-package; name a folder with their wheels"):
        gpu.make_environment(tmp_path / "environment", None, dry=True)


def test_counts_of_tests_are_read_from_their_report(gpu, tmp_path) -> None:
    path = tmp_path / "report.xml"
    case = '<testcase classname="a.b" name="{}">{}</testcase>'
    bodies = {"good": "", "bad": "<failure/>", "both": "<failure/><error/>", "left": "<skipped/>"}
    cases = "".join(case.format(name, body) for name, body in bodies.items())
    path.write_text(f"<testsuites><testsuite>{cases}</testsuite></testsuites>")
    figures = gpu.read_figures(path)
    assert figures == {"tests": 4, "failed": 2, "skipped": 1, "names": ["a.b::bad", "a.b::both"]}
    shown = "\n".join(gpu.show(figures))
    assert "4 tests, 2 failed, 1 skipped" in shown
    assert "- a.b::both" in shown
