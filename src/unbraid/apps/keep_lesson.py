"""What was taught, put where it stays: the prompt file, its report, and the store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from unbraid.apps.lesson_page import render_lesson_page
from unbraid.apps.teach import Lesson
from unbraid.apps.whole_files import make_folder, write_whole
from unbraid.checkpoints.bundle import Bundle
from unbraid.checkpoints.prompt_files import (
    ENDING,
    check_prompt_name,
    model_fingerprint,
    save_prompt,
)
from unbraid.checkpoints.prompt_store import install_prompt, installed_prompts
from unbraid.errors import PromptError


@dataclass(frozen=True)
class KeptLesson:
    """Where it is.

    Attributes:
        prompt: The prompt file.
        report: The page about it.
    """

    prompt: Path
    report: Path


def refuse_taken(
    name: str, folder: Path, bundle: Bundle, *, install: bool, overwrite: bool
) -> None:
    """Make sure that a prompt of this name can be kept, before work goes into it.

    Args:
        name: What it is to be called.
        folder: Where its file is to go.
        bundle: The model.
        install: It is also to be made known by its name.
        overwrite: A prompt of that name is to be replaced.

    Raises:
        PromptError: If the name is none for a prompt, or taken and not to be replaced.
    """
    check_prompt_name(name)
    if overwrite:
        return
    path = folder / f"{name}{ENDING}"
    if path.exists():
        raise PromptError(f"{path}: exists already; choose another name or --overwrite it.")
    if install and name in installed_prompts(model_fingerprint(bundle.folder)):
        raise PromptError(
            f"prompt {name!r}: one of that name is installed for {bundle.card.name}; choose "
            f"another name, --overwrite it, or remove it: unbraid prompts remove {name}."
        )


def keep_lesson(
    lesson: Lesson, folder: Path, bundle: Bundle, *, install: bool, overwrite: bool
) -> KeptLesson:
    """Write the prompt and its report to a folder, each whole or not at all.

    Args:
        lesson: What was taught.
        folder: Where to; it is made if it is missing.
        bundle: The model.
        install: Also make the prompt known by its name.
        overwrite: Replace a prompt of that name.

    Raises:
        PromptError: If there is one of that name, and it is not to be replaced.
        AudioError: If the folder cannot be written.
    """
    make_folder(folder)
    name = lesson.prompt.name
    page = render_lesson_page(lesson)
    path = save_prompt(lesson.prompt, folder / f"{name}{ENDING}", overwrite=overwrite)
    report = folder / f"{name}.html"
    write_whole(report, page.encode("utf-8"))
    if install:
        install_prompt(path, bundle.folder, overwrite=overwrite)
    return KeptLesson(path, report)
