"""Environment variables of the workers of an agent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentqueue.service.environment import (
    AGEING_HIGH,
    AGEING_LOW,
    AGEING_NORMAL,
    AGENT,
    BACKOFF_DELAY,
    BACKOFF_JITTER,
    BACKOFF_MAX_DELAY,
    BACKOFF_TYPE,
    COMPLETED_COUNT,
    COMPLETED_SECONDS,
    CONCURRENCY,
    DEAD_SECONDS,
    GRACE_PERIOD,
    HANDLER,
    JOB_TIMEOUT,
    ON_DEAD_LETTER_JOB,
    ON_DEAD_LETTER_QUEUE,
    QUEUE,
    RATE_LIMIT_DURATION,
    RATE_LIMIT_MAX,
    RESULT_SECONDS,
    RETRY_ATTEMPTS,
    RETRY_CRASHES,
)

if TYPE_CHECKING:
    from agentqueue.spec.resolve import ResolvedAgent


def worker_environment(agent: ResolvedAgent) -> dict[str, str]:
    """Return the settings of an agent as environment variables, which are the same on a laptop and in a cluster.

    The caller adds the address of Redis, the worker's name and the probe port.

    Each variable is a part of the pod template. A new setting whose default is not None adds one to every pod, so an
    upgrade of the operator restarts all workers. Prefer the default None, which adds no variable.
    """
    backoff, limit, dead_letter = agent.retry.backoff, agent.rate_limit, agent.on_dead_letter
    values = {
        HANDLER: agent.handler,
        AGENT: agent.name,
        QUEUE: agent.queue_name,
        CONCURRENCY: agent.concurrency,
        JOB_TIMEOUT: agent.job_timeout_seconds,
        RETRY_ATTEMPTS: agent.retry.attempts,
        RETRY_CRASHES: agent.retry.crashes,
        BACKOFF_TYPE: backoff.type.value,
        BACKOFF_DELAY: backoff.delay_seconds,
        BACKOFF_MAX_DELAY: backoff.max_delay_seconds,
        BACKOFF_JITTER: backoff.jitter,
        RATE_LIMIT_MAX: limit.max if limit else None,
        RATE_LIMIT_DURATION: limit.duration_seconds if limit else None,
        RESULT_SECONDS: agent.retention.result_seconds,
        COMPLETED_SECONDS: agent.retention.completed_seconds,
        COMPLETED_COUNT: agent.retention.completed_count,
        DEAD_SECONDS: agent.retention.dead_seconds,
        AGEING_HIGH: agent.ageing.high_seconds,
        AGEING_NORMAL: agent.ageing.normal_seconds,
        AGEING_LOW: agent.ageing.low_seconds,
        ON_DEAD_LETTER_QUEUE: agent.dead_letter_queue,
        ON_DEAD_LETTER_JOB: dead_letter.job if dead_letter else None,
        GRACE_PERIOD: agent.termination_grace_period_seconds,
    }
    return {name: str(value) for name, value in values.items() if value is not None}
