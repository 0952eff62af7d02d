"""Archives as corpora are published in: all kinds, in parts, damaged, and malicious."""

import io
import random
import shutil
import stat
import subprocess
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from command_line import files_below
from split_archives import cut, make_tar, make_zip, split_zip
from unbraid.data.corpora.base import Archive
from unbraid.data.preparing import is_unpacked, note_unpacked, packages_of, unpack
from unbraid.data.split_zip import JoinedFile, Segment
from unbraid.errors import Cancelled, DataError

# Random, so that compression does not make it fit into one part.
NOISE = random.Random(0).randbytes(9000)
FILES = {"corpus/": b"", "corpus/a/1.wav": NOISE, "corpus/b/2.wav": b"two", "list.csv": b"a,b"}
BELOW = ["corpus", "corpus/a", "corpus/a/1.wav", "corpus/b", "corpus/b/2.wav", "list.csv"]


def make(path: Path, files: Mapping[str, bytes] = FILES) -> Path:
    return make_zip(path, files) if path.suffix == ".zip" else make_tar(path, files)


def archive(name: str, folder: str = ".") -> Archive:
    return Archive(f"https://host/{name}?download=1", 10, folder=folder)


# ------------------------------------------------------------------ all kinds


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tar.bz2", "a.tar.xz"])
def test_every_kind_of_archive_is_unpacked(tmp_path: Path, name: str) -> None:
    seen: list[tuple[int, int | None]] = []
    folder = tmp_path / "out" / "here"
    count = unpack(
        [make(tmp_path / name)], folder, name, lambda done, total: seen.append((done, total))
    )
    assert count == 3
    assert files_below(folder) == BELOW
    assert (folder / "corpus/a/1.wav").read_bytes() == NOISE
    assert seen == sorted(seen)
    done, total = seen[-1]
    assert total is not None
    assert 0 < done <= total


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
@pytest.mark.parametrize("suffix", [".{:02}", ".part{}"])
def test_archives_that_were_cut_are_put_together(tmp_path: Path, name: str, suffix: str) -> None:
    parts = cut(make(tmp_path / name), 4, suffix)
    unpack(parts, tmp_path / "out", name)
    assert files_below(tmp_path / "out") == BELOW
    assert (tmp_path / "out/corpus/a/1.wav").read_bytes() == NOISE


@pytest.mark.parametrize("is_64_bit", [False, True])
@pytest.mark.parametrize("part_bytes", [200, 1000, 8999, 9000])
def test_split_zip_archives_are_read_as_they_are(
    tmp_path: Path, part_bytes: int, is_64_bit: bool
) -> None:
    parts = split_zip(make(tmp_path / "a.zip"), part_bytes, is_64_bit=is_64_bit)
    assert len(parts) > 1
    unpack(parts, tmp_path / "out", "a.zip")
    assert files_below(tmp_path / "out") == BELOW
    assert (tmp_path / "out/corpus/a/1.wav").read_bytes() == NOISE
    assert (tmp_path / "out/corpus/b/2.wav").read_bytes() == b"two"


@pytest.mark.skipif(shutil.which("zip") is None, reason="needs Info-ZIP's zip")
def test_what_info_zip_splits_is_read(tmp_path: Path) -> None:
    for number in range(5):
        content = random.Random(number).randbytes(60_000)
        (tmp_path / f"{number}.wav").write_bytes(content)
    command = ["zip", "-q", "-s", "64k", "a.zip", *(f"{number}.wav" for number in range(5))]
    subprocess.run(command, cwd=tmp_path, check=True)
    parts = [*sorted(tmp_path.glob("a.z[0-9]*")), tmp_path / "a.zip"]
    assert len(parts) == 5
    unpack(parts, tmp_path / "out", "a.zip")
    for number in range(5):
        content = (tmp_path / "out" / f"{number}.wav").read_bytes()
        assert content == (tmp_path / f"{number}.wav").read_bytes()


def test_what_is_there_is_replaced_and_other_files_stay(tmp_path: Path) -> None:
    (tmp_path / "corpus/a").mkdir(parents=True)
    (tmp_path / "corpus/a/1.wav").write_bytes(b"old")
    (tmp_path / "corpus/a/mine.txt").write_bytes(b"mine")
    unpack([make(tmp_path / "a.zip")], tmp_path, "a.zip")
    assert (tmp_path / "corpus/a/1.wav").read_bytes() == NOISE
    assert (tmp_path / "corpus/a/mine.txt").read_bytes() == b"mine"


def test_names_with_backslashes_are_paths(tmp_path: Path) -> None:
    unpack([make_tar(tmp_path / "a.tar", {"a\\b.wav": b"x"})], tmp_path / "out", "a.tar")
    assert files_below(tmp_path / "out") == ["a", "a/b.wav"]


@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=6),
    reads=st.lists(st.tuples(st.integers(0, 250), st.integers(-1, 250)), max_size=8),
)
def test_joined_files_read_like_one(lengths: list[int], reads: list[tuple[int, int]]) -> None:
    pieces = [NOISE[40 * number :][:length] for number, length in enumerate(lengths)]
    # What lies behind the end of a segment must never be seen.
    segments = [Segment(io.BytesIO(piece + b"more"), len(piece)) for piece in pieces]
    joined, whole = io.BufferedReader(JoinedFile(segments), 16), io.BytesIO(b"".join(pieces))
    assert joined.read() == whole.read()
    for offset, count in reads:
        assert joined.seek(offset) == whole.seek(offset)
        assert joined.read(count) == whole.read(count)
    assert joined.seek(0, io.SEEK_END) == sum(lengths)


# ------------------------------------------------------------------ what is wrong


@pytest.mark.parametrize("name", ["a.zip", "a.tar"])
@pytest.mark.parametrize("entry", ["../evil", "/evil", "a/../../evil", "..\\evil", "C:\\evil"])
def test_nothing_is_written_outside_of_the_folder(tmp_path: Path, name: str, entry: str) -> None:
    files = {"good.wav": b"good", entry: b"evil"}
    out = tmp_path / "in" / "here"
    with pytest.raises(DataError, match=rf"{name}: refused.*outside of its folder"):
        unpack([make(tmp_path / name, files)], out, name)
    assert files_below(tmp_path / "in") == ["here"]
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_tar_archives_are_refused(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as made:
        entry = tarfile.TarInfo("link")
        entry.type, entry.linkname = kind, "/etc/passwd"
        made.addfile(entry)
    with pytest.raises(DataError, match=r"'link' in it is a link or a device"):
        unpack([tmp_path / "a.tar"], tmp_path / "out", "a.tar")
    assert files_below(tmp_path / "out") == []


def test_links_in_zip_archives_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        entry = zipfile.ZipInfo("link")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        made.writestr(entry, "/etc/passwd")
    with pytest.raises(DataError, match=r"'link' in it is a link or a device"):
        unpack([tmp_path / "a.zip"], tmp_path / "out", "a.zip")
    assert files_below(tmp_path / "out") == []


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tar.bz2", "a.tar.xz"])
@pytest.mark.parametrize("damage", ["cut short", "empty", "a web page"])
def test_damaged_archives_leave_nothing(tmp_path: Path, name: str, damage: str) -> None:
    path = make(tmp_path / name)
    content = path.read_bytes()
    damaged = {"cut short": content[:5000], "empty": b"", "a web page": b"<html>log in</html>" * 99}
    path.write_bytes(damaged[damage])
    with pytest.raises(DataError, match=f"{name}: .*fetch it again"):
        unpack([path], tmp_path / "out", name)
    assert files_below(tmp_path / "out") == []


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    path = make(tmp_path / "a.zip")
    content = bytearray(path.read_bytes())
    content[4000] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        unpack([path], tmp_path / "out", "a.zip")


def test_a_missing_part_of_a_split_archive_is_counted(tmp_path: Path) -> None:
    parts = split_zip(make(tmp_path / "a.zip"), 3000)
    assert len(parts) == 4
    with pytest.raises(DataError, match="an archive in 4 parts, but there are 3"):
        unpack([parts[0], *parts[2:]], tmp_path / "out", "a.zip")


@pytest.mark.parametrize("part", [2, 9])
def test_a_split_archive_with_a_damaged_end_is_refused(tmp_path: Path, part: int) -> None:
    parts = split_zip(make(tmp_path / "a.zip"), 3000, is_64_bit=True)
    content = bytearray(parts[-1].read_bytes())
    content[-42 + 4] = part  # in which part the record with 64-bit numbers lies
    parts[-1].write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        unpack(parts, tmp_path / "out", "a.zip")


def test_parts_in_the_wrong_order_are_refused(tmp_path: Path) -> None:
    parts = split_zip(make(tmp_path / "a.zip"), 3000)
    with pytest.raises(DataError, match="not the last part"):
        unpack([parts[0], parts[3], parts[1], parts[2]], tmp_path / "out", "a.zip")
    with pytest.raises(DataError, match="damaged"):
        unpack([parts[0], parts[2], parts[1], parts[3]], tmp_path / "out", "a.zip")


def test_a_password_is_said(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"x.wav": b"x"})
    content = bytearray(path.read_bytes())
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"cannot be unpacked here.*encrypted.*yourself"):
        unpack([path], tmp_path / "out", "a.zip")


def test_a_disk_without_room_is_seen_before_a_zip_archive_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(tmp_path / "a.zip")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 9005))
    with pytest.raises(DataError, match=r"needs 9\.0 kB unpacked, but only 9\.0 kB are free"):
        unpack([path], tmp_path / "out", "a.zip")
    assert files_below(tmp_path / "out") == []


def test_stopped_in_the_middle_nothing_stays(tmp_path: Path) -> None:
    def stop(done: int, total: int | None) -> None:
        raise Cancelled("stop")

    with pytest.raises(Cancelled):
        unpack([make(tmp_path / "a.zip")], tmp_path / "out", "a.zip", stop)
    assert files_below(tmp_path / "out") == []


def test_what_a_killed_run_has_left_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / "out" / ".a.zip.partial" / "half").mkdir(parents=True)
    unpack([make(tmp_path / "a.zip")], tmp_path / "out", "a.zip")
    assert files_below(tmp_path / "out") == BELOW


# ------------------------------------------------------------------ parts and notes


def test_parts_are_put_to_their_archive() -> None:
    names = [
        "a.z02",
        "a.zip",
        "b.csv",
        "a.z01",
        "c.tar.gz.10",
        "c.tar.gz.9",
        "d.tar.gz",
        "e.tar.ab",
    ]
    packages = packages_of([archive(name, "sub") for name in names])
    assert {package.name: [part.name for part in package.parts] for package in packages} == {
        "a.zip": ["a.z01", "a.z02", "a.zip"],
        "b.csv": ["b.csv"],
        "c.tar.gz": ["c.tar.gz.9", "c.tar.gz.10"],
        "d.tar.gz": ["d.tar.gz"],
        "e.tar": ["e.tar.ab"],
    }
    assert [package.is_archive for package in packages] == [True, False, True, True, True]
    assert {package.folder for package in packages} == {"sub"}


def test_an_archive_counts_as_unpacked_when_it_is_the_same(tmp_path: Path) -> None:
    (package,) = packages_of([archive("a.zip")])
    assert not is_unpacked(tmp_path, package)
    note_unpacked(tmp_path, package)
    assert is_unpacked(tmp_path, package)
    (newer,) = packages_of([Archive(package.parts[0].url, 11)])
    assert not is_unpacked(tmp_path, newer)
    next((tmp_path / "unbraid-archives").iterdir()).write_text("half a no")
    assert not is_unpacked(tmp_path, package)
