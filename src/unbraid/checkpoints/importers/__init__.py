"""Reads checkpoints of other people's code and turns them into bundles.

Importing is the user's act: no such weights come with this package.
"""

from __future__ import annotations

import re
from pathlib import Path

from unbraid.checkpoints.bundle import Bundle, load_bundle, save_bundle
from unbraid.checkpoints.card import Card
from unbraid.checkpoints.catalogue import embedded_models
from unbraid.checkpoints.importers.released import Released, read_files
from unbraid.checkpoints.importers.tuss import build_released
from unbraid.errors import CheckpointError
from unbraid.folders import user_models_dir
from unbraid.models.waveform import WaveformModel

__all__ = ["import_released", "read_released"]

_NAME = re.compile(r"\w[\w.+-]*")

#: How the SHA-256 of the published files begin, from the release's list of large files.
_PUBLISHED = {"112174a8c894": "tuss.medium.2-4src", "1ed66c06944e": "tuss.large.2-4src"}


def import_released(
    path: Path, out: Path | None = None, name: str | None = None, *, overwrite: bool = False
) -> Bundle:
    """Turn a released TUSS checkpoint into a bundle.

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
    model = _build(released)
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
    return _build(released), _card(released, released.name)


def _build(released: Released) -> WaveformModel:
    return build_released(released.hparams, released.state, str(released.weights))


def _card(released: Released, name: str) -> Card:
    published = _PUBLISHED.get(released.sha256[:12])
    origin = (
        f"It begins like that of the published file of `{published}`."
        if published
        else "It is not that of a published file that unbraid knows."
    )
    return Card(
        name=name,
        licence="AGPL-3.0-or-later",
        source="https://github.com/merlresearch/unified-source-separation",
        description="TUSS weights of the released code, imported by the user",
        text=f"""\
# {name}

These weights were imported with `unbraid models import` from a checkpoint of the TUSS code
released by Mitsubishi Electric Research Laboratories (MERL). They do not come with unbraid.

- **Licence.** The released TUSS code and weights are under AGPL-3.0-or-later, and so is this
  copy of the weights. If you trained the weights yourself, correct the licence above.
- **File.** `{released.weights.name}`, SHA-256 `{released.sha256}`. {origin}
- **Paper.** K. Saijo, J. Ebbers, F. G. Germain, G. Wichern, J. Le Roux, "Task-aware unified
  source separation", ICASSP 2025, arXiv 2410.23987. The authors say that the released weights
  are retrained and not those of the paper.
- **Names.** The prompts `sfxbg` and `musicbg` of the release are `sfx-mix` and `music-mix` here;
  the old names are accepted too.
""",
    )
