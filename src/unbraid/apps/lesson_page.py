"""The page about a prompt that was taught: how well it works, to read and to listen to."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from statistics import fmean, median

from unbraid.apps.cases import Case
from unbraid.apps.learning_page import before_and_after, checks_table, render_learning_page
from unbraid.apps.lesson_plan import Example
from unbraid.apps.report_page import duration_text, number_html
from unbraid.apps.teach import Lesson, gain_error_db
from unbraid.checkpoints.prompt_files import BACKGROUND, MODEL_NAME
from unbraid.errors import in_brief
from unbraid.evaluation.tables import Table, TableRow


def render_lesson_page(lesson: Lesson) -> str:
    """Write the page: one file that needs no other, no network and no scripts."""
    name = lesson.prompt.name
    return render_learning_page(
        title=f"{name}: a taught prompt",
        eyebrow=f"A prompt for {lesson.prompt.provenance.get(MODEL_NAME, '')}",
        name=name,
        headline=_headline(lesson),
        facts=_facts(lesson),
        warnings=lesson.warnings,
        results=_results(lesson),
        results_caption="SI-SDR improvement over the mixture, in dB; ± one standard error",
        about_cases=_about(lesson),
        cases=_cases(lesson),
        checks=checks_table(
            lesson.checks,
            lesson.best,
            ("SI-SDR improvement (dB)", "mean loss"),
            ("+.2f", ".3f"),
        ),
    )


def _headline(lesson: Lesson) -> str:
    before, after = f"{lesson.before_db:+.1f}", f"{lesson.after_db:+.1f}"
    levels = (median(lesson.absent_after_db), max(lesson.absent_after_db))
    middle, worst = (number_html(f"{level:.1f}") for level in levels)
    earlier = number_html(f"{median(lesson.absent_before_db):.1f}")
    verdict = lesson.verdict[:1].upper() + lesson.verdict[1:]
    return (
        f"<strong>{number_html(after)}&nbsp;dB</strong> SI-SDR over the mixture, "
        f"{number_html(before)}&nbsp;dB before it learnt. {escape(verdict)} (standard error). "
        f"Where the sound is absent, its stem lies at {middle}&nbsp;dB relative to the mixture in "
        f"the median, at {worst}&nbsp;dB at worst (median before: {earlier}&nbsp;dB)."
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
        "ended": escape(lesson.ended),
    }


def _results(lesson: Lesson) -> Table:
    groups: dict[str, list[Example]] = {}
    for example in lesson.examples:
        groups.setdefault(" + ".join(example.background), []).append(example)
    groups["all"] = list(lesson.examples)
    rows = []
    for title, examples in groups.items():
        before = fmean(example.before_db for example in examples)
        after = fmean(example.after_db for example in examples)
        gain = f"{after - before:+.1f} ± {gain_error_db(examples):.1f}"
        cells = (str(len(examples)), f"{before:+.1f}", f"{after:+.1f}", gain)
        rows.append(TableRow((f"beside {title}" if title != "all" else "all", *cells)))
    return Table(("mixtures", "number", "before", "after", "gain"), tuple(rows))


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
    sounds = (example.mixture, example.before, example.after, example.reference)
    return before_and_after(
        f"{lesson.prompt.name} beside {' + '.join(background)}",
        f"SI-SDR improvement: {example.before_db:+.1f} dB before, {example.after_db:+.1f} dB "
        "after.",
        [sound[None] for sound in sounds],
        lesson.clips.sample_rate,
    )
