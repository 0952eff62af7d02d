"""``unbraid data``: what is known, what it costs, and from a server to lists that can be used."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

import unbraid.data.corpora as registry
from command_line import files_below, unbraid
from conftest import ROOT
from file_server import FileServer, running_file_server
from split_archives import cut, make_tar, make_zip, split_zip
from unbraid import downloads
from unbraid.apps.prepare_corpus import prepare_corpus
from unbraid.cli import app
from unbraid.cli.work_bar import WorkBar
from unbraid.data.corpora.base import (
    Archive,
    Corpus,
    MixtureFiles,
    ReferenceFiles,
    Track,
    files_in,
    recording_of,
    require,
)
from unbraid.data.manifest import Recording, read_manifest
from unbraid.data.preparing import packages_of
from unbraid.errors import Cancelled
from unbraid.types import Step

RATE = 8000


# ------------------------------------------------------------------ a corpus in miniature


def list_recordings(root: Path) -> Iterator[Recording]:
    for split in ("train", "test"):
        for path in files_in(root, f"clips/{split}", "*.wav", "Miniature"):
            kind = f"sfx/{path.stem.partition('-')[0]}"
            yield recording_of(root, path, kind, split, "CC0")


def list_mixtures(root: Path) -> Iterator[MixtureFiles]:
    require(root, ["mixed", "names.csv"], "Miniature")
    for name in (root / "names.csv").read_text().split():
        clean, noisy = Track(f"mixed/{name}-clean.wav"), Track(f"mixed/{name}-noisy.wav", 1)
        sources = (
            ReferenceFiles("speech", (clean,)),
            ReferenceFiles("sfx-mix", (noisy,), (clean,)),
        )
        yield MixtureFiles(name, "test", sources, noisy, group="all")


MINIATURE = Corpus(
    name="miniature",
    title="Miniature",
    contents="Five clips and two mixtures.",
    licence="CC BY 4.0",
    url="https://host/miniature",
    how_to_get="Ask for it by letter.",
    layout="clips/{train,test}/*.wav, mixed/*.wav, names.csv",
    recordings=list_recordings,
    mixtures=list_mixtures,
)


def write_noise(path: Path, num_samples: int) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(num_samples).uniform(-0.5, 0.5, num_samples)
    soundfile.write(path, samples, RATE, subtype="PCM_16")
    return path.read_bytes()


def make_miniature(root: Path) -> dict[str, bytes]:
    """The corpus on disk, and its files by path."""
    lengths = {
        "clips/train/dog-1.wav": 8000,
        "clips/train/dog-2.wav": 4000,
        "clips/train/cat-1.wav": 2000,
        "clips/test/dog-3.wav": 6000,
        "clips/test/cat-2.wav": 1000,
        "mixed/a-clean.wav": 3000,
        "mixed/a-noisy.wav": 3000,
        "mixed/b-clean.wav": 5000,
        "mixed/b-noisy.wav": 5000,
    }
    files = {name: write_noise(root / name, length) for name, length in lengths.items()}
    files["names.csv"] = b"a\nb\n"
    (root / "names.csv").write_bytes(files["names.csv"])
    return files


def know(monkeypatch: pytest.MonkeyPatch, *known: Corpus) -> None:
    monkeypatch.setattr(registry, "corpora", lambda: {corpus.name: corpus for corpus in known})


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the corpus, which the command line knows."""
    know(monkeypatch, MINIATURE)
    make_miniature(tmp_path / "corpus")
    return tmp_path / "corpus"


@dataclass(frozen=True)
class Publisher:
    """Where the corpus can be fetched, and how it should look then."""

    server: FileServer
    files: dict[str, bytes]


@pytest.fixture
def publisher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    """A server with the corpus in a split zip, a tar in parts and a plain file."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(downloads, "_WAITS_S", (0.0, 0.0))
    work = tmp_path / "publisher"
    files = make_miniature(work / "whole")
    clips = {name: content for name, content in files.items() if name.startswith("clips/")}
    mixed = {
        name.removeprefix("mixed/"): content
        for name, content in files.items()
        if name.startswith("mixed/")
    }
    paths = [
        *((path, ".") for path in split_zip(make_zip(work / "clips.zip", clips), 16_000)),
        *((path, "mixed") for path in cut(make_tar(work / "mixed.tar.gz", mixed), 2)),
        (work / "whole" / "names.csv", "."),
    ]
    with running_file_server() as server:
        archives = []
        for path, folder in paths:
            content = path.read_bytes()
            url = server.serve(path.name, content, headers={"ETag": f'"{path.name}"'})
            digest = f"md5:{hashlib.md5(content).hexdigest()}"
            archives.append(Archive(url, len(content), digest, folder))
        # Nobody knows everything of everything.
        archives[-1] = replace(archives[-1], size_bytes=None, digest="")
        know(monkeypatch, replace(MINIATURE, archives=tuple(archives)))
        yield Publisher(server, files)


# ------------------------------------------------------------------ what is known


def test_the_list_says_what_each_corpus_may_be_used_for(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = unbraid("data", "list").stdout
    for words in ("miniature", MINIATURE.contents, MINIATURE.licence, "over "):
        assert words in shown
    (plain,) = unbraid("data", "list", "--json").json
    assert plain["licence"] == "CC BY 4.0"
    assert plain["has_recordings"] is True
    assert plain["archives"][-1]["name"] == "names.csv"
    assert plain["archives"][-1]["size_bytes"] is None


def test_info_says_how_to_get_a_corpus_and_how_it_should_look(root: Path) -> None:
    text = unbraid("data", "info", "miniature").stdout
    assert MINIATURE.how_to_get in text
    assert MINIATURE.layout in text
    assert "--download" not in text
    assert unbraid("data", "info", "miniature", "--json").json["url"] == MINIATURE.url


def test_an_unknown_corpus_is_answered_with_near_names(root: Path) -> None:
    outcome = unbraid("data", "info", "minature")
    assert outcome.code == 6
    assert "unknown corpus 'minature'" in outcome.error
    assert "miniature" in outcome.error


# ------------------------------------------------------------------ listing


def test_a_corpus_is_checked_and_listed(root: Path) -> None:
    outcome = unbraid("data", "prepare", "miniature", root)
    assert outcome.code == 0
    recordings = read_manifest(root / "unbraid-manifest.csv")
    assert [recording.path for recording in recordings] == [
        "clips/train/cat-1.wav",
        "clips/train/dog-1.wav",
        "clips/train/dog-2.wav",
        "clips/test/cat-2.wav",
        "clips/test/dog-3.wav",
    ]
    assert recordings == tuple(list_recordings(root))
    lines = (root / "unbraid-mixtures.jsonl").read_text().splitlines()
    assert json.loads(lines[1]) == {
        "name": "b",
        "split": "test",
        "group": "all",
        "mixture": {"path": "mixed/b-noisy.wav", "track": 1},
        "references": [
            {
                "prompt": "speech",
                "add": [{"path": "mixed/b-clean.wav", "track": None}],
                "subtract": [],
            },
            {
                "prompt": "sfx-mix",
                "add": [{"path": "mixed/b-noisy.wav", "track": 1}],
                "subtract": [{"path": "mixed/b-clean.wav", "track": None}],
            },
        ],
    }
    assert "licence: CC BY 4.0" in outcome.stdout
    assert str(root / "unbraid-manifest.csv") in outcome.stdout


def test_counts_and_hours_are_told_by_split_and_kind(root: Path) -> None:
    record = unbraid("data", "prepare", "miniature", root, "--json").json
    shares = [(row["split"], row["kind"], row["count"]) for row in record["recording_shares"]]
    assert shares == [
        ("test", "sfx/cat", 1),
        ("test", "sfx/dog", 1),
        ("train", "sfx/cat", 1),
        ("train", "sfx/dog", 2),
    ]
    assert record["recording_shares"][3]["hours"] == pytest.approx(1.5 / 3600)
    (mixtures,) = record["mixture_shares"]
    assert (mixtures["split"], mixtures["kind"]) == ("test", "speech + sfx-mix")
    assert mixtures["count"] == 2
    assert mixtures["hours"] == pytest.approx(1.0 / 3600)
    assert record["licence"] == "CC BY 4.0"


def test_many_kinds_are_added_up_in_the_table(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(30):
        write_noise(root / f"clips/train/kind{number}-1.wav", 100)
    stdout = unbraid("data", "prepare", "miniature", root, "--only", "recordings").stdout
    rows = [line.split() for line in stdout.splitlines()]
    assert ["train", "sfx/*", "33", "0.00"] in rows
    assert ["test", "sfx/*", "2", "0.00"] in rows


def test_lists_elsewhere_name_the_files_of_the_corpus(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "lists" / "here"
    assert unbraid("data", "prepare", "miniature", root, "--out", out).code == 0
    assert files_below(out) == ["unbraid-manifest.csv", "unbraid-mixtures.jsonl"]
    assert "unbraid-manifest.csv" not in files_below(root)
    for recording in read_manifest(out / "unbraid-manifest.csv"):
        assert (out / recording.path).is_file()
    entry = json.loads((out / "unbraid-mixtures.jsonl").read_text().splitlines()[0])
    assert (out / entry["mixture"]["path"]).is_file()


@pytest.mark.parametrize(
    ("only", "name"),
    [("recordings", "unbraid-manifest.csv"), ("mixtures", "unbraid-mixtures.jsonl")],
)
def test_one_half_of_a_corpus_can_be_listed_alone(
    root: Path, tmp_path: Path, only: str, name: str
) -> None:
    (root / ("names.csv" if only == "recordings" else "clips/train/dog-1.wav")).write_bytes(b"")
    out = tmp_path / "out"
    assert unbraid("data", "prepare", "miniature", root, "--only", only, "--out", out).code == 0
    assert files_below(out) == [name]


def test_a_choice_that_makes_no_sense(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = unbraid("data", "prepare", "miniature", root, "--only", "songs")
    assert outcome.code == 2
    assert "--only songs" in outcome.error
    know(monkeypatch, replace(MINIATURE, mixtures=None))
    outcome = unbraid("data", "prepare", "miniature", root, "--only", "mixtures")
    assert outcome.code == 2
    assert "Miniature holds no mixtures" in outcome.error


# ------------------------------------------------------------------ what is missing or broken


def quietly(*arguments: str | Path) -> tuple[int, str]:
    """The exit code and the error of ``prepare``, without the steps before it."""
    outcome = unbraid("data", "prepare", "miniature", *arguments)
    return outcome.code, outcome.stderr.splitlines()[-1]


def test_what_is_missing_is_named_and_nothing_is_written(root: Path) -> None:
    (root / "names.csv").unlink()
    code, error = quietly(root)
    assert code == 6
    assert f"{root}: not a whole copy of Miniature, it has no names.csv" in error
    assert "add --only recordings" in error
    assert not list(root.glob("unbraid*"))
    assert quietly(root / "nowhere")[0] == 6


def test_a_file_that_cannot_be_read_is_named(root: Path) -> None:
    (root / "clips/test/cat-2.wav").write_bytes(b"no sound")
    code, error = quietly(root)
    assert code == 6
    assert str(root / "clips/test/cat-2.wav") in error
    (root / "clips/test/cat-2.wav").unlink()
    (root / "mixed/b-noisy.wav").unlink()
    code, error = quietly(root)
    assert code == 6
    assert str(root / "mixed/b-noisy.wav") in error
    assert not list(root.glob("unbraid*"))


def test_a_corpus_that_lists_nothing_is_incomplete(root: Path) -> None:
    (root / "names.csv").write_text("")
    outcome = unbraid("data", "prepare", "miniature", root, "--only", "mixtures")
    assert outcome.code == 6
    error = outcome.stderr.splitlines()[-1]
    assert "holds no mixtures of Miniature; it should hold clips/{train,test}" in error


def test_one_half_of_a_corpus_is_enough(root: Path) -> None:
    (root / "names.csv").write_text("")
    assert quietly(root)[0] == 0
    assert (root / "unbraid-manifest.csv").exists()
    assert not (root / "unbraid-mixtures.jsonl").exists()


def test_stopped_while_listing_nothing_is_written(root: Path) -> None:
    def stop(step: Step) -> None:
        if step.name == "measuring mixtures":
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        prepare_corpus("miniature", root, progress=stop)
    assert not list(root.glob("unbraid*"))


# ------------------------------------------------------------------ fetching


def test_from_a_server_to_lists(publisher: Publisher, tmp_path: Path) -> None:
    root = tmp_path / "new"
    outcome = unbraid("data", "prepare", "miniature", root, "--download", "--yes")
    assert outcome.code == 0
    for name, content in publisher.files.items():
        assert (root / name).read_bytes() == content
    assert len(read_manifest(root / "unbraid-manifest.csv")) == 5
    # The archives are gone, what they were is noted.
    assert files_below(root / "unbraid-archives") == [
        "clips.zip.unpacked.json",
        "mixed.tar.gz.unpacked.json",
        "names.csv.unpacked.json",
    ]
    for name in ("clips.z01", "clips.zip", "mixed.tar.gz.00", "together", "over "):
        assert name in outcome.stdout
    assert "licence: CC BY 4.0" in outcome.stdout
    steps = outcome.stderr.splitlines()
    assert steps[0] == "fetching clips.z01"
    assert "unpacking mixed.tar.gz" in steps
    assert steps[-1] == "measuring mixtures"


def test_the_second_time_nothing_is_fetched(publisher: Publisher, tmp_path: Path) -> None:
    command = ("data", "prepare", "miniature", tmp_path / "new", "--download")
    first = unbraid(*command, "--yes", "--json")
    publisher.server.ranges.clear()
    # Nothing would be fetched, so nothing is asked.
    second = unbraid(*command, "--json")
    assert second.code == 0
    assert second.json == first.json
    assert publisher.server.ranges == []


def test_archives_stay_if_that_is_wanted(publisher: Publisher, tmp_path: Path) -> None:
    root = tmp_path / "new"
    unbraid("data", "prepare", "miniature", root, "--download", "--yes", "--keep-archives")
    kept = files_below(root / "unbraid-archives")
    assert {"clips.z01", "clips.zip", "mixed.tar.gz.00", "mixed.tar.gz.01"} < set(kept)


def test_json_is_all_that_stands_on_stdout(publisher: Publisher, tmp_path: Path) -> None:
    root = tmp_path / "new"
    outcome = unbraid("data", "prepare", "miniature", root, "--download", "--yes", "--json")
    assert outcome.json["manifest"] == str(root / "unbraid-manifest.csv")
    assert "clips.zip" in outcome.stderr


def test_nobody_there_to_agree(publisher: Publisher, tmp_path: Path) -> None:
    root = tmp_path / "new"
    outcome = unbraid("data", "prepare", "miniature", root, "--download")
    assert outcome.code == 2
    assert "CC BY 4.0" in outcome.error
    assert "add --yes" in outcome.error
    assert publisher.server.ranges == []
    assert not root.exists()


@pytest.mark.parametrize(("answer", "is_fetched"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_somebody_is_asked(
    publisher: Publisher,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    is_fetched: bool,
) -> None:
    monkeypatch.setattr("unbraid.cli.data._somebody_is_there", lambda: True)
    root = tmp_path / "new"
    command = ["data", "prepare", "miniature", str(root), "--download"]
    outcome = CliRunner().invoke(app, command, input=answer)
    assert f"Fetch them into {root}? [y/N]" in outcome.stderr
    assert "clips.z01" in outcome.stdout
    assert outcome.exit_code == (0 if is_fetched else 130)
    assert root.exists() is is_fetched
    if not is_fetched:
        assert "nothing was fetched" in outcome.stderr


def test_a_corpus_that_is_not_free_says_how_to_get_it(root: Path) -> None:
    outcome = unbraid("data", "prepare", "miniature", root, "--download", "--yes")
    assert outcome.code == 6
    assert outcome.error.endswith("Miniature cannot be fetched from here. Ask for it by letter.")


def test_broken_connections_and_failed_runs_cost_nothing(
    publisher: Publisher, tmp_path: Path
) -> None:
    root = tmp_path / "new"
    server = publisher.server
    server.files["clips.zip"].breaks = [500, 700]
    server.files["mixed.tar.gz.01"].statuses = [(404, {})]
    outcome = unbraid("data", "prepare", "miniature", root, "--download", "--yes")
    assert outcome.code == 8
    assert "mixed.tar.gz.01: there is no such file" in outcome.stderr
    assert "bytes=500-" in server.ranges
    assert not list(root.glob("unbraid-m*"))
    server.ranges.clear()
    outcome = unbraid("data", "prepare", "miniature", root, "--download", "--yes")
    assert outcome.code == 0
    # The missing part and the plain file, and nothing a second time.
    assert len(server.ranges) == 2
    assert (root / "mixed/b-noisy.wav").read_bytes() == publisher.files["mixed/b-noisy.wav"]


def test_interrupted_while_fetching_what_came_is_kept(
    publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "new"

    def interrupt(bar: WorkBar, step: Step) -> None:
        if step.name == "fetching clips.zip" and step.done:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(WorkBar, "update", interrupt)
        outcome = unbraid("data", "prepare", "miniature", root, "--download", "--yes")
    assert outcome.code == 130
    assert outcome.stderr == "interrupted; what was fetched is kept for the next time.\n"
    assert (root / "unbraid-archives" / "clips.zip.part").stat().st_size > 0
    assert unbraid("data", "prepare", "miniature", root, "--download", "--yes").code == 0


def test_an_archive_that_is_not_what_was_published_is_refused(
    publisher: Publisher, tmp_path: Path
) -> None:
    root = tmp_path / "new"
    served = publisher.server.files["clips.zip"]
    served.content = served.content[::-1]
    outcome = unbraid("data", "prepare", "miniature", root, "--download", "--yes")
    assert outcome.code == 8
    assert "not what its publisher promised" in outcome.stderr
    assert files_below(root / "unbraid-archives") == ["clips.z01", "clips.z02"]


def test_a_disk_without_room_is_seen_before_anything_is_fetched(
    publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr("unbraid.apps.prepare_corpus.shutil.disk_usage", lambda _: usage)
    outcome = unbraid("data", "prepare", "miniature", tmp_path / "new", "--download", "--yes")
    assert outcome.code == 8
    assert "only 10 B are free" in outcome.stderr
    assert publisher.server.ranges == []


# ------------------------------------------------------------------ the real corpora


def test_every_corpus_says_what_people_need_to_know() -> None:
    known = registry.corpora()
    assert known
    for name, corpus in known.items():
        assert name == corpus.name
        for text in (corpus.title, corpus.contents, corpus.licence, corpus.layout):
            assert text.strip(), name
        assert corpus.how_to_get.strip(), name
        assert corpus.url.startswith("http"), name
        assert corpus.recordings or corpus.mixtures, name
        files = [(archive.folder, archive.name) for archive in corpus.archives]
        assert len(set(files)) == len(files), name
        names = [package.name for package in packages_of(corpus.archives)]
        assert len(set(names)) == len(names), name
        for archive in corpus.archives:
            assert archive.url.startswith("https://"), name
            assert "." in archive.name, f"{name}: {archive.url} ends with no file name"
            assert not archive.digest or downloads._DIGEST.fullmatch(archive.digest), name
            assert archive.size_bytes is None or archive.size_bytes > 0, name


def test_every_corpus_can_be_shown() -> None:
    for name in registry.corpora():
        assert unbraid("data", "info", name).code == 0


def test_the_guide_knows_the_same_corpora() -> None:
    text = (ROOT / "docs/corpora.md").read_text()
    table = text.split("<!-- corpora -->")[1]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table.splitlines()
        if line.startswith("| `")
    ]
    told = {row[0].strip("`"): (row[2], row[3], row[4]) for row in rows}
    known = {
        name: tuple(
            "yes" if has else "" for has in (corpus.recordings, corpus.mixtures, corpus.archives)
        )
        for name, corpus in registry.corpora().items()
    }
    assert told == known
