"""Where a model with spectral feature compression looks, as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.apps.demo import SCENES, mix_scene
from unbraid.apps.whole_files import write_whole
from unbraid.audio import read
from unbraid.checkpoints import Bundle
from unbraid.dsp.resample import resample
from unbraid.errors import ConfigError
from unbraid.models.waveform import WaveformModel
from unbraid.nn.feature_compression import AttentionWeights, CompressionCodec, attention_weights
from unbraid.types import Waveform

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Enough to average over, and few enough frames to be quick.
_LONGEST_S = 6.0
_PIXELS_PER_INCH = 130
_TICKS_HZ = (100, 300, 1000, 3000, 10_000)


def inspect_attention(
    bundle: Bundle,
    picture: Path,
    recording: Path | None = None,
    prompts: Sequence[str] | None = None,
) -> AttentionWeights:
    """Draw where each query of a model looks, averaged over the frames of a recording.

    The upper row shows the entry, a panel per head: which bins each band is made from. The lower
    row shows the exit: from which bands each bin is made. Rows of a panel sum to 1.

    Args:
        bundle: The model.
        picture: The PNG file to write; an existing one is replaced.
        recording: What it hears, the first six seconds of it; None for a scene of the demo.
        prompts: What it is asked for; None for its first three prompts.

    Returns:
        What was drawn.

    Raises:
        ConfigError: If the model has no attention between bins and bands.
        PromptError: If it does not know a prompt.
        AudioError: If the recording cannot be read, or the picture not be written.
    """
    model = bundle.model
    codec = getattr(model.network, "codec", None)
    if not isinstance(codec, CompressionCodec):
        raise ConfigError(
            f"{bundle.card.name}: has no queries to look at; its entry and exit are not spectral "
            "feature compression."
        )
    waveform = mix_scene(SCENES[0])[0] if recording is None else read(recording)
    heard = _as_heard(waveform, model)
    indices = model.prompts.indices(prompts or model.prompts.names[:3])[None]

    def run() -> None:
        with torch.inference_mode():
            model(heard, indices)

    weights = attention_weights(codec, run)
    write_whole(picture, _drawn(weights, model, bundle.card.name))
    return weights


def _as_heard(waveform: Waveform, model: WaveformModel) -> Float[Tensor, "1 *channel time"]:
    """The beginning of a recording at the model's rate, with the channels that it hears."""
    samples = waveform.samples[:, : round(_LONGEST_S * waveform.sample_rate)]
    samples = resample(samples, waveform.sample_rate, model.sample_rate)
    wanted = model.network.num_channels
    if wanted == 1:
        return samples.mean(dim=0, keepdim=True)
    repeated = [min(channel, len(samples) - 1) for channel in range(wanted)]
    return samples[repeated][None]


def _drawn(weights: AttentionWeights, model: WaveformModel, name: str) -> bytes:
    # Imported late, as in ``pictures``.
    from matplotlib.figure import Figure

    num_heads = len(weights.encoder)
    figure = Figure(
        figsize=(1.5 + 2.7 * num_heads, 6.0), dpi=_PIXELS_PER_INCH, layout="constrained"
    )
    axes: Any = figure.subplots(2, num_heads, squeeze=False)
    nyquist_hz = model.sample_rate / 2
    for head in range(num_heads):
        _panel(axes[0, head], weights.encoder[head], nyquist_hz)
        # Turned, so that bins lie on the same axis above and below.
        _panel(axes[1, head], weights.decoder[head].T, nyquist_hz)
        axes[0, head].set_title(f"head {head + 1}", fontsize=10)
        axes[1, head].set_xlabel("frequency of the bin", fontsize=9)
    axes[0, 0].set_ylabel("entry: band", fontsize=9)
    axes[1, 0].set_ylabel("exit: band", fontsize=9)
    figure.suptitle(f"{name}: where queries look", fontsize=12)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


def _panel(axis: Axes, shares: Float[Tensor, "band bin"], nyquist_hz: float) -> None:
    num_bands, num_bins = shares.shape
    # Each row against its own highest share: wide bands spread theirs thin.
    relative = shares / shares.amax(dim=1, keepdim=True).clamp_min(1e-12)
    edges_hz = torch.arange(num_bins + 1) * (nyquist_hz / (num_bins - 1))
    axis.pcolormesh(
        edges_hz.clamp_min(edges_hz[1] / 2).tolist(),
        list(range(num_bands + 1)),
        relative.numpy(),
        cmap="magma",
        vmin=0.0,
        vmax=1.0,
        rasterized=True,
    )
    axis.set_xscale("log")
    shown = [hz for hz in _TICKS_HZ if hz < nyquist_hz]
    axis.set_xticks(shown, [f"{hz // 1000} kHz" if hz >= 1000 else f"{hz} Hz" for hz in shown])
    axis.minorticks_off()
    axis.tick_params(labelsize=8)
