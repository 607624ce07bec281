"""Installs plugins from a folder of wheels into a fresh environment, and trains with them in an empty folder.

    python tools/check_dist.py [--dist dist] [--python PYTHON] [--torch VERSION] [--plugins htc cascade]
                               [--kernels] [--no-compiler]

Without `--torch`, nothing is downloaded: the environment sees what PYTHON has installed (torch above all), except the
packages of this repository. With `--torch`, such as 2.11.* or newest, pip installs that torch and all other
requirements into an environment of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import workspace

OURS = ("det_", "__editable__")
SITES = """
import json, sys
print(json.dumps([p for p in sys.path if p.endswith(("site-packages", "dist-packages"))]))
"""
PLACES = """
import json, sys, torch, det_core, det_ops
files = [det_core.__file__, det_ops.__file__]
print(json.dumps({"python": sys.version.split()[0], "torch": torch.__version__, "files": files}))
"""


class CheckFailed(Exception):
    """A command failed, or installed something else than the wheels; with its output."""


@dataclass(frozen=True)
class Environment:
    """A virtual environment, and an empty folder outside of the repository in which its programs run.

    Args:
        folder: the environment.
        outside: the working folder.
        variables: environment variables of the programs, besides those of this process that are harmless.
        keep: prefixes of variables of this process that are kept although they change what programs do.
    """

    folder: Path
    outside: Path
    variables: dict[str, str] = field(default_factory=dict)
    keep: tuple[str, ...] = ()

    def run(self, program: str, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
        """Runs a program of the environment to its end."""
        dropped = tuple(p for p in ("PYTHON", "DET_", "PIP_", "VIRTUAL_ENV") if p not in self.keep)
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(dropped)}
        fixed = {"OMP_NUM_THREADS": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        return subprocess.run(
            [str(self.folder / "bin" / program), *map(str, arguments)],
            cwd=self.outside,
            env={**inherited, **fixed, **self.variables, **variables},
            capture_output=True,
            text=True,
            check=False,
        )

    def without_compiler(self) -> dict[str, str]:
        """Variables with which no compiler and no kernels compiled before are found."""
        nothing = self.outside / "no-compiler"
        nothing.mkdir(exist_ok=True)
        places = ("DET_OPS_CACHE", "XDG_CACHE_HOME", "HOME", "TMPDIR")
        return {"PATH": str(self.folder / "bin"), "CXX": "", **{place: str(nothing) for place in places}}


def succeeded(done: subprocess.CompletedProcess[str]) -> str:
    """What a command printed.

    Raises:
        CheckFailed: if its exit status is not 0.
    """
    if done.returncode:
        raise CheckFailed(f"{' '.join(done.args)}: exit status {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def fresh_environment(folder: Path, python: str = sys.executable) -> Environment:
    """An environment with what others made that a Python has (torch is large: by links), and nothing of ours."""
    environment = _environment(folder, python, with_pip=False)  # pip is among what others made
    others = folder / "others"
    others.mkdir()
    asked = subprocess.run([python, "-c", SITES], capture_output=True, text=True, check=True)
    for site in json.loads(asked.stdout):
        for entry in Path(site).iterdir():
            ours = entry.name.startswith(OURS) or entry.suffix in (".pth", ".egg-link")
            if not ours and not (others / entry.name).exists():
                (others / entry.name).symlink_to(entry)
    (site_packages,) = environment.folder.glob("lib/python*/site-packages")
    (site_packages / "others.pth").write_text(f"{others}\n", encoding="utf8")
    return environment


def _environment(folder: Path, python: str, with_pip: bool) -> Environment:
    folder.mkdir(parents=True, exist_ok=True)
    options = [] if with_pip else ["--without-pip"]
    subprocess.run([python, "-m", "venv", *options, str(folder / "environment")], check=True)
    (folder / "outside").mkdir()
    return Environment(folder / "environment", folder / "outside")


def downloading_environment(folder: Path, python: str, torch: str, dist: Path, names: Sequence[str]) -> Environment:
    """An environment in which pip installs our wheels from a folder, and torch and the rest from its registry."""
    made = _environment(folder, python, with_pip=True)
    environment = Environment(made.folder, made.outside, keep=("PIP_",))
    wanted = "torch" if torch == "newest" else f"torch=={torch}"
    succeeded(environment.run("python", "-m", "pip", "install", "--find-links", dist, wanted, *names))
    return environment


def install(environment: Environment, dist: Path, names: Sequence[str]) -> None:
    """Installs distributions from a folder alone.

    Raises:
        CheckFailed: if pip fails, with what it printed.
    """
    succeeded(environment.run("python", "-m", "pip", "install", "--no-index", "--find-links", dist, *names))


def check(environment: Environment, plugins: Sequence[str], no_compiler: bool) -> None:
    """Trains three steps with each plugin, and prints what serves the operators."""
    found = json.loads(succeeded(environment.run("python", "-c", PLACES)).splitlines()[-1])
    if strange := [file for file in found["files"] if not Path(file).is_relative_to(environment.folder)]:
        raise CheckFailed(f"not from the wheels: {', '.join(strange)}")
    print(f"python {found['python']}, torch {found['torch']}")
    variables = environment.without_compiler() if no_compiler else {}
    for plugin in plugins:
        run = environment.outside / f"run-{plugin}"
        train = ("train", "--plugin", plugin, "--max-steps", 3, "--device", "cpu", "--work-dir", run)
        out = succeeded(environment.run("det-core", *train, **variables))
        if "stopped after step 3 of " not in out:
            raise CheckFailed(f"det-core {' '.join(map(str, train))} printed\n{out}")
        print(f"det-core train --plugin {plugin} --max-steps 3: trained")
    report = json.loads(succeeded(environment.run("det-core", "doctor", "--json", **variables)))
    print("; ".join(line["name"] for line in report if line["name"].startswith("on cpu by ")))


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Install plugins from wheels, and train with them.")
    parser.add_argument("--dist", type=Path, default=workspace.ROOT / "dist", help="the folder with the wheels (dist)")
    parser.add_argument("--python", default=sys.executable, help="the Python to make the environment with (this one)")
    parser.add_argument("--torch", default="", help="download this version, such as 2.11.* or newest")
    parser.add_argument("--plugins", nargs="+", default=["htc", "cascade"], help="the plugins (htc cascade)")
    parser.add_argument("--kernels", action="store_true", help="install det-ops-kernels, too")
    parser.add_argument("--no-compiler", action="store_true", help="hide compilers and kernels compiled before")
    options = parser.parse_args()
    dist = options.dist.resolve()
    names = [f"det-plugin-{plugin}" for plugin in options.plugins] + ["det-ops-kernels"] * options.kernels
    with tempfile.TemporaryDirectory(prefix="det-check-") as folder:
        try:
            if options.torch:
                environment = downloading_environment(Path(folder), options.python, options.torch, dist, names)
            else:
                environment = fresh_environment(Path(folder), options.python)
                install(environment, dist, names)
            check(environment, options.plugins, options.no_compiler)
        except CheckFailed as error:
            workspace.fail([str(error)])


if __name__ == "__main__":
    main()
