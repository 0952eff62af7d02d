"""Workers that are actors of a Ray cluster."""

from __future__ import annotations

import os
import platform
import secrets
import socket
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from unbraid.cluster.crew import Done, Joined, Lost
from unbraid.cluster.manifest import Entry
from unbraid.cluster.worker import Outcome, Setup, Worker, load_for
from unbraid.errors import Cancelled, ClusterError, MissingExtra, UnbraidError

#: How long the workers that were told to stop may take to leave their places clean.
_FAREWELL_S = 15.0
#: How long to wait for machines where there is room for no worker.
_PATIENCE_S = 300.0
#: How long to wait for the head of a cluster to answer.
_PATIENCE_WITH_HEAD_S = 10.0


@dataclass
class _Member:
    actor: Any
    has_joined: bool = False


class RayCrew:
    """A crew of actors: one for each GPU of the cluster, or for every so many cores.

    Machines may leave and join while it works. Nothing is told to Ray's makers
    (``RAY_USAGE_STATS_ENABLED=0``, unless it is set otherwise).

    Args:
        setup: What all workers share.
        address: Of the cluster: ``auto`` for the one that this machine belongs to,
            ``host:6379``, ``ray://host:10001``, or ``local`` for one on this machine alone.
        uses_gpus: Whether workers compute on GPUs; None for: where the cluster has some.
        num_cores: How many cores a worker has.
        num_workers: How many workers; None for as many as there is room for. A number that
            there is no room for yet lets a cluster that scales by itself grow.
        patience_s: How long to wait for a machine while there is none.

    Raises:
        MissingExtra: If Ray is missing.
        ClusterError: If there is no cluster at this address.
    """

    def __init__(
        self,
        setup: Setup,
        address: str,
        *,
        uses_gpus: bool | None = None,
        num_cores: int = 1,
        num_workers: int | None = None,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ModuleNotFoundError as error:
            raise MissingExtra(
                "--ray needs Ray; install it with: pip install 'unbraid[cluster]'"
            ) from error
        self._ray: Any = ray
        _check_reachable(address)
        try:
            # What is started for one run alone needs no page to look at.
            options = {"include_dashboard": False} if address == "local" else {}
            self._ray.init(address=address, log_to_driver=False, logging_level="error", **options)
        except Exception as error:  # Ray raises many kinds
            raise _unreachable(address, " ".join(str(error).split()).rstrip(".")) from error
        self._setup = setup
        self._num_cores = num_cores
        self._uses_gpus = self._has("GPU") if uses_gpus is None else uses_gpus
        self._num_workers = num_workers
        self._patience_s = patience_s
        self._members: dict[str, _Member] = {}
        self._pending: dict[Any, str] = {}
        self._run = secrets.token_hex(4)
        self._num_started = 0
        self._num_failed_starts = 0
        self._why_none: UnbraidError = ClusterError(
            f"--ray {address}: the cluster has no room for a worker of {num_cores} cores"
            f"{' and a GPU' if self._uses_gpus else ''}."
        )
        self._last_sign_s = time.monotonic()
        self._actor = self._ray.remote(_Actor).options(
            num_cpus=num_cores,
            num_gpus=1 if self._uses_gpus else 0,
            max_concurrency=2,  # one recording, and word that it is to stop
            max_restarts=0,
        )

    def tend(self, num_wanted: int) -> None:
        """Start workers; see ``Crew.tend``."""
        for _ in range(min(num_wanted, self._target()) - len(self._members)):
            self._num_started += 1
            name = f"{self._run}-{self._num_started}"
            device = "cuda" if self._uses_gpus else "cpu"
            actor = self._actor.remote(self._setup, name, device, self._num_cores)
            self._members[name] = _Member(actor)
            self._pending[actor.start.remote()] = name

    def give(self, worker: str, entry: Entry, dead: Collection[str]) -> None:
        """Let a worker begin; see ``Crew.give``."""
        self._pending[self._members[worker].actor.separate.remote(entry, tuple(dead))] = worker

    def wait(self, timeout_s: float) -> list[Joined | Done | Lost]:
        """What has happened; see ``Crew.wait``."""
        self._check_hope()
        if not self._pending:
            time.sleep(timeout_s)
            return []
        pending = list(self._pending)
        ready, _ = self._ray.wait(pending, num_returns=1, timeout=timeout_s)
        if ready:  # and whatever else is there by now
            ready, _ = self._ray.wait(pending, num_returns=len(pending), timeout=0)
        events = [self._hear(reference) for reference in ready]
        return [event for event in events if event is not None]

    def close(self) -> None:
        """Stop all workers, and leave the cluster; see ``Crew.close``."""
        working = [ref for ref, name in self._pending.items() if self._members[name].has_joined]
        for reference in working:
            self._members[self._pending[reference]].actor.stop.remote()
        if working:
            self._ray.wait(working, num_returns=len(working), timeout=_FAREWELL_S)
        self._ray.shutdown()
        self._members.clear()
        self._pending.clear()

    def _hear(self, reference: Any) -> Joined | Done | Lost | None:
        name = self._pending.pop(reference)
        member = self._members[name]
        try:
            message = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            return self._bury(name, member, ClusterError(" ".join(str(error).split())))
        self._last_sign_s = time.monotonic()
        if isinstance(message, UnbraidError):
            return self._bury(name, member, message)
        if isinstance(message, Outcome):
            return Done(name, message)
        member.has_joined = True
        self._num_failed_starts = 0
        return Joined(name)

    def _bury(self, name: str, member: _Member, error: UnbraidError) -> Lost | None:
        del self._members[name]
        # It may only be out of reach. Whoever is taken for dead has to be.
        self._ray.kill(member.actor)
        if member.has_joined:
            return Lost(name, str(error))
        # Its place stays empty until another one has shown that starting is possible.
        self._num_failed_starts += 1
        self._why_none = error
        return None

    def _check_hope(self) -> None:
        """Give up where nobody works and nobody has come for long."""
        if any(member.has_joined for member in self._members.values()):
            self._last_sign_s = time.monotonic()
            return
        is_hopeless = not self._members and self._num_failed_starts and self._target() <= 0
        if is_hopeless or time.monotonic() - self._last_sign_s > self._patience_s:
            raise self._why_none

    def _target(self) -> int:
        """How many workers there should be."""
        wanted = self._room() if self._num_workers is None else self._num_workers
        return wanted - self._num_failed_starts

    def _room(self) -> int:
        """For how many workers there is room on all machines together."""
        num_workers = 0
        for node in self._ray.nodes():
            if not node["Alive"]:
                continue
            resources = node["Resources"]
            room = int(resources.get("CPU", 0)) // self._num_cores
            num_workers += min(room, int(resources.get("GPU", 0))) if self._uses_gpus else room
        return num_workers

    def _has(self, resource: str) -> bool:
        return self._ray.cluster_resources().get(resource, 0) >= 1


def _check_reachable(address: str) -> None:
    """Ask for a connection; Ray itself goes on asking for a quarter of an hour.

    Raises:
        ClusterError: If nobody answers there.
    """
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        port = parts.port
    except ValueError as error:
        raise _unreachable(address, "its port is no number") from error
    if port is None:
        return  # a word that Ray knows, or an address whose port it knows
    try:
        socket.create_connection((parts.hostname or "", port), _PATIENCE_WITH_HEAD_S).close()
    except OSError as error:
        raise _unreachable(address, error.strerror or str(error)) from error


def _unreachable(address: str, reason: str) -> ClusterError:
    return ClusterError(
        f"--ray {address}: no cluster can be reached there ({reason}); start one with `ray start "
        "--head`, and give --ray auto or its HOST:PORT."
    )


class _Actor:
    """What runs on the machines of the cluster."""

    def __init__(self, setup: Setup, name: str, device: str, num_cores: int) -> None:
        self._cancel = threading.Event()
        self._given = (setup, name, device, num_cores)
        self._worker: Worker | None = None

    def start(self) -> str | UnbraidError:
        """Load the model; the error where that fails, else the machine."""
        setup, name, device, num_cores = self._given
        try:
            self._worker = Worker(setup, name, load_for(setup, device), num_cores)
        except UnbraidError as error:
            return error
        return platform.node()

    def separate(self, entry: Entry, dead: tuple[str, ...]) -> Outcome:
        """Separate one recording; see ``Worker.separate``."""
        assert self._worker is not None, "it is given nothing before it has started"
        try:
            return self._worker.separate(entry, dead, self._cancel)
        except Cancelled as error:
            return Outcome("failed", error=error)

    def stop(self) -> None:
        """Give up what is on hand."""
        self._cancel.set()
