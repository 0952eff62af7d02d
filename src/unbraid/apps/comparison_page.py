"""The page of a comparison: two evaluations side by side, as one HTML file."""

from __future__ import annotations

import math
from html import escape

from unbraid.apps.charts import IntervalRow, histogram, interval_chart, minus
from unbraid.apps.report_page import number_html, render_template, table_html
from unbraid.evaluation.comparing import Change, ComparisonRow, RunComparison
from unbraid.evaluation.comparison_tables import (
    changes_table,
    comparison_table,
    describe_run,
    leading_measure,
    losses_and_gains,
    measures_of,
    measures_table,
)
from unbraid.evaluation.tables import format_interval, format_p_value, words_of

_TEMPLATE = "comparison_page.html"
_NUM_CHANGES = 10


def render_comparison_page(comparison: RunComparison) -> str:
    """Write the page: one file that needs no other, no network and no scripts."""
    return render_template(
        _TEMPLATE,
        title=escape(f"{comparison.second.model_name} beside {comparison.first.model_name}"),
        benchmark=escape(comparison.first.benchmark),
        headline=_headline(comparison),
        first=escape(describe_run(comparison.first)),
        second=escape(describe_run(comparison.second)),
        warnings=_warnings(comparison),
        differences=_differences(comparison),
        changes=_changes(comparison),
    )


def _headline(comparison: RunComparison) -> str:
    """The difference by the leading measure over everything, in a sentence."""
    row = next((row for row in comparison.rows if row.title == "all"), None)
    if row is None or math.isnan(row.difference.value):
        return "The two runs have nothing in common that could be compared."
    words = words_of(row.measure)
    unit = f"&nbsp;{escape(words.unit)}" if words.unit else ""
    return (
        f"<strong>{_difference(row)}{unit}</strong> {escape(words.title)} from the first to the "
        f"second, over {row.num_pairs:,} sources (p&nbsp;{_chance(row)})."
    )


def _difference(row: ComparisonRow) -> str:
    return number_html(
        format_interval(row.difference, row.measure, is_signed=True, more_decimals=1)
    )


def _chance(row: ComparisonRow) -> str:
    text = format_p_value(row.p_value)
    return escape(text.replace("<", "< ") if text.startswith("<") else f"= {text}")


def _warnings(comparison: RunComparison) -> str:
    lines = "".join(f"<li>{escape(warning)}</li>" for warning in comparison.warnings)
    return f'<ul class="warnings" aria-label="Warnings">{lines}</ul>' if lines else ""


def _differences(comparison: RunComparison) -> str:
    """All measures beside each other, then each by part and prompt, all but the first folded."""
    parts = [table_html(measures_table(comparison), "All measures")]
    for measure in measures_of(comparison):
        words = words_of(measure)
        table = table_html(
            comparison_table(comparison, measure), f"{words.title} by part and prompt"
        )
        content = _intervals(comparison, measure) + table
        if measure != leading_measure(comparison):
            title = f"{escape(words.title)} by part and prompt"
            content = f"<details><summary>{title}</summary>{content}</details>"
        parts.append(content)
    return "".join(parts)


def _intervals(comparison: RunComparison, measure: str) -> str:
    words = words_of(measure)
    rows = [
        IntervalRow(
            row.title,
            row.difference.value,
            row.difference.low,
            row.difference.high,
            minus(format_interval(row.difference, measure, is_signed=True, more_decimals=1)),
        )
        for row in comparison.rows
        if row.measure == measure and not math.isnan(row.difference.value)
    ]
    if not rows:
        return ""
    better = {"higher": "right", "lower": "left"}.get(words.is_better, "nearer zero in the table")
    chart = interval_chart(rows, f"Difference in {words.heading}; the table below has the numbers.")
    return f"""
<figure><figcaption>{escape(words.heading)}, second minus first, with 95 % intervals; better is
  to the {better}.</figcaption>{chart}</figure>"""


def _changes(comparison: RunComparison) -> str:
    measure = leading_measure(comparison)
    words = words_of(measure)
    differences = [
        change.second - change.first
        for change in comparison.changes
        if not math.isnan(change.second - change.first)
    ]
    if not differences:
        return "<p>No source was measured in both.</p>"
    chart = histogram(differences, (), f"Histogram of the differences in {words.heading}.")
    losses, gains = losses_and_gains(comparison, _NUM_CHANGES)
    return f"""
<figure><figcaption>{escape(words.heading)}: by how much single sources have changed, second minus
  first.</figcaption>{chart}</figure>
{_listed(losses, measure, "Lost most")}{_listed(gains, measure, "Gained most")}"""


def _listed(changes: tuple[Change, ...], measure: str, caption: str) -> str:
    if not changes:
        return ""
    heading = f"{caption}, {words_of(measure).heading}"
    return table_html(changes_table(changes, measure), heading)
