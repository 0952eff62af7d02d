"""Run the page until somebody stops the program, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from unbraid.apps.loopback import is_called_loopback
from unbraid.errors import ConfigError, MissingExtra
from unbraid.web.files import routes
from unbraid.web.options import WebOptions
from unbraid.web.page import build_page
from unbraid.web.visitors import Visitors

try:
    import gradio as gr
    from starlette.datastructures import Headers
    from starlette.middleware import Middleware
    from starlette.responses import PlainTextResponse
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
except ModuleNotFoundError as error:
    raise MissingExtra(
        f"the page needs the package {error.name}; install it with: pip install 'unbraid[web]'"
    ) from error

_STYLE = Path(__file__).with_name("assets") / "page.css"

# Nothing is loaded from anywhere else: no fonts, no analytics, no scripts of others. Gradio
# compiles its templates in the browser, hence 'unsafe-eval'.
_CONTENT_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self' data: blob:",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
    )
)


def serve(options: WebOptions) -> None:
    """Serve the page until the program is stopped; then everything of all visitors is removed.

    Ctrl-C ends it, and so does a polite request to end (SIGTERM), which leaves through
    ``SystemExit``.

    Raises:
        ConfigError: If the port is taken, or the address cannot be listened at.
    """
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _leave)
    with suppress(KeyboardInterrupt), running(options) as address:
        print(f"The page is at {address} (stop it with Ctrl-C).", flush=True)
        if not options.is_private:
            print("Others can reach it.", flush=True)
        threading.Event().wait()


@contextmanager
def running(options: WebOptions) -> Iterator[str]:
    """Serve the page while the block runs.

    Uploads of Gradio arrive in ``$GRADIO_TEMP_DIR``, which is set for this long.

    Yields:
        The address of the page.

    Raises:
        ConfigError: As ``serve``.
    """
    with tempfile.TemporaryDirectory(prefix="unbraid-web-") as name, _set_temporary(name):
        visitors = Visitors(Path(name))
        page = build_page(visitors, options)
        try:
            address = _launch(page, visitors, options)
            yield address
        finally:
            page.close(verbose=False)
            visitors.leave_all()


def middleware(options: WebOptions) -> list[Middleware]:
    """What every request to the page goes through."""
    own_name = [Middleware(_OwnNameOnly)] if options.is_private else []
    return [Middleware(_OwnContentOnly), *own_name]


def _launch(page: gr.Blocks, visitors: Visitors, options: WebOptions) -> str:
    page.queue(max_size=100)
    try:
        _, local, public = page.launch(
            server_name=options.host,
            server_port=options.port,
            share=options.is_shared,
            inbrowser=options.opens_browser,
            inline=False,
            prevent_thread_lock=True,
            quiet=True,
            max_file_size=round(options.max_size_mb * 1e6),
            app_kwargs={
                "routes": routes(visitors),
                "middleware": middleware(options),
                "docs_url": None,
                "redoc_url": None,
            },
            ssr_mode=False,
            num_workers=0,
            run_history=False,
            mcp_server=False,
            enable_monitoring=False,
            pwa=False,
            footer_links=[],
            theme=_theme(),
            css=_STYLE.read_text(encoding="utf-8"),
        )
    except OSError as error:
        where = f"port {options.port}" if options.port else "port 7860 and those after it"
        raise ConfigError(
            f"the page cannot be served at {options.host}, {where}: it is taken, or not allowed; "
            "choose another --port or --host."
        ) from error
    if options.is_shared and not public:
        raise ConfigError(
            "no public address could be had from Gradio's servers; leave --share out."
        )
    return public or local


def _theme() -> gr.Theme:
    """The look of the reports, with the fonts of the visitor's machine."""
    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    fixed = ["ui-monospace", "Consolas", "monospace"]
    look: dict[str, Any] = {
        "body_background_fill": "#fbfaf8",
        "body_background_fill_dark": "#0e0f13",
        "body_text_color": "#1d1b20",
        "body_text_color_dark": "#ecebef",
        "body_text_color_subdued": "#5c5862",
        "body_text_color_subdued_dark": "#b0adb8",
        "background_fill_primary": "#ffffff",
        "background_fill_primary_dark": "#181a21",
        "background_fill_secondary": "#f7f5f8",
        "background_fill_secondary_dark": "#1f222b",
        "block_background_fill": "#ffffff",
        "block_background_fill_dark": "#181a21",
        "border_color_primary": "#e2dfe5",
        "border_color_primary_dark": "#30333c",
        "color_accent": "#8a1f6b",
        "color_accent_soft": "#f6eef4",
        "color_accent_soft_dark": "#2a1f2c",
        "button_primary_background_fill": "#8a1f6b",
        "button_primary_background_fill_dark": "#f29ad0",
        "button_primary_background_fill_hover": "#6d1854",
        "button_primary_background_fill_hover_dark": "#f6b5dc",
        "button_primary_text_color": "#ffffff",
        "button_primary_text_color_dark": "#1d1b20",
    }
    hues = {"primary_hue": "pink", "secondary_hue": "pink"}
    return gr.themes.Base(font=fonts, font_mono=fixed, radius_size="lg", **hues).set(**look)


class _OwnContentOnly:
    """Tells browsers to load nothing from elsewhere, and not to guess what files are."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    (b"content-security-policy", _CONTENT_POLICY.encode()),
                    (b"x-content-type-options", b"nosniff"),
                    (b"referrer-policy", b"no-referrer"),
                ]
            await send(message)

        await self._app(scope, receive, send_with_policy)


class _OwnNameOnly:
    """Turns away who calls a page of this machine by another name than this machine's."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_request = scope["type"] != "lifespan"
        if not is_request or is_called_loopback(Headers(scope=scope).get("host", "")):
            await self._app(scope, receive, send)
            return
        answer = PlainTextResponse(
            "This page answers this machine only; call it by the address that it printed when it "
            "started, or let others in with --host.",
            403,
        )
        await answer(scope, receive, send)


@contextmanager
def _set_temporary(folder: str) -> Iterator[None]:
    former = os.environ.get("GRADIO_TEMP_DIR")
    os.environ["GRADIO_TEMP_DIR"] = str(Path(folder) / "uploads")
    try:
        yield
    finally:
        if former is None:
            del os.environ["GRADIO_TEMP_DIR"]
        else:
            os.environ["GRADIO_TEMP_DIR"] = former


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)
