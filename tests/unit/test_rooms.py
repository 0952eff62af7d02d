"""Room impulse responses: where the direct path is, what is early, and real ones."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from unbraid.data.catalogue import open_rooms
from unbraid.data.manifest import Recording, read_manifest
from unbraid.mixing.rooms import direct_path, reverberate

RATE = 8000


def made_of(taps: dict[int, float], length: int = 4000) -> torch.Tensor:
    response = torch.zeros(length)
    for place, height in taps.items():
        response[place] = height
    return response


def test_the_direct_path_comes_first_even_where_it_is_not_the_loudest() -> None:
    assert direct_path(made_of({100: 0.7, 160: -1.0, 90: 0.1}), RATE) == 100
    assert direct_path(made_of({100: -0.6, 101: -1.0, 102: 0.8}), RATE) == 101  # one peak
    for silent in (torch.zeros(10), torch.zeros(0)):
        with pytest.raises(ValueError, match="silent"):
            direct_path(silent, RATE)


def test_the_early_part_holds_exactly_the_early_taps() -> None:
    # Direct path upside down after 100 samples; early ends 400 samples after it.
    response = made_of({95: 0.02, 100: -0.5, 180: 0.25, 500: -0.1, 501: 0.2, 3000: 0.05})
    impulse = made_of({1000: 1.0}, length=6000)
    whole, early = reverberate(impulse, response, RATE, early_s=0.05)
    expected = {995: -0.04, 1000: 1.0, 1080: -0.5, 1400: 0.2}
    torch.testing.assert_close(early, made_of(expected, 6000), atol=1e-6, rtol=0)
    expected |= {1401: -0.4, 3900: -0.1}
    torch.testing.assert_close(whole, made_of(expected, 6000), atol=1e-6, rtol=0)


def test_without_an_early_end_the_reference_is_all_of_it() -> None:
    torch.manual_seed(0)
    signal, response = torch.randn(3000), made_of({10: 1.0, 700: 0.5}) * torch.rand(4000)
    whole, wanted = reverberate(signal, response, RATE, None)
    assert torch.equal(whole, wanted)
    assert whole.shape == signal.shape


def test_an_early_end_of_zero_keeps_the_direct_path_alone() -> None:
    torch.manual_seed(0)
    signal = torch.randn(2000)
    _, direct = reverberate(signal, made_of({30: 0.4, 31: 0.1, 90: 0.3}), RATE, 0.0)
    torch.testing.assert_close(direct, signal, atol=1e-5, rtol=0)


def test_long_late_and_silent_responses_do_no_harm() -> None:
    signal = torch.arange(1.0, 51.0)
    for response in (made_of({3990: 1.0}), made_of({0: 2.0}), made_of({0: 1.0}, length=1)):
        whole, _ = reverberate(signal, response, RATE, 0.05)
        torch.testing.assert_close(whole, signal, atol=1e-4, rtol=1e-5)
    whole, wanted = reverberate(signal, torch.zeros(100), RATE, 0.05)
    assert torch.equal(whole, signal)
    assert torch.equal(wanted, signal)


def test_soft_responses_are_kept_and_silent_ones_left_out(tmp_path: Path) -> None:
    soft = np.zeros(4000)
    soft[20] = 1e-3  # far too soft to be a clip worth separating
    soundfile.write(tmp_path / "soft.wav", soft, RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "silent.wav", np.zeros(4000), RATE)
    rows = [
        Recording(name, "rir/hall", "train", 0.5, 4000.0, "", "", RATE)
        for name in ("soft.wav", "silent.wav")
    ]
    rooms, store = open_rooms(
        tmp_path / "manifest.csv", rows, ["rir/*"], "train", RATE, tmp_path / "cache"
    )
    assert [room.key for room in rooms] == ["soft.wav"]
    assert direct_path(store.read("soft.wav", 0, 4000), RATE) == 20


def test_real_rooms_bring_an_impulse_back_in_time(shared: Path, tmp_path: Path) -> None:
    manifest = shared / "data" / "manifest.csv"
    recordings = read_manifest(manifest)
    for split, count in (("train", 5), ("eval", 1)):
        rooms, store = open_rooms(manifest, recordings, ["rir/*"], split, 16000, tmp_path / "cache")
        assert len(rooms) == count
        for room in rooms:
            impulse = made_of({1000: 1.0}, length=32000)
            response = store.read(room.key, 0, round(room.duration_s * 16000))
            whole, early = reverberate(impulse, response, 16000, early_s=0.05)
            assert whole[1000] == pytest.approx(1.0, abs=1e-3)
            torch.testing.assert_close(early[:1801], whole[:1801], atol=1e-4, rtol=0)
            assert not (early[1802:].abs() > 1e-4).any()
            # What is left out is reverberation that can be heard.
            late_db = 10 * torch.log10((whole - early).square().sum() / early.square().sum())
            assert -40 < float(late_db) < 20
