"""Errors as answers: RFC 9457 problem details, and the plain 401 that clients of the statistics know."""

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
    NotFound,
    QueueFull,
    QueueUnavailable,
    UnsupportedServer,
    UsageError,
)

log = structlog.get_logger("agentqueue.console")
MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER: Final = 2
"""Seconds after which a caller may try again: a server that restarts takes about so long."""
REDIS_AWAY: Final = "redis_unavailable"
REDIS_BACK: Final = "redis_available"
"""Lines of the log."""
STATUSES: Final = (
    (NotFound, HTTPStatus.NOT_FOUND),
    (InvalidPayload, HTTPStatus.UNPROCESSABLE_ENTITY),
    (InvalidName, HTTPStatus.UNPROCESSABLE_ENTITY),
    (UsageError, HTTPStatus.BAD_REQUEST),
    (QueueFull, HTTPStatus.INSUFFICIENT_STORAGE),
    (QueueUnavailable, HTTPStatus.SERVICE_UNAVAILABLE),
    (UnsupportedServer, HTTPStatus.BAD_GATEWAY),
)


class Problem(Exception):
    """An answer other than the one hoped for."""

    def __init__(self, status: HTTPStatus, detail: str, *, kind: str = "about:blank", **headers: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.kind = kind
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def status_of(error: AgentQueueError) -> HTTPStatus:
    """The status code for an error of ours."""
    return next(
        (status for kind, status in STATUSES if isinstance(error, kind)),
        HTTPStatus.INTERNAL_SERVER_ERROR,
    )


def render(problem: Problem, path: str) -> Response:
    """Return the problem as `application/problem+json`."""
    return Response(_body(problem, path), problem.status, problem.headers, media_type=MEDIA_TYPE)


def _body(problem: Problem, path: str) -> bytes:
    body: dict[str, Any] = {
        "type": problem.kind,
        "title": problem.status.phrase,
        "status": problem.status.value,
        "detail": problem.detail,
        "instance": path,
    }
    return orjson.dumps(body)


INVALID_REQUEST: Final = _body(
    Problem(HTTPStatus.BAD_REQUEST, "this is not an HTTP request, or its head is over 16 KiB"), ""
)
"""The answer's body where no path could be read."""


def unauthorized() -> Response:
    """Return the answer to a request without the right token."""
    headers = {"WWW-Authenticate": "Bearer"}
    return Response(b'{"error":"Unauthorized"}', HTTPStatus.UNAUTHORIZED, headers, media_type="application/json")


def busy() -> Problem:
    """Return the problem of a request for which there is no room now."""
    return _later(Problem(HTTPStatus.SERVICE_UNAVAILABLE, "too many requests are under way; try again later"))


def _later(problem: Problem) -> Problem:
    problem.headers["Retry-After"] = str(RETRY_AFTER)
    return problem


# The path is taken from the scope: `request.url` is made with the header Host, which may hold anything.


async def on_problem(request: Request, exc: Exception) -> Response:
    """Answer a Problem."""
    assert isinstance(exc, Problem)
    _log_failure(request, exc)
    return render(exc, request.scope["path"])


async def on_our_error(request: Request, exc: Exception) -> Response:
    """Answer an AgentQueueError: its message says what, why and what next, so it is shown as it is."""
    assert isinstance(exc, AgentQueueError)
    problem = Problem(status_of(exc), str(exc), kind=f"urn:agentqueue:error:{type(exc).__name__}")
    if problem.status is HTTPStatus.SERVICE_UNAVAILABLE:
        request.app.state.lines.warn(REDIS_AWAY, error=str(exc))
        _later(problem)
    _log_failure(request, problem)
    return render(problem, request.scope["path"])


def _log_failure(request: Request, problem: Problem) -> None:
    """Log a failed request for a change, so that the log names who asked for it; a failed read changes nothing."""
    if request.method not in ("GET", "HEAD"):
        log.warning("request_failed", status=problem.status.value, error=problem.detail)


async def on_http_error(request: Request, exc: Exception) -> Response:
    """Answer an error of the framework's: no such path, method not allowed."""
    assert isinstance(exc, HTTPException)
    status = HTTPStatus(exc.status_code)
    detail = {
        HTTPStatus.NOT_FOUND: "there is nothing at this path; the console's page is at /",
        HTTPStatus.METHOD_NOT_ALLOWED: f"{request.method} does not go here; see the header Allow",
    }.get(status, exc.detail)
    problem = Problem(status, detail)
    problem.headers |= exc.headers or {}
    return render(problem, request.scope["path"])


async def on_disconnect(_request: Request, _exc: Exception) -> Response:
    """End a request whose caller hung up before its body was whole. Nobody reads the answer, and nothing has failed."""
    return Response(status_code=HTTPStatus.BAD_REQUEST)


async def on_bug(request: Request, _exc: Exception) -> Response:
    """Answer for everything else: the framework raises it once more for the log; the caller gets no details."""
    problem = Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "the console has failed; its log has the details")
    return render(problem, request.scope["path"])
