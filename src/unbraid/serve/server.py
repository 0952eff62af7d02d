"""A server from beginning to end: it is put together, listens, and stops without losing a job."""

from __future__ import annotations

import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from unbraid.apps.separator import Separator
from unbraid.errors import ConfigError, MissingExtra
from unbraid.serve.access import check_token
from unbraid.serve.jobs import Offer

try:
    import uvicorn

    from unbraid.serve.api import Service, build_app
    from unbraid.serve.book import JobBook
    from unbraid.serve.engine import Engine
    from unbraid.serve.metrics import Metrics
    from unbraid.serve.spool import Spool
except ModuleNotFoundError as error:
    raise MissingExtra(
        f"the server needs the package {error.name}; install it with: pip install 'unbraid[serve]'"
    ) from error

_SLOWEST_ANSWER_S = 5
_IDLE_CONNECTION_S = 15
_MOST_CONNECTIONS = 1000
_BACKLOG = 512
_TICK_S = 0.2


@dataclass(frozen=True)
class ServeOptions:
    """How to serve.

    Attributes:
        host: The address to listen on.
        port: The port; 0 for any that is free.
        token: What clients must send; None only where nobody else can reach the host.
        spool: The folder in which jobs outlive the server; None for a temporary one.
        num_jobs: How many jobs each device works on at a time; None for what suits it.
        grace_s: How long a job that runs may go on when the server stops.

    Raises:
        ConfigError: As ``access.check_token``, or for numbers that make no sense.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    spool: Path | None = None
    num_jobs: int | None = None
    grace_s: float = 30.0

    def __post_init__(self) -> None:
        check_token(self.host, self.token)
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"--port {self.port}: must be from 0 to 65535.")
        if self.num_jobs is not None and self.num_jobs < 1:
            raise ConfigError(f"--jobs {self.num_jobs}: must be at least 1.")
        if not 0 <= self.grace_s < float("inf"):
            raise ConfigError(f"--grace {self.grace_s}: must be a number of seconds.")


@contextmanager
def opened_service(
    separators: Sequence[Separator], offer: Offer, options: ServeOptions
) -> Iterator[Service]:
    """A service that works on jobs until the end of the block, where it stops with grace.

    Raises:
        ConfigError, AudioError: As ``Spool``.
    """
    with ExitStack() as stack:
        folder = options.spool
        if folder is None:
            name = stack.enter_context(tempfile.TemporaryDirectory(prefix="unbraid-serve-"))
            folder = Path(name)
        spool = Spool(folder)
        stack.callback(spool.close)
        metrics = Metrics()
        book = JobBook(spool, offer.limits, metrics)
        engine = Engine(separators, book, spool, offer, options.num_jobs)
        engine.start()
        try:
            yield Service(offer, spool, book, engine, metrics, options.token)
        finally:
            engine.stop(options.grace_s)


@contextmanager
def listening(service: Service, options: ServeOptions) -> Iterator[str]:
    """Answer requests, from a thread, until the end of the block.

    Yields:
        The address.

    Raises:
        ConfigError: If the address cannot be had.
    """
    config = uvicorn.Config(
        build_app(service),
        log_level="warning",
        access_log=False,
        server_header=False,
        ws="none",
        lifespan="off",
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_keep_alive=_IDLE_CONNECTION_S,
        timeout_graceful_shutdown=_SLOWEST_ANSWER_S,
    )
    with _socket(options.host, options.port) as listener:
        server = uvicorn.Server(config)
        # In a thread of its own it leaves the signals alone.
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        try:
            port = listener.getsockname()[1]
            yield f"http://{f'[{options.host}]' if ':' in options.host else options.host}:{port}"
        finally:
            server.should_exit = True
            thread.join()


def serve(
    separators: Sequence[Separator],
    offer: Offer,
    options: ServeOptions,
    on_ready: Callable[[str], None],
) -> None:
    """Serve until SIGTERM or Ctrl-C. Must be called from the main thread.

    Then no new jobs are taken; those that run may come to their end, for ``grace_s``, and can be
    asked for meanwhile. What does not get there is put back: with a ``spool`` the next server on
    it goes on. A second signal shortens the grace to nothing.

    Args:
        separators: One for each device, with equal models and settings.
        offer: What they are called, and the limits.
        options: Where to listen, who may come in.
        on_ready: Called with the address once it can be reached.

    Raises:
        ConfigError: If the address cannot be had or another server has the spool.
        AudioError: If the spool cannot be written.
    """
    signals = _Signals()
    with (
        signals.noted(),
        opened_service(separators, offer, options) as service,
        listening(service, options) as address,
    ):
        on_ready(address)
        signals.wait()
        service.book.close()
        ends = time.monotonic() + options.grace_s
        # Questions are answered until the jobs that run have come to their end.
        while not service.book.wait_for_running(_TICK_S):
            if signals.is_urgent or time.monotonic() > ends:
                service.book.stop_running()


class _Signals:
    """What SIGTERM and Ctrl-C have asked for. No locks: a handler may come in anywhere."""

    def __init__(self) -> None:
        self._num_seen = 0

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Take the signals until the end of the block."""
        numbers = (signal.SIGTERM, signal.SIGINT)
        former = {number: signal.signal(number, self._note) for number in numbers}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)

    def wait(self) -> None:
        """Return when the first signal has come."""
        while not self._num_seen:
            time.sleep(_TICK_S)

    @property
    def is_urgent(self) -> bool:
        """Whether a second one has come."""
        return self._num_seen > 1

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._num_seen += 1


def _socket(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise ConfigError(
            f"--host {host} --port {port}: cannot listen there ({error.strerror}); choose another "
            "port, or 0 for any that is free."
        ) from error
