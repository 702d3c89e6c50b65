"""What `ctx.step` does: it runs a function once, and keeps its value in the job's journal.

A call takes its place in the journal at once: the name, and how often the run has used it. Then, in `_step`: if the
journal has the outcome, the function is not called. Otherwise it runs, and its value is written before the handler goes
on. A step with `once=True` also writes its intent before it runs, so that a later run knows of a call that was cut off.
"""

import asyncio
import functools
import inspect
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from agentqueue.agent.durable import StepCall, current_step
from agentqueue.agent.outcomes import DurableError, Fatal, NotDone, OutcomeUnknown, Retry, Snooze, StepFailed
from agentqueue.clock import monotonic
from agentqueue.errors import InvalidPayload
from agentqueue.model.arguments import fingerprint_arguments
from agentqueue.model.exceptions import is_a, name_exception
from agentqueue.model.journal import MAX_VALUE_BYTES, Entry, EntryState, encode_body, idempotency_key
from agentqueue_worker.app.durable_run import DurableRun
from agentqueue_worker.app.emitter import Emitter
from agentqueue_worker.domain.retry import backoff_ms

NAMESPACE: Final = "step"
"""Namespace of the journal's fields."""


@dataclass(frozen=True, slots=True)
class _Step:
    """A call at its place in the journal."""

    call: StepCall
    field: str
    label: str
    """Its place in messages, such as `plan#1`."""
    fingerprint: str | None
    """Fingerprint of its arguments."""


class Steps:
    """The steps of one run.

    Args:
        run: the run.
        emitter: the events that the run emits.
        ended: called with the name, the outcome (`done`, `failed` or `replayed`) and the seconds of each step.
    """

    def __init__(self, run: DurableRun, emitter: Emitter, ended: Callable[[str, str, float], None]) -> None:
        self._run = run
        self._emitter = emitter
        self._ended = ended

    def step(self, call: StepCall) -> Coroutine[Any, Any, Any]:
        """Take the call's place in the journal, and return the coroutine that carries it out. See the port."""
        field = self._run.reserve(NAMESPACE, call.place, f'step "{call.name}"')
        label = field.removeprefix(f"{NAMESPACE}:")
        return self._step(_Step(call, field, label, fingerprint_arguments(call.args, call.kwargs)))

    async def _step(self, step: _Step) -> Any:
        run = self._run
        await run.open()
        entry = await run.find(step.field)
        if entry is not None:
            if None not in (step.fingerprint, entry.fingerprint) and step.fingerprint != entry.fingerprint:
                raise DurableError(  # the call must not get the value that was recorded for other arguments
                    f'step "{step.label}" has other arguments than in delivery {entry.delivery}, whose outcome is '
                    "recorded; what changes from run to run (the time, random values, a list that was read again) "
                    "belongs into a step of its own, and calls for items of a list need key=; "
                    f"`agentqueue dead replay --from-step {step.label}` runs it again"
                )
            if entry.has_ended:
                await self._emitter.emit_again(step.label)
                self._ended(step.call.name, "replayed", 0.0)
                return self._outcome_of(step, entry)
        run.check_room()
        await run.begin_new_call(is_step=True)
        run.in_flight += 1
        run.last_sign_of_life = monotonic()
        try:
            if not step.call.once:
                return await self._run_again_and_again(step)
            # Neither a drain nor a failing sibling cuts a call whose outcome would not be known then.
            return await run.finish(self._run_at_most_once(step, entry))
        finally:
            run.in_flight -= 1
            run.last_sign_of_life = monotonic()

    # --- steps

    async def _run_again_and_again(self, step: _Step) -> Any:
        """Call the function until it returns or its attempts are used up, and keep the value."""
        attempt, backoff = 0, step.call.backoff or self._run.job.handler.backoff
        while True:
            attempt += 1
            try:
                if step.call.is_async:
                    return await self._run_recorded(step, attempt)
                # A thread goes on when its call is cancelled. It would have happened, and the next run would repeat it.
                return await self._run.finish(self._run_recorded(step, attempt))
            except Exception as exc:
                if attempt >= step.call.attempts or is_a(exc, (Fatal, Snooze)):
                    raise
                after = exc.after if isinstance(exc, Retry) else None
                roll = random.random()  # noqa: S311  # spreads retries, keeps no secret
                await asyncio.sleep(backoff_ms(backoff, attempt=attempt, roll=roll) / 1000 if after is None else after)
                await self._emitter.take_back(step.label)

    async def _run_recorded(self, step: _Step, attempt: int) -> Any:
        """Call the function once, and record its value or its failure."""
        started = monotonic()
        try:
            value = await self._call(step, attempt)
        except Exception as exc:
            await self._record_failure(step, exc, started, EntryState.FAILED)
            raise
        # From here on a cancellation would make the step run again.
        return await self._run.finish(self._record_value(step, value, started))

    # --- steps with once=True

    async def _run_at_most_once(self, step: _Step, entry: Entry | None) -> Any:
        """Call the function unless an earlier call was cut off, and keep its value or its exception."""
        run, started = self._run, monotonic()
        if entry is not None and entry.state is EntryState.INTENT:
            found = await self._verify(step)
            if found is not NotDone:
                return await self._record_value(step, found, started)
        body = encode_body(delivery=run.job.delivery, fingerprint=step.fingerprint)
        earlier = await run.record(step.field, EntryState.INTENT, body)
        if earlier is not None:
            return self._outcome_of(step, earlier)
        started = monotonic()
        try:
            value = await self._call(step)
        except (OutcomeUnknown, TimeoutError) as exc:
            if isinstance(exc, OutcomeUnknown) or step.call.timeout is not None:
                if step.call.verify is not None:
                    raise Retry(
                        f'the outcome of step "{step.label}" is not known ({exc}); the next run verifies it'
                    ) from exc
                raise self._unknown(step, str(exc)) from exc
            return await self._record_exception(step, exc, started)
        except (NotDone, Retry, Snooze) as exc:
            await self._record_failure(step, exc, started, EntryState.FAILED)
            raise
        except Exception as exc:  # noqa: BLE001  # it is recorded, and raised as StepFailed
            return await self._record_exception(step, exc, started)
        return await self._record_value(step, value, started)

    async def _record_exception(self, step: _Step, exc: Exception, started: float) -> Any:
        await self._record_failure(step, exc, started, EntryState.RAISED)
        if is_a(exc, Fatal):
            raise exc
        cause = name_exception(exc)
        raise StepFailed(step.label, cause.type, cause.message) from exc

    async def _verify(self, step: _Step) -> Any:
        """Return the value of a call that was cut off, or NotDone.

        Raises:
            OutcomeUnknown: there is no `verify`.
        """
        if step.call.verify is None:
            raise self._unknown(step, "its worker ended, or the job was stopped, while it ran")
        token = current_step.set(step.label)
        try:
            found = step.call.verify(idempotency_key(self._run.job.id, step.label))
            while inspect.isawaitable(found):
                found = await found
        except NotDone:
            return NotDone
        finally:
            current_step.reset(token)
        return NotDone if found is NotDone or isinstance(found, NotDone) else found

    # --- parts of both

    async def _call(self, step: _Step, attempt: int = 1) -> Any:
        """Call the function in this task, or in a thread if it is a plain one."""
        function = functools.partial(step.call.function, *step.call.args, **step.call.kwargs)
        token = current_step.set(step.label)
        try:
            with self._run.running_step(step.label, attempt):
                async with asyncio.timeout(step.call.timeout) as limit:
                    if step.call.is_async:
                        value = function()
                    else:
                        value = await self._run.state.run_step_in_thread(function)
                    while inspect.isawaitable(value):
                        value = await value
                    return value
        except TimeoutError as exc:
            if limit.expired():
                raise TimeoutError(
                    f'step "{step.label}" took longer than its timeout of {step.call.timeout:g} s'
                ) from exc
            raise
        finally:
            current_step.reset(token)

    async def _record_value(self, step: _Step, value: Any, started: float) -> Any:
        """Write the value, and return it as a later run will get it."""
        run, what = self._run, f'the value of step "{step.label}"'
        try:
            raw = step.call.value.dump(value, what, max_bytes=MAX_VALUE_BYTES)
        except InvalidPayload as exc:
            raise DurableError(str(exc)) from exc
        try:
            loaded = step.call.value.load(raw)
        except InvalidPayload as exc:
            raise DurableError(f"{what} does not fit the return annotation {step.call.value.title}: {exc}") from exc
        run.check_room(len(raw))
        took = monotonic() - started
        body = encode_body(delivery=run.job.delivery, ms=round(1000 * took), fingerprint=step.fingerprint, value=raw)
        events = await self._emitter.take_events(step.label)
        earlier = await run.record(step.field, EntryState.DONE, body, events=events)
        self._ended(step.call.name, "done", took)
        return loaded if earlier is None else self._outcome_of(step, earlier)

    async def _record_failure(self, step: _Step, exc: Exception, started: float, state: EntryState) -> None:
        run, took, cause = self._run, monotonic() - started, name_exception(exc)
        error = {"type": cause.type, "message": cause.message}
        if is_a(exc, Fatal):
            error["fatal"] = "1"
        body = encode_body(delivery=run.job.delivery, ms=round(1000 * took), fingerprint=step.fingerprint, error=error)
        events = await self._emitter.take_events(step.label) if state is EntryState.RAISED else b""
        await run.record(step.field, state, body, events=events)
        self._ended(step.call.name, "failed", took)

    def _outcome_of(self, step: _Step, entry: Entry) -> Any:
        """Return the value that the journal has, or raise the exception."""
        if entry.state is EntryState.RAISED:
            if "fatal" in entry.error:
                raise Fatal(entry.error["message"])
            raise StepFailed(step.label, entry.error["type"], entry.error["message"])
        try:
            return step.call.value.load(entry.value)
        except InvalidPayload as exc:
            raise DurableError(
                f'step "{step.label}": the recorded value no longer fits {step.call.value.title}: {exc}; '
                f"`agentqueue dead replay --from-step {step.label}` runs it again"
            ) from exc

    def _unknown(self, step: _Step, why: str) -> OutcomeUnknown:
        job_id = self._run.job.id
        return OutcomeUnknown(
            f'the outcome of step "{step.label}" is not known: {why}; find out what has become of the call with the '
            f"idempotency key {idempotency_key(job_id, step.label)}, and then run "
            f"`agentqueue resolve {job_id} {step.label}` with --value JSON, or with --run-again if nothing has happened"
        )
