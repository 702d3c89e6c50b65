"""Running the console until it is told to stop."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

import uvicorn

from agentqueue.client import Client
from agentqueue.console.app import create_app
from agentqueue.console.settings import Settings
from agentqueue.errors import AgentQueueError
from agentqueue.store import ServerOptions

STOP_SECONDS: Final = 5
"""What requests under way may still take after SIGTERM."""
ANSWER_SECONDS: Final = 8.0
"""What Redis may take for an answer: a person waits for it."""


class _Server(uvicorn.Server):
    """uvicorn's raises the signal once more after it stopped, so that a plain SIGTERM would not end with 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(options: ServerOptions, settings: Settings, *, announce: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT. `announce` gets the page's address once it is open.

    Raises:
        AgentQueueError: the port is taken, or the address is not this machine's.
        UsageError: the token is too short.
    """
    client = Client.at(replace(options, connect_timeout=2.0, timeout=ANSWER_SECONDS))
    try:
        config = uvicorn.Config(
            create_app(client, token=settings.token),
            access_log=False,
            lifespan="off",
            log_level="warning",
            server_header=False,
            timeout_graceful_shutdown=STOP_SECONDS,
            ws="none",
        )
        server = _Server(config)
        with listen(settings) as listener:
            _stop_on_signals(server)
            announce(address_of(listener))
            await server.serve(sockets=[listener])
    finally:
        await client.close()


def _stop_on_signals(server: uvicorn.Server) -> None:
    def stop() -> None:
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)


def listen(settings: Settings) -> socket.socket:
    """The listening socket.

    Raises:
        AgentQueueError: the port is taken, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=128)
    except OSError as exc:
        where = f"{settings.host}:{settings.port}"
        raise AgentQueueError(
            f"the console can't listen on {where} ({exc.strerror or exc}); choose another with --port or --host"
        ) from exc


def address_of(listener: socket.socket) -> str:
    """`http://host:port`, as a browser here reaches it."""
    host, port, *_ = listener.getsockname()
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # compared, not bound
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
