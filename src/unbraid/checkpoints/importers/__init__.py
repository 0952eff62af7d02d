"""Reads checkpoints of other people's code and turns them into bundles.

Importing is the user's act: no such weights come with this package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from unbraid.checkpoints.bundle import Bundle, load_bundle, save_bundle
from unbraid.checkpoints.card import Card
from unbraid.checkpoints.catalogue import own_model_folder
from unbraid.checkpoints.importers import sfc, st_sed_sep, tf_locoformer, tuss, unconditional
from unbraid.checkpoints.importers.released import Released, read_files
from unbraid.checkpoints.known_models import find_by_digest
from unbraid.errors import CheckpointError
from unbraid.models.waveform import WaveformModel
from unbraid.prompts import canonical_name

__all__ = ["build", "import_released", "read_released"]


def import_released(
    path: Path,
    out: Path | None = None,
    name: str | None = None,
    *,
    outputs: Sequence[str] | None = None,
    tagger: Path | None = None,
    overwrite: bool = False,
) -> Bundle:
    """Turn a released checkpoint into a bundle.

    TUSS and its unconditional baseline, TF-Locoformer, SFC and ST-SED-SEP are read.

    Args:
        path: A released folder (``hparams.yaml`` and ``checkpoints/model.pth``), or a
            ``.pth`` or Lightning ``.ckpt`` file whose settings lie beside it, up to two
            folders above it, or inside it.
        out: The bundle to write; None for a folder ``name`` among the user's models.
        name: What to call the model; None for the name of ``out``, or else of the released
            folder.
        outputs: What the outputs of a model without prompts hold, in order; needed where the
            files do not say it, and for models trained on kinds of their own.
        tagger: The checkpoint of the tagger whose latents a model takes for queries; it becomes
            a part of the model.
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
        out = own_model_folder(name)
    model = build(released, outputs, None if tagger is None else read_files(tagger))
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


def build(
    released: Released, outputs: Sequence[str] | None = None, tagger: Released | None = None
) -> WaveformModel:
    """Build the model that the files describe.

    Args:
        released: The files.
        outputs: As in ``import_released``.
        tagger: The files of the tagger, if there is one.

    Raises:
        CheckpointError: As in ``import_released``.
    """
    family = _family(released)
    where = str(released.weights)
    names = tuple(canonical_name(name) for name in outputs or ())
    if tagger is not None and not family.takes_tagger:
        raise CheckpointError(f"{where}: {family.title} has no tagger; leave it out.")
    if family.build_with_outputs is not None:
        return family.build_with_outputs(released.hparams, released.state, where, names or None)
    if names:
        raise CheckpointError(
            f"{where}: {family.title} says itself what comes out; leave the names of outputs out."
        )
    if family.takes_tagger:
        return _with_tagger(released, tagger)
    assert family.build is not None, "a family has one way or the other"
    return family.build(released.hparams, released.state, where)


def _with_tagger(released: Released, tagger: Released | None) -> WaveformModel:
    where = str(released.weights)
    if st_sed_sep.is_tagger(released.state):
        raise CheckpointError(
            f"{where}: is a tagger, which separates nothing by itself; import its separator and "
            "give this file with --tagger."
        )
    if tagger is None:
        return st_sed_sep.build_released(released.state, where)
    if not st_sed_sep.is_tagger(tagger.state):
        raise CheckpointError(
            f"{tagger.weights}: is not the checkpoint of an HTS-AT tagger; give the one that the "
            "separator was trained with."
        )
    return st_sed_sep.build_released(released.state, where, tagger.state, str(tagger.weights))


@dataclass(frozen=True)
class _Family:
    """Checkpoints of one code.

    Attributes:
        title: What they are.
        build: Settings, tensors and what to call them in errors → the model; None where the
            outputs can be named.
        build_with_outputs: The same with the names of the outputs, or None for the usual ones.
        source: The code's page.
        licence: Under which its publisher releases weights.
        paper: Where it is described.
        takes_tagger: Whether the network is queried with what a tagger hears.
    """

    title: str
    source: str
    licence: str
    paper: str
    build: Callable[[Mapping[str, Any], Mapping[str, Tensor], str], WaveformModel] | None = None
    build_with_outputs: (
        Callable[
            [Mapping[str, Any], Mapping[str, Tensor], str, Sequence[str] | None], WaveformModel
        ]
        | None
    ) = None
    takes_tagger: bool = False


_TUSS_PAPER = (
    'K. Saijo, J. Ebbers, F. G. Germain, G. Wichern, J. Le Roux, "Task-aware unified source '
    'separation", ICASSP 2025, arXiv 2410.23987.'
)
_TUSS_SOURCE = "https://github.com/merlresearch/unified-source-separation"

_TUSS = _Family("TUSS", _TUSS_SOURCE, "AGPL-3.0-or-later", _TUSS_PAPER, build=tuss.build_released)
_UNCONDITIONAL = _Family(
    "the unconditional baseline of TUSS",
    _TUSS_SOURCE,
    "AGPL-3.0-or-later",
    _TUSS_PAPER,
    build_with_outputs=unconditional.build_released,
)
_LOCOFORMER = _Family(
    "TF-Locoformer",
    "https://github.com/merlresearch/tf-locoformer",
    "Apache-2.0",
    'K. Saijo, G. Wichern, F. G. Germain, Z. Pan, J. Le Roux, "TF-Locoformer", IWAENC 2024, '
    "arXiv 2408.03440.",
    build=tf_locoformer.build_released,
)
_SFC = _Family(
    "spectral feature compression",
    "https://github.com/b-sigpro/spectral-feature-compression",
    "not stated",
    'K. Saijo, Y. Bando, "Input-adaptive spectral feature compression by sequence modeling for '
    'source separation", IEEE TASLP 2026, arXiv 2602.08671.',
    build_with_outputs=sfc.build_released,
)
_ST_SED_SEP = _Family(
    "ST-SED-SEP",
    "https://github.com/RetroCirce/Zero_Shot_Audio_Source_Separation",
    "MIT",
    'K. Chen, X. Du, B. Zhu, Z. Ma, T. Berg-Kirkpatrick, S. Dubnov, "Zero-shot audio source '
    'separation through query-based learning from weakly-labeled data", AAAI 2022, '
    "arXiv 2112.07891.",
    takes_tagger=True,
)


def _family(released: Released) -> _Family:
    """Whose checkpoint it is, by the names of its tensors or what its settings call the network."""
    if sfc.is_sfc(released.state):
        return _SFC
    if st_sed_sep.is_separator(released.state) or st_sed_sep.is_tagger(released.state):
        return _ST_SED_SEP
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

- **Licence.** Of the released weights: {family.licence}; so it is of this copy. If you trained
  the weights yourself, correct the licence above.
- **File.** `{released.weights.name}`, SHA-256 `{released.sha256}`. {origin}
- **Paper.** {family.paper}
- **Names.** The prompts `sfxbg` and `musicbg` of TUSS are `sfx-mix` and `music-mix` here; the old
  names are accepted too.
""",
    )
