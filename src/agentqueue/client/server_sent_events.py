"""A job's stream as server-sent events, which browsers read with `EventSource`.

What the job emits arrives as messages without a name (`onmessage`), the others as `rewind`, `gap` and `end`. The data
is JSON. A browser that loses the connection sends the ID of its last event (`Last-Event-ID`), and goes on behind it.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final

import orjson

from agentqueue.client.async_client import Client
from agentqueue.keys import check_id
from agentqueue.model.stream import Follower, StreamEvent
from agentqueue.store.streams import StreamReader

HEADERS: Final = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx would hold the events back
}
RETRY_MS: Final = 2_000
"""Time after which a browser connects again, in ms."""
HEARTBEAT_S: Final = 15.0
"""Seconds without an event after which a comment is sent, so that proxies keep the connection."""
WRITE_S: Final = 30.0
"""Seconds in which a reader must take what is sent. A slower one loses its connection, and comes back for the rest."""
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


async def open_stream(client: Client, job_id: str, after: str | None) -> AsyncGenerator[StreamEvent] | None:
    """Return the events of a job behind one; None if the job has ended and that one was the end.

    Raises:
        JobNotFound: The job is not known.
        UsageError: `after` is not the ID of an event.
    """
    Follower(after)
    reader = StreamReader(client.server, check_id(job_id))
    state = await reader.state()
    if not (state.is_live or state.has_stream):
        await client.status(job_id)
    return None if after and state.end_id == after else client.stream(job_id, after)


def encode_event(event: StreamEvent) -> bytes:
    """Return an event as a server-sent event. A rewind and a gap leave the reader's last ID as it is."""
    lines = [] if event.type in ("rewind", "gap") else [b"id: %s\n" % event.id.encode()]
    if event.type != "data":
        lines.append(b"event: %s\n" % event.type.encode())
    return b"".join((*lines, b"data: ", orjson.dumps(event.data), b"\n\n"))


async def send_events(
    events: AsyncGenerator[StreamEvent],
    receive: Receive,
    send: Send,
    *,
    headers: Mapping[str, str] = HEADERS,
    heartbeat_s: float = HEARTBEAT_S,
    write_s: float = WRITE_S,
) -> None:
    """Send a job's events as the response of an ASGI application, until the job ends or the reader goes.

    One event is held at a time. The next one is read when the server has taken the last one, so that a slow reader
    costs no memory.

    Args:
        events: the events. They are closed at the end.
        receive: the application's.
        send: the application's.
        headers: headers of the response.
        heartbeat_s: seconds without an event after which a comment is sent.
        write_s: seconds in which the server must take what is sent.
    """

    async def write(chunk: bytes, *, more: bool = True) -> None:
        async with asyncio.timeout(write_s):
            await send({"type": "http.response.body", "body": chunk, "more_body": more})

    async def wait_for_disconnect() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": 200, "headers": raw})
    gone: asyncio.Future[Any] = asyncio.ensure_future(wait_for_disconnect())
    reading: asyncio.Future[Any] = asyncio.ensure_future(anext(events, None))
    try:
        await write(b"retry: %d\n\n" % RETRY_MS)
        while not gone.done():
            done, _ = await asyncio.wait({reading, gone}, timeout=heartbeat_s, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                await write(b":\n\n")
            elif reading in done:
                event = reading.result()
                if event is None:
                    break
                await write(encode_event(event))
                reading = asyncio.ensure_future(anext(events, None))
        if not gone.done():
            await write(b"", more=False)
    except TimeoutError:
        pass  # the reader is too slow; without the end of the response the server closes the connection
    finally:
        for task in (gone, reading):
            task.cancel()
        await asyncio.gather(gone, reading, return_exceptions=True)
        await events.aclose()
