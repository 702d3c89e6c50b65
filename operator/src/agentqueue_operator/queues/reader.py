"""Access to the queues of one Redis server: reads metrics and carries out scaling decisions."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

import orjson

from agentqueue.client.stats import ahead_of, held_ahead_of, live_heartbeats, stalled_of
from agentqueue.clock import now_ms
from agentqueue.keys import KeySpace
from agentqueue.model.schedule import Schedule
from agentqueue.model.template import KeptTemplate, TemplateState
from agentqueue.store import Engine, EngineSettings, Heartbeat, QueueSnapshot, Server, Store, run_housekeeping
from agentqueue.store.schedules import Schedules
from agentqueue.store.templates import Templates
from agentqueue_operator.autoscaling.model import Load
from agentqueue_operator.autoscaling.queue_metrics import QueueMetrics, WorkerHeartbeat
from agentqueue_operator.queues.ports import HousekeepingResult, Retention, WorkerCrash

DECISION_MS: Final = 60_000
"""Time in milliseconds after which a decision that is not renewed expires. An older one would be misleading."""


class QueueReader:
    """The queues of one server, as `queues.ports.Queues`."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._store = Store(server)
        self._templates = Templates(server)
        self._schedules = Schedules(server)

    async def read(self, horizons_s: Mapping[str, float]) -> dict[str, QueueMetrics]:
        """Read all queues in one round trip. A queue that cannot be read does not affect the others."""
        horizons_ms = {queue: int(seconds * 1000) for queue, seconds in horizons_s.items()}
        snapshots = await self._store.snapshots(horizons_ms)
        return {queue: metrics_of(snapshot) for queue, snapshot in snapshots.items()}

    async def mark(self, queue: str, worker: str, *, drain: bool, keep_s: float | None = None) -> None:
        """Set or remove a drain mark. The worker sees it with its next lease renewal."""
        if drain:
            await self._store.request_drain(queue, worker, at_ms=now_ms(), keep_ms=_ms(keep_s))
        else:
            await self._store.cancel_drain(queue, worker)

    async def keep_marks(self, queue: str, keep_s: float | None) -> None:
        """Renew the drain marks in one round trip."""
        await self._store.keep_drain_requests(queue, _ms(keep_s))

    async def release_leases_of_worker(self, queue: str, worker: str, why: str) -> int:
        """Return the jobs of a dead worker to their old positions, each with a crash counted."""
        engine = Engine(self._server, queue)
        released = await engine.release_worker_leases(worker=worker, reason=why)
        await engine.deregister_worker(worker)
        return released

    async def release_leases_of_container(self, queue: str, crash: WorkerCrash) -> int:
        """Return the jobs of a crashed container to their old positions, each with a crash counted.

        If the pod lives on, only the jobs of the incarnation that sent the last heartbeat are released: its successor
        may hold jobs already. If the last heartbeat is the successor's, the successor has released the jobs itself.
        """
        engine = Engine(self._server, queue)
        if crash.of_pod:
            released = await engine.release_worker_leases(worker=f"{crash.worker}/{crash.pod_uid}", reason=crash.why)
            await engine.deregister_worker(crash.worker)
            return released
        heartbeat = await self._store.heartbeat(queue, crash.worker)
        incarnation = None if heartbeat is None else _crashed_incarnation(heartbeat, crash)
        if incarnation is None:
            return 0
        owner = f"{crash.worker}/{crash.pod_uid}/{incarnation}"
        return await engine.release_owner_leases(owner=owner, reason=crash.why)

    async def publish(self, decisions: Mapping[str, bytes]) -> Mapping[str, bytes | None]:
        """Store all decisions in one round trip."""
        return await self._store.publish_decisions(decisions, keep_ms=DECISION_MS)

    async def run_housekeeping(self, retentions: Mapping[str, Retention]) -> HousekeepingResult:
        """Run the housekeeping of all queues in one round trip."""
        settings = {
            queue: EngineSettings(dead_ms=retention.dead_s * 1000, history_ms=retention.history_s * 1000)
            for queue, retention in retentions.items()
        }
        replies = await run_housekeeping(self._server, settings)
        return HousekeepingResult(
            released=sum(reply.reaped for reply in replies.values()),
            skipped={
                queue: ", ".join(f"{key} is {kind}" for key, kind in reply.wrong_type_keys)
                for queue, reply in replies.items()
                if reply.wrong_type_keys
            },
        )

    async def read_templates(self, templates: Mapping[str, str]) -> Mapping[str, TemplateState]:
        """Read the versions of all queues in one round trip."""
        return await self._templates.read(templates)

    async def keep_template(self, queue: str, template: str, fingerprint: str) -> KeptTemplate | None:
        """Keep what a version has registered."""
        return await self._templates.keep(queue, template, fingerprint, at_ms=now_ms())

    async def restore_registration(self, queue: str, fingerprint: str) -> bool:
        """Register again what an earlier version has registered."""
        return await self._templates.restore(queue, fingerprint, at_ms=now_ms())

    async def put_schedules(self, queue: str, schedules: Sequence[Schedule]) -> None:
        """Replace the schedules of the resource, in one round trip if none has changed."""
        await self._schedules.put(queue, source="resource", schedules=schedules)

    async def wait_for_jobs(self, queues: Sequence[str], timeout_s: float) -> bool:
        """Block on the wake-up lists of the queues.

        The token that ends the wait is consumed. That is safe: the caller waits only for queues without a worker, and a
        worker that starts looks for jobs before it waits for the first time.
        """
        keys = [KeySpace(queue).wake for queue in queues]
        redis = self._server.redis
        return await self._server.call(lambda: redis.execute_command("BLPOP", *keys, timeout_s)) is not None


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds * 1000)


def metrics_of(snapshot: QueueSnapshot) -> QueueMetrics:
    """Return the metrics of a queue from its snapshot in Redis."""
    live = live_heartbeats(snapshot)
    heartbeats = {heartbeat.worker: _decode_heartbeat(heartbeat) for heartbeat in live}
    counters = snapshot.counters
    ended = sum(counters.get(name, 0) for name in ("completed", "dead", "cancelled", "retried", "suspended"))
    oldest_ms = 0.0 if snapshot.oldest_ms is None else max(0.0, snapshot.now_ms - snapshot.oldest_ms)
    slots = sum(heartbeat.slots for heartbeat in heartbeats.values())
    held_ahead = held_ahead_of(snapshot, slots=slots, ahead=sum(map(ahead_of, live)))
    stalled = stalled_of(snapshot, slots=slots, held_ahead=held_ahead)
    # Each claimed job counts once: as running, as ready if it waits for a slot, or as stalled if its worker is gone.
    load = Load(
        ready=snapshot.waiting + held_ahead,
        due_soon=snapshot.due_soon,
        active=sum(snapshot.active) - held_ahead - stalled,
        stalled=stalled,
        oldest_ready=timedelta(milliseconds=oldest_ms),
        paused=snapshot.paused is not None,
    )
    return QueueMetrics(
        load=load,
        heartbeats=heartbeats,
        marked=snapshot.draining,
        delayed=max(sum(snapshot.delayed) - sum(snapshot.suspended.values()), 0),
        suspended=snapshot.suspended,
        done=counters.get("completed", 0),
        dead=snapshot.dead,
        # A delayed job arrives when it becomes due; a retried or woken one arrives again. The number is the sum of
        # present jobs and ended runs, because the enqueue of a plain arq client increments no counter.
        arrived=snapshot.waiting + sum(snapshot.active) + ended,
        run_ms=counters.get("run_ms", 0),
        counters=counters,
        waits=snapshot.waits,
        next_due_s=None if snapshot.next_due_ms is None else max(0.0, snapshot.next_due_ms - snapshot.now_ms) / 1000,
        silent_s={
            heartbeat.worker: (snapshot.now_ms - heartbeat.seen_ms) / 1000
            for heartbeat in snapshot.workers
            if heartbeat.worker not in heartbeats
        },
    )


def _decode_heartbeat(heartbeat: Heartbeat) -> WorkerHeartbeat:
    """Return the heartbeat decoded. A heartbeat of another version that cannot be decoded counts as busy (rule 7)."""
    try:
        fields: Any = orjson.loads(heartbeat.raw)
        return WorkerHeartbeat(
            busy=int(fields["busy"]),
            slots=int(fields["slots"]),
            draining=bool(fields["draining"]),
            mark=int(fields.get("drainMark") or 0),
            running_s=int(fields.get("runningMs", 0)) / 1000,
            oldest_s=int(fields.get("oldestMs", 0)) / 1000,
            registration=str(fields["registration"]) if fields.get("registration") else None,
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return WorkerHeartbeat(busy=1, slots=1, draining=False)


def _crashed_incarnation(heartbeat: Heartbeat, crash: WorkerCrash) -> str | None:
    """Return the incarnation that sent the heartbeat if it is the crashed one: it started before the crash.

    Both times are from the node's clock. The time of the crash is truncated to a second, so it is never after the start
    of the successor.
    """
    try:
        fields: Any = orjson.loads(heartbeat.raw)
        is_crashed = fields["podUid"] == crash.pod_uid and fields["startedMs"] < crash.ended_ms
        return str(fields["incarnation"]) if is_crashed else None
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
