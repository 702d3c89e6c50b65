"""`/healthz`, `/readyz`, `/metrics` on one port, from a thread: a handler that blocks the event loop fails no probe."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from prometheus_client import REGISTRY
from prometheus_client.exposition import choose_encoder

from agentqueue.errors import UsageError

TIMEOUT: Final = 10.0
"""Seconds for a client to say what it wants."""


class Probes:
    """The HTTP server.

    Args:
        port: to listen on, on all addresses: the kubelet and Prometheus come from outside the pod.
        live: whether the process does its work. Neither a blocked handler nor an absent Redis makes it false.
        ready: whether handlers are loaded and opened.

    Raises:
        UsageError: the port is taken.
    """

    def __init__(self, port: int, *, live: Callable[[], bool], ready: Callable[[], bool]) -> None:
        handler = type("Handler", (_Handler,), {"live": staticmethod(live), "ready": staticmethod(ready)})
        try:
            self._server = ThreadingHTTPServer(("", port), handler)
        except OSError as exc:
            raise UsageError(
                f"the probe port {port} can't be used ({exc.strerror}); set AGENTQUEUE_PROBE_PORT to another, or to 0"
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


class _Handler(BaseHTTPRequestHandler):
    timeout = TIMEOUT
    live: Callable[[], bool]
    ready: Callable[[], bool]

    def do_GET(self) -> None:
        """Route."""
        path = self.path.partition("?")[0]
        if path == "/metrics":
            encoder, content_type = choose_encoder(self.headers.get("Accept", ""))
            self._answer(200, encoder(REGISTRY), content_type)
        elif path == "/healthz":
            self._tell("alive", "the lease thread does not turn", self.live())
        elif path == "/readyz":
            self._tell("ready", "handlers are being loaded, or the worker ends", self.ready())
        else:
            self._answer(404, b"not found: /healthz, /readyz, /metrics\n")

    def _tell(self, word: str, problem: str, ok: bool) -> None:  # noqa: FBT001
        self._answer(200 if ok else 503, f"{word if ok else problem}\n".encode())

    def _answer(self, status: int, body: bytes, content_type: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Probes come every few seconds: not a word on them."""
