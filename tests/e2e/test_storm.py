"""The travel example under steady load while everything is killed at random: no job lost, none recorded twice.

STORM_MINUTES (2 if absent) and STORM_SEED (any if absent; the report has it) come from the environment.
"""

import asyncio
import itertools
import json
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import yaml

from agentqueue.client import Client
from agentqueue.clock import monotonic
from agentqueue.errors import QueueUnavailable
from tests.e2e.test_install import REQUESTS, SAMPLE, install
from tests.support.approvals import approving
from tests.support.cluster.faults import Faults
from tests.support.cluster.kube import ApiError, Kube, is_ready
from tests.support.cluster.shell import ClusterError
from tests.support.installs import Helm
from tests.support.load import Load, all_final
from tests.support.operator import client_of

MINUTES = float(os.environ.get("STORM_MINUTES", "2"))
SEED = int(os.environ.get("STORM_SEED", random.SystemRandom().randrange(1_000_000)))
PAUSE_S = (1.5, 6.0)
"""Between two blows."""
SETTLE_S = 180.0
"""After the last blow, all jobs are final within this."""
NEXT = {
    "orchestrator": ("client-data", "proposal-analysis"),
    "proposal-analysis": ("communication",),
}
"""Each completed job of an agent sends one job to each of these."""
SEARCHES = 2
"""Children on `flight-search` of each job of `proposal-analysis`, also of one that dies: no market offers its trip."""

WORKERS = "agentqueue.dev/queue=travel,agentqueue.dev/component=worker"
REDIS = "agentqueue.dev/queue=travel,agentqueue.dev/component=redis"
OPERATOR = "app.kubernetes.io/component=operator"

Blow = Callable[[], Awaitable[None]]


@dataclass
class Storm:
    """Blows at random, by a seed."""

    chance: random.Random
    faults: Faults
    kube: Kube
    operator: Kube
    """Bound to the operator's namespace."""
    dealt: Counter[str] = field(default_factory=Counter)
    changes: "itertools.count[int]" = field(default_factory=itertools.count)

    async def rage(self, seconds: float) -> None:
        """Deal blows for so long; a rollout and a scale-in are always among them."""
        blows: Sequence[tuple[int, str, Blow]] = (
            (6, "worker killed", self.kill_worker),
            (3, "worker pod deleted", self.delete_worker),
            (2, "worker pod deleted without grace", self.destroy_worker),
            (1, "Redis killed", self.kill_redis),
            (1, "Redis pod deleted", self.delete_redis),
            (2, "operator killed", self.kill_operator),
            (1, "operator pod deleted", self.delete_operator),
            (1, "rollout", self.roll_out),
            (1, "scale-in", self.scale_in),
        )
        weights = [weight for weight, _, _ in blows]
        certain = [blow for blow in blows if blow[1] in {"rollout", "scale-in", "Redis killed", "operator killed"}]
        deadline = monotonic() + seconds
        while monotonic() < deadline:
            _, name, blow = (
                certain.pop() if certain and self.chance.random() < 0.3 else self.chance.choices(blows, weights)[0]
            )
            if await self._dealt(blow):
                self.dealt[name] += 1
            await asyncio.sleep(self.chance.uniform(*PAUSE_S))
        for _, name, blow in certain:
            self.dealt[name] += await self._dealt(blow)

    async def kill_worker(self) -> None:
        """SIGKILL a worker."""
        await self.faults.kill_container(self.kube, await self._some(self.kube, WORKERS))

    async def delete_worker(self) -> None:
        """As a drain of its node would."""
        await self.kube.delete("pod", await self._some(self.kube, WORKERS))

    async def destroy_worker(self) -> None:
        """Its pod is forgotten before it has ended."""
        await self.kube.delete("pod", await self._some(self.kube, WORKERS), grace=0)

    async def kill_redis(self) -> None:
        """SIGKILL Redis; its container starts again on the same volume."""
        await self.faults.kill_container(self.kube, await self._some(self.kube, REDIS))

    async def delete_redis(self) -> None:
        """Its pod is made anew."""
        await self.kube.delete("pod", await self._some(self.kube, REDIS))

    async def kill_operator(self) -> None:
        """SIGKILL one of both."""
        await self.faults.kill_container(self.operator, await self._some(self.operator, OPERATOR))

    async def delete_operator(self) -> None:
        """One of both ends in peace."""
        await self.operator.delete("pod", await self._some(self.operator, OPERATOR))

    async def roll_out(self) -> None:
        """New pods for all agents."""
        found = await self.kube.get("agentqueue", "travel")
        kept = [one for one in found["spec"]["agentDefaults"].get("env", []) if one["name"] != "STORM"]
        env = [*kept, {"name": "STORM", "value": str(next(self.changes))}]
        await self.kube.patch("agentqueue", "travel", {"spec": {"agentDefaults": {"env": env}}})

    async def scale_in(self) -> None:
        """More workers than the load needs, then their end."""
        for least in (3, 0):
            scaling = {"agentDefaults": {"scaling": {"minReplicas": least, "maxReplicas": 4}}}
            await self.kube.patch("agentqueue", "travel", {"spec": scaling})
            await asyncio.sleep(self.chance.uniform(*PAUSE_S))

    async def _some(self, kube: Kube, labels: str) -> str:
        running = [pod for pod in await kube.list("pod", labels=labels) if _runs(pod)]
        if not running:
            raise LookupError(labels)
        return str(self.chance.choice(running)["metadata"]["name"])

    @staticmethod
    async def _dealt(blow: Blow) -> bool:
        """False when there was nothing to hit, or it had ended by itself."""
        try:
            await blow()
        except (LookupError, ApiError, ClusterError):
            return False
        return True


def _runs(pod: Any) -> bool:
    statuses = pod["status"].get("containerStatuses", [])
    return bool(statuses) and all("running" in one["state"] for one in statuses)


@dataclass
class Progress:
    """Watches the count of final jobs: how long did nothing move?"""

    client: Client
    final: int = 0
    longest_stall: tuple[float, float] = (0.0, 0.0)
    """Its seconds, and those of them in which Redis did not answer: the kubelet lets a container wait for up to five
    minutes that has been killed often."""

    async def watch(self) -> None:
        """For ever."""
        looked = moved = monotonic()
        away = 0.0
        while True:
            before, final = looked, self.final
            try:
                final = sum(map(finals, (await counters(self.client)).values()))
            except QueueUnavailable:
                away += monotonic() - before
            looked = monotonic()
            if final > self.final:
                self.final, moved, away = final, looked, 0.0
            self.longest_stall = max(self.longest_stall, (looked - moved, away))
            await asyncio.sleep(0.2)


async def counters(client: Client) -> Mapping[str, Mapping[str, int]]:
    """What the engine has counted, by queue."""
    return {queue.name: queue.counters for queue in await client.stats()}


def finals(counted: Mapping[str, int]) -> int:
    """Jobs that have become final."""
    return sum(counted.get(name, 0) for name in ("completed", "dead", "cancelled"))


async def idle(client: Client) -> None:
    """Until no queue holds a job that is not final."""
    async with asyncio.timeout(SETTLE_S):
        while any(one.waiting + one.active + one.delayed + one.suspended for one in await client.stats()):  # noqa: ASYNC110
            await asyncio.sleep(0.2)


@pytest.fixture
async def storm(all_images: None, faults: Faults, kube: Kube, system: str) -> AsyncIterator[Storm]:
    """Over an empty namespace, and one for the operator."""
    async with Kube(kube.cluster, system) as operator:
        yield Storm(random.Random(SEED), faults, kube, operator)


@pytest.mark.timeout(MINUTES * 60 + 900)
async def test_no_job_is_lost_or_recorded_twice_whatever_is_killed(
    storm: Storm, helm: Helm, capsys: pytest.CaptureFixture[str]
) -> None:
    kube = storm.kube
    await install(helm, storm.operator.namespace)
    await kube.apply(*yaml.safe_load_all(SAMPLE.read_text()))
    await kube.until("agentqueue", "travel", is_ready, timeout=120)
    async with client_of(kube, "travel") as client:
        load, progress = Trips(client, "orchestrator", "plan-trip", every=0.4, prefix="storm"), Progress(client)
        enqueueing, watching = asyncio.create_task(load.run()), asyncio.create_task(progress.watch())
        await storm.rage(MINUTES * 60)
        load.end()
        await enqueueing
        await kube.until("agentqueue", "travel", is_ready, timeout=SETTLE_S)
        states = await all_final(client, [job.id for job in load.jobs], timeout=SETTLE_S)
        async with approving(client):
            await idle(client)
        watching.cancel()
        counted = await counters(client)
    with capsys.disabled():
        print("\n" + report(storm, load, progress, states))
    assert len({job.id for job in load.jobs}) == len(load.jobs)
    conserved(counted, len(load.jobs))
    assert {"rollout", "scale-in", "Redis killed", "operator killed", "worker killed"} <= storm.dealt.keys()
    await kube.until("agentqueue", "travel", is_ready, timeout=120)


def conserved(counted: Mapping[str, Mapping[str, int]], accepted: int) -> None:
    """Every job that was sent is final, once: what an agent completed is what the next ones have dealt with."""
    assert finals(counted["orchestrator"]) == accepted
    for agent, others in NEXT.items():
        for other in others:
            assert finals(counted[other]) == counted[agent]["completed"], f"{agent} -> {other}: {json.dumps(counted)}"
    assert finals(counted["flight-search"]) == SEARCHES * finals(counted["proposal-analysis"]), json.dumps(counted)
    died = sum(one.get("dead", 0) for name, one in counted.items() if name != "error-monitor")
    assert finals(counted.get("error-monitor", {})) == died, json.dumps(counted)


class Trips(Load):
    """Clients' messages, the example's own over and over, each with an id of its own."""

    def payload(self, job_id: str) -> object:
        """The next message."""
        return REQUESTS[len(self.jobs) % len(REQUESTS)] | {"requestId": job_id}


def report(storm: Storm, load: Load, progress: Progress, states: Mapping[str, str]) -> str:
    """What the storm did, and what became of the jobs."""
    blows = ", ".join(f"{count} x {name}" for name, count in storm.dealt.most_common())
    ended = ", ".join(f"{count} {state}" for state, count in Counter(states.values()).most_common())
    stall, away = progress.longest_stall
    return (
        f"storm of {MINUTES:g} min, seed {SEED}: {blows}\n"
        f"{len(load.jobs)} trips accepted, {load.refused} refused while Redis was away: {ended}; "
        f"{progress.final} jobs final in all, longest stall {stall:.1f} s, {away:.1f} s of it without Redis"
    )
