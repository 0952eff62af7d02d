"""What a visitor can pick: models with their licences, and the prompts that each can be asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unbraid.checkpoints import ModelInfo, list_models, model_fingerprint
from unbraid.checkpoints.bundle import read_config
from unbraid.checkpoints.catalogue import (
    embedded_models,
    how_to_get,
    missing_models,
    user_models,
)
from unbraid.checkpoints.known_models import KnownModel
from unbraid.checkpoints.prompt_store import installed_prompts, open_prompt
from unbraid.downloads import size_in_words
from unbraid.errors import CheckpointError
from unbraid.web.visitors import Visitor

#: How often a prompt may be asked for where the model sets no limit.
MOST_REPEATS = 8

_ABOUT = {
    "speech": "one speaker",
    "sfx": "one sound effect",
    "sfx-mix": "all that is neither speech nor music",
    "vocals": "the voice of a song",
    "drums": "the drums of a song",
    "bass": "the bass of a song",
    "other": "the rest of a song",
    "music-mix": "all the music together",
    "source": "a source of any kind",
}
_TICKED = frozenset({"speech", "sfx-mix", "music-mix"})
#: A model was taught to hear effects before music, and what is taught is an effect mostly.
_AFTER_TAUGHT = ("music-mix", "vocals", "drums", "bass", "other")


@dataclass(frozen=True)
class ModelChoice:
    """A model of the list.

    Attributes:
        name: What to call it.
        licence: Licence of its weights.
        about: What it is, in a line.
        source: Where its weights come from.
        is_here: Whether it can be used at once.
        can_be_fetched: Where it is not here: whether it can be downloaded.
        needs_consent: Whether somebody has to agree to its licence before that.
        how_to_get: Where it is not here: what to do.
    """

    name: str
    licence: str
    about: str
    source: str
    is_here: bool
    can_be_fetched: bool = False
    needs_consent: bool = False
    how_to_get: str = ""

    @property
    def label(self) -> str:
        """For a list of models."""
        away = "" if self.is_here else " (not here yet)"
        return f"{self.name}, {self.licence}{away}"


@dataclass(frozen=True)
class PromptChoice:
    """A prompt that a model can be asked.

    Attributes:
        name: The prompt.
        about: What it brings out.
        most: How often it may be asked for.
        count: How often it is asked for at first; 0 for not at all.
    """

    name: str
    about: str
    most: int
    count: int


def model_choices() -> tuple[ModelChoice, ...]:
    """The models that `unbraid models list` lists, without damaged ones."""
    here = [_here(info) for info in list_models() if not info.is_damaged]
    return (*here, *map(_away, missing_models()))


def listed_folder(model: str) -> Path:
    """The folder of a model of the list.

    A page may send any text; neither folders of this machine nor the hub are open to visitors.

    Raises:
        CheckpointError: If no model of that name is here.
    """
    folder = (embedded_models() | user_models()).get(model)
    if folder is None:
        raise CheckpointError(f"{model}: is not among the models here; pick one of the list.")
    return folder


def prompt_choices(model: str, visitor: Visitor) -> tuple[PromptChoice, ...]:
    """The prompts of a model in the order in which it is best asked for them.

    Those that the model has learned, those that are installed for it, and those that the visitor
    has taught, brought, or shown by example.

    Raises:
        CheckpointError: If there is no such model, or it is damaged.
    """
    folder = listed_folder(model)
    config = read_config(folder)
    outputs = Counter(config.outputs)
    learned = [
        PromptChoice(
            name,
            _ABOUT.get(name, "learned by the model"),
            outputs.get(name, MOST_REPEATS),
            outputs[name] if outputs else int(name in _TICKED),
        )
        for name in config.prompts
    ]
    if config.outputs:
        return tuple(learned)
    fingerprint = model_fingerprint(folder)
    added = dict.fromkeys(installed_prompts(fingerprint), "installed for this model")
    mine = [open_prompt(path) for path in visitor.prompts]
    added |= {
        stored.name: "yours, until you leave"
        for stored in mine
        if stored.prompt.fingerprint == fingerprint
    }
    if config.tagger is not None:
        added |= dict.fromkeys(visitor.examples, "yours, shown by example")
    taught = [
        PromptChoice(name, about, MOST_REPEATS, int(about.startswith("yours")))
        for name, about in added.items()
    ]
    return _in_order(learned, taught)


def _in_order(
    learned: Sequence[PromptChoice], taught: Sequence[PromptChoice]
) -> tuple[PromptChoice, ...]:
    before = [choice for choice in learned if choice.name not in _AFTER_TAUGHT]
    after = [choice for choice in learned if choice.name in _AFTER_TAUGHT]
    return (*before, *taught, *after)


def _here(info: ModelInfo) -> ModelChoice:
    facts = f"{info.num_parameters / 1e6:.1f} million parameters"
    if (rate := _rate(info.sample_rate)) not in info.description:
        facts += f", {rate}"
    about = f"{info.description.rstrip('.')}. {facts}." if info.description else f"{facts}."
    return ModelChoice(info.name, info.licence, about, info.source, is_here=True)


def _away(known: KnownModel) -> ModelChoice:
    facts = [_rate(known.sample_rate)]
    if known.num_parameters is not None:
        facts.insert(0, f"{known.num_parameters / 1e6:.1f} million parameters")
    if known.size_bytes:
        facts.append(f"{size_in_words(known.size_bytes)} to download")
    return ModelChoice(
        known.name,
        known.licence,
        f"{known.title.rstrip('.')}. {', '.join(facts)}.",
        known.source,
        is_here=False,
        can_be_fetched=known.can_be_fetched,
        needs_consent=known.needs_consent,
        how_to_get=how_to_get(known),
    )


def _rate(sample_rate: int) -> str:
    return f"{sample_rate / 1000:g} kHz"
