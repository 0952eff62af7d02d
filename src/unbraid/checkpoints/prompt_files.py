"""A taught prompt on disk: one small file that cannot run code.

``NAME.prompt.safetensors`` holds one tensor, ``vectors`` [vector, dim] in float32, and metadata:

===============  =================================================================
``format``       ``unbraid-prompt-1``
``name``         what the prompt is called
``fingerprint``  of the model in whose space the vectors lie (``model_fingerprint``)
``provenance``   what it was made from, as JSON; see the keys below
===============  =================================================================

Vectors mean something to one network only. So a prompt carries that network's fingerprint, and
is refused everywhere else.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load as deserialize
from torch import Tensor

from unbraid import config as configs
from unbraid.checkpoints.accounting import not_finite
from unbraid.checkpoints.bundle import MODEL, read_config
from unbraid.dsp.stft import StftConfig
from unbraid.errors import CheckpointError, PromptError, UnbraidError

#: Version of the layout described above.
FORMAT = 1

#: How the file of a prompt ends.
ENDING = ".prompt.safetensors"

# ------------------------------------------------------------------ keys of the provenance
# All of them may be missing, and there may be others.

#: Name of the model that the prompt was made for.
MODEL_NAME: Final = "model"
#: SHA-256 of that model's bundle.
MODEL_DIGEST: Final = "model_digest"
#: Version of unbraid that made it.
UNBRAID: Final = "unbraid"
#: When: ISO 8601.
CREATED: Final = "created"
#: The recordings that it was made from: a list of ``{name, sha256, seconds}``.
CLIPS: Final = "clips"
#: What they were mixed with.
BACKGROUND: Final = "background"
#: How it was made.
SETTINGS: Final = "settings"
#: SI-SDR improvement in dB on recordings kept aside, with what the prompt began as.
BEFORE_DB: Final = "before_db"
#: The same with the finished prompt.
AFTER_DB: Final = "after_db"
#: Standard error of the difference of these two.
GAIN_ERROR_DB: Final = "gain_error_db"
#: What that means, in words.
VERDICT: Final = "verdict"
#: Level of the stem relative to mixtures in which its sound is absent, in dB: the median.
ABSENT_DB: Final = "absent_db"
#: The highest of these.
ABSENT_WORST_DB: Final = "absent_worst_db"
#: What may be done with it.
LICENCE: Final = "licence"
#: Anything else that people should know.
NOTE: Final = "note"

_FORMAT_PREFIX = "unbraid-prompt-"
_TENSOR = "vectors"
_METADATA = "__metadata__"
_FIELDS = ("format", "name", "fingerprint", "provenance")
_LONGEST_NAME = 64
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_NUMBERED = re.compile(r".*_[0-9]+")
_DEVICES = re.compile(r"con|prn|aux|nul|com[0-9]|lpt[0-9]", re.IGNORECASE)
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_MOST_DB = 1000
#: Much more than any prompt needs, and little enough to be read whatever it is.
_MOST_BYTES = 4 * 2**20
#: What the settings of a bundle say about the network, and so about the space of its prompts.
_SPACE = ("architecture", "sample_rate", "stft", "network", "level")


@dataclass(frozen=True, eq=False)
class PromptFile:
    """A taught prompt.

    Attributes:
        name: What it is called, see ``check_prompt_name``.
        vectors: float32; one for all bands of the model, or one for each.
        fingerprint: Of the model in whose space it lies, see ``model_fingerprint``.
        provenance: What it was made from: plain data as JSON has it, under free keys. Those that
            unbraid knows are constants of this module.

    Raises:
        PromptError: If the name cannot be one.
        CheckpointError: If there is no table of vectors, a value in it is not finite, the
            fingerprint is none, or the provenance is no JSON.
    """

    name: str
    vectors: Float[Tensor, "vector dim"]
    fingerprint: str
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_prompt_name(self.name)
        if not _FINGERPRINT.fullmatch(self.fingerprint):
            raise CheckpointError(
                f"prompt {self.name!r}: {self.fingerprint[:80]!r} is no model's fingerprint, which "
                "has 64 hexadecimal digits."
            )
        if (
            self.vectors.ndim != 2
            or not self.vectors.numel()
            or not_finite({_TENSOR: self.vectors})
        ):
            raise CheckpointError(
                f"prompt {self.name!r}: is no table of vectors [vector, dim], or holds values that "
                "are no finite numbers; make or get it again."
            )
        try:
            _as_json(self.provenance)
        except (TypeError, ValueError, RecursionError) as error:
            raise CheckpointError(
                f"prompt {self.name!r}: what it says about where it comes from is no JSON "
                f"({error}); make or get it again."
            ) from error

    @property
    def num_vectors(self) -> int:
        """How many vectors it has."""
        return self.vectors.shape[0]

    @property
    def num_clips(self) -> int | None:
        """From how many recordings it was made; None where that is not said."""
        clips = self.provenance.get(CLIPS)
        return len(clips) if isinstance(clips, list) else None

    @property
    def before_db(self) -> float | None:
        """``BEFORE_DB``; None where that is not said."""
        return self._number(BEFORE_DB)

    @property
    def after_db(self) -> float | None:
        """``AFTER_DB``; None where that is not said."""
        return self._number(AFTER_DB)

    @property
    def gain_error_db(self) -> float | None:
        """``GAIN_ERROR_DB``; None where that is not said."""
        return self._number(GAIN_ERROR_DB)

    @property
    def absent_db(self) -> float | None:
        """``ABSENT_DB``; None where that is not said."""
        return self._number(ABSENT_DB)

    @property
    def absent_worst_db(self) -> float | None:
        """``ABSENT_WORST_DB``; None where that is not said."""
        return self._number(ABSENT_WORST_DB)

    def text(self, key: str) -> str:
        """What the provenance says under a key; empty where that is no text or not said."""
        value = self.provenance.get(key)
        return value if isinstance(value, str) else ""

    def _number(self, key: str) -> float | None:
        value = self.provenance.get(key)
        if not isinstance(value, int | float) or isinstance(value, bool):
            return None
        # Files of others may hold whole numbers that no float can.
        return float(value) if abs(value) < _MOST_DB else None


def check_prompt_name(name: str) -> None:
    """Refuse what cannot name a prompt, its file and its stems on every system.

    A name is made of at most 64 letters (a to z), digits, ``-`` and ``_``, and begins with a
    letter. It does not end in ``_`` and a number, as the stems of repeated prompts do, and is no
    device of Windows.

    Raises:
        PromptError: For any other name.
    """
    if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
        problem = f"use up to {_LONGEST_NAME} letters (a to z), digits, - and _, a letter first"
    elif _DEVICES.fullmatch(name):
        problem = "Windows keeps it for a device; choose another one"
    elif _NUMBERED.fullmatch(name):
        problem = "stems of repeated prompts end in _ and a number; use - in place of _"
    else:
        return
    raise PromptError(f"{name[:80]!r} cannot be the name of a prompt: {problem}.")


def is_prompt_path(text: str | Path) -> bool:
    """Whether this is the path of a prompt file rather than the name of a prompt."""
    return str(text).endswith(ENDING)


def save_prompt(prompt: PromptFile, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write a prompt; the file appears when it is whole. Equal prompts give equal files.

    Args:
        prompt: What to keep.
        path: A file that ends in ``.prompt.safetensors``, or a folder that is there, which gets
            ``NAME.prompt.safetensors``. Missing folders on the way are made.
        overwrite: Replace a file that is there already.

    Returns:
        The file.

    Raises:
        CheckpointError: If the path has another ending, something is in the way, the disk
            refuses, or it says too much (4 MiB) about where it comes from.
    """
    path = Path(path)
    if path.is_dir():
        path = path / f"{prompt.name}{ENDING}"
    if not is_prompt_path(path):
        raise CheckpointError(f"{path}: the file of a prompt ends in {ENDING}; name it so.")
    content = _content(prompt)
    if len(content) > _MOST_BYTES:
        raise CheckpointError(
            f"{path}: {len(content)} bytes are too many for a prompt; say less in its provenance."
        )
    write_prompt(content, path, overwrite=overwrite)
    return path


def load_prompt(path: str | Path) -> PromptFile:
    """Read a prompt, and check all of it.

    Raises:
        CheckpointError: If the file is missing, damaged, not a prompt, or of a newer format.
        PromptError: If it bears a name that no prompt can have.
    """
    path = Path(path)
    return parse_prompt(read_content(path), path)


def prompt_digest(path: str | Path) -> str:
    """SHA-256 of the file of a prompt, as ``sha256sum`` gives it.

    Raises:
        CheckpointError: If it cannot be read.
    """
    return hashlib.sha256(read_content(Path(path))).hexdigest()


def model_fingerprint(folder: Path) -> str:
    """SHA-256 over all that makes the space in which a model's prompts lie.

    That is the file of the network's weights and, in ``config.json``, architecture, sample rate,
    transform, network and level. Prompts that a model has learned, its way with chunks and stereo,
    and its card change nothing.

    Args:
        folder: The bundle.

    Returns:
        64 hexadecimal digits.

    Raises:
        CheckpointError: If the folder is no bundle, or cannot be read.
    """
    settings = configs.dump(read_config(folder))
    space = {key: settings[key] for key in _SPACE}
    # Without what is as usual: a setting that a transform gets one day changes no old model.
    usual = configs.dump(StftConfig())
    space["stft"] = {key: value for key, value in space["stft"].items() if value != usual[key]}
    sha256 = hashlib.sha256(json.dumps(space, sort_keys=True).encode() + b"\n")
    try:
        with (folder / MODEL).open("rb") as file:
            while block := file.read(1 << 20):
                sha256.update(block)
    except OSError as error:
        raise CheckpointError(f"{folder / MODEL}: cannot be read ({error.strerror}).") from error
    return sha256.hexdigest()


def read_content(path: Path) -> bytes:
    """The bytes of a prompt file, to be checked by ``parse_prompt``.

    Raises:
        CheckpointError: If it is missing, cannot be read, or is far too big.
    """
    try:
        if not path.is_file():
            raise CheckpointError(f"{path}: there is no such file; give the file of a prompt.")
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{path}: cannot be read ({problem}).") from error
    if len(content) > _MOST_BYTES:
        raise CheckpointError(f"{path}: too big for a prompt; models are named by their folder.")
    return content


def parse_prompt(content: bytes, path: Path) -> PromptFile:
    """The prompt in the bytes of a file.

    Args:
        content: What ``read_content`` gave.
        path: What to call it in error messages.

    Raises:
        CheckpointError, PromptError: As ``load_prompt``.
    """
    try:
        # First, for it insists that the header is sound and every byte accounted for.
        tensors = deserialize(content)
        length = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + length]).get(_METADATA) or {}
    except (SafetensorError, ValueError, RecursionError, KeyError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: not a whole prompt file ({' '.join(str(error).split())}); get it again."
        ) from error
    _check_format(metadata.get("format", ""), path)
    vectors = tensors.get(_TENSOR)
    is_whole = (
        tensors.keys() == {_TENSOR}
        and metadata.keys() >= set(_FIELDS)
        and vectors is not None
        and vectors.ndim == 2
        and vectors.dtype == torch.float32
    )
    if not is_whole or vectors is None:
        raise CheckpointError(
            f"{path}: damaged, a prompt holds the tensor {_TENSOR} [vector, dim] in float32 and "
            f"{', '.join(_FIELDS)}; get it again."
        )
    try:
        provenance = json.loads(metadata["provenance"])
        if not isinstance(provenance, dict):
            raise ValueError("not keys with values")
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: damaged, its provenance is no JSON ({' '.join(str(error).split())}); "
            "get it again."
        ) from error
    try:
        return PromptFile(metadata["name"], vectors, metadata["fingerprint"], provenance)
    except UnbraidError as error:
        raise type(error)(f"{path}: {error}") from error


def write_prompt(content: bytes, path: Path, *, overwrite: bool) -> None:
    """Let a prompt file appear under its name when it is whole.

    Raises:
        CheckpointError: If something is in the way, or the disk refuses.
    """
    partial = path.with_name(f".unbraid-{uuid.uuid4().hex[:8]}.partial")
    try:
        if path.exists() and not (overwrite and path.is_file()):
            raise CheckpointError(
                f"{path}: is there already; choose another name or say to overwrite it."
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_bytes(content)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{path}: the prompt cannot be written ({problem}).") from error


def _content(prompt: PromptFile) -> bytes:
    """The bytes of a file: eight of length, the header as JSON, the vectors.

    Written here because safetensors puts metadata in an order that changes from run to run.
    """
    vectors = prompt.vectors.detach().to("cpu", torch.float32).contiguous().numpy()
    data = vectors.astype("<f4").tobytes()
    metadata = {
        "format": f"{_FORMAT_PREFIX}{FORMAT}",
        "name": prompt.name,
        "fingerprint": prompt.fingerprint,
        "provenance": _as_json(prompt.provenance),
    }
    tensor = {"dtype": "F32", "shape": list(vectors.shape), "data_offsets": [0, len(data)]}
    header = json.dumps({_METADATA: metadata, _TENSOR: tensor}).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data


def _as_json(provenance: Mapping[str, Any]) -> str:
    return json.dumps(dict(provenance), sort_keys=True, allow_nan=False)


def _check_format(written: object, path: Path) -> None:
    """Refuse files of other programs, and of programs to come."""
    number = str(written).removeprefix(_FORMAT_PREFIX)
    if number == written or not re.fullmatch(r"[0-9]{1,9}", number):
        raise CheckpointError(
            f"{path}: not the file of a prompt; models are named by their folder, prompts by "
            f"NAME{ENDING}."
        )
    if int(number) != FORMAT:
        raise CheckpointError(
            f"{path}: prompt format {number} is not one that this version of unbraid reads (it "
            f"reads {FORMAT}); install a newer unbraid."
        )
