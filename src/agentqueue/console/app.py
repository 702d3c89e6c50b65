"""The ASGI application: API, page, and what is around them."""

from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from agentqueue.client import Client
from agentqueue.console import api, problems
from agentqueue.console.guard import Guard
from agentqueue.errors import AgentQueueError, UsageError

STATIC: Final = Path(__file__).parent / "static"
MIN_TOKEN: Final = 8


def create_app(client: Client, *, token: str) -> Starlette:
    """The console on a client's server. The client stays the caller's: it need not be connected yet.

    Raises:
        UsageError: the token is shorter than 8 characters, or has spaces around it.
    """
    if len(token) < MIN_TOKEN or token != token.strip():
        raise UsageError(f"the console's token must have at least {MIN_TOKEN} characters, and no spaces around it")
    app = Starlette(
        routes=[Route("/", page), Mount("/static", StaticFiles(directory=STATIC)), *api.routes()],
        middleware=[Middleware(Guard, token=token)],
        exception_handlers={
            problems.Problem: problems.on_problem,
            AgentQueueError: problems.on_our_error,
            HTTPException: problems.on_http_error,
            Exception: problems.on_bug,
        },
    )
    app.state.client = client
    app.state.token = token
    return app


async def page(_request: Request) -> Response:
    """The web page."""
    return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})
