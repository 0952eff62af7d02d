"""What was taught, put where it stays: the prompt file, its report, and the store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from unbraid.apps.lesson_page import render_lesson_page
from unbraid.apps.teach import Lesson
from unbraid.apps.whole_files import check_writable, make_folder, write_whole
from unbraid.checkpoints.bundle import Bundle
from unbraid.checkpoints.prompt_files import (
    ENDING,
    check_prompt_name,
    model_fingerprint,
    save_prompt,
)
from unbraid.checkpoints.prompt_store import install_prompt, installed_as
from unbraid.errors import PromptError
from unbraid.prompts import check_free_name

_REPORT_ENDING = ".html"


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

    Names that differ in upper and lower case only count as the same, since some disks take them
    for one.

    Args:
        name: What it is to be called.
        folder: Where its file is to go.
        bundle: The model.
        install: It is also to be made known by its name.
        overwrite: A prompt of exactly that name is to be replaced.

    Raises:
        PromptError: If the name is none for a prompt, means something already, or is taken and
            not to be replaced.
        AudioError: If the folder cannot be made or written.
        CheckpointError: If the installed prompts cannot be listed.
    """
    check_prompt_name(name)
    check_free_name(name, bundle.config.prompts)
    check_writable(folder)
    wanted = (f"{name}{ENDING}", f"{name}{_REPORT_ENDING}")
    for path in sorted(folder.iterdir() if folder.is_dir() else ()):
        is_same = path.name in wanted
        if is_same and overwrite:
            continue
        if path.name.casefold() in map(str.casefold, wanted):
            way = " or --overwrite it" if is_same else ""
            raise PromptError(f"{path}: exists already; choose another name{way}.")
    known = installed_as(name, model_fingerprint(bundle.folder)) if install else None
    if known is not None and (not overwrite or known != name):
        way = "" if known != name else "--overwrite it, "
        raise PromptError(
            f"prompt {name!r}: {known!r} is installed for {bundle.card.name} already; choose "
            f"another name, {way}or remove it: unbraid prompts remove {known}."
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
    report = folder / f"{name}{_REPORT_ENDING}"
    write_whole(report, page.encode("utf-8"))
    if install:
        install_prompt(path, bundle.folder, overwrite=overwrite)
    return KeptLesson(path, report)
