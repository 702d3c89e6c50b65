"""`SyncClient`, the client of programs without an event loop. Threads may share one."""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Collection, Coroutine, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future, wait
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, Unpack, overload

from agentqueue.agent.context import Context
from agentqueue.agent.declaration import JobDeclaration
from agentqueue.agent.job_definition import JobDefinition
from agentqueue.client.async_client import DEFAULT_STREAM_TTL_S, Client, Job, ProgressCallback
from agentqueue.client.bulk import chunks_of, prepare_each
from agentqueue.client.fork_guard import ForkGuard
from agentqueue.client.responses import Cancellation, DeadGroup, Page, Replayed
from agentqueue.client.schedules import ScheduleStatus
from agentqueue.client.stats import QueueStats
from agentqueue.client.status import JobStatus
from agentqueue.errors import AgentQueueError, JobNotFound
from agentqueue.model.dead_letter import DeadLetter
from agentqueue.model.job import OMITTED, State
from agentqueue.model.json import MAX_BYTES
from agentqueue.model.new_job import NO_PAYLOAD, EnqueueOptions, Prepared
from agentqueue.model.stream import StreamEvent
from agentqueue.store import Sentinels, Tls

if TYPE_CHECKING:
    import typing_extensions

    R_co = typing_extensions.TypeVar("R_co", covariant=True, default=Any)
else:  # see agentqueue.client.async_client
    R_co = TypeVar("R_co", covariant=True)

T = TypeVar("T")
P = TypeVar("P")
R = TypeVar("R")


class _LoopThread:
    """An event loop in its own thread, which starts with the first call."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self.fork_guard = ForkGuard()
        self._lock = threading.Lock()

    def submit(self, work: Coroutine[Any, Any, T]) -> "Future[T]":
        try:
            self.fork_guard.check()  # before the lock, which a fork may have copied in locked state
        except BaseException:
            work.close()
            raise
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="agentqueue-client", daemon=True)
                self._thread.start()
            return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        future = self.submit(work)
        try:
            return wait_for(future)
        except BaseException:
            future.cancel()  # KeyboardInterrupt: the call must not go on in the background
            raise

    def stop(self) -> None:
        if self.fork_guard.is_in_forked_child():
            return  # a fork does not copy the thread
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None:
            asyncio.run_coroutine_threadsafe(_cancel_others(), loop).result()  # other threads' calls end with an error
            loop.call_soon_threadsafe(loop.stop)
            self._thread.join()
            loop.close()


def wait_for(future: "Future[T]") -> T:
    """Wait for a call, and return its result.

    Raises:
        AgentQueueError: Another thread closed the client meanwhile. Errors of the call are raised too.
    """
    try:
        return future.result()
    except CancelledError:
        raise AgentQueueError(
            "the client was closed by another thread during this call; the call may or may not have taken effect"
        ) from None


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def _note(handles: dict[int, Job], found: dict[int, Job], progress: ProgressCallback | None) -> None:
    handles.update(found)
    if progress is not None:
        progress(len(handles))


class SyncJob(Generic[R_co]):
    """A handle on a job, like `Job`, without `await`."""

    __slots__ = ("_client", "_job", "deduplicated", "id", "queue")

    def __init__(self, client: "SyncClient", job: Job[R_co]) -> None:
        self._client = client
        self._job = job
        self.id = job.id
        self.queue = job.queue
        """Queue of the job. None: the client looks it up when it needs it."""
        self.deduplicated = job.deduplicated
        """True if the ID was known already. The handle is then on the first job, and nothing was enqueued."""

    def known_status(self) -> JobStatus | None:
        """Return the status of the job that has the ID already; see `Job.known_status`."""
        if not self.deduplicated:
            return None
        with suppress(JobNotFound):
            return self.status()
        return None

    def __repr__(self) -> str:
        return f"SyncJob({self.id!r}, queue={self.queue!r}, deduplicated={self.deduplicated})"

    def status(self) -> JobStatus:
        """Return the status of the job; see `Job.status`."""
        return self._client.status(self.id, queue=self.queue)

    def result(self, timeout: float | timedelta | None = None) -> R_co:
        """Wait until the job ends, and return the result of its handler; see `Job.result`."""
        return self._client._thread.run(self._job.result(timeout))  # noqa: SLF001  # its own

    def stream(self, after: str | None = None) -> Generator[StreamEvent]:
        """Read what the job emits, until it ends; see `Client.stream`."""
        return self._client.stream(self.id, after)

    def cancel(self, *, cascade: bool = True) -> Cancellation:
        """Cancel the job; see `Client.cancel`."""
        return self._client.cancel(self.id, queue=self.queue, cascade=cascade)

    def signal(
        self,
        name: str,
        data: Any = None,
        /,
        *,
        sender: str | None = None,
        id: str | None = None,  # noqa: A002  # the public name
    ) -> bool:
        """Send a signal to the job; see `Client.signal`."""
        return self._client.signal(self.id, name, data, sender=sender, id=id, queue=self.queue)


class SyncClient:
    """A client with the methods, arguments and errors of `Client`, without `await`. Its event loop has its own thread.

    A client cannot be used after `os.fork()`: create one in the child. The parent's client raises UsageError there.
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
        client = Client(
            url,
            timeout=timeout,
            connect_timeout=connect_timeout,
            max_bytes=max_bytes,
            ca_file=ca_file,
            tls=tls,
            sentinel=sentinel,
            allow_eviction=allow_eviction,
        )
        self._set_up(client)

    def _set_up(self, client: Client) -> None:
        self._client = client
        self._thread = _LoopThread()

    @classmethod
    def local(cls, folder: str | os.PathLike[str] = ".") -> Self:
        """Return a client of the `agentqueue up` that runs for a folder; see `Client.local`."""
        client = cls.__new__(cls)
        client._set_up(Client.local(folder))  # noqa: SLF001  # its own
        return client

    def __enter__(self) -> Self:
        try:
            self._thread.run(self._client.__aenter__())
        except BaseException:
            self._thread.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection, and end the thread. In a forked child this does nothing: the parent owns both."""
        if self._thread.fork_guard.is_in_forked_child():
            return
        self._thread.run(self._client.close())
        self._thread.stop()

    @overload
    def enqueue(self, queue: str, name: str, data: Any = NO_PAYLOAD, **options: Unpack[EnqueueOptions]) -> SyncJob: ...
    @overload
    def enqueue(
        self,
        function: Callable[[Context, P], Awaitable[R]] | JobDeclaration[P, R],
        payload: P,
        /,
        **options: Unpack[EnqueueOptions],
    ) -> SyncJob[R]: ...
    @overload
    def enqueue(
        self,
        function: Callable[[Context], Awaitable[R]] | JobDeclaration[None, R],
        /,
        **options: Unpack[EnqueueOptions],
    ) -> SyncJob[R]: ...
    @overload
    def enqueue(
        self, function: Callable[[Context, P], R], payload: P, /, **options: Unpack[EnqueueOptions]
    ) -> SyncJob[R]: ...
    @overload
    def enqueue(self, function: Callable[[Context], R], /, **options: Unpack[EnqueueOptions]) -> SyncJob[R]: ...
    @overload
    def enqueue(
        self, function: JobDefinition, payload: Any = NO_PAYLOAD, /, **options: Unpack[EnqueueOptions]
    ) -> SyncJob: ...
    def enqueue(self, *args: Any, **keywords: Any) -> SyncJob:
        """Enqueue a job; see `Client.enqueue`."""
        return SyncJob(self, self._thread.run(self._client.enqueue(*args, **keywords)))

    def enqueue_many(
        self, jobs: Iterable[Mapping[str, Any]], *, progress: ProgressCallback | None = None
    ) -> list[SyncJob]:
        """Enqueue many jobs; see `Client.enqueue_many`. A generator runs in the caller's thread."""
        each = self._checked(jobs)
        handles: dict[int, Job] = {}
        flying: Future[dict[int, Job]] | None = None
        try:
            for chunk in chunks_of(each):
                if flying is not None:
                    _note(handles, wait_for(flying), progress)
                flying = self._thread.submit(self._client.send_chunk(chunk))
            if flying is not None:
                _note(handles, wait_for(flying), progress)
        finally:
            if flying is not None:
                wait([flying])  # otherwise its outcome would be unknown
        return [SyncJob(self, handles[position]) for position in range(len(handles))]

    def _checked(self, jobs: Iterable[Mapping[str, Any]]) -> Iterable[Prepared]:
        """Return the prepared jobs after a check of their names. A list is checked before its first job is sent."""
        each = prepare_each(jobs, self._client.prepare)
        if not isinstance(jobs, list | tuple):
            return self._checked_each(each)
        listed = list(each)
        self._thread.run(self._client.check_names(listed))
        return listed

    def _checked_each(self, jobs: Iterable[Prepared]) -> Iterator[Prepared]:
        for position, prepared in enumerate(jobs):
            if not self._client.may_send(prepared):
                self._thread.run(self._client.check_name(prepared, position))
            yield prepared

    def job(self, id: str, *, queue: str | None = None) -> SyncJob:  # noqa: A002  # the public name
        """Return a handle on the job with an ID; see `Client.job`."""
        return SyncJob(self, self._client.job(id, queue=queue))

    def status(self, id: str, *, queue: str | None = None) -> JobStatus:  # noqa: A002
        """Return the status of a job; see `Client.status`."""
        return self._thread.run(self._client.status(id, queue=queue))

    def result(
        self,
        id: str,  # noqa: A002
        timeout: float | timedelta | None = None,
        *,
        queue: str | None = None,
    ) -> Any:
        """Wait until the job ends, and return the result of its handler; see `Client.result`."""
        return self._thread.run(self._client.result(id, timeout, queue=queue))

    def stream(self, id: str, after: str | None = None) -> Generator[StreamEvent]:  # noqa: A002
        """Read what a job emits, until it ends; see `Client.stream`."""
        events = self._client.stream(id, after)

        async def read() -> StreamEvent | None:
            return await anext(events, None)

        try:
            while (event := self._thread.run(read())) is not None:
                yield event
        finally:
            self._thread.run(events.aclose())

    def stream_token(
        self,
        id: str,  # noqa: A002
        ttl: float | timedelta = DEFAULT_STREAM_TTL_S,
        *,
        secret: str | None = None,
    ) -> str:
        """Return a token with which a browser may read the stream of one job; see `Client.stream_token`."""
        return self._client.stream_token(id, ttl, secret=secret)

    def cancel(self, id: str, *, queue: str | None = None, cascade: bool = True) -> Cancellation:  # noqa: A002
        """Cancel a job; see `Client.cancel`."""
        return self._thread.run(self._client.cancel(id, queue=queue, cascade=cascade))

    def signal(
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
        """Send a signal to a job; see `Client.signal`."""
        return self._thread.run(self._client.signal(job_id, name, data, sender=sender, id=id, queue=queue))

    def queues(self) -> list[str]:
        """Return the names of all queues; see `Client.queues`."""
        return self._thread.run(self._client.queues())

    @overload
    def stats(self, queue: str) -> QueueStats: ...
    @overload
    def stats(self, queue: None = None) -> list[QueueStats]: ...
    def stats(self, queue: str | None = None) -> QueueStats | list[QueueStats]:
        """Return the stats of a queue, or of all queues; see `Client.stats`."""
        if queue is None:
            return self._thread.run(self._client.stats())
        return self._thread.run(self._client.stats(queue))

    def jobs(
        self,
        queue: str,
        state: State | str | None = None,
        cursor: str | None = None,
        *,
        limit: int = 100,
        fields: Collection[str] = (),
    ) -> Page[JobStatus]:
        """Return a page of a queue's jobs; see `Client.jobs`."""
        return self._thread.run(self._client.jobs(queue, state, cursor, limit=limit, fields=fields))

    def pause(self, queue: str, note: str | None = None) -> bool:
        """Pause a queue; see `Client.pause`."""
        return self._thread.run(self._client.pause(queue, note))

    def resume(self, queue: str) -> bool:
        """Resume a queue; see `Client.resume`."""
        return self._thread.run(self._client.resume(queue))

    def schedules(self, queue: str) -> list[ScheduleStatus]:
        """Return the schedules of a queue; see `Client.schedules`."""
        return self._thread.run(self._client.schedules(queue))

    def pause_schedule(self, queue: str, name: str, note: str | None = None) -> bool:
        """Pause a schedule; see `Client.pause_schedule`."""
        return self._thread.run(self._client.pause_schedule(queue, name, note))

    def resume_schedule(self, queue: str, name: str) -> bool:
        """Resume a schedule; see `Client.resume_schedule`."""
        return self._thread.run(self._client.resume_schedule(queue, name))

    def run_schedule(self, queue: str, name: str) -> "SyncJob":
        """Enqueue the job of a schedule now; see `Client.run_schedule`."""
        job = self._thread.run(self._client.run_schedule(queue, name))
        return self.job(job.id, queue=queue)

    def job_names(self, queue: str) -> list[str]:
        """Return the names of the jobs that are registered for a queue; see `Client.job_names`."""
        return self._thread.run(self._client.job_names(queue))

    def dead_letters(
        self,
        queue: str,
        *,
        fingerprint: str | None = None,
        cursor: str | None = None,
        limit: int = 100,
        fields: Collection[str] = (),
    ) -> Page[DeadLetter]:
        """Return a page of a queue's dead letters; see `Client.dead_letters`."""
        call = self._client.dead_letters(queue, fingerprint=fingerprint, cursor=cursor, limit=limit, fields=fields)
        return self._thread.run(call)

    def dead_letter(self, id: str) -> DeadLetter:  # noqa: A002
        """Return the dead letter of a job; see `Client.dead_letter`."""
        return self._thread.run(self._client.dead_letter(id))

    def dead_groups(self, queue: str) -> list[DeadGroup]:
        """Return a queue's dead letters grouped by fingerprint; see `Client.dead_groups`."""
        return self._thread.run(self._client.dead_groups(queue))

    def replay(
        self,
        queue: str,
        ids: Sequence[str] | str | None = None,
        *,
        all: bool = False,  # noqa: A002
        fingerprint: str | None = None,
        from_start: bool = False,
        from_step: str | None = None,
        progress: ProgressCallback | None = None,
    ) -> Replayed:
        """Enqueue dead letters again; see `Client.replay`."""
        replaying = self._client.replay(
            queue, ids, all=all, fingerprint=fingerprint, from_start=from_start, from_step=from_step, progress=progress
        )
        return self._thread.run(replaying)

    def resolve(self, id: str, step: str, value: Any = OMITTED, *, run_again: bool = False) -> None:  # noqa: A002
        """Say what has become of a step whose outcome is not known; see `Client.resolve`."""
        self._thread.run(self._client.resolve(id, step, value, run_again=run_again))

    def discard(
        self,
        queue: str,
        ids: Sequence[str] | str | None = None,
        *,
        all: bool = False,  # noqa: A002
        fingerprint: str | None = None,
        progress: ProgressCallback | None = None,
    ) -> int:
        """Delete dead letters; see `Client.discard`."""
        return self._thread.run(self._client.discard(queue, ids, all=all, fingerprint=fingerprint, progress=progress))
