"""The ASGI application: the API and the page, inside the access middleware."""

from collections.abc import Sequence
from hashlib import sha256
from http import HTTPStatus
from mimetypes import guess_type
from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from agentqueue.client import Client
from agentqueue.console import api
from agentqueue.console import errors as problems
from agentqueue.console.auth import MAX_STREAMS, AccessMiddleware
from agentqueue.console.repeated_logs import RepeatedLogs
from agentqueue.errors import AgentQueueError, UsageError

STATIC: Final = Path(__file__).parent / "static"
"""Folder with the files of the page."""
PAGE: Final = "index.html"
"""Name of the file that is served at `/`."""
MIN_TOKEN: Final = 8
"""Minimum length of the token, in characters. A shorter one is easy to guess."""
MAX_REQUESTS: Final = 64
"""Maximum number of concurrent requests. Each can hold a body of 1 MiB, and a client has 16 connections to Redis."""


def create_app(
    client: Client,
    *,
    token: str,
    repeated_logs: RepeatedLogs | None = None,
    max_requests: int = MAX_REQUESTS,
    max_streams: int = MAX_STREAMS,
) -> AccessMiddleware:
    """Return the console for the queues of a client's server, as an ASGI application.

    Args:
        client: The client. The caller closes it. It need not be connected yet.
        token: The token that callers must send.
        repeated_logs: Writes log lines of frequent events. The caller can close it at the end.
        max_requests: Maximum number of concurrent requests. A further one gets status 503.
        max_streams: Maximum number of streams that are read at a time. A further one gets status 503.

    Raises:
        UsageError: The token is shorter than 8 characters, or has spaces around it.
    """
    if len(token) < MIN_TOKEN or token != token.strip():
        raise UsageError(f"the console's token must have at least {MIN_TOKEN} characters, and no spaces around it")
    app = Starlette(
        routes=[*page_routes(), *api.routes()],
        exception_handlers={
            problems.HttpProblem: problems.on_problem,
            AgentQueueError: problems.on_agentqueue_error,
            ClientDisconnect: problems.on_disconnect,
            HTTPException: problems.on_http_error,
            Exception: problems.on_bug,
        },
    )
    app.router.redirect_slashes = False  # a redirect would lead to the server in the Host header
    app.state.client = client
    app.state.token = token
    app.state.repeated_logs = repeated_logs or RepeatedLogs()
    # It wraps the application: the response to an unexpected error does not pass Starlette's own middlewares.
    logs = app.state.repeated_logs
    return AccessMiddleware(app, token=token, repeated_logs=logs, max_requests=max_requests, max_streams=max_streams)


def page_routes() -> Sequence[Route]:
    """Return the routes of the page and its files.

    The files are few and small. They are read once, so that a response needs no file descriptor and no thread.
    """
    files = {path.name: path.read_bytes() for path in STATIC.iterdir() if path.is_file()}

    async def page(request: Request) -> Response:
        return _file(request, PAGE, files[PAGE])

    async def static(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in files:
            raise HTTPException(HTTPStatus.NOT_FOUND)
        return _file(request, name, files[name])

    return [Route("/", page), Route("/static/{name}", static)]


def _file(request: Request, name: str, content: bytes) -> Response:
    headers = {"Cache-Control": "no-cache", "ETag": f'"{sha256(content).hexdigest()[:32]}"'}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(content, headers=headers, media_type=guess_type(name)[0])
