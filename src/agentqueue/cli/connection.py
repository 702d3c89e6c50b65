"""Options that select the Redis to connect to, and the connection itself."""

from __future__ import annotations

import os
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from agentqueue.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from agentqueue.cli.kubernetes import ClusterRef
    from agentqueue.client import Client
    from agentqueue.store import ServerOptions

T = TypeVar("T")
_CLUSTER_OPTIONS: Final[ContextVar[Mapping[str, str | None]]] = ContextVar("cluster_options")
"""The values of --in and --context, by the names of their parameters."""


def parse_cluster_option(context: typer.Context, parameter: typer.CallbackParam, value: str | None) -> None:
    """Keep the value of --in or --context for `resolve_connection`.

    Both options can stand before the command and after it; the one after it wins. The program's own option is kept even
    without a value, so that a second run in this process does not see the values of the first one.
    """
    if value is not None or context.parent is None:
        _CLUSTER_OPTIONS.set({**_CLUSTER_OPTIONS.get({}), str(parameter.name): value})


RedisOption = Annotated[
    str | None,
    typer.Option(
        "--redis",
        metavar="URL",
        help="Redis to connect to. Default: AGENTQUEUE_REDIS_URL, else REDIS_URL, else the `up` of this folder.",
    ),
]
InOption = Annotated[
    str | None,
    typer.Option(
        "--in",
        metavar="[NAMESPACE/]NAME",
        help="Connect to the Redis of that AgentQueue in a cluster, through kubectl.",
        callback=parse_cluster_option,
        expose_value=False,
    ),
]
ContextOption = Annotated[
    str | None,
    typer.Option(
        "--context",
        metavar="NAME",
        help="With --in: the kubeconfig's context.",
        callback=parse_cluster_option,
        expose_value=False,
    ),
]


def add_cluster_option(command: Any) -> None:
    """Add --in and --context to a command that has --redis, and to each such command of a group."""
    for child in getattr(command, "commands", {}).values():
        add_cluster_option(child)
    if any(parameter.name == "redis" for parameter in command.params):
        command.params += _cluster_parameters()


def has_cluster_option(command: Any) -> bool:
    """Return whether the command, or a command of the group, has --in."""
    children = getattr(command, "commands", {}).values()
    return any(map(has_cluster_option, children)) or any(parameter.name == "in_" for parameter in command.params)


@cache
def _cluster_parameters() -> tuple[Any, ...]:
    """Return --in and --context as parameters of a parsed command. Only typer can make them, from a signature.

    Commands share them: a parameter has no state of its own, and parsing a signature takes a millisecond.
    """

    def prototype(in_: InOption = None, context: ContextOption = None) -> None: ...

    app = typer.Typer(add_completion=False)
    app.command()(prototype)
    return tuple(one for one in typer.main.get_command(app).params if one.name in ("in_", "context"))


def cluster_ref() -> ClusterRef | None:
    """Return the AgentQueue that --in names, or None without --in.

    Raises:
        UsageError: The name is not valid, or --context is given without --in.
    """
    options = _CLUSTER_OPTIONS.get({})
    in_, context = options.get("in_"), options.get("context")
    if in_ is None:
        if context is not None:
            raise UsageError("--context needs --in NAMESPACE/NAME")
        return None
    from agentqueue.cli.kubernetes import ClusterRef  # noqa: PLC0415

    return ClusterRef.parse(in_, context)


@contextmanager
def resolve_connection(redis: str | None, folder: Path | None = None) -> Iterator[ServerOptions]:
    """Yield the server to connect to: from --redis, else from --in, else from `connection_from_environment`.

    The connection to a cluster is open while the block runs.

    Args:
        redis: The value of --redis.
        folder: The folder whose `agentqueue up` is used. Default: the working directory.

    Raises:
        UsageError: Both --redis and --in are given, or no server is named.
    """
    ref = cluster_ref()
    if ref is None:
        yield connection_from_environment(redis, folder)
        return
    if redis is not None:
        raise UsageError("--redis and --in exclude each other: give one of them")
    from agentqueue.cli.kubernetes import connection_from_cluster  # noqa: PLC0415

    with connection_from_cluster(ref) as options:
        yield options


def connection_from_environment(redis: str | None, folder: Path | None = None) -> ServerOptions:
    """Return the server: `redis`, else AGENTQUEUE_REDIS_URL, else REDIS_URL, else the server of a running `up`.

    Args:
        redis: The URL that the user gave.
        folder: The folder whose `agentqueue up` is used. Default: the working directory.

    Raises:
        UsageError: No server is named, or a connection variable is not valid.
    """
    from agentqueue.store import server_options  # noqa: PLC0415  # redis-py takes 0.2 s to import

    options = server_options(os.environ, redis)
    if options is None:
        from agentqueue.local.state import find_up_state  # noqa: PLC0415

        state = find_up_state(folder or Path.cwd())
        options = None if state is None else server_options(state.connection)
    if options is None:
        raise UsageError(
            "no Redis to connect to: pass --redis URL, set AGENTQUEUE_REDIS_URL or REDIS_URL, "
            "run `agentqueue up FILE` in this folder, or name an AgentQueue in a cluster: --in NAMESPACE/NAME"
        )
    return options


def with_client(redis: str | None, work: Callable[[Client], Awaitable[T]]) -> T:
    """Run `work` with a connected client, and return its result.

    Args:
        redis: The value of --redis; see `resolve_connection`.
        work: A function that takes the client.
    """
    with resolve_connection(redis) as options:  # imports the client while kubectl asks the cluster
        import asyncio  # noqa: PLC0415

        from agentqueue.client import Client  # noqa: PLC0415

        async def connect_and_work() -> T:
            async with Client.at(options) as client:
                return await work(client)

        return asyncio.run(connect_and_work())
