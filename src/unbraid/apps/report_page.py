"""What the pages about evaluations share: their style, tables, and data inside the page."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template

from unbraid._version import __version__
from unbraid.apps.cases import Case
from unbraid.apps.charts import minus
from unbraid.evaluation.tables import Table, TableRow

_ASSETS = Path(__file__).with_name("assets")
_STYLE = _ASSETS / "report.css"
_HEADINGS = {"part": "By part", "prompt": "By prompt"}


def render_template(name: str, **texts: str) -> str:
    """Fill a page of ``assets``; the style that all reports share goes in by itself.

    Args:
        name: File name of the page.
        **texts: What stands in its places, as HTML.
    """
    page = Template((_ASSETS / name).read_text(encoding="utf-8"))
    style = _STYLE.read_text(encoding="utf-8")
    return page.substitute(texts, style=style, version=escape(__version__))


def data_uri(content: bytes, mime: str) -> str:
    """Content as an address that needs no file."""
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"


def table_html(table: Table, caption: str) -> str:
    """A table that scrolls by itself where it is wider than the page, with its notes below."""
    head = "".join(
        f'<th scope="col"{_side(column, table)}>{escape(header)}</th>'
        for column, header in enumerate(table.headers)
    )
    body = "".join(_group(group, table) for group in _groups(table.rows))
    notes = "".join(f"<li>{escape(note)}</li>" for note in table.notes)
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(caption)}">'
        f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>"
        f"{body}</table></div>" + (f'<ul class="notes">{notes}</ul>' if notes else "")
    )


def _groups(rows: Sequence[TableRow]) -> list[list[TableRow]]:
    """Rows of one kind together; published ones belong to the row above them."""
    groups: list[list[TableRow]] = []
    kind = None
    for row in rows:
        if row.kind == "published" or (groups and row.kind == kind):
            groups[-1].append(row)
        else:
            groups.append([row])
            kind = row.kind
    return groups


def _group(rows: Sequence[TableRow], table: Table) -> str:
    heading = _HEADINGS.get(rows[0].kind, "")
    if heading:
        heading = (
            f'<tr class="heading"><th scope="rowgroup" colspan="{len(table.headers)}">'
            f"{heading}</th></tr>"
        )
    return f"<tbody>{heading}{''.join(_row(row, table) for row in rows)}</tbody>"


def _row(row: TableRow, table: Table) -> str:
    first, *others = row.cells
    kind = f' class="{row.kind}"' if row.kind else ""
    cells = "".join(
        f"<td{_side(column, table)}>"
        f"{escape(cell) if column < table.num_labels else number_html(cell)}</td>"
        for column, cell in enumerate(others, start=1)
    )
    return f'<tr{kind}><th scope="row">{escape(first)}</th>{cells}</tr>'


def _side(column: int, table: Table) -> str:
    return ' class="word"' if column < table.num_labels else ""


def case_html(case: Case) -> str:
    """One source of one mixture: players, spectrograms, numbers."""
    players = "".join(
        f"""
    <figure><figcaption>{escape(sound.label)}</figcaption>
      <audio controls preload="metadata" aria-label="{escape(f"{case.title}: {sound.label}")}"
        src="{data_uri(sound.content, sound.mime)}"></audio></figure>"""
        for sound in case.sounds
    )
    picture = ""
    if case.picture is not None:
        label = escape(f"{case.title}: spectrograms")
        order = escape(", ".join(sound.label.lower() for sound in case.sounds))
        picture = f"""
  <div class="wide" tabindex="0" role="region" aria-label="{label}">
    <img src="{data_uri(case.picture, "image/png")}" alt="Spectrograms side by side: {order}.">
  </div>"""
    numbers = "" if case.numbers is None else table_html(case.numbers, "What was measured of it")
    return f"""
<article>
  <h4>{escape(case.title)}</h4>
  <p>{escape(case.text)}</p>
  <div class="sounds">{players}
  </div>{picture}
  {numbers}
</article>"""


def facts_html(facts: Mapping[str, str]) -> str:
    """Words and what they stand for, as a list; what stands for them is HTML already."""
    rows = "".join(
        f"<div><dt>{escape(word)}</dt><dd>{text}</dd></div>" for word, text in facts.items()
    )
    return f'<dl class="facts">{rows}</dl>'


def number_html(text: str) -> str:
    """A number for people: a real minus sign, and its uncertainty in a softer colour."""
    value, _, interval = escape(minus(text)).partition(" ± ")
    return f'{value}<span class="soft"> ±&nbsp;{interval}</span>' if interval else value


def duration_text(seconds: float) -> str:
    """A length of time with two or three digits.

    >>> duration_text(9.26), duration_text(330), duration_text(19440)
    ('9.3 s', '5.5 min', '5.4 h')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
