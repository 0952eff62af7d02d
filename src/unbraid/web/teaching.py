"""What a visitor teaches or shows: clips in, a prompt that is theirs until they leave."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from unbraid.apps.keep_lesson import keep_lesson
from unbraid.apps.queries import name_queries
from unbraid.apps.teach import TeachOptions, teach
from unbraid.checkpoints import load_bundle, model_fingerprint
from unbraid.checkpoints.bundle import read_config
from unbraid.checkpoints.prompt_files import check_prompt_name
from unbraid.checkpoints.prompt_store import check_made_for, open_prompt
from unbraid.errors import Cancelled, PromptError
from unbraid.prompts import check_free_name
from unbraid.types import Step
from unbraid.web.choices import listed_folder
from unbraid.web.options import WebOptions
from unbraid.web.visitors import Visitor, take_upload
from unbraid.web.working import HowFar, Pace


@dataclass(frozen=True)
class Taught:
    """What came of a lesson.

    Attributes:
        name: The new prompt.
        prompt: Its file.
        report: The page about it.
        num_clips: What it learnt from.
        before_db: SI-SDR improvement on mixtures that were held back, at the start.
        after_db: The same in the end.
        verdict: What it gained, in words.
        warnings: What is odd about the clips.
    """

    name: str
    prompt: Path
    report: Path
    num_clips: int
    before_db: float
    after_db: float
    verdict: str
    warnings: tuple[str, ...]


def take_clips(visitor: Visitor, uploaded: Sequence[str | Path]) -> list[Path]:
    """Take the clips that a visitor brings; those that they brought before are removed.

    Raises:
        ConfigError: If something is being done for the visitor.
        AudioError: If one did not arrive.
    """
    with visitor.working():
        folder = visitor.new_folder("clips")
        taken = []
        for number, each in enumerate(uploaded):
            (folder / str(number)).mkdir()  # clips may have equal names
            taken.append(take_upload(each, folder / str(number)))
        return taken


def teach_prompt(
    visitor: Visitor,
    model: str,
    name: str,
    clips: Sequence[Path],
    options: WebOptions,
    tell: Callable[[HowFar], None],
) -> Taught:
    """Teach a model a sound, as ``unbraid teach`` does; the prompt is the visitor's alone.

    Raises:
        PromptError: If there are no clips, or the name cannot be a prompt or is taken.
        UnbraidError: As ``apps.teach.teach``.
    """
    with visitor.working():
        check_prompt_name(name)
        if not clips:
            raise PromptError("bring some clips first in which the sound is heard alone.")
        tell(HowFar("Loading the model"))
        bundle = load_bundle(listed_folder(model))
        pace = Pace("")

        def show(step: Step) -> None:
            if visitor.cancel.is_set():
                raise Cancelled("teaching was cancelled.")
            tell(pace.of_step(Step(_sentence(step.name), step.done, step.total, step.unit)))

        lesson = teach(bundle, name, clips, TeachOptions(minutes=options.teach_minutes), show)
        folder = visitor.folder / "prompts" / model_fingerprint(bundle.folder)[:16]
        folder.parent.mkdir(exist_ok=True)
        kept = keep_lesson(lesson, folder, bundle, install=False, overwrite=True)
        _keep(visitor, kept.prompt)
        visitor.lessons |= {kept.prompt.name: kept.prompt, kept.report.name: kept.report}
        return Taught(
            name,
            kept.prompt,
            kept.report,
            len(lesson.clips.clips),
            lesson.before_db,
            lesson.after_db,
            lesson.verdict,
            tuple(_without_folders(text, clips) for text in lesson.warnings),
        )


def show_examples(visitor: Visitor, model: str, clips: Sequence[Path]) -> tuple[str, ...]:
    """Let a model with a tagger be asked for what sounds like each of these clips.

    Returns:
        What the new prompts are called: as their files.

    Raises:
        PromptError: If there are no clips, or the model cannot be asked by example.
    """
    with visitor.working():
        if not clips:
            raise PromptError("bring a clip first in which the sound is heard alone.")
        config = read_config(listed_folder(model))
        if config.tagger is None:
            raise PromptError(
                f"{model} cannot be asked by example; teach it the sound, or pick a model that can "
                "be, such as query-mini."
            )
        # The next clips take the place of these, and the sounds should stay.
        folder = visitor.new_folder("examples")
        visitor.examples = {}
        for number, (name, clip) in enumerate(name_queries(clips, config.prompts).items()):
            # Clips may have equal names, and the command that is shown names them.
            kept = folder / str(number) / clip.name
            kept.parent.mkdir()
            shutil.copyfile(clip, kept)
            visitor.examples[name] = kept
        return tuple(visitor.examples)


def take_prompt(visitor: Visitor, model: str, uploaded: str | Path) -> str:
    """Take a prompt file that a visitor brings.

    Returns:
        What the prompt is called.

    Raises:
        CheckpointError: If it is no prompt file.
        PromptError: If it was made for another model, or its name means something already.
    """
    with visitor.working():
        # Each in a folder of its own: files may have equal names.
        folder = visitor.folder / "prompts" / secrets.token_hex(4)
        folder.mkdir(parents=True)
        path = take_upload(uploaded, folder)
        try:
            stored = open_prompt(path)
            model_folder = listed_folder(model)
            check_made_for(stored, model_fingerprint(model_folder), model_folder.name)
            known = read_config(model_folder).prompts
            check_free_name(stored.name, known)
        except Exception:
            path.unlink()
            raise
        _keep(visitor, path)
        return stored.name


def _keep(visitor: Visitor, path: Path) -> None:
    """Let a visitor have a prompt, in the place of one of that name for the same model."""
    new = open_prompt(path).prompt
    others = [(kept, open_prompt(kept).prompt) for kept in visitor.prompts if kept != path]
    visitor.prompts = [
        kept
        for kept, other in others
        if (other.name, other.fingerprint) != (new.name, new.fingerprint)
    ]
    visitor.prompts.append(path)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _without_folders(text: str, clips: Sequence[Path]) -> str:
    for clip in clips:
        text = text.replace(str(clip), clip.name)
    return text
