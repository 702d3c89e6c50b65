"""Counts and logs the events of a worker. Metrics count all events, logs are limited to a readable number."""

from collections.abc import Sequence
from typing import Final

import structlog

from agentqueue.clock import monotonic
from agentqueue.model.attempts import AttemptError
from agentqueue.model.outcomes import Completed, DeadLettered, Outcome, Released, Rescheduled, Suspended
from agentqueue.store import RenewReply
from agentqueue_worker.adapters.metrics import Metrics
from agentqueue_worker.app.job import RunningJob
from agentqueue_worker.app.log_context import job_fields

MAX_COMPLETION_LOGS_PER_S: Final = 20
"""Maximum completed jobs logged per second. A line for each job halves the throughput. Failures are always logged."""
REPEAT_INTERVAL_S: Final = 30.0
"""Seconds between two lines about a lasting problem (Redis unavailable, Redis full)."""
MAX_REMEMBERED_KEYS: Final = 100
"""Maximum number of reported keys that are remembered, to bound the memory. A queue has about twenty keys."""
log = structlog.get_logger("agentqueue.worker")


class WorkerTelemetry:
    """Telemetry with Prometheus metrics and structlog."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self._second = 0
        self._lines = 0
        self._suppressed = 0
        self._unavailable_since: float | None = None
        self._reported_unavailable_at = float("-inf")
        self._reported_full_at = float("-inf")
        self._reported_wrong_types: dict[str, float] = {}

    def ended(self, job: RunningJob, outcome: Outcome | None, seconds: float, error: AttemptError | None) -> None:
        """Count and log the end of a job. See the port."""
        self.metrics.ended(job, outcome, seconds)
        if type(outcome) is Completed:
            if self._lines >= MAX_COMPLETION_LOGS_PER_S and int(job.started + seconds) == self._second:
                self._suppressed += 1  # as for most jobs of a busy worker
            else:
                self._log_completed(job, seconds)
            return
        if outcome is None:
            reason = "the lease was lost"
            log.warning("job_lost", job_id=job.id, job=job.record.name, attempt=job.attempt, reason=reason)
            return
        fields = job_fields(job, self.metrics.queue) | {"seconds": round(seconds, 3)}
        if error is not None:
            fields |= {"error": error.line, "exception": error.traceback}
        match outcome:
            case Rescheduled(delay_ms=delay_ms):
                log.warning("job_failed", **fields, again_in_ms=delay_ms)
            case DeadLettered():
                log.error("job_dead", **fields)
            case Released(delay_ms=delay_ms, notes={"snoozes": count, "snooze": why}):
                log.info("job_snoozed", **fields, reason=why, snoozes=count, again_in_ms=delay_ms)
            case Released():
                log.info("job_released", **fields)
            case Suspended():
                log.info("job_suspended", **fields, waits=outcome.waits)
            case _:
                log.info("job_cancelled", **fields)

    def _log_completed(self, job: RunningJob, seconds: float) -> None:
        second = int(job.started + seconds)
        if second != self._second:
            if self._suppressed:
                log.info("completion_logs_suppressed", jobs=self._suppressed)
            self._second, self._lines, self._suppressed = second, 0, 0
        self._lines += 1
        log.info("job_completed", **job_fields(job, self.metrics.queue), seconds=round(seconds, 3))

    def step_ended(self, job: str, step: str, outcome: str, seconds: float) -> None:
        """Count the step. See the port."""
        self.metrics.step_ended(job, step, outcome, seconds)

    def round_trip_made(self, seconds: float, outcomes: int, claimed: int) -> None:  # noqa: ARG002  # the port's shape
        """Measure a round trip. See the port."""
        metrics = self.metrics
        metrics.round_trip_seconds.add(seconds)
        metrics.claimed += claimed

    def lost(self, ids: Sequence[str]) -> None:
        """Count and log outcomes that were dropped. See the port."""
        self.metrics.lost_outcomes += len(ids)
        log.warning("outcomes_dropped", job_ids=list(ids[:20]), jobs=len(ids), reason="another worker has these jobs")

    def redis_failed(self, exc: Exception) -> None:
        """Count the failure, and log it every 30 seconds. See the port."""
        self.metrics.redis_errors += 1
        now = monotonic()
        if self._unavailable_since is None:
            self._unavailable_since = now
        if now - self._reported_unavailable_at >= REPEAT_INTERVAL_S:
            self._reported_unavailable_at = now
            log.error("redis_unavailable", error=str(exc), since_seconds=round(now - self._unavailable_since, 1))

    def redis_answered(self) -> None:
        """Log that Redis has recovered, if it had failed. See the port."""
        if self._unavailable_since is not None:
            log.info("redis_recovered", after_seconds=round(monotonic() - self._unavailable_since, 1))
            self._unavailable_since = None
            self._reported_unavailable_at = float("-inf")

    def wrong_type_keys(self, keys: Sequence[tuple[str, str]]) -> None:
        """Log each key every 30 seconds. See the port."""
        self.metrics.redis_errors += 1
        now, reported = monotonic(), self._reported_wrong_types
        for key, kind in keys:
            if now - reported.get(key, float("-inf")) >= REPEAT_INTERVAL_S:
                if len(reported) >= MAX_REMEMBERED_KEYS:
                    reported.clear()
                reported[key] = now
                log.error("wrong_type_key", key=key, type=kind, reason="AgentQueue did not write it")

    def redis_full(self, exc: Exception) -> None:
        """Count the refusal, and log it every 30 seconds. See the port."""
        self.metrics.redis_full_refusals += 1
        now = monotonic()
        if now - self._reported_full_at >= REPEAT_INTERVAL_S:
            self._reported_full_at = now
            log.error("blocked", reason="redis full", error=str(exc))

    def renewed(self, reply: RenewReply | None, seconds: float) -> None:
        """Count a renewal. See the port."""
        self.metrics.renewed(reply, seconds)
