"""arq programs on this engine: the only module that imports arq.

`ArqWorker` is arq's own Worker (its arguments, checks, hooks and counters) with another engine underneath;
`ArqRegistry` shows it to the claim loop. What differs from arq on purpose is listed in docs/migrate-from-arq.md.
"""

import asyncio
import pickle  # noqa: TID251  # arq's default, for who asks for it
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, tzinfo
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit

import structlog
from arq import ArqRedis, cron, func
from arq import jobs as arq_jobs
from arq import worker as arq_worker
from arq.connections import RedisSettings, create_pool
from arq.cron import CronJob, next_cron
from arq.utils import ms_to_datetime, to_unix_ms
from arq.worker import FailedJobs, Function, JobExecutionFailed, Retry, RetryJob, check_health, get_kwargs
from redis.asyncio.connection import ConnectionPool
from redis.asyncio.sentinel import Sentinel
from redis.exceptions import RedisError

from agentqueue.agent import Backoff
from agentqueue.arq import dumps, loads
from agentqueue.clock import now_ms
from agentqueue.errors import HandlerImportError, InvalidPayload
from agentqueue.store import KEEP_FOREVER, Server
from agentqueue.wire import MARK, JobRecord, Reason, ResultRecord, decode_job, encode_job, encode_result, find_problem
from agentqueue_worker.adapters.borrowed import server_like
from agentqueue_worker.app.job import Ending, Job
from agentqueue_worker.app.options import WorkerOptions
from agentqueue_worker.app.ports import Codec, Cron, Handler, WorkerRuntime
from agentqueue_worker.domain.verdict import Failed, Hopeless, Verdict
from agentqueue_worker.settings import Settings

# The parts of arq that agentqueue_worker.arq offers under arq's own names.
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

Serializer = Callable[[dict[str, Any]], bytes]
Deserializer = Callable[[bytes], dict[str, Any]]
AT_ONCE: Final = Backoff(type="fixed", delay=0.0, jitter=0.0)
UNREADABLE: Final = "<unreadable>"
"""Stands for the name of a job whose record the user's deserializer refused."""
NOT_SERIALIZABLE: Final = "unable to serialize result"
"""arq's own words; its client raises SerializationError with them."""

log = structlog.get_logger("agentqueue.arq")


# --- records -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ArqRecord(JobRecord):
    """A job that the user's deserializer read: its arguments may be any Python objects."""

    problem: str | None = None
    """Why it could not be read after all."""

    @property
    def data(self) -> Any:
        """The arguments as a dead letter shows them: what is not JSON by its repr."""
        args = [_plain(value) for value in self.args]
        if self.kwargs:
            return {"args": args, "kwargs": {str(key): _plain(value) for key, value in self.kwargs.items()}}
        return args[0] if len(args) == 1 else (args or None)


def _plain(value: Any) -> Any:
    return value if find_problem(value) is None else repr(value)[:1_000]


@dataclass(frozen=True, slots=True)
class Serializers:
    """How a program's records are written and read: JSON, unless the user asked for another way (rule 9)."""

    write: Serializer = dumps
    read: Deserializer = loads

    @classmethod
    def choose(cls, write: Serializer | None, read: Deserializer | None, *, pickled: bool) -> "Serializers":
        """arq's defaults (pickle) where pickle or a deserializer was asked for, JSON where not."""
        if pickled or read is not None:
            return cls(write or pickle.dumps, read or pickle.loads)
        return cls(write or dumps, loads)

    def decode_job(self, raw: bytes) -> JobRecord:
        """The job's record: ours by its mark, another by the user's deserializer.

        Raises:
            InvalidPayload: not JSON, where JSON is what is read.
        """
        if self.read is loads or raw.startswith(MARK):
            return decode_job(raw)
        try:
            name, args, kwargs, job_try, enqueued_ms = arq_jobs.deserialize_job_raw(raw, deserializer=self.read)
        except arq_jobs.DeserializationError as exc:
            return ArqRecord(name=UNREADABLE, problem=f"the job_deserializer refuses its record: {exc.__cause__!r}")
        return ArqRecord(name=name, args=args, kwargs=kwargs, job_try=job_try, enqueued_ms=enqueued_ms)

    def encode_job(self, name: str) -> bytes:
        """A cron's job, so that plain arq workers on the same queue read it as well."""
        if self.write is dumps:
            return encode_job(JobRecord(name=name, enqueued_ms=now_ms()))
        return arq_jobs.serialize_job(name, (), {}, None, now_ms(), serializer=self.write)

    def encode_result(self, record: ResultRecord) -> bytes:
        """The result; one that can't be written is recorded as a failure that says so, as arq does."""
        if not record.success:
            record = replace(record, result=_as_arq_has_it(record))
        return _encode_json(record) if self.write is dumps else self._encode_own(record)

    def _encode_own(self, record: ResultRecord) -> bytes:
        raw = arq_jobs.serialize_result(
            record.name,
            tuple(record.args),
            dict(record.kwargs),
            record.job_try,
            record.enqueued_ms,
            record.success,
            record.result,
            record.started_ms,
            record.finished_ms,
            f"{record.id}:{record.name}",
            record.queue,
            record.id,
            serializer=self.write,
        )
        # Twice refused: the arguments are not the serializer's either. Ours reads them as text.
        return raw if raw is not None else encode_result(_unserializable(record))


def _encode_json(record: ResultRecord) -> bytes:
    try:
        return encode_result(record)
    except InvalidPayload as exc:
        log.warning("result_not_json", job_id=record.id, job=record.name, error=str(exc))
        return encode_result(_unserializable(record))


def _unserializable(record: ResultRecord) -> ResultRecord:
    args = [_plain(value) for value in record.args]
    kwargs = {str(key): _plain(value) for key, value in record.kwargs.items()}
    return replace(record, success=False, result=NOT_SERIALIZABLE, args=args, kwargs=kwargs)


def _as_arq_has_it(record: ResultRecord) -> Any:
    """What arq's client raises for a job that ended without its function's doing."""
    match record.reason:
        case Reason.EXPIRED | Reason.NO_RECORD:
            return JobExecutionFailed("job expired")
        case Reason.UNKNOWN_JOB:
            return JobExecutionFailed(f"function {record.name!r} not found")
        case Reason.GARBAGE:
            return arq_jobs.DeserializationError("unable to deserialize job")
        case Reason.PICKLED | Reason.CRASHED:
            return JobExecutionFailed(str(record.result))
        case _:
            return record.result


# --- functions -----------------------------------------------------------------------------------------------------


class ArqHandler:
    """One function, or the function of a cron."""

    backoff = AT_ONCE
    timeout = None  # arq's timeout does not cover the hooks, and is final: `call` keeps it

    def __init__(self, worker: "ArqWorker", function: Function | CronJob) -> None:
        self.worker = worker
        self.name = function.name
        self.coroutine = function.coroutine
        own_tries, own_timeout = function.max_tries, function.timeout_s
        self.attempts: int = worker.max_tries if own_tries is None else own_tries
        self.limit: float | None = worker.job_timeout_s if own_timeout is None else own_timeout
        self.keep_ms = keep_ms_of(worker, function)

    async def call(self, job: Job) -> Any:
        """The function between its hooks, which all get the job's own context."""
        worker = self.worker
        worker.tasks[job.id] = job.task  # type: ignore[assignment]  # it is this very task
        try:
            value = await self._between_hooks(job)
        except BaseException as exc:
            worker.count_failure(self.judge(exc, job), job)
            raise
        finally:
            worker.tasks.pop(job.id, None)
        worker.jobs_complete += 1
        return value

    async def _between_hooks(self, job: Job) -> Any:
        tries = job.record.options.attempts or self.attempts
        if job.attempt > tries:
            raise _exceeded(tries)
        worker = self.worker
        ctx = job.extra = worker.context_of(job)
        if worker.on_job_start is not None:
            await worker.on_job_start(ctx)
        try:
            return await self._run(ctx, job)
        except BaseException as exc:
            if job.ending is None and job.attempt >= tries and isinstance(self.judge(exc, job), Failed):
                # arq defers it once more, only to fail it at the next start: here it ends at once.
                worker.jobs_retried += 1
                raise _exceeded(tries) from exc
            raise
        finally:
            if worker.on_job_end is not None:
                await worker.on_job_end(ctx)

    async def _run(self, ctx: dict[Any, Any], job: Job) -> Any:
        record = job.record
        limit = self.limit if record.options.timeout is None else None  # the record's own is kept by the claim loop
        try:
            async with asyncio.timeout(limit) as scope:
                return await self.coroutine(ctx, *record.args, **record.kwargs)
        except TimeoutError as exc:
            if scope.expired():
                raise TimeoutError(f"the job took longer than its timeout of {limit:g} s") from exc
            raise

    def judge(self, exc: BaseException, job: Job) -> Verdict:  # noqa: ARG002  # the port's shape
        """arq's rules: only Retry, RetryJob and CancelledError run it again; any other exception is final."""
        if self.worker.retry_jobs and isinstance(exc, Retry):
            return Failed(after=(exc.defer_score or 0) / 1000)
        if self.worker.retry_jobs and isinstance(exc, RetryJob | asyncio.CancelledError):
            return Failed(after=0.0)
        return Hopeless(Reason.FAILED if isinstance(exc, JobExecutionFailed) else Reason.FATAL)


def _exceeded(tries: int) -> JobExecutionFailed:
    return JobExecutionFailed(f"max {tries} retries exceeded")


class UnreadableHandler:
    """Ends a job whose record the user's deserializer refused: for the claim loop a pickle is one that nobody reads."""

    name = UNREADABLE
    backoff = AT_ONCE
    timeout = None
    attempts = 1

    def __init__(self, worker: "ArqWorker") -> None:
        self.worker = worker
        self.keep_ms = keep_ms_of(worker)

    async def call(self, job: Job) -> Any:
        """See the class."""
        self.worker.jobs_failed += 1
        problem = job.record.problem if isinstance(job.record, ArqRecord) else None
        raise arq_jobs.DeserializationError(problem or "unable to deserialize job")

    def judge(self, exc: BaseException, job: Job) -> Verdict:  # noqa: ARG002  # the port's shape
        """Final."""
        return Hopeless(Reason.GARBAGE)


def keep_ms_of(worker: arq_worker.Worker, function: Function | CronJob | None = None) -> int:
    """How long a result is kept: the function's own wish, else the worker's."""
    own_forever = own_seconds = None
    if function is not None:
        own_forever, own_seconds = function.keep_result_forever, function.keep_result_s
    if worker.keep_result_forever if own_forever is None else own_forever:
        return KEEP_FOREVER
    return round((worker.keep_result_s if own_seconds is None else own_seconds) * 1000)


class ArqCron:
    """A cron whose ticks are enqueued once over all workers."""

    def __init__(self, job: CronJob, timezone: tzinfo | None, serializers: Serializers) -> None:
        self.job = job
        self.timezone = timezone
        self.serializers = serializers
        schedule = (job.month, job.day, job.weekday, job.hour, job.minute, job.second, job.microsecond)
        # Two schedules of one function share its name; the last tick is remembered for each.
        self.name = f"{job.name} {' '.join(map(_schedule_part, schedule))}"

    def next_tick(self, after_ms: int) -> int:
        """The first tick after that time, both ms since the epoch."""
        job = self.job
        moment = datetime.fromtimestamp(after_ms / 1000, tz=self.timezone) - timedelta(seconds=1)
        tick_ms = after_ms
        while tick_ms <= after_ms:  # next_cron looks from a second later on
            moment = next_cron(
                moment,
                month=job.month,
                day=job.day,
                weekday=job.weekday,
                hour=job.hour,
                minute=job.minute,
                second=job.second,
                microsecond=job.microsecond,
            )
            tick_ms = to_unix_ms(moment)
        return tick_ms

    def job_id(self, tick_ms: int) -> str:
        """arq's own id of the tick."""
        return self.job.job_id or f"{self.job.name}:{tick_ms}"

    def record(self, tick_ms: int) -> bytes:  # noqa: ARG002  # every tick's record is the same
        """The encoded job."""
        return self.serializers.encode_job(self.job.name)


def _schedule_part(value: Any) -> str:
    if value is None:
        return "*"
    return ",".join(map(str, sorted(value))) if isinstance(value, set | list | tuple) else str(value)


# --- the program ---------------------------------------------------------------------------------------------------


class ArqWorker(arq_worker.Worker):
    """arq's Worker: what it is told, its hooks and counters. `agentqueue_worker.arq.Worker` runs one by itself.

    Args:
        functions: as arq's, like every other argument.
        pickle: read and write pickles, arq's default; without it (and without a `job_deserializer`) records are JSON,
            and a pickled one becomes a dead letter that says so. Unpickling runs code that the record names: only for
            a Redis that nobody else can write to.
    """

    def __init__(
        self, functions: Sequence[Any] = (), *, pickle: bool = False, redis_pool: ArqRedis | None = None, **options: Any
    ) -> None:
        write, read = options.pop("job_serializer", None), options.pop("job_deserializer", None)
        if redis_pool is not None:  # the pool's own, where the worker is given none
            write, read = write or redis_pool.job_serializer, read or redis_pool.job_deserializer
        self.serializers = Serializers.choose(write, read, pickled=pickle)
        super().__init__(
            functions,
            redis_pool=redis_pool,
            job_serializer=self.serializers.write,
            job_deserializer=self.serializers.read,
            **options,
        )

    @property
    def completion_wait(self) -> float:
        """Seconds that running jobs get after a signal (`job_completion_wait`)."""
        return float(self._job_completion_wait or 0)

    async def open(self) -> None:
        """Connect arq's pool, as far as it is not."""
        if self._pool is None:
            self._pool = await create_pool(
                self.redis_settings,
                job_serializer=self.serializers.write,
                job_deserializer=self.serializers.read,
                default_queue_name=self.queue_name,
                expires_extra_ms=self.expires_extra_ms,
            )
        self.ctx["redis"] = self._context_pool()

    def _context_pool(self) -> ArqRedis:
        """What functions enqueue through. It writes what this worker reads; a pool of the user's own stays as it is."""
        pool, (write, read) = self.pool, (self.serializers.write, self.serializers.read)
        if (pool.job_serializer, pool.job_deserializer) == (write, read):
            return pool
        return ArqRedis(
            pool.connection_pool,
            job_serializer=write,
            job_deserializer=read,
            default_queue_name=pool.default_queue_name,
            expires_extra_ms=pool.expires_extra_ms,
        )

    async def shut(self) -> None:
        """What arq's close() does to Redis and the user's code."""
        if self._pool is None:
            return
        await self.pool.delete(self.health_check_key)
        if self.on_shutdown is not None:
            await self.on_shutdown(self.ctx)
        await self.pool.aclose(close_connection_pool=True)
        self._pool = None

    def context_of(self, job: Job) -> dict[Any, Any]:
        """A job's own context: the worker's, and arq's four keys."""
        return self.ctx | {
            "job_id": job.id,
            "job_try": job.attempt,
            "enqueue_time": ms_to_datetime(job.record.enqueued_ms),
            "score": int(job.claimed.score),
        }

    def count_failure(self, verdict: Verdict, job: Job) -> None:
        """arq's counters, for a job that raised."""
        match job.ending:
            case Ending.LOST:
                pass
            case Ending.DRAIN:
                self.jobs_retried += 1
            case None if isinstance(verdict, Failed):
                self.jobs_retried += 1
            case _:
                self.jobs_failed += 1

    def adjust(self, options: WorkerOptions) -> WorkerOptions:
        """The claim loop's options, with what arq's arguments say."""
        limited = options.burst and self.max_burst_jobs >= 0
        return replace(
            options,
            poll=self.poll_delay_s,
            keep_ms=keep_ms_of(self),
            burst_delayed=True,
            start_limit=self.max_burst_jobs if limited else None,
        )

    def open_server(self, hasty: bool, *, allow_eviction: bool = False) -> Server:  # noqa: FBT001  # the opener's shape
        """A connection pool for the claim loop, to where arq's own goes."""
        pool = lazy_pool(self.redis_settings) if self._pool is None else self._pool.connection_pool
        return server_like(pool, hasty=hasty, allow_eviction=allow_eviction)

    async def keep_health(self) -> None:
        """Write the record that `arq --check` reads, until cancelled."""
        while True:
            try:
                await self.record_health()
            except (RedisError, OSError) as exc:  # the claim loop tells of it
                log.debug("health_not_recorded", error=str(exc))
            await asyncio.sleep(max(self.health_check_interval, 0.01))
            self._last_health_check = 0  # sleep may end a little early by the clock that arq looks at

    async def tick_plainly(self, cron: "ArqCron") -> None:
        """Enqueue a cron with `unique=False`, which every worker does for itself, until cancelled."""
        tick_ms = cron.next_tick(now_ms())
        while True:
            await asyncio.sleep(max(tick_ms - now_ms(), 0) / 1000)
            try:
                await self.pool.enqueue_job(cron.job.name, _queue_name=self.queue_name)
            except (RedisError, OSError) as exc:
                log.warning("cron_delayed", cron=cron.name, error=str(exc))
            tick_ms = cron.next_tick(max(tick_ms, now_ms()))

    async def enqueue_startup_crons(self) -> None:
        """What runs at startup, by each worker that starts, as in arq."""
        for job in self.cron_jobs:
            if job.run_at_startup:
                own = job.job_id or (f"{job.name}:{now_ms()}" if job.unique else None)
                await self.ctx["redis"].enqueue_job(job.name, _job_id=own, _queue_name=self.queue_name)


class ArqCodec:
    """The program's serializers; counts the jobs that ended without having started."""

    def __init__(self, worker: ArqWorker) -> None:
        self._worker = worker
        self.decode_job = worker.serializers.decode_job

    def encode_result(self, record: ResultRecord) -> bytes:
        """See Serializers."""
        if record.started_ms == 0:
            self._worker.jobs_failed += 1
        return self._worker.serializers.encode_result(record)


class ArqRegistry:
    """An arq program as the claim loop sees it.

    Args:
        worker: the program.
        owned: stopping closes it; else whoever made it does (arq's `async_run()` leaves the worker open).
    """

    unknown_grace_ms = 0  # to arq a function that it does not know is final

    def __init__(self, worker: ArqWorker, *, owned: bool) -> None:
        self.worker = worker
        self._owned = owned
        self._tasks: list[asyncio.Task[None]] = []
        self._handlers: dict[str, Handler] = {
            name: ArqHandler(worker, function) for name, function in worker.functions.items()
        }
        self._unreadable = UnreadableHandler(worker)
        crons = [(job, ArqCron(job, worker.timezone, worker.serializers)) for job in worker.cron_jobs]
        self.crons: Sequence[Cron] = [cron for job, cron in crons if job.unique or job.job_id]
        self._plain_crons = [cron for job, cron in crons if not (job.unique or job.job_id)]
        self.codec: Codec = ArqCodec(worker)
        self.cancellable: bool = worker.allow_abort_jobs
        self.wants_recorded = worker.after_job_end is not None

    @property
    def names(self) -> Iterable[str]:
        """The names of its functions and crons."""
        return self._handlers

    def find(self, name: str) -> Handler | None:
        """The function of that name."""
        return self._unreadable if name == UNREADABLE else self._handlers.get(name)

    async def start(self, runtime: WorkerRuntime) -> None:
        """Connect, run on_startup, and begin what arq does beside its jobs."""
        worker = self.worker
        if not await self._connect(runtime):
            return
        if worker.on_startup is not None:
            await worker.on_startup(worker.ctx)
        await worker.enqueue_startup_crons()
        besides = [worker.keep_health(), *map(worker.tick_plainly, self._plain_crons)]
        self._tasks = [asyncio.create_task(it) for it in besides]

    async def _connect(self, runtime: WorkerRuntime) -> bool:
        """Until Redis answers, as every worker waits for it. False: it was stopped before that."""
        while True:
            try:
                await self.worker.open()
                return True
            except (RedisError, OSError) as exc:
                if not self._owned:  # a program of the user's own: arq has it fail after `conn_retries`
                    raise
                if runtime.draining:
                    return False
                log.error("redis_away", error=str(exc))  # noqa: TRY400  # the message says all
                await asyncio.sleep(1)

    async def stop(self) -> None:
        """End what `start` began; close the program if it is ours to close."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        if self._owned:
            await self.worker.shut()

    async def recorded(self, job: Job) -> None:
        """after_job_end, with the context that the job had; one that never got so far has none."""
        if job.extra is not None:
            await self.worker.after_job_end(job.extra)  # type: ignore[misc]  # asked for only if there is one


# --- where Redis is ------------------------------------------------------------------------------------------------


def lazy_pool(settings: RedisSettings | None) -> ConnectionPool:
    """What arq's create_pool would connect, not connected."""
    told = settings or RedisSettings()
    account: dict[str, Any] = {"db": told.database, "username": told.username, "password": told.password}
    if told.sentinel:
        sentinels = Sentinel(told.host, ssl=told.ssl, **account)
        pool: ConnectionPool = sentinels.master_for(told.sentinel_master).connection_pool
        return pool
    return ArqRedis(
        **account,
        host=told.host,
        port=told.port,
        unix_socket_path=told.unix_socket_path,
        ssl=told.ssl,
        ssl_keyfile=told.ssl_keyfile,
        ssl_certfile=told.ssl_certfile,
        ssl_cert_reqs=told.ssl_cert_reqs,
        ssl_ca_certs=told.ssl_ca_certs,
        ssl_ca_data=told.ssl_ca_data,
        ssl_check_hostname=told.ssl_check_hostname,
    ).connection_pool


def redis_settings_at(url: str, ca_file: str | None = None) -> RedisSettings:
    """The URL as arq's settings. arq's own from_dsn leaves %-escapes in a password as they are."""
    settings, parts = RedisSettings.from_dsn(url), urlsplit(url)
    settings.username = None if parts.username is None else unquote(parts.username)
    settings.password = None if parts.password is None else unquote(parts.password)
    settings.ssl_ca_certs = ca_file
    return settings


# --- `agentqueue worker module.WorkerSettings` ---------------------------------------------------------------------


class Adapted(NamedTuple):
    """An arq program to serve: the parts of agentqueue_worker.process.Program, in its order."""

    registry: ArqRegistry
    settings: Settings
    own_queue: str
    adjust: Callable[[WorkerOptions], WorkerOptions]
    open_server: Callable[[bool], Server] | None


def adapt(target: Any, settings: Settings, find_url: Callable[[], str | None]) -> Adapted:
    """Take over a WorkerSettings class or dict. Place and size (Redis, queue, slots, grace) are the settings', where
    they were given; what jobs mean (tries, timeouts, results) is the class's.

    Raises:
        HandlerImportError: arq would not take it.
    """
    options = get_kwargs(target)
    own_redis = settings.redis_url is None and ("redis_settings" in options or "redis_pool" in options)
    if not own_redis:
        settings = settings.override(redis_url=settings.redis_url or find_url())
    worker = _make(target, options, settings)
    settings = settings.override(**_sizes(worker, settings))

    def open_server(hasty: bool) -> Server:  # noqa: FBT001  # the opener's shape
        return worker.open_server(hasty, allow_eviction=settings.allow_eviction)

    registry = ArqRegistry(worker, owned=True)
    return Adapted(registry, settings, worker.queue_name, worker.adjust, open_server if own_redis else None)


def _make(target: Any, options: dict[str, Any], settings: Settings) -> ArqWorker:
    told: dict[str, Any] = {**options, "handle_signals": False}
    if settings.redis_url is not None:
        told |= {"redis_settings": redis_settings_at(settings.redis_url, settings.redis_ca_file), "redis_pool": None}
    if settings.queue is not None:
        told["queue_name"] = settings.queue
    if "concurrency" in settings.given:
        told["max_jobs"] = settings.concurrency
    try:
        return ArqWorker(pickle=settings.arq_pickle, **told)
    except (RuntimeError, ValueError, TypeError) as exc:
        name = getattr(target, "__qualname__", "the dict")
        raise HandlerImportError(f"{name} is not an arq WorkerSettings: {exc}") from exc


def _sizes(worker: ArqWorker, settings: Settings) -> dict[str, Any]:
    sizes: dict[str, Any] = {"concurrency": worker.max_jobs, "burst": settings.burst or worker.burst}
    if "grace" not in settings.given and worker.completion_wait:
        sizes["grace"] = worker.completion_wait
    return sizes
