"""Files with damaged headers: each is read or refused, in bounded time and memory.

A process of its own reads them, so that a crash, a hang, a leak or a line that a library
prints to the terminal is noticed and named by its seed. ``mutated`` with the same content
and seed gives the same bytes again.
"""

from __future__ import annotations

import random
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from media_samples import SMALL_FILES
from reading_worker import Reader

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

FEW, MANY = 40, 1000
MOST_GROWTH_MIB = 300
MOST_LEAK_MIB = 100

EXTREMES = [0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000]
EXTREMES += [0xFFFFFFFE, 0xFFFFFFFF, 2**40, 2**63 - 1, 2**63, 2**64 - 1]
# Names of chunks, boxes and elements; the fields that matter stand right behind or before.
MARKS = re.compile(
    rb"RIFF|RF64|riff|ds64|WAVE|fmt |data|fact|FORM|AIFF|COMM|SSND|fLaC|OggS|vorbis|OpusHead"
    rb"|ID3|Xing|Info|LAME|\xff[\xe2-\xff]|ftyp|moov|mvhd|trak|tkhd|edts|elst|mdia|mdhd|hdlr|minf"
    rb"|stbl|stsd|mp4a|esds|in24|wave|stts|stsc|stsz|stco|co64|udta|meta|mdat"
    rb"|\x1a\x45\xdf\xa3|\x18\x53\x80\x67|\x15\x49\xa9\x66|\x16\x54\xae\x6b|\x1f\x43\xb6\x75"
    rb"|\x1c\x53\xbb\x6b|\x2a\xd7\xb1|\x44\x89|\xae|\xd7|\x83|\x86|\x63\xa2|\xe1|\xb5|\x9f|\x62\x64"
    rb"|\xe7|\xa3|\xa1|\x56\xaa|\x75\xa2"
)


def mutated(content: bytes, seed: int) -> bytes:
    """Damage a file, mostly where its headers are."""
    rng = random.Random(seed)
    damaged = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 3, 8])):
        at = _somewhere(damaged, rng)
        match rng.choice(["flip", "set", "set", "extreme", "extreme", "cut", "in", "out", "swap"]):
            case "flip":
                damaged[at] ^= 1 << rng.randrange(8)
            case "set":
                damaged[at] = rng.randrange(256)
            case "extreme":
                size = rng.choice([1, 2, 3, 4, 4, 4, 8])
                value = rng.choice(EXTREMES) % 2 ** (8 * size)
                damaged[at : at + size] = value.to_bytes(size, rng.choice(["big", "little"]))
            case "cut":
                del damaged[max(at, 1) :]
            case "in":
                damaged[at:at] = rng.randbytes(rng.choice([1, 2, 4, 16, 300]))
            case "out":
                del damaged[at : at + rng.choice([1, 2, 4, 16, 300])]
            case "swap":
                other = _somewhere(damaged, rng)
                size = rng.choice([4, 8, 24])
                one, two = damaged[at : at + size], damaged[other : other + size]
                damaged[at : at + size], damaged[other : other + size] = two, one
        if not damaged:
            damaged += b"\0"
    return bytes(damaged)


def _somewhere(content: bytearray, rng: random.Random) -> int:
    """A place in the file; three times out of four near a mark."""
    marks = [found.start() for found in MARKS.finditer(content)]
    # There are many more marks of frames than of headers.
    marks = marks[:40] + marks[-20:]
    if marks and rng.random() < 0.75:
        at = rng.choice(marks) + rng.randrange(-8, 32)
    else:
        at = rng.choice([rng.randrange(256), rng.randrange(len(content))])
    return min(max(at, 0), len(content) - 1)


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    reader = Reader()
    yield reader
    reader.close()


def fuzz(reader: Reader, folder: Path, name: str, num_files: int) -> str:
    """Read damaged files; return a line of figures.

    Raises:
        AssertionError: With seeds, if a file did anything but be read or be refused.
    """
    whole = SMALL_FILES[name](folder)
    before = reader.read(whole)
    assert "read" in before, before
    content = whole.read_bytes()
    damaged = whole.with_stem("damaged")
    faults, answers, longest_s = [], [before], 0.0
    begin = time.monotonic()
    for seed in range(num_files):
        damaged.write_bytes(mutated(content, seed))
        start = time.monotonic()
        answer = reader.read(damaged)
        longest_s = max(longest_s, time.monotonic() - start)
        if "fault" in answer:
            faults.append(f"{name}, seed {seed}: {answer['fault']}")
        elif answer["peak"] - before["now"] > MOST_GROWTH_MIB:
            faults.append(f"{name}, seed {seed}: took up to {answer['peak']} MiB")
            before = reader.read(whole)
        answers.append(answer)
    after = reader.read(whole)
    # A worker that was started anew has nothing to be compared with.
    if not faults:
        assert after["files"] == before["files"], "files were left open"
        assert after["now"] - before["now"] < MOST_LEAK_MIB, "memory was left taken"
    assert not faults, "\n".join(faults)
    num_read = sum("read" in answer for answer in answers[1:])
    return (
        f"{name:5} {num_read} read, {num_files - num_read} refused, "
        f"{time.monotonic() - begin:.1f} s, longest {longest_s:.2f} s, "
        f"memory {before['now']} -> {after['now']} MiB, peak {after['peak']} MiB"
    )


@pytest.mark.parametrize("name", SMALL_FILES)
def test_damaged_headers(reader: Reader, tmp_path: Path, name: str) -> None:
    fuzz(reader, tmp_path, name, FEW)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL_FILES)
def test_many_damaged_headers(reader: Reader, tmp_path: Path, name: str) -> None:
    print(fuzz(reader, tmp_path, name, MANY))
