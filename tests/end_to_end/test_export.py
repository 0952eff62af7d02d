"""``unbraid export``: other programs compute with the file what we compute."""

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jaxtyping
import onnx
import onnxruntime
import pytest
import soundfile
import torch
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from command_line import unbraid
from conftest import ROOT
from handmade_prompts import write_copy
from unbraid.apps.demo import SCENES, mix_scene
from unbraid.apps.export import export_onnx, worst_snr_db
from unbraid.checkpoints import Card, load_bundle, onnx_graph, resolve_model, save_bundle
from unbraid.config import dump
from unbraid.dsp.stft import StftConfig
from unbraid.models.registry import find_architecture
from unbraid.models.waveform import ModelConfig, WaveformModel, build_model

REPEATED = ("speech", "speech", "music-mix")


@pytest.fixture(scope="module", autouse=True)
def unchecked_shapes() -> Iterator[None]:
    """The exporter leads symbols through the code where the checks expect numbers."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def save_tiny(folder: Path) -> Path:
    """A random TUSS that has nothing in common with mini but the architecture."""
    torch.manual_seed(0)
    stack = {
        "num_blocks": 1, "dim": 12, "num_groups": 3, "num_heads": 3, "attention_dim": 18,
        "freq_feed_forward": [{"hidden_dim": 8, "kernel_size": 4}] * 2,
        "frame_feed_forward": [{"hidden_dim": 8, "kernel_size": 1}] * 2,
        "order": "tf", "feed_forward_scale": 0.5,
    }  # fmt: skip
    network = {
        "codec": {"bands": "mel", "num_bands": 6, "decoder_expansion": 1},
        "cross_prompt": stack,
        "extraction": {**stack, "positions": "none"},
        "start_of_sequence": False,
    }
    config = ModelConfig(
        "tuss", 16000, StftConfig(360, 90, "hann"), network, segment_s=3.0, overlap_s=1.0
    )
    return save_bundle(build_model(config), folder, Card("tiny", "CC0-1.0", "a seed"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="module")
def tiny_file(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For any length, with a repeated prompt and an alias."""
    path = tmp_path_factory.mktemp("export") / "new" / "tiny.onnx"
    outcome = unbraid("export", tiny, "--onnx", path, "-p", "speech,speech", "-p", "musicbg")
    assert outcome.code == 0, outcome.stderr
    return path


def run(path: Path) -> Callable[[torch.Tensor], torch.Tensor]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda mixture: torch.from_numpy(session.run(None, {"mixture": mixture.numpy()})[0])


def ours(model: WaveformModel, mixture: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
    rows = model.prompts.indices(prompts).expand(len(mixture), -1)
    with torch.inference_mode():
        return model(mixture, rows)


def scene(number: int = 0) -> torch.Tensor:
    return mix_scene(SCENES[number])[0].samples


@pytest.mark.slow
def test_mini_gives_our_output_and_the_command_says_so(tmp_path: Path) -> None:
    path = tmp_path / "new" / "mini.onnx"
    prompts = ("speech", "music-mix", "speech")
    outcome = unbraid(
        "export", "mini", "--onnx", path, "--prompts", ",".join(prompts), "--length", "2"
    )
    assert outcome.code == 0
    assert outcome.stderr == ""
    assert f"written to {path}, {path.stat().st_size / 1e6:.1f} MB" in outcome.stdout
    assert "speech, music-mix, speech" in outcome.stdout
    snr_db = float(re.search(r"([\d.]+) dB", outcome.stdout)[1])
    assert snr_db > 80
    factors = re.findall(r"([\d.]+) s per second of audio, \d+ thread", outcome.stdout)
    assert len(factors) == 2
    assert all(float(factor) > 0 for factor in factors)
    assert [file.name for file in path.parent.iterdir()] == ["mini.onnx"]
    mini = load_bundle(resolve_model("mini")).model
    session = run(path)
    for start_s in (1, 6):
        chunk = scene()[:, start_s * 48000 : (start_s + 2) * 48000]
        assert worst_snr_db(ours(mini, chunk, prompts), session(chunk)) > 80
    with pytest.raises(InvalidArgument):
        session(chunk[:, :-1])


@pytest.mark.slow
def test_a_prompt_file_can_be_exported(tiny: Path, tmp_path: Path) -> None:
    # A vector per band, and all of them what "speech" has for all bands.
    bell = write_copy(tmp_path, tiny, "speech", "bell", num_vectors=6)
    path = tmp_path / "tiny.onnx"
    outcome = unbraid("export", tiny, "--onnx", path, "-p", f"{bell},drums")
    assert outcome.code == 0, outcome.stderr
    assert "bell, drums" in outcome.stdout
    mixture = scene()[:, :20000]
    learned = ours(load_bundle(tiny).model, mixture, ("speech", "drums"))
    assert worst_snr_db(learned, run(path)(mixture)) > 80
    refused = unbraid("export", "mini", "--onnx", tmp_path / "mini.onnx", "-p", bell)
    assert refused.code == 3
    assert "made for another model" in refused.error


@pytest.mark.slow
def test_any_length_and_batch_give_our_output(tiny: Path, tiny_file: Path) -> None:
    model = load_bundle(tiny).model
    session = run(tiny_file)
    whole = scene()[:, :54321]
    for mixture in (whole, whole.reshape(3, -1)[:, :-321], 1e-3 * whole[:, 9000:9077]):
        assert worst_snr_db(ours(model, mixture, REPEATED), session(mixture)) > 80
    assert torch.isfinite(session(torch.zeros(1, 5000))).all()
    assert session(torch.tensor([[0.1, -0.1]])).shape == (1, 3, 2)


@pytest.mark.slow
def test_the_file_says_what_its_user_has_to_know(tiny: Path, tiny_file: Path) -> None:
    session = onnxruntime.InferenceSession(tiny_file, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata.pop("unbraid")
    assert metadata == {
        "name": "tiny",
        "prompts": "speech,speech,music-mix",
        "stems": "speech_1,speech_2,music-mix",
        "sample_rate": "16000",
        "segment_s": "3",
        "overlap_s": "1",
        "licence": "CC0-1.0",
        "source": "a seed",
        "digest": load_bundle(tiny).digest,
    }
    (mixture,), (sources,) = session.get_inputs(), session.get_outputs()
    assert (mixture.name, mixture.shape) == ("mixture", ["batch", "time"])
    assert (sources.name, sources.shape) == ("sources", ["batch", 3, "time"])


@pytest.mark.slow
def test_the_graph_is_made_of_real_numbers_and_tells_nothing_of_this_machine(
    tiny_file: Path,
) -> None:
    content = tiny_file.read_bytes()
    assert str(ROOT).encode() not in content
    assert b"site-packages" not in content
    model = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(content))
    kinds = {tensor.data_type for tensor in model.graph.initializer}
    kinds |= {value.type.tensor_type.elem_type for value in model.graph.value_info}
    names = {onnx.TensorProto.DataType.Name(kind) for kind in kinds}
    assert {"FLOAT", "INT64"} <= names <= {"FLOAT", "INT64", "BOOL", "INT32"}
    assert {domain.domain for domain in model.opset_import} == {""}
    assert not {"DFT", "STFT"} & {node.op_type for node in model.graph.node}


@pytest.mark.slow
def test_the_guide_runs_as_it_stands(
    tiny: Path, tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guide = (ROOT / "docs/export.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("mini.onnx").write_bytes(tiny_file.read_bytes())
    rate = 16000
    mixture = scene()[:, : 7 * rate + 77]
    soundfile.write("film.wav", mixture[0].numpy(), rate, subtype="FLOAT")
    names: dict[str, object] = {}
    exec(compile(block, "docs/export.md", "exec"), names)
    written = [soundfile.read(f"{stem}.wav")[0] for stem in ("speech_1", "speech_2", "music-mix")]
    got = torch.stack([torch.from_numpy(stem) for stem in written])[None]
    assert got.shape == (1, 3, mixture.shape[1])
    # Chunks of 3 s that share 1 s: the first two seconds are the first chunk's alone.
    first = ours(load_bundle(tiny).model, mixture[:, : 3 * rate], REPEATED)
    difference = got[..., : 2 * rate] - first[..., : 2 * rate]
    assert difference.abs().max() < 2**-14  # stored with 16 bits
    monkeypatch.setenv("COLUMNS", "200")
    help_page = unbraid("export", "--help").stdout
    assert set(re.findall(r"--[a-z]+", guide)) <= set(re.findall(r"--[a-z]+", help_page))


@pytest.mark.slow
@pytest.mark.parametrize("prompts", [("speech",), SCENES[1].prompts])
def test_mini_with_any_number_of_prompts_and_any_length(
    tmp_path: Path, prompts: tuple[str, ...]
) -> None:
    path = tmp_path / "mini.onnx"
    assert export_onnx("mini", path, prompts).snr_db > 80
    mini = load_bundle(resolve_model("mini")).model
    for mixture in (scene(), scene(1)[:, :77777], scene().reshape(3, -1)):
        assert worst_snr_db(ours(mini, mixture, prompts), run(path)(mixture)) > 80


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("minni", "-p", "speech"), 5, "there is no such model"),
        (("mini", "-p", "speach"), 3, "unknown prompt 'speach'"),
        (("mini", "-p", ","), 3, "no prompt given"),
        (("mini", "-p", "speech", "--length", "0"), 2, "--length must be a time in seconds"),
    ],
)
def test_what_cannot_be_exported_leaves_nothing(
    arguments: tuple[str, ...], code: int, text: str, tmp_path: Path
) -> None:
    outcome = unbraid("export", *arguments, "--onnx", tmp_path / "new" / "out.onnx")
    assert outcome.code == code
    assert text in outcome.error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_file_is_replaced_only_when_told_to(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.onnx"
    path.write_text("precious")
    command = ("export", tiny, "--onnx", path, "-p", "bass,drums", "--length", "0.5")
    outcome = unbraid(*command)
    assert outcome.code == 5
    assert "is there already; choose another name or say --overwrite" in outcome.error
    assert path.read_text() == "precious"
    assert unbraid(*command, "--overwrite").code == 0
    assert run(path)(torch.ones(1, 8000)).shape == (1, 2, 8000)
    outcome = unbraid("export", tiny, "--onnx", tmp_path, "-p", "speech", "--overwrite")
    assert outcome.code == 5


@pytest.mark.slow
def test_a_graph_that_computes_something_else_is_not_kept(
    tiny: Path, tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = tiny_file.read_bytes()
    monkeypatch.setattr(onnx_graph, "as_onnx", lambda *_: content)
    out = tmp_path / "new" / "out.onnx"
    outcome = unbraid("export", tiny, "--onnx", out, "-p", "music-mix,speech,speech")
    assert outcome.code == 5
    assert re.search(r"agrees with ours to -?\d+\.\d dB only", outcome.error)
    assert not out.parent.exists()


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_package_is_named_with_its_extra(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "unbraid.checkpoints.onnx_graph", raising=False)
    outcome = unbraid("export", "mini", "--onnx", tmp_path / "out.onnx", "-p", "speech")
    assert outcome.code == 7
    assert f"needs the package {package}" in outcome.error
    assert "pip install 'unbraid[export]'" in outcome.error


def test_silence_in_a_source_is_no_difference() -> None:
    sources = torch.stack([torch.zeros(10), torch.ones(10)])[None]
    assert worst_snr_db(sources, sources) == float("inf")
    assert worst_snr_db(sources, sources + 1e-3) == float("-inf")
    assert worst_snr_db(sources[:, 1:], 1.001 * sources[:, 1:]) == pytest.approx(60, abs=0.01)


def save_example(architecture: str, example: str, folder: Path) -> Path:
    network = dump(find_architecture(architecture).examples[example])
    outputs = () if architecture == "tuss" else ("vocals", "drums")
    config = ModelConfig(architecture, 16000, StftConfig(256, 128), network, outputs=outputs)
    return save_bundle(build_model(config), folder, Card("example", "CC0-1.0", "a seed"))


@pytest.mark.parametrize(
    ("architecture", "example", "words"),
    [
        ("tf_locoformer", "attention, stereo", "hears 2 channels together"),
        ("tuss", "mamba", "a recurrence over bins"),
        ("audio_slots", "transformer", "say --length"),
    ],
)
def test_what_makes_no_useful_graph_is_refused(
    architecture: str, example: str, words: str, tmp_path: Path
) -> None:
    folder = save_example(architecture, example, tmp_path / "model")
    prompts = "vocals,drums"
    outcome = unbraid("export", folder, "--onnx", tmp_path / "x.onnx", "--prompts", prompts)
    assert outcome.code == 2
    assert words in outcome.error
    assert not (tmp_path / "x.onnx").exists()


def test_fixed_outputs_are_exported_in_the_order_that_is_asked(tmp_path: Path) -> None:
    folder = save_example("tf_locoformer", "convolutional", tmp_path / "model")
    done = export_onnx(folder, tmp_path / "x.onnx", ["drums", "vocals"], length_s=0.5)
    assert done.prompts == ("drums", "vocals")
    assert done.snr_db > 80
