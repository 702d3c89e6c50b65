"""Responses to errors: RFC 9457 problem details, and the plain 401 that clients of `/api/queue/stats` expect."""

from http import HTTPStatus
from typing import Any, Final

import orjson
import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from agentqueue.errors import (
    AgentQueueError,
    InvalidName,
    InvalidPayload,
    JobEnded,
    MailboxFull,
    NotFound,
    QueueFull,
    QueueUnavailable,
    UnsupportedServer,
    UsageError,
)

log = structlog.get_logger("agentqueue.console")
MEDIA_TYPE: Final = "application/problem+json"
"""Media type of error responses."""
RETRY_AFTER: Final = 2
"""Seconds after which a caller can try again. A restart of Redis takes about this time."""
REDIS_UNAVAILABLE: Final = "redis_unavailable"
REDIS_RECOVERED: Final = "redis_recovered"
"""Log events of a Redis outage: its first failure, and the first success after it."""
STATUS_CODES: Final = (
    (NotFound, HTTPStatus.NOT_FOUND),
    (InvalidPayload, HTTPStatus.UNPROCESSABLE_ENTITY),
    (InvalidName, HTTPStatus.UNPROCESSABLE_ENTITY),
    (UsageError, HTTPStatus.BAD_REQUEST),
    (JobEnded, HTTPStatus.CONFLICT),
    (MailboxFull, HTTPStatus.CONFLICT),
    (QueueFull, HTTPStatus.INSUFFICIENT_STORAGE),
    (QueueUnavailable, HTTPStatus.SERVICE_UNAVAILABLE),
    (UnsupportedServer, HTTPStatus.BAD_GATEWAY),
)
"""The status code of each kind of error. The first kind that fits is used."""


class HttpProblem(Exception):
    """An error response: its status code, its detail for people, its type as a URI, and its headers."""

    def __init__(self, status: HTTPStatus, detail: str, *, kind: str = "about:blank", **headers: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.kind = kind
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def status_of(error: AgentQueueError) -> HTTPStatus:
    """Return the status code of the response to an error."""
    return next(
        (status for kind, status in STATUS_CODES if isinstance(error, kind)),
        HTTPStatus.INTERNAL_SERVER_ERROR,
    )


def render(problem: HttpProblem, path: str) -> Response:
    """Return the problem as `application/problem+json`."""
    return Response(_body(problem, path), problem.status, problem.headers, media_type=MEDIA_TYPE)


def _body(problem: HttpProblem, path: str) -> bytes:
    body: dict[str, Any] = {
        "type": problem.kind,
        "title": problem.status.phrase,
        "status": problem.status.value,
        "detail": problem.detail,
        "instance": path,
    }
    return orjson.dumps(body)


INVALID_REQUEST: Final = _body(
    HttpProblem(HTTPStatus.BAD_REQUEST, "this is not an HTTP request, or its head is over 16 KiB"), ""
)
"""Body of the response to a request whose path cannot be read."""


def unauthorized() -> Response:
    """Return the response to a request without the right token."""
    headers = {"WWW-Authenticate": "Bearer"}
    return Response(b'{"error":"Unauthorized"}', HTTPStatus.UNAUTHORIZED, headers, media_type="application/json")


def too_many_requests() -> HttpProblem:
    """Return the problem of a request that exceeds the limit of concurrent requests."""
    problem = HttpProblem(HTTPStatus.SERVICE_UNAVAILABLE, "too many requests are running; try again later")
    return _with_retry_after(problem)


def _with_retry_after(problem: HttpProblem) -> HttpProblem:
    problem.headers["Retry-After"] = str(RETRY_AFTER)
    return problem


# The path is taken from the scope. `request.url` contains the Host header, which a caller can set to anything.


async def on_problem(request: Request, exc: Exception) -> Response:
    """Return the response to an HttpProblem."""
    assert isinstance(exc, HttpProblem)
    _log_failure(request, exc)
    return render(exc, request.scope["path"])


async def on_agentqueue_error(request: Request, exc: Exception) -> Response:
    """Return the response to an AgentQueueError, with its message. Messages are written for users."""
    assert isinstance(exc, AgentQueueError)
    problem = HttpProblem(status_of(exc), str(exc), kind=f"urn:agentqueue:error:{type(exc).__name__}")
    if problem.status is HTTPStatus.SERVICE_UNAVAILABLE:
        request.app.state.repeated_logs.warn(REDIS_UNAVAILABLE, error=str(exc))
        _with_retry_after(problem)
    _log_failure(request, problem)
    return render(problem, request.scope["path"])


def _log_failure(request: Request, problem: HttpProblem) -> None:
    """Log a failed change, so that the log names its caller. A failed read is not logged."""
    if request.method not in ("GET", "HEAD"):
        log.warning("request_failed", status=problem.status.value, error=problem.detail)


async def on_http_error(request: Request, exc: Exception) -> Response:
    """Return the response to an error of Starlette: an unknown path, or a method that is not allowed."""
    assert isinstance(exc, HTTPException)
    status = HTTPStatus(exc.status_code)
    detail = {
        HTTPStatus.NOT_FOUND: "there is nothing at this path; the console's page is at /",
        HTTPStatus.METHOD_NOT_ALLOWED: f"method {request.method} is not allowed here; see the header Allow",
    }.get(status, exc.detail)
    problem = HttpProblem(status, detail)
    problem.headers |= exc.headers or {}
    return render(problem, request.scope["path"])


async def on_disconnect(_request: Request, _exc: Exception) -> Response:
    """End a request whose caller disconnected before its body was complete. Nobody reads the response."""
    return Response(status_code=HTTPStatus.BAD_REQUEST)


async def on_bug(request: Request, _exc: Exception) -> Response:
    """Return the response to an unexpected error, without details. Starlette raises the error again, for the log."""
    problem = HttpProblem(HTTPStatus.INTERNAL_SERVER_ERROR, "the console has failed; its log has the details")
    return render(problem, request.scope["path"])
