"""Producer and handlers that all Python sides share. `python -m benchmarks.throughput.sides.NAME` sends a load.

The load is JSON in BENCH_LOAD. The producer prints JSON: the jobs it sent and the seconds that took. With a pace, it
also writes the moment before each send to the journal BENCH_SENT.
"""

import asyncio
import contextlib
import itertools
import json
import os
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.throughput.load import RECORD, Job, Load, ended, started

BULK: Final = 1_000
"""Jobs of one bulk call."""
PATIENCE_S: Final = 5.0
"""Seconds after which a bulk load stops if it cannot be sent within its limit at the rate so far."""
TOGETHER: Final = 50
"""Sends that an asynchronous library without a bulk call has in flight."""


class Side:
    """One library as a producer; a subclass implements `send`, and `send_many` where the library has a bulk call."""

    async def open(self) -> None:
        """Connect."""

    async def close(self) -> None:
        """Disconnect."""

    async def send(self, job: Job) -> None:
        """Enqueue one job."""
        raise NotImplementedError

    async def send_many(self, jobs: Sequence[Job]) -> None:
        """Enqueue many jobs as fast as the library can."""
        for at in range(0, len(jobs), TOGETHER):
            await asyncio.gather(*map(self.send, jobs[at : at + TOGETHER]))


async def handle(n: int, seconds: float, _payload: str) -> int:
    """Run a job of an asynchronous library."""
    started(n)
    if seconds:
        await asyncio.sleep(seconds)
        ended(n)
    return n


def handle_blocking(n: int, seconds: float, _payload: str) -> int:
    """Run a job of a library with threads, greenlets or processes."""
    started(n)
    if seconds:
        time.sleep(seconds)
        ended(n)
    return n


def main(side: Side) -> None:
    """Send the load of BENCH_LOAD and print what was sent."""
    with contextlib.suppress(ImportError):
        import uvloop  # noqa: PLC0415  # not every side has it

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    print(json.dumps(asyncio.run(_produce(side, Load(**json.loads(os.environ["BENCH_LOAD"]))))))


async def _produce(side: Side, load: Load) -> dict[str, float]:
    await side.open()
    try:
        begin = time.monotonic()
        sent = await (_send_bulk if load.bulk else _send_each)(side, load, begin)
        return {"sent": sent, "seconds": time.monotonic() - begin}
    finally:
        await side.close()


async def _send_bulk(side: Side, load: Load, begin: float) -> int:
    sent, jobs = 0, load.jobs()
    while chunk := list(itertools.islice(jobs, BULK)):
        await side.send_many(chunk)
        sent += len(chunk)
        elapsed = time.monotonic() - begin
        if elapsed > load.limit or (elapsed > PATIENCE_S and sent * load.limit < load.count * elapsed):
            break
    return sent


async def _send_each(side: Side, load: Load, begin: float) -> int:
    moments = bytearray()
    draw = random.Random(load.first)
    due, sent = begin, 0
    for job in load.jobs():
        if load.pace:
            due += load.pace * draw.uniform(0.5, 1.5)
            await asyncio.sleep(max(due - time.monotonic(), 0))
            moments += RECORD.pack(job.n, time.monotonic_ns())
        await side.send(job)
        sent += 1
        if time.monotonic() - begin > load.limit:
            break
    if load.pace:
        Path(os.environ["BENCH_SENT"]).write_bytes(moments)  # noqa: ASYNC240  # after the last send
    return sent
