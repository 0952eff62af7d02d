"""Reads checkpoints of other people's code and turns them into bundles.

Importing is the user's act: no such weights come with this package.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from unbraid.checkpoints.bundle import Bundle, load_bundle, save_bundle
from unbraid.checkpoints.card import Card
from unbraid.checkpoints.catalogue import embedded_models
from unbraid.checkpoints.importers import tf_locoformer, tuss, unconditional
from unbraid.checkpoints.importers.released import Released, read_files
from unbraid.checkpoints.known_models import find_by_digest
from unbraid.errors import CheckpointError
from unbraid.folders import user_models_dir
from unbraid.models.waveform import WaveformModel

__all__ = ["build", "import_released", "read_released"]

_NAME = re.compile(r"\w[\w.+-]*")


def import_released(
    path: Path, out: Path | None = None, name: str | None = None, *, overwrite: bool = False
) -> Bundle:
    """Turn a released checkpoint into a bundle: TUSS, its unconditional baseline, TF-Locoformer.

    Args:
        path: A released folder (``hparams.yaml`` and ``checkpoints/model.pth``), or a
            ``.pth`` or Lightning ``.ckpt`` file whose settings lie beside it, up to two
            folders above it, or inside it.
        out: The bundle to write; None for a folder ``name`` among the user's models.
        name: What to call the model; None for the name of ``out``, or else of the released
            folder.
        overwrite: Replace a bundle that is there already.

    Returns:
        The bundle, loaded back from where it was written.

    Raises:
        CheckpointError: If the checkpoint is missing, damaged, of an unsupported
            architecture, does not account for every tensor, or cannot be written.
    """
    released = read_files(path)
    name = name or (out.name if out is not None else "") or released.name
    if out is None:
        if not _NAME.fullmatch(name):
            raise CheckpointError(
                f"{name!r} cannot be the name of a model; give a name of letters, digits, "
                "'.', '-' and '_'."
            )
        if name in embedded_models():
            raise CheckpointError(
                f"{name}: a model of that name comes with unbraid; choose another name."
            )
        out = user_models_dir() / name
    model = build(released)
    save_bundle(model, out, _card(released, name), overwrite=overwrite)
    return load_bundle(out)


def read_released(path: Path) -> tuple[WaveformModel, Card]:
    """Load a released checkpoint without writing anything.

    Args:
        path: As in ``import_released``.

    Raises:
        CheckpointError: As in ``import_released``.
    """
    released = read_files(path)
    return build(released), _card(released, released.name)


def build(released: Released) -> WaveformModel:
    """Build the model that the files describe.

    Raises:
        CheckpointError: As in ``import_released``.
    """
    return _family(released).build(released.hparams, released.state, str(released.weights))


@dataclass(frozen=True)
class _Family:
    """Checkpoints of one code.

    Attributes:
        title: What they are.
        build: Settings, tensors and what to call them in errors → the model.
        source: The code's page.
        licence: Under which its publisher releases weights.
        paper: Where it is described.
    """

    title: str
    build: Callable[[Mapping[str, Any], Mapping[str, Tensor], str], WaveformModel]
    source: str
    licence: str
    paper: str


_TUSS_PAPER = (
    'K. Saijo, J. Ebbers, F. G. Germain, G. Wichern, J. Le Roux, "Task-aware unified source '
    'separation", ICASSP 2025, arXiv 2410.23987.'
)
_TUSS_SOURCE = "https://github.com/merlresearch/unified-source-separation"

_TUSS = _Family("TUSS", tuss.build_released, _TUSS_SOURCE, "AGPL-3.0-or-later", _TUSS_PAPER)
_UNCONDITIONAL = _Family(
    "the unconditional baseline of TUSS",
    unconditional.build_released,
    _TUSS_SOURCE,
    "AGPL-3.0-or-later",
    _TUSS_PAPER,
)
_LOCOFORMER = _Family(
    "TF-Locoformer",
    tf_locoformer.build_released,
    "https://github.com/merlresearch/tf-locoformer",
    "Apache-2.0",
    'K. Saijo, G. Wichern, F. G. Germain, Z. Pan, J. Le Roux, "TF-Locoformer", IWAENC 2024, '
    "arXiv 2408.03440.",
)


def _family(released: Released) -> _Family:
    """Whose checkpoint it is, by the word that its settings have for the network."""
    if released.hparams.get("separator") == "tflocoformer":
        return _LOCOFORMER
    if released.hparams.get("model_name") == "bslocoformer_stack":
        return _UNCONDITIONAL
    return _TUSS


def _card(released: Released, name: str) -> Card:
    family = _family(released)
    published = find_by_digest(released.sha256)
    origin = (
        f"It is that of the published file of `{published.name}`."
        if published
        else "It is not that of a published file that unbraid knows."
    )
    return Card(
        name=name,
        licence=family.licence,
        source=family.source,
        description=f"weights of the released code of {family.title}, imported by the user",
        text=f"""\
# {name}

These weights were imported with `unbraid models import` from a checkpoint of {family.title}
({family.source}). They do not come with unbraid.

- **Licence.** The released weights are under {family.licence}, and so is this copy of them. If you
  trained the weights yourself, correct the licence above.
- **File.** `{released.weights.name}`, SHA-256 `{released.sha256}`. {origin}
- **Paper.** {family.paper}
- **Names.** The prompts `sfxbg` and `musicbg` of TUSS are `sfx-mix` and `music-mix` here; the old
  names are accepted too.
""",
    )
