"""``unbraid data``: published corpora, how to get them, and how to make them ready for use."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unbraid.cli.console import print_rows, reports_errors

if TYPE_CHECKING:
    from unbraid.apps.prepare_corpus import Contents, PreparedCorpus, Share
    from unbraid.data.corpora.base import Archive, Corpus

data = typer.Typer(help="Get corpora and make them ready for use.", no_args_is_help=True)

#: Beyond that many rows, kinds of one category are added up.
_MOST_ROWS = 24


@data.command("list")
@reports_errors
def list_all(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the corpora that unbraid knows, with their licences."""
    from unbraid.data.corpora import corpora

    known = list(corpora().values())
    if as_json:
        print(json.dumps([_plain(corpus) for corpus in known], indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "--download", "contents", box=None)
    for corpus in known:
        size = _total(corpus.archives) if corpus.archives else "by hand"
        # Two columns of sentences beside each other would be too narrow to read.
        table.add_row(corpus.name, size, f"{corpus.contents}\nlicence: {corpus.licence}")
    Console(markup=False, highlight=False).print(table)


@data.command("info")
@reports_errors
def info(
    name: Annotated[str, typer.Argument(help="A corpus; `unbraid data list` names them.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Show what a corpus holds, how to get it, and how its folder should look."""
    from unbraid.data.corpora import find_corpus

    corpus = find_corpus(name)
    if as_json:
        print(json.dumps(_plain(corpus), indent=2))
        return
    rows = {
        "name": corpus.name,
        "title": corpus.title,
        "contents": corpus.contents,
        "licence": corpus.licence,
        "home": corpus.url,
        "to mix from": "yes" if corpus.recordings else "no",
        "mixtures": "yes" if corpus.mixtures else "no",
    }
    print_rows(rows)
    print(f"\nHow to get it\n\n{corpus.how_to_get}")
    print(f"\nWhat its folder holds\n\n{corpus.layout}")
    if corpus.archives:
        print("\nWhat --download fetches\n")
        _print_archives(corpus.archives)


@data.command("prepare")
@reports_errors
def prepare(
    name: Annotated[str, typer.Argument(help="A corpus; `unbraid data list` names them.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where it lies, or shall.")],
    download: Annotated[
        bool, typer.Option("--download", help="Fetch and unpack what is missing first.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Fetch without asking.")] = False,
    keep_archives: Annotated[
        bool, typer.Option("--keep-archives", help="Keep archives when they are unpacked.")
    ] = False,
    only: Annotated[
        str | None,
        typer.Option(
            metavar="WHAT",
            help="List `recordings` (to mix from) or `mixtures` (to measure on) only.",
            show_default="all that the corpus has",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="DIR", help="Where the lists go.", show_default="the same folder"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Check a corpus and list what it holds, for training and for measuring.

    Writes unbraid-manifest.csv (recordings to mix from) and unbraid-mixtures.jsonl (ready-made
    mixtures with their sources), whichever the corpus has.
    """
    from unbraid.apps.prepare_corpus import prepare_corpus
    from unbraid.cli.work_bar import WorkBar

    contents = _contents(only)
    if download:
        _agree(name, folder, without_asking=yes, to_stderr=as_json)
    try:
        with WorkBar() as bar:
            done = prepare_corpus(
                name,
                folder,
                download=download,
                keep_archives=keep_archives,
                contents=contents,
                out_dir=out,
                progress=bar.update,
            )
    except KeyboardInterrupt:
        if not download:
            raise
        # Unlike everywhere else, something half-done stays.
        print("interrupted; what was fetched is kept for the next time.", file=sys.stderr)
        raise typer.Exit(130) from None
    if as_json:
        print(json.dumps(_record(done), indent=2))
        return
    for what, path, shares in (
        ("recordings", done.manifest, done.recording_shares),
        ("mixtures", done.mixtures, done.mixture_shares),
    ):
        if path is not None:
            _print_shares(what, shares)
            print(f"written to {path}\n")
    print(f"licence: {done.corpus.licence}")


@data.command("pack")
@reports_errors
def pack(
    manifest: Annotated[Path, typer.Argument(help="A manifest; `unbraid data prepare` makes one.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Where the shards go.")],
    sample_rate: Annotated[
        int | None,
        typer.Option(
            metavar="HZ",
            help="Rate of all recordings; take that of the model.",
            show_default="each keeps its own",
        ),
    ] = None,
    shard_mb: Annotated[
        int, typer.Option(metavar="MIB", help="Size from which on a new shard is begun.")
    ] = 512,
    storage: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="`flac`, or `int16` for plain WAV.")
    ] = "flac",
    max_unreadable: Annotated[
        float,
        typer.Option(metavar="SHARE", help="How many of the recordings may be unreadable."),
    ] = 0.01,
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", help="Processes that decode and encode.")
    ] = 1,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare all that was written with its digests.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Pack a corpus into shards that training reads at random, from a disk or over the network.

    A run that was stopped goes on where it was; one that is complete is left as it is.
    """
    from unbraid.apps.pack_corpus import PackSettings, pack_corpus, verify_packed
    from unbraid.cli.work_bar import WorkBar
    from unbraid.data.shards import EXTENSIONS
    from unbraid.downloads import size_in_words
    from unbraid.errors import ConfigError

    kind = next((each for each in EXTENSIONS if each == storage), None)
    if kind is None:
        raise ConfigError(f"--format {storage}: must be {' or '.join(EXTENSIONS)}.")
    settings = PackSettings(sample_rate, shard_mb, kind)
    with WorkBar() as bar:
        packed = pack_corpus(
            manifest,
            out,
            settings,
            max_unreadable=max_unreadable,
            jobs=jobs,
            progress=bar.update,
        )
        num_verified = verify_packed(out, bar.update) if verify else None
    if as_json:
        record = {
            "folder": str(packed.folder),
            "num_shards": packed.num_shards,
            "num_bytes": packed.num_bytes,
            "num_recordings": packed.num_recordings,
            "hours": packed.hours,
            "unreadable": list(packed.unreadable),
            "num_verified": num_verified,
        }
        print(json.dumps(record, indent=2))
        return
    print(
        f"{packed.num_recordings:,} recordings, {packed.hours:.2f} hours, in {packed.num_shards} "
        f"shards of {size_in_words(packed.num_bytes)} together: {packed.folder}"
    )
    if packed.unreadable:
        print(f"left out, since they cannot be read: {len(packed.unreadable)}")
    if num_verified is not None:
        print(f"verified: {num_verified:,} recordings are as they were written")


def _contents(only: str | None) -> Contents:
    from unbraid.errors import ConfigError

    choices: dict[str | None, Contents] = {
        None: "all",
        "recordings": "recordings",
        "mixtures": "mixtures",
    }
    if only not in choices:
        raise ConfigError(f"--only {only}: must be recordings or mixtures.")
    return choices[only]


def _agree(name: str, folder: Path, *, without_asking: bool, to_stderr: bool) -> None:
    """Say what would be fetched under which licence, and go on only if that is wanted."""
    from unbraid.apps.prepare_corpus import missing_archives
    from unbraid.data.corpora import find_corpus
    from unbraid.errors import Cancelled, ConfigError

    missing = missing_archives(name, folder)
    if not missing:
        return
    corpus = find_corpus(name)
    if not without_asking and not _somebody_is_there():
        raise ConfigError(
            f"{corpus.title} ({_total(missing)}, {corpus.licence}): nobody is there to agree to "
            "fetch it; add --yes."
        )
    where = sys.stderr if to_stderr else sys.stdout
    print(f"{corpus.title}, from {corpus.url}", file=where)
    print(f"licence: {corpus.licence}\n", file=where)
    _print_archives(missing, to_stderr=to_stderr)
    print(file=where)
    if not without_asking and not typer.confirm(f"Fetch them into {folder}?", err=True):
        raise Cancelled("nothing was fetched.")


def _somebody_is_there() -> bool:
    return sys.stdin.isatty()


# ------------------------------------------------------------------ output


def _print_archives(archives: Sequence[Archive], *, to_stderr: bool = False) -> None:
    from rich.console import Console
    from rich.table import Table

    from unbraid.downloads import size_in_words

    table = Table(box=None, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column(overflow="fold")
    for archive in archives:
        size = "?" if archive.size_bytes is None else size_in_words(archive.size_bytes)
        table.add_row(archive.name, size, archive.url)
    table.add_row("together", _total(archives), "")
    Console(stderr=to_stderr, markup=False, highlight=False).print(table)


def _total(archives: Sequence[Archive]) -> str:
    """The size of archives together, as far as their publishers tell it."""
    from unbraid.downloads import size_in_words

    known = [archive.size_bytes for archive in archives if archive.size_bytes is not None]
    if not known:
        return "size unknown"
    return ("" if len(known) == len(archives) else "over ") + size_in_words(sum(known))


def _print_shares(what: str, shares: Sequence[Share]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("split", what, box=None)
    for column in ("count", "hours"):
        table.add_column(column, justify="right")
    for split, kind, count, hours in _rows(shares):
        table.add_row(split, kind, f"{count:,}", f"{hours:.2f}")
    count = sum(share.count for share in shares)
    table.add_row("all", "", f"{count:,}", f"{sum(share.hours for share in shares):.2f}")
    Console(markup=False, highlight=False).print(table)


def _rows(shares: Sequence[Share]) -> list[tuple[str, str, int, float]]:
    """One row for each share, or for each category where there are many."""
    rows: dict[tuple[str, str], tuple[int, float]] = {}
    for share in shares:
        category, slash, _ = share.kind.partition("/")
        is_summed = len(shares) > _MOST_ROWS and slash
        key = share.split, f"{category}/*" if is_summed else share.kind
        count, hours = rows.get(key, (0, 0.0))
        rows[key] = count + share.count, hours + share.hours
    return [(*key, *numbers) for key, numbers in rows.items()]


def _plain(corpus: Corpus) -> dict[str, Any]:
    return {
        "name": corpus.name,
        "title": corpus.title,
        "contents": corpus.contents,
        "licence": corpus.licence,
        "url": corpus.url,
        "how_to_get": corpus.how_to_get,
        "layout": corpus.layout,
        "has_recordings": corpus.recordings is not None,
        "has_mixtures": corpus.mixtures is not None,
        "archives": [
            {
                "name": archive.name,
                "url": archive.url,
                "size_bytes": archive.size_bytes,
                "digest": archive.digest,
                "folder": archive.folder,
            }
            for archive in corpus.archives
        ],
    }


def _record(done: PreparedCorpus) -> dict[str, Any]:
    def plain(shares: Sequence[Share]) -> list[dict[str, Any]]:
        return [
            {"split": row.split, "kind": row.kind, "count": row.count, "hours": row.hours}
            for row in shares
        ]

    return {
        "name": done.corpus.name,
        "licence": done.corpus.licence,
        "folder": str(done.folder),
        "manifest": None if done.manifest is None else str(done.manifest),
        "mixtures": None if done.mixtures is None else str(done.mixtures),
        "recording_shares": plain(done.recording_shares),
        "mixture_shares": plain(done.mixture_shares),
    }
