"""How much the way of asking matters: the runs over a pool side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence

from unbraid.evaluation.comparing import ComparisonRow, compare_runs
from unbraid.evaluation.results import Run
from unbraid.evaluation.tables import Table, TableRow, format_interval, format_p_value, format_value

_WORDS = {
    "pool-single": "one prompt at a time",
    "pool-reversed": "prompts in reverse",
    "pool-coarser": "coarser prompts (stems that both have)",
    "pool-absent": "one prompt too many",
}


def overview_table(runs: Sequence[Run]) -> Table | None:
    """Every other way of asking against all prompts at once, source by source.

    None where the runs are not those of a pool.
    """
    by_name = {run.info.benchmark: run for run in runs}
    plain = by_name.get("pool")
    if plain is None:
        return None
    measure = plain.info.measures[0]
    rows = []
    for name, words in _WORDS.items():
        if name not in by_name:
            continue
        found = compare_runs(plain, by_name[name], [measure])
        row = next(row for row in found.rows if row.title == "all")
        rows.append(TableRow((words, *_cells(row, measure, by_name[name]))))
    if not rows:
        return None
    return Table(
        headers=("asked", "sources", "all prompts (dB)", "so (dB)", "difference", "p",
                 "silenced (dB)"),
        rows=tuple(rows),
        notes=(
            "SI-SDR of the same sources. Silenced: how far stems whose sound is not there lie "
            "below the mixture.",
        ),
    )  # fmt: skip


def _cells(row: ComparisonRow, measure: str, run: Run) -> tuple[str, ...]:
    silent = [
        source.estimate["leak_suppression_db"]
        for item in run.items
        for source in item.sources
        if source.is_silent and "leak_suppression_db" in source.estimate
    ]
    defined = [value for value in silent if not math.isnan(value)]
    mean = sum(defined) / len(defined) if defined else math.nan
    return (
        str(row.num_pairs),
        format_value(row.first, measure),
        format_value(row.second, measure),
        format_interval(row.difference, measure),
        format_p_value(row.p_value),
        format_value(mean, measure) if defined else "",
    )
