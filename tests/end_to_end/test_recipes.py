"""The recipes that ship: that they say what the papers say, and that each of them trains."""

import csv
import dataclasses
import shutil
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import sound_miniatures
import speech_miniatures
from command_line import unbraid
from recipe_material import make_material
from unbraid.apps.prepare_corpus import prepare_corpus
from unbraid.checkpoints import load_bundle
from unbraid.config import dump, parse
from unbraid.data.catalogue import select
from unbraid.data.manifest import read_manifest
from unbraid.data.mixture_lists import read_mixtures
from unbraid.errors import ConfigError
from unbraid.models.architectures import tf_locoformer, tuss, unconditional
from unbraid.models.registry import find_architecture
from unbraid.models.waveform import build_model
from unbraid.objectives.losses import (
    LossConfig,
    SiSnrLossConfig,
    SnrLossConfig,
    SpectralLossConfig,
)
from unbraid.training import run
from unbraid.training.config import NOT_STATED, TrainConfig
from unbraid.training.methods.mixit import MixitConfig
from unbraid.training.recipe_files import (
    corpora_of,
    load_recipe,
    shipped_recipes,
    write_config,
)
from unbraid.training.schedule import PlateauConfig, StepDecayConfig, learning_rate

#: Those of the papers that these tests are about.
_PAPERS = ("tuss-", "unconditional-", "specialist-", "tf-locoformer-", "sfc-")
NAMES = [name for name in shipped_recipes() if name.startswith(_PAPERS)]

#: Parameters as published or counted from the publications.
PARAMETERS = {
    "tuss-medium": 11_132_352,
    "tuss-medium-batch-4": 11_132_352,
    "tuss-medium-prompt-dropout": 11_132_352,
    "tuss-large": 38_210_112,
    "tuss-large-prompt-dropout": 38_210_112,
    "unconditional-medium": 14_292_876,
    "specialist-vctk-demand-data": 12_185_476,
    "specialist-vctk-demand-task": 12_185_476,
    "specialist-wham-data": 13_239_176,
    "specialist-wham-task": 13_239_176,
    "specialist-fuss-data": 14_292_876,
    "specialist-fuss-task": 14_292_876,
    "specialist-musdb-data": 14_292_876,
    "specialist-musdb-task": 14_292_876,
    "specialist-dnr-data": 13_239_176,
    "specialist-dnr-task": 13_239_176,
    "tf-locoformer-small-wsj0-2mix": 5_031_036,
    "tf-locoformer-small-whamr": 5_026_940,
    "tf-locoformer-medium-wsj0-2mix": 14_975_652,
    "tf-locoformer-medium-wsj0-2mix-dm": 14_975_652,
    "tf-locoformer-medium-libri2mix": 14_975_652,
    "tf-locoformer-medium-whamr": 14_966_436,
    "tf-locoformer-medium-dns": 14_973_346,
    "tf-locoformer-large-wsj0-2mix": 22_459_812,
    "tf-locoformer-large-wsj0-2mix-dm": 22_459_812,
    "sfc-small-musdb": 5_821_392,
    "sfc-medium-musdb": 16_013_328,
    "sfc-small-dnr": 5_814_470,
    "sfc-medium-dnr": 16_002_950,
    "sfc-mamba-small-musdb": 5_144_558,
    "sfc-mamba-medium-musdb": 15_201_422,
}


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_whole_and_prints_itself(name: str, tmp_path: Path) -> None:
    config = load_recipe(name)
    assert config.name == name
    assert config.description
    printed = tmp_path / "printed.yaml"
    printed.write_text(write_config(config))
    assert load_recipe(printed) == config
    assert set(corpora_of(config)), "it names the corpora it needs"
    assert config.model.network == dump(
        parse(find_architecture(config.model.architecture).config_type, config.model.network)
    )


@pytest.mark.parametrize(("name", "expected"), PARAMETERS.items())
def test_models_have_the_published_size(name: str, expected: int) -> None:
    with torch.device("meta"):
        assert build_model(load_recipe(name).model).num_parameters == expected


def test_every_size_that_is_published_is_checked() -> None:
    others = {name for name in NAMES if "large" in name or "sfc" in name} - PARAMETERS.keys()
    assert {*PARAMETERS, *others} == {*NAMES}


def test_tuss_is_trained_as_published() -> None:
    medium, large = load_recipe("tuss-medium"), load_recipe("tuss-large")
    recipe = medium.recipe
    assert recipe.crop_s == 6.0
    assert recipe.num_sources == {2: 1, 3: 1, 4: 1}
    assert recipe.first == {
        **dict.fromkeys(("speech", "sfx", "sfx-mix", "music-mix"), 0.2),
        **dict.fromkeys(("bass", "drums", "vocals", "other"), 0.05),
    }
    # speech, sfx, sfx-mix, bass, drums, vocals, other, music-mix
    order = ("speech", "sfx", "sfx-mix", "bass", "drums", "vocals", "other", "music-mix")
    table = {
        "speech": (0.4, 0.1, 0.2, 0.025, 0.025, 0.025, 0.025, 0.2),
        "sfx": (0.2, 0.5, 0, 0.025, 0.025, 0.025, 0.025, 0.2),
        "sfx-mix": (0.5, 0, 0, 0.025, 0.025, 0.025, 0.025, 0.4),
        "bass": (0.0333, 0.0333, 0.0333, 0, 0.3, 0.3, 0.3, 0),
        "drums": (0.0333, 0.0333, 0.0333, 0.3, 0, 0.3, 0.3, 0),
        "vocals": (0.0333, 0.0333, 0.0333, 0.3, 0.3, 0, 0.3, 0),
        "other": (0.0333, 0.0333, 0.0333, 0.3, 0.3, 0.3, 0, 0),
        "music-mix": (0.33, 0.33, 0.33, 0, 0, 0, 0, 0),
    }
    assert {last: tuple(row[name] for name in order) for last, row in recipe.following.items()} == (
        table
    )
    loud, soft = (-10.0, 0.0), (-20.0, 0.0)
    assert recipe.gain_db == {
        **dict.fromkeys(("speech", "bass", "drums", "vocals", "other"), loud),
        **dict.fromkeys(("sfx", "sfx-mix", "music-mix"), soft),
    }
    assert recipe.composed_probability == 0.25
    assert recipe.composed_parts == {1: 0.1, 2: 0.4, 3: 0.4, 4: 0.1}
    assert recipe.common_bandwidth_probability == 1.0
    assert medium.loss == SnrLossConfig(max_snr_db=30, silence_weight=0.1, eps=1e-7)
    for config, rate, eps, batch in ((medium, 1e-3, 1e-8, (4, 2)), (large, 5e-4, 1e-4, (2, 4))):
        settings = config.optimiser
        assert (settings.learning_rate, settings.eps) == (rate, eps)
        assert (config.batch_size, config.batches_per_step) == batch
        assert (settings.weight_decay, settings.max_grad_norm) == (1e-2, 5.0)
        assert settings.average_best == 5
        assert settings.average_decay is None
        assert settings.plateau == PlateauConfig(5, 0.5, 75 * 2500)
        assert config.max_steps == 150 * 2500
        for step, share in ((0, 0.0), (5000, 0.5), (10_000, 1.0), (374_999, 1.0)):
            assert learning_rate(step, settings, config.max_steps) == share * rate
    assert medium.seed == 20240618
    assert load_recipe("tuss-medium-sfc").batches_per_step == 1


@pytest.mark.parametrize("size", ["medium", "large"])
def test_prompt_dropout_starts_from_the_model_without(size: str) -> None:
    before, config = load_recipe(f"tuss-{size}"), load_recipe(f"tuss-{size}-prompt-dropout")
    assert config.model == before.model
    assert config.recipe == dataclasses.replace(
        before.recipe, unasked_probability=0.5, most_unasked=None
    )
    assert config.optimiser.learning_rate == 1.25e-4
    assert config.start == f"runs/tuss-{size}/bundle"


def test_tf_locoformer_is_trained_as_published() -> None:
    names = [name for name in NAMES if name.startswith("tf-locoformer")]
    assert len(names) == 9
    for name in names:
        config = load_recipe(name)
        settings = config.optimiser
        assert (settings.learning_rate, settings.eps, settings.weight_decay) == (1e-3, 1e-8, 1e-2)
        assert (settings.max_grad_norm, settings.warmup_steps) == (5.0, 4000)
        assert settings.plateau == PlateauConfig(3, 0.5)
        assert settings.average_best == 5
        assert config.validation.patience == 10
        assert config.max_steps == 150 * config.validation.every_steps
        assert (config.batch_size, config.batches_per_step) == (4, 1)
        assert config.recipe.crop_s == 4.0
        assert config.precision == "32-true"
        assert config.initial_weights == "xavier"
        assert config.model.stft.window == "hann"
        is_enhancement = name.endswith("dns")
        assert config.loss == (SpectralLossConfig() if is_enhancement else SiSnrLossConfig())
        assert config.model.sample_rate == (16000 if is_enhancement else 8000)
    dns = load_recipe("tf-locoformer-medium-dns")
    speech, noise = dns.recipe.gain_db["speech"], dns.recipe.gain_db["sfx-mix"]
    assert (speech[0] - noise[1], speech[1] - noise[0]) == (-5, 15)
    assert dns.validation.every_steps == 1000


def test_sfc_is_trained_as_published() -> None:
    musdb, dnr = load_recipe("sfc-medium-musdb"), load_recipe("sfc-medium-dnr")
    for config in (musdb, dnr):
        settings = config.optimiser
        assert (settings.learning_rate, settings.weight_decay) == (1e-3, 1e-2)
        assert settings.warmup_steps == 5000
        assert (settings.average_decay, settings.average_best) == (0.999, 5)
        assert config.batch_size * config.batches_per_step == 32
        assert config.recipe.crop_s == 6.0
        assert config.loss == SnrLossConfig(
            silence_threshold="mixture", silent_below_db=-60, eps=1e-8
        )
        assert config.model.network["stack"]["dropout"] == 0.1
        assert config.model.level == "spectrum"
    assert musdb.recipe.absent_probability == 0.1
    assert set(musdb.recipe.gain_db.values()) == {(-10.0, 10.0)}
    assert musdb.max_steps == 900 * 110
    assert musdb.validation.every_steps == 5 * 110
    assert musdb.optimiser.step_decay == StepDecayConfig(550 * 110, 2 * 110, 0.98)
    assert dnr.recipe.absent_probability == 0.05
    assert dnr.max_steps == 150 * 1354
    assert dnr.optimiser.step_decay == StepDecayConfig(75 * 1354, 1354, 0.96)


# ------------------------------------------------------------------ what they need


def _copies(root: Path, folder: str, *splits: str) -> Path:
    """The other splits of a corpus of which a miniature has the test set only."""
    for split in splits:
        shutil.copytree(root / folder / "tt", root / folder / split, dirs_exist_ok=True)
    return root


def _make_libri2mix(root: Path) -> Path:
    home = speech_miniatures.make_libri2mix(root) / "Libri2Mix/wav8k/min"
    shutil.copytree(home / "dev", home / "train-360")
    return root


#: Corpus → what writes a small copy of it.
MINIATURES: dict[str, Callable[[Path], Path]] = {
    "vctk": speech_miniatures.make_vctk,
    "wsj0": speech_miniatures.make_wsj0,
    "librivox-urgent": speech_miniatures.make_librivox_urgent,
    "fsd50k": sound_miniatures.make_fsd50k,
    "wham": lambda root: _copies(speech_miniatures.make_wham(root), "wav16k/max", "cv"),
    "demand": sound_miniatures.make_demand,
    "musdb18-hq": lambda root: sound_miniatures.make_musdb18_hq(root, 8.5),
    "moisesdb": lambda root: sound_miniatures.make_moisesdb(root, 8.5),
    "fma": sound_miniatures.make_fma,
    "dns": speech_miniatures.make_dns,
    "vctk-demand": speech_miniatures.make_vctk_demand,
    "dnr-v2": sound_miniatures.make_dnr_v2,
    "fuss": sound_miniatures.make_fuss,
    "whamr": lambda root: _copies(speech_miniatures.make_whamr(root), "wav8k/min", "tr", "cv"),
    "libri2mix": _make_libri2mix,
    "wsj0-2mix": lambda root: _copies(
        speech_miniatures.make_wsj0_2mix(root), "2speakers/wav8k/min", "tr", "cv"
    ),
}

#: Kinds that no miniature holds, since theirs are heard too little.
_UNHEARD = {"music_stems/bass", "music_stems/other", "music_stems/vocals", "music_stems/drums"}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small copies of all corpora with the lists that `unbraid data prepare` writes."""
    root = tmp_path_factory.mktemp("prepared")
    for corpus, make in MINIATURES.items():
        prepare_corpus(corpus, make(root / corpus))
    return root


def test_prepared_corpora_hold_what_the_recipes_ask_for(prepared: Path) -> None:
    for name in NAMES:
        config = load_recipe(name)
        assert set(corpora_of(config)) <= MINIATURES.keys()
        rows = [
            row
            for manifest in config.data.manifests
            if (prepared / manifest).is_file()
            for row in read_manifest(prepared / manifest)
        ]
        pools = {
            prompt: tuple(pattern for pattern in patterns if pattern not in _UNHEARD)
            for prompt, patterns in config.data.pools.items()
        }
        chosen = select(rows, pools, config.data.train_split)
        assert [prompt for prompt in pools if pools[prompt] and not chosen[prompt]] == [], name
        for wanted in (*config.data.mixtures, *config.validation.mixtures.values()):
            found = [
                entry
                for entry in read_mixtures(prepared / wanted.list)
                if entry.split == wanted.split and fnmatchcase(entry.name, wanted.names)
            ]
            # Miniatures of FUSS have no mixture of three.
            assert found, (name, wanted)


# ------------------------------------------------------------------ that they train


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_material(tmp_path_factory.mktemp("material"))


def tiny_network(config: TrainConfig) -> dict[str, Any]:
    """A network of the same kind with the same outputs and channels."""
    network = config.model.network
    codec = network.get("codec", {})
    if config.model.architecture == "tf_locoformer":
        example = "convolutional" if "inner_dim" not in codec else "attention, stereo"
        changed = dataclasses.replace(
            tf_locoformer.ARCHITECTURE.examples[example],
            num_outputs=network["num_outputs"],
            num_channels=network["num_channels"],
        )
        if codec.get("mixer") == "mamba":
            mamba = tuss.ARCHITECTURE.examples["mamba"].codec
            changed = dataclasses.replace(changed, codec=mamba)
        return dump(changed)
    if config.model.architecture == "unconditional":
        example = unconditional.ARCHITECTURE.examples["band-split"]
        return dump(dataclasses.replace(example, num_outputs=network["num_outputs"]))
    return dump(tuss.ARCHITECTURE.examples["attention" if "inner_dim" in codec else "band-split"])


def train_small(name: str, material: Path, out: Path) -> Path:
    network = yaml.safe_dump(tiny_network(load_recipe(name)), default_flow_style=True, width=10**6)
    settings = {
        "model.network": network,
        "data.root": str(material),
        "data.cache_dir": str(material / "cache"),
        "recipe.crop_s": 0.4,
        "validation.every_steps": 2,
        "validation.segment_s": 0.4,
        "validation.segments_per_mixture": 1,
        "validation.mixtures_per_scene": 1,
        "batch_size": 2,
        "batches_per_step": 2,
        "max_steps": 2,
        "start": "''",
        "num_workers": 0,
        "accelerator": "cpu",
    }
    overrides = [f"{key}={value}" for key, value in settings.items()]
    return run.train(name, overrides, out, resume=False)


#: One of each kind; all others differ from them in sizes and corpora.
SOME = (
    "tuss-medium",
    "unconditional-medium",
    "specialist-fuss-data",
    "tf-locoformer-small-whamr",
    "tf-locoformer-medium-dns",
    "sfc-small-musdb",
)


@pytest.mark.parametrize(
    "name",
    [*SOME, *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES if name not in SOME)],
)
def test_a_recipe_trains(name: str, material: Path, tmp_path: Path) -> None:
    bundle = load_bundle(train_small(name, material, tmp_path / "out"))
    with (tmp_path / "out/log/version_0/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    (validated,) = (row for row in rows if row.get("valid/loss/mean"))
    scenes = load_recipe(name).validation
    assert sum(key.startswith("valid/loss/") for key in validated) == (
        len(scenes.scenes) + len(scenes.mixtures) + 1
    )
    weights = bundle.model.state_dict()
    assert all(bool(torch.isfinite(tensor).all()) for tensor in weights.values())


# ------------------------------------------------------------------ the command, and bases


def test_the_command_lists_and_prints_recipes(tmp_path: Path) -> None:
    printed = unbraid("train", "tf-locoformer-small-wsj0-2mix", "--print-config", "--set", "seed=7")
    assert printed.code == 0
    (tmp_path / "mine.yaml").write_text(printed.stdout)
    again = load_recipe(tmp_path / "mine.yaml")
    assert again == load_recipe("tf-locoformer-small-wsj0-2mix", ["seed=7"])
    unknown = unbraid("train", "tuss-medum")
    assert unknown.code == 2
    assert "did you mean tuss-medium" in unknown.stderr
    with_ending = unbraid("train", "tuss-medium.yaml")
    assert with_ending.code == 2
    assert "no such file; did you mean tuss-medium, the recipe" in with_ending.error
    nothing = unbraid("train")
    assert nothing.code == 2
    assert "--list" in nothing.stderr


@pytest.mark.parametrize(
    ("overrides", "loss"),
    [
        (["loss.kind=si_snr"], SiSnrLossConfig()),
        # A kind takes nothing away that is set beside it.
        (["loss.eps=1e-3", "loss.kind=si_snr"], SiSnrLossConfig(eps=1e-3)),
        (["loss.kind=snr", "loss.eps=1e-3"], SnrLossConfig(silence_threshold="mixture", eps=1e-3)),
        (
            ["loss.silence_weight=0.3"],
            SnrLossConfig(silence_weight=0.3, silence_threshold="mixture"),
        ),
        (["loss={windows: [512]}"], SpectralLossConfig(windows=(512,))),
    ],
)
def test_another_kind_of_loss_leaves_nothing_of_the_one_before(
    tmp_path: Path, overrides: list[str], loss: LossConfig
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("base: tuss-medium\nloss: {silence_threshold: mixture}\n")
    found = load_recipe(path, overrides)
    assert found.loss == loss
    path.write_text(write_config(found))
    assert load_recipe(path) == found


def test_a_kind_inside_of_a_group_is_a_setting_like_others() -> None:
    config = load_recipe("fuss-mixit", ["method.loss.kind=mrl1"])
    assert isinstance(config.method, MixitConfig)
    assert (config.method.loss.kind, config.method.loss.max_snr_db) == ("mrl1", 30.0)
    assert config.method.supervised_weight == load_recipe("fuss-mixit").method.supervised_weight


def test_the_list_names_size_and_corpora() -> None:
    listed = unbraid("train", "--list")
    assert listed.code == 0
    for name in NAMES:
        assert name in listed.stdout
    for word in ("11,132,352", "38,210,112", "librivox-urgent", "recordings of your own"):
        assert word in listed.stdout
    for name, corpus in (
        ("fuss-mixit", "fuss"),
        ("fuss-self-remixing", "fuss"),
        ("audioslots-libri2mix", "librispeech"),
        ("mini", None),
    ):
        assert corpora_of(load_recipe(name)) == ((corpus,) if corpus else ())


def test_a_printed_recipe_finds_its_recordings_from_any_folder(tmp_path: Path) -> None:
    first = tmp_path / "first"
    first.mkdir()
    write(first / "mine.yaml", base="mini", data={"root": "../recordings"})
    printed = unbraid("train", first / "mine.yaml", "--print-config").stdout
    (tmp_path / "again.yaml").write_text(printed)
    config = load_recipe(tmp_path / "again.yaml")
    assert config == load_recipe(first / "mine.yaml")
    assert config.data.root == str(tmp_path / "recordings")
    assert load_recipe("mini").data.root == str(Path.cwd())


def write(path: Path, **content: Any) -> Path:
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_base_is_changed_group_by_group(tmp_path: Path) -> None:
    write(
        tmp_path / "first.yaml",
        base="sfc-small-musdb",
        name="first",
        licence="CC0-1.0",
        optimiser={"eps": 1e-6},
    )
    second = write(
        tmp_path / "second.yaml",
        base="first.yaml",
        name="second",
        loss={"kind": "si_snr"},
        recipe={"gain_db": {"vocals": [0, 0]}},
        optimiser={"step_decay": {"factor": 0.5}},
    )
    base, config = load_recipe("sfc-small-musdb"), load_recipe(second)
    assert config.optimiser == dataclasses.replace(
        base.optimiser, eps=1e-6, step_decay=StepDecayConfig(60_500, 220, 0.5)
    )
    # Tables and groups of which there are several kinds are replaced as a whole.
    assert config.recipe.gain_db == {"vocals": (0, 0)}
    assert config.loss == SiSnrLossConfig()
    assert config.model == base.model
    # What comes out is another model, about which its base says nothing.
    assert (config.licence, config.description) == (NOT_STATED, "")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"base": "tuss-medium", "optimizer": {}}, "mine.yaml: unknown key 'optimizer'; did you"),
        ({"base": "tuss-medum"}, "no recipe 'tuss-medum' to be its base; did you mean tuss-medium"),
        ({"base": "mine.yaml"}, "mine.yaml: is a base of itself"),
        ({"base": 3}, "base must be the name or the path"),
        (
            {"base": "tuss-medium", "model": {"network": "midium"}},
            r"mine.yaml.model.network: tuss has no preset 'midium'; did you mean medium",
        ),
        ({"base": "tuss-medium", "data": {"pools": {}}}, "either pools or mixtures"),
        (
            {"base": "sfc-small-dnr", "validation": {"scenes": [{"prompts": ["speech"]}]}},
            "validation.scenes are mixed from data.pools",
        ),
        (
            {"base": "tuss-medium", "validation": {"mixtures": {}}},
            "validation needs scenes or mixtures",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_file_is_named(
    tmp_path: Path, content: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe(write(tmp_path / "mine.yaml", **content))
