"""Where a command connects to, and running its work there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from agentqueue.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agentqueue.client import Client

T = TypeVar("T")
RedisOption = Annotated[
    str | None,
    typer.Option(
        "--redis",
        metavar="URL",
        help="Redis to connect to. Default: AGENTQUEUE_REDIS_URL, else REDIS_URL, else the `up` of this folder.",
    ),
]


def find_url(explicit: str | None, folder: Path | None = None) -> str:
    """The Redis URL: given, else AGENTQUEUE_REDIS_URL, else REDIS_URL, else the `up` that runs for `folder` (here).

    Raises:
        UsageError: none of the four.
    """
    from agentqueue.store.server import resolve_url  # noqa: PLC0415  # redis-py takes 0.2 s to import

    url = resolve_url(explicit)
    if url is None:
        from agentqueue.upstate import find_up_state  # noqa: PLC0415

        state = find_up_state(folder or Path.cwd())
        url = None if state is None else state.redis_url
    if url is None:
        raise UsageError(
            "no Redis to connect to: pass --redis URL, set AGENTQUEUE_REDIS_URL or REDIS_URL, "
            "or run `agentqueue up FILE` in this folder"
        )
    return url


def with_client(redis: str | None, work: Callable[[Client], Awaitable[T]]) -> T:
    """Run `work` with a client on the server that `redis` or the surroundings name."""
    import asyncio  # noqa: PLC0415

    from agentqueue.client import Client  # noqa: PLC0415

    async def connected() -> T:
        async with Client(find_url(redis)) as client:
            return await work(client)

    return asyncio.run(connected())
