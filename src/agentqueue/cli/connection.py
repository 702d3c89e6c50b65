"""Where a command connects to, and running its work there."""

from __future__ import annotations

import functools
import inspect
import os
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar, get_type_hints

import typer

from agentqueue.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from agentqueue.cli.kubernetes import Place
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
InOption = Annotated[
    str | None,
    typer.Option(
        "--in",
        metavar="[NAMESPACE/]NAME",
        help="Connect to the Redis of that AgentQueue in a cluster, through kubectl.",
    ),
]
ContextOption = Annotated[
    str | None, typer.Option("--context", metavar="NAME", help="With --in: the kubeconfig's context.")
]
_PLACE: Final[ContextVar[tuple[str | None, str | None]]] = ContextVar("place", default=(None, None))
"""What --in and --context say, from wherever they stand on the line."""


# The options of every command that connects


def take_place(in_: str | None, context: str | None, *, anew: bool = False) -> None:
    """Note --in and --context; what is nearer to the command's end of the line goes before.

    Args:
        in_: as given; None: not.
        context: likewise.
        anew: forget what was noted before.
    """
    known_in, known_context = (None, None) if anew else _PLACE.get()
    _PLACE.set((in_ or known_in, context or known_context))


def offer_places(app: typer.Typer) -> None:
    """Give --in and --context to every command that has --redis (a parameter `redis`), whoever brought it."""
    for command in app.registered_commands:
        if command.callback is not None:
            command.callback = _with_place(command.callback)
    for group in app.registered_groups:
        if group.typer_instance is not None:
            offer_places(group.typer_instance)


def takes_place(command: Any) -> bool:
    """Whether the command, or one of the group's, has --in."""
    children = getattr(command, "commands", {}).values()
    return any(map(takes_place, children)) or any(param.name == "in_" for param in command.params)


def _with_place(command: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(command)
    if "redis" not in signature.parameters or "in_" in signature.parameters:
        return command

    @functools.wraps(command)
    def placed(*args: Any, in_: str | None = None, context: str | None = None, **kwargs: Any) -> Any:
        take_place(in_, context)
        return command(*args, **kwargs)

    hints = get_type_hints(command, include_extras=True) | {"in_": InOption, "context": ContextOption}
    known = [it.replace(annotation=hints[it.name]) for it in signature.parameters.values()]
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hints[name])
        for name in ("in_", "context")
    ]
    placed.__signature__ = signature.replace(parameters=[*known, *added])  # type: ignore[attr-defined]
    placed.__annotations__ = hints
    return placed


# Connecting


def place_given() -> Place | None:
    """The AgentQueue that --in names.

    Raises:
        UsageError: it can't be one, or --context stands alone.
    """
    in_, context = _PLACE.get()
    if in_ is None:
        if context is not None:
            raise UsageError("--context goes with --in NAMESPACE/NAME")
        return None
    from agentqueue.cli.kubernetes import Place  # noqa: PLC0415

    return Place.parse(in_, context)


@contextmanager
def reached(redis: str | None, folder: Path | None = None) -> Iterator[ServerOptions]:
    """The server to connect to, for the length of the block: --redis, else --in, else as `find_server`.

    Raises:
        UsageError: both are given, or nothing leads to a server.
    """
    place = place_given()
    if place is None:
        yield find_server(redis, folder)
        return
    if redis is not None:
        raise UsageError("--redis and --in both say where to connect: give one of them")
    from agentqueue.cli.kubernetes import reach  # noqa: PLC0415

    with reach(place) as options:
        yield options


def find_server(explicit: str | None, folder: Path | None = None) -> ServerOptions:
    """The server: given, else AGENTQUEUE_REDIS_URL, else REDIS_URL, else of the `up` that runs for `folder` (here).

    Raises:
        UsageError: none of the four, or a variable of the connection that can't be.
    """
    from agentqueue.store import server_options  # noqa: PLC0415  # redis-py takes 0.2 s to import

    options = server_options(os.environ, explicit)
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
    """Run `work` with a client on the server that `redis` or the surroundings name."""
    with reached(redis) as options:  # which imports the client while kubectl asks the cluster
        import asyncio  # noqa: PLC0415

        from agentqueue.client import Client  # noqa: PLC0415

        async def connected() -> T:
            async with Client.at(options) as client:
                return await work(client)

        return asyncio.run(connected())
