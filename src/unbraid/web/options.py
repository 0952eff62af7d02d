"""How the page is served, and how much a visitor may ask of it."""

from __future__ import annotations

from dataclasses import dataclass

from unbraid.apps.loopback import is_loopback
from unbraid.errors import ConfigError

_HIGHEST_PORT = 65_535


@dataclass(frozen=True)
class WebOptions:
    """Where the page is, and its limits.

    Attributes:
        host: The address to listen at; only this machine can reach the default.
        port: The port; None for the first free one from 7860 on.
        is_shared: Whether to open a public address through Gradio's servers.
        device: Where to compute; None for a GPU if there is one.
        jobs: How many visitors are served at a time; the others wait in a line.
        max_size_mb: The largest file that can be uploaded, in millions of bytes.
        max_minutes: The longest recording, in minutes.
        teach_minutes: The longest time that teaching a prompt may take.
        downloads: Whether visitors may have released models downloaded to this machine; None for
            yes where only this machine can reach the page.
        opens_browser: Whether to open the page in the browser of this machine.

    Raises:
        ConfigError: For a limit that is not positive, or a port that is none.
    """

    host: str = "127.0.0.1"
    port: int | None = None
    is_shared: bool = False
    device: str | None = None
    jobs: int = 1
    max_size_mb: float = 2000.0
    max_minutes: float = 180.0
    teach_minutes: float = 2.5
    downloads: bool | None = None
    opens_browser: bool = False

    def __post_init__(self) -> None:
        limits = {
            "--max-size": self.max_size_mb,
            "--max-minutes": self.max_minutes,
            "--teach-minutes": self.teach_minutes,
            "--jobs": self.jobs,
        }
        for flag, value in limits.items():
            if not value > 0:
                raise ConfigError(f"{flag} {value:g}: must be more than 0.")
        if self.port is not None and not 0 < self.port <= _HIGHEST_PORT:
            raise ConfigError(f"--port {self.port}: choose one from 1 to {_HIGHEST_PORT}.")

    @property
    def is_private(self) -> bool:
        """Whether only this machine can reach the page."""
        return is_loopback(self.host) and not self.is_shared

    @property
    def may_download(self) -> bool:
        """Whether visitors may have models downloaded."""
        return self.is_private if self.downloads is None else self.downloads
