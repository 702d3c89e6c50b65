"""The agents that carry out plans, and record what they do."""

import asyncio
import inspect
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, assert_never
from uuid import uuid4

from agentqueue import Agent, Backoff, ChildFailed, Context, Fatal, OutcomeUnknown, StepFailed
from tests.support.plans.plan import (
    QUEUES,
    Children,
    Die,
    Fail,
    First,
    Once,
    Part,
    Plan,
    Remind,
    Signal,
    Sleep,
    Step,
    Together,
)
from tests.support.plans.recorder import Recorder

SOON = Backoff("fixed", delay=0.02, jitter=0.0)


def make_agents(folder: Path) -> dict[str, Agent]:
    """Return an agent for each queue, which records in this folder."""
    recorder = Recorder(folder)
    return {queue: _make_agent(queue, recorder) for queue in QUEUES}


def _make_agent(queue: str, recorder: Recorder) -> Agent:
    agent = Agent(queue)

    @agent.job(attempts=20, backoff=SOON, timeout=600)
    async def run(ctx: Context, plan: Plan) -> list[Any]:
        return await _Run(ctx, plan, recorder).carry_out()

    @agent.job(attempts=20, backoff=SOON, timeout=600)
    def plain(ctx: Context, plan: Plan) -> list[Any]:
        coroutine = _Run(ctx, plan, recorder).carry_out()
        try:
            coroutine.send(None)  # in this thread every durable call waits itself, so nothing is awaited
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        raise AssertionError("a durable call of a plain handler returned an awaitable")

    return agent


class _Run:
    """One delivery of a plan."""

    def __init__(self, ctx: Context, plan: Plan, recorder: Recorder) -> None:
        self.ctx = ctx
        self.plan = plan
        self.recorder = recorder

    async def carry_out(self) -> list[Any]:
        self.recorder.note("start", self.plan.path, job_id=self.ctx.id, delivery=self.ctx.delivery)
        values = [await self._do(part) for part in self.plan.parts]
        self.recorder.note("end", self.plan.path, values, delivery=self.ctx.delivery)
        return values

    def _saw(self, key: str, value: Any) -> Any:
        self.recorder.note("saw", key, value, delivery=self.ctx.delivery)
        return value

    async def _do(self, part: Part) -> Any:  # noqa: C901, PLR0912  # one case for each kind
        ctx = self.ctx
        match part:
            case Step():
                return await self._step(part)
            case Once():
                try:
                    value = await _settled(ctx.step(part.name, self._function(part), once=True))
                except StepFailed:
                    value = "raised"
                except OutcomeUnknown:
                    value = "unknown"
                return self._saw(part.name, value)
            case Together():
                calls = [self._step(step) for step in part.steps]
                if part.wait is not None:
                    calls.append(self._signal(part.wait.name, part.wait.name))
                return await asyncio.gather(*calls)
            case Signal():
                try:
                    return await self._signal(part.name, part.name)
                finally:
                    if part.release is not None:
                        await self._step(part.release)
            case Remind():
                return await self._remind(part)
            case Sleep():
                await _settled(ctx.sleep(part.ms / 1000))
                return None
            case First():
                first = await ctx.first(go=ctx.wait_for(part.name), late=ctx.sleep(part.ms / 1000))
                return self._saw(part.name, "late" if first.name == "late" else {"signal": first.value.data})
            case Children():
                return await self._children(part)
            case Fail():
                if self.recorder.times(part.name) <= part.times:
                    raise ConnectionError(f"{part.name} fails")
                return None
            case Die():
                if self.recorder.times(part.name) == 1 or part.always:
                    raise Fatal(f"{part.name} dies")
                return None
            case _:
                assert_never(part)

    async def _step(self, step: Step) -> Any:
        value = await _settled(self.ctx.step(step.name, self._function(step)))
        return self._saw(step.name, value)

    def _function(self, step: Step | Once) -> Callable[[], Any]:
        recorder, token = self.recorder, uuid4().hex

        def enter() -> None:
            recorder.note("enter", step.name, token)

        def leave() -> str:
            fails = step.raises if isinstance(step, Once) else recorder.times(step.name) <= step.fails
            recorder.note("fail" if fails else "leave", step.name, token)
            if fails:
                raise ConnectionError(f"{step.name} fails")
            return token

        async def call() -> str:
            enter()
            try:
                await asyncio.sleep(step.ms / 1000)
            except asyncio.CancelledError:
                recorder.note("cut", step.name, token)
                raise
            return leave()

        def call_plain() -> str:
            enter()
            time.sleep(step.ms / 1000)
            return leave()

        return call_plain if isinstance(step, Step) and step.is_plain else call

    async def _signal(self, name: str, key: str, *, timeout: float | None = None) -> Any:
        try:
            signal = await _settled(self.ctx.wait_for(name, timeout=timeout))
        except TimeoutError:
            return self._saw(key, "timeout")
        return self._saw(key, {"signal": signal.data})

    async def _remind(self, part: Remind) -> list[Any]:
        came: list[Any] = []
        number = 0
        while len(came) < part.count:
            number += 1
            value = await self._signal(part.name, f"{part.name}#{number}", timeout=part.every_ms / 1000)
            if value != "timeout":
                came.append(value)
        return came

    async def _children(self, part: Children) -> Any:
        ctx = self.ctx
        children = [
            ctx.child((plan.queue, "plain" if plan.is_plain else "run"), plan.model_dump()) for plan in part.plans
        ]
        if len(children) == 1 and part.on_error == "raise":
            found = [await _settled(children[0].result())]
        else:
            found = await _settled(ctx.gather(children, on_error=part.on_error))
        values = [{"failed": value.state} if isinstance(value, ChildFailed) else value for value in found]
        for plan, value in zip(part.plans, values, strict=True):
            self._saw(f"{plan.path}:returned", value)
        return values


async def _settled(value: Any) -> Any:
    """Return the value of a durable call: in the thread of a plain handler it has waited already."""
    return await value if inspect.isawaitable(value) else value
