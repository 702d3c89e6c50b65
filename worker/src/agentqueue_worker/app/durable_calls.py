"""The durable calls of a job's context, each in the room that carries it out."""

import functools
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from agentqueue.agent.durable import ChildCall, GatherCall, StepCall
from agentqueue.agent.waiting import First, Signal, Waiting
from agentqueue.model.retry_policy import Seconds
from agentqueue.store import Engine
from agentqueue.store.children import Children
from agentqueue.store.streams import Streams
from agentqueue_worker.app.children import ChildCalls
from agentqueue_worker.app.durable_run import DurableRun
from agentqueue_worker.app.emitter import Emitter
from agentqueue_worker.app.steps import Steps
from agentqueue_worker.app.waits import Waits


class DurableCalls:
    """Carries out the durable calls of one run. See the port, `agentqueue.agent.durable.Durable`."""

    def __init__(self, run: DurableRun, engine: Engine, step_ended: Callable[[str, str, str, float], None]) -> None:
        self.run = run
        self._waits = Waits(run, engine)
        self._emitter = Emitter(run, Streams(engine.server, engine.keys.queue))
        self._steps = Steps(run, self._emitter, functools.partial(step_ended, run.job.handler.name))
        self._children = ChildCalls(run, Children(engine.server, engine.keys.queue))

    def child(self, call: ChildCall) -> None:
        """Take the place of a child that the job asks for."""
        self._children.child(call)

    def gather(self, call: GatherCall) -> Coroutine[Any, Any, Any]:
        """Send children that are not sent yet, and wait for what they return."""
        return self._children.gather(call)

    def step(self, call: StepCall) -> Coroutine[Any, Any, Any]:
        """Run a step, or return its value from the journal."""
        return self._steps.step(call)

    def wait_for(self, name: str, timeout: Seconds | None, key: str | None) -> Waiting[Signal]:
        """Return a wait for a signal."""
        return self._waits.wait_for(name, timeout, key)

    def sleep(self, duration: Seconds, key: str | None) -> Waiting[None]:
        """Return a wait for a time."""
        return self._waits.sleep(duration, key)

    def first(self, waits: Mapping[str, Any], key: str | None) -> Coroutine[Any, Any, First]:
        """Wait for the first of several waits to end."""
        return self._waits.first(waits, key)

    def emit(self, event: bytes, step: str) -> Awaitable[None]:
        """Append an event to the job's stream."""
        return self._emitter.emit(event, step)

    def busy(self) -> AbstractAsyncContextManager[None]:
        """Keep the run from being suspended."""
        return self.run.hold.busy()
