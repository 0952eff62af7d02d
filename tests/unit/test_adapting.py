"""Adapting in parts: prompted remixing, recordings without references, what is not forgotten."""

from __future__ import annotations

import copy
import random
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from recording_miniatures import RATE, make_recordings, recording
from unbraid.apps.known_mixtures import known_mixtures
from unbraid.data.unlabelled import UnlabelledRecordings, hold_back
from unbraid.errors import ConfigError, DataError
from unbraid.mixing.recipe import Clip
from unbraid.models.inference import for_inference
from unbraid.models.waveform import WaveformModel
from unbraid.training.methods.adapting import REMIXING, RemixedCheck, SelfTeaching
from unbraid.training.methods.remixing import RemixingConfig, TeacherConfig, remixing_loss

CPU = torch.device("cpu")
TWO, SAME = torch.tensor([0, 1]), torch.tensor([0, 0])
BOTH = RemixingConfig(remixit_weight=1.0, channel_shuffle="none")


def bands(mixtures: Tensor) -> Tensor:
    """A separator that knows how: what lies below a quarter of the rate, and what lies above."""
    spectrum = torch.fft.rfft(mixtures)
    low = torch.arange(spectrum.shape[-1]) < spectrum.shape[-1] // 2
    halves = torch.stack([spectrum * low, spectrum * ~low], dim=1)
    return torch.fft.irfft(halves, n=mixtures.shape[-1])


def loss_of(student: object, prompts: Tensor, config: RemixingConfig = BOTH) -> float:
    mixtures = torch.randn(4, 512, generator=torch.Generator().manual_seed(0))
    rng = random.Random(0)
    return remixing_loss(student, bands, mixtures, config, rng, prompts).item()  # type: ignore[arg-type]


def swapped(mixtures: Tensor) -> Tensor:
    return bands(mixtures).flip(1)


def test_sources_keep_the_places_of_their_prompts() -> None:
    assert loss_of(bands, TWO) == pytest.approx(-60.0, abs=0.1)
    # Prompts say which source is which, and equal ones do not.
    assert loss_of(swapped, TWO) > -10.0
    assert loss_of(swapped, SAME) == pytest.approx(-60.0, abs=0.1)


def test_prompts_and_shuffled_places_exclude_each_other() -> None:
    for config in (RemixingConfig(), RemixingConfig(channel_shuffle="none", num_sources=2)):
        with pytest.raises(ConfigError, match="keep their places"):
            loss_of(bands, TWO, config)


def test_a_prompt_whose_sound_is_nowhere_is_to_stay_silent() -> None:
    def teacher(mixtures: Tensor) -> Tensor:
        return torch.stack([mixtures, torch.zeros_like(mixtures)], dim=1)

    leak = torch.tensor(0.1, requires_grad=True)

    def student(mixtures: Tensor) -> Tensor:
        # Mixture consistency has left half of what the teacher lost, which is nothing.
        return torch.stack([mixtures, leak * mixtures], dim=1)

    mixtures = torch.randn(4, 512, generator=torch.Generator().manual_seed(0))
    loss = remixing_loss(student, teacher, mixtures, REMIXING, random.Random(0), TWO)
    loss.backward()
    assert leak.grad is not None
    assert leak.grad > 0
    assert loss.isfinite()


@pytest.fixture
def found(tmp_path: Path) -> UnlabelledRecordings:
    folder = make_recordings(tmp_path / "recordings")
    return UnlabelledRecordings(sorted(folder.iterdir()), RATE, tmp_path / "cache")


def test_recordings_of_any_kind_are_cut_the_same_for_a_seed(found: UnlabelledRecordings) -> None:
    assert len(found.clips) == 6
    assert not found.silent
    assert not found.unreadable
    first, again, other = (
        torch.stack([*islice(found.batches(found.clips, 0.5, 3, seed), 2)]) for seed in "aab"
    )
    assert first.shape == (2, 3, RATE // 2)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert float(first.square().mean(dim=-1).min()) > 1e-3


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    one_sided = np.stack([np.zeros(RATE), recording(0, 1.0)], axis=1)
    soundfile.write(tmp_path / "right.wav", one_sided, RATE)
    soundfile.write(tmp_path / "nothing.wav", np.zeros(RATE), RATE)
    (tmp_path / "text.wav").write_text("no sound")
    files = sorted(tmp_path.glob("*.wav"))
    found = UnlabelledRecordings(files, RATE, tmp_path / "cache")
    assert [clip.key for clip in found.clips] == [str((tmp_path / "right.wav").resolve())]
    assert [path.name for path in found.silent] == ["nothing.wav"]
    assert [path.name for path in found.unreadable] == ["text.wav"]
    # The silent side is never drawn.
    crops = next(found.batches(found.clips, 0.5, 8, "seed"))
    assert float(crops.square().mean(dim=-1).min()) > 1e-3
    (tmp_path / "right.wav").unlink()
    with pytest.raises(DataError, match=r"right\.wav.*could be read and heard"):
        found.draw(found.clips, 0.5, random.Random(0))


def test_a_crop_longer_than_its_recording_ends_in_silence(
    found: UnlabelledRecordings,
) -> None:
    crop = found.draw(found.clips, 5.0, random.Random(0))
    assert crop.shape == (5 * RATE,)
    assert crop.count_nonzero() > RATE


def test_one_in_five_is_held_back_and_of_a_single_one_the_end() -> None:
    clips = [Clip(str(number), 10.0, 1.0, active_s=(1.0,)) for number in range(10)]
    parts = hold_back(clips, 0.2, 2.0, seed=0)
    assert len(parts.held_back) == 2
    assert {*parts.learnt_from, *parts.held_back} == {*clips}
    assert hold_back(clips, 0.2, 2.0, seed=1) != parts
    assert len(hold_back(clips[:2], 0.2, 2.0, seed=0).held_back) == 1

    one = Clip("one", 20.0, 1.0, active_s=tuple(0.5 * number for number in range(40)))
    parts = hold_back([one], 0.2, 2.0, seed=0)
    assert parts.is_one
    ((begin,), (end,)) = parts.learnt_from, parts.held_back
    assert begin.duration_s == 16.0
    assert max(begin.active_s) == 15.5
    assert min(end.active_s) == 17.5  # a crop of 2 s around it begins at 16 s
    short = hold_back([Clip("short", 3.0, 1.0, active_s=(0.0, 0.5, 1.0))], 0.2, 2.0, seed=0)
    assert not short.held_back


def crops(seed: int = 0) -> Tensor:
    made = [torch.from_numpy(recording(seed + number, 0.2)).float() for number in range(3)]
    return torch.stack(made)


def test_the_check_is_fixed_and_knows_broken_weights(tiny_model: WaveformModel) -> None:
    original = for_inference(copy.deepcopy(tiny_model))
    check = RemixedCheck(original, TWO, [crops()], REMIXING, seed=0)
    before = check.loss(tiny_model)
    assert check.loss(tiny_model) == before
    other = copy.deepcopy(tiny_model)
    with torch.no_grad():
        for each in other.network.parameters():
            each.add_(0.05 * torch.randn(each.shape, generator=torch.Generator().manual_seed(1)))
    assert check.loss(other) != before
    with torch.no_grad():
        next(iter(other.network.codec.parameters())).fill_(torch.nan)
    assert not np.isfinite(check.loss(other))


def test_the_teacher_stays_or_follows(tiny_model: WaveformModel) -> None:
    student = copy.deepcopy(tiny_model)
    changed = copy.deepcopy(tiny_model)
    with torch.no_grad():
        for each in changed.network.parameters():
            each.add_(0.1)

    def losses(decay: float) -> list[float]:
        teacher = TeacherConfig(decay, steps_per_epoch=2)
        config = RemixingConfig(
            remixit_weight=1.0, self_remixing_weight=0.0, channel_shuffle="none", teacher=teacher
        )
        same = iter(lambda: crops(), None)
        teaching = SelfTeaching(tiny_model, TWO, same, config, CPU, lambda: changed, seed=0)
        with torch.no_grad():
            return [teaching(student).item() for _ in range(3)]

    stays, follows = losses(1.0), losses(0.0)
    assert stays[:2] == follows[:2]
    assert stays[2] != follows[2]


def test_mixtures_not_to_be_forgotten_are_the_same_for_all(tiny_model: WaveformModel) -> None:
    names = tiny_model.prompts.names
    mixtures = known_mixtures(names, tiny_model.sample_rate)
    assert len(mixtures.batches) == 15
    asked = {names[row] for batch in mixtures.batches for row in batch.prompt_indices[0]}
    assert {"speech", "sfx-mix", "sfx", "music-mix", "drums", "bass", "other"} == asked
    found = mixtures.si_sdr_db(tiny_model, CPU)
    assert found is not None
    assert found == mixtures.si_sdr_db(copy.deepcopy(tiny_model), CPU)
    assert known_mixtures(("kazoo",), 8_000).si_sdr_db(tiny_model, CPU) is None
