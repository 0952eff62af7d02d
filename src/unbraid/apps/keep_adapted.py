"""An adapted model, put where it stays: a bundle with a card that says what it is, and a report."""

from __future__ import annotations

from pathlib import Path

from unbraid._version import __version__
from unbraid.apps.adapt import Adapted, AdaptingCheck
from unbraid.apps.adapt_page import method_name, render_adapt_page, results_table
from unbraid.apps.keep_model import KeptModel, keep_model
from unbraid.checkpoints.bundle import Bundle
from unbraid.checkpoints.card import Card
from unbraid.checkpoints.prompt_files import model_fingerprint
from unbraid.errors import counted
from unbraid.evaluation.tables import format_markdown


def keep_adapted(
    adapted: Adapted, folder: Path, source: Bundle, *, overwrite: bool = False
) -> KeptModel:
    """Write the model and its report, each whole or not at all.

    Args:
        adapted: What was adapted.
        folder: Where the model goes; its name is the model's name.
        source: The model that it comes from; its licence is kept.
        overwrite: Replace a model that is there.

    Raises:
        CheckpointError: If something is in the way, or the disk refuses.
        AudioError: If the report cannot be written.
    """
    card = card_of(adapted, folder.name, source)
    page = render_adapt_page(adapted, card, source)
    return keep_model(adapted.model, folder, card, page, source, overwrite=overwrite)


def card_of(adapted: Adapted, name: str, source: Bundle) -> Card:
    """The card of an adapted model: where it comes from, what was found, and the old card."""
    options, kept = adapted.options, adapted.kept
    recordings = f"{counted(adapted.num_recordings, 'recording')} without references"
    teacher = options.remixing.teacher
    facts = {
        "model": source.card.name,
        "digest": source.digest,
        "fingerprint": model_fingerprint(source.folder),
        "unbraid": __version__,
        "recordings": adapted.num_recordings,
        "held_back": adapted.num_held_back,
        "hours": round(adapted.hours, 4),
        "prompts": list(options.prompts),
        "method": method_name(options.remixing),
        **({"teacher_decay": teacher.decay} if teacher.decay < 1.0 else {}),
        "what": options.tuning.what,
        **({"rank": options.tuning.rank} if options.tuning.what == "lora" else {}),
        # A third of 3e-4 is 9.999999999999999e-05.
        "learning_rate": float(f"{options.tuning.rate:g}"),
        "steps": kept.step,
        "batch_size": options.batch_size,
        "crop_s": options.crop_s,
        "seed": options.seed,
        "figures": {"before": _figures(adapted.before), "after": _figures(kept)},
    }
    return Card(
        name=name,
        licence=source.card.licence,
        source=f"adapted by unbraid to {recordings} for {counted(kept.step, 'step')}, from "
        f"{source.card.name} (sha256 {source.digest})",
        description=f"{source.card.name}, adapted to {recordings}",
        text=_text(adapted, name, source),
        more={**source.card.more, "adapted_from": facts},
    )


def _figures(check: AdaptingCheck) -> dict[str, float]:
    # Adding 0.0 turns -0.0 into 0.0.
    known = {} if check.known_db is None else {"known_si_sdr_db": round(check.known_db, 2) + 0.0}
    return {"held_back_loss_db": round(check.held_back_loss, 3) + 0.0, **known}


def _text(adapted: Adapted, name: str, source: Bundle) -> str:
    return f"""# {name}

{source.card.name} (sha256 {source.digest}), adapted with `unbraid adapt` to recordings of its
user, for {" and ".join(adapted.options.prompts)}. The licence of its weights is that of
{source.card.name}: {source.card.licence}. Whether the recordings allow it to be passed on is for
that user to know.

{format_markdown(results_table(adapted)).strip()}

## The card of {source.card.name}

{source.card.text}"""
