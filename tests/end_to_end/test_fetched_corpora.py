"""Every corpus that is free, in miniature: packed as its publisher packs it, fetched, unpacked.

What is listed then must be what is listed of a copy that never was in an archive.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import sound_miniatures
import speech_miniatures
import unbraid.data.corpora as registry
from command_line import unbraid
from file_server import FileServer, running_file_server
from split_archives import cut, make_tar, make_zip, split_zip
from unbraid import downloads
from unbraid.data.corpora import corpora, find_corpus
from unbraid.data.corpora.base import Archive

#: Corpus → how it is made, and from the name of an archive to the beginnings of paths in it.
FREE: dict[str, tuple[Callable[[Path], Path], Callable[[str], str]]] = {
    "demand": (sound_miniatures.make_demand, lambda name: name.removesuffix("_48k.zip") + "/"),
    "dnr-v2": (sound_miniatures.make_dnr_v2, lambda name: ""),
    "esc10": (sound_miniatures.make_esc50, lambda name: ""),
    "esc50": (sound_miniatures.make_esc50, lambda name: ""),
    "fma": (sound_miniatures.make_fma, lambda name: name.removesuffix(".zip") + "/"),
    "fsd50k": (sound_miniatures.make_fsd50k, lambda name: name.rpartition(".")[0] + "/"),
    "fuss": (sound_miniatures.make_fuss, lambda name: ""),
    "librispeech": (
        speech_miniatures.make_librispeech,
        lambda name: f"LibriSpeech/{name.removesuffix('.tar.gz')}/",
    ),
    "musdb18": (sound_miniatures.make_musdb18, lambda name: ""),
    "musdb18-hq": (sound_miniatures.make_musdb18_hq, lambda name: ""),
    "vctk": (speech_miniatures.make_vctk, lambda name: ""),
    "vctk-demand": (
        speech_miniatures.make_vctk_demand,
        lambda name: name.removesuffix(".zip") + "/",
    ),
    "wham": (speech_miniatures.make_wham_noise, lambda name: name.removesuffix(".zip") + "/"),
}


def test_every_free_corpus_is_tried() -> None:
    assert set(FREE) == {name for name, corpus in corpora().items() if corpus.archives}


def packed(folder: Path, first: str, count: int, files: dict[str, bytes]) -> list[Path]:
    """An archive, whole or in as many parts as its publisher cuts it into."""
    stem = first.partition(".tar.gz")[0] if ".tar" in first else Path(first).stem
    home = folder / stem
    home.mkdir(parents=True)
    if ".tar" in first:
        whole = make_tar(home / f"{stem}.tar.gz", files)
        return [whole] if count == 1 else cut(whole, count)
    whole = make_zip(home / f"{stem}.zip", files)
    if count == 1:
        return [whole]
    content = whole.read_bytes()
    for part_bytes in range(len(content), 100, -1):
        whole.write_bytes(content)
        parts = split_zip(whole, part_bytes)
        if len(parts) == count:
            return parts
    raise AssertionError(f"{first} cannot be split into {count} parts")


def serve(server: FileServer, name: str, whole: Path, work: Path) -> tuple[Archive, ...]:
    """Put the archives of a corpus on the server, and their files into ``work/direct``.

    Archives of parts that the miniature lacks are left out.
    """
    _, prefix_of = FREE[name]
    content = {
        path.relative_to(whole).as_posix(): path.read_bytes()
        for path in sorted(whole.rglob("*"))
        if path.is_file()
    }
    by_prefix: dict[str, list[Archive]] = {}
    for archive in find_corpus(name).archives:
        by_prefix.setdefault(prefix_of(archive.name), []).append(archive)
    served = []
    for prefix, archives in by_prefix.items():
        files = {path: data for path, data in content.items() if path.startswith(prefix)}
        if not files:
            continue
        parts = packed(work, archives[0].name, len(archives), files)
        for archive, part in zip(archives, parts, strict=True):
            data = part.read_bytes()
            kind = archive.digest.partition(":")[0]
            digest = f"{kind}:{hashlib.new(kind, data).hexdigest()}" if kind else ""
            url = server.serve(f"{name}/{archive.name}", data)
            size = None if archive.size_bytes is None else len(data)
            served.append(replace(archive, url=url, size_bytes=size, digest=digest))
        for path, data in files.items():
            (work / "direct" / path).parent.mkdir(parents=True, exist_ok=True)
            (work / "direct" / path).write_bytes(data)
    return tuple(served)


def lists_in(folder: Path) -> tuple[str, list[object]]:
    manifest, mixtures = folder / "unbraid-manifest.csv", folder / "unbraid-mixtures.jsonl"
    lines = mixtures.read_text().splitlines() if mixtures.exists() else []
    return (
        manifest.read_text() if manifest.exists() else "",
        [json.loads(line) for line in lines],
    )


@pytest.mark.parametrize("name", sorted(FREE))
def test_what_is_fetched_is_what_is_listed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(downloads, "_WAITS_S", (0.0, 0.0))
    whole = FREE[name][0](tmp_path / "whole")
    corpus = find_corpus(name)
    with running_file_server() as server:
        archives = serve(server, name, whole, tmp_path / "publisher")
        fetched = replace(corpus, archives=archives)
        monkeypatch.setattr(registry, "corpora", lambda: {name: fetched})
        # The connection breaks once; what came is not asked for again.
        server.files[f"{name}/{archives[-1].name}"].breaks = [40]
        outcome = unbraid("data", "prepare", name, tmp_path / "copy", "--download", "--yes")
        assert outcome.code == 0, outcome.stderr
    direct = tmp_path / "publisher" / "direct"
    assert unbraid("data", "prepare", name, direct).code == 0
    manifest, mixtures = lists_in(tmp_path / "copy")
    assert manifest or mixtures
    assert (manifest, mixtures) == lists_in(direct)
    assert not list((tmp_path / "copy").rglob("*.zip"))
