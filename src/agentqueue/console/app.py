"""The ASGI application: API, page, and what is around them."""

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
from agentqueue.console.auth import Guard
from agentqueue.console.repeated_logs import Lines
from agentqueue.errors import AgentQueueError, UsageError

STATIC: Final = Path(__file__).parent / "static"
PAGE: Final = "index.html"
MIN_TOKEN: Final = 8
MOST_REQUESTS: Final = 64
"""Requests under way together: each may hold a body of 1 MiB, and Redis serves a client 16 calls at once."""


def create_app(client: Client, *, token: str, lines: Lines | None = None, most_requests: int = MOST_REQUESTS) -> Guard:
    """Return the console on a client's server, as an ASGI application.

    Args:
        client: stays the caller's; it need not be connected yet.
        token: what callers must have.
        lines: writes the log's recurring lines; the caller may close it at the end.
        most_requests: under way together; a further one is answered 503.

    Raises:
        UsageError: the token is shorter than 8 characters, or has spaces around it.
    """
    if len(token) < MIN_TOKEN or token != token.strip():
        raise UsageError(f"the console's token must have at least {MIN_TOKEN} characters, and no spaces around it")
    app = Starlette(
        routes=[*page_routes(), *api.routes()],
        exception_handlers={
            problems.Problem: problems.on_problem,
            AgentQueueError: problems.on_our_error,
            ClientDisconnect: problems.on_disconnect,
            HTTPException: problems.on_http_error,
            Exception: problems.on_bug,
        },
    )
    app.router.redirect_slashes = False  # the redirect would lead where the header Host says
    app.state.client = client
    app.state.token = token
    app.state.lines = lines or Lines()
    # Not one of the application's own middlewares: the answer to a bug does not pass those.
    return Guard(app, token=token, lines=app.state.lines, most=most_requests)


def page_routes() -> Sequence[Route]:
    """Return the routes of the page and its files.

    The files are few and small. They are read once, so that answering takes no file descriptor and no thread.
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
