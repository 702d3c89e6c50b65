"""A time limit of asyncio around a durable wait is found in the source, and nothing else is."""

from textwrap import dedent, indent

import pytest

from agentqueue.agent.lint import find_limited_waits

HEAD = """
import asyncio
import asyncio as aio
from asyncio import timeout as limit, wait_for

from agentqueue import Agent, Context
"""


def lines_of(body: str, *, signature: str = "async def handle(ctx: Context) -> None:") -> list[tuple[int, str]]:
    """Return line and message of each warning; line 1 is the first of the body."""
    source = f"{HEAD}\n{signature}\n{indent(dedent(body).strip(), '    ')}\n"
    offset = source.splitlines().index(signature) + 1
    return [(found.line - offset, found.message) for found in find_limited_waits(source, "shop.py")]


@pytest.mark.parametrize(
    ("body", "line", "text"),
    [
        (
            "async with asyncio.timeout(5):\n    x = 1\n    await ctx.wait_for('go')",
            3,
            "asyncio.timeout around ctx.wait_for",
        ),
        ("async with asyncio.timeout(5):\n    await ctx.wait_for('go')", 2, "write ctx.wait_for(..., timeout=...)"),
        ("async with aio.timeout_at(5):\n    await ctx.sleep(9)", 2, "asyncio.timeout_at around ctx.sleep"),
        ("async with limit(5):\n    await ctx.gather([])", 2, "write ctx.gather(..., timeout=...)"),
        ("async with lock, asyncio.timeout(5):\n    await ctx.first(a=w)", 2, "give it a wait that ends"),
        ("await asyncio.wait_for(ctx.wait_for('go'), 5)", 1, "starts again in each run"),
        ("await wait_for(ctx.child(search, 1), 5)", 1, "write ctx.gather([ctx.child(...)], timeout=...)"),
        ("await asyncio.wait([ctx.sleep(1), other])", 1, "asyncio.wait around ctx.sleep chooses again in each run"),
        ("for it in asyncio.as_completed([ctx.wait_for('a')]):\n    await it", 1, "asyncio.as_completed around"),
        (
            "async with asyncio.timeout(5):\n    if x:\n        await asyncio.shield(ctx.wait_for('a'))",
            3,
            "asyncio.timeout",
        ),
    ],
)
def test_a_limit_around_a_durable_wait_is_found_with_its_line(body: str, line: int, text: str) -> None:
    ((found, message),) = lines_of(body)
    assert found == line
    assert text in message


@pytest.mark.parametrize(
    "body",
    [
        "await ctx.wait_for('go', timeout=5)",
        "async with asyncio.timeout(5):\n    await ctx.step('call', call)",
        "async with asyncio.timeout(5):\n    await call()\nawait ctx.wait_for('go')",
        "async with asyncio.timeout(5):\n    await other.wait_for('go')",
        "async with ctx.busy():\n    await ctx.wait_for('go')",
        "await asyncio.wait_for(call(), 5)",
        "await asyncio.gather(ctx.wait_for('a'), ctx.wait_for('b'))",
        "async with asyncio.timeout(5):\n    async def later():\n        await ctx.wait_for('go')",
        "async with call()(5):\n    await ctx.wait_for('go')",
    ],
)
def test_what_works_is_not_found(body: str) -> None:
    assert lines_of(body) == []


@pytest.mark.parametrize(
    ("signature", "is_context"),
    [
        ("async def handle(ctx) -> None:", True),
        ("async def handle(job: 'Context', *, ctx: Context) -> None:", True),
        ("async def handle(ctx: agentqueue.Context) -> None:", True),
        ("async def handle(ctx: WorkerContext) -> None:", False),
        ("async def handle(job) -> None:", False),
        ("def handle(ctx: Context) -> None:", True),
    ],
)
def test_a_context_is_known_by_its_annotation_or_else_by_its_name(signature: str, is_context: bool) -> None:
    assert bool(lines_of("asyncio.wait_for(ctx.wait_for('go'), 5)", signature=signature)) is is_context


def test_functions_of_a_handler_use_its_context() -> None:
    ((line, _),) = lines_of("async def later():\n    async with asyncio.timeout(5):\n        await ctx.sleep(1)")
    assert line == 3


def test_a_warning_names_file_and_line() -> None:
    source = "import asyncio\nasync def f(ctx):\n    await asyncio.wait_for(ctx.sleep(1), 5)\n"
    (warning,) = find_limited_waits(source, "shop.py")
    assert str(warning) == (
        "shop.py:3: asyncio.wait_for around ctx.sleep starts again in each run; "
        "write ctx.first(late=ctx.sleep(...), ...)"
    )
