"""Many machines: manifests, who does what, stores and claims; no cluster needed."""

import json
import threading
import uuid
from collections.abc import Callable, Collection, Sequence
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import fsspec
import pytest

from command_line import write_audio
from unbraid import SeparationConfig, Separator
from unbraid.apps.separate_files import SeparateOptions, separate_file
from unbraid.cluster import stores
from unbraid.cluster.claims import Claims
from unbraid.cluster.crew import Done, Joined, Lost
from unbraid.cluster.dispatch import dispatch
from unbraid.cluster.manifest import Entry, Shard, parse_shard, read_entries
from unbraid.cluster.table import Row, summarise, table_text
from unbraid.cluster.worker import Outcome, Setup, Worker
from unbraid.errors import (
    AudioError,
    Cancelled,
    ClusterError,
    ConfigError,
    DataError,
    DiskError,
    DownloadError,
    MissingExtra,
    PromptError,
    UnbraidError,
)
from unbraid.models.waveform import WaveformModel
from unbraid.nn.products import onednn_is_faster

OPTIONS = SeparateOptions(model_name="tiny", model_digest="0" * 64)
NEVER = threading.Event()


def entries_of(
    folder: Path, text: str, name: str = "list.csv", root: str | None = None
) -> list[tuple[str, str, tuple[str, ...]]]:
    (folder / name).write_text(text)
    found = read_entries(
        str(folder / name), root, lambda track: OPTIONS.sidecar_path(track, Path())
    )
    return [(entry.path, entry.track.as_posix(), entry.prompts) for entry in found]


def test_a_manifest_names_recordings_prompts_and_results(tmp_path: Path) -> None:
    text = (
        'path,class,prompts,name\na/1.wav,x,"speech, speech",\ns3://b/2.v.flac,x,,\n/x/3.wav,,,y/z'
    )
    assert entries_of(tmp_path, text) == [
        (str(tmp_path / "a/1.wav"), "a/1", ("speech", "speech")),
        ("s3://b/2.v.flac", "2.v", ()),
        ("/x/3.wav", "y/z", ()),
    ]


def test_recordings_are_named_below_the_root(tmp_path: Path) -> None:
    text = "b/1.wav\n\n/data/a/2.wav\n"
    assert entries_of(tmp_path, text, "list.txt", "/data") == [
        ("/data/b/1.wav", "b/1", ()),
        ("/data/a/2.wav", "a/2", ()),
    ]
    assert entries_of(tmp_path, "b/1.wav\ns3://x/y/c/2.wav", "list.txt", "s3://x/y") == [
        ("s3://x/y/b/1.wav", "b/1", ()),
        ("s3://x/y/c/2.wav", "c/2", ()),
    ]


@pytest.mark.parametrize(
    ("path", "root", "track"),
    [
        ("https://h/in/my%20scene.wav?sig=ab/cd.x", "https://h/in", "my scene"),
        ("https://h/in/live/a.b.wav#t=1", "https://h/in?sig=x", "live/a.b"),
        ("https://else/in/%C3%A9t%C3%A9.wav?x=1", "https://h/in", "été"),
        ("https://h/in/%2e%2e/%2e%2e/x.wav", "https://h/in", "x"),
        ("s3://b/in/what?/50%25.wav", "s3://b/in", "what?/50%25"),
        ("../x.wav", "s3://b/in", "x"),
    ],
)
def test_an_address_is_named_after_its_path(
    tmp_path: Path, path: str, root: str, track: str
) -> None:
    ((found, name, _),) = entries_of(tmp_path, path, "list.txt", root)
    assert name == track
    assert found.endswith(path)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "the manifest is empty"),
        (" \n", "the manifest is empty"),
        ("path\n", "has no rows"),
        ("file,x\na.wav,1", "lacks the column 'path'; it has file, x"),
        ("Path\na.wav", "unknown column 'Path'; did you mean 'path'?"),
        ("path;prompts\na.wav;speech", "';' stands between its columns; save it with commas"),
        ("path\tprompts\na.wav\tspeech", "a tab stands between its columns; save it with commas"),
        ("path,Prompt\na.wav,speech", "unknown column 'Prompt'; did you mean 'prompts'?"),
        ("path,name\n,x", "line 2: there is no path"),
        ("path\nhttps://h/?id=1", "line 2: https://h/?id=1 ends in no file name"),
        ("path\n/", "line 2: / ends in no file name"),
        ("path,name\na.wav,../x", "line 2: the name '../x' must stay inside"),
        ("path\na.wav\n/else/A.flac", "line 3: would write to the same stems as line 2"),
    ],
)
def test_manifests_that_make_no_sense_are_refused(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(DataError) as refused:
        entries_of(tmp_path, text)
    assert problem in str(refused.value)


def test_a_manifest_that_is_not_there_or_no_text_is_refused(tmp_path: Path) -> None:
    for where in (str(tmp_path / "none.csv"), f"memory://{uuid.uuid4()}/none.csv"):
        with pytest.raises(DataError, match=r"none.csv: "):
            read_entries(where, None, Path)
    (tmp_path / "latin.txt").write_bytes(b"\xe9.wav")
    with pytest.raises(DataError, match="not text in UTF-8"):
        read_entries(str(tmp_path / "latin.txt"), None, Path)


def test_shards_are_a_partition_that_new_rows_do_not_change() -> None:
    entries = [Entry(f"{number}", PurePath(f"{number}")) for number in range(11)]
    shards = [Shard(number, 3).of(entries) for number in (1, 2, 3)]
    assert sorted(entry.path for shard in shards for entry in shard) == sorted(
        entry.path for entry in entries
    )
    assert Shard(2, 3).of(entries[:8]) == shards[1][:3]
    for text in ("0/3", "4/3", "3", "a/b", "1/0", "-1/3"):
        with pytest.raises(ConfigError, match="--shard"):
            parse_shard(text)


class FakeCrew:
    """Workers that do what a function says, one event after the other."""

    def __init__(self, names: str, act: Callable[[str, Entry, Collection[str]], Any]) -> None:
        self.events: list[Any] = [Joined(name) for name in names]
        self.given: list[tuple[str, str]] = []
        self._act = act

    def tend(self, num_wanted: int) -> None:
        pass

    def give(self, worker: str, entry: Entry, dead: Collection[str]) -> None:
        self.given.append((worker, entry.path))
        self.events.append(self._act(worker, entry, dead))

    def wait(self, timeout_s: float) -> list[Any]:
        if not self.events:
            raise ClusterError("nobody is left")
        events, self.events = self.events, []
        return events

    def close(self) -> None:
        pass


def run(crew: FakeCrew, paths: Sequence[str], num_retries: int = 2) -> list[Row]:
    rows: dict[int, Row] = {}

    def take(position: int, row: Row) -> None:
        assert position not in rows, "each recording has one row"
        rows[position] = row

    entries = [Entry(path, PurePath(path)) for path in paths]
    dispatch(entries, crew, num_retries=num_retries, on_row=take)
    return [rows[position] for position in range(len(paths))]


def test_recordings_are_handed_out_in_order() -> None:
    crew = FakeCrew("xy", lambda worker, entry, dead: Done(worker, Outcome("written", 1.0)))
    rows = run(crew, "abcde")
    assert [path for _, path in crew.given] == list("abcde")
    assert {row.num_attempts for row in rows} == {1}
    assert {row.outcome.status for row in rows} == {"written"}


def test_what_fails_is_tried_on_every_other_worker_first() -> None:
    def act(worker: str, entry: Entry, dead: Collection[str]) -> Done:
        if entry.path == "bad" or (entry.path == "b" and worker == "x"):
            return Done(worker, Outcome("failed", error=DownloadError(f"bad on {worker}")))
        return Done(worker, Outcome("written"))

    crew = FakeCrew("xyz", act)
    rows = run(crew, ["bad", "a", "b", "c"])
    assert sorted(worker for worker, path in crew.given if path == "bad") == ["x", "y", "z"]
    assert [row.outcome.status for row in rows] == ["failed", "written", "written", "written"]
    assert rows[0].num_attempts == 3
    assert str(rows[0].outcome.error).startswith("bad on ")
    assert len([path for _, path in crew.given if path == "c"]) == 1


@pytest.mark.parametrize(
    ("error", "num_attempts"),
    [
        (DownloadError, 2),
        (DiskError, 2),
        (ClusterError, 2),
        (AudioError, 1),
        (ConfigError, 1),
        (PromptError, 1),
    ],
)
def test_a_lone_worker_tries_again_what_may_go_well_then(
    error: type[UnbraidError], num_attempts: int
) -> None:
    failing = Outcome("failed", error=error("bad"))
    crew = FakeCrew("x", lambda worker, entry, dead: Done(worker, failing))
    assert run(crew, ["a"], num_retries=1)[0].num_attempts == num_attempts
    assert len(crew.given) == num_attempts


def test_what_a_lost_worker_had_goes_to_others_who_know_that_it_is_dead() -> None:
    known: list[tuple[str, ...]] = []

    def act(worker: str, entry: Entry, dead: Collection[str]) -> Done | Lost:
        known.append(tuple(dead))
        if worker == "x":
            return Lost("x", "killed")
        return Done(worker, Outcome("written"))

    rows = run(crew := FakeCrew("xy", act), "abc")
    assert [row.outcome.status for row in rows] == ["written"] * 3
    assert [row.num_attempts for row in rows] == [2, 1, 1]
    assert [path for _, path in crew.given].count("a") == 2
    assert known[-1] == ("x",)


def test_a_recording_that_kills_its_workers_is_named() -> None:
    number = iter(range(100))

    class Replacing(FakeCrew):
        def tend(self, num_wanted: int) -> None:
            if not self.events:
                self.events.append(Joined(f"w{next(number)}"))

    crew = Replacing("", lambda worker, entry, dead: Lost(worker, "killed by signal 9"))
    row = run(crew, ["bomb.wav"])[0]
    assert row.num_attempts == 3
    assert str(row.outcome.error) == "bomb.wav: its worker was lost (killed by signal 9)."


def test_what_another_run_has_comes_last_and_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unbraid.cluster.dispatch._PATIENCE_WITH_OTHERS_S", 0.0)
    answers = iter(["busy", "written", "busy", "skipped"])
    crew = FakeCrew("x", lambda worker, entry, dead: Done(worker, Outcome(next(answers))))  # type: ignore[arg-type]
    rows = run(crew, "ab", num_retries=0)
    assert {row.num_attempts for row in rows} == {1}
    assert sorted(row.outcome.status for row in rows) == ["skipped", "written"]


def test_without_workers_the_run_ends() -> None:
    with pytest.raises(ClusterError, match="nobody is left"):
        run(FakeCrew("", lambda worker, entry, dead: None), "a")


def test_table_and_summary_say_what_became_of_everything() -> None:
    entry = Entry("/a,b.wav", PurePosixPath("a"))
    failed = Outcome("failed", work_s=0.1, machine="m", error=AudioError("no\nsound"))
    rows = [
        Row(entry, "w-1", Outcome("written", 1800.0, 90.0, "m"), 1),
        Row(entry, "w-1", Outcome("written", 1800.0, 90.0, "m"), 2),
        Row(entry, "w-2", Outcome("skipped", 1800.0, 0.1, "m"), 1),
        Row(entry, "w-2", failed, 3),
        None,
    ]
    summary = summarise(rows, 100.0)
    counts = (summary.num_written, summary.num_skipped, summary.num_failed, summary.num_open)
    assert counts == (2, 1, 1, 1)
    assert summary.audio_hours == 1.0
    assert [(each.worker, each.rtf) for each in summary.workers] == [("w-1", 0.05)]
    assert json.loads(summary.text)["failed"] == {"/a,b.wav": "no\nsound"}
    assert table_text(rows).splitlines()[-1] == (
        '"/a,b.wav",a,failed,0.000,0.100,0.000,m,w-2,3,no sound'
    )
    assert len(table_text(rows).splitlines()) == 5


@pytest.fixture
def store() -> str:
    return f"memory://{uuid.uuid4()}"


def test_only_one_has_a_claim(store: str) -> None:
    one, two = Claims(store, "one"), Claims(store, "two")
    with one.claim("a") as first, two.claim("a") as second, two.claim("b") as other:
        assert first is not None
        assert other is not None
        assert second is None
    with two.claim("a") as again:
        assert again is not None
    assert not fsspec.filesystem("memory").find(store)


def test_the_claim_of_the_dead_is_taken_over_once(store: str) -> None:
    dead = Claims(store, "dead").claim("a")
    late = dead.__enter__()
    assert late is not None
    with Claims(store, "one").claim("a", ["dead"]) as first:
        assert first is not None
        assert not late.is_held
        with Claims(store, "two").claim("a", ["dead"]) as second:
            assert second is None
    assert not fsspec.filesystem("memory").find(store)
    dead.__exit__(None, None, None)


def test_a_claim_counts_as_dead_only_without_a_sign_of_life(store: str) -> None:
    watching = Claims(store, "two", patience_s=0.05)
    waiting = threading.Event()
    with Claims(store, "one", beat_s=0.01).claim("a"):
        for _ in range(4):
            with watching.claim("a") as claim:
                assert claim is None
            waiting.wait(0.04)
    silent = Claims(store, "one").claim("b")
    silent.__enter__()
    with watching.claim("b") as claim:
        assert claim is None
    waiting.wait(0.1)
    with watching.claim("b") as claim:
        assert claim is not None
        silent.__exit__(None, None, None)


@pytest.fixture
def separator(tiny_model: WaveformModel) -> Separator:
    return Separator(tiny_model, SeparationConfig(segment_s=1.0, overlap_s=0.25))


def worker_for(
    separator: Separator, out: str, options: SeparateOptions = OPTIONS, name: str = "w"
) -> Worker:
    setup = Setup("tiny", separator.engine.config, options, ("speech",), {}, out, "blas")
    return Worker(setup, name, separator)


def entry_in(store: str, file: Path) -> Entry:
    address = f"{store}/in/{file.name}"
    stores.put(file, address)
    return Entry(address, PurePath(file.stem), ("speech", "sfx-mix"))


def contents(store: str) -> dict[str, bytes]:
    memory = fsspec.filesystem("memory")
    root = memory._strip_protocol(store)
    return {path.removeprefix(f"{root}/"): memory.cat_file(path) for path in memory.find(store)}


def test_stems_in_a_store_are_those_on_a_disk(
    separator: Separator, store: str, tmp_path: Path
) -> None:
    file = write_audio(tmp_path / "x.wav", 48_000)
    entry = entry_in(store, file)
    worker = worker_for(separator, f"{store}/out")
    outcome = worker.separate(entry, (), NEVER)
    assert outcome.error is None
    assert (outcome.status, outcome.audio_s) == ("written", 1.0)
    here = separate_file(separator, file, entry.prompts, tmp_path / "here", OPTIONS)
    there = contents(f"{store}/out")
    assert here.sidecar is not None
    names = {path.name for path in here.sidecar.parent.iterdir()}
    assert set(there) == {f"tiny/x/{name}" for name in names}  # and no claim is left
    for name in names - {"separation.json"}:
        assert there[f"tiny/x/{name}"] == (here.sidecar.parent / name).read_bytes()
    record = json.loads(there["tiny/x/separation.json"])
    assert record["source"]["path"] == entry.path
    assert record["stems"] == json.loads(here.sidecar.read_text())["stems"]
    assert worker.separate(entry, (), NEVER).status == "skipped"


def test_recordings_of_a_store_may_go_to_a_folder_and_are_fetched_once(
    separator: Separator, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = entry_in(store, write_audio(tmp_path / "x.wav"))
    worker = worker_for(separator, str(tmp_path / "out"))
    assert worker.separate(entry, (), NEVER).status == "written"
    assert (tmp_path / "out/tiny/x/speech.wav").is_file()
    monkeypatch.setattr(stores, "fetch", lambda *given: pytest.fail("fetched again"))
    assert worker.separate(entry, (), NEVER).status == "skipped"


def test_the_sidecar_comes_last_and_a_part_counts_as_nothing(
    separator: Separator, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = entry_in(store, write_audio(tmp_path / "x.wav"))
    worker = worker_for(separator, f"{store}/out")
    put, done = stores.put, []

    def failing(file: Path, address: str) -> None:
        if len(done) == 2:
            raise AudioError(f"{address}: cannot be written (full)")
        put(file, address)
        done.append(address.rpartition("/")[2])

    monkeypatch.setattr(stores, "put", failing)
    outcome = worker.separate(entry, (), NEVER)
    assert outcome.status == "failed"
    assert "stems" not in json.loads(contents(f"{store}/out")["tiny/x/separation.json"])
    monkeypatch.setattr(stores, "put", lambda *given: (put(*given), done.append(given[1])))
    del done[:]
    assert worker.separate(entry, (), NEVER).status == "written"
    assert done[-1].endswith("separation.json")
    assert not [name for name in contents(f"{store}/out") if "claim" in name]


def test_what_changed_is_separated_again_and_what_is_in_the_way_stays(
    separator: Separator, store: str, tmp_path: Path
) -> None:
    entry = entry_in(store, write_audio(tmp_path / "x.wav"))
    worker = worker_for(separator, f"{store}/out")
    worker.separate(entry, (), NEVER)
    entry_in(store, write_audio(tmp_path / "x.wav", 9_000))
    assert worker.separate(entry, (), NEVER).status == "written"
    other = Entry(f"{store}/in/y.wav", PurePath("x"), entry.prompts)
    stores.put(tmp_path / "x.wav", other.path)
    before = contents(f"{store}/out")
    outcome = worker.separate(other, (), NEVER)
    assert isinstance(outcome.error, ConfigError)
    assert f"belongs to another recording ({entry.path})" in str(outcome.error)
    assert contents(f"{store}/out") == before
    stores.write(b"mine", f"{store}/out/tiny/z/speech.wav")
    outcome = worker.separate(Entry(other.path, PurePath("z"), entry.prompts), (), NEVER)
    assert "does not come from a finished separation" in str(outcome.error)


def test_who_was_taken_for_dead_puts_nothing(
    separator: Separator, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = entry_in(store, write_audio(tmp_path / "x.wav"))
    slow = worker_for(separator, f"{store}/out", name="slow")
    quick = worker_for(separator, f"{store}/out", name="quick")
    fetch, outcomes = stores.fetch, []

    def hesitating(address: str, to: Path) -> None:
        fetch(address, to)
        if not outcomes:
            outcomes.append("begun")
            assert quick.separate(entry, (), NEVER).status == "busy"
            outcomes.append(quick.separate(entry, ("slow",), NEVER).status)

    monkeypatch.setattr(stores, "fetch", hesitating)
    before: list[dict[str, bytes]] = []
    put = stores.put
    monkeypatch.setattr(stores, "put", lambda *given: (put(*given), before.append({})))
    # The claims of both are gone by then, so the slow one may take itself for the owner; what
    # it finds finished it has no need to put.
    assert slow.separate(entry, (), NEVER).status in ("busy", "skipped")
    assert outcomes == ["begun", "written"]
    assert len(before) == 4  # two stems, the table of presence and the sidecar, once


def test_what_was_signed_anew_is_finished_all_the_same(
    separator: Separator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_audio(tmp_path / "x.wav")

    class Signed:
        """The web, as fsspec knows it: without times of change."""

        def info(self, path: str) -> dict[str, Any]:
            return {"size": file.stat().st_size}

        def modified(self, path: str) -> None:
            raise NotImplementedError

        def get_file(self, path: str, to: str) -> None:
            assert path.endswith("?sig=a/b.c"), "without its signature nobody is let in"
            Path(to).write_bytes(file.read_bytes())

    monkeypatch.setattr(stores, "_open", lambda address: (Signed(), address))
    worker = worker_for(separator, str(tmp_path / "out"))
    for place, signature, status in (
        ("x.wav", "a/b.c", "written"),
        ("x.wav", "another", "skipped"),
        ("", "a/b.c", "written"),
    ):
        entry = Entry(f"https://h/{place}?sig={signature}", PurePath(place or "y"), ("speech",))
        outcome = worker.separate(entry, (), NEVER)
        assert outcome.error is None
        assert outcome.status == status
    record = json.loads((tmp_path / "out/tiny/x.wav/separation.json").read_text())
    assert record["source"]["path"] == "https://h/x.wav"


def test_a_bad_recording_in_a_store_is_named_by_its_address(
    separator: Separator, store: str, tmp_path: Path
) -> None:
    (tmp_path / "bad.wav").write_text("no")
    entry = entry_in(store, tmp_path / "bad.wav")
    worker = worker_for(separator, f"{store}/out")
    text = str(worker.separate(entry, (), NEVER).error)
    assert text.startswith(f"{entry.path}: not an audio file")
    assert "/tmp" not in text.replace(entry.path, "")
    missing = Entry(f"{store}/in/none.wav", PurePath("none"), ("speech",))
    assert str(worker.separate(missing, (), NEVER).error) == (
        f"{missing.path}: there is no such file."
    )
    assert not contents(f"{store}/out")


def test_a_failure_that_nobody_foresaw_fails_one_recording(
    separator: Separator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = worker_for(separator, str(tmp_path / "out"))
    monkeypatch.setattr(separator, "separate_stream", lambda *given, **named: 1 / 0)
    entry = Entry(str(write_audio(tmp_path / "x.wav")), PurePath("x"), ("speech",))
    outcome = worker.separate(entry, (), NEVER)
    assert str(outcome.error) == f"{entry.path}: ZeroDivisionError: division by zero"


def test_a_worker_that_is_stopped_leaves_nothing(
    separator: Separator, store: str, tmp_path: Path
) -> None:
    entry = entry_in(store, write_audio(tmp_path / "x.wav"))
    stop = threading.Event()
    stop.set()
    with pytest.raises(Cancelled):
        worker_for(separator, f"{store}/out").separate(entry, (), stop)
    assert not contents(f"{store}/out")


def test_unknown_stores_name_the_package_or_the_address() -> None:
    with pytest.raises(MissingExtra, match="nothere://x"):
        stores.read("nothere://x/y")


def test_nothing_afar_is_touched_where_the_network_is_forbidden(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DataError, match="HF_HUB_OFFLINE forbids the network"):
        stores.read("s3://bucket/list.csv")


def test_products_are_those_that_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for said, expected in (("blas", False), ("onednn", True)):
        monkeypatch.setenv("UNBRAID_PRODUCTS", said)
        assert onednn_is_faster() is expected
    monkeypatch.setenv("UNBRAID_PRODUCTS", "mkl")
    with pytest.raises(ConfigError, match="must be blas or onednn"):
        onednn_is_faster()
