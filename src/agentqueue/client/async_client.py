"""`Client`, for producers that run on an event loop."""

import asyncio
import os
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeVar, Unpack, cast, overload

from agentqueue.agent.context import Context
from agentqueue.agent.declaration import JobDeclaration
from agentqueue.agent.job_definition import JobDefinition
from agentqueue.agent.payload import to_json
from agentqueue.agent.result import Result
from agentqueue.client.arguments import is_by_name, read_call
from agentqueue.client.bulk import Chunk, chunks_of_each, prepare_each, send_in_order, sent_jobs
from agentqueue.client.decoding import dead_letter_of, decode_snapshot
from agentqueue.client.fork_guard import ForkGuard
from agentqueue.client.known_names import FORCE, KnownNames, unknown_job
from agentqueue.client.pagination import check_fields, check_limit, moment_in, size_of, split_cursor, states_from
from agentqueue.client.responses import Cancellation, DeadGroup, Page, Replayed
from agentqueue.client.results import (
    cancelled_result,
    check_timeout,
    job_not_found,
    replayed_of,
    result_of,
    signal_counted,
)
from agentqueue.client.schedules import ScheduleStatus, schedule_status
from agentqueue.client.stats import QueueStats, stats_of, unreadable_stats
from agentqueue.client.status import PAYLOADS, JobStatus, select_payloads, status_of, unreadable_status
from agentqueue.client.stream_tokens import mint_for
from agentqueue.clock import monotonic, now_ms
from agentqueue.errors import (
    InvalidName,
    JobNotFound,
    NotFound,
    QueueUnavailable,
    ResultTimeout,
    UsageError,
)
from agentqueue.ids import new_id, new_nonce
from agentqueue.keys import KeySpace, Level, check_id, check_queue, check_signal_name
from agentqueue.model.dead_letter import DeadLetter
from agentqueue.model.exceptions import clean_text
from agentqueue.model.job import OMITTED, State, decode_job
from agentqueue.model.journal import step_field
from agentqueue.model.json import MAX_BYTES, encode
from agentqueue.model.new_job import NO_PAYLOAD, EnqueueOptions, NewJob, Prepared, prepare_job
from agentqueue.model.record_heads import DEAD_LETTER_BYTES, HEAD_BYTES, Cut
from agentqueue.model.result import encode_result
from agentqueue.model.schedule import tick_record
from agentqueue.model.stream import Follower, StreamEvent, events_of
from agentqueue.model.times import from_ms
from agentqueue.store import (
    Registrations,
    Schedules,
    ScheduleState,
    Sentinels,
    Server,
    ServerOptions,
    Snapshot,
    Store,
    StoredDeadLetter,
    Tls,
    Unreadable,
    server_options,
)
from agentqueue.store.jobs import BATCH
from agentqueue.store.lookup import DeadRange, find_queue
from agentqueue.store.signals import MAX_SIGNAL_BYTES, send_signal
from agentqueue.store.streams import StreamReader

if TYPE_CHECKING:
    import arq.jobs
    import typing_extensions

    R_co = typing_extensions.TypeVar("R_co", covariant=True, default=Any)
else:  # PEP 696 is in Python 3.13; type checkers know it without the package
    R_co = TypeVar("R_co", covariant=True)

T = TypeVar("T")
P = TypeVar("P")
R = TypeVar("R")
ProgressCallback = Callable[[int], None]
"""Called with the number of jobs handled so far."""
RESULT_KEEP_MS: Final = 3_600_000
"""Retention of the result of a job that is cancelled before it starts, in ms. It is the default of handlers, 1 hour."""
FIRST_POLL_S: Final = 0.01
LAST_POLL_S: Final = 0.5
"""Longest pause between two polls for a result, in seconds. Pauses start at FIRST_POLL_S and grow by half."""
SERVER_OUTAGE_TOLERANCE_S: Final = 30.0
"""Outage of the server that a wait for a result survives, in seconds. A restart takes less."""
CALLS_AT_ONCE: Final = 16
"""Maximum number of concurrent calls of one client. It is half of the connections that a client may open."""
ENCODE_BATCH: Final = 50
"""Number of jobs of a bulk that are encoded before other tasks may run. It takes less than 1 ms."""
RESEND_PAUSE_S: Final = 0.1
"""Pause before a send with an unknown outcome is repeated, in seconds."""
LISTED_AT_ONCE: Final = 50
"""Number of jobs that one call for a list reads. The call blocks the server for less than 2 ms."""
PAGE_BYTES: Final = 4 * 1024 * 1024
"""Maximum size of a page with payloads, in bytes. A page has at least one job, which may be larger."""
NO_QUEUE: Final = "any"
"""Queue name for calls that identify a job by its ID alone."""
MAX_SENDER: Final = 200
"""Maximum length of a signal's sender, in characters."""
DEFAULT_STREAM_TTL_S: Final = 3_600.0
"""Time for which a token for one stream counts by default, in seconds: as long as results are kept by default."""
MAX_GROUPS: Final = 500
"""Maximum number of kinds that `dead_groups` returns. It bounds the calls, since each kind takes one."""


class Job(Generic[R_co]):
    """A handle on a job: its ID, and the client that reads it. Creating one sends nothing."""

    __slots__ = ("_client", "_result", "deduplicated", "id", "queue")

    def __init__(
        self,
        client: "Client",
        id: str,  # noqa: A002  # the public name
        queue: str | None = None,
        deduplicated: bool = False,  # noqa: FBT001, FBT002  # made by the client, once per job of a bulk
        result: Result | None = None,
    ) -> None:
        self._client = client
        self._result = result
        self.id = id
        self.queue = queue
        """Queue of the job. None: the client looks it up when it needs it."""
        self.deduplicated = deduplicated
        """True if the ID was known already. The handle is then on the first job, and nothing was enqueued."""

    async def known_status(self) -> JobStatus | None:
        """Return the status of the job that had the ID already. None for a new job, and for one that has expired."""
        if not self.deduplicated:
            return None
        with suppress(JobNotFound):
            return await self.status()
        return None

    def __repr__(self) -> str:
        return f"Job({self.id!r}, queue={self.queue!r}, deduplicated={self.deduplicated})"

    async def status(self) -> JobStatus:
        """Return the status of the job.

        Raises:
            JobNotFound: The job was never enqueued, or the retention of its result has passed.
        """
        return await self._client.status(self.id, queue=self.queue)

    async def result(self, timeout: float | timedelta | None = None) -> R_co:
        """Wait until the job ends, and return the result of its handler.

        A job that was enqueued by its function, its definition or a declaration gives a value of the annotated type:
        a model, a dataclass or a date as the handler returned it. A job that was enqueued by its name gives JSON.

        Args:
            timeout: Longest wait, in seconds or as a timedelta. None waits without a limit.

        Raises:
            InvalidPayload: The result does not fit the annotation. `Client.result` returns its JSON.
            UsageError: The return annotation cannot be used. This is raised before the wait.
            AgentQueueError: See `Client.result`.
        """
        reader = self._result
        if reader is None:
            return cast("R_co", await self._client.result(self.id, timeout, queue=self.queue))
        reader.prepare()
        value = await self._client.result(self.id, timeout, queue=self.queue)
        return cast("R_co", reader.load(value, f"job {self.id} is completed, but its result"))

    async def cancel(self, *, cascade: bool = True) -> Cancellation:
        """Cancel the job; see `Client.cancel`."""
        return await self._client.cancel(self.id, queue=self.queue, cascade=cascade)

    def stream(self, after: str | None = None) -> AsyncGenerator[StreamEvent]:
        """Read what the job emits, until it ends; see `Client.stream`."""
        return self._client.stream(self.id, after)

    async def signal(
        self,
        name: str,
        data: Any = None,
        /,
        *,
        sender: str | None = None,
        id: str | None = None,  # noqa: A002  # the public name
    ) -> bool:
        """Send a signal to the job; see `Client.signal`."""
        return await self._client.signal(self.id, name, data, sender=sender, id=id, queue=self.queue)


async def _through_outage(call: Callable[[], Awaitable[T]]) -> T:
    """Return the result of a call that is repeated while the server does not answer, for up to 30 s."""
    deadline = monotonic() + SERVER_OUTAGE_TOLERANCE_S
    while True:
        try:
            return await call()
        except QueueUnavailable:
            if monotonic() >= deadline:
                raise
            await asyncio.sleep(LAST_POLL_S)


class Client:
    """A client for the queues of one Redis or Valkey server. `async with Client(url)` checks the server.

    A client belongs to one event loop and one process. Create a new one after `os.fork()` and in each `asyncio.run()`:
    a client that was used elsewhere raises UsageError. A closed client may be used in another event loop.

    Args:
        url: `redis://[:password@]host:port/db`, or `rediss://` for TLS. By default the server that the environment
            names: AGENTQUEUE_REDIS_URL, else REDIS_URL, with the AGENTQUEUE_REDIS_… variables for TLS and Sentinel.
        timeout: Longest time for a reply of the server, in seconds.
        connect_timeout: Longest time to open a connection, in seconds.
        max_bytes: Maximum size of an encoded job. A larger job is refused.
        ca_file: Shorthand for `tls=Tls(ca_file=…)`.
        tls: TLS options. By default those of the environment, else the system's certificate authorities.
        sentinel: Sentinels that know the primary. The URL then gives scheme, user, password and database only.
        allow_eviction: Accept a server that evicts keys when its memory is full, and may thus lose jobs.

    Every method raises QueueUnavailable if the server does not answer or refuses the connection. Methods that add jobs
    raise QueueFull.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        timeout: float = 15.0,
        connect_timeout: float = 5.0,
        max_bytes: int = MAX_BYTES,
        ca_file: str | None = None,
        tls: Tls | None = None,
        sentinel: Sentinels | None = None,
        allow_eviction: bool = False,
    ) -> None:
        found = server_options(os.environ, url or ("redis://" if sentinel else None))
        if found is None:
            raise UsageError("no Redis URL: pass one to Client(url), or set AGENTQUEUE_REDIS_URL or REDIS_URL")
        options = replace(
            found,
            timeout=timeout,
            connect_timeout=connect_timeout,
            tls=tls or (Tls(ca_file=ca_file) if ca_file else found.tls),
            sentinel=sentinel or found.sentinel,
            allow_eviction=allow_eviction,
        )
        self._set_up(options, max_bytes)

    def _set_up(self, options: ServerOptions, max_bytes: int) -> None:
        self.server = Server(options)
        self.store = Store(self.server)
        self.max_bytes = max_bytes
        self._slots = asyncio.Semaphore(CALLS_AT_ONCE)
        self._fork_guard = ForkGuard()
        self._names = KnownNames()

    @classmethod
    def at(cls, options: ServerOptions) -> Self:
        """Return a client of the server that these options describe. The environment is not read."""
        client = cls.__new__(cls)
        client._set_up(options, MAX_BYTES)  # noqa: SLF001  # its own
        return client

    @classmethod
    def local(cls, folder: str | os.PathLike[str] = ".") -> Self:
        """Return a client of the `agentqueue up` that runs for a folder, or for the nearest folder above it.

        Args:
            folder: The folder in which `agentqueue up` was started. The working directory by default.

        Raises:
            UsageError: No `agentqueue up` runs there.
        """
        from agentqueue.local.state import find_up_state  # noqa: PLC0415  # only programs beside `up` need it

        state = find_up_state(Path(folder))
        options = None if state is None else server_options(state.connection)
        if options is None:
            raise UsageError(
                f"no `agentqueue up` runs for {Path(folder).absolute()} or a folder above it: start one with "
                "`agentqueue up FILE`, or connect to another server with Client(url)"
            )
        return cls.at(options)

    async def __aenter__(self) -> Self:
        self._fork_guard.check(asyncio.get_running_loop())
        await self.server.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection. In a forked child or another event loop this does nothing: others own them."""
        if self._fork_guard.is_in_forked_child() or self._fork_guard.is_in_another_loop(asyncio.get_running_loop()):
            return
        await self.server.close()
        self._fork_guard.forget_loop()

    # Enqueue

    @overload
    async def enqueue(
        self, queue: str, name: str, data: Any = NO_PAYLOAD, **options: Unpack[EnqueueOptions]
    ) -> Job: ...
    @overload
    async def enqueue(
        self,
        function: Callable[[Context, P], Awaitable[R]] | JobDeclaration[P, R],
        payload: P,
        /,
        **options: Unpack[EnqueueOptions],
    ) -> Job[R]: ...
    @overload
    async def enqueue(
        self,
        function: Callable[[Context], Awaitable[R]] | JobDeclaration[None, R],
        /,
        **options: Unpack[EnqueueOptions],
    ) -> Job[R]: ...
    @overload
    async def enqueue(
        self, function: Callable[[Context, P], R], payload: P, /, **options: Unpack[EnqueueOptions]
    ) -> Job[R]: ...
    @overload
    async def enqueue(self, function: Callable[[Context], R], /, **options: Unpack[EnqueueOptions]) -> Job[R]: ...
    @overload
    async def enqueue(
        self, function: JobDefinition, payload: Any = NO_PAYLOAD, /, **options: Unpack[EnqueueOptions]
    ) -> Job: ...
    async def enqueue(self, *args: Any, **keywords: Any) -> Job:
        """Enqueue a job.

        Call `enqueue(queue, name, data, **options)`, or `enqueue(function, payload, **options)` with a function
        decorated by `@agent.job`, its definition `agent.jobs[name]`, or a declaration (see `declare`). Its annotations
        then check the payload, here and by a type checker, and give `job.result()` its type.

        Args:
            args: The queue, the job's name and its payload: JSON types, a pydantic model or a dataclass. None is a
                payload too. Without a payload the handler runs with its default, or with the context alone.
            keywords: See `EnqueueOptions`: priority, delay, at, id, tags, timeout, attempts, backoff, tenant, trace.

        Returns:
            The job. If the ID is known already, the first job (`deduplicated` is True).

        Raises:
            InvalidPayload: The payload is not JSON, has NaN, is too deep or too large, or is refused by the annotation.
            InvalidName: The queue, job name, ID, priority or a tag is outside its alphabet or range.
            UsageError: Another option is out of range.
            NotFound: The code that serves the queue has no job of that name (see `job_names`). `force=True` sends it
                anyway.
            QueueFull: The server is at `maxmemory`. Nothing was enqueued.
            QueueUnavailable: Two tries got no answer. Send the job again with the same ID: it is enqueued once.
        """
        prepared = self.prepare(args, keywords)
        await self.check_name(prepared)
        known = await self.send([prepared.job], ids_are_random=prepared.id_is_random)
        return self._handle(prepared.job.id, prepared.job.queue, prepared.job.id in known, prepared.result)

    async def enqueue_many(
        self,
        jobs: Iterable[Mapping[str, Any]] | AsyncIterable[Mapping[str, Any]],
        *,
        progress: ProgressCallback | None = None,
    ) -> list[Job]:
        """Enqueue many jobs, 500 per call, in order within each queue.

        Args:
            jobs: Mappings with the keywords of `enqueue`: `{"queue", "name", "data", "priority", ...}` or
                `{"function", "payload", ...}`. All jobs of a list are checked before the first is sent. The jobs of a
                generator, also an async one, are sent in chunks, so that it may be endless or larger than memory.
            progress: Called with the number of jobs that are enqueued so far.

        Returns:
            The jobs in the same order. `deduplicated` is True for those that were known.

        Raises:
            UsageError, NotFound: As for `enqueue`. The message names the job by its position.
            QueueFull, QueueUnavailable: Earlier chunks are enqueued. If the jobs have IDs of yours, send all of them
                again: each job is enqueued once.
        """
        handles: dict[int, Job] = {}

        async def send(chunk: Chunk) -> None:
            handles.update(await self.send_chunk(chunk))
            if progress is not None:
                progress(len(handles))

        await send_in_order(chunks_of_each(self._prepare_many(jobs)), send)
        return [handles[position] for position in range(len(handles))]

    async def send_chunk(self, chunk: Chunk) -> dict[int, Job]:
        """Send a chunk, and return its jobs by position."""
        known = await self.send(chunk.jobs, ids_are_random=chunk.ids_are_random)
        results = chunk.results
        return {
            position: self._handle(job_id, chunk.queue, was, results.get(position))
            for position, job_id, was in sent_jobs(chunk, known)
        }

    def prepare(self, args: Sequence[Any], keywords: Mapping[str, Any]) -> Prepared:
        """Check and encode one call of `enqueue`. Nothing is sent."""
        queue, name, data, options, result = read_call(args, keywords)
        prepared = prepare_job(
            queue,
            name,
            data,
            options,
            now_ms=now_ms(),
            new_id=new_id(),
            draw_nonce=new_nonce,
            max_bytes=self.max_bytes,
            by_name=is_by_name(args, keywords),
        )
        return prepared if result is None else prepared._replace(result=result)

    def may_send(self, prepared: Prepared) -> bool:
        """Return whether the job can be sent without asking the server for its name."""
        return not prepared.name or self._names.may_send(prepared.job.queue, prepared.name)

    async def check_name(self, prepared: Prepared, position: int | None = None) -> None:
        """Refuse a job whose name was mistyped. It takes one command for each name that is new to this client.

        Raises:
            NotFound: The code that serves the queue has no such job. The message has the nearest known name.
        """
        if self.may_send(prepared):
            return
        queue, name = prepared.job.queue, prepared.name
        known = await self.job_names(queue)
        self._names.note(queue, known)
        if known and name not in known:
            where = "" if position is None else f"jobs[{position}]: "
            raise NotFound(f"{where}{unknown_job(queue, name, known, next_step=FORCE)}")

    async def job_names(self, queue: str) -> list[str]:
        """Return the names of the jobs that the code of a queue's workers has, sorted.

        A worker registers them when it starts, and they stay when there is no worker. Empty if none has registered.
        """
        return await self._with_slot(Registrations(self.server).job_names(check_queue(queue)))

    async def _prepare_many(
        self, jobs: Iterable[Mapping[str, Any]] | AsyncIterable[Mapping[str, Any]]
    ) -> AsyncIterator[Prepared]:
        if isinstance(jobs, AsyncIterable):
            index = 0
            async for item in jobs:
                for prepared in prepare_each([item], self.prepare, first=index):
                    await self.check_name(prepared, index)
                    yield prepared
                index += 1
            return
        each: Iterable[Prepared] = prepare_each(jobs, self.prepare)
        if isinstance(jobs, list | tuple):
            each = list(each)
            await self.check_names(each)
        for count, prepared in enumerate(each):
            if count % ENCODE_BATCH == 0:
                await asyncio.sleep(0)  # the previous chunk is sent meanwhile
            if not self.may_send(prepared):
                await self.check_name(prepared, count)
            yield prepared

    async def check_names(self, jobs: Sequence[Prepared]) -> None:
        """Refuse a bulk with a job whose name was mistyped; see `check_name`."""
        for position, prepared in enumerate(jobs):
            await self.check_name(prepared, position)

    async def send(self, jobs: Sequence[NewJob], *, ids_are_random: bool) -> set[str]:
        """Send prepared jobs, and return the IDs that were known before.

        If the outcome of a send is unknown, it is repeated once. Duplicates are detected by job ID.
        """
        try:
            return await self._with_slot(self.store.enqueue(jobs, ids_are_random=ids_are_random))
        except QueueUnavailable:
            await asyncio.sleep(RESEND_PAUSE_S)
        known = await self._with_slot(self.store.enqueue(jobs))
        if ids_are_random:
            return set()
        return {job.id for job in jobs if job.id in known and not await self._is_ours(job)}

    async def _is_ours(self, job: NewJob) -> bool:
        """Return whether the known job with this ID is the one that was sent: it waits unchanged, or has run since."""
        found = await self._with_slot(self.store.inspect(job.queue, job.id))
        if found.record is not None:
            return found.record == job.record
        ours, theirs = decode_job(job.record), decode_snapshot(found).result
        return theirs is not None and (theirs.name, theirs.enqueued_ms) == (ours.name, ours.enqueued_ms)

    def _handle(self, job_id: str, queue: str, was_known: bool, result: Result | None) -> Job:  # noqa: FBT001  # per job of a bulk
        # A known ID may be in another queue, which is looked up when needed.
        return Job(self, job_id, None if was_known else queue, was_known, result)

    async def _with_slot(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            self._fork_guard.check(asyncio.get_running_loop())
            async with self._slots:
                return await work
        finally:
            work.close()  # the call may be cancelled before it gets a slot

    # One job

    def job(self, id: str, *, queue: str | None = None) -> Job:  # noqa: A002  # the public name
        """Return a handle on the job with an ID. Nothing is sent; `queue` saves a look-up later."""
        return Job(self, check_id(id), None if queue is None else check_queue(queue))

    async def status(self, id: str, *, queue: str | None = None) -> JobStatus:  # noqa: A002
        """Return the status of a job.

        Raises:
            JobNotFound: The job was never enqueued, or the retention of its result has passed.
        """
        status = status_of(await self._inspect(id, queue))
        if status is None:
            raise job_not_found(id)
        return status

    async def result(
        self,
        id: str,  # noqa: A002
        timeout: float | timedelta | None = None,
        *,
        queue: str | None = None,
    ) -> Any:
        """Wait until the job ends, and return the result of its handler, as JSON types.

        The wait survives an outage of the server of up to 30 s.

        Args:
            id: The job's ID.
            timeout: Longest wait, in seconds or as a timedelta. None waits without a limit.
            queue: The job's queue, if it is known.

        Raises:
            JobFailed: The job is dead.
            JobCancelled: The job was cancelled.
            ResultTimeout: The job has not ended within `timeout`. It goes on.
            JobNotFound: The job is not known, or no longer known.
            InvalidPayload: The result is a pickle, or cannot be read.
        """
        deadline = monotonic() + check_timeout(timeout)
        last_answer = monotonic()
        pause = FIRST_POLL_S
        while True:
            try:
                status = await self.status(id, queue=queue)
            except QueueUnavailable:
                if monotonic() >= min(last_answer + SERVER_OUTAGE_TOLERANCE_S, deadline):
                    raise
                await asyncio.sleep(LAST_POLL_S)
                continue
            if status.is_final:
                return result_of(status)
            last_answer, queue = monotonic(), status.queue
            left = deadline - last_answer
            if left <= 0:
                raise ResultTimeout(f"job {id} is still {status.state}; it goes on, ask again later")
            await asyncio.sleep(min(pause, left))
            pause = min(pause * 1.5, LAST_POLL_S)

    async def stream(self, id: str, after: str | None = None) -> AsyncGenerator[StreamEvent]:  # noqa: A002
        """Read what a job emits by `ctx.emit`: all that there is, and then what comes, until the job ends.

        The events may be read before the job starts, while it runs and after its end, by any number of readers, until
        the retention of the job's result has passed. The stream keeps its last 10,000 events, up to 16 MiB. Reading
        survives an outage of the server of up to 30 s. Each reader has a connection of its own.

        Args:
            id: The job's ID.
            after: ID of the last event that was read; reading goes on behind it. None reads from the beginning.

        Yields:
            Events, of which the last one has the type `end`. After a `rewind`, as many events stand as its data says,
            and the reader forgets those that followed: the job runs again, and goes on differently from there.

        Raises:
            JobNotFound: The job is not known, or no longer known.
            UsageError: `after` is not the ID of an event.
        """
        follower, reader = Follower(after), StreamReader(self.server, check_id(id))
        self._fork_guard.check(asyncio.get_running_loop())
        try:
            state = await _through_outage(reader.state)
            if state.left_behind:
                follower = Follower()
            place = state.left_behind or follower.place
            is_live = state.is_live
            while True:
                found = await _through_outage(partial(reader.next, place, wait=is_live))
                for place, fields in found:  # where the next call goes on
                    for event in events_of(follower, place, fields):
                        yield event
                        if event.type == "end":
                            return
                if not found and not is_live:
                    break
                is_live = bool(found) or await _through_outage(reader.is_live)
            status = await _through_outage(lambda: self.status(id))
            if not status.is_final:  # it was replayed, or enqueued again, between two calls
                raise JobNotFound(f"job {id} has begun again while its end was read; read its stream from the start")
            yield StreamEvent(follower.id, "end", str(status.state))
        finally:
            await reader.close()

    def stream_token(
        self,
        id: str,  # noqa: A002
        ttl: float | timedelta = DEFAULT_STREAM_TTL_S,
        *,
        secret: str | None = None,
    ) -> str:
        """Return a token with which a browser may read the stream of one job from the console's API, and nothing else.

        Nothing is sent. The token goes into `GET /api/jobs/{id}/stream?token=…`, or into the header Authorization.

        Args:
            id: The job's ID.
            ttl: Time for which the token counts, in seconds or as a timedelta.
            secret: The console's token. By default the one in AGENTQUEUE_CONSOLE_TOKEN.

        Raises:
            UsageError: There is no secret, or `ttl` is out of range.
        """
        return mint_for(os.environ, id, ttl, secret=secret)

    async def cancel(self, id: str, *, queue: str | None = None, cascade: bool = True) -> Cancellation:  # noqa: A002
        """Cancel a job. A job that has not started is cancelled at once, a running one by its worker within a second.

        A job with steps that does not run, such as a suspended one, is started once more with the request, so that its
        handler can undo what the steps have done.

        Args:
            id: The job's ID.
            queue: The job's queue, if it is known.
            cascade: Cancel the children that it waits for, too: 100 at once, the others within seconds.

        Raises:
            JobNotFound: The job is not known.
        """
        found = await self._inspect(id, queue)
        if found.state is None:
            raise job_not_found(id)
        result = encode_result(cancelled_result(found, now_ms()))
        done = await self._with_slot(
            self.store.cancel(found.queue, id, result=result, keep_ms=RESULT_KEEP_MS, cascade=cascade)
        )
        if done == "unknown":  # it has just ended, and kept no result
            return Cancellation.TOO_LATE
        return {"cancelled": Cancellation.CANCELLED, "asked": Cancellation.REQUESTED}.get(done, Cancellation.TOO_LATE)

    async def signal(
        self,
        job_id: str,
        name: str,
        data: Any = None,
        /,
        *,
        sender: str | None = None,
        id: str | None = None,  # noqa: A002  # the public name
        queue: str | None = None,
    ) -> bool:
        """Send a signal to a job, which takes it by `ctx.wait_for(name)`. A job that is suspended for it goes on.

        Signals of a name are kept in their order until the job ends. A job may also get them before it waits for them.

        Args:
            job_id: The job's ID.
            name: The signal's name.
            data: JSON types, a pydantic model or a dataclass.
            sender: Who sends it, for the handler and for people.
            id: ID of the signal, which counts once however often it is sent. By default each call counts.
            queue: The job's queue, if it is known.

        Returns:
            False if a signal with this ID was sent before. Then nothing has changed.

        Raises:
            JobNotFound: The job is not known.
            JobEnded: The job has ended. If the signal was sent before with the same ID, that one may have counted.
            MailboxFull: The job has got 1,000 signals, or 1 MiB of data.
            InvalidName, InvalidPayload, UsageError: An argument cannot be used.
        """
        check_id(job_id)
        check_signal_name(name)
        value = to_json(data, "the signal's data")
        raw = encode(value, what=f"the data of signal {name!r}", max_bytes=MAX_SIGNAL_BYTES)
        if sender is not None and not (type(sender) is str and 0 < len(sender) <= MAX_SENDER):
            raise UsageError(f"sender {sender!r:.80} must be a text of 1 to {MAX_SENDER} characters")
        signal_id = new_id() if id is None else check_id(id)
        if queue is None:
            queue = await self._with_slot(find_queue(self.store, job_id))
            if queue is None:
                raise job_not_found(job_id)
        target = check_queue(queue)

        async def send() -> str:
            return await self._with_slot(
                send_signal(self.store, target, job_id, name, raw, sender=sender, signal_id=signal_id)
            )

        try:
            said = await send()
        except QueueUnavailable:
            await asyncio.sleep(RESEND_PAUSE_S)
            said = await send()
            if said == "known" and id is None:
                said = "sent"  # by the first call, whose answer was lost
        return signal_counted(job_id, name, said)

    async def _inspect(self, job_id: str, queue: str | None) -> Snapshot:
        check_id(job_id)
        if queue is not None:
            found = await self._with_slot(self.store.inspect(check_queue(queue), job_id))
            if found.state is not None:
                return found
        queue = await self._with_slot(find_queue(self.store, job_id))
        if queue is None:
            raise job_not_found(job_id)
        return await self._with_slot(self.store.inspect(queue, job_id))

    async def arq_job(self, id: str) -> "arq.jobs.Job":  # noqa: A002
        """Return arq's own `Job` for a job, with its queue and a JSON deserializer. It needs arq to be installed.

        Raises:
            JobNotFound: The job is not known.
            UsageError: arq is not installed.
        """
        try:
            from arq.connections import ArqRedis  # noqa: PLC0415  # an optional peer, never a dependency
            from arq.jobs import Job as ArqJob  # noqa: PLC0415
        except ImportError as exc:
            raise UsageError("arq_job() needs arq: pip install arq") from exc
        from agentqueue.arq import loads  # noqa: PLC0415

        found = await self._inspect(id, None)
        redis = ArqRedis(self.server.redis.connection_pool, job_deserializer=loads)
        key = KeySpace(found.queue).level(found.level or Level.NORMAL)
        return ArqJob(id, redis, _queue_name=key, _deserializer=loads)

    # Queues

    async def queues(self) -> list[str]:
        """Return the sorted names of all queues that have ever had a job, a worker or a scaling decision."""
        return [clean_text(name) for name in await self._with_slot(self.store.queues())]

    @overload
    async def stats(self, queue: str) -> QueueStats: ...
    @overload
    async def stats(self, queue: None = None) -> list[QueueStats]: ...
    async def stats(self, queue: str | None = None) -> QueueStats | list[QueueStats]:
        """Return the stats of a queue, or of all queues sorted by name.

        In the list of all queues, a queue that cannot be read has a `problem`.
        """
        if queue is not None:
            return stats_of(await self._with_slot(self.store.snapshot(check_queue(queue))))
        out: list[QueueStats] = []
        names: list[str] = []
        for name in await self.queues():
            try:
                names.append(check_queue(name))
            except InvalidName as exc:
                out.append(unreadable_stats(name, str(exc)))
        for start in range(0, len(names), 100):
            found = await self._with_slot(self.store.snapshots_or_unreadable(names[start : start + 100]))
            out += [
                unreadable_stats(it.queue, it.reason) if isinstance(it, Unreadable) else stats_of(it) for it in found
            ]
        return sorted(out, key=lambda stats: stats.name)

    async def jobs(
        self,
        queue: str,
        state: State | str | None = None,
        cursor: str | None = None,
        *,
        limit: int = 100,
        fields: Collection[str] = (),
    ) -> Page[JobStatus]:
        """Return a page of a queue's jobs. Live jobs are sorted soonest first, completed and dead ones newest first.

        Args:
            queue: The queue's name.
            state: One state, but not cancelled: those jobs are known by ID only. None gives the active jobs, then the
                waiting and then the delayed ones.
            cursor: The cursor of the previous page. Jobs that move meanwhile may be listed twice or left out.
            limit: 1 to 1,000. A page is shorter if its payloads exceed 4 MiB, and then has a cursor.
            fields: Payloads to include, `data` and `result`. Others are OMITTED, since each may have a megabyte.

        Returns:
            The jobs. A job that cannot be read has the reason as its `error`.
        """
        check_queue(queue)
        check_limit(limit)
        check_fields(fields, PAYLOADS)
        place, offset = split_cursor(cursor)
        places: list[tuple[State, int, str]] = []
        for at in states_from(state, place):
            found = await self._with_slot(self.store.ids(queue, at, offset=offset, limit=limit - len(places)))
            places += [(at, offset + position, job_id) for position, job_id in enumerate(found)]
            if len(places) >= limit:
                break
            offset = 0
        read, statuses = await self._statuses(queue, places, fields)
        if read < len(places):
            after = places[read]
            return Page(statuses, f"{after[0]}:{after[1]}")
        if len(places) < limit:
            return Page(statuses)
        last = places[-1]
        return Page(statuses, f"{last[0]}:{last[1] + 1}")

    async def _statuses(
        self, queue: str, places: Sequence[tuple[State, int, str]], wanted: Collection[str]
    ) -> tuple[int, list[JobStatus]]:
        """Return the number of jobs read until the page was full, and the status of each that is still known."""
        read, left, out = 0, PAGE_BYTES, []
        head = 0 if wanted else HEAD_BYTES
        while read < len(places) and left > 0:
            chunk = places[read : read + LISTED_AT_ONCE]
            ids = [job_id for _, _, job_id in chunk]
            found = await self._with_slot(
                self.store.inspect_many(
                    queue, ids, max_value_bytes=head, max_reply_bytes=left if wanted else PAGE_BYTES
                )
            )
            for (state, _, _), one in zip(chunk, found, strict=False):
                status = (
                    unreadable_status(one, state) if isinstance(one, Unreadable) else await self._listed(one, wanted)
                )
                if status is not None:
                    out.append(status)
            read += len(found)
            if wanted:
                left -= sum(size_of(one) for one in found)
        return read, out

    async def _listed(self, found: Snapshot, wanted: Collection[str]) -> JobStatus | None:
        try:
            status = status_of(found)
        except Cut:
            status = status_of(await self._with_slot(self.store.inspect(found.queue, found.id)))
        return None if status is None else select_payloads(status, wanted)

    async def pause(self, queue: str, note: str | None = None) -> bool:
        """Pause a queue: workers start no more of its jobs, and running ones go on. Return False if it was paused.

        `note` is shown with the pause, with lone surrogates escaped. By default it is the time of the pause.
        """
        text = clean_text(note) if note else f"since {from_ms(now_ms()).isoformat(timespec='seconds')}"
        return await self._with_slot(self.store.pause(check_queue(queue), text))

    async def resume(self, queue: str) -> bool:
        """Resume a paused queue. Return False if it was not paused."""
        return await self._with_slot(self.store.resume(check_queue(queue)))

    # Schedules

    async def schedules(self, queue: str) -> list[ScheduleStatus]:
        """Return the schedules of a queue, sorted by name, each with its next time and its last run."""
        states = await self._with_slot(Schedules(self.server).read(check_queue(queue)))
        return [schedule_status(queue, state, await self._state_of_last(queue, state)) for state in states]

    async def _state_of_last(self, queue: str, state: ScheduleState) -> str | None:
        """Return the state of a schedule's last job. None if its end was noted, or nothing is known of it."""
        if state.last is None or state.last.state is not None:
            return None
        with suppress(JobNotFound):
            return str((await self.status(state.last.id, queue=queue)).state)
        return None

    async def pause_schedule(self, queue: str, name: str, note: str | None = None) -> bool:
        """Pause a schedule: none of its ticks comes until `resume_schedule`, and they are not missed ones.

        Args:
            queue: The queue's name.
            name: The schedule's name.
            note: Is shown with the pause. By default it is the time of the pause.

        Returns:
            False if it was paused already.

        Raises:
            NotFound: The queue has no such schedule.
        """
        text = clean_text(note) if note else f"since {from_ms(now_ms()).isoformat(timespec='seconds')}"
        return await self._with_slot(Schedules(self.server).pause(check_queue(queue), name, text))

    async def resume_schedule(self, queue: str, name: str) -> bool:
        """Resume a paused schedule, which goes on with its next time. Return False if it was not paused.

        Raises:
            NotFound: The queue has no such schedule.
        """
        return await self._with_slot(Schedules(self.server).resume(check_queue(queue), name))

    async def run_schedule(self, queue: str, name: str) -> Job:
        """Enqueue the job of a schedule now, also of one that is paused. Its next tick does not change.

        Raises:
            NotFound: The queue has no such schedule.
        """
        schedule = await self._with_slot(Schedules(self.server).find(check_queue(queue), name))
        job = NewJob(queue, new_id(), tick_record(queue, schedule, now_ms()), schedule.priority)
        await self.send([job], ids_are_random=True)
        return Job(self, job.id, queue)

    # Dead letters

    async def dead_letters(
        self,
        queue: str,
        *,
        fingerprint: str | None = None,
        cursor: str | None = None,
        limit: int = 100,
        fields: Collection[str] = (),
    ) -> Page[DeadLetter]:
        """Return a page of a queue's dead letters, newest first.

        Args:
            queue: The queue's name.
            fingerprint: Only the dead letters with this fingerprint.
            cursor: The cursor of the previous page.
            limit: 1 to 1,000. A page is shorter if its dead letters exceed 4 MiB, and then has a cursor.
            fields: Payloads to include: `data`, which is OMITTED otherwise.

        Returns:
            The dead letters. One that cannot be read has the reason as its `error`.
        """
        check_limit(limit)
        check_fields(fields, PAYLOADS[:1])
        place, offset = split_cursor(cursor)
        until = await self._server_now(queue) if cursor is None else moment_in(place)
        ids = await self._with_slot(DeadRange(queue, until, fingerprint).newest(self.store, offset=offset, limit=limit))
        read, dead_letters = await self._read_dead_letters(queue, ids, head=0 if fields else DEAD_LETTER_BYTES)
        return Page(dead_letters, f"{until}:{offset + read}" if len(ids) == limit or read < len(ids) else None)

    async def dead_letter(self, id: str) -> DeadLetter:  # noqa: A002
        """Return the dead letter of a job.

        Raises:
            JobNotFound: The job is not dead, or the retention of its dead letter has passed.
        """
        (stored,) = await self._with_slot(self.store.dead_letters(NO_QUEUE, [check_id(id)]))
        if not stored.exists:
            raise JobNotFound(
                f"job {id} has no dead letter: it is not dead, was replayed or discarded, or it is too old"
            )
        return dead_letter_of(stored)

    async def dead_groups(self, queue: str) -> list[DeadGroup]:
        """Return a queue's dead letters grouped by fingerprint, the largest group first, up to 500 groups.

        The newest dead letter of each group has no payload, and only its last error without the traceback.
        """
        counts = await self._with_slot(self.store.fingerprints(check_queue(queue)))
        until = await self._server_now(queue)
        most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MAX_GROUPS]
        newest = await asyncio.gather(
            *(self._with_slot(DeadRange(queue, until, name).newest(self.store, offset=0, limit=1)) for name, _ in most)
        )
        named = [(name, count, ids[0]) for (name, count), ids in zip(most, newest, strict=True) if ids]
        groups: list[DeadGroup] = []
        for start in range(0, len(named), LISTED_AT_ONCE):
            chunk = named[start : start + LISTED_AT_ONCE]
            ids = [job_id for _, _, job_id in chunk]
            found = await self._with_slot(self.store.dead_letters(queue, ids, max_value_bytes=HEAD_BYTES))
            groups += [
                DeadGroup(clean_text(name), count, await self._read_dead_letter(stored, whole_errors=False))
                for (name, count, _), stored in zip(chunk, found, strict=True)
                if stored.exists
            ]
        return groups

    async def replay(
        self,
        queue: str,
        ids: Sequence[str] | str | None = None,
        *,
        all: bool = False,  # noqa: A002  # the command line's word
        fingerprint: str | None = None,
        from_start: bool = False,
        from_step: str | None = None,
        progress: ProgressCallback | None = None,
    ) -> Replayed:
        """Enqueue dead letters again, at the end of their queue and with their attempts counted from 1.

        They keep their checkpoint and what their steps, waits and children have come to, and go on where they stopped.

        Args:
            queue: The queue's name.
            ids: The IDs of the dead letters. Give exactly one of `ids`, `all` and `fingerprint`.
            all: Replay every job that is dead now. A job that dies again meanwhile is replayed once.
            fingerprint: Replay every job that is dead now and has this fingerprint.
            from_start: Forget the checkpoint and all steps, waits and children: everything runs again.
            from_step: Name of a step (`plan`, or `plan#2` for its second call): forget it and all that was recorded
                later, and the checkpoint.
            progress: Called with the number of dead letters handled so far.

        Raises:
            UsageError: Both `from_start` and `from_step` are given.
        """
        if from_start and from_step is not None:
            raise UsageError("replay takes from_start or from_step, not both")
        start_from = "start" if from_start else "" if from_step is None else step_field(from_step)
        parts: list[Replayed] = []

        async def act(chunk: Sequence[str]) -> tuple[int, int]:
            reply = await self._with_slot(self.store.replay(queue, chunk, start_from=start_from))
            parts.append(replayed_of(chunk, reply.statuses))
            return parts[-1].count, reply.now_ms

        await self._each_chosen(queue, ids, act, everything=all, fingerprint=fingerprint, progress=progress)
        return sum(parts, Replayed())

    async def resolve(
        self,
        id: str,  # noqa: A002
        step: str,
        value: Any = OMITTED,
        *,
        run_again: bool = False,
    ) -> None:
        """Say what has become of a step with `once=True` whose outcome is not known, and replay its job.

        Args:
            id: ID of the job, a dead letter with the reason `outcome-unknown`.
            step: The step as its error names it, such as `pay#1`, or `pay` for its first call.
            value: JSON value that the step has returned. Give this or `run_again`.
            run_again: Nothing has happened, so the step is called again.

        Raises:
            NotFound: The job is not a dead letter, or has no such step.
            UsageError: The outcome of the step is known, the job's record is gone, or not exactly one of `value` and
                `run_again` is given.
            InvalidPayload: The value is not JSON, or exceeds 1 MiB.
        """
        if run_again is (value is not OMITTED):
            raise UsageError("resolve takes the value that the step has returned, or run_again=True")
        raw = b"" if run_again else encode(to_json(value, "the value"), what="the value")
        letter = await self.dead_letter(id)
        status = await self._with_slot(self.store.resolve(letter.queue, id, step_field(step), raw))
        if status == "no-step":
            raise NotFound(f"job {id} has no step {step!r:.80} without an outcome; its error names the step")
        if status == "unknown":
            raise NotFound(f"job {id} has no dead letter any more")
        if status != "replayed":
            problems = {"ended": f"the outcome of step {step!r:.80} is known", "bare": "its record is gone"}
            raise UsageError(f"job {id}: {problems.get(status, 'it is enqueued already')}; nothing was changed")

    async def discard(
        self,
        queue: str,
        ids: Sequence[str] | str | None = None,
        *,
        all: bool = False,  # noqa: A002
        fingerprint: str | None = None,
        progress: ProgressCallback | None = None,
    ) -> int:
        """Delete dead letters and their results. Their IDs may then be enqueued again.

        The arguments are those of `replay`.

        Returns:
            The number of dead letters that were deleted.
        """
        counts: list[int] = []

        async def act(chunk: Sequence[str]) -> tuple[int, int]:
            reply = await self._with_slot(self.store.discard(queue, chunk))
            counts.append(reply.count)
            return reply.count, reply.now_ms

        await self._each_chosen(queue, ids, act, everything=all, fingerprint=fingerprint, progress=progress)
        return sum(counts)

    async def _each_chosen(
        self,
        queue: str,
        ids: Sequence[str] | str | None,
        act: Callable[[Sequence[str]], Awaitable[tuple[int, int]]],
        *,
        everything: bool,
        fingerprint: str | None,
        progress: ProgressCallback | None,
    ) -> None:
        """Call `act` with the chosen dead letters, up to 500 at a time.

        A dead letter counts if its job is dead when this begins. One that dies again meanwhile is not chosen twice.
        `act` returns how many dead letters it has removed, and the server time of its call in ms.
        """
        if sum((ids is not None, everything, fingerprint is not None)) != 1:
            raise UsageError("name the dead letters by exactly one of ids, all=True or fingerprint=...")
        check_queue(queue)
        if ids is not None:
            named = [check_id(job_id) for job_id in ([ids] if isinstance(ids, str) else ids)]
            for start in range(0, len(named), BATCH):
                await act(named[start : start + BATCH])
                if progress is not None:
                    progress(min(start + BATCH, len(named)))
            return
        until = await self._server_now(queue)
        dead = DeadRange(queue, until, fingerprint)
        # A job that dies again later than `until` is out of the range; in the same millisecond it is known by its ID.
        handled: set[str] = set()
        seen = left = 0  # `left`: handled dead letters that are still there, at the start of the range
        while page := await self._with_slot(dead.page(self.store, offset=left)):
            chunk = [job_id for job_id in page if job_id not in handled]
            removed, at = await act(chunk) if chunk else (0, until)
            if at <= until:
                handled.update(chunk)
            left += len(page) - removed
            seen += len(chunk)
            if progress is not None:
                progress(seen)

    async def _read_dead_letters(self, queue: str, ids: Sequence[str], *, head: int) -> tuple[int, list[DeadLetter]]:
        """Return the number of dead letters read until the page was full, and those that still exist."""
        read, left, out = 0, PAGE_BYTES, []
        while read < len(ids) and left > 0:
            chunk = ids[read : read + LISTED_AT_ONCE]
            found = await self._with_slot(
                self.store.dead_letters(queue, chunk, max_value_bytes=head, max_reply_bytes=left)
            )
            there = [stored for stored in found if stored.exists]
            out += [
                await self._read_dead_letter(stored, whole_errors=True) if head else dead_letter_of(stored)
                for stored in there
            ]
            read += len(found)
            left -= sum(len(stored.raw or b"") for stored in found)
        return read, out

    async def _read_dead_letter(self, stored: StoredDeadLetter, *, whole_errors: bool) -> DeadLetter:
        try:
            return dead_letter_of(stored, whole_errors=whole_errors, is_head=True)
        except Cut:
            (whole,) = await self._with_slot(self.store.dead_letters(stored.queue, [stored.id]))
        dead_letter = dead_letter_of(whole)
        errors = dead_letter.errors
        if not whole_errors:
            errors = [replace(error, traceback="") for error in errors[-1:]]
        return replace(dead_letter, data=OMITTED, errors=errors)

    async def _server_now(self, queue: str) -> int:
        return (await self._with_slot(self.store.snapshot(check_queue(queue)))).now_ms
