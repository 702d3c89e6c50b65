"""What requests bring: bodies of JSON within a limit, and query parameters, checked."""

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from starlette.requests import Request

from agentqueue.console.errors import Problem
from agentqueue.errors import InvalidPayload, UsageError
from agentqueue.model.json import MAX_BYTES
from agentqueue.model.json_input import read_json

MAX_BODY: Final = MAX_BYTES + 64 * 1024
"""The largest job and its envelope; what is too large for a job is then told as such."""
BODY_SECONDS: Final = 20.0
"""For a whole body to arrive."""


async def read_object(request: Request) -> dict[str, Any]:
    """The body, a JSON object; an empty body is an empty object.

    Raises:
        Problem: 408 too slow, 413 too large, 415 not declared as JSON. UsageError: not JSON, or not an object.
    """
    try:
        async with asyncio.timeout(BODY_SECONDS):
            raw = await _read(request)
    except TimeoutError:
        raise Problem(
            HTTPStatus.REQUEST_TIMEOUT, f"the body did not arrive within {BODY_SECONDS:g} s", Connection="close"
        ) from None
    if not raw:
        return {}
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"send JSON with Content-Type: application/json, not {kind or 'none'!r:.80}",
        )
    try:
        value = read_json(raw, "the body")
    except InvalidPayload as exc:  # of the whole body, so that the request is at fault, not the payload in it
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
            raise Problem(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the body is over {MAX_BODY:,} bytes; store the bulk elsewhere and pass a reference",
                Connection="close",
            )
        chunks.append(chunk)
    return b"".join(chunks)


def take(body: Mapping[str, Any], **wanted: type | tuple[type, ...]) -> dict[str, Any]:
    """The fields of these names and types; null is the same as absent.

    Raises:
        UsageError: a field of another type, or one that is not wanted.
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


def whole_number(request: Request, name: str, default: int) -> int:
    """A query parameter; its range is checked where it is used.

    Raises:
        UsageError: not a whole number.
    """
    text = request.query_params.get(name)
    if text is None:
        return default
    if text.isascii() and text.isdigit() and len(text) < 10:
        return int(text)
    raise UsageError(f"?{name}={text:.40} must be a whole number")


def words(request: Request, name: str) -> list[str]:
    """Return the words of a query parameter, which commas separate; they are checked where they are used."""
    return [word for word in request.query_params.get(name, "").split(",") if word]


def flag(request: Request, name: str) -> bool:
    """A query parameter that is true or false.

    Raises:
        UsageError: neither.
    """
    text = request.query_params.get(name, "false").lower()
    if text not in ("true", "false"):
        raise UsageError(f"?{name}={text:.40} must be true or false")
    return text == "true"
