"""A worker's log lines of jobs. Every line of a handler names its job, whichever library writes it."""

from pathlib import Path
from typing import Any

import orjson

from agentqueue import Client
from tests.support.waiting import final
from tests.support.workers import worker_process

PROGRAM = """
import asyncio
import logging
import threading

import structlog
from agentqueue import Agent, Context, Fatal

agent = Agent("talk")
own = logging.getLogger("shop.orders")
events = structlog.get_logger()


class Rude:
    def __str__(self):
        raise KeyError("no text")


@agent.startup
async def begin(ctx) -> None:
    own.info("before the jobs")


@agent.job(attempts=2, backoff=0.01)
async def speak(ctx: Context, fail: bool) -> None:
    own.info("said by logging: %s", ctx.attempt, extra={"order": 7})
    events.info("said by structlog", order=7)
    ctx.log.info("said by the context")
    logging.getLogger("httpx").warning("said by\\na library")
    own.error("arguments that %s and %s", "don't fit")
    own.error("text: %s", Rude())
    async with asyncio.TaskGroup() as group:
        group.create_task(in_a_task())
    await asyncio.to_thread(own.info, "said in a thread")
    if fail:
        raise LookupError("no airport")


async def in_a_task() -> None:
    events.info("said in a task")


@agent.job(attempts=1)
def plainly(ctx: Context) -> None:
    own.info("said by a plain handler")
    try:
        raise ValueError("wrong")
    except ValueError:
        own.exception("caught")
    raise Fatal("no use")


@agent.job
async def other(ctx: Context) -> None:
    own.info("said by another")


@agent.job
async def send(ctx: Context) -> None:
    ctx.enqueue(("talk", "other"), id="child")
"""
TRACE = f"00-{'a' * 32}-{'b' * 16}-01"


def of_job(lines: list[dict[str, Any]], job_id: str) -> dict[str, list[dict[str, Any]]]:
    """The job's lines by their event."""
    found: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        if line.get("job_id") == job_id:
            found.setdefault(line["event"], []).append(line)
    return found


async def test_every_line_of_a_handler_names_its_job(server_url: str, tmp_path: Path) -> None:
    (tmp_path / "talk.py").write_text(PROGRAM)
    async with Client(server_url) as client:
        speak = await client.enqueue("talk", "speak", True, tenant="acme", trace=TRACE)
        plainly = await client.enqueue("talk", "plainly")
        other = await client.enqueue("talk", "other")
        send = await client.enqueue("talk", "send")
        with worker_process("talk:agent", tmp_path, server_url) as worker:
            for job in (speak, plainly, other, send, client.job("child")):
                await final(job)
            await worker.said("said by another")
            worker.process.terminate()
            assert await worker.exit() == 0
    lines = [orjson.loads(line) for line in worker.lines]  # each line is one JSON object
    spoken = of_job(lines, speak.id)
    same = {"job": "speak", "queue": "talk", "tenant": "acme", "trace": TRACE}
    for event in (
        *("said by logging: 1", "said by structlog", "said by the context", "said by\na library", "said in a task"),
        *("said in a thread", "job_failed"),
    ):
        line = spoken[event][0]
        assert line.items() >= (same | {"attempt": 1, "delivery": 1}).items(), event
    assert spoken["said by structlog"][1].items() >= (same | {"attempt": 2, "delivery": 2}).items()
    assert spoken["said by logging: 1"][0].items() >= {"logger": "shop.orders", "order": 7, "level": "info"}.items()
    assert any(event.startswith("arguments that %s and %s") for event in spoken)
    assert any(event.startswith("text: %s") for event in spoken)
    assert "job_dead" in spoken, worker.output
    (dead,) = spoken["job_dead"]
    assert dead.items() >= (same | {"attempt": 2, "error": "LookupError: no airport", "level": "error"}).items()
    assert "in speak\n" in dead["exception"]
    plain = of_job(lines, plainly.id)
    assert plain["said by a plain handler"][0].items() >= {"job": "plainly", "queue": "talk", "attempt": 1}.items()
    assert plain["caught"][0]["exception"].endswith("ValueError: wrong\n")
    assert "in plainly\n" in plain["job_dead"][0]["exception"]
    assert not plain["job_dead"][0].keys() & {"tenant", "trace", "parent"}
    child = of_job(lines, "child")
    for event in ("said by another", "job_completed"):
        assert child[event][0]["parent"] == send.id
    assert list(of_job(lines, other.id)) == ["said by another", "job_completed"]
    (before,) = [line for line in lines if line["event"] == "before the jobs"]
    assert "job_id" not in before


ALONE = """
import sys

import structlog
from agentqueue import Agent, Context

structlog.configure(
    processors=[structlog.contextvars.merge_contextvars, structlog.processors.JSONRenderer()],
    logger_factory=structlog.PrintLoggerFactory(sys.stderr),
)
agent = Agent("talk")


@agent.job
async def speak(ctx: Context) -> None:
    structlog.get_logger().warning("in the program's own form", z=1)
"""


async def test_a_program_that_sets_structlog_up_itself_has_the_job_too(server_url: str, tmp_path: Path) -> None:
    (tmp_path / "talk.py").write_text(ALONE)
    async with Client(server_url) as client:
        job = await client.enqueue("talk", "speak")
        with worker_process("talk:agent", tmp_path, server_url) as worker:
            await final(job)
            await worker.said("own form")
    (line,) = [orjson.loads(line) for line in worker.lines if "own form" in line]
    assert (
        line.items() >= {"job_id": job.id, "job": "speak", "queue": "talk", "attempt": 1, "delivery": 1, "z": 1}.items()
    )
