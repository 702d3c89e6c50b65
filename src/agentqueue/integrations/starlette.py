"""A job's stream as the response of a Starlette or FastAPI application: server-sent events for a browser.

@app.get("/answers/{job_id}")
async def answer(job_id: str, request: Request) -> Response:
return await sse_response(client, job_id, request)
"""

from collections.abc import AsyncGenerator
from http import HTTPStatus

from agentqueue.client import Client, StreamEvent
from agentqueue.client.server_sent_events import HEADERS, open_stream, send_events
from agentqueue.errors import NotFound, QueueUnavailable, UsageError
from agentqueue.integrations.extras import needs_extra

with needs_extra("starlette"):
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import Receive, Scope, Send

LAST_EVENT_ID = "Last-Event-ID"


class EventStreamResponse(Response):
    """The events of a job as a response. It ends with the job, and when the reader goes or is too slow."""

    def __init__(self, events: AsyncGenerator[StreamEvent]) -> None:
        super().__init__(headers=HEADERS)
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events (the ASGI interface)."""
        if scope["method"] == "HEAD":
            await self._events.aclose()
            await super().__call__(scope, receive, send)
        else:
            await send_events(self._events, receive, send)


async def sse_response(client: Client, id: str, request: Request) -> Response:  # noqa: A002  # the public name
    """Return the stream of a job as server-sent events. The application says before who may read which job.

    Args:
        client: A client of the job's server.
        id: The job's ID.
        request: The request. Its `Last-Event-ID` says where the reader goes on.

    Raises:
        HTTPException: The job is not known (404), the last event's ID is none (400), or Redis does not answer (503).
    """
    try:
        return await event_stream(client, id, request)
    except NotFound as exc:
        raise HTTPException(HTTPStatus.NOT_FOUND, str(exc)) from exc
    except UsageError as exc:
        raise HTTPException(HTTPStatus.BAD_REQUEST, str(exc)) from exc
    except QueueUnavailable as exc:
        raise HTTPException(
            HTTPStatus.SERVICE_UNAVAILABLE, "Redis does not answer; try again", {"Retry-After": "2"}
        ) from exc


async def event_stream(client: Client, id: str, request: Request) -> Response:  # noqa: A002
    """Return the stream of a job, as `sse_response` does.

    Raises:
        AgentQueueError: See `Client.stream`.
    """
    events = await open_stream(client, id, request.headers.get(LAST_EVENT_ID) or None)
    return Response(status_code=HTTPStatus.NO_CONTENT) if events is None else EventStreamResponse(events)
