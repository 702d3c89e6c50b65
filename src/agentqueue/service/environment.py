"""The environment variables a worker is configured by: written by the operator and `agentqueue up`, read by the worker.

Durations are in seconds, as in the resource. Those of the connection are read by clients, the command line and the
console too: `agentqueue.store.server_options`.
"""

from __future__ import annotations

from typing import Final

REDIS_URL: Final = "AGENTQUEUE_REDIS_URL"
REDIS_TLS: Final = "AGENTQUEUE_REDIS_TLS"
"""true: TLS, also where the url begins with redis://. Each of the next four asks for TLS as well."""
REDIS_CA_FILE: Final = "AGENTQUEUE_REDIS_CA_FILE"
"""The certificate authorities to trust, in PEM; by default the system's. Read anew for each connection."""
REDIS_CERT_FILE: Final = "AGENTQUEUE_REDIS_CERT_FILE"
"""The certificate to show the server, in PEM; with REDIS_KEY_FILE."""
REDIS_KEY_FILE: Final = "AGENTQUEUE_REDIS_KEY_FILE"
REDIS_INSECURE_SKIP_VERIFY: Final = "AGENTQUEUE_REDIS_INSECURE_SKIP_VERIFY"
"""true: take any certificate."""
REDIS_SENTINEL_NODES: Final = "AGENTQUEUE_REDIS_SENTINEL_NODES"
"""host:port,host:port: Sentinels to ask for the primary; the url gives scheme, user, password and database only."""
REDIS_SENTINEL_MASTER: Final = "AGENTQUEUE_REDIS_SENTINEL_MASTER"
"""The name under which the Sentinels know the primary."""
REDIS_SENTINEL_PASSWORD: Final = "AGENTQUEUE_REDIS_SENTINEL_PASSWORD"  # noqa: S105  # the variable's name
"""The Sentinels' own, if they have one. With TLS, the Sentinels are asked over it too."""
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
"""All that say where Redis is and how it is reached."""
HANDLER: Final = "AGENTQUEUE_HANDLER"
"""`module:attribute`: an Agent, or an arq WorkerSettings class."""
AGENT: Final = "AGENTQUEUE_AGENT"
"""The agent's name in the resource; labels metrics and logs."""
QUEUE: Final = "AGENTQUEUE_QUEUE"
"""The queue to serve; by default the Agent's own."""
CONCURRENCY: Final = "AGENTQUEUE_CONCURRENCY"
JOB_TIMEOUT: Final = "AGENTQUEUE_JOB_TIMEOUT_SECONDS"
RETRY_ATTEMPTS: Final = "AGENTQUEUE_RETRY_ATTEMPTS"
RETRY_CRASHES: Final = "AGENTQUEUE_RETRY_CRASHES"
"""Workers that may die under a job before it is a dead letter."""
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
"""The queue of the agent that gets a job for every dead letter of this one."""
ON_DEAD_LETTER_JOB: Final = "AGENTQUEUE_ON_DEAD_LETTER_JOB"
"""That job's name, where it is not `dead-letter`."""
AGEING_HIGH: Final = "AGENTQUEUE_AGEING_HIGH_SECONDS"
"""A ready job of that level that has waited longer goes before the levels above it."""
AGEING_NORMAL: Final = "AGENTQUEUE_AGEING_NORMAL_SECONDS"
AGEING_LOW: Final = "AGENTQUEUE_AGEING_LOW_SECONDS"
GRACE_PERIOD: Final = "AGENTQUEUE_TERMINATION_GRACE_PERIOD_SECONDS"
"""From SIGTERM to the kubelet's SIGKILL."""
PROBE_PORT: Final = "AGENTQUEUE_PROBE_PORT"
"""Where /healthz, /readyz and /metrics are served; 0: nowhere."""
WORKER_NAME: Final = "AGENTQUEUE_WORKER_NAME"
"""The pod's name; by default the host's name and the process id."""
POD_UID: Final = "AGENTQUEUE_POD_UID"
CONSOLE_TOKEN: Final = "AGENTQUEUE_CONSOLE_TOKEN"  # noqa: S105  # the variable's name
CONSOLE_HOST: Final = "AGENTQUEUE_CONSOLE_HOST"
CONSOLE_PORT: Final = "AGENTQUEUE_CONSOLE_PORT"
DEFAULT_CONSOLE_PORT: Final = 8400
LOG_LEVEL: Final = "AGENTQUEUE_LOG_LEVEL"
LOG_FORMAT: Final = "AGENTQUEUE_LOG_FORMAT"
"""json or console; by default console on a terminal, JSON elsewhere."""
DEAD_LETTER_JOB: Final = "dead-letter"
"""The name of the job that `onDeadLetter` sends; its data is the dead letter as camelCase JSON."""
