"""Packed corpora: written whole, read in parts, from a disk, a web server or a store."""

from __future__ import annotations

import hashlib
import json
import pickle
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import DataLoader

from command_line import unbraid
from file_server import FileServer, running_file_server
from synthetic_pool import POOLS, make_pool
from unbraid import downloads
from unbraid.apps import pack_corpus as packing
from unbraid.apps.pack_corpus import PackSettings, pack_corpus, verify_packed
from unbraid.audio.decode import read
from unbraid.audio.flac_frames import FRAME_SAMPLES, decode_flac_frames, encode_flac
from unbraid.data import ranges
from unbraid.data.catalogue import open_splits
from unbraid.data.dynamic import DynamicMixtures, MixtureStream
from unbraid.data.shards import ShardClips, open_packed
from unbraid.errors import AudioError, ConfigError, DataError, MissingExtra, UnreadableClip
from unbraid.mixing.recipe import MixRecipe, Planner

RATE = 16_000


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "_WAITS_S", (0.0, 0.0, 0.0))
    for switch in ("UNBRAID_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(switch, raising=False)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pool(tmp_path_factory.mktemp("pool"))


@pytest.fixture(scope="module")
def packed(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packs") / "packed"
    pack_corpus(manifest, folder, PackSettings(RATE, shard_mb=1))
    return folder


@pytest.fixture
def server() -> Iterator[FileServer]:
    with running_file_server() as running:
        yield running


def serve(server: FileServer, folder: Path, **options: object) -> str:
    for path in folder.iterdir():
        server.serve(f"packed/{path.name}", path.read_bytes(), **options)
    return f"{server.address}/packed"


def all_clips(where: str, rate: int = RATE, max_unreadable: float = 0.5) -> ShardClips:
    corpus = open_packed(where)
    recordings = [clip.recording for clip in corpus.clips]
    return ShardClips(corpus, recordings, rate, max_unreadable)


def mixtures(where: str, access: str, cache: Path) -> DynamicMixtures:
    ((clips, source),) = open_splits(where, Path(), POOLS, ["train"], RATE, cache, access)
    rows = {name: number for number, name in enumerate(POOLS)}
    return DynamicMixtures(Planner(MixRecipe(crop_s=1.0), clips), source.read, RATE, rows, 4, 3)


# ------------------------------------------------------------------ FLAC in parts


@pytest.mark.parametrize(("rate", "length"), [(16_000, 50_001), (48_000, 4096), (8_000, 1)])
def test_flac_files_are_ordinary_and_each_of_their_frames_can_be_read(
    tmp_path: Path, rate: int, length: int
) -> None:
    samples = np.random.default_rng(0).integers(-32768, 32767, length).astype(np.int16)
    content, frames = encode_flac(samples, rate)
    (tmp_path / "a.flac").write_bytes(content)
    found, found_rate = soundfile.read(tmp_path / "a.flac", dtype="int16")
    assert found_rate == rate
    assert np.array_equal(found, samples)
    assert len(frames) == -(-length // FRAME_SAMPLES)
    ends = (*frames[1:], len(content))
    for number, (begin, end) in enumerate(zip(frames, ends, strict=True)):
        expected = samples[number * FRAME_SAMPLES : (number + 1) * FRAME_SAMPLES]
        part = decode_flac_frames(content[begin:end], len(expected), rate)
        assert np.array_equal(part, expected)


def test_flac_frames_that_are_damaged_are_noticed() -> None:
    samples = np.random.default_rng(0).integers(-9000, 9000, 3 * FRAME_SAMPLES).astype(np.int16)
    content, frames = encode_flac(samples, RATE)
    damaged = bytearray(content[frames[0] :])
    damaged[3000:3100] = bytes(100)
    for frames_bytes in (bytes(damaged), content[frames[0] : frames[2]], b"", b"noise" * 99):
        with pytest.raises(AudioError, match="damaged FLAC frames"):
            decode_flac_frames(frames_bytes, 3 * FRAME_SAMPLES, RATE)


# ------------------------------------------------------------------ what is written


def test_shards_are_tar_files_of_ordinary_recordings(manifest: Path, packed: Path) -> None:
    lines = [json.loads(line) for line in (packed / "index.jsonl").read_text().splitlines()]
    assert lines[0]["num_recordings"] == len(lines) - 1 == 40
    assert len(lines[0]["shards"]) > 1
    seen = 0
    for name, num_bytes in lines[0]["shards"].items():
        assert (packed / name).stat().st_size == num_bytes
        with tarfile.open(packed / name) as tar:
            members = {member.name: member for member in tar.getmembers()}
            for line in lines[1:]:
                if line["shard"] != name:
                    continue
                seen += 1
                member = members[f"{line['name']}.flac"]
                assert (member.offset_data, member.size) == (line["offset"], line["num_bytes"])
                content = tar.extractfile(member).read()  # type: ignore[union-attr]
                assert hashlib.sha256(content).hexdigest() == line["sha256"]
                about = json.load(tar.extractfile(f"{line['name']}.json"))  # type: ignore[arg-type]
                assert about["recording"] == line["recording"]
                assert about["recording"]["path"] == about["key"]
    assert seen == 40
    assert {path.name for path in packed.iterdir()} == {
        *lines[0]["shards"], "index.jsonl", "pack.json", ".lock",
    }  # fmt: skip


@pytest.mark.parametrize("storage", ["flac", "int16"])
def test_crops_are_those_of_the_recordings(manifest: Path, tmp_path: Path, storage: str) -> None:
    pack_corpus(manifest, tmp_path / "out", PackSettings(None, 512, storage))  # type: ignore[arg-type]
    source = all_clips(str(tmp_path / "out"), 48_000)
    key = "speech/train/en/song3__en.wav"
    whole = read(manifest.parent / key).samples[0]
    for start in (-100, 0, 5000, 100_000, whole.numel() - 50):
        expected = torch.nn.functional.pad(whole, (100, 1000))[start + 100 :][:1000]
        found = source.read(key, start, 1000)
        assert (found - expected).abs().max() <= 0.51 * whole.abs().max() / 32767
    resampled = all_clips(str(tmp_path / "out"), 16_000).read(key, 0, 48_000)
    assert abs(float(resampled.square().mean() / whole.square().mean()) - 1) < 0.05


def test_a_run_that_is_stopped_goes_on_and_ends_the_same(
    manifest: Path, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    made: list[str] = []
    original = packing._make

    def make(root: Path, settings: PackSettings, named: tuple) -> object:
        made.append(named[0])
        if len(made) == 30:
            raise KeyboardInterrupt
        return original(root, settings, named)

    monkeypatch.setattr(packing, "_make", make)
    with pytest.raises(KeyboardInterrupt):
        pack_corpus(manifest, out, PackSettings(RATE, shard_mb=1))
    assert list(out.glob("*.part"))
    assert not (out / "index.jsonl").exists()
    assert list(out.glob("shard-*.tar"))
    with pytest.raises(DataError, match="no packed corpus"):
        open_packed(str(out))
    pack_corpus(manifest, out, PackSettings(RATE, shard_mb=1))
    assert len(made) < 30 + 40 - 5  # finished shards were kept
    for path in packed.iterdir():
        assert (out / path.name).read_bytes() == path.read_bytes(), path.name
    assert {path.name for path in out.iterdir()} == {path.name for path in packed.iterdir()}
    made.clear()
    again = pack_corpus(manifest, out, PackSettings(RATE, shard_mb=1))
    assert not made
    assert again.num_recordings == 40


def test_other_settings_and_folders_of_others_are_refused(
    manifest: Path, packed: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="other settings"):
        pack_corpus(manifest, packed, PackSettings(8000, shard_mb=1))
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ConfigError, match=r"holds other files already \(letter\.txt\)"):
        pack_corpus(manifest, tmp_path, PackSettings(RATE))
    with pytest.raises(ConfigError, match="--shard-mb 0"):
        PackSettings(RATE, 0)
    with pytest.raises(ConfigError, match="--sample-rate 5"):
        PackSettings(5)
    with pytest.raises(ConfigError, match="--jobs 0"):
        pack_corpus(manifest, packed, PackSettings(RATE, shard_mb=1), jobs=0)


def test_unreadable_recordings_are_left_out_up_to_a_limit(tmp_path: Path) -> None:
    manifest = make_pool(tmp_path / "pool")
    (tmp_path / "pool/sfx/train/door/song0__door.wav").write_text("not audio")
    with pytest.raises(DataError, match=r"1 of 40 recordings cannot be read.*song0__door"):
        pack_corpus(manifest, tmp_path / "out", PackSettings(RATE))
    done = pack_corpus(manifest, tmp_path / "out", PackSettings(RATE), max_unreadable=0.1)
    assert done.unreadable == ("sfx/train/door/song0__door.wav",)
    assert done.num_recordings == 39
    assert verify_packed(tmp_path / "out") == 39


def test_verifying_finds_what_is_wrong(manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pack_corpus(manifest, out, PackSettings(RATE, shard_mb=1))
    assert verify_packed(out) == 40
    clip = open_packed(str(out)).clips[3]
    content = bytearray((out / clip.shard).read_bytes())
    content[clip.offset + 500] ^= 1
    (out / clip.shard).write_bytes(content)
    with pytest.raises(DataError, match=f"{clip.recording.key} in {clip.shard} is damaged"):
        verify_packed(out)
    (out / clip.shard).unlink()
    with pytest.raises(DataError, match=f"no {clip.shard}"):
        verify_packed(out)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is damaged"),
        ("{}\n", "is damaged"),
        ("[]\n", "is damaged"),
        ('{"version": 99}\n', "another version"),
        ('{"version": 1, "shards": {}, "format": "flac", "num_recordings": 2}\n', "0 of 2"),
    ],
)
def test_an_index_that_makes_no_sense_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "index.jsonl").write_text(text)
    with pytest.raises(DataError, match=message):
        open_packed(str(tmp_path))


# ------------------------------------------------------------------ reading


def test_mixtures_are_those_of_the_cache(manifest: Path, packed: Path, tmp_path: Path) -> None:
    cached = mixtures(str(manifest), "cache", tmp_path)
    shards = mixtures(str(packed), "shards", tmp_path)
    for number in range(3):
        assert torch.equal(cached.batch(number).mixture, shards.batch(number).mixture)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_workers_read_the_same_from_open_shards(packed: Path, tmp_path: Path) -> None:
    alone = mixtures(str(packed), "shards", tmp_path)
    alone.batch(0)  # now files are open, and positions in them would be shared
    batches = iter(DataLoader(MixtureStream(alone), batch_size=None, num_workers=2))
    for number in range(4):
        assert torch.equal(next(batches).mixture, alone.batch(number).mixture)
    copy = pickle.loads(pickle.dumps(ranges.DiskRanges(packed)))
    assert copy.read("pack.json", 0, 1, 1) == b"{"


def test_few_files_stay_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "_MOST_OPEN_FILES", 2)
    for name in "abc":
        (tmp_path / name).write_text(name)
    disk = ranges.DiskRanges(tmp_path)
    for name in "abcabba":
        assert disk.read(name, 0, 1, 1) == name.encode()
        assert len(disk._files) <= 2


def test_a_web_server_is_asked_for_parts(
    packed: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "_BLOCK_BYTES", 8192)
    source = all_clips(serve(server, packed))
    local = all_clips(str(packed))
    key = "speech/train/en/song3__en.wav"
    server.ranges.clear()
    assert torch.equal(source.read(key, 20_000, 4000), local.read(key, 20_000, 4000))
    (asked,) = server.ranges
    first, last = map(int, asked.removeprefix("bytes=").split("-"))
    assert last - first < 5 * 8192  # a crop's worth, not the recording or the shard
    assert torch.equal(source.read(key, 20_000, 4000), local.read(key, 20_000, 4000))
    assert len(server.ranges) == 1  # kept
    sent = pickle.dumps(source._ranges)
    assert len(sent) < 1000  # without the blocks
    assert pickle.loads(sent).read("pack.json", 0, 1, 1) == b"{"
    for clip in local._clips:
        assert torch.equal(source.read(clip, 0, 9000), local.read(clip, 0, 9000))


def test_a_connection_that_breaks_is_made_again_and_goes_on(
    packed: Path, server: FileServer, caplog: pytest.LogCaptureFixture
) -> None:
    source = all_clips(serve(server, packed))
    key = next(iter(source._clips))
    file = server.files[f"packed/{source._clips[key].shard}"]
    file.breaks = [100, 100, 100, 100, 100]  # each brings something
    file.statuses = [(503, {}), (429, {"Retry-After": "0"})]
    server.ranges.clear()
    expected = all_clips(str(packed)).read(key, 0, 5000)
    assert torch.equal(source.read(key, 0, 5000), expected)
    begins = [int(each.removeprefix("bytes=").split("-")[0]) for each in server.ranges]
    assert begins[-1] == begins[0] + 500
    # It is given up after as many failures in a row as there are waits.
    other = all_clips(serve(server, packed))
    server.files[f"packed/{source._clips[key].shard}"].statuses = [(500, {})] * 4
    with pytest.raises(UnreadableClip, match=r"cannot be fetched \(HTTP 500"):
        other.read(key, 0, 5000)
    assert other.unreadable.keys == (key,)
    assert torch.equal(other.read(key, 0, 5000), expected)


def test_a_server_without_parts_and_one_without_the_corpus_are_named(
    packed: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="gives files as a whole only"):
        open_packed(serve(server, packed, knows_ranges=False))
    with pytest.raises(DataError, match=r"no packed corpus.*HTTP 404"):
        open_packed(f"{server.address}/nothing")
    monkeypatch.setenv("UNBRAID_OFFLINE", "1")
    with pytest.raises(DataError, match="UNBRAID_OFFLINE forbids the network"):
        open_packed(f"{server.address}/packed")


def test_a_shard_that_is_shorter_than_its_index_says_is_noticed(
    packed: Path, server: FileServer, tmp_path: Path
) -> None:
    where = serve(server, packed)
    clip = open_packed(str(packed)).clips[-1]
    server.files[f"packed/{clip.shard}"].content = b"short"
    with pytest.raises(UnreadableClip, match="too short"):
        all_clips(where).read(clip.recording.key, 0, 10)
    for path in packed.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / clip.shard).write_bytes(b"short")
    with pytest.raises(UnreadableClip, match="has no bytes"):
        all_clips(str(tmp_path)).read(clip.recording.key, 0, 10)
    (tmp_path / clip.shard).unlink()
    with pytest.raises(UnreadableClip, match="No such file"):
        all_clips(str(tmp_path)).read(clip.recording.key, 0, 10)


def test_stores_that_fsspec_knows_are_read(packed: Path, tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.put(str(packed), "/bucket/packed", recursive=True)
    try:
        source = all_clips("memory://bucket/packed")
        local = all_clips(str(packed))
        for key in local._clips:
            assert torch.equal(source.read(key, 100, 9000), local.read(key, 100, 9000))
        copy = pickle.loads(pickle.dumps(source._ranges))
        assert copy.read_whole("pack.json").startswith(b"{")
        with pytest.raises(DataError, match="no packed corpus"):
            open_packed("memory://bucket/nothing")
    finally:
        memory.rm("/bucket", recursive=True)
    with pytest.raises(MissingExtra, match="unknown"):
        open_packed("unknown://bucket/packed")


# ------------------------------------------------------------------ the command


def test_the_command_packs_and_verifies(manifest: Path, tmp_path: Path) -> None:
    arguments = ["data", "pack", str(manifest), "--out", str(tmp_path / "out")]
    outcome = unbraid(*arguments, "--sample-rate", "16000", "--verify", "--json")
    assert outcome.code == 0
    record = json.loads(outcome.stdout)
    assert record["num_recordings"] == record["num_verified"] == 40
    assert record["unreadable"] == []
    wrong = unbraid(*arguments, "--format", "mp3")
    assert (wrong.code, "--format mp3" in wrong.stderr) == (2, True)
    other = unbraid(*arguments)
    assert (other.code, "other settings" in other.stderr) == (2, True)


@pytest.mark.slow  # each process loads PyTorch anew
def test_several_processes_pack_the_same(manifest: Path, packed: Path, tmp_path: Path) -> None:
    pack_corpus(manifest, tmp_path / "out", PackSettings(RATE, shard_mb=1), jobs=2)
    for path in packed.iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes(), path.name
