"""The loop of `agentqueue up`: look at the queues, decide how many workers, start and end processes; then again."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Final

from agentqueue.errors import AgentQueueError
from agentqueue_operator.autoscaling.model import Decision, ScaleTo
from agentqueue_operator.autoscaling.wording import counted
from agentqueue_operator.local.agent import HUNG_S, Agent, Worker
from agentqueue_operator.local.fleet import Action, End, Mark, Start, Unmark, plan
from agentqueue_operator.local.ports import Exit, Processes, Screen
from agentqueue_operator.local.restart_backoff import may_start
from agentqueue_operator.queues.decision_publisher import Publisher
from agentqueue_operator.queues.first_job_listener import listen
from agentqueue_operator.queues.housekeeper import Housekeeper
from agentqueue_operator.queues.ports import Queues, Tended

PERIOD_S: Final = 0.5
"""Between two looks: one round trip for all queues. A first job at zero wakes the loop at once."""
KILL_AFTER_S: Final = 5.0
"""Beyond its grace period a worker that was told to stop is killed: it hands its jobs back within that period."""
LAST_LOOKS_S: Final = 1.0
"""In the drain the server gets no longer to answer a look."""
ME: Final = "up"


class Up:
    """Runs the agents until told to stop.

    Args:
        agents: what to run.
        clock: monotonic seconds.
        wake: set by whoever knows of something new (a process ended); the loop clears it.
        changed: asked at every look whether the handlers' code has changed.
        revive: called at every look, to bring the embedded server back if it died.
    """

    def __init__(
        self,
        agents: Sequence[Agent],
        queues: Queues,
        processes: Processes,
        screen: Screen,
        *,
        clock: Callable[[], float],
        wake: asyncio.Event,
        changed: Callable[[], bool] = lambda: False,
        revive: Callable[[], None] = lambda: None,
    ) -> None:
        self.agents = agents
        self._queues = queues
        self._processes = processes
        self._screen = screen
        self._clock = clock
        self._wake = wake
        self._changed = changed
        self._revive = revive
        self._housekeeper = Housekeeper(lambda: self._queues, self._tended)
        self._housekeeper.retentions = {agent.run.queue: agent.run.retention for agent in agents}
        self._left_out: dict[str, str] = {}
        self._trouble = ""
        self._publisher = Publisher(ME)

    async def run(self, stop: asyncio.Event, hurry: asyncio.Event) -> None:
        """Until `stop`; then every worker drains. `hurry`: they hand back what they run, at once."""
        listener = asyncio.create_task(listen(lambda: self._queues, self._at_zero, self._wake.set))
        housekeeping = asyncio.create_task(self._housekeeper.run())
        stopping = asyncio.create_task(self._wake_on(stop))
        try:
            while not stop.is_set():
                _raise_if_ended(listener, housekeeping)
                await self._turn()
                await self._rest()
        finally:
            for task in (listener, housekeeping, stopping):
                task.cancel()
            await asyncio.gather(listener, housekeeping, stopping, return_exceptions=True)
            await self._drain(hurry)

    async def _wake_on(self, event: asyncio.Event) -> None:
        await event.wait()
        self._wake.set()

    async def _rest(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), PERIOD_S)
        self._wake.clear()

    async def _turn(self) -> None:
        self._revive()
        if self._changed():
            self._reload()
        await self._bury(self._processes.exits())
        await self._look()
        decisions = {agent.run.queue: await self._steer(agent) for agent in self.agents}
        await self._publisher.publish(self._queues, decisions, at=self._clock())
        self._screen.show(agent.row() for agent in self.agents)

    def _reload(self) -> None:
        self._screen.say(ME, "the code has changed: its workers are replaced as they drain")
        for agent in self.agents:
            agent.replace_code()

    async def _look(self) -> None:
        horizons = {agent.run.queue: agent.rates.startup.total_seconds() for agent in self.agents}
        looks = {}
        try:
            looks = await self._queues.look(horizons)
            self._say_once("")
        except AgentQueueError as error:
            self._say_once(str(error))
        at = self._clock()
        for agent in self.agents:
            for worker in agent.see(looks.get(agent.run.queue), at=at):
                self._screen.say(worker.name, f"ready after {at - worker.started:.1f} s")

    def _say_once(self, trouble: str) -> None:
        if trouble and trouble != self._trouble:
            self._screen.say(ME, trouble, bad=True)
        elif self._trouble and not trouble:
            self._screen.say(ME, "Redis answers again")
        self._trouble = trouble

    async def _steer(self, agent: Agent) -> Decision:
        at = self._clock()
        decision = agent.decide(at=at)
        if isinstance(decision, ScaleTo):
            agent.note = f"to {decision.replicas}: {decision.reason}"
            self._screen.say(agent.run.name, f"scaled to {decision.replicas} ({decision.reason})")
        members = agent.members(at=at)
        starting = agent.row().starting
        allowed = may_start(agent.restarts, at=at, starting=starting, most=agent.wanted)
        for action in plan(members, wanted=agent.wanted, may_start=allowed):
            await self._act(agent, action)
        self._end_overdue(agent)
        self._end_hung(agent)
        return decision

    async def _act(self, agent: Agent, action: Action) -> None:
        match action:
            case Start(count):
                await self._start(agent, count)
            case End(name):
                self._end(agent.workers[name])
            case Mark(name) | Unmark(name):
                await self._mark(agent, name, drain=isinstance(action, Mark))

    async def _start(self, agent: Agent, count: int) -> None:
        try:
            for _ in range(count):
                name = await self._processes.start(agent.run)
                agent.workers[name] = Worker(name, agent.run, agent.version, self._clock())
        except OSError as error:  # no process, memory or file handle left, or the code's folder is gone: for a while
            at = self._clock()
            agent.start_failed(at=at)
            why = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
            self._screen.say(agent.run.name, f"a worker can't be started ({why}): {agent.next_start(at=at)}", bad=True)

    async def _mark(self, agent: Agent, name: str, *, drain: bool) -> None:
        try:
            await self._queues.mark(agent.run.queue, name, drain=drain)
            agent.workers[name].marked = drain
        except AgentQueueError as error:  # nothing was decided on it yet: the next look plans it anew
            self._say_once(str(error))

    def _end(self, worker: Worker) -> None:
        worker.ended = self._clock()
        self._processes.end(worker.name)

    def _end_overdue(self, agent: Agent) -> None:
        for worker in agent.workers.values():
            if worker.ended is not None and self._clock() > worker.ended + worker.run.grace_s + KILL_AFTER_S:
                self._screen.say(worker.name, "did not stop within its grace period: killed", bad=True)
                self._processes.kill(worker.name)

    def _end_hung(self, agent: Agent) -> None:
        for worker in agent.hung(at=self._clock()):
            worker.ended = self._clock()
            self._screen.say(worker.name, f"has not renewed its leases for {HUNG_S:.0f} s: killed, jobs wait", bad=True)
            self._processes.kill(worker.name)

    def _tended(self, tended: Tended) -> None:
        if tended.given_back:
            jobs = counted(tended.given_back, "job")
            self._screen.say(ME, f"{jobs} of workers that are gone went back to the queue: no lease was renewed")
            self._wake.set()
        for queue, why in tended.left_out.items():
            if self._left_out.get(queue) != why:
                self._left_out[queue] = why
                self._screen.say(ME, f"housekeeping of queue {queue} is not complete: {why}", bad=True)

    async def _bury(self, exits: Iterable[Exit]) -> None:
        dead = []
        for gone in exits:
            agent = next(agent for agent in self.agents if gone.worker in agent.workers)
            worker = agent.workers.pop(gone.worker)
            if gone.code != 0:
                await self._give_back(agent, gone)
            if worker.ended is None:
                agent.died(worker, at=self._clock())
                dead.append((agent, gone))
        for agent, gone in dead:  # only now is it known how many are left
            self._mourn(agent, gone)

    async def _give_back(self, agent: Agent, gone: Exit) -> None:
        why = f"exit code {gone.code}" if gone.code >= 0 else f"signal {-gone.code}"
        try:
            given = await self._queues.bury_worker(agent.run.queue, gone.worker, why)
        except AgentQueueError:
            return  # its leases run out by themselves
        if given:
            self._screen.say(gone.worker, f"died ({why}); {given} running jobs went back to the queue")

    def _mourn(self, agent: Agent, gone: Exit) -> None:
        last = next((line for line in reversed(gone.last_words) if line.strip()), "none")
        agent.note = f"worker died: {last}"[:120]
        how = f"ended with {gone.code}" if gone.code >= 0 else f"was killed by signal {-gone.code}"
        then = agent.next_start(at=self._clock())
        self._screen.say(gone.worker, f"{how} ({then}); its last line: {last}", bad=True)

    def _at_zero(self) -> list[str]:
        return [agent.run.queue for agent in self.agents if agent.is_idle()]

    async def _drain(self, hurry: asyncio.Event) -> None:
        for agent in self.agents:
            agent.wanted = 0
        for worker in self._workers():
            if worker.ended is None:
                self._end(worker)
        hurrying = asyncio.create_task(self._hurry_on(hurry))
        while self._workers():
            self._revive()  # jobs that still run have results to leave there
            await self._bury(self._processes.exits())
            for agent in self.agents:
                self._end_overdue(agent)
            await self._look_again()
            if self._workers():
                await self._rest()
        hurrying.cancel()

    async def _look_again(self) -> None:
        """What is done in the drain counts too; a server that does not answer must not hold it up."""
        if not self._trouble:
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_LOOKS_S):
                    await self._look()
        self._screen.show(agent.row() for agent in self.agents)

    async def _hurry_on(self, hurry: asyncio.Event) -> None:
        await hurry.wait()
        for worker in self._workers():  # a second SIGTERM, to a worker, says not to wait for its jobs
            self._processes.end(worker.name)

    def _workers(self) -> list[Worker]:
        return [worker for agent in self.agents for worker in agent.workers.values()]


def _raise_if_ended(*tasks: "asyncio.Task[None]") -> None:
    """They run for ever: one that has ended has failed, and what it did would not be done any more."""
    for task in tasks:
        if task.done():
            task.result()
