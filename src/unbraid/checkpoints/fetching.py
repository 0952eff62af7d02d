"""Released checkpoints by name: fetched from their publisher, checked, turned into a bundle.

The files lie in the user's cache while they come (``user_cache_dir() / "released" / NAME``). What
was interrupted goes on there next time; what became a model is removed from there.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from unbraid.checkpoints import known_models
from unbraid.checkpoints.bundle import Bundle, load_bundle, save_bundle
from unbraid.checkpoints.card import Card
from unbraid.checkpoints.catalogue import how_to_get, user_models
from unbraid.checkpoints.importers import build
from unbraid.checkpoints.importers.released import read_files
from unbraid.checkpoints.known_models import KnownModel
from unbraid.checkpoints.network import offline_switch
from unbraid.checkpoints.upkeep import note_digest, verify_bundle
from unbraid.config import nearest
from unbraid.downloads import fetch, is_whole, size_in_words
from unbraid.errors import CheckpointError, ConfigError, DownloadError
from unbraid.folders import user_cache_dir, user_models_dir
from unbraid.types import Step, StepCallback

#: Where the settings of a checkpoint that came without any are written, for the importers.
_SETTINGS = "hparams.yaml"


def find_downloadable(name: str) -> KnownModel:
    """The released checkpoint of that name.

    Raises:
        CheckpointError: If there is none, or unbraid cannot fetch it.
    """
    known = known_models.find(name)
    if known is None:
        names = [model.name for model in known_models.KNOWN_MODELS if model.can_be_fetched]
        raise CheckpointError(f"{name}: not a model that can be downloaded; {nearest(name, names)}")
    if not known.can_be_fetched:
        raise CheckpointError(f"{name}: {how_to_get(known)} {known.notes}".strip())
    return known


def find_downloaded(name: str) -> Path | None:
    """The folder of a released checkpoint that is here already and as it was written.

    Returns:
        The folder; None if it is not here.

    Raises:
        CheckpointError: If something else is in its place, or it has been changed or damaged.
    """
    if (folder := user_models().get(name)) is not None:
        found = verify_bundle(folder, name)
        if not found.is_as_written:
            raise CheckpointError(
                f"{name}: is here but {found.state}; remove it with `unbraid models remove {name}` "
                "and download it again."
            )
        return folder
    folder = user_models_dir() / name
    if folder.exists() and not (folder.is_dir() and next(folder.iterdir(), None) is None):
        raise CheckpointError(f"{folder}: is in the way and is no whole model; move it away first.")
    return None


def download_model(
    name: str,
    *,
    accept_licence: bool = False,
    keep_files: bool = False,
    progress: StepCallback | None = None,
    cancel: threading.Event | None = None,
) -> Bundle:
    """Fetch a released checkpoint and make it one of the user's models.

    One that is here already is loaded as it is. What an earlier call has left of the files is
    used.

    Args:
        name: A name in ``known_models``.
        accept_licence: Whether the user agrees to the licence; needed where it asks for more
            than keeping its notice.
        keep_files: Keep the files of the publisher in the cache.
        progress: Called with every step.
        cancel: Set it to stop a download.

    Returns:
        The model, loaded from where it was written.

    Raises:
        CheckpointError: If there is no such checkpoint, something is in its place, or what came
            is not the model that it should be.
        ConfigError: If the licence has not been accepted.
        DownloadError: If the network is forbidden or fails, or a file is not what its publisher
            promised; such a file is thrown away.
        Cancelled: If it was stopped. What has come stays for the next call.
    """
    known = find_downloadable(name)
    if (folder := find_downloaded(name)) is not None:
        return load_bundle(folder)
    if known.needs_consent and not accept_licence:
        raise ConfigError(
            f"{name}: its weights are under {known.licence} ({known.source}); "
            "say that you agree with --accept-licence."
        )
    home = user_cache_dir() / "released" / name
    report = progress or _silent
    _fetch_files(known, home, report, cancel)
    report(Step(f"importing {name}", 0, None, "files"))
    bundle = _import(known, home)
    if not keep_files:
        shutil.rmtree(home, ignore_errors=True)
    return bundle


def _silent(step: Step) -> None:
    """Report to nobody."""


# ------------------------------------------------------------------ fetching


def _fetch_files(
    known: KnownModel, home: Path, report: StepCallback, cancel: threading.Event | None
) -> None:
    missing = [
        file for file in known.files if not is_whole(home / file.name, file.size_bytes, file.digest)
    ]
    if missing and (switch := offline_switch()):
        raise DownloadError(
            f"{known.name}: is not here, and {switch} forbids the network; unset it, or copy the "
            f"folder of the model from another machine into {user_models_dir()}."
        )
    for file in missing:
        fetch(
            file.url,
            home / file.name,
            size_bytes=file.size_bytes,
            digest=file.digest,
            progress=_counter(f"fetching {known.name}: {file.name}", report),
            cancel=cancel,
        )


def _counter(name: str, report: StepCallback) -> Callable[[int, int | None], None]:
    def count(done: int, total: int | None) -> None:
        report(Step(name, done, total, "bytes"))

    return count


# ------------------------------------------------------------------ the way into a bundle


def _import(known: KnownModel, home: Path) -> Bundle:
    """Build the model from the files and write it among the user's."""
    if known.settings is not None:
        _write_settings(known.settings, home / _SETTINGS)
    released = read_files(home / known.files[-1].name)
    model = build(released)
    folder = save_bundle(model, user_models_dir() / known.name, _card(known, released.sha256))
    note_digest(folder)
    return load_bundle(folder)


def _write_settings(settings: Mapping[str, Any], path: Path) -> None:
    # On disk rather than in memory, so that files that are kept can be imported by hand, too.
    try:
        path.write_text(yaml.safe_dump(dict(settings), sort_keys=False), encoding="utf-8")
    except OSError as error:
        raise DownloadError(f"{path}: cannot be written ({error.strerror}); make room.") from error


def _card(known: KnownModel, sha256: str) -> Card:
    weights = known.files[-1]
    return Card(
        name=known.name,
        licence=known.licence,
        source=known.source,
        description=known.title,
        text=f"""\
# {known.name}

{known.title}.

These weights were fetched from their publisher and imported with `unbraid models download`. They
do not come with unbraid.

- **Licence.** The weights are under {known.licence}, and so is this copy of them.
- **File.** {weights.url} ({size_in_words(weights.size_bytes or 0)}), SHA-256 `{sha256}`.
- **Paper.** {known.paper}
- **Good to know.** {known.notes}
""",
    )
