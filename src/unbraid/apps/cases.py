"""Single sources of an evaluation to listen to: which ones, and what there is to hear and see."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.apps.pictures import spectrogram_png
from unbraid.audio import AudioFormat, write
from unbraid.dsp.resample import resample
from unbraid.evaluation.items import Item
from unbraid.evaluation.measures import merit
from unbraid.evaluation.results import ItemResult, Run, SourceResult
from unbraid.evaluation.tables import Table, values_table
from unbraid.types import Waveform

_LONGEST_S = 12.0
#: Steps in which the stretch to show is searched.
_STEP_S = 0.1
#: Where the highest peak of all sounds of a case is brought to.
_PEAK = 0.7
#: Silence stays silence, and rounding noise is not blown up.
_HIGHEST_GAIN_DB = 40.0
_KBPS_PER_CHANNEL = 128


@dataclass(frozen=True)
class Sound:
    """Something to play.

    Attributes:
        label: What it is.
        content: A whole audio file.
        mime: Of which kind.
    """

    label: str
    content: bytes
    mime: str


@dataclass(frozen=True)
class Case:
    """One source of one mixture, to listen to and look at.

    Attributes:
        title: The mixture and the source.
        text: What to know about it, in a few sentences.
        sounds: Mixture, estimate and reference.
        picture: Their spectrograms as a PNG; None for none.
        numbers: What was measured of it; None for nothing.
        is_best: Whether it stands among the best ones, not the worst.
    """

    title: str
    text: str
    sounds: tuple[Sound, ...]
    picture: bytes | None = None
    numbers: Table | None = None
    is_best: bool = False


@dataclass(frozen=True)
class Choice:
    """A source that is worth listening to.

    Attributes:
        item: Name of its mixture.
        stem: Its own name.
        is_best: Whether it was chosen as one of the best, not of the worst.
    """

    item: str
    stem: str
    is_best: bool


def choose_cases(run: Run, num_worst: int = 4, num_best: int = 2) -> tuple[Choice, ...]:
    """The worst sources of a run by its leading measure, the worst first, then the best.

    Each mixture is chosen once at most, and sources for which the measure is not defined are
    not. Where there are few mixtures the worst come first.
    """
    measure = run.info.measures[0]
    ranked = sorted(
        (
            (merit(measure, source.value(measure)), item.item, source.stem)
            for item in run.items
            for source in item.sources
            if not math.isnan(source.value(measure))
        ),
        key=lambda entry: entry[0],
    )
    taken: set[str] = set()
    choices = []
    for entries, number, is_best in ((ranked, num_worst, False), (ranked[::-1], num_best, True)):
        wanted = len(taken) + number
        for _, item, stem in entries:
            if len(taken) < wanted and item not in taken:
                taken.add(item)
                choices.append(Choice(item, stem, is_best))
    return tuple(choices)


def make_case(
    item: Item,
    estimates: Float[Tensor, "source channel time"],
    result: ItemResult,
    stem: str | None = None,
    *,
    is_best: bool = False,
) -> Case:
    """Prepare one source for the page.

    At most 12 seconds are shown: where the error is loudest, or, of a best case, where the
    reference is. All sounds are louder or softer by the same gain, so that they can be
    compared with each other; the text says by how much.

    Args:
        item: The mixture and its references.
        estimates: In the order of the references.
        result: What was measured.
        stem: Which source; None for the worst by the first measure.
        is_best: Whether it shows what went well.
    """
    stems = [source.stem for source in result.sources]
    position = _worst(result.sources) if stem is None else stems.index(stem)
    source = result.sources[position]
    reference, estimate = item.references[position].cpu(), estimates[position].cpu()
    mixture, rate = item.mixture.samples.cpu(), item.mixture.sample_rate
    stretch = loudest_stretch(reference if is_best else estimate - reference, rate)
    sounds = [sound[:, stretch] for sound in (mixture, estimate, reference)]
    gain_db = _gain_db(sounds)
    waveforms = [Waveform(sound * 10 ** (gain_db / 20), rate) for sound in sounds]
    labels = ("Mixture", "Estimate", "Reference")
    return Case(
        title=f"{item.name}: {source.stem}",
        text=_text(item, stretch, gain_db),
        sounds=tuple(map(playable, labels, waveforms)),
        picture=spectrogram_png(list(zip(labels, waveforms, strict=True))),
        numbers=values_table(source),
        is_best=is_best,
    )


def loudest_stretch(sound: Float[Tensor, "channel time"], sample_rate: int) -> slice:
    """The 12 seconds with the most power, or everything if it is no longer; samples."""
    num_samples, length = sound.shape[-1], round(_LONGEST_S * sample_rate)
    if num_samples <= length:
        return slice(0, num_samples)
    step = max(1, round(_STEP_S * sample_rate))
    sums = torch.nn.functional.pad(sound.double().square().sum(dim=0).cumsum(dim=0), (1, 0))
    starts = torch.arange(0, num_samples - length + 1, step)
    start = int(starts[(sums[starts + length] - sums[starts]).argmax()])
    return slice(start, start + length)


def _worst(sources: Sequence[SourceResult]) -> int:
    """The position of the source with the worst first measure; the first one if none is defined."""

    def badness(position: int) -> float:
        source = sources[position]
        measure = next(iter(source.estimate), "")
        value = source.value(measure)
        return math.inf if math.isnan(value) else merit(measure, value)

    return min(range(len(sources)), key=badness)


def _gain_db(sounds: Sequence[Float[Tensor, "channel time"]]) -> float:
    """How much louder the sounds of a case are made, all of them alike."""
    peak = max((float(sound.abs().amax()) for sound in sounds if sound.numel()), default=0.0)
    if peak == 0:
        return 0.0
    return min(20 * math.log10(_PEAK / peak), _HIGHEST_GAIN_DB)


def _text(item: Item, stretch: slice, gain_db: float) -> str:
    rate, num_samples = item.mixture.sample_rate, item.mixture.num_samples
    sentences = [f"Part: {item.part}."] if item.part else []
    sentences.append(f"Asked for: {', '.join(item.prompts)}.")
    if stretch.stop - stretch.start < num_samples:
        begin, end, whole = (
            _clock(samples / rate) for samples in (stretch.start, stretch.stop, num_samples)
        )
        sentences.append(f"Shown: {begin} to {end} of {whole}; measured: all of it.")
    if abs(gain_db) >= 1:
        louder = "louder" if gain_db > 0 else "softer"
        sentences.append(f"All three sounds are {abs(gain_db):.0f} dB {louder} than in the files.")
    return " ".join(sentences)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def playable(label: str, waveform: Waveform) -> Sound:
    """A sound as an mp3: small enough to stand in a page, and every browser plays it."""
    samples = waveform.samples
    if len(samples) > 2:
        samples = samples.mean(dim=0, keepdim=True)
    audio_format = AudioFormat("mp3", "MPEG_LAYER_III", _KBPS_PER_CHANNEL * len(samples))
    rate = audio_format.rate_for(waveform.sample_rate)
    with TemporaryDirectory(prefix="unbraid-") as folder:
        path = Path(folder) / "sound.mp3"
        resampled = resample(samples, waveform.sample_rate, rate)
        write(path, Waveform(resampled, rate), audio_format)
        return Sound(label, path.read_bytes(), "audio/mpeg")
