"""The page of the demo: HTML to listen to, from numbers to text, without touching files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template

_TEMPLATE = Path(__file__).with_name("assets") / "demo_page.html"


@dataclass(frozen=True)
class PageSource:
    """One source as the page shows it.

    Attributes:
        name: Stem name; also the beginning of its file names.
        description: What is to be heard.
        before_db: SI-SDR of the mixture.
        after_db: SI-SDR of the estimate.
    """

    name: str
    description: str
    before_db: float
    after_db: float


@dataclass(frozen=True)
class PageScene:
    """One scene as the page shows it.

    Attributes:
        folder: Folder of its files, relative to the page.
        prompts: What the model was asked for.
        title: Headline.
        description: A sentence or two.
        duration_s: Length of the audio.
        elapsed_s: How long the separation took.
        sources: Its sources in order.
    """

    folder: str
    prompts: tuple[str, ...]
    title: str
    description: str
    duration_s: float
    elapsed_s: float
    sources: tuple[PageSource, ...]


def format_db(level_db: float, *, signed: bool = False) -> str:
    """One decimal, with a typographic minus sign; ``signed`` adds a plus where there is none.

    >>> format_db(3.16), format_db(4.0, signed=True), format_db(-0.04)
    ('3.2', '+4.0', '0.0')
    """
    rounded = round(level_db, 1) + 0.0  # adding 0.0 turns -0.0 into 0.0
    return f"{rounded:{'+' if signed else ''}.1f}".replace("-", "\N{MINUS SIGN}")


def render_page(scenes: Sequence[PageScene], *, num_parameters: int) -> str:
    """Write the page: one file that needs nothing but the sounds and pictures beside it.

    Args:
        scenes: What to show, from top to bottom.
        num_parameters: Size of the model, for the introduction.
    """
    duration_s = sum(scene.duration_s for scene in scenes)
    elapsed_s = sum(scene.elapsed_s for scene in scenes)
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        parameters=f"{num_parameters / 1e6:.2f}",
        duration=f"{duration_s:.0f}",
        elapsed=f"{elapsed_s:.1f}",
        scenes="\n".join(_scene(scene) for scene in scenes),
    )


def _scene(scene: PageScene) -> str:
    folder, title = escape(scene.folder), escape(scene.title)
    names = ", ".join(escape(source.name) for source in scene.sources)
    asked_for = ", ".join(f"<code>{escape(prompt)}</code>" for prompt in scene.prompts)
    return f"""
<section aria-labelledby="{folder}">
  <h2 id="{folder}">{title}</h2>
  <p>{escape(scene.description)} Asked for: {asked_for}.</p>
  <figure class="mixture">
    <figcaption>The mixture, all that the model hears</figcaption>
    <audio controls preload="metadata" src="{folder}/mixture.wav"
      aria-label="{title}: mixture"></audio>
  </figure>
  <div class="wide" tabindex="0" role="region" aria-label="{title}: all spectrograms">
    <img src="{folder}/overview.png" loading="lazy"
      alt="Spectrograms side by side: the mixture, then the estimates of {names}.">
  </div>
  <div class="wide" tabindex="0" role="region" aria-label="{title}: measurements">
    {_table(scene.sources)}
  </div>
{"".join(_source(scene, source) for source in scene.sources)}
</section>"""


def _table(sources: Sequence[PageSource]) -> str:
    rows = "".join(
        f"""
      <tr><th scope="row">{escape(source.name)}</th>
        <td>{format_db(source.before_db)}</td>
        <td>{format_db(source.after_db)}</td>
        <td>{format_db(source.after_db - source.before_db, signed=True)}</td></tr>"""
        for source in sources
    )
    return f"""<table>
      <caption>SI-SDR in dB, higher is better</caption>
      <thead><tr><th scope="col">Source</th><th scope="col">Before</th>
        <th scope="col">After</th><th scope="col">Gain</th></tr></thead>
      <tbody>{rows}
      </tbody>
    </table>"""


def _source(scene: PageScene, source: PageSource) -> str:
    panels = "".join(
        _panel(scene, source.name, role, caption)
        for role, caption in (
            ("estimate", "Estimate, what came out"),
            ("reference", "Reference, what went in"),
        )
    )
    return f"""
  <h3>{escape(source.name)}</h3>
  <p>{escape(source.description)}</p>
  <div class="pair">{panels}
  </div>"""


def _panel(scene: PageScene, name: str, role: str, caption: str) -> str:
    stem = f"{escape(scene.folder)}/{escape(name)}-{role}"
    label = f"{escape(scene.title)}: {escape(name)}, {role}"
    return f"""
    <figure>
      <figcaption>{caption}</figcaption>
      <audio controls preload="metadata" src="{stem}.wav" aria-label="{label}"></audio>
      <img src="{stem}.png" loading="lazy" alt="Spectrogram. {label}.">
    </figure>"""
