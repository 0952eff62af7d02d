"""What the pages about learning share: a prompt that was taught, a model that was tuned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from jaxtyping import Float
from torch import Tensor

from unbraid.apps.cases import Case, playable
from unbraid.apps.pictures import spectrogram_png
from unbraid.apps.report_page import case_html, facts_html, render_template, table_html
from unbraid.evaluation.tables import Table, TableRow
from unbraid.training.methods.checked_learning import Check
from unbraid.types import Waveform

_LOUDEST = 0.5
_LABELS = ("Mixture", "Before", "After", "Reference")


def render_learning_page(
    *,
    title: str,
    eyebrow: str,
    name: str,
    headline: str,
    facts: Mapping[str, str],
    warnings: Sequence[str],
    results: Table,
    results_caption: str,
    about_cases: str,
    cases: Sequence[Case],
    checks: Table,
) -> str:
    """Write the page: one file that needs no other, no network and no scripts.

    Args:
        title: Of the page.
        eyebrow: What stands above the name.
        name: Of what learnt.
        headline: What came of it in a sentence, as HTML.
        facts: Words and what they stand for, the latter as HTML.
        warnings: What is odd.
        results: Before and after.
        results_caption: What the results are.
        about_cases: Which ones there are to listen to.
        cases: What there is to listen to.
        checks: The checks while it learnt, see ``checks_table``.
    """
    lines = "".join(f"<li>{escape(warning)}</li>" for warning in warnings)
    return render_template(
        "learning_page.html",
        title=escape(title),
        eyebrow=escape(eyebrow),
        learner=escape(name),
        headline=headline,
        facts=facts_html(facts),
        warnings=f'<ul class="warnings" aria-label="Warnings">{lines}</ul>' if lines else "",
        results=table_html(results, results_caption),
        about_cases=escape(about_cases),
        cases="".join(map(case_html, cases)),
        learning=table_html(checks, "Checks while it learnt"),
    )


def checks_table(
    checks: Sequence[Check],
    best: Check,
    headers: tuple[str, str],
    formats: tuple[str, str],
    notes: tuple[str, ...] = (),
) -> Table:
    """The checks while something learnt, and which one was kept.

    Args:
        checks: All of them, in order.
        best: The one that was kept.
        headers: Of score and loss.
        formats: How these are written, as after the colon of an f-string.
        notes: What to say below.
    """
    score_format, loss_format = formats
    rows = tuple(
        TableRow(
            (
                f"after {check.step} steps",
                format(check.score, score_format),
                "" if check.loss is None else format(check.loss, loss_format),
                "kept" if check == best else "",
            )
        )
        for check in checks
    )
    return Table(("check", *headers, ""), rows, notes=notes)


def before_and_after(
    title: str, text: str, sounds: Sequence[Float[Tensor, "channel time"]], sample_rate: int
) -> Case:
    """Mixture, estimates before and after, and reference if there is one, to hear and to see.

    Args:
        title: The mixture and the source.
        text: What was measured; that all sounds have the same gain is added.
        sounds: These four or three, in this order; they are made as loud as each other's peaks
            allow.
        sample_rate: Of all of them.
    """
    peak = max(float(sound.abs().max()) for sound in sounds)
    gain = _LOUDEST / peak if peak > 0 else 1.0
    waveforms = [Waveform(sound * gain, sample_rate) for sound in sounds]
    labels = _LABELS[: len(waveforms)]
    return Case(
        title=title,
        text=f"{text} All sounds are louder or softer by the same gain.",
        sounds=tuple(map(playable, labels, waveforms)),
        picture=spectrogram_png(list(zip(labels, waveforms, strict=True))),
    )
