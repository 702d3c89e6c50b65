"""What `ctx.limit` does in a worker: it asks Redis for room until there is some, and settles the call afterwards."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from typing import Final, TypeVar

import structlog

from agentqueue.agent.durable import current_step
from agentqueue.agent.limit import LimitUse, Refusal
from agentqueue.agent.outcomes import DurableError, Throttled, ThrottledTooLong
from agentqueue.clock import monotonic
from agentqueue.errors import QueueFull, QueueUnavailable, UnsupportedServer
from agentqueue.model.attempts import number_of
from agentqueue.model.limits import check_limit_names
from agentqueue.model.times import iso_of
from agentqueue.store.limits import Granted, LimitCall, Limits, Refused, Waits
from agentqueue_worker.app.durable_run import FIRST_RETRY_DELAY_S, MAX_RETRY_DELAY_S
from agentqueue_worker.app.job import Ending, RunningJob
from agentqueue_worker.app.state import WorkerState

SETTLE_FOR_S: Final = 10.0
"""Seconds for which an ended call is settled while Redis is unavailable. Then it counts as reserved, and its place is
free when the job's lease ends."""
LEAVE_SLOT_S: Final = 30.0
"""A job leaves its slot if its limit rests for longer, in seconds, and if it loses nothing thereby."""
THROTTLED_SINCE: Final = "throttled_since"
"""Field of a job's meta hash: since when its calls have been refused, in ms since the epoch; 0 if they are not."""
log = structlog.get_logger("agentqueue.worker")
T = TypeVar("T")


class JobLimits:
    """The calls of one running job under limits. See the port, `agentqueue.agent.limit.LimitCalls`."""

    def __init__(self, job: RunningJob, limits: Limits, state: WorkerState) -> None:
        self._job = job
        self._limits = limits
        self._state = state
        self._places: set[int] = set()
        """Places of the calls that wait."""
        self._waiting: set[asyncio.Future[None]] = set()
        self._news = 0
        """How often somebody has woken the calls that wait."""
        self._granted: dict[LimitUse, tuple[LimitCall, Granted]] = {}
        self._throttled_since_ms = number_of(job.claimed.meta.get(THROTTLED_SINCE))
        self._is_closed = False
        self.has_asked = False
        """A call has been reserved, or waits in the line."""

    async def enter(self, names: Sequence[str], units: int | None) -> LimitUse:
        """Wait until there is room for a call, and reserve it. See the port."""
        job, place = self._job, next(number for number in count() if number not in self._places)
        call = LimitCall(
            owner=self._state.options.identity.owner,
            number=self._state.next_call_number(),
            job_id=job.id,
            names=check_limit_names(names),
            level=job.claimed.level,
            tenant=job.record.tenant or "",
            place=place,
            units=units,
        )
        self._places.add(place)
        try:
            granted = await self._reserve(call)
        except BaseException:
            # The reply may have been lost: a call that was not made takes no units.
            self._state.spawn(self._withdraw(call))
            raise
        finally:
            self._places.discard(place)
            if not self._places:
                self._state.limited_jobs.discard(job)
        use = LimitUse(names, max(granted.units.values()) or None)
        self._granted[use] = (call, granted)
        return use

    async def _reserve(self, call: LimitCall) -> Granted:
        while True:
            news = self._news
            reply = await self._send(lambda: self._limits.reserve(self._state.queue, call))
            self.has_asked = True
            match reply:
                case Granted():
                    return reply
                case Refused(name, None):
                    raise DurableError(
                        f"limit {name!r} is not defined: define it in spec.limits, AGENTQUEUE_LIMITS or --limits"
                    )
                case Refused(name, most):
                    raise DurableError(
                        f"a call of {call.units:,} units is larger than limit {name!r}, which has {most:,} per minute"
                    )
                case Waits():
                    self._check_throttled(reply)
                    self._state.limited_jobs.add(self._job)
                    self._state.listen()
                    if news == self._news:
                        await self._wait(reply.ask_ms / 1000)

    def _check_throttled(self, reply: Waits) -> None:
        """End the run if its limit rests for too long.

        Raises:
            ThrottledTooLong: the provider has refused calls for longer than the limit allows.
            Throttled: the rest is long, and the job leaves its slot: the step that runs has made no call, and is all
                that a later run repeats.
        """
        if reply.why not in ("rest", "probe"):
            return
        self._note_throttled(reply.limit, reply.rest_why, reply.now_ms, reply.max_throttled_ms)
        left_s, durable = (reply.rest_ms - reply.now_ms) / 1000, self._job.durable
        is_alone_in_step = current_step.get() is not None and durable is not None and durable.in_flight == 1
        if left_s > LEAVE_SLOT_S and is_alone_in_step and not self._granted:
            until = f"{reply.rest_why}, until {iso_of(reply.rest_ms)}"
            raise Throttled(reply.limit, retry_after=left_s, message=until)

    def _note_throttled(self, limit: str, why: str, now_ms: int, max_ms: int) -> None:
        """Note that refusals keep the job from going on.

        Raises:
            ThrottledTooLong: they have done so for longer than the limit allows.
        """
        if not self._throttled_since_ms:
            self._save_throttled(now_ms)
        elif now_ms - self._throttled_since_ms > max_ms:
            raise ThrottledTooLong(
                f"limit {limit} has been refused ({why}) since {iso_of(self._throttled_since_ms)}, longer than its "
                f"maxThrottledSeconds of {max_ms / 1000:g}; look at the provider's account, then replay the job"
            )

    def _save_throttled(self, since_ms: int) -> None:
        self._throttled_since_ms = since_ms
        unsaved = self._job.unsaved = self._job.unsaved or {}
        unsaved[THROTTLED_SINCE] = b"%d" % since_ms

    async def _wait(self, seconds: float) -> None:
        if self._is_closed:
            raise asyncio.CancelledError(f"job {self._job.id} has left its slot")
        loop = self._state.loop
        woken: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(seconds, _end, woken)
        self._waiting.add(woken)
        try:
            await woken
        finally:
            timer.cancel()
            self._waiting.discard(woken)

    def ask_now(self) -> None:
        """Let the calls that wait ask again, since something has become free."""
        self._news += 1
        for woken in self._waiting:
            _end(woken)

    def close(self) -> None:
        """Cancel the calls that wait, because the job has left its slot."""
        self._is_closed = True
        for woken in self._waiting:
            woken.cancel()

    async def exit(self, use: LimitUse, exc: BaseException | None) -> None:
        """Settle a call whose block has ended. See the port.

        It is settled even if the job's task is cancelled meanwhile.
        """
        call, granted = self._granted.pop(use)
        refusal = use.refusal
        if isinstance(exc, Throttled):
            use.throttled(exc.retry_after, limit=exc.limit, why=exc.message)
            refusal = use.refusal
        settled: asyncio.Future[int | None] = self._state.loop.create_future()
        settled.add_done_callback(lambda it: None if it.cancelled() else it.exception())  # the block may be cut off
        self._state.spawn(self._settle(call, granted, use.count(), refusal, settled))
        rest_ms = await settled
        if refusal is None:
            if self._throttled_since_ms and exc is None:
                self._save_throttled(0)
        elif rest_ms is not None and isinstance(exc, Throttled):
            exc.after = max(rest_ms / 1000, exc.after)

    async def _settle(
        self,
        call: LimitCall,
        granted: Granted,
        units: int | None,
        refusal: Refusal | None,
        settled: "asyncio.Future[int | None]",
    ) -> None:
        """Settle a call, and give the ms until the end of the limit's rest to `settled`; None without a rest."""
        rest_ms: int | None = None
        try:
            if refusal is None:
                await self._send(
                    lambda: self._limits.settle(self._state.queue, call, granted, units=units), for_s=SETTLE_FOR_S
                )
            else:
                name, wait_s = refusal.limit, refusal.retry_after
                reply = await self._send(
                    lambda: self._limits.settle(
                        self._state.queue,
                        call,
                        granted,
                        units=units,
                        refused=refusal.why,
                        rest_ms=None if wait_s is None else round(1000 * wait_s),
                        resting=name,
                    ),
                    for_s=SETTLE_FOR_S,
                )
                rest_ms = max(reply.rests_until_ms - reply.now_ms, 0)
                self._note_throttled(name, refusal.why, reply.now_ms, granted.max_throttled_ms[name])
        except BaseException as exc:  # noqa: BLE001  # the block raises it
            if not settled.done():
                settled.set_exception(exc)
        else:
            if not settled.done():
                settled.set_result(rest_ms)

    async def _withdraw(self, call: LimitCall) -> None:
        """Take a call back that was not made, whether it is reserved or waits."""
        queue, limits = self._state.queue, self._limits
        try:
            await self._send(lambda: limits.leave(queue, call), for_s=SETTLE_FOR_S)
            await self._send(lambda: limits.settle(queue, call, Granted(0), units=0), for_s=SETTLE_FOR_S)
        except (QueueUnavailable, QueueFull, UnsupportedServer) as exc:
            log.warning("limit_not_settled", job_id=call.job_id, limits=call.names, error=str(exc))

    async def _send(self, call: Callable[[], Awaitable[T]], *, for_s: float = float("inf")) -> T:
        """Send a call to Redis until it is answered, for at most that many seconds, and return its reply."""
        delay, until, failed = FIRST_RETRY_DELAY_S, monotonic() + for_s, False
        while True:
            try:
                return await call()
            except (QueueUnavailable, QueueFull, UnsupportedServer) as exc:
                is_lost = self._job.ending is Ending.LOST  # another worker makes the call again
                if monotonic() > until or is_lost or (self._is_closed and for_s == float("inf")):
                    raise
                if not failed:
                    log.warning("limit_call_delayed", job_id=self._job.id, error=str(exc))
                    failed = True
                await asyncio.sleep(delay)
                delay = min(delay * 2, MAX_RETRY_DELAY_S)


def _end(woken: "asyncio.Future[None]") -> None:
    if not woken.done():
        woken.set_result(None)
