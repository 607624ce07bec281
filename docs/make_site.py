"""Builds the documentation site from docs/ and the READMEs of the packages.

python docs/make_site.py [--out FOLDER]    # default: site/

The pages are Markdown that a code host shows as well. They are copied to FOLDER/source, with links that fit there, and
Sphinx makes FOLDER/html of them. A comment `<!-- site: NAME -->` in a page is replaced by what GENERATED[NAME] writes.
Any warning is an error.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import reference_pages

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")  # also of a picture inside a link
FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"^<!-- site: ([\w-]+) ?(\S*) -->$", re.MULTILINE)


def pages() -> dict[Path, Path]:
    """Every page of the site: its file in the repository, and its path in the site's source."""
    found = {page: page.relative_to(HERE) for page in sorted(HERE.glob("**/*.md"))}
    for readme in sorted([*ROOT.glob("*/README.md"), *ROOT.glob("*/*/README.md")]):
        folder = readme.parent
        if folder.parent == ROOT / "examples":
            found[readme] = Path("examples", f"{folder.name}.md")
        elif (folder / "pyproject.toml").is_file():
            found[readme] = Path("packages", f"{folder.name}.md")
    for name in ("CONTRIBUTING.md", "SECURITY.md"):
        found[ROOT / name] = Path(name.lower())
    return found


def title_of(page: Path) -> str:
    """The first heading."""
    heading = re.search(r"^# (.+)$", page.read_text(encoding="utf8"), re.MULTILINE)
    assert heading, f"{page} has no heading"
    return heading[1]


def with_links(text: str, page: Path, own: Path, places: dict[Path, Path], source: Path) -> str:
    """The text of a page with its relative links as they are in the site; files that are no pages are copied."""

    def link(match: re.Match[str]) -> str:
        before, target, anchor, after = match.groups()
        if re.match(r"[a-z]+:", target):
            return match[0]
        file = (page.parent / target).resolve()
        if file not in places:
            if not file.is_file():
                raise SystemExit(f"{page.relative_to(ROOT)}: {target} is no file that the site can show")
            places[file] = Path("files") / file.relative_to(ROOT)
            copy(file, source / places[file])
        return f"{before}{os.path.relpath(places[file], own.parent)}{anchor or ''}{after}"

    parts = FENCED.split(text)
    return "".join(part if part.startswith("```") else LINK.sub(link, part) for part in parts)


# What comments of the pages are replaced by


def toctree(entries: list[str], caption: str = "") -> str:
    head = ["```{toctree}", ":hidden:", *([f":caption: {caption}"] if caption else []), ""]
    return "\n".join([*head, *entries, "```"]) + "\n"


def more_pages(text: str, folder: str) -> str:
    """Items of a list: the pages of a folder of docs/ that the text does not link to."""
    rest = [p.relative_to(HERE).as_posix() for p in sorted((HERE / folder).glob("*.md"))]
    return "\n".join(f"- [{title_of(HERE / name)}]({name})" for name in rest if f"]({name})" not in text)


def site_tree(text: str) -> str:
    """The sidebar: each section of docs/index.md with the pages that it lists, in its order."""
    trees = []
    for section in text.split("\n## ")[1:]:
        targets = re.findall(r"^- \[[^\]]*\]\(([^)\s#]+)\.md\)", section, re.MULTILINE)
        trees.append(toctree(targets, section.partition("\n")[0]))
    return "\n".join(trees)


def package_tree(_: str) -> str:
    return toctree([str(p.with_suffix("")) for p in pages().values() if p.parts[0] == "packages"])


GENERATED: dict[str, Callable[[str], str]] = {
    "tree": site_tree,
    "packages": package_tree,
    "commands": lambda _: reference_pages.commands(),
    "settings": lambda _: toctree([f"settings/{name}" for name in reference_pages.settings_pages()]),
    "api": lambda _: reference_pages.api_list() + toctree([f"api/{m}" for m in reference_pages.api_pages()]),
}


# Building


def copy(file: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, target)


def write(target: Path, text: str) -> None:
    """Write a page unless it is there as it is, so that Sphinx reads again only what changed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.is_file() or target.read_text(encoding="utf8") != text:
        target.write_text(text, encoding="utf8")


def lay_out(source: Path) -> None:
    """Write the source of the site to a folder, and remove pages that are no longer part of it."""
    places = pages()
    texts = {}
    for page, own in list(places.items()):
        text = with_links(page.read_text(encoding="utf8"), page, own, places, source)
        for mark in MARK.finditer(text):
            made = more_pages(text, mark[2]) if mark[1] == "pages" else GENERATED[mark[1]](text)
            text = text.replace(mark[0], made)
        texts[own] = text
    for name, text in reference_pages.settings_pages().items():
        texts[Path("reference", "settings", f"{name}.md")] = text
    for name, text in reference_pages.api_pages().items():
        texts[Path("reference", "api", f"{name}.md")] = text
    for own, text in texts.items():
        write(source / own, text)
    for stale in {p.relative_to(source) for p in source.glob("**/*.md")} - texts.keys():
        (source / stale).unlink()


def build(out: Path) -> int:
    """Build the site in a folder; returns Sphinx's exit status."""
    lay_out(out / "source")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-c", str(HERE)]
    return subprocess.run([*command, str(out / "source"), str(out / "html")], check=False).returncode  # noqa: S603


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "site", help="folder for the site (default: site)")
    out = parser.parse_args().out
    status = build(out)
    if status == 0:
        sys.stdout.write(f"{out / 'html' / 'index.html'}\n")
    sys.exit(status)


if __name__ == "__main__":
    main()
