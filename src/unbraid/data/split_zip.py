"""Archives in several parts, read as one file.

Some are plainly cut and only have to be put together again. Split zip archives (``.z01``,
``.z02``, …, ``.zip``) also are their parts one after the other, but their table of contents
says where a file begins within its part. Here it is written anew, in memory, with places in
the whole.

Source: PKWARE, .ZIP File Format Specification (APPNOTE.TXT), version 6.3, sections 4.3 and 4.5.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from unbraid.errors import DataError

_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR_64 = struct.Struct("<4sLQL")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LONGEST_COMMENT = 2**16
_MOST_16, _MOST_32 = 2**16 - 1, 2**32 - 1
_VERSION_64 = 45
_LARGE_NUMBERS = 1


@dataclass(frozen=True)
class Segment:
    """The first ``num_bytes`` of a file."""

    file: io.BufferedIOBase
    num_bytes: int


class JoinedFile(io.RawIOBase):
    """Segments one after the other, as one file to read from."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self._segments = tuple(segments)
        self._position = 0
        self.num_bytes = sum(segment.num_bytes for segment in segments)

    def readable(self) -> bool:
        """It can be read."""
        return True

    def seekable(self) -> bool:
        """It can be read from anywhere."""
        return True

    def tell(self) -> int:
        """Where the next byte is read from."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Read on from somewhere else."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.num_bytes}[whence]
        if base + offset < 0:
            raise OSError(f"there is nothing at {base + offset}")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill a buffer, at most to the end of a segment."""
        start = self._position
        for segment in self._segments:
            if start < segment.num_bytes:
                segment.file.seek(start)
                block = segment.file.read(min(len(buffer), segment.num_bytes - start))
                buffer[: len(block)] = block
                self._position += len(block)
                return len(block)
            start -= segment.num_bytes
        return 0


def join_split_zip(parts: Sequence[Segment], name: str) -> JoinedFile:
    """The parts of a split zip archive as an archive in one piece.

    Args:
        parts: All parts in order, the ``.zip`` last.
        name: What to call it in errors.

    Raises:
        DataError: If the parts do not belong together, one is missing, or what says where
            everything is cannot be read.
    """
    starts = [sum(part.num_bytes for part in parts[:number]) for number in range(len(parts))]
    reader = io.BufferedReader(JoinedFile(parts))
    try:
        end = _find_end(reader, starts)
        if end is None:
            raise DataError(f"{name}: not the last part of a split zip archive; fetch it again.")
        if end.num_parts != len(parts):
            raise DataError(
                f"{name}: an archive in {end.num_parts} parts, but there are {len(parts)}; "
                "fetch all of them into one folder."
            )
        contents_start = starts[end.contents_part] + end.contents_start
        reader.seek(contents_start)
        table = _contents_in_whole(reader.read(end.contents_bytes), end.num_entries, starts)
    except (struct.error, IndexError) as error:
        raise DataError(f"{name}: its table of contents is damaged; fetch it again.") from error
    return JoinedFile(
        [*_first(parts, contents_start), _table(table, end.num_entries, contents_start)]
    )


@dataclass(frozen=True)
class _End:
    """What the end of an archive says about its table of contents."""

    num_parts: int
    contents_part: int
    num_entries: int
    contents_bytes: int
    contents_start: int


def _find_end(reader: io.BufferedIOBase, starts: Sequence[int]) -> _End | None:
    """Read the record at the end, and the one with 64-bit numbers where there is one."""
    num_bytes = reader.seek(0, io.SEEK_END)
    reader.seek(max(0, num_bytes - _END.size - _LOCATOR_64.size - _LONGEST_COMMENT))
    tail = reader.read()
    found = tail.rfind(b"PK\x05\x06")
    if not 0 <= found <= len(tail) - _END.size:
        return None
    part, contents_part, _, num_entries, size, start, comment = _END.unpack_from(tail, found)[1:]
    if found + _END.size + comment != len(tail):
        return None
    locator = tail[max(0, found - _LOCATOR_64.size) : found]
    if locator.startswith(b"PK\x06\x07"):
        _, end_part, end_start, _ = _LOCATOR_64.unpack(locator)
        reader.seek(starts[end_part] + end_start)
        fields = _END_64.unpack(reader.read(_END_64.size))
        _check_mark(fields[0], b"PK\x06\x06")
        part, contents_part, _, num_entries, size, start = fields[4:]
    return _End(part + 1, contents_part, num_entries, size, start)


def _contents_in_whole(contents: bytes, num_entries: int, starts: Sequence[int]) -> bytes:
    """The table of contents, with places in the whole instead of in parts."""
    table = bytearray()
    position = 0
    for _ in range(num_entries):
        fields = list(_ENTRY.unpack_from(contents, position))
        _check_mark(fields[0], b"PK\x01\x02")
        name_bytes, extra_bytes, comment_bytes, part = fields[10:14]
        position += _ENTRY.size
        name = contents[position : position + name_bytes]
        position += name_bytes
        extra, large = _without_large(contents[position : position + extra_bytes])
        position += extra_bytes + comment_bytes
        # The numbers that do not fit, in the order that the format prescribes.
        is_large = [fields[9] == _MOST_32, fields[8] == _MOST_32, fields[16] == _MOST_32]
        num_large = sum(is_large)
        numbers = list(struct.unpack_from(f"<{num_large}Q", large))
        if part == _MOST_16:
            (part,) = struct.unpack_from("<L", large, 8 * num_large)
        place = starts[part] + (numbers.pop() if is_large[2] else fields[16])
        if place >= _MOST_32:
            numbers.append(place)
        if numbers:
            extra += struct.pack(f"<2H{len(numbers)}Q", _LARGE_NUMBERS, 8 * len(numbers), *numbers)
        fields[10:14] = len(name), len(extra), 0, 0
        fields[16] = min(place, _MOST_32)
        table += _ENTRY.pack(*fields) + name + extra
    return bytes(table)


def _check_mark(found: bytes, expected: bytes) -> None:
    if found != expected:
        raise struct.error(f"{found!r} where {expected!r} should be")


def _without_large(extra: bytes) -> tuple[bytes, bytes]:
    """The extra field of an entry without its large numbers, and these."""
    kept, large = bytearray(), b""
    position = 0
    while position + 4 <= len(extra):
        kind, size = struct.unpack_from("<2H", extra, position)
        block = extra[position : position + 4 + size]
        position += 4 + size
        if kind == _LARGE_NUMBERS:
            large = block[4:]
        else:
            kept += block
    return bytes(kept), large


def _first(parts: Sequence[Segment], num_bytes: int) -> list[Segment]:
    """The first ``num_bytes`` of all parts together."""
    kept = []
    for part in parts:
        kept.append(Segment(part.file, min(part.num_bytes, num_bytes)))
        num_bytes -= kept[-1].num_bytes
    return kept


def _table(contents: bytes, num_entries: int, start: int) -> Segment:
    """A table of contents that lies at ``start``, and what closes an archive of any size."""
    end = (
        _END_64.pack(
            b"PK\x06\x06",
            _END_64.size - 12,
            _VERSION_64,
            _VERSION_64,
            0,
            0,
            num_entries,
            num_entries,
            len(contents),
            start,
        )
        + _LOCATOR_64.pack(b"PK\x06\x07", 0, start + len(contents), 1)
        + _END.pack(b"PK\x05\x06", 0, 0, _MOST_16, _MOST_16, _MOST_32, _MOST_32, 0)
    )
    return Segment(io.BytesIO(contents + end), len(contents) + len(end))
