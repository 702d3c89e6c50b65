"""What `ctx.step` does: it runs a function once, and keeps its value in the job's journal.

A call takes its place in the journal at once: the name, and how often the run has used it. If the journal has a value
there, the function is not called. Otherwise it runs, and its value is written before the handler goes on.
"""

import asyncio
import inspect
from collections.abc import Coroutine
from typing import Any

import orjson

from agentqueue.agent.durable import StepCall, current_step
from agentqueue.agent.payload import to_json
from agentqueue.clock import monotonic
from agentqueue.model.journal import EntryState, decode_entry, encode_body
from agentqueue.model.json import encode
from agentqueue_worker.app.durable_run import DurableRun


class Steps:
    """The steps of one run."""

    def __init__(self, run: DurableRun) -> None:
        self._run = run

    def step(self, call: StepCall) -> Coroutine[Any, Any, Any]:
        """Take the call's place in the journal, and return the coroutine that runs it. See the port."""
        field = self._run.reserve("step", call.name, f'step "{call.name}"')
        return self._step(call, field)

    async def _step(self, call: StepCall, field: str) -> Any:
        run = self._run
        await run.open()
        if field in run.entries:
            entry = decode_entry(run.entries[field])
            if entry.state is EntryState.DONE:
                return _value_of(entry.value)
        run.in_flight += 1
        run.last_sign_of_life = started = monotonic()
        try:
            value = await self._call(call, field)
            raw = encode(to_json(value, f'the value of step "{call.name}"', comes_back=False), what="the value")
            run.check()
            ms = round(1000 * (monotonic() - started))
            await run.record(field, EntryState.DONE, encode_body(delivery=run.job.delivery, ms=ms, value=raw))
        finally:
            run.in_flight -= 1
            run.last_sign_of_life = monotonic()
        return _value_of(raw)

    async def _call(self, call: StepCall, field: str) -> Any:
        token = current_step.set(field.removeprefix("step:"))
        try:
            if inspect.iscoroutinefunction(call.function):
                return await call.function(*call.args, **call.kwargs)
            value = await asyncio.to_thread(call.function, *call.args, **call.kwargs)
            while inspect.isawaitable(value):
                value = await value
            return value
        finally:
            current_step.reset(token)


def _value_of(raw: bytes) -> Any:
    return orjson.loads(raw)
