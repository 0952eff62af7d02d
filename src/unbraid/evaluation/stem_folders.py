"""Anybody's own mixtures and stems, in the layouts that people keep them in.

::

    songs/                      stems/                       list.csv
      first song/                 mixture/first.wav            name,mixture,vocals,drums
        mixture.wav               vocals/first.wav             first,a/mix.wav,a/v.wav,a/d.wav
        vocals.wav                drums/first.wav
        drums.wav

A list of mixtures that ``unbraid data prepare`` wrote, ``unbraid-mixtures.jsonl``, will do, too.

A stem is named by its prompt (``vocals``, ``speech_1``, ``effects``), or by any name that a
translation gives. Without a mixture the sum of the stems is taken for it.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from unbraid.audio import MEDIA_EXTENSIONS
from unbraid.config import parse
from unbraid.data.corpora.base import MixtureFiles, ReferenceFiles, Track
from unbraid.errors import ConfigError, DataError, in_brief
from unbraid.prompts import canonical_name

_MIXTURE_NAMES = ("mixture", "mix")
_NUMBER = re.compile(r"_\d+$")


@dataclass(frozen=True)
class _Names:
    """What the stems of a user may be called."""

    prompts: tuple[str, ...]
    prompt_of: Mapping[str, str]

    def prompt(self, stem: str) -> str | None:
        """The prompt of a stem; ``-`` to leave it out, None where its name says nothing."""
        if stem in self.prompt_of:
            return self.prompt_of[stem]
        # As it stands first: a taught prompt may end in a number.
        for name in (canonical_name(stem), canonical_name(_NUMBER.sub("", stem))):
            if name in self.prompts:
                return name
        return None


def list_mixtures(
    path: Path,
    prompts: Sequence[str],
    prompt_of: Mapping[str, str],
    split: str | None = None,
) -> tuple[Path, list[MixtureFiles]]:
    """Find mixtures and their stems.

    Args:
        path: A folder of song folders, a folder of stem folders, a CSV file with a column
            per stem, and ``mixture`` and ``name`` if you like, or a list of mixtures as JSON
            lines; paths in both are relative to them.
        prompts: Those that the model knows.
        prompt_of: Stem name → prompt, for names that are no prompts; ``-`` leaves a stem out.
        split: Of a list of mixtures, only those of this split; None for all.

    Returns:
        The folder that all paths are relative to, and the mixtures by name.

    Raises:
        DataError: If it is none of these layouts, a stem is missing, or its name is no prompt.
    """
    names = _Names(tuple(prompts), dict(prompt_of))
    if path.is_file() and path.suffix == ".jsonl":
        return path.parent, _from_list(path, split)
    if path.is_file():
        return path.parent, sorted(_from_csv(path, names), key=lambda files: files.name)
    if not path.is_dir():
        raise DataError(f"{path}: no such folder or CSV file.")
    inner = [folder for folder in sorted(path.iterdir()) if _is_visible_folder(folder)]
    audio = {folder: _audio_by_stem(folder) for folder in inner}
    audio = {folder: files for folder, files in audio.items() if files}
    if not audio:
        raise DataError(
            f"{path}: no folders with audio in it; expected SONG/STEM.wav, STEM/SONG.wav or a CSV "
            "file with a column per stem."
        )
    if _are_stem_folders(audio, names):
        return path, list(_from_stem_folders(path, audio, names))
    return path, [
        _mixture(
            folder.name,
            {name: file.relative_to(path).as_posix() for name, file in files.items()},
            names,
            where=str(folder),
        )
        for folder, files in audio.items()
    ]


def _from_stem_folders(
    root: Path, audio: Mapping[Path, Mapping[str, Path]], names: _Names
) -> Iterator[MixtureFiles]:
    songs = sorted({song for files in audio.values() for song in files})
    for song in songs:
        missing = [folder.name for folder, files in audio.items() if song not in files]
        if missing:
            raise DataError(
                f"{root / missing[0]}: holds no {song}, though other stems do; every song needs "
                "a file in each folder, silent if need be."
            )
        stems = {
            folder.name: files[song].relative_to(root).as_posix() for folder, files in audio.items()
        }
        yield _mixture(song, stems, names, where=str(root))


def _from_csv(path: Path, names: _Names) -> Iterator[MixtureFiles]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as CSV ({error}).") from error
    if not rows:
        raise DataError(f"{path}: has no rows; the first line names the columns.")
    for number, row in enumerate(rows, start=2):
        stems = {
            column: value for column, value in row.items() if column and value and column != "name"
        }
        missing = [value for value in stems.values() if not (path.parent / value).is_file()]
        if missing:
            raise DataError(f"{path}, line {number}: {path.parent / missing[0]} does not exist.")
        name = row.get("name") or f"line {number}"
        yield _mixture(name, stems, names, where=f"{path}, line {number}")


def _from_list(path: Path, split: str | None) -> list[MixtureFiles]:
    mixtures = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        where = f"{path}, line {number}"
        try:
            mixtures.append(parse(MixtureFiles, json.loads(line), where=where))
        except (ValueError, ConfigError) as error:
            raise DataError(f"{where}: not a mixture ({error}).") from error
    wanted = [files for files in mixtures if split in (None, files.split)]
    if not wanted:
        splits = in_brief(sorted({files.split for files in mixtures}), limit=5) or "none"
        raise DataError(f"{path}: holds no mixture of the split {split!r}; its splits: {splits}.")
    return wanted


def _mixture(name: str, stems: Mapping[str, str], names: _Names, where: str) -> MixtureFiles:
    """One mixture from its stems' paths by name."""
    mixture = next((Track(stems[each]) for each in _MIXTURE_NAMES if each in stems), None)
    references = []
    for stem in sorted(set(stems) - set(_MIXTURE_NAMES), key=_natural):
        prompt = names.prompt(stem)
        if prompt == "-":
            continue
        if prompt is None:
            raise DataError(
                f"{where}: the stem {stem!r} is no prompt of the model; say what it is with --stem "
                f"{stem}=PROMPT, leave it out with --stem {stem}=-, or teach the model a new "
                "prompt (`unbraid teach`)."
            )
        references.append(ReferenceFiles(prompt, (Track(stems[stem]),)))
    if not references:
        found = in_brief(sorted(stems), limit=5) or "nothing"
        raise DataError(f"{where}: holds no stems, only {found}.")
    return MixtureFiles(name, "all", tuple(references), mixture)


def _are_stem_folders(audio: Mapping[Path, Mapping[str, Path]], names: _Names) -> bool:
    """Whether every folder is named like a stem or a mixture."""
    return all(
        folder.name in _MIXTURE_NAMES or names.prompt(folder.name) is not None for folder in audio
    )


def _audio_by_stem(folder: Path) -> dict[str, Path]:
    return {
        file.stem: file
        for file in sorted(folder.iterdir())
        if file.is_file()
        and file.suffix.lower() in MEDIA_EXTENSIONS
        and not file.name.startswith(".")
    }


def _is_visible_folder(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")


def _natural(name: str) -> tuple[str, int]:
    """Sorts ``speech_2`` before ``speech_10``."""
    number = _NUMBER.search(name)
    return _NUMBER.sub("", name), int(number.group()[1:]) if number else 0
