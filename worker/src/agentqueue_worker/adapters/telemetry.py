"""What a worker tells of itself: metrics always, logs as far as they can be read."""

from collections.abc import Sequence
from typing import Any, Final

import structlog

from agentqueue.clock import monotonic
from agentqueue.model.attempts import AttemptError
from agentqueue.model.outcomes import Completed, DeadLettered, Outcome, Released, Rescheduled
from agentqueue.store import RenewReply
from agentqueue_worker.adapters.metrics import Metrics
from agentqueue_worker.app.job import RunningJob
from agentqueue_worker.app.log_context import job_fields

MAX_COMPLETION_LOGS_PER_S: Final = 20
"""Successes logged per second at most: a line for each cuts the throughput in half. Failures are always told."""
REPEAT_INTERVAL_S: Final = 30.0
"""Seconds between two lines on a lasting trouble (Redis away, Redis full)."""
MAX_REMEMBERED_KEYS: Final = 100
"""Keys that are remembered for it: a queue has some twenty, and a job's are told once and gone."""
log = structlog.get_logger("agentqueue.worker")


class WorkerTelemetry:
    """The port, with metrics and structlog behind it."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self._second = 0
        self._lines = 0
        self._untold = 0
        self._away_since: float | None = None
        self._told_at = float("-inf")
        self._told_full_at = float("-inf")
        self._reported_wrong_types: dict[str, float] = {}

    def ended(self, job: RunningJob, outcome: Outcome | None, seconds: float, error: AttemptError | None) -> None:
        """See the port."""
        self.metrics.ended(job, outcome, seconds)
        kind = type(outcome)
        if kind is Completed:
            self._tell_done(job, seconds)
        elif outcome is None:
            log.warning(
                "job_lost", job_id=job.id, job=job.record.name, attempt=job.attempt, reason="the lease was lost"
            )
        else:
            _tell_end(job_fields(job, self.metrics.queue), outcome, seconds, error)

    def _tell_done(self, job: RunningJob, seconds: float) -> None:
        second = int(job.started + seconds)
        if second != self._second:
            if self._untold:
                log.info("completion_logs_suppressed", jobs=self._untold)
            self._second, self._lines, self._untold = second, 0, 0
        if self._lines >= MAX_COMPLETION_LOGS_PER_S:
            self._untold += 1
            return
        self._lines += 1
        log.info("job_completed", **job_fields(job, self.metrics.queue), seconds=round(seconds, 3))

    def stepped(self, seconds: float, outcomes: int, claimed: int) -> None:  # noqa: ARG002  # the port's shape
        """See the port."""
        metrics = self.metrics
        metrics.step_seconds.add(seconds)
        metrics.claimed += claimed

    def lost(self, ids: Sequence[str]) -> None:
        """See the port."""
        self.metrics.lost_outcomes += len(ids)
        log.warning("outcomes_dropped", job_ids=list(ids[:20]), jobs=len(ids), reason="another worker has these jobs")

    def redis_failed(self, exc: Exception) -> None:
        """See the port."""
        self.metrics.redis_errors += 1
        now = monotonic()
        if self._away_since is None:
            self._away_since = now
        if now - self._told_at >= REPEAT_INTERVAL_S:
            self._told_at = now
            log.error("redis_unavailable", error=str(exc), since_seconds=round(now - self._away_since, 1))

    def redis_answered(self) -> None:
        """See the port."""
        if self._away_since is not None:
            log.info("redis_recovered", after_seconds=round(monotonic() - self._away_since, 1))
            self._away_since = None
            self._told_at = float("-inf")

    def wrong_type_keys(self, keys: Sequence[tuple[str, str]]) -> None:
        """See the port."""
        self.metrics.redis_errors += 1
        now, told = monotonic(), self._reported_wrong_types
        for key, kind in keys:
            if now - told.get(key, float("-inf")) >= REPEAT_INTERVAL_S:
                if len(told) >= MAX_REMEMBERED_KEYS:
                    told.clear()
                told[key] = now
                log.error("wrong_type_key", key=key, type=kind, reason="AgentQueue did not write it")

    def blocked(self, exc: Exception) -> None:
        """See the port."""
        self.metrics.blocked += 1
        now = monotonic()
        if now - self._told_full_at >= REPEAT_INTERVAL_S:
            self._told_full_at = now
            log.error("blocked", reason="redis full", error=str(exc))

    def renewed(self, reply: RenewReply | None, seconds: float) -> None:
        """See the port."""
        self.metrics.renewed(reply, seconds)


def _tell_end(facts: dict[str, Any], outcome: Outcome, seconds: float, error: AttemptError | None) -> None:
    facts["seconds"] = round(seconds, 3)
    if error is not None:
        facts |= {"error": error.line, "exception": error.traceback}
    match outcome:
        case Rescheduled(delay_ms=delay_ms):
            log.warning("job_failed", **facts, again_in_ms=delay_ms)
        case DeadLettered():
            log.error("job_dead", **facts)
        case Released():
            log.info("job_released", **facts)
        case _:
            log.info("job_cancelled", **facts)
