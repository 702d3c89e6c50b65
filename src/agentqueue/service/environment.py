"""Environment variables that configure a worker. The operator and `agentqueue up` write them, the worker reads them.

Durations are in seconds, as in the resource. Clients, the command line and the console also read the variables of the
connection (`agentqueue.store.server_options`).
"""

from __future__ import annotations

from typing import Final

REDIS_URL: Final = "AGENTQUEUE_REDIS_URL"
"""URL of Redis, like redis://:password@host:6379/0."""
REDIS_TLS: Final = "AGENTQUEUE_REDIS_TLS"
"""`true` selects TLS, even if the URL begins with redis://. Each of the next four variables also selects TLS."""
REDIS_CA_FILE: Final = "AGENTQUEUE_REDIS_CA_FILE"
"""File with trusted certificate authorities (PEM). Default: the system's. Each new connection reads it again."""
REDIS_CERT_FILE: Final = "AGENTQUEUE_REDIS_CERT_FILE"
"""File with the client certificate (PEM). It needs REDIS_KEY_FILE."""
REDIS_KEY_FILE: Final = "AGENTQUEUE_REDIS_KEY_FILE"
"""File with the private key of the client certificate (PEM)."""
REDIS_INSECURE_SKIP_VERIFY: Final = "AGENTQUEUE_REDIS_INSECURE_SKIP_VERIFY"
"""`true` disables the check of the server's certificate."""
REDIS_SENTINEL_NODES: Final = "AGENTQUEUE_REDIS_SENTINEL_NODES"
"""Sentinels that know the primary, as host:port,host:port. The URL gives scheme, user, password and database only."""
REDIS_SENTINEL_MASTER: Final = "AGENTQUEUE_REDIS_SENTINEL_MASTER"
"""The primary's name in the Sentinels."""
REDIS_SENTINEL_PASSWORD: Final = "AGENTQUEUE_REDIS_SENTINEL_PASSWORD"  # noqa: S105  # the variable's name
"""Password of the Sentinels, if they have one. With TLS, connections to the Sentinels use it, too."""
CONNECTION: Final = (
    REDIS_URL,
    REDIS_TLS,
    REDIS_CA_FILE,
    REDIS_CERT_FILE,
    REDIS_KEY_FILE,
    REDIS_INSECURE_SKIP_VERIFY,
    REDIS_SENTINEL_NODES,
    REDIS_SENTINEL_MASTER,
    REDIS_SENTINEL_PASSWORD,
)
"""All variables of the connection to Redis."""
HANDLER: Final = "AGENTQUEUE_HANDLER"
"""The handler as `module:attribute`: an Agent, or an arq WorkerSettings class."""
AGENT: Final = "AGENTQUEUE_AGENT"
"""The agent's name in the resource. It labels metrics and logs."""
QUEUE: Final = "AGENTQUEUE_QUEUE"
"""The queue to serve. Default: the queue that the Agent declares."""
CONCURRENCY: Final = "AGENTQUEUE_CONCURRENCY"
"""Number of jobs that a worker runs at the same time."""
JOB_TIMEOUT: Final = "AGENTQUEUE_JOB_TIMEOUT_SECONDS"
"""Maximum duration of an attempt."""
RETRY_ATTEMPTS: Final = "AGENTQUEUE_RETRY_ATTEMPTS"
"""Number of attempts before a job becomes a dead letter."""
RETRY_CRASHES: Final = "AGENTQUEUE_RETRY_CRASHES"
"""Number of worker crashes after which a running job becomes a dead letter."""
BACKOFF_TYPE: Final = "AGENTQUEUE_RETRY_BACKOFF_TYPE"
"""`exponential` or `fixed`: the growth of the delay between attempts."""
BACKOFF_DELAY: Final = "AGENTQUEUE_RETRY_BACKOFF_DELAY_SECONDS"
"""Delay before the second attempt."""
BACKOFF_MAX_DELAY: Final = "AGENTQUEUE_RETRY_BACKOFF_MAX_DELAY_SECONDS"
"""Maximum delay between two attempts."""
BACKOFF_JITTER: Final = "AGENTQUEUE_RETRY_BACKOFF_JITTER"
"""Random part of the delay, as a fraction of it."""
RATE_LIMIT_MAX: Final = "AGENTQUEUE_RATE_LIMIT_MAX"
"""Maximum number of job starts in a window, for all workers of the queue together."""
RATE_LIMIT_DURATION: Final = "AGENTQUEUE_RATE_LIMIT_DURATION_SECONDS"
"""Length of the window."""
LIMITS: Final = "AGENTQUEUE_LIMITS"
"""Limits of the agent, a JSON list: limits as in the resource, which the worker defines, or names of others."""
RESULT_SECONDS: Final = "AGENTQUEUE_RETENTION_RESULT_SECONDS"
"""Time that a job's result can be read by its ID."""
COMPLETED_SECONDS: Final = "AGENTQUEUE_RETENTION_COMPLETED_SECONDS"
"""Time that a completed job stays in the queue's history."""
COMPLETED_COUNT: Final = "AGENTQUEUE_RETENTION_COMPLETED_COUNT"
"""Maximum number of completed jobs in the queue's history."""
DEAD_SECONDS: Final = "AGENTQUEUE_RETENTION_DEAD_SECONDS"
"""Time that a dead letter can be inspected and replayed."""
ON_DEAD_LETTER_QUEUE: Final = "AGENTQUEUE_ON_DEAD_LETTER_QUEUE"
"""Queue of the agent that gets a job for each dead letter of this agent."""
ON_DEAD_LETTER_JOB: Final = "AGENTQUEUE_ON_DEAD_LETTER_JOB"
"""Name of that job. Default: `dead-letter`."""
AGEING_HIGH: Final = "AGENTQUEUE_AGEING_HIGH_SECONDS"
"""A ready job of this level that has waited longer starts before jobs of higher levels."""
AGEING_NORMAL: Final = "AGENTQUEUE_AGEING_NORMAL_SECONDS"
"""See AGEING_HIGH."""
AGEING_LOW: Final = "AGENTQUEUE_AGEING_LOW_SECONDS"
"""See AGEING_HIGH."""
GRACE_PERIOD: Final = "AGENTQUEUE_TERMINATION_GRACE_PERIOD_SECONDS"
"""Time from SIGTERM to the kubelet's SIGKILL."""
PROBE_PORT: Final = "AGENTQUEUE_PROBE_PORT"
"""Port of /healthz, /readyz and /metrics. 0 disables them."""
WORKER_NAME: Final = "AGENTQUEUE_WORKER_NAME"
"""Name of the worker: the pod's name. Default: the host's name and the process ID."""
POD_UID: Final = "AGENTQUEUE_POD_UID"
"""UID of the worker's pod. It distinguishes pods with the same name."""
CONSOLE_TOKEN: Final = "AGENTQUEUE_CONSOLE_TOKEN"  # noqa: S105  # the variable's name
"""Token that callers of the console must send."""
CONSOLE_HOST: Final = "AGENTQUEUE_CONSOLE_HOST"
"""Address on which the console listens. Default: loopback."""
CONSOLE_PORT: Final = "AGENTQUEUE_CONSOLE_PORT"
"""TCP port of the console. 0 selects a free one."""
DEFAULT_CONSOLE_PORT: Final = 8400
"""TCP port of the console without a setting."""
LOG_LEVEL: Final = "AGENTQUEUE_LOG_LEVEL"
"""Lowest level that is logged: `debug`, `info`, `warning`, `error` or `critical`."""
LOG_FORMAT: Final = "AGENTQUEUE_LOG_FORMAT"
"""`json` or `console`. Default: `console` on a terminal, `json` elsewhere."""
DEAD_LETTER_JOB: Final = "dead-letter"
"""Name of the job that `onDeadLetter` sends. Its data is the dead letter as camelCase JSON."""
