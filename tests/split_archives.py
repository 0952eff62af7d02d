"""Archives for tests: small ones of every kind, and zip archives split as ``zip -s`` does it."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

_ENTRY = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR_64 = struct.Struct("<4sLQL")


def make_zip(path: Path, files: Mapping[str, bytes]) -> Path:
    """A zip archive with these files; a name that ends with ``/`` is a folder."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def make_tar(path: Path, files: Mapping[str, bytes]) -> Path:
    """A tar archive with these files, compressed as its name says."""
    kind = path.suffix.removeprefix(".")
    with tarfile.open(path, f"w:{'' if kind == 'tar' else kind}") as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            entry = tarfile.TarInfo(name.rstrip("/"))
            if name.endswith("/"):
                entry.type = tarfile.DIRTYPE
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def cut(path: Path, num_parts: int, suffix: str = ".{:02}") -> list[Path]:
    """Cut a file into parts that only have to be put together again; the whole goes away."""
    content = path.read_bytes()
    size = -(-len(content) // num_parts)
    parts = []
    for number in range(num_parts):
        parts.append(path.with_name(path.name + suffix.format(number)))
        parts[-1].write_bytes(content[number * size : (number + 1) * size])
    path.unlink()
    return parts


def split_zip(path: Path, part_bytes: int, *, is_64_bit: bool = False) -> list[Path]:
    """Split a zip archive into ``.z01``, ``.z02``, … and ``.zip`` of about that many bytes.

    The first part begins with a mark, the table of contents says in which part and where in it
    an entry begins, and no entry's header lies in two parts. Archives beyond 4 GB have numbers
    of 64 bits, in places of their own; so may others.
    """
    whole = path.read_bytes()
    num_entries, contents_bytes, contents_start = _END.unpack(whole[-_END.size :])[4:7]
    entries = _entries(whole[contents_start : contents_start + contents_bytes], num_entries)
    parts = [bytearray(b"PK\x07\x08")]
    places = []
    starts = [fields[16] for fields, _ in entries]
    for start, end in zip(starts, [*starts[1:], contents_start], strict=True):
        header_bytes = 30 + sum(struct.unpack_from("<2H", whole, start + 26))
        if len(parts[-1]) + header_bytes > part_bytes:
            parts.append(bytearray())
        places.append((len(parts) - 1, len(parts[-1])))
        parts[-1] += whole[start : start + header_bytes]
        rest = whole[start + header_bytes : end]
        while rest:
            if len(parts[-1]) >= part_bytes:
                parts.append(bytearray())
            room = part_bytes - len(parts[-1])
            parts[-1] += rest[:room]
            rest = rest[room:]
    last, start = len(parts) - 1, len(parts[-1])
    contents = b"".join(
        _placed(fields, names, part, place, is_64_bit)
        for (fields, names), (part, place) in zip(entries, places, strict=True)
    )
    parts[-1] += contents
    numbers = [last, last, num_entries, num_entries, len(contents), start]
    if is_64_bit:
        end_start = len(parts[-1])
        parts[-1] += _END_64.pack(b"PK\x06\x06", _END_64.size - 12, 45, 45, *numbers)
        parts[-1] += _LOCATOR_64.pack(b"PK\x06\x07", last, end_start, last + 1)
        numbers = [last, last, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF]
    parts[-1] += _END.pack(b"PK\x05\x06", *numbers, 0)
    paths = [path.with_suffix(f".z{number:02}") for number in range(1, len(parts))] + [path]
    for place, content in zip(paths, parts, strict=True):
        place.write_bytes(content)
    return paths


def _placed(fields: tuple[int, ...], name: bytes, part: int, place: int, is_64_bit: bool) -> bytes:
    """An entry of the table of contents that says where its file is."""
    if not is_64_bit:
        return _ENTRY.pack(*fields[:13], part, *fields[14:16], place) + name
    # Something else that an extra field may hold comes first.
    extra = struct.pack("<2HL", 0x7875, 4, 7)
    extra += struct.pack("<2H3QL", 1, 28, fields[9], fields[8], place, part)
    large = 0xFFFFFFFF
    head = (*fields[:8], large, large, len(name), len(extra), 0, 0xFFFF, *fields[14:16], large)
    return _ENTRY.pack(*head) + name + extra


def _entries(contents: bytes, count: int) -> list[tuple[tuple[int, ...], bytes]]:
    """The entries of a table of contents: fixed fields, and names."""
    entries = []
    position = 0
    for _ in range(count):
        fields = _ENTRY.unpack_from(contents, position)
        position += _ENTRY.size
        end = position + sum(fields[10:13])
        entries.append((fields, contents[position:end]))
        position = end
    return entries
