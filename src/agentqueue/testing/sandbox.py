"""A server for one test, with a client and workers."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, cast

from agentqueue.client import Client, Job, JobStatus, QueueStats
from agentqueue.client.results import check_timeout
from agentqueue.errors import ResultTimeout, UsageError
from agentqueue.local.server import EmbeddedServer
from agentqueue.model.job import State
from agentqueue.model.limits import parse_limits
from agentqueue.model.retry_policy import seconds
from agentqueue.model.stream import StreamEvent
from agentqueue.store import Schedules
from agentqueue.store.limits import Limits
from agentqueue.store.time_travel import advance_time, make_due

if TYPE_CHECKING:
    from agentqueue.agent.definition import Agent

GROUP: Final = "agentqueue.workers"
"""Group of the entry point that the worker's distribution registers."""
BURST: Final = "burst"
"""Name of the entry point."""
RUN_TIMEOUT_S: Final = 30.0
"""Longest duration of `run_until_idle`, in seconds. Handlers of tests should take far less."""

LIMITS_SOURCE: Final = "sandbox"
"""Source of the limits that a test defines."""
POLL_S: Final = 0.01
"""Pause between two reads of a job that another task's handlers run, in seconds."""


class RunningWorker(Protocol):
    """A worker that a Sandbox has started."""

    def stop(self, *, grace: float | None = None) -> None:
        """Drain it: it claims no more jobs, and running ones get `grace` seconds."""
        ...

    def crash(self) -> None:
        """End it as by SIGKILL: nothing more reaches the server, and every job stops where it is."""
        ...


class Burst(Protocol):
    """The entry point `burst` of the group `agentqueue.workers`, which the worker's distribution registers."""

    def __call__(
        self, target: Any, *, url: str, concurrency: int, started: Callable[[RunningWorker], None]
    ) -> Awaitable[None]:
        """Serve an Agent's queue in this process until no job is ready or running. Delayed jobs stay."""
        ...


class SandboxClient(Client):
    """The client of a Sandbox. A wait for a result runs the handlers and skips the job's delays."""

    box: "Sandbox"

    async def result(
        self,
        id: str,  # noqa: A002  # the public name
        timeout: float | timedelta | None = None,
        *,
        queue: str | None = None,
    ) -> Any:
        """Run the handlers until the job ends, and return the result of its handler; see `Client.result`.

        A delay of the job (`delay=`, or a retry's backoff) ends at once. Other times do not change. In a Sandbox
        without agents, and for a job that another worker runs, this only waits.

        Raises:
            UsageError: Nothing will ever run the job. The message has the call that is missing.
        """
        if self.box.agents:
            async with asyncio.timeout(check_timeout(timeout)) as limit:
                try:
                    await self.box.run_until_final(id, queue)
                except TimeoutError as exc:
                    if not limit.expired():
                        raise
                    raise ResultTimeout(f"job {id} has not ended yet; it goes on, ask again later") from exc
        return await super().result(id, timeout, queue=queue)

    async def stream(self, id: str, after: str | None = None) -> AsyncGenerator[StreamEvent]:  # noqa: A002
        """Run the handlers until the job ends, and read what it emits meanwhile; see `Client.stream`.

        Raises:
            UsageError: Nothing will ever run the job. The message has the call that is missing.
        """
        events = super().stream(id, after)
        driving = asyncio.ensure_future(self.box.run_until_final(id) if self.box.agents else asyncio.sleep(0))
        try:
            while True:
                reading = asyncio.ensure_future(anext(events, None))
                try:
                    await asyncio.wait({reading, driving}, return_when=asyncio.FIRST_COMPLETED)
                    if driving.done():
                        driving.result()
                    event = await reading
                finally:
                    reading.cancel()
                if event is None:
                    return
                yield event
        finally:
            driving.cancel()
            await asyncio.gather(driving, return_exceptions=True)
            await events.aclose()


class Sandbox:
    """A server for one test, with a client and, on request, workers: `async with Sandbox(agent, ...) as box:`.

    Args:
        agents: The agents whose queues `run_until_idle` serves.
        url: A server to use instead of an embedded one. It is not emptied.
        limits: Limits for `ctx.limit`, as in the resource: `[{"name": "gpt-main", "requestsPerMinute": 500}]`.
    """

    client: SandboxClient

    def __init__(self, *agents: "Agent", url: str | None = None, limits: Sequence[Mapping[str, Any]] = ()) -> None:
        self.agents = agents
        self._limits, _ = parse_limits(list(limits))
        self._server = EmbeddedServer() if url is None else None
        self._url = url
        self._driving = asyncio.Lock()
        self._workers: dict[RunningWorker, asyncio.Event] = {}
        """Workers that run now, each with an event that is set once it has ended."""

    @property
    def url(self) -> str:
        """Return the server's URL."""
        return self._server.url if self._server is not None else cast("str", self._url)

    async def __aenter__(self) -> Self:
        if self._server is not None:
            self._server.start()
        try:
            self.client = await SandboxClient(self.url).__aenter__()
            self.client.box = self
            if self._limits:
                await Limits(self.client.store.server).define(LIMITS_SOURCE, LIMITS_SOURCE, self._limits)
            schedules = Schedules(self.client.server)
            for agent in self.agents:
                if agent.crons:
                    crons = [cron.schedule() for cron in agent.crons]
                    await schedules.put(agent.queue, source="code", schedules=crons)
        except BaseException:
            self._stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()
        self._stop()

    def _stop(self) -> None:
        if self._server is not None:
            self._server.stop()

    async def run_until_idle(self, *, concurrency: int = 10, timeout: float = RUN_TIMEOUT_S) -> None:
        """Run the agents' handlers in this process until none of their jobs is ready or running.

        Jobs that are enqueued meanwhile run too. Delayed jobs, also retries, stay until `advance` makes them due.

        Raises:
            UsageError: `agentqueue-worker` is not installed, or the Sandbox has no agents.
            TimeoutError: Jobs are left after `timeout` seconds.
        """
        if not self.agents:
            raise UsageError("Sandbox() has no agents to run: pass them, Sandbox(agent, ...)")
        burst = load_burst()
        async with asyncio.timeout(timeout):
            while busy := [agent for agent in self.agents if await self._has_work(agent)]:
                await asyncio.gather(*(self._run(burst, agent, concurrency) for agent in busy))

    async def _run(self, burst: Burst, agent: "Agent", concurrency: int) -> None:
        ended, workers = asyncio.Event(), list[RunningWorker]()

        def started(worker: RunningWorker) -> None:
            workers.append(worker)
            self._workers[worker] = ended

        try:
            await burst(agent, url=self.url, concurrency=concurrency, started=started)
        finally:
            ended.set()
            for worker in workers:
                del self._workers[worker]

    async def crash(self) -> None:
        """End the workers that run now as by `kill -9`, as often as a test likes. Their jobs run again on new ones.

        Call it in another task than `run_until_idle` or `job.result()`, which go on with new workers, or within the
        function that shall be cut: the call does not return there. Three crashes make a job dead. Unlike in a killed
        process, coroutines run their `finally` blocks, without an effect on the server, and threads run on.
        """
        await self._end(lambda worker: worker.crash())

    async def drain(self, *, grace: float = 0.0) -> None:
        """Drain the workers that run now, as a deployment does by SIGTERM. Jobs that do not end run again on new ones.

        Call it as `crash`.

        Args:
            grace: Seconds that running jobs get.
        """
        await self._end(lambda worker: worker.stop(grace=grace))

    async def _end(self, end: Callable[[RunningWorker], None]) -> None:
        workers = dict(self._workers)
        if not workers:
            raise UsageError(
                "no worker of this Sandbox runs now: call this in a task beside box.run_until_idle() or job.result(), "
                "or in a function that a handler calls"
            )
        for worker in workers:
            end(worker)
        for ended in workers.values():  # a job's own task is cancelled here
            await ended.wait()

    async def run_until_final(self, job_id: str, queue: str | None = None) -> None:
        """Run the agents' handlers until a job ends. Its delays end at once. `job.result()` calls this.

        It returns early if another worker runs the job.

        Raises:
            UsageError: Nothing will ever run the job. The message has the call that is missing.
        """
        while not (status := await self.client.status(job_id, queue=queue)).is_final:
            if status.state is State.DELAYED:
                await self._check_served(status)
                await make_due(
                    self.client.store, status.queue, job_id
                )  # other times do not change, so that no result expires
            elif (
                self._driving.locked()
            ):  # another result() runs the handlers, maybe one whose handler waits for this job
                await asyncio.sleep(POLL_S)
            elif status.state is State.ACTIVE:
                return
            elif status.state is State.SUSPENDED and not await self._can_wake(status):
                raise UsageError(
                    f"job {status.id} waits without a slot for {status.waits_for}: call `await box.signal(job, name, "
                    "data)`, or let the time pass with `await box.advance(seconds)`, before job.result()"
                )
            else:
                await self._check_served(status)
                async with self._driving:
                    await self.run_until_idle()

    async def _can_wake(self, status: JobStatus) -> bool:
        """Return whether running the handlers may wake a suspended job. Delays of jobs end if it waits for children."""
        if any([await self._has_work(agent) for agent in self.agents]):
            return True
        delayed = 0
        if "child" in (status.waits_for or ""):
            for agent in self.agents:
                for job in await self.client.jobs(agent.queue, State.DELAYED, limit=1_000):
                    await make_due(self.client.store, job.queue, job.id)
                    delayed += 1
        return delayed > 0

    async def _check_served(self, status: JobStatus) -> None:
        served = [agent.queue for agent in self.agents]
        if status.queue not in served:
            raise UsageError(
                f"job {status.id} waits in queue {status.queue!r}, which no agent of this Sandbox serves "
                f"(it has {', '.join(served)}): pass its agent too, Sandbox(agent, ...)"
            )
        if (await self.client.stats(status.queue)).paused:
            raise UsageError(
                f"job {status.id} waits in queue {status.queue!r}, which is paused: "
                f"await box.client.resume({status.queue!r}) first"
            )

    async def _has_work(self, agent: "Agent") -> bool:
        stats: QueueStats = await self.client.stats(agent.queue)
        return not stats.paused and stats.waiting + stats.active > 0

    async def signal(
        self,
        job: Job[Any] | str,
        name: str,
        data: Any = None,
        /,
        *,
        sender: str | None = None,
        id: str | None = None,  # noqa: A002  # the public name
    ) -> bool:
        """Send a signal to a job, given by its handle or ID, that waits for it now or later; see `Client.signal`."""
        return await self.client.signal(job if isinstance(job, str) else job.id, name, data, sender=sender, id=id)

    async def advance(self, by: float | timedelta) -> None:
        """Let time pass on the server: delayed jobs, retries, waits and ticks become due; retention and rates end.

        The stored times move into the past; the machine's clock does not change. Time jumps: of several ticks of a cron
        that become due, those run that its rule for missed ticks says, as after an outage.

        Args:
            by: A number of seconds, or a timedelta.

        Raises:
            UsageError: The duration is negative.
        """
        await advance_time(self.client.store, round(seconds(by, "by") * 1000))


def load_burst() -> Burst:
    """Return the function of the installed worker that runs an agent in this process.

    Raises:
        UsageError: No worker is installed.
    """
    found = entry_points(group=GROUP, name=BURST)
    if not found:
        raise UsageError("running handlers needs the worker: pip install agentqueue-worker")
    return cast("Burst", next(iter(found)).load())
