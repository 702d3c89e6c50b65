"""Registry of an Agent's handlers for the claim loop."""

import inspect
import math
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final

import structlog

from agentqueue.agent.context import Context
from agentqueue.agent.definition import Agent, WorkerContext
from agentqueue.agent.job_definition import JobDefinition
from agentqueue.agent.outcomes import DurableError, Fatal, OutcomeUnknown, Retry, Snooze, ThrottledTooLong
from agentqueue.agent.payload import to_json
from agentqueue.agent.step_function import decorated
from agentqueue.clock import now_ms
from agentqueue.errors import HandlerImportError, InvalidPayload, UsageError
from agentqueue.model.dead_letter import DeadLetterReason
from agentqueue.model.exceptions import clean_text, is_a, leaves_of, name_exception
from agentqueue.model.job import JobRecord, decode_job
from agentqueue.model.new_job import NO_PAYLOAD
from agentqueue.model.result import ResultRecord, encode_completed, encode_result
from agentqueue.model.retry_policy import Backoff, seconds
from agentqueue.service.error_report import summarize
from agentqueue.store import KEEP_FOREVER, CodeSet
from agentqueue_worker.app.job import RunningJob
from agentqueue_worker.app.ports import Cron, WorkerRuntime
from agentqueue_worker.domain.verdict import Failed, Hopeless, Snoozed, Verdict, Yielded
from agentqueue_worker.settings import Settings

UNKNOWN_GRACE_MS: Final = 60_000
"""Milliseconds for which jobs of unknown names are deferred. A rolling deploy has both versions for about a minute."""


class PayloadRefused(InvalidPayload):
    """The handler's model refuses the job's payload. A subclass, because the handler's own code may raise the base."""


PayloadRefused.__name__ = "InvalidPayload"  # the name that users see


class AgentHandler:
    """Runs the jobs of one name."""

    def __init__(self, job: JobDefinition, settings: Settings) -> None:
        self.name = job.name
        self.timeout: float | None = settings.job_timeout if job.timeout is None else job.timeout
        self.attempts = job.attempts or settings.attempts
        self.backoff: Backoff = job.backoff or settings.backoff
        self.keep_ms = keep_ms(settings.result_seconds if job.keep_result is None else job.keep_result)
        self._func = job.func
        self._is_async = job.is_async
        self._load = job.payload.load
        self._takes = job.payload.parameter is not None
        self._optional = job.payload.is_optional
        self.runtime: WorkerRuntime  # set by the registry's start

    def call(self, job: RunningJob) -> Awaitable[Any]:
        """Return the handler's coroutine, or an awaitable of its thread. See the port."""
        record, meta = job.record, job.claimed.meta
        resume = meta.get("checkpoint") if meta else None
        context = job.context = Context(
            self.runtime, record, id=job.id, attempt=job.attempt, delivery=job.delivery, resume=resume
        )
        arguments: tuple[Any, ...] = (context,)
        if record.args or record.kwargs or (self._takes and not self._optional):
            payload = self._payload(record)
            if payload is not NO_PAYLOAD:
                arguments = (context, payload)
        if self._is_async:
            coroutine: Awaitable[Any] = self._func(*arguments)
            return coroutine
        return self.runtime.run_in_thread(_call_in_thread, self._func, *arguments)

    def _payload(self, record: JobRecord) -> Any:
        if not self._takes:
            if list(record.args) == [None] and not record.kwargs:
                return NO_PAYLOAD
            raise PayloadRefused(f"job {self.name!r} takes no payload, but one was given")
        if len(record.args) > 1 or record.kwargs:
            raise PayloadRefused(
                f"job {self.name!r} takes one payload, not several arguments; put them into one object"
            )
        try:
            return self._load(record.args[0] if record.args else None)
        except InvalidPayload as exc:
            raise PayloadRefused(str(exc)) from None  # the model's message is complete

    def judge(self, exc: BaseException, job: RunningJob) -> Verdict:  # noqa: ARG002  # the port's shape
        """Return how an exception counts: Retry, Snooze and Fatal, a refused payload, which is final, or a failure.

        An exception group counts as Fatal, or as Snooze, if all its exceptions do. The longest delay counts.
        """
        leaves = leaves_of(exc)
        if is_a(exc, PayloadRefused):
            return Hopeless(DeadLetterReason.INVALID_PAYLOAD)
        if any(is_a(leaf, OutcomeUnknown) for leaf in leaves):
            return Hopeless(DeadLetterReason.OUTCOME_UNKNOWN)
        if any(is_a(leaf, ThrottledTooLong) for leaf in leaves):
            return Hopeless(DeadLetterReason.THROTTLED)
        if any(is_a(leaf, DurableError) for leaf in leaves) or all(is_a(leaf, Fatal) for leaf in leaves):
            return Hopeless(DeadLetterReason.FATAL)
        snoozes: list[Snooze] = [leaf for leaf in leaves if is_a(leaf, Snooze)]  # type: ignore[misc]  # see is_a
        if len(snoozes) == len(leaves):
            last = max(snoozes, key=lambda snooze: snooze.after)
            return Snoozed(last.after, name_exception(last).message)
        retries: list[Retry] = [leaf for leaf in leaves if is_a(leaf, Retry)]  # type: ignore[misc]  # see is_a
        after = max((seconds(retry.after, "after") for retry in retries if retry.after is not None), default=None)
        if len(retries) == len(leaves) and self.runtime.draining:
            return Yielded(after)
        return Failed(after)


def _call_in_thread(func: Callable[..., Any], context: Context, *payload: Any) -> Any:
    context.thread = threading.get_ident()
    return func(context, *payload)


def keep_ms(seconds: float) -> int:
    """Return seconds as the engine takes them. Infinity means forever."""
    return KEEP_FOREVER if math.isinf(seconds) else round(seconds * 1000)


class AgentCodec:
    """Encodes records as JSON. A handler may return a pydantic model, a dataclass or a date."""

    decode_job = staticmethod(decode_job)

    def encode_completed(self, job: RunningJob, value: object, *, queue: str, worker: str) -> bytes | None:
        """Return the encoded result of a completed job. See the port."""
        return encode_completed(
            job.record,
            value,
            id=clean_text(job.id),
            queue=queue,
            started_ms=job.started_ms,
            finished_ms=now_ms(),
            attempt=job.attempt,
            deliveries=job.delivery,
            worker=worker,
        )

    def encode_result(self, record: ResultRecord) -> bytes:
        """Return the encoded result. See the port."""
        try:
            return encode_result(record)
        except InvalidPayload:
            if not record.success:
                raise
            record.result = to_json(record.result, "the result", comes_back=False)
            return encode_result(record)


class AgentRegistry:
    """Registry of the handlers of one Agent.

    Raises:
        HandlerImportError: an annotation or a cron expression can't be used.
    """

    codec = AgentCodec()
    unknown_grace_ms = UNKNOWN_GRACE_MS
    cancellable = True
    wants_recorded = False
    crons: Sequence[Cron] = ()

    def __init__(self, agent: Agent, settings: Settings) -> None:
        self._agent = agent
        self._handlers = {name: AgentHandler(job, settings) for name, job in agent.jobs.items()}
        self.find = self._handlers.get
        self._context: WorkerContext | None = None
        try:
            for job in agent.jobs.values():
                try:
                    job.payload.prepare()
                except UsageError:
                    raise
                except Exception as exc:  # pydantic has errors of many types for a model that it can't use
                    code = inspect.unwrap(job.func).__code__
                    raise UsageError(
                        f"the payload of job {job.name!r} can't be used: {summarize(exc)} "
                        f"({code.co_filename}, line {code.co_firstlineno})"
                    ) from exc
            for value in decorated:
                value.prepare()
            schemas = {name: job.payload.schema() for name, job in agent.jobs.items()}
            self.code = CodeSet.of(schemas, [cron.schedule() for cron in agent.crons])
        except UsageError as exc:
            raise HandlerImportError(f"agent {agent.name!r}: {exc}") from exc

    @property
    def names(self) -> Iterable[str]:
        """Names of the agent's jobs."""
        return self._handlers.keys()

    async def start(self, runtime: WorkerRuntime) -> None:
        """Run the startup functions, in order."""
        for handler in self._handlers.values():
            handler.runtime = runtime
        log = structlog.get_logger("agentqueue.agent.definition").bind(queue=runtime.queue, worker=runtime.worker)
        self._context = WorkerContext(queue=runtime.queue, worker=runtime.worker, state=runtime.state, log=log)
        for hook in self._agent.on_startup:
            await _call(hook, self._context)

    async def stop(self) -> None:
        """Run the shutdown functions in order. If one fails, the next ones still run."""
        if self._context is None:
            return
        context, self._context = self._context, None
        for hook in self._agent.on_shutdown:
            try:
                await _call(hook, context)
            except Exception:  # noqa: BLE001  # the user's code; the other hooks must run
                structlog.get_logger("agentqueue.agent.definition").exception(
                    "shutdown_failed", hook=getattr(hook, "__qualname__", repr(hook))
                )

    async def on_recorded(self, job: RunningJob) -> None:
        """Do nothing. It is never called, see `wants_recorded`."""


async def _call(hook: Any, context: WorkerContext) -> None:
    result = hook(context)
    while inspect.isawaitable(result):
        result = await result
