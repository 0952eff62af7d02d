"""Results as tables of text: for the terminal, for Markdown, for a page, and as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from unbraid.evaluation.benchmark import PublishedResult
from unbraid.evaluation.measures import MEASURES
from unbraid.evaluation.results import IMPROVEMENT, Run, SourceResult, Values
from unbraid.evaluation.summary import Interval, Summary, SummaryRow

#: Stands where a measure is not defined.
UNDEFINED = "n/a"

#: What the rows of a table are about; rows of one kind stand together.
RowKind = Literal["", "all", "part", "prompt", "published"]

_DECIMALS = {"dB": 1, "": 3}
_DECIMALS_ELSE = 2
_ORACLE_WORDS = {
    "ideal_binary": "binary mask",
    "ideal_ratio": "ratio mask",
    "wiener_like": "Wiener-like mask",
    "phase_sensitive": "phase-sensitive mask",
}


# ------------------------------------------------------------------ tables as data


@dataclass(frozen=True)
class TableRow:
    """A line of a table.

    Attributes:
        cells: Text, one per column.
        kind: What it is about.
    """

    cells: tuple[str, ...]
    kind: RowKind = ""


@dataclass(frozen=True)
class Table:
    """A table of text, for any medium.

    Attributes:
        headers: What the columns are called.
        rows: The lines.
        num_labels: How many columns hold words; those to the right of them hold numbers.
        notes: What a reader has to know, in sentences.
    """

    headers: tuple[str, ...]
    rows: tuple[TableRow, ...]
    num_labels: int = 1
    notes: tuple[str, ...] = ()


def format_markdown(table: Table) -> str:
    """A table as GitHub shows it, its notes below; ends with a line break."""
    rules = ["---"] * table.num_labels + ["---:"] * (len(table.headers) - table.num_labels)
    rows = [table.headers, *(row.cells for row in table.rows)]
    lines = [_markdown_line(map(_escaped, row)) for row in rows]
    lines.insert(1, _markdown_line(rules))
    return "\n".join([*lines, *(f"\n{_escaped(note)}" for note in table.notes), ""])


def _markdown_line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is and in one line."""
    for character in "\\|*_`<[":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())


# ------------------------------------------------------------------ numbers as text


@dataclass(frozen=True)
class MeasureWords:
    """How to write about a measure, or about its gain over the mixture.

    Attributes:
        title: For example ``SI-SDR``.
        unit: For example ``dB``; empty for a plain number.
        is_better: Which values are better.
        description: What it says, in a sentence or two; empty for a name from elsewhere.
    """

    title: str
    unit: str
    is_better: Literal["higher", "lower", "near-zero"]
    description: str

    @property
    def heading(self) -> str:
        """The title with its unit, for the head of a column."""
        return f"{self.title} ({self.unit})" if self.unit else self.title


def words_of(measure: str) -> MeasureWords:
    """How to write about a measure.

    A run may come from another version, so a measure that is not in the catalogue is shown
    under its own name, better when higher.
    """
    base = measure.removesuffix(IMPROVEMENT)
    known = MEASURES.get(base)
    if known is None:
        return MeasureWords(measure, "dB" if base.endswith("_db") else "", "higher", "")
    gain = f" {gain_word(base)}" if measure != base else ""
    return MeasureWords(known.title + gain, known.unit, known.is_better, known.description)


def gain_word(measure: str) -> str:
    """What the difference to the mixture is called: a gain only where higher is better."""
    known = MEASURES.get(measure)
    return "gain" if known is None or known.is_better == "higher" else "change"


def oracle_word(oracle: str) -> str:
    """What an oracle is called at the head of a column."""
    return _ORACLE_WORDS.get(oracle, oracle.replace("_", " "))


def format_value(
    value: float, measure: str, *, is_signed: bool = False, more_decimals: int = 0
) -> str:
    """A value of a measure, with as many decimals as tell something; ``UNDEFINED`` for nan.

    Args:
        value: The value.
        measure: Of which measure.
        is_signed: Whether a plus stands before what is above zero.
        more_decimals: How many decimals more than usual, for small differences.
    """
    if math.isnan(value):
        return UNDEFINED
    decimals = _DECIMALS.get(words_of(measure).unit, _DECIMALS_ELSE) + more_decimals
    rounded = round(value, decimals) + 0.0  # adding 0.0 turns -0.0 into 0.0
    sign = "+" if is_signed and rounded != 0 else ""
    return f"{rounded:{sign}.{decimals}f}"


def format_interval(
    interval: Interval, measure: str, *, is_signed: bool = False, more_decimals: int = 0
) -> str:
    """A number with half the width of its interval, as in ``9.4 ± 0.3``.

    It stands alone where there was nothing to resample, so that the interval has no width.
    """
    text = format_value(interval.value, measure, is_signed=is_signed, more_decimals=more_decimals)
    half = (interval.high - interval.low) / 2
    # Resamples of one group are all the same, but for rounding.
    if math.isnan(interval.value) or not half > 1e-9 * (1 + abs(interval.value)):
        return text
    return f"{text} ± {format_value(half, measure, more_decimals=more_decimals)}"


def format_p_value(p_value: float) -> str:
    """A probability with two digits that count; never as zero."""
    if math.isnan(p_value):
        return UNDEFINED
    return "<0.001" if p_value < 0.001 else f"{p_value:.3f}" if p_value < 0.1 else f"{p_value:.2f}"


# ------------------------------------------------------------------ one run


@dataclass(frozen=True)
class _Column:
    """A column of numbers: what it is called, the text and the number of a row.

    Published values of ``measure`` belong into it; it is empty where others publish nothing.
    """

    heading: str
    text: Callable[[SummaryRow], str]
    value: Callable[[SummaryRow], float]
    measure: str = ""


def summary_table(run: Run, summary: Summary, published: Sequence[PublishedResult] = ()) -> Table:
    """The estimates by every measure, what they gain by the leading one, published figures.

    Args:
        run: What was measured.
        summary: Its summary.
        published: What others reached. Each figure stands below ours of the same row, with the
            difference in brackets; figures of rows or measures that we do not have are left out.
    """
    leading, *others = summary.measures
    columns = [
        _estimate_column(leading, words_of(leading).heading),
        _gain_column(leading),
        *(_estimate_column(measure, words_of(measure).heading) for measure in others),
    ]
    notes = direction_notes(summary.measures)
    return _table_of("over", run, summary, columns, published, notes)


def measure_table(
    run: Run, summary: Summary, measure: str, published: Sequence[PublishedResult] = ()
) -> Table:
    """One measure in full: mixture, estimate, gain, and what masks from the references reach."""
    oracles = dict.fromkeys(
        oracle
        for row in summary.rows
        for oracle, values in row.oracles.items()
        if measure in values
    )
    columns = [
        _number_column("mixture", measure, lambda row: row.mixture.get(measure, math.nan)),
        _estimate_column(measure, "estimate"),
        _gain_column(measure),
        *(
            _number_column(oracle_word(name), measure, _reached_by(name, measure))
            for name in oracles
        ),
    ]
    notes = direction_notes([measure])
    if oracles:
        notes.append("Masks: what masks made from the references themselves reach.")
    return _table_of(words_of(measure).heading, run, summary, columns, published, notes)


def overall_line(summary: Summary, measures: Sequence[str]) -> str:
    """The estimates by some measures over everything, in one line; empty where none is defined."""
    everything = next(row for row in summary.rows if row.kind == "all")
    said = [
        f"{words_of(measure).heading} {format_interval(_of(everything.estimate, measure), measure)}"
        for measure in measures
        if not math.isnan(_of(everything.estimate, measure).value)
    ]
    return f"By other measures, over all: {', '.join(said)}." if said else ""


def _estimate_column(measure: str, heading: str) -> _Column:
    return _Column(
        heading,
        lambda row: format_interval(_of(row.estimate, measure), measure),
        lambda row: _of(row.estimate, measure).value,
        measure,
    )


def _gain_column(measure: str) -> _Column:
    return _Column(
        gain_word(measure),
        lambda row: format_interval(_of(row.improvement, measure), measure, is_signed=True),
        lambda row: _of(row.improvement, measure).value,
        measure + IMPROVEMENT,
    )


def _number_column(heading: str, measure: str, value: Callable[[SummaryRow], float]) -> _Column:
    return _Column(heading, lambda row: format_value(value(row), measure), value)


def _reached_by(oracle: str, measure: str) -> Callable[[SummaryRow], float]:
    return lambda row: row.oracles.get(oracle, {}).get(measure, math.nan)


def _of(intervals: Mapping[str, Interval], measure: str) -> Interval:
    return intervals.get(measure, Interval(math.nan, math.nan, math.nan, 0))


def _table_of(
    heading: str,
    run: Run,
    summary: Summary,
    columns: Sequence[_Column],
    published: Sequence[PublishedResult],
    notes: Sequence[str],
) -> Table:
    rows: list[TableRow] = []
    quoted: list[PublishedResult] = []
    for row in summary.rows:
        numbers = (column.text(row) for column in columns)
        cells = (row.title, *numbers, str(row.num_items), str(row.num_sources))
        rows.append(TableRow(cells, row.kind))
        for result in published:
            if result.row == row.title and (row.kind == "all") == (result.row == "all"):
                theirs = [_beside(column, row, result) for column in columns]
                if any(theirs):
                    name = f"{result.system}, published"
                    rows.append(TableRow((name, *theirs, "", ""), "published"))
                    quoted.append(result)
    headers = (heading, *(column.heading for column in columns), "mixtures", "sources")
    intervals = ("± is half the width of the 95 % bootstrap interval.",) * (len(run.items) > 1)
    return Table(headers, tuple(rows), 1, (*intervals, *notes, *_sources(quoted)))


def _beside(column: _Column, row: SummaryRow, result: PublishedResult) -> str:
    """A published value and by how much ours is above it; empty if there is none."""
    value = result.values.get(column.measure)
    if value is None:
        return ""
    text = format_value(value, column.measure)
    difference = column.value(row) - value
    if math.isnan(difference):
        return text
    return f"{text} ({format_value(difference, column.measure, is_signed=True)})"


def direction_notes(measures: Iterable[str]) -> list[str]:
    """Which measures are not better when higher, in sentences."""
    titles: dict[str, dict[str, None]] = {"lower": {}, "near-zero": {}, "higher": {}}
    for measure in measures:
        words = words_of(measure.removesuffix(IMPROVEMENT))
        titles[words.is_better][words.title] = None
    sentences = (("lower", "Lower is better"), ("near-zero", "Nearer zero is better"))
    return [f"{words}: {', '.join(titles[key])}." for key, words in sentences if titles[key]]


def _sources(quoted: Sequence[PublishedResult]) -> list[str]:
    """Where published figures come from, and what makes them not quite comparable."""
    if not quoted:
        return []
    systems: dict[tuple[str, str], dict[str, None]] = {}
    for result in quoted:
        systems.setdefault((result.source, result.note), {})[result.system] = None
    return [
        "Published figures, in brackets how much ours are above them.",
        *(
            f"{'; '.join(names)}: {source}." + (f" {note}" if note else "")
            for (source, note), names in systems.items()
        ),
    ]


def values_table(source: SourceResult) -> Table:
    """Everything that could be measured of one source, measure by measure."""
    oracles = [name for name, values in source.oracles.items() if values]
    measures = [
        measure
        for measure, value in source.estimate.items()
        if not (math.isnan(value) and math.isnan(source.mixture.get(measure, math.nan)))
    ]
    rows = tuple(
        TableRow(
            (
                words_of(measure).heading,
                _cell(source.mixture, measure),
                _cell(source.estimate, measure),
                format_value(source.value(measure + IMPROVEMENT), measure, is_signed=True),
                *(_cell(source.oracles[name], measure) for name in oracles),
            )
        )
        for measure in measures
    )
    headers = ("", "mixture", "estimate", "change", *map(oracle_word, oracles))
    return Table(headers, rows, 1, tuple(direction_notes(measures)))


def _cell(values: Values, measure: str) -> str:
    return format_value(values[measure], measure) if measure in values else ""


def csv_of_sources(run: Run) -> str:
    """Every source of a run in a line of CSV; empty where a measure is not defined.

    Columns: the mixture and the source, then per measure the value of the estimate
    (``si_sdr_db``), of the mixture (``mixture_si_sdr_db``), and per oracle that was measured
    (``oracle_<name>_si_sdr_db``). Floats are written so that they read back exactly.
    """
    measures = run.info.measures
    reached = dict.fromkeys(
        (oracle, measure)
        for item in run.items
        for source in item.sources
        for oracle, values in source.oracles.items()
        for measure in values
    )
    head = ["item", "part", "group", "duration_s", "elapsed_s", "stem", "prompt", "is_silent"]
    head += [*measures, *(f"mixture_{measure}" for measure in measures)]
    head += [f"oracle_{oracle}_{measure}" for oracle, measure in reached]
    lines: list[list[str]] = []
    for item in run.items:
        of_item = [item.item, item.part, item.group, repr(item.duration_s), repr(item.elapsed_s)]
        for source in item.sources:
            of_source = [source.stem, source.prompt, str(source.is_silent).lower()]
            numbers = [source.estimate.get(measure, math.nan) for measure in measures]
            numbers += [source.mixture.get(measure, math.nan) for measure in measures]
            numbers += [
                source.oracles.get(oracle, {}).get(measure, math.nan) for oracle, measure in reached
            ]
            lines.append([*of_item, *of_source, *map(_plain_number, numbers)])
    return csv_text(head, lines)


def _plain_number(value: float) -> str:
    return "" if math.isnan(value) else repr(value)


def csv_text(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Lines of CSV under a head."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(lines)
    return text.getvalue()
