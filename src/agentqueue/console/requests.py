"""Reading of requests: JSON bodies of limited size, and query parameters."""

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from starlette.requests import Request

from agentqueue.console.errors import HttpProblem
from agentqueue.errors import InvalidPayload, UsageError
from agentqueue.model.json import MAX_BYTES
from agentqueue.model.json_input import read_json

MAX_BODY: Final = MAX_BYTES + 64 * 1024
"""Maximum size of a body, in bytes: the largest job and its envelope. A larger job gets its own error message."""
BODY_SECONDS: Final = 20.0
"""Time for a whole body to arrive, in seconds. A slower caller would keep one of the few places for requests."""


async def read_object(request: Request) -> dict[str, Any]:
    """Return the body, which must be a JSON object. An empty body is an empty object.

    Raises:
        HttpProblem: The body is too slow (408), too large (413) or not declared as JSON (415).
        UsageError: The body is not JSON, or not an object.
    """
    try:
        async with asyncio.timeout(BODY_SECONDS):
            raw = await _read(request)
    except TimeoutError:
        raise HttpProblem(
            HTTPStatus.REQUEST_TIMEOUT, f"the body did not arrive within {BODY_SECONDS:g} s", Connection="close"
        ) from None
    if not raw:
        return {}
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise HttpProblem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"send JSON with Content-Type: application/json, not {kind or 'none'!r:.80}",
        )
    try:
        value = read_json(raw, "the body")
    except InvalidPayload as exc:  # The whole body is not JSON: a wrong request (400), not a wrong payload (422).
        raise UsageError(str(exc)) from exc
    if not isinstance(value, dict):
        raise UsageError(f'the body must be a JSON object, like {{"name": …}}, not {type(value).__name__}')
    return value


async def _read(request: Request) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BODY:
            raise HttpProblem(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the body is over {MAX_BODY:,} bytes; store the bulk elsewhere and pass a reference",
                Connection="close",
            )
        chunks.append(chunk)
    return b"".join(chunks)


def parse_fields(body: Mapping[str, Any], **wanted: type | tuple[type, ...]) -> dict[str, Any]:
    """Return the fields of a body. A field that is null counts as absent.

    Args:
        body: The JSON object.
        wanted: The type, or types, of each field that is allowed.

    Raises:
        UsageError: A field has another type, or is not allowed.
    """
    unknown = body.keys() - wanted.keys()
    if unknown:
        raise UsageError(f"the body has no field {min(unknown)!r:.80}; it may have {', '.join(sorted(wanted))}")
    given = {name: value for name, value in body.items() if value is not None}
    for name, value in given.items():
        kinds = wanted[name]
        if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
            raise UsageError(f"the body's field {name!r} must not be a {type(value).__name__}")
    return given


def integer(request: Request, name: str, default: int) -> int:
    """Return a query parameter that is a whole number, or `default`. The caller checks its range.

    Raises:
        UsageError: It is not a whole number.
    """
    text = request.query_params.get(name)
    if text is None:
        return default
    if text.isascii() and text.isdigit() and len(text) < 10:
        return int(text)
    raise UsageError(f"?{name}={text:.40} must be a whole number")


def word_list(request: Request, name: str) -> list[str]:
    """Return the comma-separated words of a query parameter. The caller checks them."""
    return [word for word in request.query_params.get(name, "").split(",") if word]


def boolean(request: Request, name: str, *, default: bool = False) -> bool:
    """Return a query parameter that is `true` or `false`, or `default`.

    Raises:
        UsageError: It is neither.
    """
    text = request.query_params.get(name, str(default)).lower()
    if text not in ("true", "false"):
        raise UsageError(f"?{name}={text:.40} must be true or false")
    return text == "true"
