"""Handlers of every shape that can be called: each body runs, on the event loop or in a thread, and ends the job."""

import asyncio
import contextlib
import functools
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import pytest

from agentqueue import Agent, Client, Context
from agentqueue.model.job import State
from agentqueue_worker import arq
from tests.support.arq_programs import arq_client, running, settings_of
from tests.support.workers import final, until, work_off, working

LOOP, THREAD = "loop", "thread"
loops: dict[str, int] = {}


def where() -> str:
    """Return the thread that this runs in."""
    return LOOP if threading.get_ident() == loops["now"] else THREAD


async def awaited(ctx: Any) -> str:
    await asyncio.sleep(0)
    return where()


def plain(ctx: Any) -> str:
    return where()


def made_async(func: Callable[..., str]) -> Callable[..., Awaitable[str]]:
    @functools.wraps(func)
    async def wrapper(*args: Any) -> str:
        return f"{where()} {func(*args)}"

    return wrapper


def made_plain(func: Callable[..., Coroutine[Any, Any, str]]) -> Callable[..., str]:
    @functools.wraps(func)
    def wrapper(*args: Any) -> str:
        with asyncio.Runner() as runner:
            return f"{where()} {runner.run(func(*args))}"

    return wrapper


def passing(func: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(func)
    def wrapper(*args: Any) -> Any:
        return func(*args)

    return wrapper


@contextlib.contextmanager
def beside() -> Any:
    yield


@contextlib.asynccontextmanager
async def beside_async() -> AsyncIterator[None]:
    yield


class Shapes:
    """Every kind of method."""

    async def method(self, ctx: Any) -> str:
        return where()

    def plain_method(self, ctx: Any) -> str:
        return where()

    @classmethod
    async def of_class(cls, ctx: Any) -> str:
        return where()

    @staticmethod
    async def static(ctx: Any) -> str:
        return where()

    async def _two(self, word: str, ctx: Any) -> str:
        return f"{word} {where()}"

    partial = functools.partialmethod(_two, "partial")


class Called:
    async def __call__(self, ctx: Any) -> str:
        return where()


class CalledPlainly:
    def __call__(self, ctx: Any) -> str:
        return where()


class GivesCoroutine:
    def __call__(self, ctx: Any) -> Awaitable[str]:
        return awaited(ctx)


class Later:
    """An awaitable of one's own."""

    def __await__(self) -> Any:
        return awaited(None).__await__()


async def gives_a_coroutine(ctx: Any) -> Any:
    return awaited(ctx)


async def gives_a_future(ctx: Any) -> Any:
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_result, where())
    return future


async def gives_a_task(ctx: Any) -> Any:
    return asyncio.create_task(awaited(ctx))


SHAPES: dict[str, tuple[Callable[..., Any], str]] = {
    "coroutine": (awaited, LOOP),
    "plain": (plain, THREAD),
    "plain-made-async": (made_async(plain), "loop loop"),
    "async-made-plain": (made_plain(awaited), "thread loop-of-its-own"),
    "async-made-plain-made-async": (made_async(passing(plain)), "loop loop"),
    "plain-wrapper-of-async": (passing(awaited), LOOP),
    "partial": (functools.partial(awaited), LOOP),
    "partial-of-plain": (functools.partial(plain), THREAD),
    "partial-of-partial": (functools.partial(functools.partial(awaited)), LOOP),
    "bound-method": (Shapes().method, LOOP),
    "bound-plain-method": (Shapes().plain_method, THREAD),
    "class-method": (Shapes.of_class, LOOP),
    "static-method": (Shapes.static, LOOP),
    "static-method-object": (staticmethod(awaited), LOOP),
    "partial-method": (Shapes().partial, "partial loop"),
    "callable-object": (Called(), LOOP),
    "plain-callable-object": (CalledPlainly(), THREAD),
    "object-that-gives-a-coroutine": (GivesCoroutine(), LOOP),
    "lambda-that-gives-a-coroutine": (lambda ctx: awaited(None), LOOP),
    "awaitable-of-ones-own": (lambda ctx: Later(), LOOP),
    "async-that-gives-a-coroutine": (gives_a_coroutine, LOOP),
    "async-that-gives-a-future": (gives_a_future, LOOP),
    "async-that-gives-a-task": (gives_a_task, LOOP),
    "in-a-context": (beside()(plain), THREAD),
    "async-in-an-async-context": (beside_async()(awaited), LOOP),
    "cached-plain": (functools.lru_cache(plain), THREAD),
    "single-dispatch": (functools.singledispatch(awaited), LOOP),
}


@pytest.fixture
async def client(server_url: str) -> AsyncIterator[Client]:
    loops["now"] = threading.get_ident()
    async with Client(server_url) as connected:
        yield connected


def normal(word: str) -> str:
    """A loop in a thread of a handler's own is in that thread."""
    return word.replace("loop-of-its-own", THREAD)


async def test_every_shape_of_handler_runs_where_its_outermost_callable_belongs(
    client: Client, server_url: str
) -> None:
    agent = Agent("q")
    for name, (shape, _) in SHAPES.items():
        agent.job(name=name)(shape)
    jobs = {name: await client.enqueue("q", name) for name in SHAPES}
    await work_off(agent, server_url)
    results = {name: await job.result(1) for name, job in jobs.items()}
    assert results == {name: normal(word) for name, (_, word) in SHAPES.items()}


async def test_every_shape_that_arq_takes_runs_in_an_arq_program(client: Client, server_url: str) -> None:
    shapes = {name: it for name, it in SHAPES.items() if asyncio.iscoroutinefunction(it[0])}
    assert len(shapes) > 8
    functions = [arq.func(shape, name=name) for name, (shape, _) in shapes.items()]
    async with arq_client(server_url) as pool:
        jobs = {name: await pool.enqueue_job(name) for name in shapes}
        worker = arq.Worker(functions=functions, redis_settings=settings_of(server_url), handle_signals=False)
        async with running(worker):
            results = {name: await job.result(timeout=15) for name, job in jobs.items() if job is not None}
    assert results == {name: word for name, (_, word) in shapes.items()}


async def test_cancelling_reaches_what_a_plain_function_gave(client: Client, server_url: str) -> None:
    agent, started = Agent("q"), asyncio.Event()
    ended: list[str] = []

    async def wait() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(where())

    @agent.job
    def give(ctx: Context) -> Awaitable[None]:
        return wait()

    job = await client.enqueue(give)
    async with working(agent, server_url):
        await started.wait()
        await job.cancel()
        assert (await final(job)).state == State.CANCELLED
        await until(lambda: ended, what="the coroutine is cancelled")
    assert ended == [LOOP]


async def test_hooks_of_every_shape_run(client: Client, server_url: str) -> None:
    agent, ran = Agent("q"), []

    async def note(ctx: Any) -> None:
        ran.append("async")

    def note_plainly(ctx: Any) -> None:
        ran.append("plain")

    async def give(ctx: Any) -> Any:
        return note(ctx)

    for register in (agent.startup, agent.shutdown):
        for hook in (note, note_plainly, functools.partial(note), passing(note), give, lambda _: note(None)):
            register(hook)
    agent.job(awaited)
    await work_off(agent, server_url)
    assert sorted(ran) == ["async"] * 10 + ["plain"] * 2
