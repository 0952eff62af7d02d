"""Reads our docstrings for the site: ``Source:`` and ``Differs:`` are paragraphs of text."""

from __future__ import annotations

import re
from typing import Any

import griffe

_PARAGRAPH = re.compile(r"^(Source|Differs|Raises if): (?P<rest>.+)$")


class SourcesAsText(griffe.Extension):
    """Turns these paragraphs, which Google's style does not know, into plain ones."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of each object as it is read."""
        if obj.docstring is not None:
            obj.docstring.value = paragraphs(obj.docstring.value)


def paragraphs(text: str) -> str:
    r"""Make ``Source: a`` and its indented lines a paragraph that begins in bold.

    >>> paragraphs("Source: A. Author,\n    2025.\n\nMore.")
    '**Source:** A. Author,\n2025.\n\nMore.'
    """
    lines: list[str] = []
    is_inside = False
    for line in text.splitlines():
        start = _PARAGRAPH.match(line)
        if start:
            if lines and lines[-1]:
                lines.append("")
            lines.append(f"**{start[1]}:** {start['rest']}")
        elif is_inside and line.startswith("    "):
            lines.append(line.strip())
        else:
            lines.append(line)
        is_inside = bool(start) or (is_inside and line.startswith("    "))
    return "\n".join(lines)
