"""`/healthz`, `/readyz`, `/metrics` on one port, from a thread: the loops may be busy when the kubelet asks.

For processes that have prometheus-client: the library itself does without.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.exposition import choose_encoder

from agentqueue.errors import UsageError

TIMEOUT_S: Final = 10.0
"""For a client to say what it wants."""
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
            self._server = ThreadingHTTPServer(("", port), type("Handler", (_Handler,), parts))
        except OSError as exc:
            raise UsageError(
                f"the port {port} can't be used ({exc.strerror}); set {variable} to another, or to 0"
            ) from exc
        self._server.daemon_threads = True
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


class _Handler(BaseHTTPRequestHandler):
    timeout = TIMEOUT_S
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
