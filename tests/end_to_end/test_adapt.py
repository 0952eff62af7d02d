"""``unbraid adapt``: from recordings to a model that fits them, and everything that is refused."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from command_line import files_below, unbraid
from recording_miniatures import make_recordings, recording
from tiny_query_model import tiny_query_model
from unbraid.apps import adapt as adapt_app
from unbraid.apps.adapt import AdaptOptions, adapt, learning_rate_for
from unbraid.apps.keep_adapted import card_of
from unbraid.apps.known_mixtures import KnownMixtures
from unbraid.checkpoints import Bundle, Card, load_bundle, save_bundle
from unbraid.data.dynamic import MixtureBatch
from unbraid.errors import AudioError, Cancelled, ConfigError, PromptError, TrainingError
from unbraid.models.waveform import WaveformModel
from unbraid.training.methods.fine_tuning import FineTuningConfig
from unbraid.types import Step

PROMPTS = ("vocals", "drums")
QUICK = AdaptOptions(
    PROMPTS,
    tuning=FineTuningConfig("network", num_steps=4, check_every=2, learning_rate=3e-3),
    crop_s=0.5,
    batch_size=2,
    tolerance_db=100.0,
    device="cpu",
)


@pytest.fixture(autouse=True)
def one_known_mixture(monkeypatch: pytest.MonkeyPatch, tiny_model: WaveformModel) -> None:
    """To see that it is measured; making the real ones takes seconds."""
    rows = tiny_model.prompts.indices(PROMPTS)[None]
    references = torch.randn(1, 2, 9600, generator=torch.Generator().manual_seed(0))
    batch = MixtureBatch(references.sum(dim=1), references, rows)
    monkeypatch.setattr(adapt_app, "_CHECK_BATCHES", 2)
    monkeypatch.setattr(adapt_app, "known_mixtures", lambda *unused: KnownMixtures((batch,)))


@pytest.fixture
def source(tmp_path: Path, tiny_model: WaveformModel) -> Path:
    card = Card("small", "CC0-1.0", text="What the old one is.", more={"tags": ["audio"]})
    return save_bundle(tiny_model, tmp_path / "small", card)


@pytest.fixture
def bundle(source: Path) -> Bundle:
    return load_bundle(source)


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    return make_recordings(tmp_path / "recordings")


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_a_model_comes_out_with_card_and_report_and_the_old_one_stays(
    tmp_path: Path, source: Path, recordings: Path
) -> None:
    before = digests(source)
    out = tmp_path / "mine"
    command = ("adapt", source, recordings, "-p", ",".join(PROMPTS), "-o", out, "--device", "cpu")
    quick = ("--steps", "2", "--learning-rate", "0.003", "--crop", "0.5", "--batch-size", "2")
    done = unbraid(*command, *quick, "--tolerance", "100")
    assert done.code == 0, done.stderr
    assert "remixing loss, held back" in done.stdout
    assert "--prompts vocals,drums" in done.stdout
    assert digests(source) == before
    adapted, old = load_bundle(out), load_bundle(source)
    facts = adapted.card.more["adapted_from"]
    assert (adapted.card.name, adapted.card.licence) == ("mine", "CC0-1.0")
    assert adapted.card.more["tags"] == ["audio"]
    assert facts["digest"] == old.digest
    assert len(facts["fingerprint"]) == 64
    assert (facts["recordings"], facts["held_back"], facts["seed"]) == (6, 1, 0)
    assert facts["hours"] == pytest.approx(12.0 / 3600.0, abs=1e-4)
    assert facts["steps"] == 2
    assert facts["prompts"] == ["vocals", "drums"]
    assert (facts["method"], facts["teacher_decay"]) == ("RemixIT", 0.8)
    figures = facts["figures"]
    assert figures["after"]["held_back_loss_db"] < figures["before"]["held_back_loss_db"]
    assert "What the old one is." in adapted.card.text
    # Prompts are kept, and what is behind them has changed.
    assert torch.equal(adapted.model.prompts.weight, old.model.prompts.weight)
    assert any(
        not torch.equal(each, old.model.state_dict()[name])
        for name, each in adapted.model.state_dict().items()
    )
    page = (tmp_path / "mine.html").read_text()
    assert page.count("<audio") == 2 * 2 * 3
    assert "http" not in page.replace("http-equiv", "")

    again = unbraid(*command, *quick)
    assert again.code == 5
    assert "choose another name or say to overwrite" in again.error


def test_figures_on_a_card_are_plain_numbers(
    bundle: Bundle, recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = iter([0.0, 0.0, -0.001])
    monkeypatch.setattr(KnownMixtures, "si_sdr_db", lambda *unused: next(known))
    tuning = dataclasses.replace(QUICK.tuning, learning_rate=learning_rate_for("network"))
    options = dataclasses.replace(QUICK, tuning=tuning, keeps_last=True)
    card = card_of(adapt(bundle, [recordings], options), "mine", bundle)
    text = card.render()
    assert "learning_rate: 0.0001\n" in text
    assert "-0.0\n" not in text
    assert "-0.00 " not in text


def test_equal_seeds_adapt_alike(bundle: Bundle, recordings: Path) -> None:
    first, again = (adapt(bundle, [recordings], QUICK) for _ in range(2))
    assert first.checks == again.checks
    other = adapt(bundle, [recordings], dataclasses.replace(QUICK, seed=1))
    assert other.checks != first.checks
    assert first.kept.held_back_loss < first.before.held_back_loss


def test_nothing_is_kept_where_nothing_became_better(
    tmp_path: Path, source: Path, bundle: Bundle, recordings: Path
) -> None:
    # Adam takes such steps anywhere.
    wild = ("--steps", "1", "--learning-rate", "3", "--crop", "0.5", "--batch-size", "2")
    command = ("adapt", source, recordings, "-p", "vocals,drums", "-o", tmp_path / "out")
    before = files_below(tmp_path)
    done = unbraid(*command, *wild)
    assert done.code == 9
    assert "nothing was kept, small stays as it is" in done.stderr
    assert "--keep-last" in done.stderr
    assert [path for path in files_below(tmp_path) if "cache" not in path] == before

    tuning = dataclasses.replace(QUICK.tuning, num_steps=1, learning_rate=3.0)
    options = dataclasses.replace(QUICK, tuning=tuning, keeps_last=True)
    kept = adapt(bundle, [recordings], options)
    assert kept.kept.step == 1
    assert any("although it is no better" in warning for warning in kept.warnings)


def test_what_forgets_is_not_kept(
    bundle: Bundle, recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = iter([6.0, 5.8, 5.0, 4.0])
    monkeypatch.setattr(KnownMixtures, "si_sdr_db", lambda *unused: next(known))
    done = adapt(bundle, [recordings], dataclasses.replace(QUICK, tolerance_db=0.5))
    assert done.kept.step == 2
    assert [check.known_db for check in done.checks] == [6.0, 5.8, 5.0]
    known = iter([6.0, 5.0, 5.0])
    with pytest.raises(TrainingError, match=r"forgot too much of others \(-1\.0 dB"):
        adapt(bundle, [recordings], dataclasses.replace(QUICK, tolerance_db=0.5))


def test_a_loss_that_is_no_number_keeps_nothing(
    bundle: Bundle, recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = adapt_app.SelfTeaching.__call__
    monkeypatch.setattr(
        adapt_app.SelfTeaching,
        "__call__",
        lambda self, student: original(self, student) * torch.nan,
    )
    with pytest.raises(TrainingError, match=r"loss became infinite; lower --learning-rate\.$"):
        adapt(bundle, [recordings], dataclasses.replace(QUICK, keeps_last=True))


def test_one_recording_is_cut_in_time_and_it_is_said(bundle: Bundle, tmp_path: Path) -> None:
    file = tmp_path / "one.wav"
    soundfile.write(file, recording(0, 12.0), 48_000)
    done = adapt(bundle, [file, file], QUICK)
    assert (done.num_recordings, done.num_held_back) == (1, 0)
    assert done.hours == pytest.approx(12.0 / 3600.0)
    assert any("one recording only" in warning for warning in done.warnings)


def test_recordings_that_will_not_do(bundle: Bundle, tmp_path: Path) -> None:
    def refused(*files: Path) -> str:
        with pytest.raises(AudioError) as caught:
            adapt(bundle, files, QUICK)
        return str(caught.value)

    assert "no such file" in refused(tmp_path / "nowhere.wav")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no recordings there" in refused(empty)
    (tmp_path / "text.wav").write_text("no sound")
    assert "cannot be read" in refused(tmp_path / "text.wav")
    soundfile.write(tmp_path / "nothing.wav", np.zeros(48_000), 48_000)
    assert "silent" in refused(tmp_path / "nothing.wav", tmp_path / "text.wav")
    assert "too short: 4.0 s" in refused(make_recordings(tmp_path / "short", 2))


def test_models_and_prompts_that_will_not_do(
    bundle: Bundle, source: Path, recordings: Path, tmp_path: Path
) -> None:
    done = unbraid("adapt", source, recordings)
    assert done.code == 2
    assert "--prompts is missing" in done.error
    assert "vocals" in done.error
    with pytest.raises(ConfigError, match="two or more"):
        dataclasses.replace(QUICK, prompts=("vocals",))
    with pytest.raises(ConfigError, match="batch of 3"):
        dataclasses.replace(QUICK, prompts=("vocals", "drums", "bass"))
    with pytest.raises(PromptError, match="kazoo"):
        adapt(bundle, [recordings], dataclasses.replace(QUICK, prompts=("vocals", "kazoo")))
    other = load_bundle(
        save_bundle(tiny_query_model().eval(), tmp_path / "query", Card("query", "CC0-1.0"))
    )
    with pytest.raises(PromptError, match="asked with prompts"):
        adapt(other, [recordings], QUICK)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--what", "half"], "choose all, network, prompts-and-codec, lora"),
        (["--method", "magic"], "choose remixit, self-remixing, both"),
        (["--minutes", "0"], "minutes"),
        (["--steps", "0"], "num_steps"),
        (["--learning-rate", "-1"], "learning_rate"),
        (["--crop", "0"], "crop_s"),
        (["--batch-size", "1"], "not 1; raise the batch size."),
        (["--tolerance", "-1"], "tolerance_db"),
        (["--teacher-decay", "2"], "decay"),
        (["--device", "cpu,cpu"], "one device"),
    ],
)
def test_flags_that_make_no_sense(
    tmp_path: Path, source: Path, recordings: Path, flags: list[str], words: str
) -> None:
    out = tmp_path / "out"
    done = unbraid("adapt", source, recordings, "-p", "vocals,drums", "-o", out, *flags)
    assert done.code == 2
    assert words in done.error
    assert not out.exists()


def test_it_can_be_stopped_and_leaves_nothing(bundle: Bundle, recordings: Path) -> None:
    def stop(step: Step) -> None:
        if step.name == "adapting":
            raise Cancelled("enough")

    before = files_below(bundle.folder.parent)
    with pytest.raises(Cancelled):
        adapt(bundle, [recordings], QUICK, stop)
    assert files_below(bundle.folder.parent) == before


def test_the_old_model_is_not_replaced(source: Path, recordings: Path) -> None:
    done = unbraid("adapt", source, recordings, "-p", "vocals,drums", "-o", source, "--overwrite")
    assert done.code == 5
    assert "is the model that is to be tuned" in done.error
