"""Limits for connections: their number, and the time that each can take."""

import logging
import resource
from typing import TYPE_CHECKING, Any, ClassVar, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from agentqueue.console.auth import HEADERS
from agentqueue.console.errors import INVALID_REQUEST, MEDIA_TYPE
from agentqueue.console.repeated_logs import RepeatedLogs

if TYPE_CHECKING:
    from asyncio import TimerHandle

CONNECTION_LOG: Final = logging.getLogger("uvicorn.error.connection")
CONNECTION_LOG.setLevel(logging.ERROR)  # any peer can cause uvicorn's warnings, in any number
MAX_CONNECTIONS: Final = 256
"""Maximum number of connections. Each can hold a body of 1 MiB and a response."""
SPARE_FILES: Final = 64
"""File descriptors that are reserved for the Redis pool, the log and the listening socket."""
BACKLOG: Final = 100
"""Connections that wait in the kernel to be accepted. The event loop accepts up to this number at a time."""


def connection_limit() -> int:
    """Return the maximum number of connections, within the process's limit of open files.

    They get a third of the files: a burst of accepted connections and connections that are closing need files, too.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(8, min(MAX_CONNECTIONS, (limit - SPARE_FILES) // 3))


class Connection(H11Protocol):
    """An HTTP/1.1 connection of uvicorn, with limits that uvicorn lacks.

    The head of a request must arrive in time, and the peer must read a response in time. If there are too many
    connections, the one that has been idle longest is closed. So callers that send nothing, or half a request, cannot
    keep others out.
    """

    max_connections: ClassVar[int] = MAX_CONNECTIONS
    repeated_logs: ClassVar[RepeatedLogs]
    head_seconds: ClassVar[float] = 10.0
    """Time for the head of a request, in seconds, from its first byte or from the start of the connection."""
    write_seconds: ClassVar[float] = 20.0
    """Time in which a peer must read some of the response, in seconds."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self._head_timer: TimerHandle | None = None
        self._write_timer: TimerHandle | None = None
        self.idle_since = 0.0
        self.logger = CONNECTION_LOG

    @property
    def is_idle(self) -> bool:
        """Return whether no request is running: none has arrived completely, or the last response is complete."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None or cycle.response_complete

    def connection_made(self, transport: Any) -> None:
        """Start the timer for the first request's head, and close a connection if there are too many."""
        super().connection_made(transport)
        self.idle_since = self.loop.time()
        self._expect_head()
        self._make_room()

    def _make_room(self) -> None:
        """If there are too many connections, close the one that has been idle longest, or this one if none is idle."""
        open_ = [each for each in self.connections if isinstance(each, Connection) and not each.transport.is_closing()]
        if len(open_) <= self.max_connections:
            return
        idle = (each for each in open_ if each.is_idle and each is not self)
        victim = min(idle, key=lambda each: each.idle_since, default=self)
        peer = victim.client[0] if victim.client else ""
        self.repeated_logs.warn(
            "connection_closed", reason=f"there are more than {self.max_connections} connections", peer=peer
        )
        victim.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Process received bytes of a request."""
        super().data_received(data)
        self._expect_head()

    def _expect_head(self) -> None:
        """Run the head's timer exactly while no request is running. A part of a head does not extend it."""
        waits = self.is_idle and not self.transport.is_closing()
        if waits and self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_seconds, self.transport.abort)
        elif not waits and self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def on_response_complete(self) -> None:
        """Wait for the next request, or for the peer to read the end of the last response."""
        self.idle_since = self.loop.time()
        if self.transport.is_closing():
            self.loop.call_later(self.write_seconds, self.transport.abort)
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Start the timer for the peer to read the buffered response."""
        super().pause_writing()
        self._write_timer = self.loop.call_later(self.write_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop that timer: the peer has read most of the buffer."""
        super().resume_writing()
        self._end_write_timer()

    def _end_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all timers."""
        super().connection_lost(exc)
        self._end_write_timer()
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection. Data that the peer has not read is dropped."""
        self.transport.abort()

    def _should_upgrade(self) -> bool:
        """Refuse every upgrade. The request is answered as any other, without a log line."""
        return False

    def send_400_response(self, msg: str) -> None:
        """Respond to bytes that are not an HTTP request, in the form of other errors and with the same headers."""
        self.repeated_logs.warn("invalid_request", peer=self.client[0] if self.client else "", reason=msg)
        fields = {**HEADERS, "Content-Type": MEDIA_TYPE, "Cache-Control": "no-store", "Connection": "close"}
        head = h11.Response(status_code=400, headers=list(fields.items()), reason=b"Bad Request")
        try:
            for event in (head, h11.Data(data=INVALID_REQUEST), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        except h11.LocalProtocolError:
            pass  # A response is being sent, so this one cannot be sent.
        self.transport.close()
