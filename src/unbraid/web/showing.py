"""What the page shows, as HTML and plain data; nothing here knows Gradio."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from unbraid._version import __version__
from unbraid.apps.charts import minus
from unbraid.downloads import size_in_words
from unbraid.web.choices import MOST_REPEATS, ModelChoice, PromptChoice
from unbraid.web.files import ARCHIVE, address
from unbraid.web.options import WebOptions
from unbraid.web.separating import MIXTURE, Separated
from unbraid.web.teaching import Taught
from unbraid.web.visitors import Upload, Visitor
from unbraid.web.working import HowFar, clock

_NO_NAMES = (
    "This model knows no sound by name. Show it one: open \u201cTeach it a sound\u201d below, "
    "bring clips, and choose \u201cAsk by example\u201d or \u201cTeach\u201d."
)


def header_html(options: WebOptions) -> str:
    """The top of the page."""
    limits = f"Up to {options.max_minutes:g} minutes and {size_in_words(_bytes(options))}."
    return f"""<header class="ub-top">
  <h1>unbraid</h1>
  <p>Separate any recording into the sources you name. {escape(limits)}
  Your files stay on the machine that runs this page, and are removed when you leave it.</p>
</header>"""


def footer_html() -> str:
    """The bottom of the page."""
    return f'<footer class="ub-bottom"><p>unbraid {escape(__version__)}, Apache-2.0</p></footer>'


def heading_html(text: str, level: int = 2) -> str:
    """A heading."""
    return f"<h{level}>{escape(text)}</h{level}>"


def progress_html(report: HowFar | None) -> str:
    """A bar with words; nothing while nothing is done."""
    if report is None:
        return ""
    words = report.amount
    if report.left_s is not None:
        words += f", about {clock(report.left_s + 1)} left"
    value = "" if report.share is None else f' aria-valuenow="{100 * report.share:.0f}"'
    width = "" if report.share is None else f' style="width:{100 * report.share:.1f}%"'
    kind = " ub-unknown" if report.share is None else ""
    return f"""<div class="ub-progress">
  <p><strong role="status">{escape(report.doing)}</strong> <span>{escape(words)}</span></p>
  <div class="ub-bar{kind}" role="progressbar" aria-label="{escape(report.doing)}"
    aria-valuemin="0" aria-valuemax="100"{value}><i{width}></i></div>
</div>"""


def message_html(text: str, *, is_error: bool = False) -> str:
    """A message that screen readers say at once."""
    kind, role = ("ub-error", "alert") if is_error else ("ub-told", "status")
    return f'<p class="ub-message {kind}" role="{role}">{escape(text)}</p>'


def upload_html(upload: Upload) -> str:
    """What a recording is, in a line, and what is odd about it."""
    info = upload.info
    channels = {1: "mono", 2: "stereo"}.get(info.num_channels, f"{info.num_channels} channels")
    kind = "video" if info.has_video else "audio"
    facts = f"{clock(info.duration_s)}, {channels}, {info.sample_rate / 1000:g} kHz, {kind}"
    warnings = "".join(f"<p>{escape(text)}</p>" for text in info.warnings)
    return f"""<div class="ub-message ub-told" role="status">
  <p><strong>{escape(upload.name)}</strong> <span>{escape(facts)}</span></p>{warnings}</div>"""


def model_html(model: ModelChoice, options: WebOptions) -> str:
    """What a model is and under which licence."""
    link = ""
    if model.source.startswith("https://"):
        source = escape(model.source, quote=True)
        link = f' <a href="{source}" target="_blank" rel="noopener">Where it comes from</a>'
    away = ""
    if not model.is_here and not (model.can_be_fetched and options.may_download):
        away = f"<p>It is not here: {escape(model.how_to_get)}</p>"
    return f"""<div class="ub-model"><p><strong>Licence: {escape(model.licence)}.</strong>
  {escape(model.about)}{link}</p>{away}</div>"""


def models_value(models: Iterable[ModelChoice], chosen: str) -> dict[str, Any]:
    """What the list of models is drawn from; it comes back with the visitor's choice."""
    rows = [{"name": model.name, "label": model.label} for model in models]
    return {"models": rows, "chosen": chosen}


def chosen_model(value: Any) -> str:
    """The model that was chosen, from what the list of models has sent; it may be any text."""
    chosen = value.get("chosen") if isinstance(value, dict) else None
    return chosen if isinstance(chosen, str) else ""


def picker_value(prompts: Sequence[PromptChoice], note: str = "") -> dict[str, Any]:
    """What the list of prompts is drawn from; it comes back with the visitor's counts."""
    return {
        "prompts": [
            {"name": each.name, "about": each.about, "most": each.most, "count": each.count}
            for each in prompts
        ],
        "note": note or ("" if prompts else _NO_NAMES),
    }


def picked_counts(value: Any) -> dict[str, int]:
    """Prompt → how often it is asked for, from what the list of prompts has sent.

    The page may send anything, so what makes no sense is left out.
    """
    rows = value.get("prompts", []) if isinstance(value, dict) else []
    counts = {
        row["name"]: row["count"]
        for row in rows
        if isinstance(row, dict)
        and isinstance(row.get("name"), str)
        and isinstance(row.get("count"), int)
    }
    return {name: min(count, MOST_REPEATS) for name, count in counts.items() if count > 0}


def mixer_value(found: Separated, visitor: Visitor) -> dict[str, Any]:
    """What the mixer is drawn from."""

    def where(name: str) -> str:
        return address(visitor.token, name)

    return {
        "duration_s": found.duration_s,
        "tracks": [
            {
                "name": track.name,
                "sound": where(track.sound),
                "picture": where(track.picture),
                "download": where(track.download) if track.download else "",
                "file": track.download,
                "size_bytes": track.size_bytes,
                "level_dbfs": track.level_dbfs,
                "score": track.score,
                "intervals": [list(interval) for interval in track.intervals],
            }
            for track in found.tracks
        ],
    }


def separated_html(found: Separated, visitor: Visitor) -> str:
    """What stands above the mixer: what came out, the zip, and what the visitor should know."""
    stems = [track for track in found.tracks if track.name != MIXTURE]
    size = size_in_words(sum(track.size_bytes for track in stems))
    warnings = "".join(f"<li>{escape(text)}</li>" for text in found.warnings)
    warned = f'<ul class="ub-warnings">{warnings}</ul>' if warnings else ""
    left_over = ""
    if found.left_over_db is not None:
        left_over = f" Left over: {minus(f'{found.left_over_db:.1f}')} dB of the mixture."
    return f"""<div class="ub-result">
  <p role="status"><strong>{escape(found.recording)}</strong> is separated into {len(stems)}
  {"stem" if len(stems) == 1 else "stems"}.{left_over}</p>
  <p><a class="ub-button" {_download(visitor, ARCHIVE)}>Download all, {size}</a></p>
  {warned}
  <details><summary>The same on the command line</summary>
  <code>{escape(found.command)}</code></details>
</div>"""


def taught_html(taught: Taught, visitor: Visitor) -> str:
    """What came of a lesson."""
    prompt, report = (_download(visitor, path.name) for path in (taught.prompt, taught.report))
    warnings = "".join(f"<li>{escape(text)}</li>" for text in taught.warnings)
    warned = f'<ul class="ub-warnings">{warnings}</ul>' if warnings else ""
    clips = f"{taught.num_clips} clip{'' if taught.num_clips == 1 else 's'}"
    return f"""<div class="ub-message ub-told" role="status">
  <p><strong>{escape(taught.name)}</strong> is learnt from {clips} and ticked above. It lifts the
  sound by {minus(f"{taught.after_db:.1f}")} dB SI-SDR over the mixture;
  before, it was {minus(f"{taught.before_db:.1f}")} dB ({escape(minus(taught.verdict))}).</p>
  <p><a class="ub-button" {prompt}>Download the prompt</a>
  <a class="ub-button" {report}>Download the report</a></p>
  {warned}</div>"""


def _download(visitor: Visitor, name: str) -> str:
    """What makes a link a download."""
    return f'href="{escape(address(visitor.token, name))}" download="{escape(name)}"'


def _bytes(options: WebOptions) -> int:
    return round(options.max_size_mb * 1e6)
