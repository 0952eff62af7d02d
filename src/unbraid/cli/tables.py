"""Tables of results in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from unbraid.cli.console import one_line

if TYPE_CHECKING:
    from rich.table import Table as RichTable

    from unbraid.evaluation.tables import Table

_GAP = 2


def print_table(table: Table) -> None:
    """Print a table to stdout, and its notes below it.

    No number is ever cut: a table that is wider than the terminal is printed in several parts,
    each with the columns of words. In a file or a pipe there is room for any width.
    """
    from rich.cells import cell_len
    from rich.console import Console

    lines = [table.headers, *(row.cells for row in table.rows)]
    widths = [max(map(cell_len, map(one_line, column))) for column in zip(*lines, strict=True)]
    console = Console(markup=False, highlight=False, emoji=False)
    if not sys.stdout.isatty():
        console.width = max(console.width, sum(widths) + _GAP * len(widths))
    for part, columns in enumerate(_parts(widths, table.num_labels, console.width)):
        if part:
            console.print()
        console.print(_columns_of(table, columns))
    for note in table.notes:
        console.print(one_line(note), style="dim", soft_wrap=True)


def _parts(widths: Sequence[int], num_labels: int, room: int) -> Iterator[list[int]]:
    """Columns that fit beside each other, in order; the columns of words are in every part."""
    labels = list(range(num_labels))
    taken = sum(widths[column] + _GAP for column in labels)
    columns, used = list(labels), taken
    for column in range(num_labels, len(widths)):
        if used + widths[column] > room and len(columns) > num_labels:
            yield columns
            columns, used = list(labels), taken
        columns.append(column)
        used += widths[column] + _GAP
    yield columns


def _columns_of(table: Table, columns: Sequence[int]) -> RichTable:
    from rich.table import Table as RichTable

    shown = RichTable(box=None, padding=(0, _GAP, 0, 0), pad_edge=False)
    for column in columns:
        is_word = column < table.num_labels
        shown.add_column(
            one_line(table.headers[column]),
            justify="left" if is_word else "right",
            no_wrap=not is_word,
            overflow="fold",
        )
    kind = None
    for row in table.rows:
        if row.kind != "published":
            if kind not in (None, row.kind):
                shown.add_row()
            kind = row.kind
        cells = (one_line(row.cells[column]) for column in columns)
        shown.add_row(*cells, style="dim" if row.kind == "published" else None)
    return shown
