"""What to separate: a list of recordings, as CSV or as text."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath

from unbraid.apps.recordings import same_for_all_systems
from unbraid.cluster import stores
from unbraid.errors import ConfigError, DataError, in_brief

_COLUMNS = ("path", "prompts", "name")
_OTHER_SEPARATORS = {";": "';'", "\t": "a tab"}


@dataclass(frozen=True)
class Entry:
    """A recording to separate.

    Attributes:
        path: Where it is: a path or an address.
        track: What its results are called, as in ``apps.recordings.RecordingFile``.
        prompts: What to separate it into; empty for what the run asks for.
    """

    path: str
    track: PurePath
    prompts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shard:
    """Every so-many-th row of a manifest.

    Which rows belong together depends on the manifest alone, and rows that are added at its end
    move no other.

    Attributes:
        number: Which one, from 1.
        count: How many there are.

    Raises:
        ConfigError: If there is no such shard.
    """

    number: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise ConfigError(
                f"--shard {self.number}/{self.count}: must be from 1/{max(self.count, 1)} to "
                f"{max(self.count, 1)}/{max(self.count, 1)}."
            )

    def of(self, entries: Sequence[Entry]) -> tuple[Entry, ...]:
        """The rows of this shard, in order."""
        return tuple(entries[self.number - 1 :: self.count])


def parse_shard(text: str) -> Shard:
    """A shard from ``K/N``.

    >>> parse_shard("2/8")
    Shard(number=2, count=8)

    Raises:
        ConfigError: If this is none.
    """
    number, slash, count = text.partition("/")
    if not (slash and number.strip().isdecimal() and count.strip().isdecimal()):
        raise ConfigError(f"--shard {text}: must be K/N, for example 3/64.")
    return Shard(int(number), int(count))


def read_entries(
    manifest: str, root: str | None, place_of: Callable[[PurePath], Path]
) -> tuple[Entry, ...]:
    """Read a manifest.

    ``.csv`` has a column ``path`` and may have ``prompts`` (names with commas between them) and
    ``name``; other columns are left alone. Anything else is a list, one path a line.

    A recording without a name is called after its place below the root, without its extension;
    one that lies elsewhere after its file. Of an address of the web the path counts, decoded.

    Args:
        manifest: A path or an address.
        root: The folder, or the address, that paths are relative to; None for the manifest's.
        place_of: Where the results of a recording with this name go.

    Raises:
        DataError: If the manifest cannot be read, has no rows, has one that makes no sense, or
            two that would write to the same place.
        DownloadError, MissingExtra: As ``stores.read``.
    """
    text = _text_of(manifest)
    if not text.strip():
        raise DataError(f"{manifest}: the manifest is empty; write one recording a line.")
    if root is None:
        root = _parent(manifest)
    is_table = stores.without_query(manifest).lower().endswith(".csv")
    rows = _rows_of_table(manifest, text) if is_table else _rows_of_list(text)
    entries: list[Entry] = []
    taken: dict[str, int] = {}
    for number, path, prompts, name in rows:
        if not path:
            raise DataError(f"{manifest}, line {number}: there is no path.")
        path, place_below = _placed(path, root)
        track = _without_extension(place_below)
        if name:
            track = PurePosixPath(name)
            if track.is_absolute() or ".." in track.parts or not track.parts:
                raise DataError(
                    f"{manifest}, line {number}: the name {name!r} must stay inside the output "
                    "folder; leave out '..' and a '/' at its beginning."
                )
        if track.name in ("", ".."):
            raise DataError(
                f"{manifest}, line {number}: {path} ends in no file name; give the recording one "
                "in a column 'name'."
            )
        place = same_for_all_systems(place_of(track))
        if place in taken:
            raise DataError(
                f"{manifest}, line {number}: would write to the same stems as line "
                f"{taken[place]} ({track}); give them names of their own in a column 'name', "
                "choose the folder above them all with --root, or put {track} into --filename."
            )
        taken[place] = number
        entries.append(Entry(path, track, prompts))
    if not entries:
        raise DataError(f"{manifest}: the manifest has no rows.")
    return tuple(entries)


_Row = tuple[int, str, tuple[str, ...], str]


def _rows_of_table(manifest: str, text: str) -> Iterator[_Row]:
    reader = csv.DictReader(text.splitlines(keepends=True), restval="")
    columns = reader.fieldnames or ()
    for separator, name in _OTHER_SEPARATORS.items():
        # Spreadsheets write them where a comma stands in numbers.
        if len(columns) == 1 and separator in columns[0]:
            raise DataError(
                f"{manifest}: {name} stands between its columns; save it with commas there."
            )
    for column in columns:
        # Other columns are somebody else's, but these are slips.
        near = difflib.get_close_matches(column.strip().lower(), _COLUMNS, 1, cutoff=0.8)
        if near and column not in _COLUMNS:
            raise DataError(f"{manifest}: unknown column {column!r}; did you mean {near[0]!r}?")
    if "path" not in columns:
        raise DataError(
            f"{manifest}: the manifest lacks the column 'path'; it has {in_brief(columns)}."
        )
    for row in reader:
        prompts = tuple(each.strip() for each in (row.get("prompts") or "").split(","))
        yield (
            reader.line_num,
            row["path"].strip(),
            tuple(each for each in prompts if each),
            (row.get("name") or "").strip(),
        )


def _rows_of_list(text: str) -> Iterator[_Row]:
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield number, line.strip(), (), ""


def _text_of(manifest: str) -> str:
    if stores.is_address(manifest):
        content = stores.read(manifest)
        if content is None:
            raise DataError(f"{manifest}: there is no such manifest.")
    else:
        try:
            content = Path(manifest).read_bytes()
        except OSError as error:
            raise DataError(
                f"{manifest}: the manifest cannot be read ({error.strerror})."
            ) from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{manifest}: the manifest is not text in UTF-8.") from error


def _parent(manifest: str) -> str:
    if stores.is_address(manifest):
        return stores.without_query(manifest).rpartition("/")[0]
    return str(Path(manifest).absolute().parent)


def _placed(path: str, root: str) -> tuple[str, PurePath]:
    """Where a recording is, and what its file is called below the root."""
    if stores.is_address(path) or (stores.is_address(root) and not path.startswith("/")):
        if not stores.is_address(path):
            path = f"{root.rstrip('/')}/{path}"
        return path, stores.name_below(path, root)
    place = Path(path).expanduser()
    folder = Path(root).expanduser().absolute()
    place = place if place.is_absolute() else folder / place
    inside = place.is_relative_to(folder) and ".." not in place.relative_to(folder).parts
    return str(place), place.relative_to(folder) if inside else PurePath(place.name)


def _without_extension(path: PurePath) -> PurePath:
    # "..wav" without its extension would be a folder.
    return path if path.stem in ("", ".", "..") else path.with_name(path.stem)
