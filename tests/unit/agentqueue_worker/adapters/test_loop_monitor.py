"""A blocked event loop is seen from beside it."""

import asyncio
import time
from traceback import FrameSummary
from unittest.mock import Mock

import pytest
from structlog.testing import capture_logs

from agentqueue_worker.adapters.loop_monitor import LoopMonitor, place
from agentqueue_worker.app.job import Handler, RunningJob
from agentqueue_worker.app.options import Identity, WorkerOptions
from agentqueue_worker.app.progress_writer import ProgressWriter
from agentqueue_worker.app.state import WorkerState
from tests.support.waiting import until


def monitor_of(*jobs: tuple[str, str], warn_after: float) -> LoopMonitor:
    state = WorkerState(WorkerOptions("q", Identity("w", "1")), Mock(spec=ProgressWriter))
    for name, id_ in jobs:
        handler = Mock(spec=Handler)
        handler.name = name
        state.running[id_] = Mock(spec=RunningJob, id=id_, handler=handler)
    return LoopMonitor(state, every=0.01, warn_after=warn_after)


async def test_the_lag_grows_while_the_loop_is_blocked_and_ends_when_it_runs_again() -> None:
    monitor = monitor_of(warn_after=60.0)
    with monitor.running():
        time.sleep(0.3)  # noqa: ASYNC251
        assert monitor.lag >= 0.28
        await until(lambda: monitor.lag < 0.28, what="the loop runs in time")


async def test_each_block_is_logged_once_with_the_jobs_that_run_and_the_place() -> None:
    monitor = monitor_of(("search", "j1"), ("plan", "j2"), warn_after=0.2)
    with capture_logs() as said, monitor.running():
        for _ in range(2):
            time.sleep(0.6)  # noqa: ASYNC251
            await asyncio.sleep(0.05)
    assert [line["event"] for line in said] == ["loop_blocked"] * 2
    assert said[0]["jobs"] == ["search j1", "plan j2"]
    assert said[0]["seconds"] >= 0.2
    assert f"test_each_block_is_logged_once_with_the_jobs_that_run_and_the_place ({__file__}:" in said[0]["at"]


async def test_a_loop_that_runs_in_time_logs_nothing() -> None:
    with capture_logs() as said, monitor_of(warn_after=5.0).running():
        await asyncio.sleep(0.1)
    assert said == []


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param(["/aq/run.py", "mine.py"], "f1 (mine.py:1)", id="in-the-handler"),
        pytest.param(
            ["/aq/run.py", "mine.py", "requests.py", "ssl.py"],
            "f3 (ssl.py:3), called from f1 (mine.py:1)",
            id="in-what-the-handler-calls",
        ),
        pytest.param(["mine.py", "/aq/run.py"], "f1 (/aq/run.py:1)", id="in-our-own-code"),
    ],
)
def test_the_place_is_the_innermost_call_and_the_handlers(files: list[str], expected: str) -> None:
    stack = [FrameSummary(file, number, f"f{number}") for number, file in enumerate(files)]
    assert place(stack, ("/aq",)) == expected
