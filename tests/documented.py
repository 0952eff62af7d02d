"""The code blocks of the README and the site, and the commands in them.

A block that cannot run in CI says why, in a comment right above it that readers do not see:

    <!-- not run: needs a corpus -->
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from functools import cache
from typing import Any

import typer.main
from typer import Exit

from conftest import ROOT
from unbraid.cli import app

_BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<reason>.+?) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
#: What a comment about running looks like, well written or not.
_MARK = re.compile(r"^<!--\s*(?:not[ -]run|skip|no[ -]run).*?-->", re.IGNORECASE | re.MULTILINE)
#: Of the shell. Blocks without a language hold commands or a layout of files.
_SHELL = ("", "sh", "console", "bash")
_KNOWN_LANGUAGES = (*_SHELL, "python", "yaml", "text", "csv", "json")


@dataclass(frozen=True)
class Block:
    """A code block.

    Attributes:
        page: Relative to the repository.
        line: Of its first line.
        language: As written after the fence; may be empty.
        text: What is in it.
        not_run: Why it does not run in CI; None if it does.
    """

    page: str
    line: int
    language: str
    text: str
    not_run: str | None

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def shell_lines(self) -> list[list[str]]:
        """Lines of the shell, as words, without prompts and comments.

        Of a block without a language only the lines that call ``unbraid`` or another program
        that we know: the rest may be a layout of files.
        """
        if self.language not in _SHELL:
            return []
        lines = self.text.replace("\\\n", " ").splitlines()
        if self.language == "console":
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        elif not self.language:
            lines = [
                line for line in lines if re.match(r"(unbraid|python|pip|make|taskset) ", line)
            ]
        return [words for line in lines if (words := shlex.split(line, comments=True))]

    @property
    def commands(self) -> list[list[str]]:
        """Arguments of each call of ``unbraid``."""
        return [words[1:] for words in self.shell_lines if words[0] == "unbraid"]


def pages() -> list[str]:
    """The README and every page of the site that is written by hand."""
    guides = sorted((ROOT / "docs").rglob("*.md"))
    return ["README.md", *(path.relative_to(ROOT).as_posix() for path in guides)]


@cache
def blocks(page: str) -> tuple[Block, ...]:
    """The code blocks of a page, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = [
        Block(
            page,
            text.count("\n", 0, match.start("text")) + 1,
            match["language"],
            match["text"],
            match["reason"],
        )
        for match in _BLOCK.finditer(text)
    ]
    assert 2 * len(found) == len(re.findall(r"^```", text, re.MULTILINE)), f"{page}: odd fences"
    marked = sum(block.not_run is not None for block in found)
    assert marked == len(_MARK.findall(text)), f"{page}: a mark `not run` that marks no block"
    for block in found:
        assert block.language in _KNOWN_LANGUAGES, f"{block.place}: what is {block.language}?"
    return tuple(found)


def all_blocks() -> list[Block]:
    """Those of all pages."""
    return [block for page in pages() for block in blocks(page)]


@cache
def program() -> Any:
    """The commands as the parser sees them; they take a moment to put together."""
    return typer.main.get_command(app)


def refused(command: list[str]) -> str | None:
    """Why the program would not take these arguments; None if it would."""
    inner, path = program(), "unbraid"
    words = list(command)
    while hasattr(inner, "commands"):
        if not words or words[0] not in inner.commands:
            if words and words[0] in ("--help", "--version"):
                return None
            return f"{path} has no such command"
        path = f"{path} {words[0]}"
        inner = inner.commands[words.pop(0)]
    try:
        inner.make_context(path, words)
    except Exit:
        return None
    except Exception as error:
        return str(error) or type(error).__name__
    return None
