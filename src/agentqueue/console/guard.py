"""Who may ask, and what every answer carries."""

import hmac
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agentqueue.console.problems import unauthorized

OPEN: Final = frozenset({"/", "/healthz", "/api/health/queue"})
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
    """Lets requests with the token pass, and puts the security headers on every answer."""

    def __init__(self, app: ASGIApp, *, token: str) -> None:
        self.app = app
        self.token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        allowed = is_open(scope["path"]) or is_authorized(Headers(scope=scope).get("authorization"), self.token)
        await (self.app if allowed else unauthorized())(scope, receive, send_guarded)
