"""Running the console until it is told to stop."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

import structlog
import uvicorn

from agentqueue.client import Client
from agentqueue.console.app import MOST_REQUESTS, create_app
from agentqueue.console.auth import Guard
from agentqueue.console.connections import BACKLOG, Connection, room_for_connections
from agentqueue.console.repeated_logs import Lines
from agentqueue.console.settings import Settings
from agentqueue.errors import AgentQueueError
from agentqueue.store import ServerOptions

log = structlog.get_logger("agentqueue.console")
KEEP_ALIVE_SECONDS: Final = 15
"""For the next request on a connection; the page asks every two seconds."""
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
    lines, most = Lines(), room_for_connections()
    try:
        app = create_app(client, token=settings.token, lines=lines, most_requests=min(MOST_REQUESTS, most // 2))
        server = make_server(app, type("ConsoleConnection", (Connection,), {"most": most, "lines": lines}))
        with listen(settings) as listener:
            _stop_on_signals(server)
            announce(address_of(listener))
            log.info("console_started", address=address_of(listener))
            await server.serve(sockets=[listener])
            log.info("console_stopped")
    finally:
        lines.close()
        await client.close()


def make_server(app: Guard, connection: type[Connection]) -> uvicorn.Server:
    """Return a server of the application, whose connections are of that class."""
    return _Server(
        uvicorn.Config(
            app,
            access_log=False,
            backlog=BACKLOG,
            http=connection,
            lifespan="off",
            log_config=None,  # its lines come out as ours
            log_level="warning",
            proxy_headers=False,  # any client may write them: they are logged beside the real address
            server_header=False,
            timeout_graceful_shutdown=STOP_SECONDS,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            ws="none",
        )
    )


def _stop_on_signals(server: uvicorn.Server) -> None:
    def stop() -> None:
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)


def listen(settings: Settings) -> socket.socket:
    """Return the listening socket.

    Its protocol is named: asyncio sets TCP_NODELAY on the accepted connections of such sockets only, and without that
    each answer on a kept connection waits for the peer's delayed acknowledgement (40 ms on Linux).

    Raises:
        AgentQueueError: the port is taken, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        made = socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
    except OSError as exc:
        where = f"{settings.host}:{settings.port}"
        raise AgentQueueError(
            f"the console can't listen on {where} ({exc.strerror or exc}); choose another with --port or --host"
        ) from exc
    return socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=made.detach())


def address_of(listener: socket.socket) -> str:
    """`http://host:port`, as a browser here reaches it."""
    host, port, *_ = listener.getsockname()
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # compared, not bound
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
