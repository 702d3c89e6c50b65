"""Runs arq programs on this engine. It is the only package that imports arq.

`ArqWorker` is arq's own Worker (its arguments, checks, hooks and counters) on another engine. `ArqRegistry` is its
interface to the claim loop. docs/migrate-from-arq.md lists the intended differences from arq.
"""

from arq import ArqRedis, cron, func
from arq.connections import RedisSettings, create_pool
from arq.cron import CronJob
from arq.worker import FailedJobs, Function, JobExecutionFailed, Retry, RetryJob, check_health, get_kwargs

from agentqueue_worker.adapters.arq.adapt import adapt
from agentqueue_worker.adapters.arq.registry import ArqRegistry
from agentqueue_worker.adapters.arq.worker import ArqWorker

# agentqueue_worker.arq exports these parts of arq under arq's own names.
__all__ = [
    "ArqRedis",
    "ArqRegistry",
    "ArqWorker",
    "CronJob",
    "FailedJobs",
    "Function",
    "JobExecutionFailed",
    "RedisSettings",
    "Retry",
    "RetryJob",
    "adapt",
    "check_health",
    "create_pool",
    "cron",
    "func",
    "get_kwargs",
]
