"""Shows or sets the version of all packages.

    python tools/version.py             print the version; exit status 1 if a file has another one
    python tools/version.py 0.2.0       write it to every file that contains it

All packages have one version: `version` of every pyproject.toml, `__version__` of every package, and CITATION.cff.
Requirements of packages on each other follow it: `det-core>=0.2,<1`, and for det-ops-kernels, whose libraries belong
to one version of the sources, `det-ops==0.2.0`. The requirements of examples/ follow, too; examples keep their own
version. The template of `det-core plugins new` takes the version from `det_core.__version__`.

The address of the project is `url` of `[tool.det]` in the pyproject.toml of the repository. While it is empty, the
packages name no address. With an address, this command writes it to `[project.urls]` of every package and to
CITATION.cff.
"""

from __future__ import annotations

import argparse
import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import workspace

VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")
URLS = re.compile(r'^\[project\.urls\]\nRepository = ".*"\n\n', re.MULTILINE)


@dataclass(frozen=True)
class Place:
    """A text in a file that follows from the version: where it is, and what it must be.

    Args:
        file: the file.
        what: name of the text, for messages.
        pattern: one group before the text, one with the text.
        wanted: the text for a version.
        times: how often it occurs; None: any number.
    """

    file: Path
    what: str
    pattern: str
    wanted: Callable[[str], str]
    times: int | None = 1

    def found(self) -> list[str]:
        return [match[2] for match in re.finditer(self.pattern, self.file.read_text(encoding="utf8"), re.MULTILINE)]

    def problem(self, version: str) -> str:
        """Why the file does not fit the version, or an empty string."""
        texts = self.found()
        if self.times is not None and len(texts) != self.times:
            return f"{self.file}: {self.what}: found {len(texts)} times, expected {self.times}"
        wrong = sorted({text for text in texts if text != self.wanted(version)})
        return f"{self.file}: {self.what} is {', '.join(wrong)}, expected {self.wanted(version)}" if wrong else ""


def lower_bound(version: str) -> str:
    """What packages require of each other: `>=0.2,<1` for 0.2.3."""
    major, minor, _ = version.split(".")
    return f">={major}.{minor},<{int(major) + 1}"


def exactly(version: str) -> str:
    return f"=={version}"


def places(root: Path) -> Iterator[Place]:
    """Everything that `set_version` writes and `problems` compares."""
    released = workspace.packages(root)
    names = "|".join(re.escape(package.name) for package in released)
    for package in released:
        yield Place(package.project_file, "version", r'^(version = ")([^"]*)(?=")', str)
        yield Place(package.init_file, "__version__", r'^(__version__ = ")([^"]*)(?=")', str)
    for package in (*released, *workspace.examples(root)):
        pattern = rf'(["\s](?:{names}))((?:[<>=!~]=?[\d.]+,?)+)(?=")'
        wanted = exactly if package.name == "det-ops-kernels" else lower_bound
        yield Place(package.project_file, "requirement of another package", pattern, wanted, times=None)
    yield Place(root / "CITATION.cff", "version", r"^(version: )(.*)$", str)


def problems(root: Path, version: str) -> list[str]:
    """Every file that does not have this version, with what it has."""
    url = address(root)
    wrong = [problem for place in places(root) if (problem := place.problem(version))]
    for package in workspace.packages(root):
        if URLS.findall(text := package.project_file.read_text(encoding="utf8")) != _urls(url):
            found = re.search(r"^\[project\.urls\]\n(.*)", text, re.MULTILINE)
            wrong.append(f"{package.project_file}: [project.urls] has {found[1] if found else 'nothing'}, "
                         f"but url of [tool.det] in pyproject.toml is {url!r}")  # fmt: skip
    return wrong


def address(root: Path) -> str:
    """The address of the project, or an empty string while it has none."""
    text = (root / "pyproject.toml").read_text(encoding="utf8")
    return str(tomllib.loads(text)["tool"]["det"]["url"])


def _urls(url: str) -> list[str]:
    return [f'[project.urls]\nRepository = "{url}"\n\n'] if url else []


def present(root: Path) -> str:
    """The version of det-core, which the others must have."""
    return next(package.version for package in workspace.packages(root) if package.name == "det-core")


def check_new(version: str, now: str) -> str:
    """Why a version cannot follow the present one, or an empty string."""
    if not VERSION.fullmatch(version):
        return f"version {version!r}: expected three numbers X.Y.Z without leading zeros, such as 0.2.0"
    if _numbers(version) < _numbers(now):
        return f"version {version} is lower than the present version {now}; choose a higher one"
    return ""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split("."))


def set_version(root: Path, version: str) -> list[Path]:
    """Writes the version and the address to all files; returns those that changed."""
    texts: dict[Path, str] = {}
    for place in places(root):
        if place.times is not None and len(found := place.found()) != place.times:
            workspace.fail([f"{place.file}: {place.what}: found {len(found)} times, expected {place.times}"])
        text = texts.get(place.file) or place.file.read_text(encoding="utf8")
        texts[place.file] = re.sub(place.pattern, rf"\g<1>{place.wanted(version)}", text, flags=re.MULTILINE)
    _set_address(texts, root)
    changed = [file for file, text in texts.items() if text != file.read_text(encoding="utf8")]
    for file in changed:
        workspace.write(file, texts[file])
    return changed


def _set_address(texts: dict[Path, str], root: Path) -> None:
    block = "".join(_urls(url := address(root)))
    for package in workspace.packages(root):
        text = URLS.sub("", texts[package.project_file])
        texts[package.project_file] = re.sub(r"^(?=\[tool\.setuptools)", block, text, count=1, flags=re.MULTILINE)
    citation = root / "CITATION.cff"
    text = re.sub(r"^repository-code: .*\n", "", texts[citation], flags=re.MULTILINE)
    texts[citation] = text + (f"repository-code: {url}\n" if url else "")


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Show or set the version of all packages.")
    parser.add_argument("version", nargs="?", help="X.Y.Z, not lower than the present one; left out: show it and check")
    parser.add_argument("--root", type=Path, default=workspace.ROOT, help="the repository")
    options = parser.parse_args()
    now = present(options.root)
    if options.version is None:
        if wrong := problems(options.root, now):
            workspace.fail([*wrong, f"set all of them: make version VERSION={now}"])
        print(now)
        return
    if problem := check_new(options.version, now):
        workspace.fail([problem])
    changed = set_version(options.root, options.version)
    print(f"{now} -> {options.version}: {len(changed)} files changed")
    for file in changed:
        print(f"  {file.relative_to(options.root)}")


if __name__ == "__main__":
    main()
