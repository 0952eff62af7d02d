"""How a protocol treats the mixtures of a corpus: which channel, rate, length and pieces."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from unbraid.data.corpora.base import MixtureFiles, ReferenceFiles, Track
from unbraid.errors import DataError
from unbraid.evaluation.items import Item, Protocol, items_of

RATE = 8000


def write(path: Path, *channels: float, length: int = RATE, rate: int = RATE) -> Track:
    """Channels that hold one number each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.tile(channels, (length, 1)), rate, subtype="FLOAT")
    return Track(path.name)


@pytest.fixture
def stereo(tmp_path: Path) -> MixtureFiles:
    """Speech at 0.1 and 0.2, effects at 0.3 and -0.1."""
    return MixtureFiles(
        "one",
        "test",
        (
            ReferenceFiles("speech", (write(tmp_path / "speech.wav", 0.1, 0.2),)),
            ReferenceFiles("sfx", (write(tmp_path / "sfx.wav", 0.3, -0.1),)),
        ),
    )


def only(root: Path, files: MixtureFiles, protocol: Protocol) -> Item:
    [item] = items_of(root, [files], protocol)
    return item


def levels(samples: torch.Tensor) -> list[float]:
    """The number that each channel holds throughout."""
    assert bool((samples == samples[:, :1]).all())
    return [round(value, 6) for value in samples[:, 0].tolist()]


def test_without_a_mixture_the_sum_is_taken(tmp_path: Path, stereo: MixtureFiles) -> None:
    item = only(tmp_path, stereo, Protocol(channels="all"))
    assert levels(item.mixture.samples) == [0.4, 0.1]
    assert item.prompts == ("speech", "sfx")
    assert item.mixture.sample_rate == RATE


@pytest.mark.parametrize(("channels", "expected"), [("first", [0.4]), ("mono", [0.25])])
def test_channels_are_dropped_or_averaged(
    channels: str, expected: list[float], tmp_path: Path, stereo: MixtureFiles
) -> None:
    item = only(tmp_path, stereo, Protocol(channels=channels))
    assert levels(item.mixture.samples) == expected
    assert item.references.shape == (2, 1, RATE)


def test_each_channel_can_be_a_mixture_of_its_own(tmp_path: Path, stereo: MixtureFiles) -> None:
    left, right = items_of(tmp_path, [stereo], Protocol(channels="each"))
    assert (left.name, right.name) == ("one (channel 1)", "one (channel 2)")
    assert left.group == right.group == "one"
    assert levels(left.mixture.samples) == [0.4]
    assert levels(right.references[1]) == [-0.1]


def test_a_noise_is_what_noisy_has_beside_clean(tmp_path: Path) -> None:
    noisy, clean = write(tmp_path / "noisy.wav", 0.5), write(tmp_path / "clean.wav", 0.3)
    files = MixtureFiles(
        "one",
        "test",
        (ReferenceFiles("speech", (clean,)), ReferenceFiles("sfx-mix", (noisy,), (clean,))),
    )
    item = only(tmp_path, files, Protocol())
    assert levels(item.references[1]) == [0.2]
    assert levels(item.mixture.samples) == [0.5]


def test_a_mixture_need_not_be_the_sum_of_its_sources(tmp_path: Path) -> None:
    dry, wet = write(tmp_path / "dry.wav", 0.3), write(tmp_path / "wet.wav", 0.7)
    files = MixtureFiles("one", "test", (ReferenceFiles("speech", (dry,)),), mixture=wet)
    item = only(tmp_path, files, Protocol())
    assert levels(item.mixture.samples) == [0.7]
    assert levels(item.references[0]) == [0.3]


def test_a_source_without_files_is_silent(tmp_path: Path, stereo: MixtureFiles) -> None:
    references = (*stereo.references, ReferenceFiles("vocals", ()))
    item = only(tmp_path, MixtureFiles("one", "test", references), Protocol())
    assert not item.references[2].any()


def test_pieces_do_not_overlap_and_the_rest_is_dropped(tmp_path: Path) -> None:
    ramp = np.arange(2 * RATE + 100, dtype=np.float32) / RATE
    soundfile.write(tmp_path / "ramp.wav", ramp, RATE, subtype="FLOAT")
    files = MixtureFiles("song", "test", (ReferenceFiles("bass", (Track("ramp.wav"),)),))
    pieces = list(items_of(tmp_path, [files], Protocol(pieces_s=0.5)))
    assert [piece.name for piece in pieces] == [
        "song @ 0 s", "song @ 0.5 s", "song @ 1 s", "song @ 1.5 s",
    ]  # fmt: skip
    assert {piece.group for piece in pieces} == {"song"}
    assert [piece.mixture.samples[0, 0].item() for piece in pieces] == [0.0, 0.5, 1.0, 1.5]


@pytest.mark.parametrize("duration_s", [0.5, 2.0])
def test_a_fixed_duration_cuts_or_fills_up(
    duration_s: float, tmp_path: Path, stereo: MixtureFiles
) -> None:
    item = only(tmp_path, stereo, Protocol(duration_s=duration_s))
    assert item.mixture.duration_s == duration_s
    assert item.references.shape[-1] == duration_s * RATE
    assert item.mixture.samples[0, 0].item() == pytest.approx(0.4)
    assert item.mixture.samples[0, -1].item() == pytest.approx(0.4 if duration_s < 1 else 0.0)


def test_mixture_and_references_come_at_the_rate_that_is_asked(
    tmp_path: Path, stereo: MixtureFiles
) -> None:
    item = only(tmp_path, stereo, Protocol(sample_rate=16000))
    assert item.mixture.sample_rate == 16000
    assert item.mixture.num_samples == item.references.shape[-1] == 16000
    assert item.references[0, 0, 8000].item() == pytest.approx(0.1, abs=1e-4)


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        ({"length": RATE - 1}, f"{RATE - 1} samples"),
        ({"rate": 16000}, "16000 Hz"),
    ],
)
def test_stems_that_differ_are_named_with_both_facts(
    odd: dict[str, int], words: str, tmp_path: Path, stereo: MixtureFiles
) -> None:
    track = write(tmp_path / "odd.wav", 0.1, 0.1, **odd)
    references = (*stereo.references, ReferenceFiles("vocals", (track,)))
    with pytest.raises(DataError) as caught:
        list(items_of(tmp_path, [MixtureFiles("one", "test", references)], Protocol()))
    assert str(tmp_path / "odd.wav") in str(caught.value)
    assert words in str(caught.value)
    assert str(tmp_path / "speech.wav") in str(caught.value)


def test_a_missing_stem_is_named(tmp_path: Path) -> None:
    files = MixtureFiles("one", "test", (ReferenceFiles("speech", (Track("gone.wav"),)),))
    with pytest.raises(DataError, match=r"gone\.wav: no such file"):
        list(items_of(tmp_path, [files], Protocol()))


def test_ragged_tracks_are_cut_to_the_shortest_and_mono_is_put_on_both_sides(
    tmp_path: Path,
) -> None:
    long, short = (
        write(tmp_path / "long.wav", 0.1, 0.2),
        write(tmp_path / "short.wav", 0.3, length=9),
    )
    references = (ReferenceFiles("vocals", (long, short)), ReferenceFiles("drums", (short,)))
    files = MixtureFiles("song", "test", references, is_ragged=True)
    item = only(tmp_path, files, Protocol(channels="all"))
    assert item.references.shape == (2, 2, 9)
    assert levels(item.references[0]) == [0.4, 0.5]
    assert levels(item.references[1]) == [0.3, 0.3]
