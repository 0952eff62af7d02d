"""One recording from Python: progress, cancelling, levels, formats, video, the sidecar."""

import csv
import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from command_line import files_below, noise, write_audio
from unbraid import SeparationConfig, Separator
from unbraid.apps.separate_files import FileResult, SeparateOptions, separate_file
from unbraid.audio import FormatChoice, probe, read
from unbraid.errors import AudioError, Cancelled, ConfigError, PromptError
from unbraid.models.waveform import WaveformModel
from unbraid.types import Progress, SeparatedBlock

OPTIONS = SeparateOptions(model_name="tiny", model_digest="0" * 64)
FLOAT = FormatChoice(depth="float32")


def options(**wishes: object) -> SeparateOptions:
    return SeparateOptions("tiny", "0" * 64, **wishes)


def config(**wishes: object) -> SeparationConfig:
    return SeparationConfig(segment_s=1.0, overlap_s=0.25, **wishes)


@pytest.fixture
def separator(tiny_model: WaveformModel) -> Separator:
    return Separator(tiny_model, config())


def gains(separator: Separator, monkeypatch: pytest.MonkeyPatch, *values: float) -> None:
    """Let the separator return the mixture times these gains, delayed and in odd pieces."""

    def block_of(mixture: Tensor) -> SeparatedBlock:
        sources = torch.stack([mixture * gain for gain in values])
        return SeparatedBlock(mixture, sources, torch.zeros(len(values), 0))

    def stream(
        blocks: Iterable[Tensor],
        sample_rate: int,
        prompts: Sequence[str],
        *,
        cancel: threading.Event | None = None,
    ) -> Iterator[SeparatedBlock]:
        waiting = None
        for block in blocks:
            waiting = block if waiting is None else torch.cat([waiting, block], dim=1)
            if waiting.shape[1] > 2 * sample_rate:
                yield block_of(waiting[:, :777])
                waiting = waiting[:, 777:]
        if waiting is not None:
            yield block_of(waiting)

    monkeypatch.setattr(separator, "separate_stream", stream)


# ------------------------------------------------------------------ progress and stopping


def test_progress_is_a_number_that_grows_to_the_end(tmp_path: Path, separator: Separator) -> None:
    path = write_audio(tmp_path / "a.wav", 3 * 48_000)
    seen: list[Progress] = []

    separate_file(separator, path, ["speech"], tmp_path / "out", OPTIONS, seen.append)

    assert [progress.done_s for progress in seen] == sorted(progress.done_s for progress in seen)
    assert len(seen) > 2
    assert seen[0] == Progress(0.0, 3.0)
    assert seen[-1] == Progress(3.0, 3.0)


@pytest.mark.parametrize("peak_dbfs", [None, -1.0])
@pytest.mark.parametrize("at_s", [0.1, 3.0])
def test_cancelling_from_elsewhere(
    tmp_path: Path, separator: Separator, peak_dbfs: float | None, at_s: float
) -> None:
    path = write_audio(tmp_path / "a.wav", 3 * 48_000)
    cancel = threading.Event()

    def set_it(progress: Progress) -> None:
        if progress.done_s >= at_s:
            cancel.set()

    with pytest.raises(Cancelled):
        separate_file(
            separator, path, ["speech"], tmp_path / "out", options(peak_dbfs=peak_dbfs), set_it,
            cancel,
        )  # fmt: skip
    assert files_below(tmp_path) == ["a.wav"]


def test_prompts_are_checked_before_any_work(tmp_path: Path, separator: Separator) -> None:
    with pytest.raises(PromptError):
        separate_file(separator, tmp_path / "missing.wav", [], tmp_path / "out", OPTIONS)


# ------------------------------------------------------------------ levels


def test_residual_is_exact_whatever_the_pieces(
    tmp_path: Path, separator: Separator, monkeypatch: pytest.MonkeyPatch
) -> None:
    gains(separator, monkeypatch, 0.5, 0.25)
    path = write_audio(tmp_path / "a.wav", 5 * 48_000 + 11)

    result = separate_file(
        separator, path, ["speech", "drums"], tmp_path / "out",
        options(audio_format=FLOAT, has_residual=True),
    )  # fmt: skip

    mixture = read(path).samples
    assert torch.equal(read(result.stems["speech"]).samples, mixture * 0.5)
    assert torch.equal(read(result.stems["residual"]).samples, mixture * 0.25)
    # A quarter of the amplitude is 12.04 dB less.
    assert result.record["residual_to_mixture_db"] == pytest.approx(-12.04, abs=0.01)
    assert result.record["gain_db"] == 0


@pytest.mark.parametrize("way", ["off", "project"])
def test_written_stems_add_up(tmp_path: Path, tiny_model: WaveformModel, way: str) -> None:
    separator = Separator(tiny_model, config(consistency=way))
    wishes = options(has_residual=way == "off")
    path = write_audio(tmp_path / "a.wav", 2 * 44_100, rate=44_100, subtype="FLOAT")

    result = separate_file(separator, path, ["speech", "drums"], tmp_path / "out", wishes)

    total = sum(read(stem).samples for stem in result.stems.values())
    torch.testing.assert_close(total, read(path).samples, atol=1e-6, rtol=0)
    assert ("residual" in result.stems) == (way == "off")
    if way == "project":
        assert result.record["residual_to_mixture_db"] < -120


def test_perfect_sum_nulls(
    tmp_path: Path, separator: Separator, monkeypatch: pytest.MonkeyPatch
) -> None:
    gains(separator, monkeypatch, 0.5, 0.5)
    path = write_audio(tmp_path / "a.wav", 1000)

    result = separate_file(separator, path, ["speech", "drums"], tmp_path / "out", OPTIONS)

    assert result.record["residual_to_mixture_db"] == -200.0


@pytest.mark.parametrize("peak_dbfs", [None, -1.0])
def test_silence_has_no_level(
    tmp_path: Path, separator: Separator, peak_dbfs: float | None
) -> None:
    path = write_audio(tmp_path / "a.wav", 0)

    result = separate_file(
        separator, path, ["speech"], tmp_path / "out", options(peak_dbfs=peak_dbfs)
    )

    assert result.record["stems"]["speech"]["level_dbfs"] is None
    assert result.record["residual_to_mixture_db"] is None
    assert result.record["gain_db"] == 0


def test_clipping_is_said(
    tmp_path: Path, separator: Separator, monkeypatch: pytest.MonkeyPatch
) -> None:
    gains(separator, monkeypatch, 4.0, 0.1)
    path = write_audio(tmp_path / "a.wav")

    result = separate_file(separator, path, ["speech", "drums"], tmp_path / "out", OPTIONS)

    (warning,) = result.warnings
    assert "speech peaks at +6.0 dB of full scale" in warning
    assert "--float32" in warning
    assert result.record["stems"]["speech"]["peak_dbfs"] == pytest.approx(6.02, abs=0.01)

    whole = options(audio_format=FLOAT)
    result = separate_file(separator, path, ["speech", "drums"], tmp_path / "out", whole)
    assert result.warnings == ()
    assert read(result.stems["speech"]).samples.max() > 1.9


@pytest.mark.parametrize(("peak_dbfs", "peak"), [(-1.0, 0.891251), (0.0, 1.0), (-40.0, 0.01)])
def test_one_gain_for_all_stems(
    tmp_path: Path,
    separator: Separator,
    monkeypatch: pytest.MonkeyPatch,
    peak_dbfs: float,
    peak: float,
) -> None:
    gains(separator, monkeypatch, 4.0, 0.1)
    path = write_audio(tmp_path / "a.wav", 5 * 48_000 + 11)
    mixture = read(path).samples

    result = separate_file(
        separator, path, ["speech", "drums"], tmp_path / "out",
        options(audio_format=FLOAT, peak_dbfs=peak_dbfs, has_residual=True),
    )  # fmt: skip

    speech, drums, residual = (read(stem).samples for stem in result.stems.values())
    assert float(speech.abs().max()) == pytest.approx(peak, rel=1e-6)
    gain = peak / float(4 * mixture.abs().max())
    torch.testing.assert_close(speech, 4 * gain * mixture)
    torch.testing.assert_close(drums, 0.1 * gain * mixture)
    torch.testing.assert_close(speech + drums + residual, gain * mixture, atol=1e-6, rtol=0)
    assert result.record["gain_db"] == pytest.approx(20 * np.log10(gain), abs=0.01)
    assert result.record["stems"]["speech"]["peak_dbfs"] == pytest.approx(peak_dbfs, abs=0.01)
    assert result.record["residual_to_mixture_db"] == pytest.approx(9.83, abs=0.01)


@pytest.mark.parametrize("level", [1e-42, 1e30])
def test_peak_of_very_faint_and_very_loud_recordings(
    tmp_path: Path, separator: Separator, monkeypatch: pytest.MonkeyPatch, level: float
) -> None:
    gains(separator, monkeypatch, 0.5)
    soundfile.write(tmp_path / "a.wav", noise(60_000) * level, 48_000, subtype="FLOAT")

    result = separate_file(
        separator, tmp_path / "a.wav", ["speech"], tmp_path / "out", options(peak_dbfs=-1.0)
    )

    assert float(read(result.stems["speech"]).samples.abs().max()) == pytest.approx(0.891, rel=1e-3)


def test_integer_stems_at_full_scale_do_not_clip(
    tmp_path: Path, separator: Separator, monkeypatch: pytest.MonkeyPatch
) -> None:
    gains(separator, monkeypatch, 3.0)
    path = write_audio(tmp_path / "a.wav")

    result = separate_file(separator, path, ["speech"], tmp_path / "out", options(peak_dbfs=0.0))

    assert result.warnings == ()


# ------------------------------------------------------------------ what goes wrong


def test_model_that_returns_no_numbers_is_an_error(
    tmp_path: Path, separator: Separator, monkeypatch: pytest.MonkeyPatch
) -> None:
    gains(separator, monkeypatch, float("nan"))
    path = write_audio(tmp_path / "a.wav")

    with pytest.raises(AudioError, match=r"a\.wav.*not a finite number"):
        separate_file(separator, path, ["speech"], tmp_path / "out", OPTIONS)
    assert files_below(tmp_path) == ["a.wav"]


def test_too_little_memory_is_said(
    tmp_path: Path, separator: Separator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stream(*unused: object, **too: object) -> Iterator[SeparatedBlock]:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.")
        yield

    monkeypatch.setattr(separator, "separate_stream", stream)
    path = write_audio(tmp_path / "a.wav")

    with pytest.raises(ConfigError, match="--segment"):
        separate_file(separator, path, ["speech"], tmp_path / "out", OPTIONS)
    assert files_below(tmp_path) == ["a.wav"]


@pytest.mark.parametrize("kind", [PermissionError(13, "Permission denied"), KeyboardInterrupt()])
@pytest.mark.parametrize("at", ["speech.wav", "drums.wav", "presence.csv", "separation.json"])
def test_results_appear_together_or_not_at_all(
    tmp_path: Path,
    separator: Separator,
    monkeypatch: pytest.MonkeyPatch,
    kind: BaseException,
    at: str,
) -> None:
    """Also what was there before comes back, byte for byte."""
    prompts = ["speech", "drums"]
    path = write_audio(tmp_path / "a.wav")
    out = tmp_path / "out"
    replace = Path.replace
    num_calls = 0

    def refuse(self: Path, target: Path) -> Path:
        nonlocal num_calls
        if Path(target).parent.name == "a" and Path(target).name == at:
            num_calls += 1
            # The sidecar is replaced twice: first it makes room for a mark.
            if num_calls == (2 if at == "separation.json" else 1):
                raise kind
        return replace(self, target)

    def contents() -> dict[str, bytes]:
        return {file: (out / file).read_bytes() for file in files_below(out) if "." in file}

    for is_second in (False, True):
        if is_second:
            separate_file(separator, path, prompts, out, OPTIONS)
            path = write_audio(tmp_path / "a.wav", 13_000)
        before = contents() if is_second else {}
        num_calls = 0
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", refuse)
            with pytest.raises((AudioError, KeyboardInterrupt)):
                separate_file(separator, path, prompts, out, OPTIONS)
        assert num_calls
        if is_second:
            assert contents() == before
        else:
            assert files_below(tmp_path) == ["a.wav"]

    result = separate_file(separator, path, prompts, out, OPTIONS)
    assert result.status == "written"
    assert read(result.stems["drums"]).num_samples == 13_000


def test_warnings_about_the_recording_are_passed_on(tmp_path: Path, separator: Separator) -> None:
    path = write_audio(tmp_path / "a.wav", 4_800)
    path.write_bytes(path.read_bytes()[:-4000])

    result = separate_file(separator, path, ["speech"], tmp_path / "out", OPTIONS)

    assert "cut short" in result.warnings[0]
    assert read(result.stems["speech"]).num_samples == 3_800


# ------------------------------------------------------------------ the sidecar


def test_other_wishes_make_another_separation(tmp_path: Path, tiny_model: WaveformModel) -> None:
    path = write_audio(tmp_path / "a.wav", 1000)

    def status(settings: SeparationConfig, wishes: SeparateOptions) -> str:
        separator = Separator(tiny_model, settings)
        return separate_file(separator, path, ["speech"], tmp_path / "out", wishes).status

    runs = [
        (config(), OPTIONS),
        (config(gate=True), OPTIONS),
        (config(stereo="mid-side"), OPTIONS),
        (config(stereo="shared"), OPTIONS),
        (config(stereo="channels"), OPTIONS),
        (config(consistency="project"), OPTIONS),
        (config(), options(has_residual=True)),
        (config(), options(peak_dbfs=-1.0)),
        (config(), options(track=1)),
        (config(), options(audio_format=FormatChoice("mp3"))),
        (config(), options(audio_format=FormatChoice("mp3", bitrate_kbps=128))),
        (config(), options(audio_format=FormatChoice(depth="int24"))),
        (SeparationConfig(segment_s=1.5, overlap_s=0.25), OPTIONS),
        (SeparationConfig(segment_s=1.0, overlap_s=0.125), OPTIONS),
    ]
    for run in runs:
        assert status(*run) == "written"
        assert status(*run) == "skipped"


def test_sidecar_and_table_say_what_was_there(tmp_path: Path, separator: Separator) -> None:
    path = write_audio(tmp_path / "a.wav", 5 * 48_000)

    result = separate_file(separator, path, ["speech", "speech"], tmp_path / "out", OPTIONS)

    record = json.loads(result.sidecar.read_text())
    assert record == result.record
    assert record["settings"]["segment_s"] == 1.0
    assert {"stereo", "gate", "consistency", "overlap_s"} <= set(record["settings"])
    assert (record["track"], record["start_s"], record["tags"]) == (1, 0.0, {})
    assert result.presence == tmp_path / "out" / "tiny" / "a" / "presence.csv"
    with result.presence.open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["start_s", "end_s", "speech_1", "speech_2"]
    numbers = np.array(rows[1:], dtype=float)
    assert numbers[0, 0] == 0
    assert numbers[-1, 1] == 5
    np.testing.assert_allclose(numbers[1:, 0], numbers[:-1, 1], atol=1e-3)
    assert ((numbers[:, 2:] >= 0) & (numbers[:, 2:] <= 1)).all()
    for stem in record["stems"].values():
        assert 0 <= stem["presence"]["score"] <= 1
        for start_s, end_s in stem["presence"]["intervals"]:
            assert 0 <= start_s < end_s <= 5


def test_results_that_are_missing_make_it_unfinished(tmp_path: Path, separator: Separator) -> None:
    path = write_audio(tmp_path / "a.wav", 1000)
    result = separate_file(separator, path, ["speech"], tmp_path / "out", OPTIONS)
    for file in (result.stems["speech"], result.presence, result.sidecar):
        file.unlink()
        wishes = options(overwrite=file == result.sidecar)
        assert separate_file(
            separator, path, ["speech"], tmp_path / "out", wishes
        ).status == "written"  # fmt: skip


# ------------------------------------------------------------------ formats and video


@pytest.mark.parametrize("container", ["flac", "ogg", "opus", "mp3", "m4a"])
def test_formats_keep_length_and_rate(tmp_path: Path, separator: Separator, container: str) -> None:
    path = write_audio(tmp_path / "a.wav", 30_011, rate=32_000)

    result = separate_file(
        separator, path, ["speech"], tmp_path / "out",
        options(audio_format=FormatChoice(container)),
    )  # fmt: skip

    rate = 48_000 if container == "opus" else 32_000
    info = probe(result.stems["speech"])
    assert (info.sample_rate, info.num_channels) == (rate, 2)
    assert info.num_samples == -(-30_011 * rate // 32_000)
    assert result.record["format"]["sample_rate"] == rate
    assert (result.record["sample_rate"], result.record["num_samples"]) == (32_000, 30_011)
    is_resampled = [warning for warning in result.warnings if "cannot hold 32000 Hz" in warning]
    assert bool(is_resampled) == (container == "opus")


def test_rate_that_mp3_cannot_hold(
    tmp_path: Path, separator: Separator, monkeypatch: pytest.MonkeyPatch
) -> None:
    gains(separator, monkeypatch, 0.5)
    time_s = np.arange(96_000) / 96_000
    soundfile.write(tmp_path / "a.wav", 0.5 * np.sin(2 * np.pi * 1000 * time_s), 96_000)

    result = separate_file(
        separator, tmp_path / "a.wav", ["speech"], tmp_path / "out",
        options(audio_format=FormatChoice("mp3"), peak_dbfs=-6.0206),
    )  # fmt: skip

    stem = read(result.stems["speech"])
    assert (stem.sample_rate, stem.num_samples) == (48_000, 48_000)
    expected = 0.5 * torch.sin(2 * torch.pi * 1000 * torch.arange(48_000) / 48_000)
    inner = slice(2_000, -2_000)
    torch.testing.assert_close(stem.samples[0, inner], expected[inner], atol=5e-3, rtol=0)


def write_video(path: Path, *, has_pictures: bool = True) -> Path:
    """Two seconds of grey with two tracks: noise, and silence."""
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("mpeg4", rate=10) if has_pictures else None
        if pictures is not None:
            pictures.width = pictures.height = 32
            pictures.pix_fmt = "yuv420p"
        tracks = [container.add_stream("aac", rate=48_000, layout="stereo") for _ in range(2)]
        if pictures is not None:
            for number in range(20):
                frame = av.VideoFrame.from_ndarray(
                    np.full((48, 32), 10 * number, np.uint8), format="yuv420p"
                )
                container.mux(pictures.encode(frame))
            container.mux(pictures.encode(None))
        for track, level in zip(tracks, (1.0, 0.0), strict=True):
            samples = np.ascontiguousarray(noise(96_000).T * level)
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="stereo")
            frame.sample_rate = 48_000
            frame.time_base = Fraction(1, 48_000)
            frame.pts = 0
            container.mux(track.encode(frame))
            container.mux(track.encode(None))
    return path


def test_stem_under_its_video(
    tmp_path: Path, separator: Separator, monkeypatch: pytest.MonkeyPatch
) -> None:
    gains(separator, monkeypatch, 0.5, 0.25)
    path = write_video(tmp_path / "film.mp4")

    result = separate_file(
        separator, path, ["speech", "drums"], tmp_path / "out",
        options(remux=("drums",), peak_dbfs=-1.0),
    )  # fmt: skip

    assert list(result.videos) == ["drums"]
    video = result.videos["drums"]
    assert video == tmp_path / "out" / "tiny" / "film" / "drums.mp4"
    info = probe(video)
    assert info.has_video
    assert info.num_tracks == 1
    sound, stem = read(video).samples, read(result.stems["drums"]).samples
    length = min(sound.shape[1], stem.shape[1])
    assert length >= 95_000
    # AAC does not keep noise sample by sample, but nearly.
    error = (sound[:, :length] - stem[:, :length]).square().mean()
    assert error < 0.15 * stem.square().mean()
    assert result.record["videos"] == {"drums": "drums.mp4"}
    assert files_below(tmp_path / "out" / "tiny" / "film") == [
        "drums.mp4",
        "drums.wav",
        "presence.csv",
        "separation.json",
        "speech.wav",
    ]


def test_other_track_of_a_video(tmp_path: Path, separator: Separator) -> None:
    path = write_video(tmp_path / "film.mkv")

    result = separate_file(
        separator, path, ["speech"], tmp_path / "out", options(track=2, remux=("all",))
    )

    assert result.record["track"] == 2
    assert result.record["stems"]["speech"]["level_dbfs"] is None
    assert result.videos["speech"].suffix == ".mkv"
    with pytest.raises(AudioError, match="track 3"):
        separate_file(separator, path, ["speech"], tmp_path / "out", options(track=3))


def test_pictures_that_are_not_there(
    tmp_path: Path, separator: Separator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(separator, "separate_stream", None)  # no work is done
    for path in (
        write_audio(tmp_path / "a.wav"),
        write_video(tmp_path / "b.mp4", has_pictures=False),
    ):
        with pytest.raises(AudioError, match="no pictures"):
            separate_file(separator, path, ["speech"], tmp_path / "out", options(remux=("all",)))
    assert files_below(tmp_path) == ["a.wav", "b.mp4"]


def test_tags_and_layout_are_kept(tmp_path: Path, separator: Separator) -> None:
    path = write_audio(tmp_path / "a.wav")
    with soundfile.SoundFile(path, "r+") as file:
        file.title = "A long day"
        file.artist = "Nobody"

    def kept(container: str) -> FileResult:
        wishes = options(audio_format=FormatChoice(container))
        return separate_file(separator, path, ["speech"], tmp_path / "out", wishes)

    for container in ("wav", "flac", "mp3"):
        result = kept(container)
        assert result.record["tags"]["title"] == "A long day"
        assert probe(result.stems["speech"]).tags["artist"] == "Nobody"
