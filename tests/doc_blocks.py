"""The fenced blocks of Markdown pages, and the comments before them that say how they are tested."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
from attrs import frozen

from det_core.cli.main import cli

ROOT = Path(__file__).resolve().parents[1]
MARK = re.compile(r"<!-- test: (\S.*?) -->")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"`((?:\S*/)?det-core [^`\n]*)`")
ENDS = ("|", "&&", ";", ">", "2>&1")


@frozen
class Block:
    """A fenced block: its language, its text, the line before its first, and the mark in the comment before it."""

    page: Path
    language: str
    text: str
    line: int
    mark: str = ""

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def skipped(self) -> str:
        """Why the block of a README is not run."""
        return self.mark.removeprefix("skip-run ") if self.mark.startswith("skip-run ") else ""


def blocks(page: Path, *languages: str) -> list[Block]:
    """The blocks of these languages, in order."""
    text = page.read_text(encoding="utf8")
    found = []
    for match in FENCE.finditer(text):
        before = text[: match.start()].rstrip("\n").rpartition("\n")[2]
        mark = MARK.fullmatch(before.strip())
        line = text.count("\n", 0, match.start(2))
        found.append(Block(page, match[1], match[2], line, mark[1] if mark else ""))
    return [b for b in found if b.language in languages]


def name_of(value: object) -> str:
    if isinstance(value, Block):
        return value.place
    return str(value.relative_to(ROOT)) if isinstance(value, Path) else ""


def shell_lines(text: str) -> list[list[str]]:
    """The words of each command of a shell block, without comments."""
    lines = text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def commands(page: Path) -> list[tuple[str, list[str]]]:
    """The calls of det-core in a page's shell blocks and inline code, as (text, words after `det-core`)."""
    lines = COMMAND.findall(page.read_text(encoding="utf8"))
    for block in blocks(page, "sh", "bash", "shell", "console"):
        lines += block.text.replace("\\\n", " ").splitlines()
    found = []
    for line in lines:
        words = shlex.split(line, comments=True)
        for i, word in enumerate(words):
            if Path(word).name == "det-core" or words[i - 1 : i + 1] == ["-m", "det_core"]:
                rest = words[i + 1 :]
                end = next((j for j, w in enumerate(rest) if w in ENDS), len(rest))
                found.append((line.strip(), rest[:end]))
    return found


def problem(words: list[str]) -> str:
    """What is wrong with a call: a verb or an option that does not exist; empty if nothing."""
    command: click.Command = cli
    context = click.Context(cli, **cli.context_settings)
    for word in words:
        if word.startswith("-"):
            known = [o for p in command.get_params(context) for o in (*p.opts, *p.secondary_opts)]
            if word.partition("=")[0] not in known:
                return f"{command.name} has no option {word}"
        elif isinstance(command, click.Group) and word in command.list_commands(context):
            inner = command.get_command(context, word)
            assert inner is not None
            command, context = inner, click.Context(inner, parent=context, **inner.context_settings)
        elif command is cli and re.fullmatch(r"[a-z-]+", word):
            return f"det-core has no command {word}"
    return ""
