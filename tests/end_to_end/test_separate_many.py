"""``separate-many``: the stems of one machine, whatever happens to workers and nodes."""

import csv
import multiprocessing
import os
import sys
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pytest

from command_line import start, unbraid, write_audio
from unbraid.apps.separate_files import SeparateOptions
from unbraid.checkpoints import Card, model_info, save_bundle
from unbraid.cluster.local_crew import LocalCrew
from unbraid.cluster.manifest import Entry, Shard
from unbraid.cluster.ray_crew import RayCrew
from unbraid.cluster.separate_many import ManyOptions, ManyResult, separate_many
from unbraid.cluster.table import Row
from unbraid.cluster.worker import Setup, load_for
from unbraid.errors import CheckpointError, ClusterError
from unbraid.models.waveform import WaveformModel
from unbraid.separation.settings import SeparationConfig

PROMPTS = ("speech", "sfx-mix")
needs_ray = pytest.mark.skipif(
    "not __import__('importlib.util').util.find_spec('ray')", reason="Ray is not installed"
)


@pytest.fixture
def bundle(tiny_model: WaveformModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return save_bundle(tiny_model, folder, Card(name="tiny", licence="Apache-2.0"))


@pytest.fixture(autouse=True)
def same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a busy machine lets processes measure may not decide what their products are."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("UNBRAID_PRODUCTS", "blas")


def manifest_of(folder: Path, num_recordings: int, duration_s: float = 0.5) -> Path:
    """Recordings of one length and a list of them."""
    names = [f"{number:02}.wav" for number in range(num_recordings)]
    for name in names:
        write_audio(folder / name, round(48_000 * duration_s))
    manifest = folder / "list.txt"
    manifest.write_text("\n".join(names))
    return manifest


def table(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as text:
        return list(csv.DictReader(text))


def stems_below(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.wav")
    }


def assert_as_on_one_machine(out: Path, manifest: Path, bundle: Path) -> None:
    """Each stem is there, and is the one that ``unbraid separate`` makes."""
    alone = out.with_name("alone")
    outcome = unbraid(
        *("separate", manifest.parent, "-m", bundle, "-p", ",".join(PROMPTS), "--out", alone),
        *("--device", "cpu", "--quiet"),
    )
    assert outcome.code == 0
    assert stems_below(out) == stems_below(alone)


def run(
    open_crew: Any, manifest: Path, bundle: Path, out: Path, on_row: Any = None, **changes: Any
) -> ManyResult:
    info = model_info(bundle)
    return separate_many(
        bundle,
        SeparationConfig(),
        SeparateOptions(info.name, info.digest),
        ManyOptions(str(manifest), PROMPTS, str(out), **changes),
        open_crew,
        on_row=on_row,
    )


def test_the_stems_are_those_of_separate_and_the_bad_file_is_named(
    bundle: Path, tmp_path: Path
) -> None:
    manifest = manifest_of(tmp_path / "in", 2)
    with manifest.open("a") as text:
        text.write("\nbad.txt")
    (manifest.parent / "bad.txt").write_text("no sound")
    out = tmp_path / "many"
    outcome = unbraid(
        *("separate-many", manifest, "-m", bundle, "-p", ",".join(PROMPTS), "--out", out),
        *("--jobs", "1", "--retries", "1", "--device", "cpu"),
    )
    assert outcome.code == 4
    assert "bad.txt: not an audio file" in outcome.stderr
    rows = table(out / "separate-many.csv")
    assert [(row["name"], row["status"], row["num_attempts"]) for row in rows] == [
        ("00", "written", "1"),
        ("01", "written", "1"),
        ("bad", "failed", "1"),
    ]
    assert "bad.txt: not an audio file" in rows[2]["error"]
    assert "2 written, 0 skipped, 1 failed" in outcome.stdout
    assert_as_on_one_machine(out, manifest, bundle)


def test_what_is_wrong_is_found_before_any_work(bundle: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "list.csv"
    manifest.write_text("path,prompts\nx.wav,speech\ny.wav,spech\n")
    out = tmp_path / "out"
    command = ("separate-many", manifest, "-m", bundle, "--out", out)
    assert "y.wav: unknown prompt 'spech'" in unbraid(*command).error
    for flags, problem in (
        (("--retries", "-1"), "--retries -1"),
        (("--jobs", "0"), "--jobs 0"),
        (("--cores", "0"), "--cores 0"),
        (("--shard", "3/2"), "--shard 3/2"),
        (("--stereo", "both"), "--stereo both"),
    ):
        assert problem in unbraid(*command, *flags).error
    assert not out.exists()


def test_a_cluster_that_is_not_there_or_no_ray_is_an_error(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = manifest_of(tmp_path / "in", 1)
    out = tmp_path / "out"
    command = ("separate-many", manifest, "-m", bundle, "--out", out, "--ray")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "ray", None)
        outcome = unbraid(*command, "auto")
        assert (outcome.code, "pip install 'unbraid[cluster]'" in outcome.error) == (7, True)
    assert not list(out.iterdir())


@needs_ray
def test_an_address_where_nobody_answers_is_an_error(bundle: Path, tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path / "in", 1)
    command = ("separate-many", manifest, "-m", bundle, "--out", tmp_path / "out", "--ray")
    for address in ("127.0.0.1:9", "ray://127.0.0.1:9", "here:there"):
        outcome = unbraid(*command, address)
        assert outcome.code == ClusterError.exit_code
        assert f"--ray {address}: no cluster can be reached there" in outcome.error
    assert "the cluster chooses the device" in unbraid(*command, "auto", "-d", "cuda:1").error


def test_a_worker_with_another_model_is_refused(bundle: Path, tmp_path: Path) -> None:
    options = SeparateOptions("tiny", "0" * 64)
    setup = Setup(str(bundle), SeparationConfig(), options, PROMPTS, {}, str(tmp_path), "blas")
    with pytest.raises(CheckpointError, match="differs from the one that this run began with"):
        load_for(setup, "cpu")


def wait_for_work_in(out: Path) -> None:
    """Return when a worker has begun to write there."""
    deadline_s = time.monotonic() + 60.0
    while not any(out.rglob(".unbraid-*")):
        assert time.monotonic() < deadline_s, "no worker has begun"
        time.sleep(0.001)


class KillingCrew(LocalCrew):
    """Kills the worker that is given the first recording while it is in the middle of it."""

    victim: str | None = None

    def give(self, worker: str, entry: Entry, dead: Collection[str]) -> None:
        super().give(worker, entry, dead)
        if self.victim is None:
            self.victim = worker
            wait_for_work_in(Path(self._setup.out))
            named = {process.name: process for process in multiprocessing.active_children()}
            named[worker].kill()


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced_and_what_it_had_is_done(
    bundle: Path, tmp_path: Path
) -> None:
    manifest = manifest_of(tmp_path / "in", 4, duration_s=20.0)
    out = tmp_path / "many"
    crews: list[KillingCrew] = []

    def open_crew(setup: Setup, count: int) -> KillingCrew:
        crews.append(KillingCrew(setup, ["cpu", "cpu"], 1))
        return crews[0]

    result = run(open_crew, manifest, bundle, out)
    assert result.exit_code == 0
    assert result.summary.num_written == 4
    rows = [row for row in result.rows if row is not None]
    assert [row.num_attempts for row in rows] == [2, 1, 1, 1]
    assert crews[0].victim not in {row.worker for row in rows}
    assert not list(out.rglob(".unbraid-*"))
    assert_as_on_one_machine(out, manifest, bundle)


@pytest.mark.slow
def test_two_runs_at_once_and_a_third_write_each_recording_once(
    bundle: Path, tmp_path: Path
) -> None:
    manifest = manifest_of(tmp_path / "in", 6, duration_s=2.0)
    out = tmp_path / "many"
    command = ("separate-many", manifest, "-m", bundle, "-p", ",".join(PROMPTS), "--out", out)
    flags = ("--jobs", "1", "--device", "cpu")
    runs = [start(*command, *flags), start(*command, *flags)]
    printed = [process.communicate(timeout=300)[0] for process in runs]
    assert [process.returncode for process in runs] == [0, 0]
    assert "".join(printed).count(": written by ") == 6
    assert "".join(printed).count(": skipped by ") == 6
    parts = [
        run(lambda setup, count: LocalCrew(setup, ["cpu"], 1), manifest, bundle, out, shard=shard)
        for shard in (Shard(1, 2), Shard(2, 2))
    ]
    assert [part.summary.num_skipped for part in parts] == [3, 3]
    assert {path.name for path in out.glob("*.csv")} == {
        "separate-many.csv",
        "separate-many-1-of-2.csv",
        "separate-many-2-of-2.csv",
    }
    assert_as_on_one_machine(out, manifest, bundle)


@pytest.fixture
def two_nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster of two nodes, each with processes of its own and room for one worker."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    # Workers give way to all others otherwise, and a busy machine would starve them.
    monkeypatch.setenv("RAY_worker_niceness", "0")
    cluster_utils = pytest.importorskip("ray.cluster_utils", reason="Ray is not installed")
    small = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    cluster = cluster_utils.Cluster(
        initialize_head=True, head_node_args={**small, "include_dashboard": False}
    )
    try:
        cluster.second = cluster.add_node(**small)
        yield cluster
    finally:
        cluster.shutdown()


class NodeKillingCrew(RayCrew):
    """Kills the second node while its worker is in the middle of a recording.

    Args:
        nodes: The cluster.
        setup: What all workers share.
    """

    def __init__(self, nodes: Any, setup: Setup) -> None:
        super().__init__(setup, nodes.address)
        self.nodes = nodes
        self.given: list[str] = []
        self.num_given_before: int | None = None

    def give(self, worker: str, entry: Entry, dead: Collection[str]) -> None:
        super().give(worker, entry, dead)
        is_its_second = worker in self.given
        self.given.append(worker)
        if self.num_given_before is None and is_its_second and self.is_on_second_node(worker):
            self.num_given_before = len(self.given)
            self.nodes.remove_node(self.nodes.second, allow_graceful=False)

    def is_on_second_node(self, worker: str) -> bool:
        node = self._members[worker].actor.__ray_call__.remote(
            lambda actor: __import__("ray").get_runtime_context().get_node_id()
        )
        return bool(self._ray.get(node) == self.nodes.second.node_id)


@needs_ray
@pytest.mark.slow
def test_a_node_dies_and_all_is_finished_once(bundle: Path, tmp_path: Path, two_nodes: Any) -> None:
    manifest = manifest_of(tmp_path / "in", 12, duration_s=8.0)
    out = tmp_path / "many"
    finished: dict[str, tuple[int, int]] = {}
    crews: list[NodeKillingCrew] = []

    def open_crew(setup: Setup, count: int) -> NodeKillingCrew:
        crews.append(NodeKillingCrew(two_nodes, setup))
        return crews[0]

    def facts(name: str) -> tuple[int, int]:
        stat = (out / "tiny" / name / "separation.json").stat()
        return stat.st_ino, stat.st_mtime_ns

    def note(row: Row) -> None:
        name = row.entry.track.as_posix()
        assert name not in finished
        finished[name] = facts(name)

    result = run(open_crew, manifest, bundle, out, note)
    assert crews[0].num_given_before is not None, "the second node has come too late"
    assert crews[0].num_given_before < 12
    assert len(set(crews[0].given)) == 2
    assert result.exit_code == 0
    assert {name: facts(name) for name in finished} == finished  # nothing was written again
    assert len(finished) == 12
    rows = table(Path(result.table))
    assert [row["name"] for row in rows] == [f"{number:02}" for number in range(12)]
    assert {row["status"] for row in rows} == {"written"}
    assert sorted(row["num_attempts"] for row in rows)[-2:] == ["1", "2"]
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert not list(out.glob(".unbraid-*"))
    assert_as_on_one_machine(out, manifest, bundle)
