"""Where a command connects to, and running its work there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from agentqueue.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agentqueue.client import Client
    from agentqueue.store import ServerOptions

T = TypeVar("T")
RedisOption = Annotated[
    str | None,
    typer.Option(
        "--redis",
        metavar="URL",
        help="Redis to connect to. Default: AGENTQUEUE_REDIS_URL, else REDIS_URL, else the `up` of this folder.",
    ),
]


def find_server(explicit: str | None, folder: Path | None = None) -> ServerOptions:
    """The server: given, else AGENTQUEUE_REDIS_URL, else REDIS_URL, else of the `up` that runs for `folder` (here).

    Raises:
        UsageError: none of the four, or a variable of the connection that can't be.
    """
    from agentqueue.store import server_options  # noqa: PLC0415  # redis-py takes 0.2 s to import

    options = server_options(os.environ, explicit)
    if options is None:
        from agentqueue.upstate import find_up_state  # noqa: PLC0415

        state = find_up_state(folder or Path.cwd())
        options = None if state is None else server_options(state.connection)
    if options is None:
        raise UsageError(
            "no Redis to connect to: pass --redis URL, set AGENTQUEUE_REDIS_URL or REDIS_URL, "
            "or run `agentqueue up FILE` in this folder"
        )
    return options


def with_client(redis: str | None, work: Callable[[Client], Awaitable[T]]) -> T:
    """Run `work` with a client on the server that `redis` or the surroundings name."""
    import asyncio  # noqa: PLC0415

    from agentqueue.client import Client  # noqa: PLC0415

    async def connected() -> T:
        async with Client.at(find_server(redis)) as client:
            return await work(client)

    return asyncio.run(connected())
