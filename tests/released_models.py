"""Publishers in miniature: released checkpoints of a few numbers on a server of this machine."""

import hashlib
import io
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from file_server import FileServer
from released_fixed_outputs import espnet_settings, locoformer_rotary, locoformer_shapes
from released_tuss import TINY, random_state, write_folder
from unbraid.checkpoints import known_models
from unbraid.checkpoints.known_models import KnownModel, PublishedFile

#: A TF-Locoformer of a few numbers, in the words of ESPnet.
TINY_LOCOFORMER = espnet_settings()


def locoformer_state() -> dict[str, Tensor]:
    """Random weights for ``TINY_LOCOFORMER`` under the names of its release."""
    conf = TINY_LOCOFORMER["separator_conf"]
    generator = torch.Generator().manual_seed(0)
    state = {
        name: 0.3 * torch.randn(shape, generator=generator)
        for name, shape in locoformer_shapes(conf).items()
    }
    state |= locoformer_rotary(conf)
    return {f"separator.{name}": tensor for name, tensor in state.items()}


@dataclass(frozen=True)
class Publisher:
    """Two released models on a server, which unbraid knows.

    Attributes:
        server: Where they lie.
        copyleft: A TUSS under the AGPL, with its settings.
        permissive: A TF-Locoformer under Apache-2.0, without any.
    """

    server: FileServer
    copyleft: KnownModel
    permissive: KnownModel

    @property
    def weights_of_copyleft(self) -> str:
        """Under which path the server has them."""
        return "copyleft/checkpoints/model.pth"


def publish(server: FileServer, work: Path, monkeypatch: pytest.MonkeyPatch) -> Publisher:
    """Put two models on the server, and let unbraid know these and one by hand."""
    folder = write_folder(work / "copyleft", TINY, random_state(TINY))
    settings = (folder / "hparams.yaml").read_bytes()
    weights = (folder / "checkpoints" / "model.pth").read_bytes()
    written = io.BytesIO()
    torch.save(locoformer_state(), written)
    copyleft, permissive, by_hand = (
        known_models.find(name) for name in ("tuss.medium.2-4src", "tf-locoformer.whamr", "sfc")
    )
    assert copyleft is not None
    assert permissive is not None
    assert by_hand is not None
    copyleft = replace(
        copyleft,
        name="tiny.copyleft",
        files=(
            PublishedFile("hparams.yaml", server.serve("copyleft/hparams.yaml", settings)),
            _served(server, "copyleft", "checkpoints/model.pth", weights),
        ),
    )
    permissive = replace(
        permissive,
        name="tiny.permissive",
        files=(_served(server, "permissive", "best.pth", written.getvalue()),),
        settings=TINY_LOCOFORMER,
    )
    monkeypatch.setattr(known_models, "KNOWN_MODELS", (copyleft, permissive, by_hand))
    return Publisher(server, copyleft, permissive)


def _served(server: FileServer, folder: str, name: str, content: bytes) -> PublishedFile:
    url = server.serve(f"{folder}/{name}", content, headers={"ETag": '"first"'})
    return PublishedFile(name, url, len(content), hashlib.sha256(content).hexdigest())
