"""Two runs side by side, as tables of text and as CSV."""

from __future__ import annotations

import math
from collections.abc import Sequence

from unbraid.evaluation.comparing import Change, ComparisonRow, RunComparison
from unbraid.evaluation.measures import merit
from unbraid.evaluation.results import RunInfo
from unbraid.evaluation.tables import (
    Table,
    TableRow,
    csv_text,
    direction_notes,
    format_interval,
    format_p_value,
    format_value,
    words_of,
)

#: Differences between good models are small, so they get one decimal more than results.
_MORE_DECIMALS = 1


_COLUMNS = ("sources", "first", "second", "difference", "p", "better", "worse")


def measures_table(comparison: RunComparison) -> Table:
    """What the second run gains over everything, measure by measure."""
    rows = tuple(
        TableRow((words_of(row.measure).heading, *_numbers(row)))
        for row in comparison.rows
        if row.title == "all"
    )
    notes = direction_notes(measures_of(comparison))
    return Table(("over everything", *_COLUMNS), rows, 1, tuple(notes))


def comparison_table(comparison: RunComparison, measure: str) -> Table:
    """What the second run gains by one measure, over everything, then by part and prompt."""
    rows = tuple(
        TableRow((row.title, *_numbers(row)), "all" if row.title == "all" else "")
        for row in comparison.rows
        if row.measure == measure
    )
    notes = (
        "Difference: the second run minus the first, over the sources that both have; ± is half "
        "the width of its 95 % bootstrap interval.",
        "p: how often a difference as large would come by chance, for each row by itself.",
        "Better and worse: sources that gained and lost from the first run to the second.",
        *direction_notes([measure]),
    )
    return Table((words_of(measure).heading, *_COLUMNS), rows, 1, notes)


def measures_of(comparison: RunComparison) -> list[str]:
    """The measures that were compared, the one that leads first."""
    return list(dict.fromkeys(row.measure for row in comparison.rows))


def _numbers(row: ComparisonRow) -> tuple[str, ...]:
    return (
        str(row.num_pairs),
        format_value(row.first, row.measure, more_decimals=_MORE_DECIMALS),
        format_value(row.second, row.measure, more_decimals=_MORE_DECIMALS),
        format_interval(row.difference, row.measure, is_signed=True, more_decimals=_MORE_DECIMALS),
        format_p_value(row.p_value),
        str(row.num_better),
        str(row.num_worse),
    )


def changes_table(changes: Sequence[Change], measure: str) -> Table:
    """What became of single sources, by the leading measure."""
    rows = tuple(
        TableRow(
            (
                change.item,
                change.stem,
                format_value(change.first, measure, more_decimals=_MORE_DECIMALS),
                format_value(change.second, measure, more_decimals=_MORE_DECIMALS),
                format_value(
                    change.second - change.first,
                    measure,
                    is_signed=True,
                    more_decimals=_MORE_DECIMALS,
                ),
            )
        )
        for change in changes
    )
    return Table(("mixture", "source", "first", "second", "difference"), rows, 2)


def losses_and_gains(
    comparison: RunComparison, number: int = 5
) -> tuple[tuple[Change, ...], tuple[Change, ...]]:
    """The sources that lost most and those that gained most, the greatest change first.

    A source that did not change, or for the better, is no loss, however few there are.
    """
    measure = leading_measure(comparison)
    losses = [change for change in comparison.changes if _gain(change, measure) < 0]
    gains = [change for change in reversed(comparison.changes) if _gain(change, measure) > 0]
    return tuple(losses[:number]), tuple(gains[:number])


def leading_measure(comparison: RunComparison) -> str:
    """The measure that the changes of single sources are of."""
    return comparison.rows[0].measure if comparison.rows else comparison.first.measures[0]


def _gain(change: Change, measure: str) -> float:
    """How much the second run is better, whichever values of the measure are."""
    return merit(measure, change.second) - merit(measure, change.first)


def csv_of_changes(comparison: RunComparison) -> str:
    """Every source of both runs in a line of CSV, in the order of the comparison."""
    measure = leading_measure(comparison)
    head = ("item", "stem", f"first_{measure}", f"second_{measure}", "difference")
    return csv_text(
        head,
        (
            (
                change.item,
                change.stem,
                *(
                    "" if math.isnan(value) else repr(value)
                    for value in (change.first, change.second, change.second - change.first)
                ),
            )
            for change in comparison.changes
        ),
    )


def describe_run(info: RunInfo) -> str:
    """A run in a few words: the model and its weights, the benchmark, the version."""
    digest = f" ({info.model_digest[:12]})" if info.model_digest else ""
    return f"{info.model_name}{digest} on {info.benchmark}, unbraid {info.version}"
