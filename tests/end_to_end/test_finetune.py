"""``unbraid finetune``: from songs to a tuned model, and everything that is refused."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from command_line import files_below, unbraid
from song_miniatures import make_songs
from tiny_query_model import tiny_query_model
from unbraid.apps import finetune as finetune_app
from unbraid.apps.finetune import FinetuneOptions, finetune
from unbraid.apps.keep_finetuned import keep_finetuned
from unbraid.checkpoints import Bundle, Card, load_bundle, save_bundle
from unbraid.config import dump
from unbraid.dsp.stft import StftConfig
from unbraid.errors import Cancelled, CheckpointError, DataError, PromptError, TrainingError
from unbraid.models.registry import find_architecture
from unbraid.models.waveform import ModelConfig, WaveformModel, build_model
from unbraid.training.methods.fine_tuning import FineTuningConfig
from unbraid.types import Step

LICENCE = "AGPL-3.0-or-later"
QUICK = FinetuneOptions(
    tuning=FineTuningConfig(num_steps=2, check_every=1, learning_rate=1e-2),
    crop_s=0.2,
    num_pieces=4,
    keeps_last=True,
    device="cpu",
)


@pytest.fixture
def source(tmp_path: Path, tiny_model: WaveformModel) -> Path:
    card = Card("small", LICENCE, text="What the old one is.", more={"tags": ["audio"]})
    return save_bundle(tiny_model, tmp_path / "small", card)


@pytest.fixture
def bundle(source: Path) -> Bundle:
    return load_bundle(source)


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    return make_songs(tmp_path / "songs", seconds=2.0)


def test_a_better_model_comes_out_with_card_and_report(
    tmp_path: Path, source: Path, songs: Path
) -> None:
    out = tmp_path / "mine"
    flags = ("--data", songs, "-o", out, "--device", "cpu")
    quick = ("--steps", "16", "--learning-rate", "0.01", "--crop", "0.2")
    done = unbraid("finetune", source, *flags, *quick)
    assert done.code == 0, done.stderr
    assert "dB before" in done.stdout
    assert "Use it: unbraid separate RECORDING" in done.stdout
    tuned = load_bundle(out)
    card, facts = tuned.card, tuned.card.more["tuned_from"]
    assert (card.name, card.licence, card.more["tags"]) == ("mine", LICENCE, ["audio"])
    assert facts["digest"] == load_bundle(source).digest
    assert (facts["songs"], facts["held_back"], facts["steps"]) == (2, 1, 16)
    figures = facts["figures"]
    assert set(figures) == {"all", "vocals", "drums"}
    assert figures["all"]["si_sdr_db"]["after"] > figures["all"]["si_sdr_db"]["before"] + 1
    assert "What the old one is." in card.text
    assert "SI-SDR before" in card.text
    page = (tmp_path / "mine.html").read_text()
    assert page.count("<audio") == 2 * 4
    assert "data:image/png" in page
    assert LICENCE in page
    assert "http" not in page.replace("http-equiv", "")

    mixture = tmp_path / "mix.wav"
    soundfile.write(mixture, 0.1 * np.random.default_rng(0).standard_normal(24_000), 48_000)
    done = unbraid("separate", mixture, "-m", out, "-p", "vocals,drums", "-o", tmp_path / "stems")
    assert done.code == 0, done.stderr

    again = unbraid("finetune", source, *flags, *quick)
    assert again.code == 5
    assert "choose another name or say to overwrite" in again.error


def test_the_name_is_that_of_the_model_and_it_can_be_replaced(
    tmp_path: Path, source: Path, songs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # Adam takes such steps anywhere.
    wild = ("--steps", "1", "--crop", "0.2", "--learning-rate", "3")
    command = ("finetune", source, "--data", songs, *wild, "--quiet")
    before = files_below(tmp_path)
    refused = unbraid(*command)
    assert refused.code == 9
    assert "nothing was kept, small stays as it is: no check was better" in refused.error
    assert "--keep-last keeps the last state" in refused.error
    assert [path for path in files_below(tmp_path) if "cache" not in path] == before

    command += ("--keep-last",)
    kept = unbraid(*command)
    assert (kept.code, kept.stdout) == (0, "")
    assert "warning: it was kept although no better" in kept.stderr
    assert "warning: SI-SDR fell on the pieces that are measured: all (" in kept.stderr
    assert load_bundle(tmp_path / "small-tuned").card.name == "small-tuned"
    (tmp_path / "small-tuned.html").write_text("old")
    assert unbraid(*command, "--overwrite", "--what", "prompts-and-codec").code == 0
    assert "entry and exit" in (tmp_path / "small-tuned.html").read_text()
    old, new = (load_bundle(tmp_path / name) for name in ("small", "small-tuned"))
    for name, tensor in old.model.state_dict().items():
        if not name.startswith(("prompts.", "network.codec.")):
            assert torch.equal(new.model.state_dict()[name], tensor)


def test_the_same_seed_tunes_the_same_and_the_source_stays(bundle: Bundle, songs: Path) -> None:
    before = {name: tensor.clone() for name, tensor in bundle.model.state_dict().items()}
    first, again = (finetune(bundle, songs, QUICK) for _ in range(2))
    assert first.checks == again.checks
    assert first.gains == again.gains
    other = finetune(bundle, songs, dataclasses.replace(QUICK, seed=1))
    assert other.checks != first.checks
    assert set(first.held_back) | set(first.learnt_from) == {"song0", "song1", "song2"}
    assert not set(first.held_back) & set(first.learnt_from)
    assert all(torch.equal(bundle.model.state_dict()[n], each) for n, each in before.items())


def test_one_song_is_cut_in_time_and_it_is_said(bundle: Bundle, tmp_path: Path) -> None:
    songs = make_songs(tmp_path / "one", 1, seconds=6.0)
    done = finetune(bundle, songs, QUICK)
    assert done.learnt_from == done.held_back == ("song0",)
    assert any("is the only song" in warning for warning in done.warnings)
    assert all(float(piece.item.name.split()[-2]) >= 4.8 for piece in done.pieces)


def test_a_stem_that_rests_in_the_pieces_measured_is_named(bundle: Bundle, tmp_path: Path) -> None:
    songs = make_songs(tmp_path / "one", 1, seconds=6.0, stems=("vocals", "drums", "other"))
    path = songs / "song0/other.wav"
    samples, rate = soundfile.read(path)
    samples[round(4.7 * rate) :] = 0.0
    soundfile.write(path, samples, rate)
    done = finetune(bundle, songs, QUICK)
    assert {gain.prompt for gain in done.gains} == {"all", "vocals", "drums"}
    assert any(warning.startswith("other: not heard") for warning in done.warnings)
    assert set(done.prompts) == {"vocals", "drums", "other"}
    assert done.kept.step == 2


def test_a_loss_that_is_no_number_keeps_nothing(
    bundle: Bundle, songs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = finetune_app.from_references
    monkeypatch.setattr(
        finetune_app,
        "from_references",
        lambda *given: lambda model: original(*given)(model) * torch.nan,
    )
    with pytest.raises(TrainingError, match=r"loss became infinite; lower --learning-rate\.$"):
        finetune(bundle, songs, QUICK)


def test_a_model_with_fixed_outputs_that_hears_two_channels(tmp_path: Path) -> None:
    architecture = find_architecture("tf_locoformer")
    example = next(name for name, each in architecture.examples.items() if each.num_channels == 2)
    num_outputs = architecture.examples[example].num_outputs
    outputs = ("vocals", "drums", "bass", "other")[:num_outputs]
    torch.manual_seed(0)
    model = build_model(
        ModelConfig(
            "tf_locoformer", 16_000, StftConfig(256, 128), dump(architecture.examples[example]),
            outputs=outputs, segment_s=1.0, overlap_s=0.2,
        )
    ).eval()  # fmt: skip
    bundle = load_bundle(save_bundle(model, tmp_path / "stereo", Card("stereo", "CC0-1.0")))
    songs = make_songs(tmp_path / "songs", 2, rate=16_000, num_channels=2, stems=outputs[:2])
    done = finetune(bundle, songs, QUICK)
    assert done.pieces[0].after.shape == (2, 2, 16_000)
    kept = keep_finetuned(done, tmp_path / "out", bundle)
    assert load_bundle(kept.bundle).config == bundle.config
    sung = make_songs(tmp_path / "sung", 2, rate=16_000, num_channels=2, stems=("vocals", "speech"))
    with pytest.raises(DataError, match="'speech' is no prompt"):
        finetune(bundle, sung, QUICK)
    twice = make_songs(tmp_path / "twice", 2, rate=16_000, stems=("vocals_1", "vocals_2"))
    with pytest.raises(PromptError, match="has 1 output for it"):
        finetune(bundle, twice, QUICK)


def test_a_prompt_that_is_missing_names_what_helps(
    bundle: Bundle, source: Path, tmp_path: Path
) -> None:
    songs = make_songs(tmp_path / "songs", 2, seconds=1.5, stems=("kazoo", "drums"))
    command = ("finetune", source, "--data", songs, "-o", tmp_path / "out", "--steps", "1")
    done = unbraid(*command)
    assert done.code == 6
    assert "--stem kazoo=PROMPT" in done.stderr
    assert "unbraid teach" in done.stderr
    done = unbraid(*command, "--stem", "kazoo=vocal")
    assert done.code == 3
    assert "did you mean vocals" in done.stderr
    assert "unbraid teach" in done.stderr
    assert not (tmp_path / "out").exists()
    as_vocals = dataclasses.replace(QUICK, stems={"kazoo": "vocals"})
    assert {gain.prompt for gain in finetune(bundle, songs, as_vocals).gains} == {
        "all", "vocals", "drums",
    }  # fmt: skip
    left_out = dataclasses.replace(QUICK, stems={"kazoo": "-"})
    assert [gain.prompt for gain in finetune(bundle, songs, left_out).gains] == ["all", "drums"]


def silence(songs: Path, *names: str) -> None:
    for path in songs.glob("*/*.wav"):
        if path.stem in names:
            soundfile.write(path, np.zeros(72_000), 48_000)


def test_songs_that_will_not_do(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        finetune(bundle, tmp_path / "nowhere", QUICK)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="no folders with audio"):
        finetune(bundle, empty, QUICK)
    short = make_songs(tmp_path / "short", 2, seconds=0.3)
    with pytest.raises(DataError, match="too short"):
        finetune(bundle, short, QUICK)
    silent = make_songs(tmp_path / "silent", 2, seconds=1.5)
    silence(silent, "drums")
    with pytest.raises(DataError, match="nothing is to be heard of drums"):
        finetune(bundle, silent, QUICK)
    silence(silent, "drums", "vocals")
    with pytest.raises(DataError, match="all stems are silent"):
        finetune(bundle, silent, QUICK)
    many = make_songs(tmp_path / "many", 1, stems=[f"other_{n}" for n in range(5)])
    with pytest.raises(DataError, match="5 stems for the prompt 'other'"):
        finetune(bundle, many, QUICK)


def test_a_model_that_is_asked_by_example_is_refused(tmp_path: Path, songs: Path) -> None:
    model = tiny_query_model().eval()
    bundle = load_bundle(save_bundle(model, tmp_path / "query", Card("query", "CC0-1.0")))
    with pytest.raises(PromptError, match="asked by example"):
        finetune(bundle, songs, QUICK)


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--what", "half"], 2, "choose all, network, prompts-and-codec, lora"),
        (["--minutes", "0"], 2, "minutes"),
        (["--steps", "0"], 2, "num_steps"),
        (["--learning-rate", "-1"], 2, "learning_rate"),
        (["--crop", "0"], 2, "crop_s"),
        (["--batch-size", "0"], 2, "batch_size"),
        (["--device", "abacus"], 2, "unknown device"),
        (["--device", "cpu,cpu"], 2, "one device"),
        (["--stem", "vocals"], 2, "NAME=PROMPT"),
        (["--what", "lora", "--rank", "0"], 2, "rank"),
    ],
)
def test_flags_that_make_no_sense(
    tmp_path: Path, source: Path, songs: Path, flags: list[str], code: int, words: str
) -> None:
    done = unbraid("finetune", source, "--data", songs, "-o", tmp_path / "out", *flags)
    assert done.code == code
    assert words in done.stderr
    assert not (tmp_path / "out").exists()


def test_what_is_there_is_not_replaced_unasked(tmp_path: Path, source: Path, songs: Path) -> None:
    command = ("finetune", source, "--data", songs, "--steps", "1", "-o")
    assert "is the model that is to be tuned" in unbraid(*command, source, "--overwrite").error
    assert "is no model" in unbraid(*command, songs, "--overwrite").error
    (tmp_path / "new.html").write_text("mine")
    assert "exists already" in unbraid(*command, tmp_path / "new").error
    assert "there is no such model" in unbraid("finetune", "nobody", "--data", songs).error


def test_it_can_be_stopped_and_leaves_nothing(
    bundle: Bundle, songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(step: Step) -> None:
        if step.name == "tuning":
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        finetune(bundle, songs, QUICK, stop)
    done = finetune(bundle, songs, QUICK)
    before = files_below(tmp_path)

    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("unbraid.checkpoints.bundle.serialize", interrupted)
    with pytest.raises(KeyboardInterrupt):
        keep_finetuned(done, tmp_path / "out", bundle)
    assert files_below(tmp_path) == before
    with pytest.raises(CheckpointError, match="is the model that is to be tuned"):
        keep_finetuned(done, bundle.folder, bundle, overwrite=True)
