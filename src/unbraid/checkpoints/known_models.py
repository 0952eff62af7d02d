"""Released checkpoints that go by name: where they lie, what they are, their digests.

None of them comes with unbraid. Addresses name a commit, so they mean the same file for ever;
sizes and digests of the weights are those that git-lfs lists for that commit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from unbraid.prompts import STANDARD_PROMPTS

#: Licences under which anybody may use weights for anything, as long as they keep the notice.
_PERMISSIVE = frozenset({"Apache-2.0", "MIT"})


@dataclass(frozen=True)
class PublishedFile:
    """A file on its publisher's server.

    Attributes:
        name: Where it belongs in the released folder, with ``/`` between the parts.
        url: Where it lies.
        size_bytes: Its size; None where nobody has told it.
        sha256: Its SHA-256, 64 hexadecimal digits in lower case; empty where nobody has told it.
    """

    name: str
    url: str
    size_bytes: int | None = None
    sha256: str = ""

    @property
    def digest(self) -> str:
        """The SHA-256 as ``downloads.fetch`` takes it; empty where nobody has told it."""
        return f"sha256:{self.sha256}" if self.sha256 else ""


@dataclass(frozen=True)
class KnownModel:
    """A released checkpoint.

    Attributes:
        name: What to call it here.
        title: One line that says what it is.
        licence: Licence of the weights, an SPDX identifier where there is one.
        source: The publisher's page.
        outputs: What comes out: the prompts, or the names of fixed outputs, which may repeat.
        sample_rate: The rate at which it computes, in samples per second.
        num_parameters: How many numbers it has, with the rotary frequencies that are not learned;
            None where the source is several models.
        files: What to fetch; the last one holds the weights. Empty if unbraid does not know the
            files, so that only a person can fetch them.
        settings: What the network is, in the words of the code that it was trained with; None
            if ``hparams.yaml`` is among the files.
        paper: Where the model is described.
        notes: What else one should know: sentences.
    """

    name: str
    title: str
    licence: str
    source: str
    outputs: tuple[str, ...]
    sample_rate: int
    num_parameters: int | None
    files: tuple[PublishedFile, ...] = ()
    settings: Mapping[str, Any] | None = field(default=None, hash=False)
    paper: str = ""
    notes: str = ""

    @property
    def can_be_fetched(self) -> bool:
        """Whether unbraid knows its files."""
        return bool(self.files)

    @property
    def needs_consent(self) -> bool:
        """Whether the licence asks for more than keeping its notice."""
        return self.licence not in _PERMISSIVE

    @property
    def size_bytes(self) -> int:
        """How much is to be fetched, as far as it is known."""
        return sum(file.size_bytes or 0 for file in self.files)

    @property
    def outputs_in_words(self) -> str:
        """The outputs for people, those that repeat once.

        >>> KnownModel("n", "t", "MIT", "", ("speech", "speech"), 8000, 1).outputs_in_words
        '2 x speech'
        """
        counts = Counter(self.outputs)
        return ", ".join(
            name if count == 1 else f"{count} x {name}" for name, count in counts.items()
        )


# ------------------------------------------------------------------ TUSS

_TUSS_REPOSITORY = "merlresearch/unified-source-separation"
_TUSS_COMMIT = "f7711c1120e00669d905a4fef9c8494a0f8c9662"


def _tuss(size: str, num_parameters: int, size_bytes: int, sha256: str) -> KnownModel:
    name = f"tuss.{size}.2-4src"
    path = f"{_TUSS_REPOSITORY}/{_TUSS_COMMIT}/pretrained_models/{name}"
    return KnownModel(
        name=name,
        title=f"TUSS, {size}: separates 2 to 4 sources of any kind by prompts",
        licence="AGPL-3.0-or-later",
        source=f"https://github.com/{_TUSS_REPOSITORY}",
        outputs=STANDARD_PROMPTS,
        sample_rate=48_000,
        num_parameters=num_parameters,
        files=(
            PublishedFile("hparams.yaml", f"https://raw.githubusercontent.com/{path}/hparams.yaml"),
            PublishedFile(
                "checkpoints/model.pth",
                f"https://media.githubusercontent.com/media/{path}/checkpoints/model.pth",
                size_bytes,
                sha256,
            ),
        ),
        paper='K. Saijo, J. Ebbers, F. G. Germain, G. Wichern, J. Le Roux, "Task-aware unified '
        'source separation", ICASSP 2025, arXiv 2410.23987.',
        notes="The authors say that the released weights are retrained and not those of the paper. "
        "The prompts `sfxbg` and `musicbg` of the release are `sfx-mix` and `music-mix` here; the "
        "old names are accepted too.",
    )


# ------------------------------------------------------------------ TF-Locoformer

_LOCOFORMER_REPOSITORY = "merlresearch/tf-locoformer"
_LOCOFORMER_COMMIT = "1d2be38404cf062018a1aaebe4c8103a63b23adc"
_LOCOFORMER_FILE = "valid.loss.ave_5best.pth"


@dataclass(frozen=True)
class _Size:
    """What differs between the released networks."""

    num_blocks: int
    dim: int
    hidden_dim: int
    kernel_size: int


def _espnet_settings(
    size: _Size, num_speakers: int, sample_rate: int, n_fft: int, hop_length: int
) -> dict[str, Any]:
    """The part of an ESPnet configuration that says what is computed."""
    transform = {"n_fft": n_fft, "hop_length": hop_length}
    return {
        "sample_rate": sample_rate,
        "num_spk": num_speakers,
        "encoder": "stft",
        "encoder_conf": transform,
        "separator": "tflocoformer",
        # No attention_dim: the released files leave it at its default of 128, also the small one.
        "separator_conf": {
            "num_spk": num_speakers,
            "n_layers": size.num_blocks,
            "emb_dim": size.dim,
            "norm_type": "rmsgroupnorm",
            "num_groups": 4,
            "tf_order": "ft",
            "n_heads": 4,
            "flash_attention": False,
            "ffn_type": ["swiglu_conv1d", "swiglu_conv1d"],
            "ffn_hidden_dim": [size.hidden_dim, size.hidden_dim],
            "conv1d_kernel": size.kernel_size,
            "conv1d_shift": 1,
            "dropout": 0.0,
            "eps": 1e-5,
        },
        "decoder": "stft",
        "decoder_conf": transform,
        "model_conf": {"normalize_variance": True},
    }


def _locoformer(
    name: str,
    title: str,
    folder: str,
    settings: Mapping[str, Any],
    num_parameters: int,
    size_bytes: int,
    sha256: str,
    notes: str,
) -> KnownModel:
    path = f"{_LOCOFORMER_REPOSITORY}/{_LOCOFORMER_COMMIT}/egs2/{folder}/{_LOCOFORMER_FILE}"
    url = f"https://media.githubusercontent.com/media/{path}"
    return KnownModel(
        name=name,
        title=title,
        licence="Apache-2.0",
        source=f"https://github.com/{_LOCOFORMER_REPOSITORY}",
        outputs=("speech",) * settings["num_spk"],
        sample_rate=settings["sample_rate"],
        num_parameters=num_parameters,
        files=(PublishedFile(_LOCOFORMER_FILE, url, size_bytes, sha256),),
        settings=settings,
        paper='K. Saijo, G. Wichern, F. G. Germain, Z. Pan, J. Le Roux, "TF-Locoformer: '
        "Transformer with local modeling by convolution for speech separation and "
        'enhancement", IWAENC 2024, arXiv 2408.03440.',
        notes=f"{notes} Its outputs are fixed: all of them are `speech`.",
    )


_LOCOFORMER_MODELS = (
    _locoformer(
        name="tf-locoformer.wsj0-2mix",
        title="TF-Locoformer, medium: two speakers without noise (WSJ0-2mix)",
        folder="wsj0_2mix/enh1/exp/enh_train_enh_tflocoformer_raw",
        settings=_espnet_settings(_Size(6, 128, 384, 4), 2, 8000, n_fft=128, hop_length=64),
        num_parameters=14_975_652,
        size_bytes=59_979_488,
        sha256="c536fa8499b28e2cf812b1906d899ae6337665232ca523dbe628682dd7df983c",
        notes="Its authors measured an SI-SNR of 23.64 dB on the test set.",
    ),
    _locoformer(
        name="tf-locoformer.whamr",
        title="TF-Locoformer, medium: two speakers with noise and reverberation (WHAMR!)",
        folder="whamr/enh1/exp/enh_train_enh_tflocoformer_raw",
        settings=_espnet_settings(_Size(6, 128, 192, 8), 2, 8000, n_fft=256, hop_length=64),
        num_parameters=14_966_436,
        size_bytes=59_942_624,
        sha256="3e14c736d19cd2158e09f0446fe214be4b47e28ed6d6c11d037cf2d4dae82d6a",
        notes="It gives speech without noise and reverberation. Its authors measured an SI-SNR of "
        "12.15 dB on the test set.",
    ),
    _locoformer(
        name="tf-locoformer.whamr.small",
        title="TF-Locoformer, small: two speakers with noise and reverberation (WHAMR!)",
        folder="whamr/enh1/exp/enh_train_enh_tflocoformer_small_raw",
        settings=_espnet_settings(_Size(4, 96, 128, 8), 2, 8000, n_fft=256, hop_length=64),
        num_parameters=5_125_252,
        size_bytes=20_553_016,
        sha256="4ba8ffd35258687aeb6f4dd0cf30622728d440b2581e35ae6b4e1f8274dc5dd8",
        notes="It gives speech without noise and reverberation. Its authors measured an SI-SNR of "
        "11.43 dB on the test set. Its attention is 128 wide, not 96 as in the paper.",
    ),
    _locoformer(
        name="tf-locoformer.libri2mix",
        title="TF-Locoformer, medium: two speakers without noise (Libri2Mix)",
        folder="librimix/enh1/exp/enh_train_enh_tflocoformer_raw",
        settings=_espnet_settings(_Size(6, 128, 384, 4), 2, 8000, n_fft=128, hop_length=64),
        num_parameters=14_975_652,
        size_bytes=59_979_488,
        sha256="9c691cee4bb0d9664a3fac024b031dfdf8ca3e66fc22a66f2f17119767b49129",
        notes="Its authors publish no scores beside the weights.",
    ),
    _locoformer(
        name="tf-locoformer.dns",
        title="TF-Locoformer, medium: one voice out of noise (DNS challenge 2020)",
        folder="dns_ins20/enh1/exp/enh_train_enh_tflocoformer_raw",
        settings=_espnet_settings(_Size(6, 128, 384, 4), 1, 16_000, n_fft=256, hop_length=128),
        num_parameters=14_973_346,
        size_bytes=59_972_116,
        sha256="6ffa518f2b73bed289e38349366eb777c94b9130acc32bf4c085cb049d9d1666",
        notes="Its authors measured an SI-SNR of 23.23 dB on the test set without reverberation.",
    ),
)


# ------------------------------------------------------------------ SFC

_SFC = KnownModel(
    name="sfc",
    title="TF-Locoformer with spectral feature compression: music (MUSDB18-HQ), film sound (DnR)",
    licence="unknown licence",
    source="https://huggingface.co/kohei0209/spectral_feature_compression",
    outputs=("vocals", "drums", "bass", "other", "speech", "sfx-mix", "music-mix"),
    sample_rate=44_100,
    num_parameters=None,
    paper='K. Saijo, Y. Bando, "Input-adaptive spectral feature compression by sequence modeling '
    'for source separation", IEEE TASLP 2026, arXiv 2602.08671.',
    notes="unbraid knows neither the names nor the digests of these files, so it does not fetch "
    "them: look at the page, and at the licence that it states; `unbraid models import FILE "
    "--outputs NAMES` reads them. The code of the authors is under the MIT licence.",
)


#: All of them, in the order in which they are listed.
KNOWN_MODELS: tuple[KnownModel, ...] = (
    _tuss(
        "medium",
        num_parameters=11_132_352,
        size_bytes=44_864_630,
        sha256="112174a8c894b008cfd676052e8a3d60c876bc2ba063c77a3a4700a257655eec",
    ),
    _tuss(
        "large",
        num_parameters=38_210_112,
        size_bytes=153_210_470,
        sha256="1ed66c06944ef197c9f0ff585c1643ffec25a9925641c02ad6c108a88dfe5acd",
    ),
    *_LOCOFORMER_MODELS,
    _SFC,
)


def find(name: str) -> KnownModel | None:
    """The released checkpoint of that name, if there is one."""
    return next((model for model in KNOWN_MODELS if model.name == name), None)


def find_by_digest(sha256: str) -> KnownModel | None:
    """The released checkpoint whose weights have that SHA-256, if there is one."""
    return next(
        (model for model in KNOWN_MODELS if model.files and model.files[-1].sha256 == sha256), None
    )
