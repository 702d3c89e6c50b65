"""A queue that a test serves itself: it claims and ends jobs one by one, to bring them into a certain state."""

import itertools
from collections.abc import Sequence

from agentqueue.clock import now_ms
from agentqueue.keys import IN_PROGRESS
from agentqueue.model.attempts import Progress, attempt_error, encode_errors, encode_progress
from agentqueue.model.dead_letter import DeadLetter, DeadLetterReason, encode_dead_letter, fingerprint
from agentqueue.model.job import State, decode_job
from agentqueue.model.outcomes import Claimed, Completed, DeadLettered, Outcome, Rescheduled, Suspended
from agentqueue.model.result import ResultRecord, encode_result
from agentqueue.store import CodeSet, Engine, Registrations, Server
from agentqueue.store.engine import FinishAndClaimReply
from agentqueue.store.signals import Wait, ask_waits

HOUR_MS = 3_600_000
_incarnations = itertools.count(1)


class RawQueue:
    """One queue on a server, served without a worker."""

    def __init__(self, server: Server, queue: str, *, worker: str = "hand") -> None:
        self.engine = Engine(server, queue)
        self.queue = queue
        self.worker = worker
        self.owner = f"{worker}/{next(_incarnations)}"  # its calls are numbered from 1 again
        self.seq = 0

    async def claim(self, want: int = 1) -> Sequence[Claimed]:
        """Start up to `want` jobs."""
        return (await self._round_trip(want, ())).claimed

    async def claim_one(self) -> Claimed:
        """Start the next job."""
        (job,) = await self.claim()
        return job

    async def _round_trip(self, want: int, outcomes: Sequence[Outcome]) -> FinishAndClaimReply:
        self.seq += 1
        is_idle = want == 1  # so a suspect starts at once
        return await self.engine.finish_and_claim(
            seq=self.seq, owner=self.owner, want=want, is_idle=is_idle, outcomes=outcomes
        )

    async def end(self, outcome: Outcome) -> None:
        """Record an outcome."""
        reply = await self._round_trip(0, [outcome])
        assert not reply.lost

    async def complete(self, job: Claimed, result: object = None) -> None:
        """Record that the handler returned."""
        raw = encode_result(self._result(job, success=True, result=result, state=State.COMPLETED))
        await self.end(Completed(job.id, job.level, raw, HOUR_MS, 5))

    async def add_dead_letter(self, job: Claimed, message: str = "no airport 'XYZ'", *, error: str = "Fatal") -> str:
        """Record that the handler raised Fatal, and return the fingerprint."""
        record = decode_job(job.record or b"")
        kind = fingerprint(DeadLetterReason.FATAL, record.name, error, message)
        result = self._result(job, success=False, result=RuntimeError(message), state=State.DEAD)
        letter = DeadLetter(
            id=job.id,
            queue=self.queue,
            name=record.name,
            data=record.data,
            priority=record.priority or 10,
            reason=DeadLetterReason.FATAL,
            errors=(attempt_error(1, now_ms(), error, message, "Traceback: …"),),
            fingerprint=kind,
            attempts=1,
            deliveries=1,
            enqueued_ms=record.enqueued_ms,
            died_ms=now_ms(),
        )
        await self.end(
            DeadLettered(job.id, job.level, encode_result(result), HOUR_MS, kind, encode_dead_letter(letter))
        )
        return kind

    async def fail(self, job: Claimed, *, delay_ms: int = 60_000) -> None:
        """Record that the attempt failed, and that another one follows."""
        notes = {"errors": encode_errors([attempt_error(1, now_ms(), "ValueError", "nope")])}
        await self.end(Rescheduled(job.id, job.level, delay_ms, notes))

    async def suspend(self, job: Claimed, signal: str, *, ends_ms: int | None = None) -> None:
        """Suspend a claimed job until it gets a signal, or for `ends_ms`."""
        wait = Wait(f"wait:{signal}#1", "signal", signal, ends_ms)
        lease = await self.engine.server.redis.get(IN_PROGRESS + job.id)
        assert await ask_waits(self.engine, lease=lease, job_id=job.id, waits=[wait])
        await self.end(Suspended(job.id, job.level, 5, [wait.field]))

    async def note_progress(self, job: Claimed, percent: float, message: str) -> None:
        """Record the progress that the handler reported."""
        progress = encode_progress(Progress(percent, message, now_ms()))
        assert await self.engine.annotate(owner=self.owner, job_id=job.id, notes={"progress": progress})

    async def heartbeat(self, raw: bytes) -> None:
        """Write a heartbeat."""
        await self.engine.renew(owner=self.owner, worker=self.worker, heartbeat=raw, held=())

    async def register(self, *jobs: str) -> None:
        """Register the names of the queue's jobs, as a worker does when it starts."""
        code = CodeSet(dict.fromkeys(jobs))
        await Registrations(self.engine.server).register(
            self.queue, code, worker=self.worker, version="0", time_ms=now_ms(), starts=True
        )

    def _result(self, job: Claimed, *, success: bool, result: object, state: State) -> ResultRecord:
        record = decode_job(job.record or b"")
        return ResultRecord(
            id=job.id,
            name=record.name,
            queue=self.queue,
            success=success,
            result=result,
            started_ms=now_ms(),
            finished_ms=now_ms(),
            args=record.args,
            kwargs=record.kwargs,
            enqueued_ms=record.enqueued_ms,
            state=state,
            priority=record.priority,
            attempts=1,
            deliveries=job.delivery,
            worker=self.worker,
        )
