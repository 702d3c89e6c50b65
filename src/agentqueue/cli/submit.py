"""`agentqueue submit`: send one job, or a bulk of JSON lines."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from agentqueue.cli.connection import RedisOption, with_client
from agentqueue.cli.output import AsJson, counted, on_terminal, print_json, print_line, warn
from agentqueue.client.suggestions import check_job_known, check_queue_known
from agentqueue.errors import InvalidPayload, NotFound, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from agentqueue.client import Client, Job, JobStatus

WAITS_AT_ONCE = 8
"""Results of a bulk that are waited for together."""
MAX_SHOWN = 20
"""Refused lines that are named one by one."""
LINES = (".jsonl", ".ndjson")
FORCE = "Send it anyway with --force."


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(submit)


def submit(
    queue: Annotated[str, typer.Argument(metavar="QUEUE")],
    job: Annotated[str, typer.Argument(metavar="JOB", help="The job's name, as its handler has it.")],
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="JSON|@FILE|-",
            help="The payload; @FILE: the one in a file (.jsonl: a bulk, a job per line); -: JSON lines from standard "
            "input, a job each. Default: none.",
        ),
    ] = None,
    priority: Annotated[
        str | None, typer.Option("--priority", "-p", help="urgent, high, normal or low, or a number from 1.")
    ] = None,
    delay: Annotated[float | None, typer.Option("--delay", help="Start no sooner than in so many seconds.")] = None,
    job_id: Annotated[
        str | None, typer.Option("--id", help="The job's id; the same id again sends nothing while it is known.")
    ] = None,
    id_field: Annotated[
        str | None,
        typer.Option("--id-field", metavar="NAME", help="Take each job's id from this field of its payload."),
    ] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="A word to find it by; may be given often.")] = None,
    timeout: Annotated[float | None, typer.Option("--timeout", help="Seconds one attempt may run.")] = None,
    attempts: Annotated[int | None, typer.Option("--attempts", help="Attempts before it is a dead letter.")] = None,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait for the result; exit 1 if a job died.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Also to a queue or job name that is not known.")] = False,
    as_json: AsJson = False,
    redis: RedisOption = None,
) -> None:
    """Send a job, or a bulk of jobs, to a queue.

    Prints the job's id (in a bulk, one a line). With --wait it prints the result instead.
    """
    options = {"priority": number_or_name(priority), "delay": delay, "tags": tag, "timeout": timeout}
    options |= {"attempts": attempts, "id": job_id}
    order = Order(queue, job, options, id_field=id_field, wait=wait, force=force, as_json=as_json)
    source = open_bulk(data)
    if source is None:
        payload = read_payload(data)
        failed = with_client(redis, lambda client: _send_one(client, order, payload))
    else:
        if job_id is not None:
            raise UsageError("--id is for one job; in a bulk take ids from the payloads with --id-field NAME")
        failed = with_client(redis, lambda client: _send_bulk(client, order, source))
    if failed:
        raise typer.Exit(1)


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done, but for the payloads."""

    queue: str
    job: str
    options: dict[str, Any]
    id_field: str | None
    wait: bool
    force: bool
    as_json: bool

    def item(self, payload: Any) -> dict[str, Any]:
        """The keywords of `enqueue`."""
        item = {"queue": self.queue, "name": self.job, "data": payload, "force": True, **self.options}
        if self.id_field is not None:
            item["id"] = field_of(payload, self.id_field)
        return item

    async def check(self, client: Client) -> None:
        """Refuse a mistyped queue or job name, unless forced."""
        if not self.force:
            await check_queue_known(client, self.queue, way_out=FORCE)
            await check_job_known(client, self.queue, self.job, way_out=FORCE)


@dataclass(slots=True)
class Source:
    """Where a bulk's lines come from."""

    name: str
    lines: IO[bytes]
    refused: list[str] = field(default_factory=list)


# Reading


def number_or_name(priority: str | None) -> int | str | None:
    """`5` as a number, all else as a name."""
    return int(priority) if priority is not None and priority.isascii() and priority.isdigit() else priority


def open_bulk(data: str | None) -> Source | None:
    """The lines of a bulk: standard input for `-`, a .jsonl file; None: it is one job."""
    if data == "-":
        return Source("standard input", sys.stdin.buffer)
    if data is not None and data.startswith("@") and data.endswith(LINES):
        return Source(data[1:], _open(data[1:]))
    return None


def read_payload(data: str | None) -> Any:
    """Return the one payload that the argument says or names; NO_PAYLOAD without one, which `null` is not.

    Raises:
        InvalidPayload: not JSON. NotFound: no such file.
    """
    from agentqueue.model.json_input import read_json  # noqa: PLC0415
    from agentqueue.model.new_job import NO_PAYLOAD  # noqa: PLC0415

    if data is None:
        return NO_PAYLOAD
    if not data.startswith("@"):
        raw = data.encode(errors="surrogateescape")  # what the locale can't say comes as its bytes: PEP 383
        return read_json(raw, "the payload", hint="""; quote it for the shell: '{"a": 1}' or, a text, '"world"'""")
    with _open(data[1:]) as file:
        return read_json(file.read(), data[1:])


def _open(name: str) -> IO[bytes]:
    try:
        return Path(name).open("rb")
    except OSError as exc:
        raise NotFound(f"can't read {name}: {exc.strerror}; check the path after the @") from exc


def field_of(payload: Any, name: str) -> str:
    """A payload's field as a job's id.

    Raises:
        InvalidPayload: there is none, or it is neither text nor a whole number.
    """
    value = payload.get(name) if isinstance(payload, dict) else None
    if type(value) not in (str, int) or value == "":
        raise InvalidPayload(f"the payload has no field {name!r} to take the id from")
    return str(value)


# One job


async def _send_one(client: Client, order: Order, payload: Any) -> bool:
    await order.check(client)
    job = await client.enqueue(**order.item(payload))
    if order.wait:
        if job.deduplicated:  # what is printed is another job's result, maybe of another payload
            warn(_what_is_known(job.id, await job.known_status()))
        return await _wait_for_one(client, job, order)
    _tell_sent(job, order, await job.known_status())
    return False


def _tell_sent(job: Job, order: Order, known: JobStatus | None) -> None:
    if order.as_json:
        wire = _as_json(job, order)
        print_json(wire if known is None else wire | {"queue": known.queue, "name": known.name, "state": known.state})
        return
    if not on_terminal():
        print(job.id)
    elif not job.deduplicated:
        print_line(f"{job.id} sent to {order.queue}")
    if job.deduplicated:
        warn(_what_is_known(job.id, known))


def _what_is_known(job_id: str, known: JobStatus | None) -> str:
    """That nothing was sent, and what to do where that can't be what was wanted."""
    from agentqueue.model.job import State  # noqa: PLC0415

    if known is None:
        return f"{job_id} was known already; nothing was sent. It has been forgotten since: send it again"
    summary = f"{job_id} was known already and is {known.state}; nothing was sent"
    if known.state is not State.DEAD:
        return summary
    return f"{summary}. Run it again with `agentqueue dead replay {known.queue} {job_id}`, or discard it first"


def _as_json(job: Job, order: Order) -> dict[str, Any]:
    return {"id": job.id, "queue": job.queue or order.queue, "name": order.job, "deduplicated": job.deduplicated}


async def _wait_for_one(client: Client, job: Job, order: Order) -> bool:
    from agentqueue.cli.jobs import status_grid  # noqa: PLC0415
    from agentqueue.cli.watch import LiveView, follow  # noqa: PLC0415

    status: JobStatus | None = None
    with LiveView(status_grid, lambda _: None, live=not order.as_json) as view:
        async for status in follow(client, job.id):
            view.show(status)
    assert status is not None
    if order.as_json:
        print_json(status.to_json() | {"deduplicated": job.deduplicated})
    elif status.error is None:
        print_json(status.result)
    else:
        warn(f"{job.id} is {status.state}: {status.error}")
    return status.error is not None


# A bulk


async def _send_bulk(client: Client, order: Order, source: Source) -> bool:
    await order.check(client)
    with progress_bar("sending", show=not order.as_json) as advance, source.lines:
        jobs = await client.enqueue_many(_items(client, order, source), progress=advance)
    _tell_bulk(jobs, order, source)
    dead = await _wait_for_all(jobs, order) if order.wait else 0
    return bool(source.refused) or dead > 0


def _items(client: Client, order: Order, source: Source) -> Iterator[dict[str, Any]]:
    """One job per line that can be sent; the others are noted."""
    from agentqueue.model.json_input import read_json  # noqa: PLC0415

    for number, line in enumerate(source.lines, 1):
        if not line.strip():
            continue
        try:
            item = order.item(read_json(line, "it"))
            client.prepare((), item)
        except UsageError as exc:
            source.refused.append(f"{source.name} line {number}: {exc}")
        else:
            yield item


def _tell_bulk(jobs: Sequence[Job], order: Order, source: Source) -> None:
    for problem in source.refused[:MAX_SHOWN]:
        warn(f"refused: {problem}")
    if len(source.refused) > MAX_SHOWN:
        warn(f"refused: {len(source.refused) - MAX_SHOWN:,} more")
    if order.as_json and not order.wait:
        for job in jobs:
            print_json(_as_json(job, order), indent=False)
    elif not on_terminal() and not order.wait:
        print("\n".join(job.id for job in jobs))
    known = sum(job.deduplicated for job in jobs)
    parts = [f"{counted(len(jobs) - known, 'job')} sent to {order.queue}"]
    parts += [f"{known:,} known already"] * (known > 0) + [f"{len(source.refused):,} refused"] * bool(source.refused)
    warn(", ".join(parts))


async def _wait_for_all(jobs: Sequence[Job], order: Order) -> int:
    """Wait for each; how many did not complete."""
    import asyncio  # noqa: PLC0415

    from agentqueue.errors import JobCancelled, JobFailed  # noqa: PLC0415

    turns = asyncio.Semaphore(WAITS_AT_ONCE)
    failed = 0

    async def wait_for(job: Job) -> None:
        nonlocal failed
        async with turns:
            try:
                await job.result()
            except (JobFailed, JobCancelled, InvalidPayload) as exc:
                failed += 1
                if not order.as_json:
                    warn(str(exc))
            if order.as_json:
                print_json((await job.status()).to_json(), indent=False)

    with progress_bar("waiting", total=len(jobs), show=not order.as_json) as advance:
        for count, done in enumerate(asyncio.as_completed([wait_for(job) for job in jobs]), 1):
            await done
            advance(count)
    warn(f"{len(jobs) - failed:,} of {counted(len(jobs), 'job')} completed")
    return failed


@contextmanager
def progress_bar(what: str, *, total: int | None = None, show: bool = True) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal's standard error, so that standard output stays clean; elsewhere nothing."""
    if not (show and sys.stderr.isatty()):
        yield lambda _: None
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.update(task, completed=done)
