"""Make a model of one architecture begin with the weights of one of another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from unbraid.audio.decode import count_samples, read_span
from unbraid.checkpoints import Bundle, Card, load_bundle, resolve_model, save_bundle
from unbraid.checkpoints.catalogue import own_model_folder
from unbraid.checkpoints.conversion import Conversion, tuss_from_unconditional
from unbraid.checkpoints.upkeep import note_digest
from unbraid.config import nearest
from unbraid.dsp.resample import resample
from unbraid.errors import AudioError, ConfigError
from unbraid.models.waveform import WaveformModel
from unbraid.prompts import STANDARD_PROMPTS

#: What a model can become.
TARGETS = ("tuss",)

#: So much of a recording tells which output is the loudest.
_LISTEN_S = 60.0


def convert_model(
    source: str | Path,
    target: str,
    out: str,
    prompts: Sequence[str] | None = None,
    loudest_on: Path | None = None,
) -> tuple[Bundle, Conversion]:
    """Turn an unconditional model into a TUSS that is ready to be trained.

    Args:
        source: The model, as in ``resolve_model``.
        target: What to make of it; only ``tuss`` is known.
        out: The name of a new model among the user's, or a folder, if it has a separator in it.
        prompts: The prompts of the TUSS; None for the usual eight.
        loudest_on: A recording: the output that is loudest on it gives its last layer. None for a
            fresh last layer.

    Returns:
        The new model, and what of it was taken over.

    Raises:
        ConfigError: If nothing can be made to that.
        CheckpointError: If there is no such model, it is of another architecture, or something is
            in the way of the new one.
        AudioError: If the recording cannot be read or is silent.
        PromptError: If a prompt stands twice or has no name.
    """
    if target not in TARGETS:
        raise ConfigError(f"--to {target}: nothing can be made to that; {nearest(target, TARGETS)}")
    folder = Path(out).expanduser() if Path(out).name != out else own_model_folder(out)
    bundle = load_bundle(resolve_model(source))
    output = None if loudest_on is None else loudest_output(bundle.model, loudest_on)
    where = str(bundle.folder)
    conversion = tuss_from_unconditional(
        bundle.model, where, prompts or STANDARD_PROMPTS, output=output
    )
    last = "is fresh" if output is None else f"is that of output {output}"
    card = Card(
        name=folder.name,
        licence=bundle.card.licence,
        source=f"{bundle.card.name}, converted to TUSS",
        description="to be trained: its prompts mean nothing yet",
        text=f"""\
# {folder.name}

A TUSS whose weights are those of `{bundle.card.name}` (SHA-256 of its bundle `{bundle.digest}`),
which was trained without prompts. Its prompts and its start of sequence are fresh, and the last
layer of its decoder {last}. It has to be trained before it separates anything.
""",
    )
    save_bundle(conversion.model, folder, card)
    note_digest(folder)
    return load_bundle(folder), conversion


@torch.inference_mode()
def loudest_output(model: WaveformModel, recording: Path) -> int:
    """The output of a model that has the most energy over a recording's first minute.

    Args:
        model: A model with fixed outputs.
        recording: Any recording of the kind that the model was trained on.

    Raises:
        AudioError: If it cannot be read or is silent.
    """
    # No more is decoded of a recording of hours.
    sample_rate, _, num_samples = count_samples(recording, most_s=_LISTEN_S)
    beginning = read_span(recording, 0, min(num_samples, round(_LISTEN_S * sample_rate)))
    mono = resample(beginning.mean(0, keepdim=True), sample_rate, model.sample_rate)
    energy = torch.zeros(len(model.config.outputs))
    for chunk in mono.split(round(model.config.segment_s * model.sample_rate), dim=1):
        energy += model.separate_all(chunk)[0].square().sum(dim=-1)
    if not bool(energy.any()):
        raise AudioError(f"{recording}: no output gives any sound on it; take another recording.")
    return int(energy.argmax())
