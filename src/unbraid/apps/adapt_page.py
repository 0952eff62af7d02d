"""The page about a model that was adapted: what the checks found, and what it sounds like now."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from unbraid.apps.adapt import Adapted, AdaptedExample, AdaptingCheck
from unbraid.apps.cases import Case
from unbraid.apps.finetune_page import what_learns
from unbraid.apps.learning_page import before_and_after, render_learning_page
from unbraid.apps.report_page import duration_text, number_html
from unbraid.checkpoints.bundle import Bundle
from unbraid.checkpoints.card import Card
from unbraid.evaluation.tables import Table, TableRow
from unbraid.training.methods.remixing import RemixingConfig
from unbraid.types import stem_names

_LOSS = "remixing loss on recordings held back (dB, lower is better)"
_KNOWN = "SI-SDR on mixtures not to be forgotten (dB)"


def render_adapt_page(adapted: Adapted, card: Card, source: Bundle) -> str:
    """Write the page: one file that needs no other, no network and no scripts."""
    rate = adapted.model.sample_rate
    return render_learning_page(
        title=f"{card.name}: an adapted model",
        eyebrow=f"Adapted from {source.card.name}",
        name=card.name,
        headline=_headline(adapted),
        facts=_facts(adapted, card),
        warnings=adapted.warnings,
        results=results_table(adapted),
        results_caption="Before and after",
        about_cases="Pieces of recordings that it did not learn from. Nobody knows what their "
        "sources are, so only ears can tell what has become better.",
        cases=[
            _case(adapted, number, place, rate)
            for number in range(len(adapted.examples))
            for place in range(len(adapted.options.prompts))
        ],
        checks=_checks_table(adapted),
    )


def results_table(adapted: Adapted) -> Table:
    """What the two checks found before and after."""
    before, after = adapted.before, adapted.kept
    rows = [_row(_LOSS, before.held_back_loss, after.held_back_loss)]
    if before.known_db is not None and after.known_db is not None:
        rows.append(_row(_KNOWN, before.known_db, after.known_db))
    notes = (
        "The loss is a sign, and no measure of quality: where there are no references, there is "
        "none. The mixtures not to be forgotten are made of sounds that ship with unbraid.",
    )
    return Table(("", "before", "after", "change"), tuple(rows), notes=notes)


def method_name(remixing: RemixingConfig) -> str:
    """RemixIT, Self-Remixing, or both."""
    names = {
        "RemixIT": remixing.remixit_weight,
        "Self-Remixing": remixing.self_remixing_weight,
    }
    return " and ".join(name for name, weight in names.items() if weight)


def _row(name: str, before: float, after: float) -> TableRow:
    return TableRow((name, f"{before:z.2f}", f"{after:z.2f}", f"{after - before:+z.2f}"))


def _headline(adapted: Adapted) -> str:
    before, after = adapted.before, adapted.kept
    text = (
        f"Remixing loss on recordings held back: from {number_html(f'{before.held_back_loss:.2f}')}"
        f" to <strong>{number_html(f'{after.held_back_loss:.2f}')}&nbsp;dB</strong>"
    )
    if before.known_db is None or after.known_db is None:
        return f"{text}."
    change = number_html(f"{after.known_db - before.known_db:+z.1f}")
    return f"{text}; {change}&nbsp;dB SI-SDR on other sounds."


def _facts(adapted: Adapted, card: Card) -> Mapping[str, str]:
    options = adapted.options
    held_back = str(adapted.num_held_back) if adapted.num_held_back else "the end of the only one"
    return {
        "recordings": f"{adapted.num_recordings}, {60 * adapted.hours:.1f} minutes",
        "held back": held_back,
        "prompts": escape(", ".join(options.prompts)),
        "what learnt": f"{escape(what_learns(options.tuning))}: "
        f"{adapted.tuned.num_learning:,} numbers",
        "method": method_name(options.remixing),
        "steps": f"{adapted.kept.step} of {adapted.checks[-1].step} kept",
        "learning rate": f"{options.tuning.rate:g}",
        "licence": escape(card.licence),
        "time": escape(duration_text(adapted.seconds)),
    }


def _case(adapted: Adapted, number: int, place: int, rate: int) -> Case:
    example: AdaptedExample = adapted.examples[number]
    sounds = (example.mixture, example.before[place], example.after[place])
    title = f"{stem_names(adapted.options.prompts)[place]}: example {number + 1}"
    return before_and_after(
        title, "There is no reference.", [sound[None] for sound in sounds], rate
    )


def _checks_table(adapted: Adapted) -> Table:
    def known(check: AdaptingCheck) -> str:
        return "" if check.known_db is None else f"{check.known_db:.2f}"

    rows = tuple(
        TableRow(
            (
                f"after {check.step} steps",
                f"{check.held_back_loss:.2f}",
                known(check),
                "kept" if check == adapted.kept else "",
            )
        )
        for check in adapted.checks
    )
    return Table(("check", _LOSS, _KNOWN, ""), rows)
