"""Who may ask, and what every answer carries."""

import asyncio
import hmac
from http import HTTPStatus
from typing import Final

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agentqueue.console.errors import REDIS_AWAY, REDIS_BACK, busy, render, unauthorized
from agentqueue.console.repeated_logs import Lines

MAX_LOGGED: Final = 200
"""Characters of a path or a header that a line of the log has."""
ALIVE: Final = "/healthz"
"""Answered however many requests are under way."""
OPEN: Final = frozenset({"/", ALIVE, "/api/health/queue"})
OPEN_PREFIX: Final = "/static/"
"""The page and its files hold nothing secret: the page asks for the token and sends it with every call."""
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def is_open(path: str) -> bool:
    """Whether the path needs no token."""
    return path in OPEN or path.startswith(OPEN_PREFIX)


def is_authorized(header: str | None, token: str) -> bool:
    """Whether an Authorization header carries the token. Takes the same time for every wrong one.

    A bearer token and never a cookie: a foreign page can't make a browser send it, so there is no forged request.
    """
    scheme, _, given = (header or "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())


class Guard:
    """The outermost part of the application: no answer leaves without passing it.

    It lets requests with the token pass, bounds how many are under way, binds who asks to the log's lines, and puts the
    security headers on every answer, also on those to errors.

    Args:
        app: what is guarded.
        token: what callers must have.
        lines: the log of what happens often.
        most: requests with the token that may be under way together. Of those without, half as many may.
    """

    def __init__(self, app: ASGIApp, *, token: str, lines: Lines, most: int) -> None:
        self.app = app
        self.token = token
        self.lines = lines
        self._known, self._strangers = asyncio.Semaphore(most), asyncio.Semaphore(max(1, most // 2))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, as ASGI has it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        answered = 0

        async def send_guarded(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = message["status"]
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        who = peer_of(scope)
        with structlog.contextvars.bound_contextvars(**who, method=scope["method"], path=scope["path"][:MAX_LOGGED]):
            app = self._choose(scope, who["peer"])
            await app(scope, receive, send_guarded)
        if answered < HTTPStatus.BAD_REQUEST and scope["path"].startswith("/api/"):
            self.lines.over(REDIS_AWAY, REDIS_BACK)

    def _choose(self, scope: Scope, peer: str) -> ASGIApp:
        """Return what answers the request: the application, or a refusal."""
        path, header = scope["path"], Headers(scope=scope).get("authorization")
        authorized = is_authorized(header, self.token)
        if not authorized and not is_open(path):
            reason = "the token is wrong" if header else "there is no token"
            self.lines.warn("request_refused", peer=peer, reason=reason)
            return unauthorized()
        if path == ALIVE:
            return self.app
        room = self._known if authorized else self._strangers
        if room.locked():
            self.lines.warn("too_many_requests", peer=peer)
            return render(busy(), path)

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            async with room:
                await self.app(scope, receive, send)

        return counted


def peer_of(scope: Scope) -> dict[str, str]:
    """Return who asks, for the log: the connection's address, and what a proxy says of the address behind it."""
    client = scope.get("client")
    forwarded = Headers(scope=scope).get("x-forwarded-for")
    who = {"peer": client[0] if client else ""}
    return who if forwarded is None else who | {"forwarded_for": forwarded[:MAX_LOGGED]}
