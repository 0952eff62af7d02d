"""Models on the Hugging Face hub: fetched once, checked, then kept in the hub's own cache."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from unbraid.checkpoints.bundle import FILES, POSSIBLE_FILES
from unbraid.checkpoints.network import offline_switch
from unbraid.errors import CheckpointError, in_brief

#: How the name of a model on the hub begins.
PREFIX = "hf:"

_REFERENCE = re.compile(r"hf:(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")


def fetch(reference: str, *, endpoint: str | None = None, cache_dir: Path | None = None) -> Path:
    """Fetch a bundle from the hub, or find it in the cache.

    Only the files of a bundle are fetched. Their SHA-256 (for the small files their git
    hash) is compared with what the hub lists whenever the hub can be reached; offline, the
    copy in the cache is used as it is.

    Args:
        reference: ``hf:owner/name``, or ``hf:owner/name@revision`` with a branch, tag or commit.
        endpoint: Address of the hub; None for ``HF_ENDPOINT`` or the public hub.
        cache_dir: Where to keep the files; None for the hub's own cache.

    Returns:
        The folder in the cache.

    Raises:
        CheckpointError: If the name makes no sense, there is no such model, the hub cannot be
            reached and the cache has no copy, or a file is not what the hub lists.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise CheckpointError(
            f"{reference}: not a model on the hub; write hf:owner/name or hf:owner/name@revision."
        )
    repo, revision = match["repo"], match["revision"]
    folder = _download(reference, repo, revision, endpoint, cache_dir)
    if missing := [name for name in FILES if not (folder / name).is_file()]:
        raise CheckpointError(
            f"{reference}: not a model of unbraid, it has no {' and no '.join(missing)}."
        )
    _verify(reference, repo, folder, endpoint)
    return folder


def _download(
    reference: str, repo: str, revision: str | None, endpoint: str | None, cache_dir: Path | None
) -> Path:
    # Imported late: it reads its environment variables on import, and few commands need it.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(
            snapshot_download(
                repo,
                local_files_only=bool(offline_switch()),
                revision=revision,
                endpoint=endpoint,
                cache_dir=cache_dir,
                allow_patterns=list(POSSIBLE_FILES),
            )
        )
    except HFValidationError as error:
        raise CheckpointError(f"{reference}: the hub allows no such name ({error}).") from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(
            f"{reference}: there is no such model on the hub, or it is private; "
            "check the name, or log in with `hf auth login`."
        ) from error
    except RevisionNotFoundError as error:
        raise CheckpointError(
            f"{reference}: the model has no revision {revision}; give a branch, tag or commit."
        ) from error
    except EntryNotFoundError as error:
        # Also raised when the hub cannot be reached and the cache has no whole copy.
        raise CheckpointError(
            f"{reference}: the hub cannot be reached and there is no whole copy in the cache; "
            "connect once to fetch the model, or give the folder of a model."
        ) from error
    except Exception as error:
        # What else the hub's client raises (HTTP, disk, a wrong size) differs by its version.
        raise CheckpointError(f"{reference}: cannot be fetched ({_one_line(error)}).") from error


def _verify(reference: str, repo: str, folder: Path, endpoint: str | None) -> None:
    """Compare the files with what the hub lists; throw away those that differ."""
    if offline_switch():
        return
    from huggingface_hub import HfApi

    try:
        # The folder in the cache is named by the commit, so this lists just these files.
        listing = HfApi(endpoint=endpoint).model_info(
            repo, revision=folder.name, files_metadata=True
        )
    except Exception:
        # Offline, or the hub is down: each file was compared when it came.
        return
    listed = {file.rfilename: file for file in listing.siblings or ()}
    present = [name for name in POSSIBLE_FILES if (folder / name).is_file()]
    damaged = [name for name in present if not _is_as_listed(folder / name, listed.get(name))]
    for name in damaged:
        _forget(folder / name)
    if damaged:
        raise CheckpointError(
            f"{reference}: {in_brief(damaged)} is not what the hub lists (wrong digest), and was "
            "thrown away; try again, and do not use the model if it happens again."
        )


def _is_as_listed(path: Path, listed: Any) -> bool:
    """Whether the file has the hash that the hub lists: SHA-256 of big files, git's of small."""
    if listed is None:
        return False
    if listed.lfs is not None:
        with path.open("rb") as file:
            return bool(hashlib.file_digest(file, "sha256").hexdigest() == listed.lfs.sha256)
    content = path.read_bytes()
    git = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
    return bool(git.hexdigest() == listed.blob_id)


def _forget(path: Path) -> None:
    """Remove a file from the cache, and the blob that it links to."""
    path.resolve().unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
