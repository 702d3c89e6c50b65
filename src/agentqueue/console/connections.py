"""What a connection may do to the console: how long it may take, and how many there may be."""

import logging
import resource
from typing import TYPE_CHECKING, Any, ClassVar, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from agentqueue.console.auth import HEADERS
from agentqueue.console.errors import INVALID_REQUEST, MEDIA_TYPE
from agentqueue.console.repeated_logs import Lines

if TYPE_CHECKING:
    from asyncio import TimerHandle

CONNECTION_LOG: Final = logging.getLogger("uvicorn.error.connection")
CONNECTION_LOG.setLevel(logging.ERROR)  # a peer can cause any number of uvicorn's warnings
MOST_CONNECTIONS: Final = 256
SPARE_FILES: Final = 64
"""File descriptors that connections leave to Redis's pool, the log and the listening socket."""
BACKLOG: Final = 100
"""Connections that the kernel may hold before they are accepted; the event loop accepts so many in one go."""


def room_for_connections() -> int:
    """Return how many connections the console may hold, within the process's limit of open files.

    A third of what is left: a burst of accepted connections and those that are being closed need files, too.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return max(8, min(MOST_CONNECTIONS, (limit - SPARE_FILES) // 3))


class Connection(H11Protocol):
    """uvicorn's HTTP/1.1 connection, with limits that uvicorn lacks.

    A request's head must arrive in time, and an answer must be taken in time. When there are too many connections, the
    one that has gone longest without a request under way is closed for the new one: those that send nothing, or half a
    request, can't keep others out.
    """

    most: ClassVar[int] = MOST_CONNECTIONS
    lines: ClassVar[Lines]
    head_seconds: ClassVar[float] = 10.0
    """From the first byte of a request, or from the start of the connection, to the end of the request's head."""
    write_seconds: ClassVar[float] = 20.0
    """For which a peer may take nothing of an answer that is under way."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self._head_timer: TimerHandle | None = None
        self._write_timer: TimerHandle | None = None
        self.idle_since = 0.0
        self.logger = CONNECTION_LOG

    @property
    def is_idle(self) -> bool:
        """Whether no request is under way: nothing has come yet, half a head, or the last answer is complete."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None or cycle.response_complete

    def connection_made(self, transport: Any) -> None:
        """Start the time for the first request's head, and close another connection if there are too many."""
        super().connection_made(transport)
        self.idle_since = self.loop.time()
        self._expect_head()
        self._make_room()

    def _make_room(self) -> None:
        """If there are too many connections, close the one that has been idle longest, or this one if none is."""
        held = [each for each in self.connections if isinstance(each, Connection) and not each.transport.is_closing()]
        if len(held) <= self.most:
            return
        idle = (each for each in held if each.is_idle and each is not self)
        victim = min(idle, key=lambda each: each.idle_since, default=self)
        peer = victim.client[0] if victim.client else ""
        self.lines.warn("connection_closed", reason=f"there are more than {self.most} connections", peer=peer)
        victim.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take a part of a request."""
        super().data_received(data)
        self._expect_head()

    def _expect_head(self) -> None:
        """The time for a head runs while no request is under way, and is not extended by a part of one."""
        waits = self.is_idle and not self.transport.is_closing()
        if waits and self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_seconds, self.transport.abort)
        elif not waits and self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def on_response_complete(self) -> None:
        """Wait for the next request, or for the peer to take the end of the last answer."""
        self.idle_since = self.loop.time()
        if self.transport.is_closing():
            self.loop.call_later(self.write_seconds, self.transport.abort)
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Start the time for the peer to take what is in the buffer."""
        super().pause_writing()
        self._write_timer = self.loop.call_later(self.write_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """The peer has taken the most of it."""
        super().resume_writing()
        self._end_write_timer()

    def _end_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def connection_lost(self, exc: Exception | None) -> None:
        """End the timers."""
        super().connection_lost(exc)
        self._end_write_timer()
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that had its time for another request; what its peer has not taken is dropped."""
        self.transport.abort()

    def _should_upgrade(self) -> bool:
        """There is no other protocol: such a request is answered as any other, without a line in the log."""
        return False

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP request, in the form of all errors and with the headers of all answers."""
        self.lines.warn("invalid_request", peer=self.client[0] if self.client else "", reason=msg)
        fields = {**HEADERS, "Content-Type": MEDIA_TYPE, "Cache-Control": "no-store", "Connection": "close"}
        head = h11.Response(status_code=400, headers=list(fields.items()), reason=b"Bad Request")
        try:
            for event in (head, h11.Data(data=INVALID_REQUEST), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        except h11.LocalProtocolError:
            pass  # the answer to the request before is under way: this one can't be sent any more
        self.transport.close()
