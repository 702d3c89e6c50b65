"""Reads the queues of one server for scaling, and does to them what scaling decides."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

import orjson

from agentqueue.client.stats import live_beats, stalled_of
from agentqueue.clock import now_ms
from agentqueue.keys import KeySpace
from agentqueue.store import Engine, EngineSettings, Heartbeat, QueueSnapshot, Server, Store, run_housekeeping
from agentqueue_operator.autoscaling.model import Load
from agentqueue_operator.queues.ports import Death, Look, Report, Retention, Tended

DECISION_MS: Final = 60_000
"""A decision that nobody has renewed for so long tells nothing any more."""


class QueueReader:
    """The queues of one server, as `app.ports.Queues`."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._store = Store(server)

    async def look(self, horizons_s: Mapping[str, float]) -> dict[str, Look]:
        """All the queues in one round trip; one that can't be read costs the others nothing."""
        horizons_ms = {queue: int(seconds * 1000) for queue, seconds in horizons_s.items()}
        snapshots = await self._store.snapshots(horizons_ms)
        return {queue: look_of(snapshot) for queue, snapshot in snapshots.items()}

    async def mark(self, queue: str, worker: str, *, drain: bool, keep_s: float | None = None) -> None:
        """The worker learns of it with its next renewal."""
        if drain:
            await self._store.request_drain(queue, worker, at_ms=now_ms(), keep_ms=_ms(keep_s))
        else:
            await self._store.cancel_drain(queue, worker)

    async def keep_marks(self, queue: str, keep_s: float | None) -> None:
        """One round trip."""
        await self._store.keep_drain_requests(queue, _ms(keep_s))

    async def bury_worker(self, queue: str, worker: str, why: str) -> int:
        """Its jobs go back to where they stood, each with a crash counted."""
        engine = Engine(self._server, queue)
        given = await engine.release_worker_leases(worker=worker, reason=why)
        await engine.deregister_worker(worker)
        return given

    async def bury_container(self, queue: str, death: Death) -> int:
        """Its jobs go back to where they stood, each with a crash counted.

        In a pod that lives on, only what the incarnation of the last heartbeat held: the one that has followed it may
        hold jobs already. If that one's heartbeat is the last, it has itself given back what the dead one held.
        """
        engine = Engine(self._server, queue)
        if death.of_pod:
            given = await engine.release_worker_leases(worker=f"{death.worker}/{death.pod_uid}", reason=death.why)
            await engine.deregister_worker(death.worker)
            return given
        beat = await self._store.heartbeat(queue, death.worker)
        incarnation = None if beat is None else _incarnation(beat, death)
        if incarnation is None:
            return 0
        owner = f"{death.worker}/{death.pod_uid}/{incarnation}"
        return await engine.release_owner_leases(owner=owner, reason=death.why)

    async def publish(self, decisions: Mapping[str, bytes]) -> Mapping[str, bytes | None]:
        """All of them in one round trip."""
        return await self._store.publish_decisions(decisions, keep_ms=DECISION_MS)

    async def tend(self, retentions: Mapping[str, Retention]) -> Tended:
        """All of them in one round trip."""
        settings = {
            queue: EngineSettings(dead_ms=keeps.dead_s * 1000, history_ms=keeps.history_s * 1000)
            for queue, keeps in retentions.items()
        }
        replies = await run_housekeeping(self._server, settings)
        return Tended(
            given_back=sum(reply.reaped for reply in replies.values()),
            left_out={
                queue: ", ".join(f"{key} is {kind}" for key, kind in reply.wrong_type_keys)
                for queue, reply in replies.items()
                if reply.wrong_type_keys
            },
        )

    async def wait_for_jobs(self, queues: Sequence[str], timeout_s: float) -> bool:
        """Blocks on the queues' wake-up lists.

        A token is taken and not put back: the caller waits only for queues without a worker, and a worker that starts
        looks for jobs before it first waits.
        """
        keys = [KeySpace(queue).wake for queue in queues]
        redis = self._server.redis
        return await self._server.call(lambda: redis.execute_command("BLPOP", *keys, timeout_s)) is not None


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds * 1000)


def look_of(snapshot: QueueSnapshot) -> Look:
    """What scaling and people want to see of a queue's snapshot."""
    reports = {beat.worker: _report(beat) for beat in live_beats(snapshot)}
    counters = snapshot.counters
    return Look(
        load=_load(snapshot, reports),
        reports=reports,
        marked=snapshot.draining,
        delayed=sum(snapshot.delayed),
        done=counters.get("completed", 0),
        dead=snapshot.dead,
        arrived=_arrived(snapshot),
        run_ms=counters.get("run_ms", 0),
        counters=counters,
        waits=snapshot.waits,
        silent_s=_silent_s(snapshot, reports),
    )


def _load(snapshot: QueueSnapshot, reports: Mapping[str, Report]) -> Load:
    """Each started job counts once: as one that runs, or as one that wants a slot since its worker is gone."""
    oldest_ms = 0.0 if snapshot.oldest_ms is None else max(0.0, snapshot.now_ms - snapshot.oldest_ms)
    stalled = stalled_of(snapshot, slots=sum(report.slots for report in reports.values()))
    return Load(
        ready=snapshot.waiting,
        due_soon=snapshot.due_soon,
        active=sum(snapshot.active) - stalled,
        stalled=stalled,
        oldest_ready=timedelta(milliseconds=oldest_ms),
        paused=snapshot.paused is not None,
    )


def _arrived(snapshot: QueueSnapshot) -> int:
    """Counted where jobs are and where they end: a plain arq client's enqueue counts nothing. A delayed job arrives
    when it comes due, a retried one again."""
    ended = sum(snapshot.counters.get(name, 0) for name in ("completed", "dead", "cancelled", "retried"))
    return snapshot.waiting + sum(snapshot.active) + ended


def _silent_s(snapshot: QueueSnapshot, live: Mapping[str, Report]) -> Mapping[str, float]:
    return {
        beat.worker: (snapshot.now_ms - beat.seen_ms) / 1000 for beat in snapshot.workers if beat.worker not in live
    }


def _report(beat: Heartbeat) -> Report:
    """A worker of another version may write what this one can't read; it then counts as a busy one (rule 7)."""
    try:
        said: Any = orjson.loads(beat.raw)
        return Report(
            busy=int(said["busy"]),
            slots=int(said["slots"]),
            draining=bool(said["draining"]),
            mark=int(said.get("drainMark") or 0),
            running_s=int(said.get("runningMs", 0)) / 1000,
            oldest_s=int(said.get("oldestMs", 0)) / 1000,
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return Report(busy=1, slots=1, draining=False)


def _incarnation(beat: Heartbeat, death: Death) -> str | None:
    """The incarnation that the heartbeat names, if it is the dead one: it had started by the time of the death.

    Both times are of the node's clock. Cut to seconds, a death's never is after the start of what follows it.
    """
    try:
        said: Any = orjson.loads(beat.raw)
        dead = said["podUid"] == death.pod_uid and said["startedMs"] < death.ended_ms
        return str(said["incarnation"]) if dead else None
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
