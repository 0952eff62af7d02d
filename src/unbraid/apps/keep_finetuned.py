"""A tuned model, put where it stays: a bundle with a card that says what it is, and a report."""

from __future__ import annotations

from pathlib import Path

from unbraid._version import __version__
from unbraid.apps.finetune import MEASURES, Finetuned, Gain
from unbraid.apps.finetune_page import gains_table, render_finetune_page
from unbraid.apps.keep_model import KeptModel, keep_model
from unbraid.checkpoints.bundle import Bundle
from unbraid.checkpoints.card import Card
from unbraid.errors import counted
from unbraid.evaluation.tables import format_markdown


def keep_finetuned(
    finetuned: Finetuned, folder: Path, source: Bundle, *, overwrite: bool = False
) -> KeptModel:
    """Write the model and its report, each whole or not at all.

    Args:
        finetuned: What was tuned.
        folder: Where the model goes; its name is the model's name.
        source: The model that it was tuned from; its licence is kept.
        overwrite: Replace a model that is there.

    Raises:
        CheckpointError: If something is in the way, or the disk refuses.
        AudioError: If the report cannot be written.
    """
    card = card_of(finetuned, folder.name, source)
    page = render_finetune_page(finetuned, card, source)
    return keep_model(finetuned.model, folder, card, page, source, overwrite=overwrite)


def card_of(finetuned: Finetuned, name: str, source: Bundle) -> Card:
    """The card of a tuned model: where it comes from, what was measured, and the old card."""
    options, kept = finetuned.options, finetuned.kept
    num_songs = len(finetuned.learnt_from)
    songs, steps = counted(num_songs, "song"), counted(kept.step, "step")
    facts = {
        "model": source.card.name,
        "digest": source.digest,
        "unbraid": __version__,
        "what": options.tuning.what,
        **({"rank": options.tuning.rank} if options.tuning.what == "lora" else {}),
        "learning_rate": options.tuning.rate,
        "steps": kept.step,
        "batch_size": options.batch_size,
        "crop_s": options.crop_s,
        "seed": options.seed,
        "songs": num_songs,
        "held_back": len(finetuned.held_back),
        "figures": {gain.prompt: _figures(gain) for gain in finetuned.gains},
    }
    return Card(
        name=name,
        licence=source.card.licence,
        source=f"tuned by unbraid on {songs} for {steps}, from {source.card.name} "
        f"(sha256 {source.digest})",
        description=f"{source.card.name}, tuned on {songs}",
        text=_text(finetuned, name, source),
        more={**source.card.more, "tuned_from": facts},
    )


def _figures(gain: Gain) -> dict[str, dict[str, float]]:
    return {
        measure: {
            "before": round(gain.before[measure], 2),
            "after": round(gain.after[measure], 2),
        }
        for measure in MEASURES
    }


def _text(finetuned: Finetuned, name: str, source: Bundle) -> str:
    return f"""# {name}

{source.card.name} (sha256 {source.digest}), tuned with `unbraid finetune` on recordings
of its user. The licence of its weights is that of {source.card.name}: {source.card.licence}.
Whether the recordings allow it to be passed on is for that user to know.

{format_markdown(gains_table(finetuned)).strip()}

## The card of {source.card.name}

{source.card.text}"""
