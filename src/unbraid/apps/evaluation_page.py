"""The page of an evaluation: one HTML file with numbers, charts and sounds in it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from unbraid.apps.cases import Case
from unbraid.apps.charts import (
    BoxRow,
    Dot,
    Spread,
    box_chart,
    histogram,
    minus,
    scatter,
    spread_of,
)
from unbraid.apps.report_page import (
    case_html,
    duration_text,
    facts_html,
    number_html,
    render_template,
    table_html,
)
from unbraid.evaluation.benchmark import PublishedResult
from unbraid.evaluation.measures import merit
from unbraid.evaluation.results import Run, SourceResult
from unbraid.evaluation.summary import Interval, Summary, SummaryRow
from unbraid.evaluation.tables import (
    Table,
    TableRow,
    format_interval,
    format_value,
    measure_table,
    summary_table,
    words_of,
)

_TEMPLATE = "evaluation_page.html"

#: Rules of a protocol: what they are called, and what their values mean where that is not plain.
_RULES: Mapping[str, tuple[str, Mapping[Any, str]]] = {
    "chunks": (
        "Separated",
        {
            "whole": "each mixture in one piece",
            "fixed": "in chunks of fixed length, averaged where they overlap",
            "model": "in chunks as suits the model",
        },
    ),
    "segment_s": ("Length of chunks", {}),
    "overlap_s": ("Overlap of chunks", {}),
    "channels": (
        "Channels",
        {
            "first": "the first one",
            "mono": "their mean",
            "each": "every channel as a mixture of its own",
            "all": "all together",
        },
    ),
    "sample_rate": ("Sample rate", {}),
    "duration_s": ("Cut or filled up to", {}),
    "pieces_s": ("Cut into pieces of", {}),
    "single_prompt": ("Prompts", {True: "each asked for by itself"}),
    "wiener": ("Estimates", {True: "passed through a Wiener filter together"}),
    "ceiling_db": ("Values count up to", {}),
    "medians": ("By medians, whatever the rest", {}),
    "oracles": ("Masks from the references", {True: "measured, too"}),
    "taught": ("Prompts from files, with SHA-256", {}),
    "oracle_stft": ("Their window and hop, in samples", {}),
    "summary": (
        "One number from many",
        {
            "mean": "the mean over a mixture's sources, then over mixtures",
            "mean-of-sources": "the mean over all sources at once",
            "median": "the median over sources",
            "median-of-groups": "the median over a group's mixtures, then over groups",
        },
    ),
}
#: Rules whose values say nothing where they are as they usually are.
_SILENT_VALUES: tuple[Any, ...] = (None, False, 0.0, "", (), [], {})
#: A box of fewer values would say more than there is.
_FEWEST_FOR_BOX = 3
#: More prompts than these wait to be unfolded.
_MOST_BOXES = 12
_UNITS = {"_s": "s", "_db": "dB", "_hz": "Hz", "_rate": "Hz"}


def render_evaluation_page(
    run: Run,
    summary: Summary,
    published: Sequence[PublishedResult] = (),
    cases: Sequence[Case] = (),
    *,
    title: str = "",
    notes: str = "",
) -> str:
    """Write the page: one file that needs no other, no network and no scripts.

    Args:
        run: What was measured.
        summary: Its summary.
        published: What others reached.
        cases: What to listen to, the worst first.
        title: A headline; the name of the benchmark without one.
        notes: What else to know about the benchmark.
    """
    return render_template(
        _TEMPLATE,
        title=escape(title or run.info.benchmark),
        model=escape(run.info.model_name),
        headline=_headline(run, summary),
        facts=_facts(run, summary),
        navigation=_navigation(cases),
        results=_results(run, summary, published),
        distributions=_distributions(run, summary),
        cases=_cases(cases),
        protocol=_protocol(run.info.protocol),
        notes=f"<p>{escape(notes)}</p>" if notes else "",
        measures=_measures(summary.measures),
        provenance=_provenance(run),
    )


# ------------------------------------------------------------------ the head


def _headline(run: Run, summary: Summary) -> str:
    """The result in a sentence."""
    row = _overall(summary)
    measure = summary.measures[0]
    if row is None or math.isnan(_estimate(row, measure).value):
        return "Nothing could be measured here."
    words = words_of(measure)
    unit = f"&nbsp;{escape(words.unit)}" if words.unit else ""
    reached = number_html(format_interval(_estimate(row, measure), measure))
    text = f"<strong>{reached}{unit}</strong> {escape(words.title)}"
    gain = row.improvement.get(measure)
    if gain is not None and not math.isnan(gain.value):
        change = number_html(format_value(gain.value, measure, is_signed=True))
        text += f", {change}{unit} over the mixtures as they are"
    return text + "."


def _overall(summary: Summary) -> SummaryRow | None:
    return next((row for row in summary.rows if row.kind == "all"), None)


def _estimate(row: SummaryRow, measure: str) -> Interval:
    return row.estimate.get(measure, Interval(math.nan, math.nan, math.nan, 0))


def _facts(run: Run, summary: Summary) -> str:
    row = _overall(summary)
    facts = {
        "mixtures": f"{len(run.items):,}",
        "sources": f"{sum(len(item.sources) for item in run.items):,}",
        "audio": duration_text(summary.audio_s),
        "computing": duration_text(summary.elapsed_s),
    }
    if row is not None:
        for measure in summary.measures[1:3]:
            words = words_of(measure)
            value = number_html(format_value(_estimate(row, measure).value, measure))
            facts[words.title] = f"{value} {escape(words.unit)}".strip()
    return facts_html(facts)


def _navigation(cases: Sequence[Case]) -> str:
    links = {"results": "Results", "distributions": "Distributions"}
    if cases:
        links["cases"] = "To listen to"
    links["how"] = "How it was measured"
    return "".join(f'<li><a href="#{place}">{text}</a></li>' for place, text in links.items())


# ------------------------------------------------------------------ numbers and charts


def _results(run: Run, summary: Summary, published: Sequence[PublishedResult]) -> str:
    """The leading measure in full, all measures beside each other, the others to unfold."""
    leading, *others = summary.measures
    parts = [_full_table(run, summary, leading, published)]
    if others:
        table = summary_table(run, summary, published)
        parts.append(table_html(table, "All measures, estimates only"))
    for measure in others:
        parts.append(
            f"<details><summary>{escape(words_of(measure).title)} in full</summary>"
            f"{_full_table(run, summary, measure, published)}</details>"
        )
    return "".join(parts)


def _full_table(
    run: Run, summary: Summary, measure: str, published: Sequence[PublishedResult]
) -> str:
    caption = f"{words_of(measure).title} before and after separation"
    return table_html(measure_table(run, summary, measure, published), caption)


def _distributions(run: Run, summary: Summary) -> str:
    sources = [source for item in run.items for source in item.sources]
    leading, *others = summary.measures
    parts = [_clouds(run, leading), _boxes(sources, leading)]
    if boxes := "".join(_boxes(sources, measure) for measure in others):
        parts.append(f'<div class="pair">{boxes}</div>')
    return "".join(parts) or "<p>No value was defined, so there is nothing to show.</p>"


def _clouds(run: Run, measure: str) -> str:
    """The leading measure of every source: how often which value, and what it was before."""
    words = words_of(measure)
    dots = [
        Dot(before, after, f"{item.item}: {source.stem}, {_from_to(before, after, measure)}")
        for item in run.items
        for source in item.sources
        if not math.isnan(after := source.value(measure))
        and not math.isnan(before := source.mixture.get(measure, math.nan))
    ]
    if not dots:
        return ""
    num_better = sum(merit(measure, dot.after) > merit(measure, dot.before) for dot in dots)
    share = f"{num_better:,} of {len(dots):,} sources are better after separation"
    bars = histogram(
        [dot.after for dot in dots],
        [dot.before for dot in dots],
        f"Histogram of {words.heading} over {len(dots)} sources; the table below has quantiles.",
    )
    cloud = scatter(dots, f"{words.heading} before and after separation: {share}.")
    return f"""
<div class="pair">
  <figure><figcaption>{escape(words.heading)}: how many sources reach what.
    <span class="keys"><span class="key after">after</span>
    <span class="key before">before</span></span></figcaption>
    {bars}</figure>
  <figure><figcaption>{escape(words.heading)} before (across) and after (up): above the dashed
    line the source has gained.</figcaption>{cloud}</figure>
</div>
<p class="soft">{share}. What lies beyond an axis is drawn at its end.</p>"""


def _from_to(before: float, after: float, measure: str) -> str:
    return f"{format_value(before, measure)} to {format_value(after, measure)}"


def _boxes(sources: Sequence[SourceResult], measure: str) -> str:
    """A measure prompt by prompt: where the middle half lies, and nine tenths."""
    prompts = list(dict.fromkeys(source.prompt for source in sources))
    rows = [
        row
        for title, chosen in (
            ("all", sources),
            *((prompt, [s for s in sources if s.prompt == prompt]) for prompt in prompts),
        )
        if (row := _box_row(title, chosen, measure)) is not None
    ]
    if not rows:
        return ""
    shown = rows[1:] if len(rows) == 2 else rows
    words = words_of(measure)
    label = f"{words.heading} by prompt; the table below has the same numbers."
    folded = ""
    if len(shown) > _MOST_BOXES:
        folded = f"<details><summary>{len(shown) - 1} prompts</summary>{box_chart(shown, label)}"
        folded += "</details>"
    chart = box_chart(shown[:1] if folded else shown, label)
    table = table_html(_quantiles_table(shown, measure), f"{words.heading}, quantiles")
    return f"""
<figure><figcaption>{escape(words.heading)} by prompt. A box holds half of the sources, its line
  nine tenths. <span class="keys"><span class="key before">before</span>
  <span class="key after">after</span></span></figcaption>
  {chart}{folded}
  <details><summary>The same in numbers</summary>{table}</details>
</figure>"""


def _box_row(title: str, sources: Sequence[SourceResult], measure: str) -> BoxRow | None:
    after = spread_of(_defined(source.value(measure) for source in sources))
    before = spread_of(_defined(source.mixture.get(measure, math.nan) for source in sources))
    if after is None or after.count < _FEWEST_FOR_BOX:
        return None
    middles = [spread.quantiles[2] for spread in (before, after) if spread is not None]
    text = " \N{RIGHTWARDS ARROW} ".join(minus(format_value(middle, measure)) for middle in middles)
    return BoxRow(title, before, after, text)


def _defined(values: Iterable[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]


def _quantiles_table(rows: Sequence[BoxRow], measure: str) -> Table:
    def line(row: BoxRow, what: str, spread: Spread) -> TableRow:
        numbers = (format_value(value, measure) for value in spread.quantiles)
        return TableRow((row.title, what, str(spread.count), *numbers))

    lines = [
        line(row, what, spread)
        for row in rows
        for what, spread in (("before", row.before), ("after", row.after))
        if spread is not None
    ]
    return Table(
        ("prompt", "", "sources", "5 %", "25 %", "median", "75 %", "95 %"), tuple(lines), 2
    )


# ------------------------------------------------------------------ sounds


def _cases(cases: Sequence[Case]) -> str:
    if not cases:
        return ""
    parts = []
    for heading, chosen in (
        ("Where it went worst", [case for case in cases if not case.is_best]),
        ("Where it went best", [case for case in cases if case.is_best]),
    ):
        if chosen:
            parts.append(f"<h3>{heading}</h3>{''.join(map(case_html, chosen))}")
    return f"""
<section id="cases" aria-labelledby="cases-title">
  <h2 id="cases-title">To listen to</h2>
  <p>Chosen by the leading measure alone, at most one source of a mixture.</p>
  {"".join(parts)}
</section>"""


# ------------------------------------------------------------------ rules


def _protocol(protocol: Mapping[str, Any]) -> str:
    """The rules as a list of facts, without those that say nothing."""
    facts = {}
    for rule, value in protocol.items():
        if rule == "measures" or value in _SILENT_VALUES:
            continue
        title, meanings = _RULES.get(rule, (rule.replace("_", " "), {}))
        is_plain = isinstance(value, str | bool)
        meaning = meanings.get(value) if is_plain else None
        facts[title] = escape(meaning or _plain_value(rule, value))
    return facts_html(facts) if facts else ""


def _plain_value(rule: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes"
    if isinstance(value, int | float):
        unit = next((unit for ending, unit in _UNITS.items() if rule.endswith(ending)), "")
        return (
            f"{value:g} {unit}".strip() if isinstance(value, float) else f"{value} {unit}".strip()
        )
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple):
        return ", ".join(_plain_value("", part) for part in value)
    return json.dumps(value, default=str)


def _measures(measures: Sequence[str]) -> str:
    """What each measure says, and which values are better."""
    directions = {
        "higher": "Higher is better.",
        "lower": "Lower is better.",
        "near-zero": "Nearer zero is better.",
    }
    return facts_html(
        {
            words.heading: escape(f"{words.description} {directions[words.is_better]}".strip())
            for words in map(words_of, measures)
        }
    )


def _provenance(run: Run) -> str:
    info = run.info
    facts = {
        "benchmark": escape(info.benchmark),
        "model": escape(info.model_name),
        "weights, SHA-256": f"<code>{escape(info.model_digest)}</code>",
        "mixtures, SHA-256": f"<code>{escape(info.items_digest)}</code>",
        "unbraid": escape(info.version),
    }
    known = {"weights, SHA-256": info.model_digest, "mixtures, SHA-256": info.items_digest}
    return facts_html({word: text for word, text in facts.items() if known.get(word, text)})
