"""``unbraid web``."""

from __future__ import annotations

from typing import Annotated

import typer

from unbraid.cli.console import reports_errors


@reports_errors
def web(
    host: Annotated[
        str,
        typer.Option(help="The address to listen at; 0.0.0.0 lets other machines in."),
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(help="The port.", show_default="the first free one from 7860 on")
    ] = None,
    share: Annotated[
        bool,
        typer.Option(
            "--share",
            help="Also open a public address through Gradio's servers; everybody who has it can "
            "use the page.",
        ),
    ] = False,
    open_browser: Annotated[
        bool, typer.Option("--open", help="Open the page in this machine's browser.")
    ] = False,
    device: Annotated[
        str, typer.Option("--device", "-d", help="auto, cpu, cuda, cuda:1, or mps.")
    ] = "auto",
    jobs: Annotated[
        int,
        typer.Option(
            "--jobs", "-j", help="How many visitors are served at a time; others wait in a line."
        ),
    ] = 1,
    max_size: Annotated[
        float, typer.Option(metavar="MB", help="The largest file that can be uploaded.")
    ] = 2000.0,
    max_minutes: Annotated[
        float, typer.Option(metavar="MINUTES", help="The longest recording.")
    ] = 180.0,
    teach_minutes: Annotated[
        float, typer.Option(metavar="MINUTES", help="How long teaching a prompt may take.")
    ] = 2.5,
    downloads: Annotated[
        bool | None,
        typer.Option(
            "--downloads/--no-downloads",
            help="Whether visitors may have released models downloaded to this machine.",
            show_default="yes if nobody else can reach the page",
        ),
    ] = None,
) -> None:
    """Separate, listen and teach on a page in the browser.

    Only this machine can reach the page unless --host or --share says otherwise. What a visitor
    brings is removed when they close the page.
    """
    from unbraid.cli.devices import parse_devices
    from unbraid.errors import ConfigError
    from unbraid.web.options import WebOptions

    devices = parse_devices(device)
    if len(devices) > 1:
        raise ConfigError(f"--device {device}: the page computes on one device; name one.")
    options = WebOptions(
        host=host,
        port=port,
        is_shared=share,
        device=devices[0],
        jobs=jobs,
        max_size_mb=max_size,
        max_minutes=max_minutes,
        teach_minutes=teach_minutes,
        downloads=downloads,
        opens_browser=open_browser,
    )
    from unbraid.web.server import serve

    serve(options)
