"""The console's HTTP server, from its start to a signal."""

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
from agentqueue.console.app import MAX_REQUESTS, create_app
from agentqueue.console.auth import MAX_STREAMS, AccessMiddleware
from agentqueue.console.connections import BACKLOG, Connection, connection_limit
from agentqueue.console.repeated_logs import RepeatedLogs
from agentqueue.console.settings import Settings
from agentqueue.errors import AgentQueueError
from agentqueue.store import ServerOptions

log = structlog.get_logger("agentqueue.console")
KEEP_ALIVE_SECONDS: Final = 15
"""Time for the next request on a connection, in seconds. The page sends one every two seconds."""
STOP_SECONDS: Final = 5
"""Time for running requests to finish after SIGTERM, in seconds. Kubernetes waits 30 s before SIGKILL."""
REDIS_TIMEOUT_SECONDS: Final = 8.0
"""Time for a reply from Redis, in seconds. A person waits for it."""


class _Server(uvicorn.Server):
    """A server without uvicorn's signal handlers, which raise the signal again: SIGTERM would not exit with 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(options: ServerOptions, settings: Settings, *, announce: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        options: The Redis whose queues are shown.
        settings: The address and the token.
        announce: Is called with the page's address once the port is open.

    Raises:
        AgentQueueError: The port is in use, or this machine does not have the address.
        UsageError: The token is too short.
    """
    client = Client.at(replace(options, connect_timeout=2.0, timeout=REDIS_TIMEOUT_SECONDS))
    repeated_logs, limit = RepeatedLogs(), connection_limit()
    try:
        app = create_app(
            client,
            token=settings.token,
            repeated_logs=repeated_logs,
            max_requests=min(MAX_REQUESTS, limit // 2),
            max_streams=min(MAX_STREAMS, limit // 3),
        )
        limits = {"max_connections": limit, "repeated_logs": repeated_logs}
        server = make_server(app, type("ConsoleConnection", (Connection,), limits))
        with listen(settings) as listener:

            def stop() -> None:
                server.should_exit = True

            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, stop)
            announce(address_of(listener))
            log.info("console_started", address=address_of(listener))
            await server.serve(sockets=[listener])
            log.info("console_stopped")
    finally:
        repeated_logs.close()
        await client.close()


def make_server(app: AccessMiddleware, connection: type[Connection]) -> uvicorn.Server:
    """Return a server for the application, with connections of the given class."""
    return _Server(
        uvicorn.Config(
            app,
            access_log=False,
            backlog=BACKLOG,
            http=connection,
            lifespan="off",
            log_config=None,  # `set_up_logs` has configured the log
            log_level="warning",
            proxy_headers=False,  # any client can set these headers; they are logged beside the real address
            server_header=False,
            timeout_graceful_shutdown=STOP_SECONDS,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            ws="none",
        )
    )


def listen(settings: Settings) -> socket.socket:
    """Return the listening socket.

    Its protocol number is set to TCP. asyncio sets TCP_NODELAY only on connections of such sockets. Without it, each
    response on a kept connection waits for the peer's delayed acknowledgement (40 ms on Linux).

    Raises:
        AgentQueueError: The port is in use, or this machine does not have the address.
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
    """Return `http://host:port`, an address for a browser on this machine."""
    host, port, *_ = listener.getsockname()
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # compared, not bound
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
