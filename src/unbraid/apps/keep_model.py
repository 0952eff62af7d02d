"""A model that learnt on, put where it stays: a new bundle, and its report beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from unbraid.apps.whole_files import make_folder, write_whole
from unbraid.checkpoints.bundle import Bundle, refuse_what_is_in_the_way, save_bundle
from unbraid.checkpoints.card import Card
from unbraid.errors import CheckpointError
from unbraid.models.waveform import WaveformModel


@dataclass(frozen=True)
class KeptModel:
    """Where it is.

    Attributes:
        bundle: The model's folder.
        report: The page about it.
    """

    bundle: Path
    report: Path


def refuse_taken(folder: Path, source: Bundle, *, overwrite: bool) -> None:
    """Make sure that a model can be kept there, before work goes into it.

    Raises:
        CheckpointError: If the folder is that of the source, or taken and not to be replaced.
    """
    if folder.resolve() == source.folder.resolve():
        raise CheckpointError(
            f"{folder}: is the model that is to be tuned; choose another --out, so that both can "
            "be compared."
        )
    refuse_what_is_in_the_way(folder, overwrite=overwrite)
    report = _report_of(folder)
    if report.exists() and not overwrite:
        raise CheckpointError(f"{report}: exists already; choose another --out or --overwrite it.")


def keep_model(
    model: WaveformModel,
    folder: Path,
    card: Card,
    page: str,
    source: Bundle,
    *,
    overwrite: bool = False,
) -> KeptModel:
    """Write a model and its report, each whole or not at all.

    The report lies beside the model, ``FOLDER.html``: nothing but its files is in a bundle.

    Args:
        model: What learnt.
        folder: Where the model goes.
        card: Of the model.
        page: The report, as HTML.
        source: The model that it comes from; it stays as it is.
        overwrite: Replace a model that is there.

    Raises:
        CheckpointError: If something is in the way, or the disk refuses.
        AudioError: If the report cannot be written.
    """
    refuse_taken(folder, source, overwrite=overwrite)
    make_folder(folder.parent)
    save_bundle(model, folder, card, overwrite=overwrite)
    report = _report_of(folder)
    write_whole(report, page.encode("utf-8"))
    return KeptModel(folder, report)


def _report_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.html")
