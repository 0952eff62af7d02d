"""``unbraid separate --query``: sounds that are shown instead of named."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from command_line import unbraid
from released_st_sed_sep import separator_state, tagger_state, write_checkpoint
from unbraid import load_separator
from unbraid.apps.example_clips import digest_of_clip
from unbraid.apps.queries import mean_embedding, name_queries, query_from_clips
from unbraid.apps.shown_sounds import shown_sounds
from unbraid.apps.teach import TeachOptions, teach
from unbraid.checkpoints import Bundle, import_released, save_bundle
from unbraid.data.dynamic import MixtureBatch
from unbraid.errors import AudioError, ConfigError, PromptError
from unbraid.models.taggers.htsat import Htsat
from unbraid.models.waveform import WaveformModel
from unbraid.training.methods.prompt_tuning import TuningConfig, tune_prompts

RATE = 32_000


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    separator = write_checkpoint(tmp_path / "asp.ckpt", separator_state())
    tagger = write_checkpoint(tmp_path / "htsat.ckpt", tagger_state())
    return import_released(separator, name="asp", tagger=tagger)


@pytest.fixture
def model(bundle: Bundle) -> WaveformModel:
    return bundle.model


def sound(seed: int, seconds: float, rate: int = RATE, channels: int = 1) -> np.ndarray:
    shape = (round(seconds * rate), channels)
    return 0.1 * np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def write(path: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype="FLOAT" if path.suffix == ".wav" else None)
    return path


def test_a_query_is_the_mean_embedding_of_its_clips(model: WaveformModel, tmp_path: Path) -> None:
    clips = [write(tmp_path / f"{seed}.wav", sound(seed, 0.5 + seed)) for seed in range(2)]
    query = query_from_clips(model, clips)
    assert model.tagger is not None
    with torch.no_grad():
        embeddings = [
            model.tagger(torch.from_numpy(sound(seed, 0.5 + seed)).T).embedding[0]
            for seed in range(2)
        ]
    torch.testing.assert_close(query, torch.stack(embeddings).mean(dim=0))
    assert not query.is_inference()


def test_the_loudest_channel_is_heard_without_silence(model: WaveformModel, tmp_path: Path) -> None:
    mono = sound(1, 1.0)
    pause = np.zeros((RATE, 1), np.float32)
    # Blocks of silence are a tenth of a second, so a whole second leaves no rest.
    clip = np.concatenate([pause, mono[: RATE // 2], pause, mono[RATE // 2 :], pause])
    expected = query_from_clips(model, [write(tmp_path / "mono.wav", mono)])
    # The mean of the last two channels is silence.
    for number, other in enumerate((np.zeros_like(clip), -clip)):
        stereo = np.concatenate([clip, other], axis=1)
        found = query_from_clips(model, [write(tmp_path / f"{number}.wav", stereo)])
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_quiet_clip_is_heard(model: WaveformModel, tmp_path: Path) -> None:
    quiet = write(tmp_path / "quiet.wav", 1e-4 * sound(1, 1.0))
    assert torch.isfinite(query_from_clips(model, [quiet])).all()


def test_clips_of_any_rate_and_length_are_heard(model: WaveformModel, tmp_path: Path) -> None:
    for name, seconds, rate in (
        ("a.flac", 0.01, 8000),
        ("b.ogg", 0.7, 44_100),
        ("c.wav", 21, RATE),
    ):
        assert torch.isfinite(
            query_from_clips(model, [write(tmp_path / name, sound(2, seconds, rate), rate)])
        ).all()


def test_clips_that_show_nothing_are_refused(model: WaveformModel, tmp_path: Path) -> None:
    for length in (0, 1000):
        silent = write(tmp_path / f"{length}.wav", np.zeros((length, 1), np.float32))
        with pytest.raises(AudioError, match=r"silent|no samples|empty"):
            query_from_clips(model, [silent])
    with pytest.raises(AudioError):
        query_from_clips(model, [tmp_path / "missing.wav"])
    with pytest.raises(PromptError, match="at least one clip"):
        query_from_clips(model, [])


def test_names_are_safe_and_unlike() -> None:
    clips = [
        Path("x/Dog.wav"),
        Path("dog.mp3"),
        Path("music.wav"),
        Path("a,b .wav"),
        Path("con.wav"),
    ]
    names = name_queries(clips, ["dog-2"])
    assert list(names) == ["Dog", "dog-3", "music-2", "a_b", "con_"]
    assert list(names.values()) == clips
    assert len({name.casefold() for name in names}) == len(clips)


def test_each_query_becomes_a_stem(bundle: Bundle, tmp_path: Path) -> None:
    mixture = write(tmp_path / "mix.wav", sound(3, 1.5, 44_100, 2), 44_100)
    dog = write(tmp_path / "dog.wav", sound(0, 1))
    tone = np.sin(np.arange(RATE) / 10).astype(np.float32)[:, None]
    bell = write(tmp_path / "bell.wav", tone)
    command = ["separate", mixture, "-m", "asp", "-o", tmp_path / "out", "--float32"]
    command += ["--query", dog, "--query", bell]
    outcome = unbraid(*command, "--json")
    assert outcome.code == 0, outcome.stderr
    folder = tmp_path / "out" / "asp" / "mix"
    stems = {name: soundfile.read(folder / f"{name}.wav")[0] for name in ("dog", "bell")}
    assert {stem.shape for stem in stems.values()} == {(round(1.5 * 44_100), 2)}
    separator = load_separator("asp", device="cpu", queries={"dog": [dog], "bell": [bell]})
    expected = separator.separate(mixture, ["dog", "bell"])
    for name, stem in stems.items():
        np.testing.assert_allclose(stem.T, expected[name].numpy(), atol=1e-6)
    assert np.abs(stems["dog"] - stems["bell"]).max() > 1e-4

    assert "finished already" in unbraid(*command).stdout
    # Another sound under the same name is another request.
    write(dog, sound(9, 1))
    assert "finished already" not in unbraid(*command).stdout


def test_queries_stand_beside_prompts(bundle: Bundle, tmp_path: Path) -> None:
    named = bundle.model.with_prompts({"dog": torch.randn(1, 8)})
    folder = save_bundle(named, tmp_path / "named", bundle.card)
    mixture = write(tmp_path / "mix.wav", sound(3, 0.5))
    dog = write(tmp_path / "clips" / "dog.wav", sound(4, 0.5))
    outcome = unbraid(
        *("separate", mixture, "-m", folder, "-p", "dog", "-o", tmp_path / "out"),
        *("--query", dog, "--query", tmp_path / "clips"),
    )
    assert outcome.code == 0, outcome.stderr
    assert "warning" not in outcome.stderr
    written = {path.name for path in (tmp_path / "out").rglob("*.wav")}
    assert written == {"dog.wav", "dog-2.wav", "clips.wav"}

    tick = write(tmp_path / "tick.wav", sound(1, 0.05))
    command = ("separate", mixture, "-m", folder, "--query", tick, "-o", tmp_path / "out")
    assert "tick.wav: only 50 ms of sound" in unbraid(*command).stderr
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "empty: no recordings there" in unbraid(*command, "--query", empty).error


def test_a_folder_is_one_query_known_by_all_of_its_clips(tmp_path: Path) -> None:
    folder = tmp_path / "my.dogs"
    first = write(folder / "a.wav", sound(0, 0.5))
    shown = shown_sounds([folder, first], ["a"])
    assert {name: each.clips for name, each in shown.items()} == {
        "my.dogs": (first,),
        "a-2": (first,),
    }
    assert shown["a-2"].sha256 == digest_of_clip(first)
    second = write(folder / "b.wav", sound(1, 0.5))
    again = shown_sounds([folder], [])["my.dogs"]
    assert again.clips == (first, second)
    assert again.sha256 != shown["my.dogs"].sha256


def test_what_cannot_be_asked_by_example_says_what_to_do(bundle: Bundle, tmp_path: Path) -> None:
    mixture = write(tmp_path / "mix.wav", sound(3, 0.5))
    by_name = unbraid("separate", mixture, "-m", "mini", "--query", mixture, "-o", tmp_path)
    assert by_name.code == PromptError.exit_code
    assert "unbraid teach" in by_name.stderr
    nothing = unbraid("separate", mixture, "-m", "asp", "-o", tmp_path)
    assert nothing.code == PromptError.exit_code
    assert "--query" in nothing.stderr


@pytest.mark.slow
def test_a_query_can_be_tuned_on_the_same_clips(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Audio prompt tuning as published: start at the mean embedding, tune the query alone, by L1.
    clips = [write(tmp_path / f"{seed}.wav", sound(seed, 1.0)) for seed in range(2)]
    before = {name: tensor.clone() for name, tensor in bundle.model.state_dict().items()}
    tuning = TuningConfig(loss="l1", num_steps=3, check_every=3, learning_rate=0.01)
    heard_clips = []

    def listen(tagger: Htsat, some: list[torch.Tensor], sample_rate: int) -> torch.Tensor:
        heard_clips.extend(some)
        return mean_embedding(tagger, some, sample_rate)

    monkeypatch.setattr("unbraid.apps.teach.mean_embedding", listen)
    lesson = teach(bundle, "noise", clips, TeachOptions(minutes=5.0, tuning=tuning))
    # The clip that is held back takes no part in the start, so what it is before is honest.
    assert (len(heard_clips), lesson.num_held_back) == (1, 1)
    for name, tensor in bundle.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert lesson.start == "the mean of the clips"
    assert lesson.prompt.vectors.shape == (1, bundle.model.prompts.dim)
    assert lesson.checks[-1].step == 3
    query = query_from_clips(bundle.model, clips)
    with torch.no_grad():
        heard = bundle.model.with_prompts({"noise": query[None]})
        batch = torch.from_numpy(sound(7, 2.0)).T
        asked = torch.tensor([[len(bundle.model.prompts.names)]])
        assert heard(batch, asked).shape == lesson.model(batch, asked).shape


def test_joint_tuning_keeps_the_tagger_and_makes_no_prompt_file(bundle: Bundle) -> None:
    mixture = torch.from_numpy(sound(3, 1.0)).T
    row = torch.tensor([[len(bundle.model.prompts.names)]])
    batch = MixtureBatch(mixture, mixture[None] / 2, row)
    tuning = TuningConfig(num_steps=1, network_learning_rate=1e-4)
    start = {"noise": torch.ones(1, bundle.model.prompts.dim)}
    scores = iter([0.0, 1.0])
    tuned = tune_prompts(bundle.model, start, [batch], lambda model: next(scores), tuning)
    assert tuned.model.network is not bundle.model.network
    assert tuned.model.tagger is bundle.model.tagger
    with pytest.raises(ConfigError, match="joint tuning"):
        TeachOptions(tuning=tuning)
