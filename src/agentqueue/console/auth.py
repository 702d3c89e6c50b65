"""Access to the console: the token, the limit of concurrent requests, and the security headers."""

import asyncio
import hmac
from http import HTTPStatus
from typing import Final

import structlog
from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agentqueue.client.stream_tokens import is_stream_token
from agentqueue.clock import now_ms
from agentqueue.console.errors import REDIS_RECOVERED, REDIS_UNAVAILABLE, render, too_many_requests, unauthorized
from agentqueue.console.repeated_logs import RepeatedLogs

MAX_LOGGED: Final = 200
"""Maximum number of characters of a path or a header in a log line. Callers choose both."""
HEALTH_PATH: Final = "/healthz"
"""Path of the health check. It is exempt from the limit of concurrent requests, so that a busy pod is not restarted."""
PUBLIC_PATHS: Final = frozenset({"/", HEALTH_PATH, "/api/health/queue"})
"""Paths that need no token: the page and the health checks."""
PUBLIC_PREFIX: Final = "/static/"
"""Prefix of the page's files. They contain no secrets: the page asks for the token and sends it with every request."""
MAX_STREAMS: Final = 100
"""Maximum number of streams that are read at a time. Each holds a connection to Redis, and one batch of events."""
JOB_PREFIX: Final = "/api/jobs/"
STREAM_SUFFIX: Final = "/stream"
"""Beginning and end of the path of a job's stream."""
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content Security Policy of the page: scripts, styles and requests from the console only."""
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Security headers of every response, also of error responses."""


def is_public(path: str) -> bool:
    """Return whether the path needs no token."""
    return path in PUBLIC_PATHS or path.startswith(PUBLIC_PREFIX)


def is_authorized(header: str | None, token: str) -> bool:
    """Return whether an Authorization header has the token. The comparison takes constant time.

    The token is never in a cookie. Another site's page cannot make a browser send it, so requests cannot be forged.
    """
    scheme, _, given = (header or "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())


def stream_job(scope: Scope) -> str | None:
    """Return the ID of the job whose stream a request reads; None for any other request."""
    path = scope["path"]
    is_stream = path.startswith(JOB_PREFIX) and path.endswith(STREAM_SUFFIX) and scope["method"] in ("GET", "HEAD")
    return path[len(JOB_PREFIX) : -len(STREAM_SUFFIX)] if is_stream else None


def may_read_stream(scope: Scope, job_id: str, token: str) -> bool:
    """Return whether a request has a token for the stream of this job: in its query, or as a bearer token.

    `EventSource` of browsers can't send a header. A query may be logged by proxies, so the console's own token does not
    count there.
    """
    header = Headers(scope=scope).get("authorization") or ""
    given = QueryParams(scope.get("query_string", b"").decode("latin-1")).get("token")
    given = given or header.partition(" ")[2].strip()
    return is_stream_token(token, job_id, given, now_s=now_ms() // 1000)


class AccessMiddleware:
    """The outermost part of the application, which every request and response passes.

    It checks the token, limits concurrent requests, adds the caller to log lines, and sets the security headers.

    Args:
        app: The application inside.
        token: The token that callers must send.
        repeated_logs: Writes log lines of frequent events.
        max_requests: Maximum number of concurrent requests with the token. Requests without it have half as many.
        max_streams: Maximum number of streams that are read at a time. They are no part of the others.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        token: str,
        repeated_logs: RepeatedLogs,
        max_requests: int,
        max_streams: int = MAX_STREAMS,
    ) -> None:
        self.app = app
        self.token = token
        self.repeated_logs = repeated_logs
        self._authorized = asyncio.Semaphore(max_requests)
        self._anonymous = asyncio.Semaphore(max(1, max_requests // 2))
        self._streams = asyncio.Semaphore(max_streams)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request (the ASGI interface)."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        who = peer_of(scope)
        with structlog.contextvars.bound_contextvars(**who, method=scope["method"], path=scope["path"][:MAX_LOGGED]):
            app = self._select_app(scope, who["peer"])
            await app(scope, receive, send_with_headers)
        if status < HTTPStatus.BAD_REQUEST and scope["path"].startswith("/api/"):
            self.repeated_logs.recovered(REDIS_UNAVAILABLE, REDIS_RECOVERED)

    def _select_app(self, scope: Scope, peer: str) -> ASGIApp:
        """Return the application, or the error response if the request is refused."""
        path, header = scope["path"], Headers(scope=scope).get("authorization")
        job_id = stream_job(scope)
        authorized = is_authorized(header, self.token)
        if not authorized and job_id is not None:
            authorized = may_read_stream(scope, job_id, self.token)
        if not authorized and not is_public(path):
            reason = "the token is wrong" if header else "there is no token"
            self.repeated_logs.warn("request_refused", peer=peer, reason=reason)
            return unauthorized()
        if path == HEALTH_PATH:
            return self.app
        limit = self._authorized if authorized else self._anonymous
        if job_id is not None:
            limit = self._streams
        if limit.locked():
            self.repeated_logs.warn("too_many_requests", peer=peer)
            return render(too_many_requests(), path)

        async def run_within_limit(scope: Scope, receive: Receive, send: Send) -> None:
            async with limit:
                await self.app(scope, receive, send)

        return run_within_limit


def peer_of(scope: Scope) -> dict[str, str]:
    """Return the caller for log lines: the connection's address, and the one that a proxy reports."""
    client = scope.get("client")
    forwarded = Headers(scope=scope).get("x-forwarded-for")
    who = {"peer": client[0] if client else ""}
    return who if forwarded is None else who | {"forwarded_for": forwarded[:MAX_LOGGED]}
