"""Everything that needs a GPU, in one command of at most 25 minutes: builds, tests and measurements.

    make gpu [WHEELS=FOLDER] [OUT=FOLDER] [PARTS="kernels operators"] [MINUTES=25]
    python benchmarks/gpu.py [--out FOLDER] [--only PART ...] [--minutes 25] [--environment FOLDER [--wheels FOLDER]]
    python benchmarks/gpu.py --dry [--out FOLDER]

Needs an NVIDIA card, nvcc, torch and torchvision, and no network: packages are installed into an environment of their
own that uses the machine's torch, and those that the machine lacks (cattrs, pycocotools) come from a folder of wheels.

| part            | what                                                                                     |
|-----------------|------------------------------------------------------------------------------------------|
| machine         | the card, driver and versions                                                            |
| environment     | the packages of this repository, and wheels of what is missing                           |
| kernels         | builds the CPU and CUDA kernels                                                          |
| operators       | all tests of operators with `--device cuda`                                              |
| memcheck, races | compute-sanitizer on one call of every operator                                          |
| golden          | the golden cases with `--device cuda`, in float64, and in float32 without TF32           |
| ops             | `benchmarks/ops.py`                                                                      |
| models          | `benchmarks/models.py`: fp32 and bf16, beside torchvision                                |
| zoo             | `benchmarks/zoo.py`: 2 images of 800 x 1333, beside the published figures                |
| data            | `benchmarks/data.py`: loading against consumption                                        |
| compiled        | `benchmarks/models.py` with torch.compile                                                |

A part is a process of its own with a time limit: its share of the time that is left, so that later parts get what it
leaves over, and the whole ends in time. A part that fails costs only itself. Its output is in OUT/PART.log; gpu.json
and gpu.md are written again after each part. With `--only`, results of other parts that OUT has are kept, so that
several calls can do what one has no time for. The exit status is 1 if any part failed or ran out of time.

`--dry` runs every part on the CPU, with the smallest sizes and without installing or compiling for a GPU: it shows that
the commands, options and reports are right.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import signal
import site
import subprocess
import sys
import time
import tomllib
import venv
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
TEST_TOOLS = ("pytest", "hypothesis")
WORKERS = 4  # processes of tests that share the card
TAIL = 30  # lines of the log of a part that failed
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Part:
    """A command, and its share of the time.

    figures: the file in OUT that the command writes: JSON, or JUnit's XML for tests. without: why it cannot run here.
    """

    name: str
    seconds: float
    command: tuple[str, ...]
    figures: str = ""
    without: str = ""
    variables: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """What became of a part: ok, failed, timed out or skipped; why; and its figures."""

    name: str
    outcome: str
    seconds: float = 0.0
    limit: float = 0.0
    reason: str = ""
    command: str = ""
    figures: Any = None
    tail: str = ""


# Which parts there are


def parts(python: str, out: Path, dry: bool, options: argparse.Namespace) -> list[Part]:
    """All parts, the most important ones first; `python` runs them."""
    device = "cpu" if dry else "cuda"
    own = (sys.executable, __file__)
    environment = str(options.environment if options.environment and not dry else out / "environment")
    make = (*own, "--make-environment", environment, *(("--wheels", str(options.wheels)) if options.wheels else ()))
    return [
        Part("machine", 30, (*own, "--machine", str(out / "machine.json"), *_if(dry, "--dry")), "machine.json"),
        Part(
            "environment",
            100,
            (*make, *_if(dry, "--dry")),
            without="" if dry or options.environment else "no --environment given: the packages are used as they are",
        ),
        Part("kernels", 200, (python, "-m", "det_ops", "build", *_if(not dry, "--cuda"))),
        Part("operators", 170, *pytest_part("operators", python, out, device, OPERATORS[dry], 1 if dry else WORKERS)),
        *(sanitizer(name, tool, python, out, dry) for name, tool in (("memcheck", "memcheck"), ("races", "racecheck"))),
        Part("golden", 140, *pytest_part("golden", python, out, device, GOLDEN[dry], 1 if dry else WORKERS)),
        Part("ops", 110, *benchmark("ops", python, out, device, OPS[dry])),
        Part("models", 160, *benchmark("models", python, out, device, MODELS[dry])),
        Part("zoo", 220, *benchmark("zoo", python, out, device, ZOO[dry])),
        Part("data", 90, *benchmark("data", python, out, device, DATA[dry])),
        Part("compiled", 130, *benchmark("models", python, out, device, COMPILED[dry], "compiled")),
    ]


# Arguments, for a GPU and for a dry run.
ONE_OF_EACH = "its_definition_on and dtype1 and layout0"  # float32, planes
OPERATORS = (("ops/tests",), ("ops/tests/test_device.py", "-k", f"({ONE_OF_EACH}) or mode or autocast"))
GOLDEN = (
    ("tests/parity",),
    tuple(
        f"tests/parity/test_parity.py::{name}[rpn_r50_fpn]"
        for name in ("test_losses", "test_float32_comes_as_close_as_the_reference_does")
    ),
)
OPS = (("--seconds", "0.5"), ("--small", "--threads", "1", "--seconds", "0.01", "--only", "50", "focal"))
SMALL_PAIR = ("--models", "retinanet", "--size", "64", "64", "--candidates", "20", "--rounds", "1")
MODELS = (("--images", "2", "--precision", "fp32", "bf16"), (*SMALL_PAIR, "--precision", "fp32", "bf16"))
COMPILED = (
    (*MODELS[0], "--modes", "compile", "--models", "mask-rcnn", "retinanet", "--rounds", "3"),
    (*SMALL_PAIR, "--modes", "compile", "--backend", "eager", "--precision", "bf16", "--what", "inference"),
)
DEMO = "faster-rcnn/r18-fpn-demo"
MANY = max(5, (os.cpu_count() or 1) - 1)  # loader processes
ZOO = (("--rounds", "3", "--spread"), ("--find", "rpn/r18-fpn-demo", "--size", "64", "64", "--spread"))
DATA = (
    (
        "--workers",
        "1",
        "4",
        str(max(4, (os.cpu_count() or 4) - 1)),
        "--images",
        "256",
        "--steps",
        "80",
        "--precision",
        "bf16",
    ),
    (
        "--workers",
        "1",
        "--images",
        "6",
        "--steps",
        "1",
        "--rounds",
        "1",
        "--precision",
        "bf16",
        "--recipes",
        "faster-rcnn/r18-fpn-demo",
    ),
)


def _if(condition: bool, *words: str) -> tuple[str, ...]:
    return words if condition else ()


def pytest_part(
    name: str, python: str, out: Path, device: str, what: Sequence[str], workers: int = 1
) -> tuple[tuple[str, ...], str]:
    """Command and figures of tests, in several processes if pytest-xdist is there."""
    several = workers > 1 and importlib.util.find_spec("xdist") is not None
    parallel = _if(several, "-n", str(workers), "--dist", "worksteal")
    report = f"{name}.xml"
    common = ("-q", "--tb=short", "-p", "no:cacheprovider", f"--junitxml={out / report}", f"--device={device}")
    return (python, "-m", "pytest", *what, *common, *parallel), report


def benchmark(
    script: str, python: str, out: Path, device: str, arguments: Sequence[str], name: str = ""
) -> tuple[tuple[str, ...], str]:
    """Command and figures of a benchmark."""
    report = f"{name or script}.json"
    command = (python, str(ROOT / "benchmarks" / f"{script}.py"), "--device", device, *arguments)
    return (*command, "--json", str(out / report)), report


def sanitizer(name: str, tool: str, python: str, out: Path, dry: bool) -> Part:
    """One call of every operator under compute-sanitizer; a dry run makes the calls without it."""
    device = "cpu" if dry else "cuda"
    what = ("ops/tests/test_device.py", "-k", ONE_OF_EACH)
    command, report = pytest_part(name, python, out, device, what)
    found = find_sanitizer()
    if not dry:
        command = (found or "compute-sanitizer", "--tool", tool, *SANITIZER, *command)
    reason = "" if dry or found else "compute-sanitizer is neither on PATH nor in CUDA_HOME/bin or /usr/local/cuda/bin"
    # Each tensor gets memory of its own from CUDA, so that what is read or written beside it is seen.
    return Part(name, 75, command, report, reason, {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"})


# What torch itself asks CUDA in vain is no error of ours.
SANITIZER = ("--error-exitcode", "9", "--report-api-errors", "no", "--print-limit", "20")


def find_sanitizer() -> str | None:
    """compute-sanitizer on PATH or in the CUDA toolkit."""
    homes = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    folders = [str(Path(home) / "bin") for home in (*homes, "/usr/local/cuda")]
    return shutil.which("compute-sanitizer", path=os.pathsep.join([os.environ.get("PATH", ""), *folders]))


# The machine


def describe_machine(dry: bool) -> tuple[Rows, str]:
    """Names and values; and what is missing for a run on a GPU."""
    import torch
    import torchvision

    facts: dict[str, Any] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "CUDA of torch": torch.version.cuda,
        "processor cores": os.cpu_count(),
        "nvcc": _first_line("nvcc", "--version", match="release"),
        "driver": _first_line("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        "TF32 of convolutions": torch.backends.cudnn.allow_tf32,
        "TF32 of matrix products": torch.backends.cuda.matmul.allow_tf32,
    }
    missing = ""
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        facts["card"] = properties.name
        facts["compute capability"] = f"{properties.major}.{properties.minor}"
        facts["memory GB"] = round(properties.total_memory / 1e9, 1)
        facts["cuDNN"] = torch.backends.cudnn.version()
    elif not dry:
        missing = "torch finds no CUDA device"
    return [{"what": name, "value": str(value)} for name, value in facts.items()], missing


def _first_line(*command: str, match: str = "") -> str:
    """The first line of a program's output that contains `match`, or that there is no such program."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"not found ({type(error).__name__})"
    return next((line.strip() for line in done.stdout.splitlines() if match in line), "says nothing")


# The environment


def packages() -> list[Path]:
    """The folders of this repository's packages, each after those that it requires."""
    plugins = sorted(path.parent for path in (ROOT / "plugins").glob("*/pyproject.toml"))
    return [ROOT / "ops", ROOT / "core", *plugins]


def requirements() -> list[str]:
    """What the packages, their builds and their tests require, without the packages themselves: names, and for builds
    `NAME>=VERSION`, since an older setuptools does not read the packages' pyproject.toml."""
    names = set(TEST_TOOLS)
    for folder in packages():
        declared = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf8"))
        names |= {re.split(r"[\s<>=!~;\[(]", r, maxsplit=1)[0] for r in declared["project"]["dependencies"]}
        names |= set(declared["build-system"]["requires"])
    return sorted(name for name in names if not name.startswith("det-"))


def not_installed(required: Sequence[str]) -> list[str]:
    """Those that this Python does not have, or has in an older version."""

    def missing(requirement: str) -> bool:
        name, _, least = requirement.partition(">=")
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return True
        return bool(least) and numbers_of(found) < numbers_of(least)

    return [requirement for requirement in required if missing(requirement)]


def numbers_of(version: str) -> tuple[int, ...]:
    """The numbers at the start of a version, such as (77, 0, 3)."""
    return tuple(int(part) for part in re.match(r"\d+(?:\.\d+)*", version)[0].split("."))  # type: ignore[index]


def make_environment(folder: Path, wheels: Path | None, dry: bool) -> None:
    """An environment with this repository's packages that has all that this Python has, torch above all.

    This Python may be of an environment itself, whose packages `--system-site-packages` alone would not give.
    """
    missing = not_installed(requirements())
    if missing and wheels is None:
        raise SystemExit(
            f"not installed: {', '.join(missing)}; name a folder with their wheels: make gpu WHEELS=FOLDER"
        )
    has_pip = importlib.util.find_spec("pip") is not None
    venv.create(folder, system_site_packages=True, with_pip=not has_pip, clear=True, symlinks=os.name != "nt")
    python = folder / "bin" / "python"
    where = "import site; print(site.getsitepackages()[0])"
    own = subprocess.run([python, "-c", where], capture_output=True, text=True, check=True).stdout.strip()
    lines = [f"import site; site.addsitedir({path!r})" for path in site.getsitepackages() if Path(path).is_dir()]
    # Read after what is installed here, which therefore comes first.
    (Path(own) / "zz_packages_of_the_machine.pth").write_text("\n".join(lines) + "\n", encoding="utf8")
    (folder / ".installed").touch()  # `make clean` may remove it
    install = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--no-deps", "--no-index"]
    if missing:
        subprocess.run([*install, "--find-links", str(wheels), *missing], check=True)
    names = [str(path) for path in packages()]
    if dry:  # one package is enough, from a copy: others may be reading the sources
        shutil.copytree(ROOT / "ops" / "src" / "det_ops", folder / "copy" / "src" / "det_ops")
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / "ops" / name, folder / "copy")
        names = [str(folder / "copy")]
    editable = [word for name in names for word in ("-e", name)]
    subprocess.run([*install, "--no-build-isolation", *editable], check=True)
    check = "import det_ops, torch; print(det_ops.__file__, torch.__version__)"
    subprocess.run([python, "-c", check if dry else f"import cattrs, pycocotools, det_core; {check}"], check=True)


# Running a part


def run(part: Part, limit: float, out: Path, variables: dict[str, str]) -> Result:
    """Run it to its end or the limit; all of its processes are gone afterwards."""
    if part.without:
        return Result(part.name, "skipped", reason=part.without)
    result = Result(part.name, "ok", limit=limit, command=" ".join(part.command))
    log, figures = out / f"{part.name}.log", out / part.figures if part.figures else None
    if figures is not None:
        figures.unlink(missing_ok=True)
    started = time.monotonic()
    try:
        with log.open("wb") as file:
            status = _finish(part, limit, file, {**variables, **part.variables})
    except OSError as error:
        return replace(result, outcome="failed", reason=f"{type(error).__name__}: {error}")
    result = replace(result, seconds=time.monotonic() - started)
    if status is None:
        result = replace(result, outcome="timed out", reason=f"stopped after {limit:.0f} s")
    elif status:
        result = replace(result, outcome="failed", reason=f"exit status {status}")
    try:
        found = None if figures is None else read_figures(figures)
    except (OSError, ValueError, ElementTree.ParseError) as error:
        reason = result.reason or f"no figures: {type(error).__name__}: {error}"
        result = replace(result, outcome="failed" if result.outcome == "ok" else result.outcome, reason=reason)
        found = None
    tail = "" if result.outcome == "ok" else "\n".join(log.read_text(errors="replace").splitlines()[-TAIL:])
    return replace(result, figures=found, tail=tail)


def _finish(part: Part, limit: float, file: Any, variables: dict[str, str]) -> int | None:
    """The exit status, or None if the time was over."""
    process = subprocess.Popen(
        part.command,
        cwd=ROOT,
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        stdout=file,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def read_figures(path: Path) -> Any:
    """What a part wrote: JSON as it is; of tests the counts and the names of those that failed."""
    if path.suffix == ".json":
        return json.loads(path.read_text(encoding="utf8"), parse_constant=lambda _: None)  # NaN: not measured
    cases = list(ElementTree.parse(path).getroot().iter("testcase"))
    kinds = {kind: [c for c in cases if c.find(kind) is not None] for kind in ("failure", "error", "skipped")}
    failed = list(dict.fromkeys([*kinds["failure"], *kinds["error"]]))
    return {
        "tests": len(cases),
        "failed": len(failed),
        "skipped": len(kinds["skipped"]),
        "names": [f"{c.get('classname', '')}::{c.get('name', '')}" for c in failed],
    }


# Reports


def write_whole(path: Path, text: str) -> None:
    """Beside it first, so that a reader never finds half a file."""
    aside = path.with_name(f"{path.name}.part")
    aside.write_text(text, encoding="utf8")
    aside.replace(path)


def report(results: Sequence[Result], out: Path, started: str, dry: bool) -> None:
    """Both files."""
    content = {"started": started, "dry": dry, "parts": [asdict(r) for r in results]}
    write_whole(out / "gpu.json", json.dumps(content, indent=2) + "\n")
    write_whole(out / "gpu.md", "\n".join(markdown(results, started, dry)) + "\n")


def markdown(results: Sequence[Result], started: str, dry: bool) -> Iterator[str]:
    """A table of all parts, then the figures of each."""
    yield f"# `make gpu`{' (dry run on the CPU)' if dry else ''}, {started}"
    yield ""
    keys = ("part", "outcome", "seconds", "limit", "reason")
    yield from table([dict(zip(keys, (r.name, r.outcome, r.seconds, r.limit, r.reason), strict=True)) for r in results])
    for result in results:
        if result.figures is None and not result.tail:
            continue
        yield from ("", f"## {result.name}", "")
        if result.command:
            yield from (f"`{result.command}`", "")
        yield from show(result.figures)
        if result.tail:
            yield from ("", "The end of its output:", "", "```", result.tail.replace("```", "'''"), "```")


def show(figures: Any) -> Iterator[str]:
    """Figures of any part: rows, columns by name, or counts of tests."""
    if isinstance(figures, list):
        yield from table(figures)
    elif isinstance(figures, dict) and "names" in figures:
        yield f"{figures['tests']} tests, {figures['failed']} failed, {figures['skipped']} skipped"
        yield from ("", *(f"- {name}" for name in figures["names"]))
    elif isinstance(figures, dict):
        keys = list(dict.fromkeys(key for column in figures.values() for key in column))
        yield from table([{"": key, **{name: column.get(key) for name, column in figures.items()}} for key in keys])


def table(rows: Rows) -> Iterator[str]:
    """Rows of equal keys as a Markdown table."""
    if not rows:
        yield "none"
        return
    keys = list(dict.fromkeys(key for row in rows for key in row))
    yield f"| {' | '.join(keys)} |"
    yield f"|{'---|' * len(keys)}"
    for row in rows:
        yield f"| {' | '.join(cell(row.get(key)) for key in keys)} |"


def cell(value: Any) -> str:
    """Numbers with four digits, nothing for what there is not, and text that cannot end a cell."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"
    return str(value).replace("|", "\\|").replace("\n", " ")


def earlier(out: Path, dry: bool) -> dict[str, Result]:
    """The results that OUT has of an earlier call of the same kind."""
    try:
        content = json.loads((out / "gpu.json").read_text(encoding="utf8"))
        return {p["name"]: Result(**p) for p in content["parts"]} if content["dry"] == dry else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


# The command


def run_all(chosen: Sequence[Part], known: dict[str, Result], order: Sequence[str], options: argparse.Namespace) -> int:
    """Run the parts one after another; 1 if one of them failed."""
    end = time.monotonic() + 60 * options.minutes
    started = time.strftime("%Y-%m-%d %H:%M")
    results = dict(known)
    variables = {"DET_OPS_CUDA": "on", "OMP_WAIT_POLICY": "passive", "PYTHONUNBUFFERED": "1"}
    for number in range(len(chosen)):
        part = chosen[number]
        limit = (end - time.monotonic()) * part.seconds / sum(p.seconds for p in chosen[number:])
        result = run(part, max(limit, 1.0), options.out, variables)
        results[part.name] = result
        print(f"{part.name:12} {result.outcome:10} {result.seconds:6.1f} s  {result.reason}", flush=True)
        if part.name == "environment" and result.outcome not in ("ok", "skipped"):
            made = str(options.environment / "bin" / "python") if options.environment else sys.executable
            chosen = [*chosen[: number + 1], *(without_environment(p, made) for p in chosen[number + 1 :])]
            variables["PYTHONPATH"] = os.pathsep.join(str(path / "src") for path in packages())
        report([results[name] for name in order if name in results], options.out, started, options.dry)
    print(f"results: {options.out / 'gpu.md'} and gpu.json")
    return int(any(results[p.name].outcome in ("failed", "timed out") for p in chosen))


def without_environment(part: Part, python: str) -> Part:
    """The part with this Python and the sources on its path, where the environment could not be made.

    Plugins are not installed then, but the operators need none.
    """
    return replace(part, command=tuple(sys.executable if word == python else word for word in part.command))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "gpu", help="folder of logs and results")
    parser.add_argument("--only", nargs="+", default=[], metavar="PART", help="only these parts")
    parser.add_argument("--minutes", type=float, default=25.0, help="for all chosen parts together")
    parser.add_argument("--environment", type=Path, help="make this environment and use it")
    parser.add_argument("--wheels", type=Path, help="folder with wheels of packages that the machine lacks")
    parser.add_argument("--dry", action="store_true", help="on the CPU, with the smallest sizes")
    parser.add_argument("--make-environment", type=Path, help=argparse.SUPPRESS)  # these two are parts' own processes
    parser.add_argument("--machine", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    for name in ("out", "environment", "wheels", "make_environment"):
        if getattr(options, name) is not None:
            setattr(options, name, getattr(options, name).absolute())
    if options.make_environment is not None:
        make_environment(options.make_environment, options.wheels, options.dry)
        return 0
    if options.machine is not None:
        facts, missing = describe_machine(options.dry)
        options.machine.write_text(json.dumps(facts, indent=2), encoding="utf8")
        if missing:
            raise SystemExit(missing)
        return 0
    python = sys.executable
    if options.environment is not None and not options.dry:
        python = str(options.environment / "bin" / "python")
    options.out.mkdir(parents=True, exist_ok=True)
    every = parts(python, options.out, options.dry, options)
    names = [part.name for part in every]
    unknown = [name for name in options.only if name not in names]
    if unknown:
        parser.error(f"--only: no part {', '.join(unknown)}; there are {', '.join(names)}")
    new = options.environment is not None and not options.dry and not Path(python).exists()
    wanted = {*options.only, "environment"} if options.only and new else options.only or names
    chosen = [part for part in every if part.name in wanted]
    known = earlier(options.out, options.dry) if options.only else {}
    return run_all(chosen, known, names, options)


if __name__ == "__main__":
    raise SystemExit(main())
