"""The page about a prompt that was taught: how well it works, to read and to listen to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from statistics import fmean

from unbraid.apps.cases import Case, playable
from unbraid.apps.pictures import spectrogram_png
from unbraid.apps.report_page import (
    case_html,
    duration_text,
    facts_html,
    number_html,
    render_template,
    table_html,
)
from unbraid.apps.teach import Example, Lesson
from unbraid.checkpoints.prompt_files import BACKGROUND, MODEL_NAME
from unbraid.errors import in_brief
from unbraid.evaluation.tables import Table, TableRow
from unbraid.types import Waveform

_LOUDEST = 0.5


def render_lesson_page(lesson: Lesson) -> str:
    """Write the page: one file that needs no other, no network and no scripts."""
    name = lesson.prompt.name
    return render_template(
        "lesson_page.html",
        title=escape(f"{name}: a taught prompt"),
        model=escape(str(lesson.prompt.provenance.get(MODEL_NAME, ""))),
        prompt=escape(name),
        headline=_headline(lesson),
        facts=facts_html(_facts(lesson)),
        warnings=_warnings(lesson.warnings),
        results=table_html(_results(lesson), "SI-SDR improvement over the mixture, in dB"),
        about_cases=escape(_about(lesson)),
        cases="".join(map(case_html, _cases(lesson))),
        learning=table_html(_checks(lesson), "Checks while it learnt"),
    )


def _headline(lesson: Lesson) -> str:
    before, after = f"{lesson.before_db:+.1f}", f"{lesson.after_db:+.1f}"
    absent = (f"{lesson.absent_before_db:.1f}", f"{lesson.absent_after_db:.1f}")
    return (
        f"<strong>{number_html(after)}&nbsp;dB</strong> SI-SDR over the mixture, "
        f"{number_html(before)}&nbsp;dB before it learnt. Where the sound is absent, its "
        f"stem lies at {number_html(absent[1])}&nbsp;dB relative to the mixture "
        f"({number_html(absent[0])}&nbsp;dB before)."
    )


def _facts(lesson: Lesson) -> Mapping[str, str]:
    clips = lesson.clips
    seconds = sum(clips.seconds(clip) for clip in clips.clips)
    names = in_brief(clip.path.name for clip in clips.clips)
    vectors, dim = lesson.prompt.vectors.shape
    return {
        "clips": f"{len(clips.clips)} ({duration_text(seconds)}): {escape(names)}",
        "held back for the check": str(lesson.num_held_back) if lesson.num_held_back else "none",
        "began as": escape(lesson.start),
        "numbers learnt": f"{vectors * dim:,}",
        "mixed with": escape(str(lesson.prompt.provenance.get(BACKGROUND, ""))),
        "time": escape(duration_text(lesson.seconds)),
    }


def _warnings(warnings: Sequence[str]) -> str:
    lines = "".join(f"<li>{escape(warning)}</li>" for warning in warnings)
    return f'<ul class="warnings" aria-label="Warnings">{lines}</ul>' if lines else ""


def _results(lesson: Lesson) -> Table:
    groups: dict[str, list[Example]] = {}
    for example in lesson.examples:
        groups.setdefault(" + ".join(example.background), []).append(example)
    groups["all"] = list(lesson.examples)
    rows = []
    for title, examples in groups.items():
        before = fmean(example.before_db for example in examples)
        after = fmean(example.after_db for example in examples)
        cells = (str(len(examples)), f"{before:+.1f}", f"{after:+.1f}", f"{after - before:+.1f}")
        rows.append(TableRow((f"beside {title}" if title != "all" else "all", *cells)))
    return Table(("mixtures", "number", "before", "after", "gain"), tuple(rows))


def _checks(lesson: Lesson) -> Table:
    rows = tuple(
        TableRow(
            (
                f"after {check.step} steps",
                f"{check.score:+.2f}",
                "" if check.loss is None else f"{check.loss:.3f}",
                "kept" if check == lesson.best else "",
            )
        )
        for check in lesson.checks
    )
    return Table(("check", "SI-SDR improvement (dB)", "mean loss", ""), rows)


def _about(lesson: Lesson) -> str:
    seen = (
        "that were held back from learning"
        if lesson.num_held_back
        else "that it also learnt from, since there was one clip only"
    )
    return (
        f"One mixture with each kind of background, of clips {seen}: the one whose improvement "
        "lies in the middle."
    )


def _cases(lesson: Lesson) -> list[Case]:
    groups: dict[tuple[str, ...], list[Example]] = {}
    for example in lesson.examples:
        groups.setdefault(example.background, []).append(example)
    cases = []
    for background, examples in groups.items():
        ordered = sorted(examples, key=lambda example: example.after_db)
        cases.append(_case(lesson, background, ordered[len(ordered) // 2]))
    return cases


def _case(lesson: Lesson, background: tuple[str, ...], example: Example) -> Case:
    rate = lesson.clips.sample_rate
    sounds = (example.mixture, example.before, example.after, example.reference)
    peak = max(float(sound.abs().max()) for sound in sounds)
    gain = _LOUDEST / peak if peak > 0 else 1.0
    waveforms = [Waveform((sound * gain)[None], rate) for sound in sounds]
    labels = ("Mixture", "Before", "After", "Reference")
    return Case(
        title=f"{lesson.prompt.name} beside {' + '.join(background)}",
        text=(
            f"SI-SDR improvement: {example.before_db:+.1f} dB before, {example.after_db:+.1f} dB "
            "after. All sounds are louder or softer by the same gain."
        ),
        sounds=tuple(map(playable, labels, waveforms)),
        picture=spectrogram_png(list(zip(labels, waveforms, strict=True))),
    )
