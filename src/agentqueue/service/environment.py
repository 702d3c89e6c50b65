"""Environment variables that configure a worker. The operator and `agentqueue up` write them, the worker reads them.

Durations are in seconds, as in the resource. Clients, the command line and the console also read the variables of the
connection (`agentqueue.store.server_options`).
"""

from __future__ import annotations

from typing import Final

REDIS_URL: Final = "AGENTQUEUE_REDIS_URL"
REDIS_TLS: Final = "AGENTQUEUE_REDIS_TLS"
"""`true` selects TLS, even if the URL begins with redis://. Each of the next four variables also selects TLS."""
REDIS_CA_FILE: Final = "AGENTQUEUE_REDIS_CA_FILE"
"""File with trusted certificate authorities (PEM). Default: the system's. Each new connection reads it again."""
REDIS_CERT_FILE: Final = "AGENTQUEUE_REDIS_CERT_FILE"
"""File with the client certificate (PEM). It needs REDIS_KEY_FILE."""
REDIS_KEY_FILE: Final = "AGENTQUEUE_REDIS_KEY_FILE"
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
JOB_TIMEOUT: Final = "AGENTQUEUE_JOB_TIMEOUT_SECONDS"
RETRY_ATTEMPTS: Final = "AGENTQUEUE_RETRY_ATTEMPTS"
RETRY_CRASHES: Final = "AGENTQUEUE_RETRY_CRASHES"
"""Number of worker crashes after which a running job becomes a dead letter."""
BACKOFF_TYPE: Final = "AGENTQUEUE_RETRY_BACKOFF_TYPE"
BACKOFF_DELAY: Final = "AGENTQUEUE_RETRY_BACKOFF_DELAY_SECONDS"
BACKOFF_MAX_DELAY: Final = "AGENTQUEUE_RETRY_BACKOFF_MAX_DELAY_SECONDS"
BACKOFF_JITTER: Final = "AGENTQUEUE_RETRY_BACKOFF_JITTER"
RATE_LIMIT_MAX: Final = "AGENTQUEUE_RATE_LIMIT_MAX"
RATE_LIMIT_DURATION: Final = "AGENTQUEUE_RATE_LIMIT_DURATION_SECONDS"
RESULT_SECONDS: Final = "AGENTQUEUE_RETENTION_RESULT_SECONDS"
COMPLETED_SECONDS: Final = "AGENTQUEUE_RETENTION_COMPLETED_SECONDS"
COMPLETED_COUNT: Final = "AGENTQUEUE_RETENTION_COMPLETED_COUNT"
DEAD_SECONDS: Final = "AGENTQUEUE_RETENTION_DEAD_SECONDS"
ON_DEAD_LETTER_QUEUE: Final = "AGENTQUEUE_ON_DEAD_LETTER_QUEUE"
"""Queue of the agent that gets a job for each dead letter of this agent."""
ON_DEAD_LETTER_JOB: Final = "AGENTQUEUE_ON_DEAD_LETTER_JOB"
"""Name of that job. Default: `dead-letter`."""
AGEING_HIGH: Final = "AGENTQUEUE_AGEING_HIGH_SECONDS"
"""A ready job of this level that has waited longer starts before jobs of higher levels."""
AGEING_NORMAL: Final = "AGENTQUEUE_AGEING_NORMAL_SECONDS"
AGEING_LOW: Final = "AGENTQUEUE_AGEING_LOW_SECONDS"
GRACE_PERIOD: Final = "AGENTQUEUE_TERMINATION_GRACE_PERIOD_SECONDS"
"""Time from SIGTERM to the kubelet's SIGKILL."""
PROBE_PORT: Final = "AGENTQUEUE_PROBE_PORT"
"""Port of /healthz, /readyz and /metrics. 0 disables them."""
WORKER_NAME: Final = "AGENTQUEUE_WORKER_NAME"
"""Name of the worker: the pod's name. Default: the host's name and the process ID."""
POD_UID: Final = "AGENTQUEUE_POD_UID"
CONSOLE_TOKEN: Final = "AGENTQUEUE_CONSOLE_TOKEN"  # noqa: S105  # the variable's name
CONSOLE_HOST: Final = "AGENTQUEUE_CONSOLE_HOST"
CONSOLE_PORT: Final = "AGENTQUEUE_CONSOLE_PORT"
DEFAULT_CONSOLE_PORT: Final = 8400
LOG_LEVEL: Final = "AGENTQUEUE_LOG_LEVEL"
LOG_FORMAT: Final = "AGENTQUEUE_LOG_FORMAT"
"""`json` or `console`. Default: `console` on a terminal, `json` elsewhere."""
DEAD_LETTER_JOB: Final = "dead-letter"
"""Name of the job that `onDeadLetter` sends. Its data is the dead letter as camelCase JSON."""
