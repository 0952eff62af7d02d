"""Whole tasks on files from Python: progress, cancelling, levels that do not fit."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from command_line import files_below, write_audio
from unbraid.apps.separate_files import SeparateOptions, separate_file, separate_files
from unbraid.audio import FormatChoice, read
from unbraid.errors import AudioError, Cancelled, ConfigError, PromptError
from unbraid.models.waveform import WaveformModel
from unbraid.separation.separator import Separator
from unbraid.types import Progress

OPTIONS = SeparateOptions(model_name="tiny", model_digest="0" * 64)


@pytest.fixture
def separator(tiny_model: WaveformModel) -> Separator:
    return Separator(tiny_model, segment_s=1.0, overlap_s=0.25)


def gains(separator: Separator, monkeypatch: pytest.MonkeyPatch, *values: float) -> None:
    """Let the separator return the mixture times these gains, delayed and in odd pieces."""

    def stream(
        blocks: Iterable[Tensor], sample_rate: int, prompts: Sequence[str]
    ) -> Iterator[Tensor]:
        waiting: list[Tensor] = []
        for block in blocks:
            waiting.append(block)
            if sum(block.shape[1] for block in waiting) > 2 * sample_rate:
                joined = torch.cat(waiting, dim=1)
                yield torch.stack([joined[:, :777] * gain for gain in values])
                waiting = [joined[:, 777:]]
        if waiting:
            joined = torch.cat(waiting, dim=1)
            yield torch.stack([joined * gain for gain in values])

    monkeypatch.setattr(separator, "stream", stream)


def test_progress_is_a_number_that_grows_to_the_end(tmp_path: Path, separator: Separator) -> None:
    path = write_audio(tmp_path / "a.wav", 3 * 48_000)
    seen: list[Progress] = []

    separate_file(separator, path, ["speech"], tmp_path / "out", OPTIONS, seen.append)

    assert [progress.done_s for progress in seen] == sorted(progress.done_s for progress in seen)
    assert len(seen) > 2
    assert seen[0] == Progress(0.0, 3.0)
    assert seen[-1] == Progress(3.0, 3.0)


@pytest.mark.parametrize("reason", [Cancelled("enough"), KeyboardInterrupt()], ids=repr)
def test_stopping_keeps_what_is_finished_and_nothing_else(
    tmp_path: Path, separator: Separator, reason: BaseException
) -> None:
    paths = [write_audio(tmp_path / f"{name}.wav", 2 * 48_000) for name in "abc"]

    def stop_at_b(path: Path, progress: Progress) -> None:
        if path.name == "b.wav":
            raise reason

    with pytest.raises(type(reason)):
        separate_files(
            separator, paths, ["speech"], tmp_path / "out", OPTIONS, on_progress=stop_at_b
        )

    assert files_below(tmp_path / "out") == [
        "tiny",
        "tiny/a",
        "tiny/a/separation.json",
        "tiny/a/speech.wav",
    ]


def test_residual_is_exact_whatever_the_pieces(
    tmp_path: Path, separator: Separator, monkeypatch: pytest.MonkeyPatch
) -> None:
    gains(separator, monkeypatch, 0.5, 0.25)
    path = write_audio(tmp_path / "a.wav", 5 * 48_000 + 11)
    options = SeparateOptions("tiny", "0" * 64, FormatChoice(float32=True), has_residual=True)

    result = separate_file(separator, path, ["speech", "drums"], tmp_path / "out", options)

    mixture = read(path).samples
    assert torch.equal(read(result.stems["speech"]).samples, mixture * 0.5)
    assert torch.equal(read(result.stems["residual"]).samples, mixture * 0.25)
    # A quarter of the amplitude is 12.04 dB less.
    assert result.record["residual_to_mixture_db"] == pytest.approx(-12.04, abs=0.01)


def test_perfect_sum_nulls(
    tmp_path: Path, separator: Separator, monkeypatch: pytest.MonkeyPatch
) -> None:
    gains(separator, monkeypatch, 0.5, 0.5)
    path = write_audio(tmp_path / "a.wav", 1000)

    result = separate_file(separator, path, ["speech", "drums"], tmp_path / "out", OPTIONS)

    assert result.record["residual_to_mixture_db"] == -200.0


def test_silence_has_no_level(tmp_path: Path, separator: Separator) -> None:
    path = write_audio(tmp_path / "a.wav", 0)

    result = separate_file(separator, path, ["speech"], tmp_path / "out", OPTIONS)

    assert result.record["stems"]["speech"]["level_dbfs"] is None
    assert result.record["residual_to_mixture_db"] is None


def test_clipping_is_said(
    tmp_path: Path, separator: Separator, monkeypatch: pytest.MonkeyPatch
) -> None:
    gains(separator, monkeypatch, 4.0, 0.1)
    path = write_audio(tmp_path / "a.wav")

    result = separate_file(separator, path, ["speech", "drums"], tmp_path / "out", OPTIONS)

    (warning,) = result.warnings
    assert "speech peaks 6.0 dB above full scale" in warning
    assert "--float32" in warning
    assert result.record["stems"]["speech"]["peak_dbfs"] == pytest.approx(6.02, abs=0.01)

    whole = SeparateOptions("tiny", "0" * 64, FormatChoice(float32=True))
    result = separate_file(separator, path, ["speech", "drums"], tmp_path / "out", whole)
    assert result.warnings == ()
    assert read(result.stems["speech"]).samples.max() > 1.9


def test_model_that_returns_no_numbers_is_an_error(
    tmp_path: Path, separator: Separator, monkeypatch: pytest.MonkeyPatch
) -> None:
    gains(separator, monkeypatch, float("nan"))
    path = write_audio(tmp_path / "a.wav")

    with pytest.raises(AudioError, match="not a finite number"):
        separate_file(separator, path, ["speech"], tmp_path / "out", OPTIONS)
    assert files_below(tmp_path) == ["a.wav"]


def test_too_little_memory_is_said(
    tmp_path: Path, separator: Separator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stream(*unused: object) -> Iterator[Tensor]:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.")
        yield

    monkeypatch.setattr(separator, "stream", stream)
    path = write_audio(tmp_path / "a.wav")

    with pytest.raises(ConfigError, match="--segment"):
        separate_file(separator, path, ["speech"], tmp_path / "out", OPTIONS)
    assert files_below(tmp_path) == ["a.wav"]


def test_prompts_are_checked_before_any_work(tmp_path: Path, separator: Separator) -> None:
    with pytest.raises(PromptError):
        separate_files(separator, [tmp_path / "missing.wav"], [], tmp_path / "out", OPTIONS)


def test_stem_that_cannot_be_renamed_takes_the_others_back(
    tmp_path: Path, separator: Separator, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_audio(tmp_path / "a.wav")
    replace = Path.replace

    def refuse_drums(self: Path, target: Path) -> Path:
        if target.name == "drums.wav":
            raise PermissionError(13, "Permission denied")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refuse_drums)

    with pytest.raises(AudioError, match=r"drums\.wav: cannot be written"):
        separate_file(separator, path, ["speech", "drums"], tmp_path / "out", OPTIONS)
    assert files_below(tmp_path) == ["a.wav"]


def test_warnings_about_the_recording_are_passed_on(tmp_path: Path, separator: Separator) -> None:
    path = write_audio(tmp_path / "a.wav", 4_800)
    path.write_bytes(path.read_bytes()[:-4000])

    result = separate_file(separator, path, ["speech"], tmp_path / "out", OPTIONS)

    assert "cut short" in result.warnings[0]
    assert read(result.stems["speech"]).num_samples == 3_800


def test_wav_and_flac_of_one_track_never_meet(tmp_path: Path, separator: Separator) -> None:
    paths = [write_audio(tmp_path / name) for name in ("x.wav", "X.flac")]

    with pytest.raises(ConfigError, match="same stems"):
        separate_files(separator, paths, ["speech"], tmp_path / "out", OPTIONS)
    assert not (tmp_path / "out").exists()
