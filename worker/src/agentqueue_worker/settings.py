"""Settings of a worker, read once from the environment (`service.environment`) and overridden by the command line."""

import os
import socket
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

import orjson

from agentqueue.errors import UsageError
from agentqueue.keys import check_queue
from agentqueue.model.limits import NO_LIMITS, LimitList, parse_limits
from agentqueue.model.retry_policy import Backoff
from agentqueue.service import environment as env
from agentqueue.service import parsing
from agentqueue.store import EngineSettings, ServerOptions, server_options
from agentqueue_worker.app.options import DeadLetterTarget, Identity, WorkerOptions


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of a worker. Durations are in seconds."""

    redis: ServerOptions | None = None
    """Redis to serve. If it is None, the caller finds one or raises an error."""
    allow_eviction: bool = False
    """Accept a server that may evict jobs."""
    handler: str | None = None
    """Agent or arq program, as `module:attribute`."""
    agent: str = ""
    queue: str | None = None
    """Queue to serve. None means the queue that the agent declares."""
    concurrency: int = 5
    """Jobs at a time. Jobs of agents mostly wait for other services. For jobs that compute, use 1 per core."""
    job_timeout: float = 300.0
    """Seconds that an attempt may take. 5 minutes fit a chain of LLM calls, and a hung one is still noticed."""
    attempts: int = 3
    crashes: int = 3
    """Number of workers that may crash while they run a job, before it becomes a dead letter."""
    backoff: Backoff = field(default_factory=Backoff)
    rate_max: int = 0
    """Maximum starts per `rate_duration` over all workers. 0 means no limit."""
    rate_duration: float = 1.0
    limits: LimitList = NO_LIMITS
    """Limits that the agent declares, and those among them that this worker defines."""
    result_seconds: float = 3_600.0
    """Seconds that results are kept. Redis holds about this many seconds of finished jobs."""
    completed_seconds: float = 86_400.0
    completed_count: int = 1_000
    dead_seconds: float = 604_800.0
    """Seconds that dead letters are kept. 7 days leave a weekend and a working week to replay them."""
    ageing_high: float = 60.0
    ageing_normal: float = 300.0
    ageing_low: float = 900.0
    on_dead_letter_queue: str | None = None
    on_dead_letter_job: str = env.DEAD_LETTER_JOB
    grace: float = 60.0
    """Seconds from SIGTERM to SIGKILL. The operator sets the value of the resource. Kubernetes' default is 30."""
    lease: float = 8.0
    """Seconds of a lease, after which jobs of a crashed worker start again.

    No variable sets it, because it must be the same for all workers of a queue.
    """
    drain_margin: float = 5.0
    """Seconds at the end of the grace period for releasing jobs, so that the worker exits before the SIGKILL."""
    probe_port: int = 0
    """Port of probes and metrics. 0 means none. The operator sets it."""
    name: str = ""
    pod_uid: str | None = None
    log_level: str = "info"
    log_format: str = ""
    """`json` or `console`. By default it is console on a terminal, and JSON elsewhere."""
    burst: bool = False
    arq_pickle: bool = False
    """Read and write pickles for an arq program without serializers of its own (rule 9: only if asked for)."""
    given: frozenset[str] = frozenset()
    """Names of the fields that were set explicitly. They override the values of an arq WorkerSettings."""

    def override(self, **values: Any) -> "Settings":
        """Return the settings with these values. None leaves a field unchanged."""
        set_ = {name: value for name, value in values.items() if value is not None}
        return replace(self, **set_, given=self.given | set_.keys())

    def options(self, declared_queue: str, *, incarnation: str | None = None) -> WorkerOptions:
        """Return the options of the claim loop.

        Args:
            declared_queue: queue that the agent declares in code.
            incarnation: ID of the process, random by default.
        """
        queue = self.queue or declared_queue
        dead_queue = self.on_dead_letter_queue
        return WorkerOptions(
            queue=queue,
            declared_queue=declared_queue,
            identity=Identity(self.name or default_name(), incarnation or uuid.uuid4().hex[:12], self.pod_uid),
            agent=self.agent or declared_queue,
            concurrency=self.concurrency,
            crash_limit=self.crashes,
            grace=self.grace,
            drain_margin=self.drain_margin,
            burst=self.burst,
            keep_ms=round(self.result_seconds * 1000),
            limits=self.limits.names,
            limit_definitions=self.limits.defined,
            dead_letters=DeadLetterTarget(dead_queue, self.on_dead_letter_job) if dead_queue else None,
            engine=EngineSettings(
                lease_ms=ms(self.lease),
                age_limits_ms=(ms(self.ageing_high), ms(self.ageing_normal), ms(self.ageing_low)),
                rate_max=self.rate_max,
                rate_window_ms=ms(self.rate_duration),
                history_count=self.completed_count,
                history_ms=ms(self.completed_seconds),
                dead_ms=ms(self.dead_seconds),
            ),
        )


def ms(seconds: float) -> int:
    """Return seconds as whole milliseconds."""
    return round(seconds * 1000)


def default_name() -> str:
    """Return the worker's default name: the host's name and the process ID, in the characters of worker names."""
    host = "".join(char if char.isalnum() or char in "-._" else "-" for char in socket.gethostname())
    return f"{host or 'worker'}-{os.getpid()}"


def _worker_name(text: str) -> str:
    if not text or len(text) > 253 or any(char in text for char in "/| \t\n"):
        raise ValueError("must have 1 to 253 characters, without spaces, / and |")
    return text


def _limits(text: str) -> LimitList:
    try:
        return parse_limits(orjson.loads(text))
    except (orjson.JSONDecodeError, UsageError) as exc:
        raise ValueError(str(exc)) from exc


_FIELDS: Final[Mapping[str, tuple[str, Callable[[str], Any]]]] = {
    env.HANDLER: ("handler", str),
    env.AGENT: ("agent", str),
    env.QUEUE: ("queue", check_queue),
    env.CONCURRENCY: ("concurrency", parsing.whole(1, 10_000)),
    env.JOB_TIMEOUT: ("job_timeout", parsing.seconds(0.001)),
    env.RETRY_ATTEMPTS: ("attempts", parsing.whole(1, 1_000)),
    env.RETRY_CRASHES: ("crashes", parsing.whole(1, 1_000)),
    env.RATE_LIMIT_MAX: ("rate_max", parsing.whole(0, 1_000_000)),
    env.RATE_LIMIT_DURATION: ("rate_duration", parsing.seconds(0.001)),
    env.LIMITS: ("limits", _limits),
    env.RESULT_SECONDS: ("result_seconds", parsing.seconds()),
    env.COMPLETED_SECONDS: ("completed_seconds", parsing.seconds()),
    env.COMPLETED_COUNT: ("completed_count", parsing.whole(0, 1_000_000)),
    env.DEAD_SECONDS: ("dead_seconds", parsing.seconds(1)),
    env.AGEING_HIGH: ("ageing_high", parsing.seconds(0.001)),
    env.AGEING_NORMAL: ("ageing_normal", parsing.seconds(0.001)),
    env.AGEING_LOW: ("ageing_low", parsing.seconds(0.001)),
    env.ON_DEAD_LETTER_QUEUE: ("on_dead_letter_queue", check_queue),
    env.ON_DEAD_LETTER_JOB: ("on_dead_letter_job", str),
    env.GRACE_PERIOD: ("grace", parsing.seconds()),
    env.PROBE_PORT: ("probe_port", parsing.port),
    env.WORKER_NAME: ("name", _worker_name),
    env.POD_UID: ("pod_uid", _worker_name),
    env.LOG_LEVEL: ("log_level", parsing.log_level),
    env.LOG_FORMAT: ("log_format", parsing.log_format),
}
_BACKOFF: Final[Mapping[str, tuple[str, Callable[[str], Any]]]] = {
    env.BACKOFF_TYPE: ("type", parsing.one_of("exponential", "fixed")),
    env.BACKOFF_DELAY: ("delay", parsing.seconds()),
    env.BACKOFF_MAX_DELAY: ("max_delay", parsing.seconds()),
    env.BACKOFF_JITTER: ("jitter", parsing.number(0, 1)),
}


VARIABLES: Final = (*_FIELDS, *_BACKOFF)
"""Variables that this module reads. `agentqueue.store.server_options` reads those of the connection."""


def read_settings(environ: Mapping[str, str], options: Mapping[str, tuple[str, object]] | None = None) -> Settings:
    """Return the settings of the environment, overridden by the options of a command line.

    Args:
        environ: the variables. Empty ones count as absent.
        options: the variable and the value of each option, by its name. None counts as absent, empty text does not.

    Raises:
        UsageError: a value is out of its range. The message names the variable or the option.
    """
    given = {name: (f"{name}=", text.strip()) for name, text in environ.items() if text.strip()}
    for option, (variable, value) in (options or {}).items():
        if value is not None:
            given[variable] = (f"{option} ", str(value))
    values = _read(given, _FIELDS)
    backoff = _read(given, _BACKOFF)
    if backoff:
        values["backoff"] = Backoff(**backoff)
    # Other programs use REDIS_URL too, and an arq program's own Redis has priority over it. So the caller reads it.
    redis = server_options({name: value for name, value in environ.items() if name != "REDIS_URL"})
    if redis is not None:
        values["redis"] = redis
    assert values.keys() <= {it.name for it in fields(Settings)}
    return Settings(**values, given=frozenset(values))


def _read(
    given: Mapping[str, tuple[str, str]], names: Mapping[str, tuple[str, Callable[[str], Any]]]
) -> dict[str, Any]:
    out = {}
    for variable, (name, parse) in names.items():
        if variable in given:
            source, text = given[variable]
            try:
                out[name] = parse(text)
            except ValueError as exc:
                raise UsageError(f"{source}{text!r:.80}: {exc}") from exc
    return out
