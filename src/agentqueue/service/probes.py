"""HTTP server for `/healthz`, `/readyz` and `/metrics`, in a thread, so that it responds while the event loop is busy.

It is for programs with prometheus-client, which the library itself does not need.
"""

import contextlib
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import structlog
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.exposition import choose_encoder

from agentqueue.clock import monotonic
from agentqueue.errors import UsageError

IDLE_TIMEOUT_S: Final = 10.0
"""Time in which a client must send or read something, in seconds. The kubelet's probes take milliseconds."""
MAX_CONNECTION_S: Final = 30.0
"""Maximum life of a connection, in seconds. It bounds clients that send slowly."""
MAX_CONNECTIONS: Final = 32
"""Maximum number of connections. Each has a thread and a file descriptor."""
BACKLOG: Final = 64
"""Connections that wait in the kernel to be accepted."""
log = structlog.get_logger()
Check = Callable[[], str]
"""A check that returns the problem, or an empty string if there is none."""


class Probes:
    """The HTTP server.

    Args:
        port: The port, on all addresses: the kubelet and Prometheus connect from outside the pod.
        variable: The variable that sets the port, for the error message.
        live: The check of `/healthz`, for problems that a restart of the process solves.
        ready: The check of `/readyz`, for problems that keep the process from its work.
        registry: The metrics.

    Raises:
        UsageError: The port is in use.
    """

    def __init__(
        self, port: int, variable: str, *, live: Check, ready: Check, registry: CollectorRegistry = REGISTRY
    ) -> None:
        parts = {"registry": registry, "live": staticmethod(live), "ready": staticmethod(ready)}
        try:
            self._server = _Server(("", port), type("Handler", (_Handler,), parts))
        except OSError as exc:
            raise UsageError(
                f"the port {port} can't be used ({exc.strerror}); set {variable} to another, or to 0"
            ) from exc
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, name="probes", daemon=True
        )

    @property
    def port(self) -> int:
        """The port in use. It is a free one if port 0 was requested."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Start the server."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the server and close the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(2.0)


@contextlib.contextmanager
def probing(
    port: int, variable: str, *, live: Check, ready: Check, registry: CollectorRegistry = REGISTRY
) -> Iterator[None]:
    """Run `Probes` during the block. Port 0 disables them."""
    if not port:
        yield
        return
    probes = Probes(port, variable, live=live, ready=ready, registry=registry)
    probes.start()
    try:
        yield
    finally:
        probes.stop()


class _Server(ThreadingHTTPServer):
    """A server that always accepts new clients. If there are too many connections, it closes the oldest one."""

    daemon_threads = True
    request_queue_size = BACKLOG

    def __init__(self, *args: Any) -> None:
        self._since: dict[Any, float] = {}
        """Start time of each open connection, the oldest one first."""
        self._lock = threading.Lock()
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in its own thread."""
        with self._lock:
            self._since[request] = monotonic()
            if len(self._since) > MAX_CONNECTIONS:
                self._end(next(iter(self._since)))
        super().process_request(request, client_address)

    def service_actions(self) -> None:
        """Close connections that are too old. The server calls it at least five times per second."""
        with self._lock:
            before = monotonic() - MAX_CONNECTION_S
            for request in [request for request, since in self._since.items() if since < before]:
                self._end(request)

    def _end(self, request: Any) -> None:
        """Wake a connection's thread, which then closes it. The caller holds the lock, so the socket is still open."""
        del self._since[request]
        with contextlib.suppress(OSError):  # The peer has disconnected.
            request.shutdown(socket.SHUT_RDWR)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection after its request."""
        with self._lock:
            self._since.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002  # the framework's
        """Log an error in the thread of a connection. A peer that disconnects is not an error."""
        exc = sys.exception()
        if isinstance(exc, ConnectionError | TimeoutError):
            log.debug("probe_peer_gone", peer=client_address[0], error=type(exc).__name__)
        else:
            log.error("probe_failed", peer=client_address[0], exc_info=exc)


class _Handler(BaseHTTPRequestHandler):
    timeout = IDLE_TIMEOUT_S
    disable_nagle_algorithm = True
    registry: CollectorRegistry
    live: Check
    ready: Check

    def do_GET(self) -> None:
        """Respond to a request."""
        path = self.path.partition("?")[0]
        if path == "/metrics":
            encoder, content_type = choose_encoder(self.headers.get("Accept", ""))
            self._respond(200, encoder(self.registry), content_type)
        elif path == "/healthz":
            self._respond_check("alive", self.live())
        elif path == "/readyz":
            self._respond_check("ready", self.ready())
        else:
            self._respond(404, b"not found: /healthz, /readyz, /metrics\n")

    def _respond_check(self, word: str, problem: str) -> None:
        self._respond(503 if problem else 200, f"{problem or word}\n".encode())

    def _respond(self, status: int, body: bytes, content_type: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Log nothing: probes arrive every few seconds."""
