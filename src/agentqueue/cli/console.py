"""`agentqueue console`: the web console and its HTTP API."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from agentqueue.cli.connection import RedisOption, resolve_connection
from agentqueue.errors import UsageError

# Starlette and uvicorn are imported when the command runs, so that `agentqueue --help` stays fast.


def register(app: typer.Typer) -> None:
    """Add the command (entry point group `agentqueue.commands`)."""
    app.command()(console)


def console(
    host: Annotated[
        str | None,
        typer.Option("--host", help="Address to listen on. Default: AGENTQUEUE_CONSOLE_HOST or loopback."),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", min=0, max=65_535, help="Default: AGENTQUEUE_CONSOLE_PORT, else 8400. 0: a free port."),
    ] = None,
    redis: RedisOption = None,
) -> None:
    """Serve the web console and the HTTP API until Ctrl-C.

    Requests need the token in AGENTQUEUE_CONSOLE_TOKEN; on loopback one is generated and printed if it is not set.
    """
    try:
        from agentqueue.console.run import run  # noqa: PLC0415
    except ImportError as exc:
        raise UsageError(f"the console needs more packages ({exc}): pip install 'agentqueue[console]'") from exc
    with resolve_connection(redis) as options:
        run(options, os.environ, host=host, port=port)
