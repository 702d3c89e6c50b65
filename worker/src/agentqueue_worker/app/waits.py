"""What `ctx.wait_for`, `ctx.sleep` and `ctx.first` do: a script begins a wait and answers it, and `Hold` waits."""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

from agentqueue.agent.outcomes import DurableError
from agentqueue.agent.waiting import First, Signal, Waiting
from agentqueue.errors import UsageError
from agentqueue.keys import check_signal_name
from agentqueue.model.retry_policy import Seconds, seconds
from agentqueue.model.suspension import Answer, Pending, decode_wait
from agentqueue.model.times import moment_of
from agentqueue.store import Engine
from agentqueue.store.signals import Wait, ask_waits
from agentqueue_worker.app.durable_run import DurableRun

MAX_FIRST: Final = 100
"""Number of waits between which `ctx.first` chooses at most."""


class _Waiting(Waiting[Any]):
    """A wait that has its place in the journal, and begins when it is awaited or given to `ctx.first`."""

    def __init__(self, waits: "Waits", wait: Wait, value_of: Callable[[Answer], Any]) -> None:
        self.wait = wait
        self.value_of = value_of
        self._waits = waits

    def begin(self) -> Coroutine[Any, Any, Any]:
        """Return the coroutine that waits."""
        return self._waits.wait(self)


class Waits:
    """The waits of one run for signals and times."""

    def __init__(self, run: DurableRun, engine: Engine) -> None:
        self._run = run
        self._engine = engine

    # --- the calls, which take their places in the journal

    def wait_for(self, name: str, timeout: Seconds | None, key: str | None) -> Waiting[Signal]:
        """Return a wait for a signal. See the port."""
        what = f'wait_for("{name}")'
        try:
            check_signal_name(name)
            ends_ms = None if timeout is None else _ms(timeout, "timeout")
        except UsageError as exc:
            raise DurableError(f"{what}: {exc}") from exc
        field = self._run.reserve("wait", _with_key(name, key), what)

        def value_of(answer: Answer) -> Signal:
            if answer.is_late:
                raise TimeoutError(f'no signal "{name}" came within {0 if ends_ms is None else ends_ms / 1000:g} s')
            return Signal(name, answer.value, answer.sender, moment_of(answer.sent_ms))

        return _Waiting(self, Wait(field, "signal", name, ends_ms), value_of)

    def sleep(self, duration: Seconds, key: str | None) -> Waiting[None]:
        """Return a wait for a time. See the port."""
        try:
            ends_ms = _ms(duration, "duration")
        except UsageError as exc:
            raise DurableError(f"ctx.sleep: {exc}") from exc
        field = self._run.reserve("sleep", _with_key("", key), "ctx.sleep")
        return _Waiting(self, Wait(field, "sleep", key or "", ends_ms), lambda _: None)

    def first(self, waits: Mapping[str, Any], key: str | None) -> Coroutine[Any, Any, First]:
        """Take the place of a choice, and return the coroutine that waits for the first answer. See the port."""
        wrong = [name for name, wait in waits.items() if not isinstance(wait, _Waiting)]
        if wrong or not 0 < len(waits) <= MAX_FIRST:
            raise DurableError(
                f'ctx.first takes 1 to {MAX_FIRST} waits by name, such as ctx.first(yes=ctx.wait_for("yes"), '
                f"late=ctx.sleep(60)){f'; {wrong[0]} is no wait' if wrong else ''}"
            )
        return self._first(waits, self._run.reserve("first", _with_key("", key), "ctx.first"))

    # --- waiting

    async def wait(self, waiting: _Waiting) -> Any:
        """Return the value of one wait."""
        _, answer = await self._answer([waiting.wait], "")
        return waiting.value_of(answer)

    async def _first(self, waits: Mapping[str, _Waiting], choice: str) -> First:
        field, answer = await self._answer([waiting.wait for waiting in waits.values()], choice)
        name, waiting = next((name, waiting) for name, waiting in waits.items() if waiting.wait.field == field)
        return First(name, waiting.value_of(answer))

    async def _answer(self, waits: Sequence[Wait], choice: str) -> tuple[str, Answer]:
        """Return the field of the wait that has ended, and its answer. With a choice, that is the first of them."""
        run = self._run
        await run.open()
        found = self._recorded(waits, choice)
        if found is None:
            run.check_room()
            await run.begin_new_call()
        needs_event = any(wait.kind == "signal" for wait in waits)
        while found is None:
            seconds_left = await self._ask(waits, choice)
            found = self._recorded(waits, choice)
            if found is None:
                await run.hold.wait([wait.field for wait in waits], seconds_left, needs_event=needs_event)
                await run.check()
        return found

    def _recorded(self, waits: Sequence[Wait], choice: str) -> tuple[str, Answer] | None:
        """Return what the journal says, if one of the waits has ended."""
        entries = self._run.entries
        if choice:
            if choice not in entries:
                return None
            field = self._decode(choice, Answer).value
            return field, self._decode(field, Answer)
        field = waits[0].field
        found = self._decode(field, (Answer, Pending)) if field in entries else None
        return (field, found) if isinstance(found, Answer) else None

    def _decode(self, field: str, expected: Any) -> Any:
        raw = self._run.entries.get(field, b"")
        try:
            found = decode_wait(raw)
            if not isinstance(found, expected):
                raise TypeError("it has no answer")
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise DurableError(
                f"the journal of job {self._run.job.id} can't be read at {field}: {exc} ({raw[:40]!r}…)"
            ) from exc
        return found

    async def _ask(self, waits: Sequence[Wait], choice: str) -> float | None:
        """Begin waits, or ask for their answers, which the journal has then.

        Returns:
            The seconds until one of them ends by itself; None if none does.
        """
        run = self._run
        run.in_flight += 1
        try:
            reply = await run.send(
                lambda: ask_waits(
                    self._engine,
                    lease=run.lease,
                    job_id=run.job.id,
                    waits=waits,
                    choice=choice,
                    progress=run.progress_fields(),
                )
            )
            if reply is None:
                run.stop_as_lost()
                return None
            run.has_journal = True
            if reply.choice is not None:
                run.entries[choice] = reply.choice
            for wait, text in zip(waits, reply.texts, strict=True):
                if text:
                    run.entries[wait.field] = text
                else:  # a choice forgets the waits that were not first
                    run.entries.pop(wait.field, None)
        finally:
            run.in_flight -= 1
        found = [decode_wait(text) for text in reply.texts if text]
        if any(isinstance(it, Answer) for it in found):
            run.job.has_progressed = True
        ends = [it.until_ms for it in found if isinstance(it, Pending) and it.until_ms is not None]
        return (min(ends) - reply.now_ms) / 1000 if ends else None


def _ms(value: Seconds, name: str) -> int:
    return round(seconds(value, name) * 1000)


def _with_key(name: str, key: str | None) -> str:
    return name if key is None else f"{name}/{key}"
