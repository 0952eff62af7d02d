"""The page about a model that was tuned: what it did before and after, to read and to hear."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from unbraid.apps.cases import Case, loudest_stretch
from unbraid.apps.finetune import MEASURES, Finetuned, Gain, Piece
from unbraid.apps.learning_page import before_and_after, checks_table, render_learning_page
from unbraid.apps.report_page import duration_text, number_html
from unbraid.checkpoints.bundle import Bundle
from unbraid.checkpoints.card import Card
from unbraid.errors import in_brief
from unbraid.evaluation.measures import find_measure
from unbraid.evaluation.tables import Table, TableRow
from unbraid.training.methods.fine_tuning import FineTuningConfig
from unbraid.types import stem_names

_WHAT = {
    "all": "all weights and prompts",
    "network": "all weights but the prompts",
    "prompts-and-codec": "prompts, entry and exit",
    "lora": "low-rank changes to the attention",
}


def render_finetune_page(finetuned: Finetuned, card: Card, source: Bundle) -> str:
    """Write the page: one file that needs no other, no network and no scripts."""
    return render_learning_page(
        title=f"{card.name}: a tuned model",
        eyebrow=f"Tuned from {source.card.name}",
        name=card.name,
        headline=_headline(finetuned),
        facts=_facts(finetuned, card),
        warnings=finetuned.warnings,
        results=gains_table(finetuned),
        results_caption="Before and after, in dB",
        about_cases="For each prompt one piece of a song that it did not learn from: the one "
        "whose gain lies in the middle.",
        cases=_cases(finetuned),
        checks=checks_table(
            finetuned.checks,
            finetuned.kept,
            ("SI-SDR (dB)", "mean loss (dB)"),
            (".2f", ".2f"),
            (f"Measured on {finetuned.num_chosen_by} pieces of the songs held back.",),
        ),
    )


def gains_table(finetuned: Finetuned) -> Table:
    """Before and after, prompt by prompt."""
    titles = [find_measure(measure).title for measure in MEASURES]
    each = [header for title in titles for header in (f"{title} before", "after", "gain")]
    rows = tuple(TableRow(_cells(gain)) for gain in finetuned.gains)
    songs = in_brief(finetuned.held_back)
    if set(finetuned.held_back) <= set(finetuned.learnt_from):
        songs = f"the last fifth of {songs}"
    notes = (
        f"Pieces of {songs}, which it did not learn from. "
        + (
            "Others than these decided when it was at its best."
            if finetuned.is_chosen_by_others
            else "There is only one, which also decided when it was at its best."
        ),
        f"All is the mean over the prompts. Under mixture: {titles[0]} of the mixture itself.",
    )
    return Table(("prompt", "pieces", "mixture", *each), rows, notes=notes)


def _cells(gain: Gain) -> tuple[str, ...]:
    cells = [gain.prompt, str(gain.num_pieces), f"{gain.mixture[MEASURES[0]]:.1f}"]
    for measure in MEASURES:
        before, after = gain.before[measure], gain.after[measure]
        cells += [f"{before:z.1f}", f"{after:z.1f}", f"{after - before:+z.1f}"]
    return tuple(cells)


def _headline(finetuned: Finetuned) -> str:
    total = finetuned.gains[0]
    before, after = total.before[MEASURES[0]], total.after[MEASURES[0]]
    return (
        f"<strong>{number_html(f'{after - before:+z.1f}')}&nbsp;dB</strong> SI-SDR: from "
        f"{number_html(f'{before:.1f}')} to {number_html(f'{after:.1f}')}&nbsp;dB, mean over the "
        "prompts."
    )


def _facts(finetuned: Finetuned, card: Card) -> Mapping[str, str]:
    tuning, kept = finetuned.options.tuning, finetuned.kept
    num_songs = len(finetuned.learnt_from)
    what = what_learns(tuning)
    return {
        "learnt from": f"{num_songs}: {escape(in_brief(finetuned.learnt_from))}",
        "held back": f"{len(finetuned.held_back)}: {escape(in_brief(finetuned.held_back))}",
        "what learnt": f"{escape(what)}: {finetuned.tuned.num_learning:,} numbers",
        "steps": f"{kept.step} of {finetuned.checks[-1].step} kept",
        "learning rate": f"{tuning.rate:g}",
        "licence": escape(card.licence),
        "time": escape(duration_text(finetuned.seconds)),
    }


def what_learns(tuning: FineTuningConfig) -> str:
    """What learns, in words."""
    return _WHAT[tuning.what] + (f" of rank {tuning.rank}" if tuning.what == "lora" else "")


def _cases(finetuned: Finetuned) -> list[Case]:
    """For each prompt the piece whose gain lies in the middle."""
    cases = []
    for gain in finetuned.gains[1:]:
        found = [
            (source.value(MEASURES[0]) - old.value(MEASURES[0]), number, place)
            for number, piece in enumerate(finetuned.pieces)
            for place, (old, source) in enumerate(
                zip(piece.before_result.sources, piece.after_result.sources, strict=True)
            )
            if source.prompt == gain.prompt and not source.is_silent
        ]
        _, number, place = sorted(found)[len(found) // 2]
        cases.append(_case(finetuned.pieces[number], place))
    return cases


def _case(piece: Piece, place: int) -> Case:
    item = piece.item
    reference = item.references[place]
    stretch = loudest_stretch(reference, item.mixture.sample_rate)
    sounds = [
        sound[:, stretch]
        for sound in (item.mixture.samples, piece.before[place], piece.after[place], reference)
    ]
    values = [
        result.sources[place].value(MEASURES[0])
        for result in (piece.before_result, piece.after_result)
    ]
    return before_and_after(
        f"{stem_names(item.prompts)[place]}: {item.name}",
        f"SI-SDR: {values[0]:.1f} dB before, {values[1]:.1f} dB after.",
        sounds,
        item.mixture.sample_rate,
    )
