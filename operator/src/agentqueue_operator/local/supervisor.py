"""Control loop of `agentqueue up`: read the queues, decide on the number of workers, start and stop processes."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Final

from agentqueue.errors import AgentQueueError
from agentqueue.model.wording import counted
from agentqueue_operator.autoscaling.model import Decision, ScaleTo
from agentqueue_operator.autoscaling.removal import RequestDrain
from agentqueue_operator.local.agent import HUNG_S, LocalAgent, WorkerProcess
from agentqueue_operator.local.fleet import Action, CancelDrain, StartWorkers, StopWorker, plan
from agentqueue_operator.local.plain_screen import UP
from agentqueue_operator.local.ports import Exit, Processes, Screen
from agentqueue_operator.local.restart_backoff import may_start
from agentqueue_operator.queues.decision_publisher import Publisher
from agentqueue_operator.queues.first_job_listener import listen
from agentqueue_operator.queues.housekeeper import Housekeeper
from agentqueue_operator.queues.ports import HousekeepingResult, Queues
from agentqueue_operator.queues.schedule_writer import ScheduleWriter

PERIOD_S: Final = 0.5
"""Interval in seconds between two reads of all queues, which take one round trip. The first job of a queue without
workers wakes the loop at once."""
SCHEDULES_S: Final = 5.0
"""Interval in seconds at which the schedules in Redis are compared with the file, since Redis may have been emptied."""
KILL_AFTER_S: Final = 5.0
"""Time in seconds after its grace period at which a worker that does not stop is killed. Its leases are released before
that period ends."""
DRAIN_READ_TIMEOUT_S: Final = 1.0
"""Timeout in seconds of a read during the drain, so that an unresponsive server does not delay it."""


class LocalSupervisor:
    """Runs the agents until it is stopped.

    Args:
        agents: the agents to run.
        queues: the queues on the server.
        processes: the worker processes.
        screen: output for people.
        clock: returns monotonic seconds.
        wake: event that starts the next iteration, for example because a process has ended. The loop clears it.
        code_has_changed: called in each iteration; returns whether the handlers' code has changed.
        revive: called in each iteration, to restart the embedded server if it has died.
        left: queues of earlier files, whose schedules are removed.
    """

    def __init__(
        self,
        agents: Sequence[LocalAgent],
        queues: Queues,
        processes: Processes,
        screen: Screen,
        *,
        clock: Callable[[], float],
        wake: asyncio.Event,
        code_has_changed: Callable[[], bool] = lambda: False,
        revive: Callable[[], None] = lambda: None,
        left: Iterable[str] = (),
    ) -> None:
        self.agents = agents
        self._queues = queues
        self._processes = processes
        self._screen = screen
        self._clock = clock
        self._wake = wake
        self._code_has_changed = code_has_changed
        self._revive = revive
        self._housekeeper = Housekeeper(lambda: self._queues, self._report_housekeeping)
        self._housekeeper.retentions = {agent.run.queue: agent.run.retention for agent in agents}
        self._skipped: dict[str, str] = {}
        self._server_problem = ""
        self._publisher = Publisher(UP)
        self._schedules = ScheduleWriter()
        self._left = left
        self._schedules_at = float("-inf")
        """Time at which the schedules were written last, in monotonic seconds."""
        self._schedules_problem = ""

    async def run(self, stop: asyncio.Event, stop_now: asyncio.Event) -> None:
        """Run until `stop` is set, and then let every worker drain.

        Args:
            stop: starts the drain.
            stop_now: set during the drain, makes the workers release their running jobs at once.
        """

        def idle_queues() -> list[str]:
            return [agent.run.queue for agent in self.agents if agent.is_idle()]

        async def wake_on_stop() -> None:
            await stop.wait()
            self._wake.set()

        listener = asyncio.create_task(listen(lambda: self._queues, idle_queues, self._wake.set))
        housekeeping = asyncio.create_task(self._housekeeper.run())
        stopping = asyncio.create_task(wake_on_stop())
        try:
            while not stop.is_set():
                for task in (listener, housekeeping):  # They run until cancelled, so one that has ended has failed.
                    if task.done():
                        task.result()
                await self._run_once()
                await self._wait()
        finally:
            for task in (listener, housekeeping, stopping):
                task.cancel()
            await asyncio.gather(listener, housekeeping, stopping, return_exceptions=True)
            await self._drain(stop_now)

    async def _wait(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), PERIOD_S)
        self._wake.clear()

    async def _run_once(self) -> None:
        self._revive()
        if self._code_has_changed():
            self._screen.print_line(UP, "the code has changed: its workers are replaced as they drain")
            for agent in self.agents:
                agent.replace_code()
        await self._handle_exits(self._processes.exits())
        await self._read()
        await self._write_schedules()
        decisions = {agent.run.queue: await self._scale(agent) for agent in self.agents}
        await self._publisher.publish(self._queues, decisions, at=self._clock())
        self._screen.show(agent.row() for agent in self.agents)

    async def _write_schedules(self) -> None:
        if self._server_problem or self._clock() < self._schedules_at + SCHEDULES_S:
            return
        schedules = {agent.run.queue: agent.run.schedules for agent in self.agents}
        problem = ""
        try:
            await self._schedules.write(self._queues, schedules, left=self._left)
            self._left = ()
        except AgentQueueError as error:
            problem = f"the schedules of the file are not written: {error}"
            if problem != self._schedules_problem:
                self._screen.print_line(UP, problem, error=True)
        self._schedules_problem, self._schedules_at = problem, self._clock()

    async def _read(self) -> None:
        """Read all queues, and report the workers that became ready."""
        metrics = {}
        try:
            metrics = await self._queues.read({agent.run.queue: agent.observer.startup_s for agent in self.agents})
            self._report_server("")
        except AgentQueueError as error:
            self._report_server(str(error))
        at = self._clock()
        for agent in self.agents:
            for worker in agent.observe(metrics.get(agent.run.queue), at=at):
                self._screen.print_line(worker.name, f"ready after {at - worker.started:.1f} s")

    def _report_server(self, problem: str) -> None:
        """Print a problem with the server when it begins and when it ends. `problem`: empty if there is none."""
        if problem and problem != self._server_problem:
            self._screen.print_line(UP, problem, error=True)
        elif self._server_problem and not problem:
            self._screen.print_line(UP, "Redis answers again")
        self._server_problem = problem

    async def _scale(self, agent: LocalAgent) -> Decision:
        """Decide on the number of workers of an agent, and carry out the plan."""
        at = self._clock()
        decision = agent.decide(at=at)
        if isinstance(decision, ScaleTo):
            agent.note = f"to {decision.replicas}: {decision.reason}"
            self._screen.print_line(agent.run.name, f"scaled to {decision.replicas} ({decision.reason})")
        allowed = may_start(agent.restarts, at=at, starting=agent.row().starting, most=agent.wanted)
        for action in plan(agent.members(at=at), wanted=agent.wanted, may_start=allowed):
            await self._carry_out(agent, action)
        self._kill_overdue(agent)
        for worker in agent.hung(at=self._clock()):
            worker.ended = self._clock()
            text = f"has not renewed its leases for {HUNG_S:.0f} s: killed, because jobs wait"
            self._screen.print_line(worker.name, text, error=True)
            self._processes.kill(worker.name)
        return decision

    async def _carry_out(self, agent: LocalAgent, action: Action) -> None:
        match action:
            case StartWorkers(count):
                await self._start(agent, count)
            case StopWorker(name):
                self._stop(agent.workers[name])
            case RequestDrain(name):
                await self._mark(agent, name, drain=True)
            case CancelDrain(name):
                await self._mark(agent, name, drain=False)

    async def _start(self, agent: LocalAgent, count: int) -> None:
        try:
            for _ in range(count):
                name = await self._processes.start(agent.run)
                agent.workers[name] = WorkerProcess(name, agent.run, agent.version, self._clock())
        except OSError as error:  # Processes, memory or file handles are exhausted, or the code's folder is gone.
            at = self._clock()
            agent.start_failed(at=at)
            why = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
            text = f"cannot start a worker ({why}): {agent.next_start(at=at)}"
            self._screen.print_line(agent.run.name, text, error=True)

    async def _mark(self, agent: LocalAgent, name: str, *, drain: bool) -> None:
        try:
            await self._queues.mark(agent.run.queue, name, drain=drain)
            agent.workers[name].marked = drain
        except AgentQueueError as error:  # The plan after the next read contains the action again.
            self._report_server(str(error))

    def _stop(self, worker: WorkerProcess) -> None:
        worker.ended = self._clock()
        self._processes.stop(worker.name)

    def _kill_overdue(self, agent: LocalAgent) -> None:
        for worker in agent.workers.values():
            if worker.ended is not None and self._clock() > worker.ended + worker.run.grace_s + KILL_AFTER_S:
                self._screen.print_line(worker.name, "did not stop within its grace period: killed", error=True)
                self._processes.kill(worker.name)

    def _report_housekeeping(self, result: HousekeepingResult) -> None:
        if result.released:
            jobs = counted(result.released, "job")
            self._screen.print_line(UP, f"{jobs} of lost workers returned to the queue: their leases expired")
            self._wake.set()
        for queue, why in result.skipped.items():
            if self._skipped.get(queue) != why:
                self._skipped[queue] = why
                self._screen.print_line(UP, f"housekeeping of queue {queue} is incomplete: {why}", error=True)

    async def _handle_exits(self, exits: Iterable[Exit]) -> None:
        """Remove the workers that have ended, release the leases of those that failed, and report unexpected ends."""
        unexpected = []
        for gone in exits:
            agent = next(agent for agent in self.agents if gone.worker in agent.workers)
            worker = agent.workers.pop(gone.worker)
            if gone.code != 0:
                why = f"exit code {gone.code}" if gone.code >= 0 else f"signal {-gone.code}"
                with suppress(AgentQueueError):  # The leases expire by themselves.
                    released = await self._queues.release_leases_of_worker(agent.run.queue, gone.worker, why)
                    if released:
                        jobs = counted(released, "running job")
                        self._screen.print_line(gone.worker, f"died ({why}); {jobs} returned to the queue")
            if worker.ended is None:
                agent.worker_died(worker, at=self._clock())
                unexpected.append((agent, gone))
        # The text depends on the workers that are left, which are known only after the loop above.
        for agent, gone in unexpected:
            last = next((line for line in reversed(gone.last_lines) if line.strip()), "none")
            agent.note = f"worker died: {last}"[:120]
            how = f"ended with {gone.code}" if gone.code >= 0 else f"was killed by signal {-gone.code}"
            next_start = agent.next_start(at=self._clock())
            self._screen.print_line(gone.worker, f"{how} ({next_start}); its last line: {last}", error=True)

    async def _drain(self, stop_now: asyncio.Event) -> None:
        async def stop_workers_now() -> None:
            await stop_now.wait()
            for worker in self._workers():  # A second SIGTERM makes a worker release its running jobs.
                self._processes.stop(worker.name)

        for agent in self.agents:
            agent.wanted = 0
        for worker in self._workers():
            if worker.ended is None:
                self._stop(worker)
        forcing = asyncio.create_task(stop_workers_now())
        while self._workers():
            self._revive()  # Jobs that still run have to store their results.
            await self._handle_exits(self._processes.exits())
            for agent in self.agents:
                self._kill_overdue(agent)
            if not self._server_problem:  # Jobs that are completed during the drain are counted too.
                with suppress(TimeoutError):
                    async with asyncio.timeout(DRAIN_READ_TIMEOUT_S):
                        await self._read()
            self._screen.show(agent.row() for agent in self.agents)
            if self._workers():
                await self._wait()
        forcing.cancel()

    def _workers(self) -> list[WorkerProcess]:
        return [worker for agent in self.agents for worker in agent.workers.values()]
