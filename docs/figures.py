"""Draw the figures of the concepts from real sounds and real computations.

The sounds are the scene of the demo, the model is the one that ships:

    python docs/figures.py                 # all of them, into docs/images/concepts
    python docs/figures.py chunks loss     # some

Figures have no background, and inks that are legible on white as on black.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator
from PIL import Image
from torch import Tensor

import unbraid
from unbraid.apps.demo import SCENES, mix_scene
from unbraid.apps.separator import Separator
from unbraid.dsp.bands import bs_roformer_bands, mel_bands
from unbraid.dsp.levels import power_db
from unbraid.dsp.log_spectrogram import HIGHEST_HZ, LOWEST_HZ, log_spectrogram_db
from unbraid.dsp.masks import wiener_like_masks
from unbraid.dsp.overlap_add import trapezoid
from unbraid.dsp.stft import StftConfig, stft
from unbraid.evaluation.oracles import oracle_estimates
from unbraid.objectives.losses import SnrLossConfig, thresholded_snr_loss
from unbraid.objectives.measures import si_sdr_db
from unbraid.separation.chunking import make_plan
from unbraid.types import Waveform

FOLDER = Path(__file__).parent / "images" / "concepts"
SCENE = SCENES[0]
RATE = 48_000

#: Contrast above 3.5 on white and on the dark page alike.
INK = "#7b8594"
COLOURS = ("#0e9f8e", "#f4622c", "#8a6fe8", "#c98a00", "#2f8fe0")
SPECTROGRAM = "magma"
RANGE_DB = (-90.0, -10.0)


# ------------------------------------------------------------------ canvas


def canvas(width: float, height: float) -> Figure:
    """An empty figure, in inches."""
    return Figure(figsize=(width, height), dpi=130, layout="constrained")


def styled(axis: Axes, title: str = "", x: str = "", y: str = "") -> Axes:
    """Give an axis its words, in inks for every background."""
    axis.set_title(title, color=INK, fontsize=10)
    axis.set_xlabel(x, color=INK, fontsize=9)
    axis.set_ylabel(y, color=INK, fontsize=9)
    axis.tick_params(colors=INK, labelsize=8)
    axis.patch.set_alpha(0.0)
    for spine in axis.spines.values():
        spine.set_color(INK)
        spine.set_linewidth(0.7)
    return axis


def legend(axis: Axes, **options: object) -> None:
    """A legend without a box."""
    axis.legend(frameon=False, labelcolor=INK, fontsize=8, **options)


def save(figure: Figure, name: str) -> Path:
    """Write a small PNG: 256 colours are enough for all of it."""
    buffer = BytesIO()
    figure.savefig(buffer, transparent=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{name}.png"
    image = Image.open(buffer).convert("RGBA")
    image.quantize(256, method=Image.Quantize.FASTOCTREE).save(path, optimize=True)
    return path


def show_log_spectrogram(axis: Axes, samples: Float[Tensor, "time"], title: str) -> None:
    """A spectrogram with frequency on a logarithmic axis."""
    rows = log_spectrogram_db(Waveform(samples[None], RATE)).T
    duration_s = len(samples) / RATE
    axis.imshow(
        rows.numpy(),
        origin="lower",
        aspect="auto",
        extent=(0, duration_s, 0, 1),
        cmap=SPECTROGRAM,
        vmin=RANGE_DB[0],
        vmax=RANGE_DB[1],
    )
    ticks_hz = (100, 1000, 10_000)
    span = torch.tensor(HIGHEST_HZ / LOWEST_HZ).log()
    axis.set_yticks(
        [float((torch.tensor(hz / LOWEST_HZ)).log() / span) for hz in ticks_hz],
        ["100 Hz", "1 kHz", "10 kHz"],
    )
    styled(axis, title, "seconds")


def show_bins(
    axis: Axes,
    values: Float[Tensor, "frame bin"],
    duration_s: float,
    top_hz: float,
    title: str,
    *,
    limits: tuple[float, float] = RANGE_DB,
    colours: str = SPECTROGRAM,
) -> None:
    """One number for each bin, with frequency as it is."""
    shown = values[:, : round(values.shape[1] * top_hz / (RATE / 2))]
    axis.imshow(
        shown.T.numpy(),
        origin="lower",
        aspect="auto",
        extent=(0, duration_s, 0, top_hz / 1000),
        cmap=colours,
        vmin=limits[0],
        vmax=limits[1],
        interpolation="antialiased",
    )
    styled(axis, title, "seconds", "kHz")


def level_db(spectrogram: Tensor, n_fft: int) -> Tensor:
    """Level of each bin; 0 dB for a sine at full scale."""
    return power_db((spectrogram.abs() / (n_fft / 4)).square())


# ------------------------------------------------------------------ what is drawn


def draw_spectrogram() -> Path:
    """One recording as a waveform and as a spectrogram."""
    mixture = mix_scene(SCENE)[0].samples[0, : 6 * RATE]
    figure = canvas(7.4, 4.2)
    upper, lower = figure.subplots(2, 1, height_ratios=(1, 2.4))
    time_s = torch.arange(len(mixture)) / RATE
    upper.plot(time_s[::16], mixture[::16], color=COLOURS[0], linewidth=0.4)
    upper.set_xlim(0, 6)
    styled(upper, "the waveform: air pressure over time")
    show_log_spectrogram(lower, mixture, "its spectrogram: how loud which pitch is at which moment")
    return save(figure, "spectrogram")


def draw_windows() -> Path:
    """The same second with short, middle and long windows."""
    mixture = mix_scene(SCENE)[0].samples[:, round(1.6 * RATE) : round(3.0 * RATE)]
    figure = canvas(7.6, 2.8)
    for axis, n_fft in zip(figure.subplots(1, 3, sharey=True), (256, 2048, 16384), strict=True):
        config = StftConfig(n_fft, n_fft // 8, window="hann")
        levels = level_db(stft(mixture, config)[0], n_fft)
        title = f"{n_fft} samples: {1000 * n_fft / RATE:.0f} ms, {RATE / n_fft:.0f} Hz"
        show_bins(axis, levels, mixture.shape[-1] / RATE, 4000, title)
        axis.label_outer()
    return save(figure, "windows")


def draw_bands() -> Path:
    """How many bins each band of a model holds."""
    figure = canvas(7.4, 2.6)
    tables = {
        "TUSS: 61 bands": (bs_roformer_bands(RATE, 2048), 2048),
        "mini: 24 bands": (mel_bands(RATE, 3072, 24), 3072),
    }
    axis = figure.subplots()
    for row, (widths, n_fft) in enumerate(tables.values()):
        edges = [0, *itertools.accumulate(widths)]
        for number, (low, high) in enumerate(itertools.pairwise(edges)):
            axis.barh(
                row,
                (high - low) * RATE / n_fft,
                left=low * RATE / n_fft,
                height=0.6,
                color=COLOURS[number % 2],
                linewidth=0,
            )
    axis.set_xscale("symlog", linthresh=500, linscale=0.8)
    axis.set_xlim(0, RATE / 2)
    axis.set_xticks([0, 250, 500, 1000, 2000, 5000, 10_000, 20_000])
    axis.xaxis.set_major_formatter(FuncFormatter(lambda hz, _: f"{hz:g}"))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_yticks(range(len(tables)), list(tables))
    styled(axis, "bands: narrow where pitch matters, wide above", "Hz")
    return save(figure, "bands")


def draw_masks(separator: Separator) -> Path:
    """A mixture, a mask, and what goes through it."""
    mixture, references = mix_scene(SCENE)
    start, stop = round(0.2 * RATE), round(4.2 * RATE)
    estimate = separator.separate(mixture, SCENE.prompts).sources[0, 0]
    config = StftConfig(2048, 512)
    spectra = stft(references[:, start:stop], config)
    whole = stft(mixture.samples[:, start:stop], config)
    found = stft(estimate[None, start:stop], config)[0]
    ideal = wiener_like_masks(spectra[None])[0, 0]
    own = (found.abs() / whole[0].abs().clamp_min(1e-6)).clamp(0, 1)
    figure = canvas(7.6, 4.6)
    axes = figure.subplots(2, 3, sharex=True, sharey=True)
    duration_s, top_hz = (stop - start) / RATE, 6000

    def levels(axis: Axes, spectrum: Tensor, title: str) -> None:
        show_bins(axis, level_db(spectrum, 2048), duration_s, top_hz, title)

    def mask(axis: Axes, values: Tensor, title: str) -> None:
        show_bins(axis, values, duration_s, top_hz, title, limits=(0, 1), colours="gray")

    levels(axes[0, 0], whole[0], "the mixture")
    mask(axes[0, 1], ideal, "ideal mask for speech")
    levels(axes[0, 2], ideal * whole[0], "the mixture through it")
    levels(axes[1, 0], spectra[0], "the speech alone")
    mask(axes[1, 1], own, "the mask of mini")
    levels(axes[1, 2], found, "the stem of mini")
    for axis in axes.flat:
        axis.label_outer()
    return save(figure, "masks")


def draw_prompts(separator: Separator) -> Path:
    """The same recording asked about in three ways."""
    mixture, _ = mix_scene(SCENE)
    asked = (
        ("speech", "sfx-mix", "music-mix"),
        ("speech", "sfx-mix", "drums", "bass", "other"),
    )
    figure = canvas(7.8, 4.2)
    grid = figure.add_gridspec(len(asked), 6, width_ratios=(1.25, 1, 1, 1, 1, 1))
    show_log_spectrogram(figure.add_subplot(grid[:, 0]), mixture.samples[0], "the recording")
    for row, prompts in enumerate(asked):
        stems = separator.separate(mixture, prompts)
        for column, (name, samples) in enumerate(stems.items(), start=1):
            axis = figure.add_subplot(grid[row, column])
            show_log_spectrogram(axis, samples[0], name)
            axis.set_yticks([])
            axis.set_xlabel("")
    return save(figure, "prompts")


def draw_chunks(separator: Separator) -> Path:
    """How a recording is cut, what each chunk counts where, and why."""
    figure = canvas(7.4, 4.8)
    upper, lower = figure.subplots(2, 1, height_ratios=(1, 1))
    config = separator.model.config
    plan = make_plan(config.segment_s, config.overlap_s, 100)
    num_chunks = 4
    total = torch.zeros(plan.hop * (num_chunks - 1) + plan.segment)
    for number in range(num_chunks):
        weights = trapezoid(
            plan.segment,
            plan.overlap,
            plan.fade,
            first=number == 0,
            last=number == num_chunks - 1,
        )
        start = number * plan.hop
        total[start : start + plan.segment] += weights
        time_s = (torch.arange(plan.segment) + start) / 100
        upper.fill_between(time_s, weights, color=COLOURS[number], alpha=0.35, linewidth=0)
        upper.plot(time_s, weights, color=COLOURS[number], linewidth=1.2)
        upper.plot(
            [start / 100, (start + plan.segment) / 100],
            [1.12 + 0.1 * (number % 2)] * 2,
            color=COLOURS[number],
            linewidth=4,
            solid_capstyle="butt",
        )
    assert torch.allclose(total, torch.ones_like(total))
    upper.set_yticks([0, 1])
    upper.set_xlim(0, len(total) / 100)
    title = (
        f"chunks of {config.segment_s:g} s (bars), and how much each counts: "
        "all weights add up to 1"
    )
    styled(upper, title, "seconds")
    _draw_borders(lower, separator)
    return save(figure, "chunks")


def _draw_borders(axis: Axes, separator: Separator) -> None:
    """The error of a chunk's estimates over the distance from its beginning."""
    segment, step, num_parts = 4 * RATE, round(0.17 * RATE), 32
    errors_db = []
    for scene in SCENES[:2]:
        mixture, _ = mix_scene(scene)
        rows = separator.model.prompts.indices(scene.prompts)[None]
        whole = separator.model(mixture.samples, rows)[0]
        for start in range(step, mixture.num_samples - segment - step, step):
            reference = whole[:, start : start + segment]
            own = separator.model(mixture.samples[:, start : start + segment], rows)[0]
            parts = (own - reference).unflatten(1, (num_parts, -1)).square().sum(dim=2)
            powers = reference.unflatten(1, (num_parts, -1)).square().sum(dim=2)
            errors_db.append(power_db(parts / powers.clamp_min(1e-9)))
    error_db = torch.cat(errors_db).median(dim=0).values
    time_s = torch.linspace(0, segment / RATE, num_parts + 1)
    axis.stairs(error_db, time_s, baseline=None, color=COLOURS[1], linewidth=1.4)
    axis.set_xlim(0, segment / RATE)
    styled(
        axis,
        f"why edges are left out: {len(errors_db)} chunks of 4 s against one long pass, median",
        "seconds from the beginning of the chunk",
        "difference (dB)",
    )


def draw_loss() -> Path:
    """The loss of TUSS for a source that sounds, and for one that is silent."""
    torch.manual_seed(0)
    reference, noise, other = torch.randn(3, 8000).double()
    figure = canvas(7.6, 3.2)
    left, right = figure.subplots(1, 2)
    levels_db = torch.linspace(-10, 60, 71).double()
    for ceiling, colour in ((30.0, COLOURS[0]), (100.0, INK)):
        losses = [
            thresholded_snr_loss(
                (reference + noise * 10 ** (-level / 20))[None, None],
                reference[None, None],
                torch.zeros(1, 1, dtype=torch.long),
                SnrLossConfig(max_snr_db=ceiling),
            )
            for level in levels_db
        ]
        label = "threshold at 30 dB" if ceiling == 30 else "no threshold"
        left.plot(levels_db, torch.stack(losses), color=colour, label=label, linewidth=1.5)
    styled(left, "a source that sounds", "SNR of its stem (dB)", "loss (dB)")
    legend(left)
    leaks_db = torch.linspace(0, 60, 61).double()
    config = SnrLossConfig(silence_threshold="mixture")
    losses = []
    for leak in leaks_db:
        estimates = torch.stack([other, noise * 10 ** (-leak / 20)])[None]
        references = torch.stack([other, torch.zeros_like(other)])[None]
        both = thresholded_snr_loss(estimates, references, torch.tensor([[0, 1]]), config)
        only = thresholded_snr_loss(
            other[None, None], other[None, None], torch.zeros(1, 1, dtype=torch.long), config
        )
        losses.append(2 * both - only)  # what the silent one of the two adds to the mean
    right.plot(leaks_db, torch.stack(losses), color=COLOURS[1], linewidth=1.5)
    styled(right, "a source that is silent", "leak below the mixture (dB)", "loss (dB)")
    return save(figure, "loss")


def draw_measures(separator: Separator) -> Path:
    """What doing nothing gives, what the model gives, and what a mask could give."""
    figure = canvas(7.6, 3.2)
    axes = figure.subplots(1, 2, sharey=True)
    for axis, scene in zip(axes, SCENES[:2], strict=True):
        mixture, references = mix_scene(scene)
        estimates = separator.separate(mixture, scene.prompts).sources[:, 0]
        ideal = oracle_estimates("wiener_like", references[:, None], mixture.samples, RATE)[:, 0]
        rows = {
            "the mixture": mixture.samples.expand_as(references),
            "mini": estimates,
            "ideal mask": ideal,
        }
        for number, (label, sources) in enumerate(rows.items()):
            places = torch.arange(len(references)) + 0.27 * (number - 1)
            colour = (INK, COLOURS[0], COLOURS[3])[number]
            axis.bar(places, si_sdr_db(sources, references), 0.25, color=colour, label=label)
        axis.set_xticks(range(len(scene.prompts)), scene.prompts)
        axis.axhline(0, color=INK, linewidth=0.7)
        styled(axis, scene.title, y="SI-SDR (dB)")
        axis.label_outer()
    legend(axes[1], loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return save(figure, "measures")


def draw_presence(separator: Separator) -> Path:
    """When each sound is there."""
    _, references = mix_scene(SCENE)
    # Each sound has a part of the twelve seconds.
    for reference, (start_s, stop_s) in zip(references, ((0, 5), (3, 9), (7, 12)), strict=True):
        reference[: start_s * RATE] = 0
        reference[stop_s * RATE :] = 0
    stems = separator.separate(Waveform(references.sum(dim=0)[None], RATE), SCENE.prompts)
    figure = canvas(7.4, 3.6)
    axes = figure.subplots(len(SCENE.prompts), 1, sharex=True)
    for axis, (name, presence), reference, colour in zip(
        axes, stems.presence.items(), references, COLOURS, strict=False
    ):
        loud = reference.unfold(0, 480, 480).square().mean(dim=1).sqrt()
        axis.fill_between(
            torch.arange(len(loud)) / 100, loud / loud.max(), color=INK, alpha=0.35, linewidth=0
        )
        edges = torch.arange(len(presence.timeline) + 1) * presence.window_s
        axis.stairs(presence.timeline, edges, baseline=None, color=colour, linewidth=1.6)
        axis.set_ylim(0, 1.05)
        axis.set_xlim(0, SCENE.duration_s)
        styled(axis, y=name)
    axes[0].set_title(
        "score of presence (line) and the level of the true sound (grey)", color=INK, fontsize=10
    )
    axes[-1].set_xlabel("seconds", color=INK, fontsize=9)
    return save(figure, "presence")


#: Those that need no model, then those that do.
PLAIN: dict[str, Callable[[], Path]] = {
    "spectrogram": draw_spectrogram,
    "windows": draw_windows,
    "bands": draw_bands,
    "loss": draw_loss,
}
WITH_MODEL: dict[str, Callable[[Separator], Path]] = {
    "masks": draw_masks,
    "prompts": draw_prompts,
    "chunks": draw_chunks,
    "measures": draw_measures,
    "presence": draw_presence,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the figures that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help="which; all if none is named")
    wanted = parser.parse_args(arguments).figures or [*PLAIN, *WITH_MODEL]
    separator = unbraid.load_separator("mini")
    with torch.inference_mode():
        for name in wanted:
            path = PLAIN[name]() if name in PLAIN else WITH_MODEL[name](separator)
            print(f"{path}  {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
