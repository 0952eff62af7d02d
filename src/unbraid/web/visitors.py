"""What belongs to one visitor: a folder, a recording, results, prompts. It goes when they leave."""

from __future__ import annotations

import secrets
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from unbraid.audio import AudioInfo, safe_name
from unbraid.errors import AudioError, Cancelled, ConfigError

# Work asks now and then whether it should stop.
_PATIENCE_S = 30.0


@dataclass(frozen=True)
class Upload:
    """A recording that a visitor brought.

    Attributes:
        path: Where it lies, in the visitor's folder.
        name: What its file was called.
        info: What it holds.
    """

    path: Path
    name: str
    info: AudioInfo


@dataclass(eq=False)
class Visitor:
    """One open page.

    Attributes:
        folder: Everything that is kept for the visitor lies here.
        token: Nobody else can guess it; addresses of the visitor's files hold it.
        upload: The recording to separate.
        files: Name in the address → file, of what came of the last separation.
        archive: Name in the zip of it → file.
        lessons: Name in the address → file, of prompts that were taught here, and their reports.
        prompts: The files of prompts that were taught or brought here.
        examples: Name → clip that shows the sound.
        cancel: Set it to stop what is being done.
    """

    folder: Path
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    upload: Upload | None = None
    files: dict[str, Path] = field(default_factory=dict)
    archive: dict[str, Path] = field(default_factory=dict)
    lessons: dict[str, Path] = field(default_factory=dict)
    prompts: list[Path] = field(default_factory=list)
    examples: dict[str, Path] = field(default_factory=dict)
    cancel: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._is_busy = False
        self._is_gone = False
        self._is_idle = threading.Event()
        self._is_idle.set()
        self.folder.mkdir(parents=True)

    def new_folder(self, name: str) -> Path:
        """An empty folder of that name; what a former one held is removed."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    @contextmanager
    def working(self) -> Iterator[None]:
        """Do something that takes time; whoever leaves meanwhile stops it.

        Raises:
            Cancelled: If the visitor has left.
            ConfigError: If something is being done for them already.
        """
        with self._lock:
            if self._is_gone:
                raise Cancelled("the visitor has left.")
            if self._is_busy:
                raise ConfigError("something is being done for you already; wait for it.")
            self._is_busy = True
            self._is_idle.clear()
            self.cancel.clear()
        try:
            yield
        finally:
            with self._lock:
                self._is_busy = False
                is_gone = self._is_gone
            if is_gone:
                self._remove()
            self._is_idle.set()

    def leave(self) -> None:
        """Stop what is being done, and remove everything as soon as it has stopped."""
        with self._lock:
            self._is_gone = True
            self.cancel.set()
            is_busy = self._is_busy
        if not is_busy:
            self._remove()

    def wait(self, patience_s: float) -> None:
        """Wait until nothing is being done any more."""
        self._is_idle.wait(patience_s)

    def _remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class Visitors:
    """Everybody who has the page open.

    Args:
        root: Where their folders go. Uploads arrive below it as well.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._by_session: dict[str, Visitor] = {}
        self._left: set[str] = set()

    def of(self, session: str) -> Visitor:
        """The visitor with this session; a new one if nobody has had it.

        Raises:
            ConfigError: If the visitor has left. What was on its way then must not make them
                come back, for nobody would remove what it brings.
        """
        with self._lock:
            if session in self._left:
                raise ConfigError(
                    "the connection was lost, and your files are gone; reload the page."
                )
            if session not in self._by_session:
                folder = self._root / "visitors" / secrets.token_hex(8)
                self._by_session[session] = Visitor(folder)
            return self._by_session[session]

    def with_token(self, token: str) -> Visitor | None:
        """The visitor whose addresses hold this token."""
        with self._lock:
            return next(
                (
                    visitor
                    for visitor in self._by_session.values()
                    if secrets.compare_digest(visitor.token.encode(), token.encode())
                ),
                None,
            )

    def leave(self, session: str) -> None:
        """The visitor has closed the page, or the program ends."""
        with self._lock:
            self._left.add(session)
            visitor = self._by_session.pop(session, None)
        if visitor is not None:
            visitor.leave()

    def leave_all(self) -> None:
        """Everybody leaves; what is being done for them has stopped then."""
        leaving = dict(self._by_session)
        for session in leaving:
            self.leave(session)
        for visitor in leaving.values():
            visitor.wait(_PATIENCE_S)

    def __len__(self) -> int:
        return len(self._by_session)


def take_upload(uploaded: str | Path, folder: Path) -> Path:
    """Move an uploaded file to where it goes with its visitor.

    Args:
        uploaded: Where it arrived. The folder that it leaves empty is removed.
        folder: Where to.

    Raises:
        AudioError: If it is not there any more.
    """
    source = Path(uploaded)
    target = folder / safe_name(source.name)
    try:
        source.replace(target)
    except FileNotFoundError as error:
        raise AudioError(f"{source.name}: did not arrive; upload it again.") from error
    with suppress(OSError):
        source.parent.rmdir()
    return target
