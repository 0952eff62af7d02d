"""Workers that are processes of this machine."""

from __future__ import annotations

import multiprocessing
import secrets
import signal
import threading
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from queue import SimpleQueue

from unbraid.cluster.crew import Done, Joined, Lost
from unbraid.cluster.manifest import Entry
from unbraid.cluster.worker import Outcome, Setup, Worker, load_for
from unbraid.errors import Cancelled, ClusterError, UnbraidError

#: How long a worker that was told to stop may take to leave its place clean.
_FAREWELL_S = 30.0


@dataclass
class _Member:
    process: BaseProcess
    connection: Connection
    device: str | None
    has_joined: bool = False


class LocalCrew:
    """A crew of processes, one for each device that is named.

    A process that dies is replaced. One that cannot start is not.

    Args:
        setup: What all workers share.
        devices: Where each of them computes; a name may repeat, None is the best one there is.
        num_threads: How many threads each of them has; None for what PyTorch chooses.
    """

    def __init__(
        self, setup: Setup, devices: Sequence[str | None], num_threads: int | None
    ) -> None:
        self._setup = setup
        self._vacant = list(devices)
        self._num_threads = num_threads
        # Forked processes would share CUDA's and PyTorch's threads, which do not survive that.
        self._context = multiprocessing.get_context("spawn")
        self._members: dict[str, _Member] = {}
        self._run = secrets.token_hex(4)
        self._num_started = 0
        self._why_none: UnbraidError = ClusterError("there is no device to work on.")

    def tend(self, num_wanted: int) -> None:
        """Start workers; see ``Crew.tend``."""
        while self._vacant and len(self._members) < num_wanted:
            self._start(self._vacant.pop(0))

    def give(self, worker: str, entry: Entry, dead: Collection[str]) -> None:
        """Let a worker begin; see ``Crew.give``."""
        with suppress(OSError):  # where it has died, the end of its connection will say so
            self._members[worker].connection.send((entry, tuple(dead)))

    def wait(self, timeout_s: float) -> list[Joined | Done | Lost]:
        """What has happened; see ``Crew.wait``."""
        if not self._members and not self._vacant:
            raise self._why_none
        names = {member.connection: name for name, member in self._members.items()}
        events = (self._hear(names[ready]) for ready in wait(list(names), timeout_s))  # type: ignore[index]
        return [event for event in events if event is not None]

    def close(self) -> None:
        """Stop all workers; see ``Crew.close``."""
        for member in self._members.values():
            member.connection.close()  # which tells them to stop
        for member in self._members.values():
            member.process.join(_FAREWELL_S if member.has_joined else 0)
            if member.process.is_alive():
                member.process.terminate()
                member.process.join()
        self._members.clear()

    def _start(self, device: str | None) -> None:
        ours, theirs = self._context.Pipe()
        self._num_started += 1
        name = f"{self._run}-{self._num_started}"
        process = self._context.Process(
            target=_serve,
            name=name,
            args=(theirs, self._setup, name, device, self._num_threads),
            daemon=True,
        )
        process.start()
        theirs.close()
        self._members[name] = _Member(process, ours, device)

    def _hear(self, name: str) -> Joined | Done | Lost | None:
        member = self._members[name]
        try:
            message = member.connection.recv()
        except (EOFError, OSError):
            return self._bury(name, member)
        if isinstance(message, Outcome):
            return Done(name, message)
        if isinstance(message, UnbraidError):
            self._why_none = message
            return self._bury(name, member)
        member.has_joined = True
        return Joined(name)

    def _bury(self, name: str, member: _Member) -> Lost | None:
        member.connection.close()
        member.process.join()
        del self._members[name]
        code = member.process.exitcode or 0
        reason = f"killed by signal {-code}" if code < 0 else f"its process ended with {code}"
        if not member.has_joined:
            if code:
                self._why_none = ClusterError(f"no worker could start ({reason}).")
            return None
        self._vacant.append(member.device)
        return Lost(name, reason)


def _serve(
    connection: Connection, setup: Setup, name: str, device: str | None, num_threads: int | None
) -> None:
    """What runs in a worker's process."""
    # Ctrl-C reaches every process of a terminal; the one that began the run decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        worker = Worker(setup, name, load_for(setup, device), num_threads)
    except UnbraidError as error:
        connection.send(error)
        return
    connection.send(name)
    tasks: SimpleQueue[tuple[Entry, tuple[str, ...]] | None] = SimpleQueue()
    cancel = threading.Event()

    def listen() -> None:
        try:
            while True:
                tasks.put(connection.recv())
        except (EOFError, OSError):  # the run is over, or whoever began it has died
            cancel.set()
            tasks.put(None)

    threading.Thread(target=listen, daemon=True).start()
    while (task := tasks.get()) is not None:
        try:
            connection.send(worker.separate(*task, cancel))
        except (Cancelled, OSError):
            return
