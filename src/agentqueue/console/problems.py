"""Errors as answers: RFC 9457 problem details, and the plain 401 that clients of the statistics know."""

from http import HTTPStatus
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

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

RETRY_AFTER: Final = 2
"""Seconds after which a caller may try again: a server that restarts takes about so long."""
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


def render(problem: Problem, path: str) -> JSONResponse:
    """The problem as `application/problem+json`."""
    body: dict[str, Any] = {
        "type": problem.kind,
        "title": problem.status.phrase,
        "status": problem.status.value,
        "detail": problem.detail,
        "instance": path,
    }
    return JSONResponse(body, problem.status, problem.headers, media_type="application/problem+json")


def unauthorized() -> JSONResponse:
    """The answer to a request without the right token."""
    return JSONResponse({"error": "Unauthorized"}, HTTPStatus.UNAUTHORIZED, {"WWW-Authenticate": "Bearer"})


async def on_problem(request: Request, exc: Exception) -> JSONResponse:
    """Handler for Problem."""
    assert isinstance(exc, Problem)
    return render(exc, request.url.path)


async def on_our_error(request: Request, exc: Exception) -> JSONResponse:
    """Handler for AgentQueueError: the message says what, why and what next, so it is shown as it is."""
    assert isinstance(exc, AgentQueueError)
    status = status_of(exc)
    problem = Problem(status, str(exc), kind=f"urn:agentqueue:error:{type(exc).__name__}")
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        problem.headers["Retry-After"] = str(RETRY_AFTER)
    return render(problem, request.url.path)


async def on_http_error(request: Request, exc: Exception) -> JSONResponse:
    """Handler for the framework's own: no such path, method not allowed."""
    assert isinstance(exc, HTTPException)
    status = HTTPStatus(exc.status_code)
    detail = {
        HTTPStatus.NOT_FOUND: "there is nothing at this path; the console's page is at /",
        HTTPStatus.METHOD_NOT_ALLOWED: f"{request.method} does not go here; see the header Allow",
    }.get(status, exc.detail)
    problem = Problem(status, detail)
    problem.headers |= exc.headers or {}
    return render(problem, request.url.path)


async def on_bug(request: Request, _exc: Exception) -> JSONResponse:
    """Handler for everything else: the framework raises it once more for the server's log; the caller is not told."""
    problem = Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "the console has failed; its log has the details")
    return render(problem, request.url.path)
