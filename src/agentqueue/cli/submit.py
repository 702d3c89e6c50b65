"""`agentqueue submit`: send one job, or a bulk of JSON lines."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from agentqueue.cli.connection import RedisOption, with_client
from agentqueue.cli.output import AsJson, on_terminal, print_json, print_line, warn
from agentqueue.client.suggestions import check_job_known, check_queue_known
from agentqueue.errors import InvalidPayload, NotFound, UsageError
from agentqueue.model.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from agentqueue.client import Client, Job, JobStatus

CONCURRENT_WAITS = 8
"""Maximum number of results that a bulk waits for at the same time. It bounds the load on Redis."""
MAX_SHOWN = 20
"""Maximum number of refused lines that are printed. The others are counted."""
BULK_SUFFIXES = (".jsonl", ".ndjson")
"""Suffixes of files with one job per line."""
FORCE_HINT = "Send it anyway with --force."
"""The next step in errors about unknown names."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(submit)


def submit(
    queue: Annotated[str, typer.Argument(metavar="QUEUE")],
    job: Annotated[str, typer.Argument(metavar="JOB", help="The job's name, which is its handler's name.")],
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="JSON|@FILE|-",
            help="The payload. @FILE reads it from a file (.jsonl: a bulk with one job per line). - reads one job per "
            "line from standard input. Default: no payload.",
        ),
    ] = None,
    priority: Annotated[
        str | None, typer.Option("--priority", "-p", help="urgent, high, normal or low, or a number from 1.")
    ] = None,
    delay: Annotated[float | None, typer.Option("--delay", help="Seconds before the job can start.")] = None,
    job_id: Annotated[
        str | None, typer.Option("--id", help="The job's ID. While an ID is known, the same ID sends nothing.")
    ] = None,
    id_field: Annotated[
        str | None,
        typer.Option("--id-field", metavar="NAME", help="Take each job's ID from this field of its payload."),
    ] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="A word to find the job by. Can be repeated.")] = None,
    timeout: Annotated[float | None, typer.Option("--timeout", help="Maximum seconds of one attempt.")] = None,
    attempts: Annotated[
        int | None, typer.Option("--attempts", help="Attempts before the job becomes a dead letter.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", "-w", help="Wait for the result. Exits with 1 if a job died.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Send also to an unknown queue or job name.")] = False,
    as_json: AsJson = False,
    redis: RedisOption = None,
) -> None:
    """Send a job, or a bulk of jobs, to a queue.

    Prints the job's ID (in a bulk, one per line). With --wait it prints the result instead.
    """
    options = {"priority": number_or_name(priority), "delay": delay, "tags": tag, "timeout": timeout}
    options |= {"attempts": attempts, "id": job_id}
    request = SubmitRequest(queue, job, options, id_field=id_field, wait=wait, force=force, as_json=as_json)
    source = open_bulk(data)
    if source is None:
        payload = read_payload(data)
        failed = with_client(redis, lambda client: _send_one(client, request, payload))
    else:
        if job_id is not None:
            raise UsageError("--id is for one job; in a bulk, take IDs from the payloads with --id-field NAME")
        failed = with_client(redis, lambda client: _send_bulk(client, request, source))
    if failed:
        raise typer.Exit(1)


@dataclass(frozen=True, slots=True)
class SubmitRequest:
    """The command line of `submit`, without the payloads."""

    queue: str
    job: str
    options: dict[str, Any]
    id_field: str | None
    wait: bool
    force: bool
    as_json: bool

    def item(self, payload: Any) -> dict[str, Any]:
        """Return the keyword arguments of `Client.enqueue` for a payload."""
        item = {"queue": self.queue, "name": self.job, "data": payload, "force": True, **self.options}
        if self.id_field is not None:
            item["id"] = field_of(payload, self.id_field)
        return item

    async def check(self, client: Client) -> None:
        """Check the names of the queue and the job, unless --force is given.

        Raises:
            NotFound: A name is not known.
        """
        if not self.force:
            await check_queue_known(client, self.queue, next_step=FORCE_HINT)
            await check_job_known(client, self.queue, self.job, next_step=FORCE_HINT)


@dataclass(slots=True)
class BulkSource:
    """The lines of a bulk, and the problems of refused lines."""

    name: str
    lines: IO[bytes]
    refused: list[str] = field(default_factory=list)


# Reading


def number_or_name(priority: str | None) -> int | str | None:
    """Return a priority like `5` as a number, and any other as a name."""
    return int(priority) if priority is not None and priority.isascii() and priority.isdigit() else priority


def open_bulk(data: str | None) -> BulkSource | None:
    """Return the lines of a bulk, from standard input (`-`) or a .jsonl file; None if the data is for one job."""
    if data == "-":
        return BulkSource("standard input", sys.stdin.buffer)
    if data is not None and data.startswith("@") and data.endswith(BULK_SUFFIXES):
        return BulkSource(data[1:], _open(data[1:]))
    return None


def read_payload(data: str | None) -> Any:
    """Return the payload on the command line or in its file. Without one, return NO_PAYLOAD, which differs from `null`.

    Raises:
        InvalidPayload: It is not JSON.
        NotFound: The file cannot be read.
    """
    from agentqueue.model.json_input import read_json  # noqa: PLC0415
    from agentqueue.model.new_job import NO_PAYLOAD  # noqa: PLC0415

    if data is None:
        return NO_PAYLOAD
    if not data.startswith("@"):
        raw = data.encode(errors="surrogateescape")  # bytes that the locale cannot decode (PEP 383)
        return read_json(raw, "the payload", hint="""; quote it for the shell: '{"a": 1}' or, a text, '"world"'""")
    with _open(data[1:]) as file:
        return read_json(file.read(), data[1:])


def _open(name: str) -> IO[bytes]:
    try:
        return Path(name).open("rb")
    except OSError as exc:
        raise NotFound(f"can't read {name}: {exc.strerror}; check the path after the @") from exc


def field_of(payload: Any, name: str) -> str:
    """Return a field of a payload as a job ID.

    Raises:
        InvalidPayload: The payload has no such field, or it is neither text nor a whole number.
    """
    value = payload.get(name) if isinstance(payload, dict) else None
    if type(value) not in (str, int) or value == "":
        raise InvalidPayload(f"the payload has no field {name!r} to take the ID from")
    return str(value)


# One job


async def _send_one(client: Client, request: SubmitRequest, payload: Any) -> bool:
    """Send a job. Return whether it died, if --wait is given."""
    await request.check(client)
    job = await client.enqueue(**request.item(payload))
    if request.wait:
        if job.deduplicated:  # The result is that of an earlier job, whose payload can be different.
            warn(_already_known(job.id, await job.known_status()))
        return await _wait_for_one(client, job, request)
    known = await job.known_status()
    if request.as_json:
        fields = _to_json(job, request)
        if known is not None:
            fields |= {"queue": known.queue, "name": known.name, "state": known.state}
        print_json(fields)
        return False
    if not on_terminal():
        print(job.id)
    elif not job.deduplicated:
        print_line(f"{job.id} sent to {request.queue}")
    if job.deduplicated:
        warn(_already_known(job.id, known))
    return False


def _already_known(job_id: str, known: JobStatus | None) -> str:
    """Return the message for an ID that was known before, with a next step if the earlier job cannot run."""
    from agentqueue.model.job import State  # noqa: PLC0415

    if known is None:
        return f"{job_id} was known already; nothing was sent. It has expired since: send it again"
    summary = f"{job_id} was known already and is {known.state}; nothing was sent"
    if known.state is not State.DEAD:
        return summary
    return f"{summary}. Run it again with `agentqueue dead replay {known.queue} {job_id}`, or discard it first"


def _to_json(job: Job, request: SubmitRequest) -> dict[str, Any]:
    return {"id": job.id, "queue": job.queue or request.queue, "name": request.job, "deduplicated": job.deduplicated}


async def _wait_for_one(client: Client, job: Job, request: SubmitRequest) -> bool:
    from agentqueue.cli.jobs import status_grid  # noqa: PLC0415
    from agentqueue.cli.watch import LiveView, follow  # noqa: PLC0415

    status: JobStatus | None = None
    with LiveView(status_grid, lambda _: None, live=not request.as_json) as view:
        async for status in follow(client, job.id):
            view.show(status)
    assert status is not None
    if request.as_json:
        print_json(status.to_json() | {"deduplicated": job.deduplicated})
    elif status.error is None:
        print_json(status.result)
    else:
        warn(f"{job.id} is {status.state}: {status.error}")
    return status.error is not None


# A bulk


async def _send_bulk(client: Client, request: SubmitRequest, source: BulkSource) -> bool:
    """Send the jobs of a bulk. Return whether a line was refused or a job died."""
    await request.check(client)
    with progress_bar("sending", show=not request.as_json) as advance, source.lines:
        jobs = await client.enqueue_many(_items(client, request, source), progress=advance)
    for problem in source.refused[:MAX_SHOWN]:
        warn(f"refused: {problem}")
    if len(source.refused) > MAX_SHOWN:
        warn(f"refused: {len(source.refused) - MAX_SHOWN:,} more")
    if request.as_json and not request.wait:
        for job in jobs:
            print_json(_to_json(job, request), indent=False)
    elif not on_terminal() and not request.wait:
        print("\n".join(job.id for job in jobs))
    known = sum(job.deduplicated for job in jobs)
    parts = [f"{counted(len(jobs) - known, 'job')} sent to {request.queue}"]
    parts += [f"{known:,} known already"] * (known > 0) + [f"{len(source.refused):,} refused"] * bool(source.refused)
    warn(", ".join(parts))
    dead = await _wait_for_all(jobs, request) if request.wait else 0
    return bool(source.refused) or dead > 0


def _items(client: Client, request: SubmitRequest, source: BulkSource) -> Iterator[dict[str, Any]]:
    """Yield a job for each valid line. Problems of other lines are added to `source.refused`."""
    from agentqueue.model.json_input import read_json  # noqa: PLC0415

    for number, line in enumerate(source.lines, 1):
        if not line.strip():
            continue
        try:
            item = request.item(read_json(line, "it"))
            client.prepare((), item)
        except UsageError as exc:
            source.refused.append(f"{source.name} line {number}: {exc}")
        else:
            yield item


async def _wait_for_all(jobs: Sequence[Job], request: SubmitRequest) -> int:
    """Wait for all jobs, and return the number of those that did not complete."""
    import asyncio  # noqa: PLC0415

    from agentqueue.errors import JobCancelled, JobFailed  # noqa: PLC0415

    slots = asyncio.Semaphore(CONCURRENT_WAITS)
    failed = 0

    async def wait_for(job: Job) -> None:
        nonlocal failed
        async with slots:
            try:
                await job.result()
            except (JobFailed, JobCancelled, InvalidPayload) as exc:
                failed += 1
                if not request.as_json:
                    warn(str(exc))
            if request.as_json:
                print_json((await job.status()).to_json(), indent=False)

    with progress_bar("waiting", total=len(jobs), show=not request.as_json) as advance:
        for count, done in enumerate(asyncio.as_completed([wait_for(job) for job in jobs]), 1):
            await done
            advance(count)
    warn(f"{len(jobs) - failed:,} of {counted(len(jobs), 'job')} completed")
    return failed


@contextmanager
def progress_bar(label: str, *, total: int | None = None, show: bool = True) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on standard error if it is a terminal, and yield a function that sets the finished count.

    Args:
        label: The text before the bar.
        total: The final count, if it is known.
        show: False hides the bar.
    """
    if not (show and sys.stderr.isatty()):
        yield lambda _: None
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=total)
        yield lambda done: progress.update(task, completed=done)
