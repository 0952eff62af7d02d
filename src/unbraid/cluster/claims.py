"""Who is at which recording, where results go into a store that has no locks.

A claim is a small file ``.unbraid-KEY.claim-0`` beside the results. Whoever creates it, and only
one can, has the recording. He changes it every few seconds while he lives. A claim that has not
changed for a while, or whose owner is known to be dead, is taken over by creating
``.unbraid-KEY.claim-1``, which again only one can; so nobody ever removes the claim of another.
Who was taken for dead and is not sees the higher number, and puts nothing into the store.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from unbraid.cluster import stores
from unbraid.errors import UnbraidError

_BEAT_S = 20.0
_PATIENCE_S = 120.0


class Claims:
    """The claims of one worker in one store.

    Args:
        root: The address of the folder of results.
        owner: What tells this worker from all others, ever.
        beat_s: How often it shows that it lives.
        patience_s: After how long without a sign others count as dead.
    """

    def __init__(
        self, root: str, owner: str, *, beat_s: float = _BEAT_S, patience_s: float = _PATIENCE_S
    ) -> None:
        self._root = root.rstrip("/")
        self._owner = owner
        self._beat_s = beat_s
        self._patience_s = patience_s
        # Clocks of machines differ, so what counts is how long a claim was seen to stay the same.
        self._seen: dict[str, tuple[bytes, float]] = {}

    @contextmanager
    def claim(self, results: str, dead: Collection[str] = ()) -> Iterator[Claim | None]:
        """Have a recording to oneself until the block ends.

        Args:
            results: What tells its results from others.
            dead: Owners that are known to be dead.

        Yields:
            The claim; None if somebody living has the recording.

        Raises:
            AudioError, DownloadError: If the store cannot be written or read.
        """
        stem = f"{self._root}/.unbraid-{hashlib.sha256(results.encode()).hexdigest()[:16]}.claim"
        number, last = 0, None
        while (content := stores.read(f"{stem}-{number}")) is not None:
            number, last = number + 1, content
        is_free = last is None or self._is_of_dead(f"{stem}-{number - 1}", last, dead)
        if not is_free or not stores.create(self._content(0), f"{stem}-{number}"):
            yield None
            return
        claim = Claim(stem, number)
        stop = threading.Event()
        beating = threading.Thread(target=self._beat, args=(f"{stem}-{number}", stop), daemon=True)
        beating.start()
        try:
            yield claim
        finally:
            stop.set()
            beating.join()
            if claim.is_held:
                for each in range(number + 1):
                    stores.remove(f"{stem}-{each}")

    def _content(self, beat: int) -> bytes:
        return json.dumps({"owner": self._owner, "beat": beat}).encode()

    def _beat(self, address: str, stop: threading.Event) -> None:
        beat = 0
        while not stop.wait(self._beat_s):
            beat += 1
            try:
                stores.write(self._content(beat), address)
            except UnbraidError:
                continue  # a store that hesitates; the next beat may get through

    def _is_of_dead(self, address: str, content: bytes, dead: Collection[str]) -> bool:
        if _owner_of(content) in dead:
            return True
        now_s = time.monotonic()
        known, since_s = self._seen.get(address, (b"", 0.0))
        if known != content:
            self._seen[address] = (content, now_s)
            return False
        return now_s - since_s > self._patience_s


class Claim:
    """A recording that one worker has to itself.

    Args:
        stem: Address of the claim, without its number.
        number: Of the claim.
    """

    def __init__(self, stem: str, number: int) -> None:
        self._stem = stem
        self._number = number

    @property
    def is_held(self) -> bool:
        """Whether nobody has taken it over.

        Raises:
            DownloadError: If the store cannot be asked.
        """
        return stores.read(f"{self._stem}-{self._number + 1}") is None


def _owner_of(content: bytes) -> str | None:
    try:
        owner = json.loads(content)["owner"]
    except (ValueError, KeyError, TypeError):
        return None  # it is being written just now
    return owner if isinstance(owner, str) else None
