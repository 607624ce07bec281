"""Assembles CHANGELOG.md from the files in changes/.

    python tools/changelog.py --check      check the files
    python tools/changelog.py --preview    print the section of the present version; changes nothing
    python tools/changelog.py              add the section to CHANGELOG.md, and remove the files

changes/README.md describes the files. A section lists the changes of each package by kind; changes of several packages
are together, each with their names. Files that do not have the described form are refused, all at once and by name.
"""

from __future__ import annotations

import argparse
import datetime
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import version
import workspace

KINDS = ("added", "changed", "fixed", "removed")
EVERYTHING = "det"  # the repository, or all of its packages
NAME = re.compile(r"[a-z0-9][a-z0-9_-]*\.([a-z]+)\.md")
ENTRY = re.compile(r"(?P<packages>[a-z][a-z0-9-]*(?:, [a-z][a-z0-9-]*)*): (?P<text>\S.*)", re.DOTALL)
TITLE = "# Changes\n"


@dataclass(frozen=True)
class Entry:
    """One change: the packages that it concerns, its kind, and its text for users."""

    packages: tuple[str, ...]
    kind: str
    text: str


def read(folder: Path, known: list[str]) -> tuple[list[Entry], list[Path], list[str]]:
    """The changes, the files that contain them, and what is wrong, with the name of the file."""
    entries: list[Entry] = []
    files, problems = [], []
    for path in sorted(folder.iterdir()):
        if path.name == "README.md":
            continue
        try:
            entries += _entries(path, known)
            files.append(path)
        except ValueError as error:
            problems.append(f"{folder.name}/{path.name}: {error}")
    return entries, files, problems


def _entries(path: Path, known: list[str]) -> Iterator[Entry]:
    name = NAME.fullmatch(path.name)
    if name is None or name[1] not in KINDS:
        raise ValueError(f"the name must be WHAT.KIND.md, with small letters and a kind of {', '.join(KINDS)}")
    try:
        text = path.read_text(encoding="utf8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot be read as a text in UTF-8 ({error})") from None
    if not text.strip():
        raise ValueError('is empty; expected "PACKAGE: text"')
    # A line that begins with the name of a package starts another change of the same file.
    start = rf"^(?=(?:{'|'.join(map(re.escape, known))})(?:, [a-z0-9, -]+)?: )"
    for part in filter(str.strip, re.split(start, text, flags=re.MULTILINE)):
        yield _entry(part.strip(), name[1], known)


def _entry(part: str, kind: str, known: list[str]) -> Entry:
    match = ENTRY.fullmatch(part)
    if match is None:
        raise ValueError(
            f'begins with {part.splitlines()[0][:40]!r}; expected "PACKAGE: text" or "PACKAGE, PACKAGE: text"'
        )
    packages = tuple(match["packages"].split(", "))
    if unknown := [package for package in packages if package not in known]:
        raise ValueError(f"there is no package {', '.join(map(repr, unknown))}; allowed: {', '.join(known)}")
    if len(set(packages)) < len(packages):
        raise ValueError(f"names a package twice: {match['packages']}")
    if kind == "removed" and not re.search(r"\b\d+\.\d+\b", match["text"]):
        raise ValueError("does not name the version in which the removal happens, such as 0.3")
    return Entry(packages, kind, match["text"])


def section(entries: list[Entry], title: str, known: list[str]) -> str:
    """The section of a version, in Markdown."""
    lines = [f"## {title}"]
    groups = [(name, [e for e in entries if e.packages == (name,)]) for name in known]
    groups.append(("Several packages", [e for e in entries if len(e.packages) > 1]))
    for name, group in groups:
        if group:
            lines.append(f"### {'All packages' if name == EVERYTHING else name}")
        for kind in KINDS:
            if texts := [_item(e) for e in group if e.kind == kind]:
                lines += [f"#### {kind.capitalize()}", "\n".join(texts)]
    return "\n\n".join(lines) + "\n"


def _item(entry: Entry) -> str:
    names = f"{', '.join(entry.packages)}: " if len(entry.packages) > 1 else ""
    return "- " + textwrap.indent(names + entry.text, "  ").removeprefix("  ")


def with_section(changelog: str, new: str) -> str:
    """CHANGELOG.md with a section before all others."""
    older = changelog.removeprefix(TITLE).lstrip("\n")
    return f"{TITLE}\n{new}" + (f"\n{older}" if older else "")


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Assemble CHANGELOG.md from the files in changes/.")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true", help="check the files in changes/ only")
    action.add_argument("--preview", action="store_true", help="print the section; change nothing")
    today = datetime.datetime.now(tz=datetime.UTC).date()
    parser.add_argument("--date", type=datetime.date.fromisoformat, default=today, help="of the release (today)")
    parser.add_argument("--root", type=Path, default=workspace.ROOT, help="the repository")
    options = parser.parse_args()
    known = [EVERYTHING, *(package.name for package in workspace.packages(options.root))]
    entries, files, problems = read(options.root / "changes", known)
    if problems:
        workspace.fail(problems)
    if options.check:
        print(f"{len(files)} files, {len(entries)} changes")
        return
    now, log = version.present(options.root), options.root / "CHANGELOG.md"
    text = log.read_text(encoding="utf8") if log.exists() else TITLE
    if not entries:
        workspace.fail(["changes/ has no changes to release"])
    if re.search(rf"^## {re.escape(now)} ", text, re.MULTILINE):
        workspace.fail(
            [f"CHANGELOG.md has a section {now} already; set the new version first: make version VERSION=..."]
        )
    new = section(entries, f"{now} ({options.date})", known)
    if options.preview:
        print(new, end="")
        return
    workspace.write(log, with_section(text, new))
    for file in files:
        file.unlink()
    print(f"CHANGELOG.md: section {now} with {len(entries)} changes; {len(files)} files of changes/ removed")


if __name__ == "__main__":
    main()
