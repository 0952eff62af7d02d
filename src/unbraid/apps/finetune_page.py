"""The page about a model that was tuned: what it did before and after, to read and to hear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from unbraid.apps.cases import Case, loudest_stretch, playable
from unbraid.apps.finetune import MEASURES, Finetuned, Gain, Piece
from unbraid.apps.pictures import spectrogram_png
from unbraid.apps.report_page import (
    case_html,
    duration_text,
    facts_html,
    number_html,
    render_template,
    table_html,
)
from unbraid.checkpoints.bundle import Bundle
from unbraid.checkpoints.card import Card
from unbraid.errors import in_brief
from unbraid.evaluation.measures import find_measure
from unbraid.evaluation.tables import Table, TableRow
from unbraid.types import Waveform, stem_names

_LOUDEST = 0.5
_WHAT = {
    "all": "all weights and prompts",
    "prompts-and-codec": "prompts, entry and exit",
    "lora": "low-rank changes to the attention",
}


def render_finetune_page(finetuned: Finetuned, card: Card, source: Bundle) -> str:
    """Write the page: one file that needs no other, no network and no scripts."""
    return render_template(
        "finetune_page.html",
        title=escape(f"{card.name}: a tuned model"),
        source=escape(source.card.name),
        model=escape(card.name),
        headline=_headline(finetuned),
        facts=facts_html(_facts(finetuned, card)),
        warnings=_warnings(finetuned.warnings),
        results=table_html(gains_table(finetuned), "Before and after, in dB"),
        cases="".join(map(case_html, _cases(finetuned))),
        learning=table_html(_checks(finetuned), "Checks while it learnt"),
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
        cells += [f"{before:.1f}", f"{after:.1f}", f"{after - before:+.1f}"]
    return tuple(cells)


def _headline(finetuned: Finetuned) -> str:
    total = finetuned.gains[0]
    before, after = total.before[MEASURES[0]], total.after[MEASURES[0]]
    return (
        f"<strong>{number_html(f'{after - before:+.1f}')}&nbsp;dB</strong> SI-SDR: from "
        f"{number_html(f'{before:.1f}')} to {number_html(f'{after:.1f}')}&nbsp;dB, mean over the "
        "prompts."
    )


def _facts(finetuned: Finetuned, card: Card) -> Mapping[str, str]:
    tuning, best = finetuned.options.tuning, finetuned.tuned.best
    num_songs = len(finetuned.learnt_from)
    what = _WHAT[tuning.what] + (f" of rank {tuning.rank}" if tuning.what == "lora" else "")
    return {
        "learnt from": f"{num_songs}: {escape(in_brief(finetuned.learnt_from))}",
        "held back": f"{len(finetuned.held_back)}: {escape(in_brief(finetuned.held_back))}",
        "what learnt": f"{escape(what)}: {finetuned.tuned.num_learning:,} numbers",
        "steps": f"{best.step} of {finetuned.checks[-1].step} kept",
        "learning rate": f"{tuning.rate:g}",
        "licence": escape(card.licence),
        "time": escape(duration_text(finetuned.seconds)),
    }


def _warnings(warnings: Sequence[str]) -> str:
    lines = "".join(f"<li>{escape(warning)}</li>" for warning in warnings)
    return f'<ul class="warnings" aria-label="Warnings">{lines}</ul>' if lines else ""


def _checks(finetuned: Finetuned) -> Table:
    rows = tuple(
        TableRow(
            (
                f"after {check.step} steps",
                f"{check.score:.2f}",
                "" if check.loss is None else f"{check.loss:.2f}",
                "kept" if check == finetuned.tuned.best else "",
            )
        )
        for check in finetuned.checks
    )
    note = f"Measured on {finetuned.num_chosen_by} pieces of the songs held back."
    return Table(("check", "SI-SDR (dB)", "mean loss (dB)", ""), rows, notes=(note,))


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
    peak = max(float(sound.abs().max()) for sound in sounds)
    gain = _LOUDEST / peak if peak > 0 else 1.0
    waveforms = [Waveform(sound * gain, item.mixture.sample_rate) for sound in sounds]
    labels = ("Mixture", "Before", "After", "Reference")
    values = [
        result.sources[place].value(MEASURES[0])
        for result in (piece.before_result, piece.after_result)
    ]
    return Case(
        title=f"{stem_names(item.prompts)[place]}: {item.name}",
        text=(
            f"SI-SDR: {values[0]:.1f} dB before, {values[1]:.1f} dB after. "
            "All sounds are louder or softer by the same gain."
        ),
        sounds=tuple(map(playable, labels, waveforms)),
        picture=spectrogram_png(list(zip(labels, waveforms, strict=True))),
    )
