"""`/healthz`, `/readyz`, `/metrics` on one port, from a thread: the loops may be busy when the kubelet asks.

For processes that have prometheus-client: the library itself does without.
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

TIMEOUT_S: Final = 10.0
"""For which a client may send or take nothing."""
LONGEST_S: Final = 30.0
"""A connection's whole life."""
MOST: Final = 32
"""Connections at once; each has a thread and a file descriptor."""
BACKLOG: Final = 64
"""Connections that the kernel holds until they are accepted."""
log = structlog.get_logger()
Check = Callable[[], str]
"""Gives what is wrong; '' if nothing is."""


class Probes:
    """The HTTP server.

    Args:
        port: to listen on, on all addresses: the kubelet and Prometheus come from outside the pod.
        variable: that sets the port; named when it is taken.
        live: what a restart of the process would heal.
        ready: what keeps the process from its work.

    Raises:
        UsageError: the port is taken.
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
        """Where it listens (asked for 0: where it found room)."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Close the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(2.0)


@contextlib.contextmanager
def probing(
    port: int, variable: str, *, live: Check, ready: Check, registry: CollectorRegistry = REGISTRY
) -> Iterator[None]:
    """`Probes` for a while; none on port 0."""
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
    """A server that answers each new client, even if many others send nothing: the oldest connection makes room."""

    daemon_threads = True
    request_queue_size = BACKLOG

    def __init__(self, *args: Any) -> None:
        self._since: dict[Any, float] = {}
        """The connections that nobody has ended, the oldest first, and since when they are there."""
        self._lock = threading.Lock()
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread of its own."""
        with self._lock:
            self._since[request] = monotonic()
            if len(self._since) > MOST:
                self._end(next(iter(self._since)))
        super().process_request(request, client_address)

    def service_actions(self) -> None:
        """End connections that are too old. Called between two connections, and at least five times a second."""
        with self._lock:
            before = monotonic() - LONGEST_S
            for request in [request for request, since in self._since.items() if since < before]:
                self._end(request)

    def _end(self, request: Any) -> None:
        """Wake the connection's thread, which then closes it. While we hold the lock, the socket is not closed."""
        del self._since[request]
        with contextlib.suppress(OSError):  # its peer has gone
            request.shutdown(socket.SHUT_RDWR)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection that was served."""
        with self._lock:
            self._since.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002  # the framework's
        """Log what went wrong in a connection's thread. That a peer hangs up is no error of ours."""
        exc = sys.exception()
        if isinstance(exc, ConnectionError | TimeoutError):
            log.debug("probe_peer_gone", peer=client_address[0], error=type(exc).__name__)
        else:
            log.error("probe_failed", peer=client_address[0], exc_info=exc)


class _Handler(BaseHTTPRequestHandler):
    timeout = TIMEOUT_S
    disable_nagle_algorithm = True
    registry: CollectorRegistry
    live: Check
    ready: Check

    def do_GET(self) -> None:
        """Route."""
        path = self.path.partition("?")[0]
        if path == "/metrics":
            encoder, content_type = choose_encoder(self.headers.get("Accept", ""))
            self._answer(200, encoder(self.registry), content_type)
        elif path == "/healthz":
            self._tell("alive", self.live())
        elif path == "/readyz":
            self._tell("ready", self.ready())
        else:
            self._answer(404, b"not found: /healthz, /readyz, /metrics\n")

    def _tell(self, word: str, problem: str) -> None:
        self._answer(503 if problem else 200, f"{problem or word}\n".encode())

    def _answer(self, status: int, body: bytes, content_type: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Probes come every few seconds: not a word on them."""
