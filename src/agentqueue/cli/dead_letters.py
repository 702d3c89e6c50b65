"""`agentqueue dead list|show|replay|discard`: the dead letters."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentqueue.cli.connection import RedisOption, with_client
from agentqueue.cli.output import (
    AsJson,
    format_age,
    on_terminal,
    print_fields,
    print_json,
    print_line,
    print_table,
    printable,
    warn,
)
from agentqueue.cli.submit import progress_bar
from agentqueue.client.known_names import nearest
from agentqueue.client.suggestions import check_queue_known
from agentqueue.errors import NotFound, UsageError
from agentqueue.model.wording import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentqueue.client import Client, DeadGroup, Page, Replayed
    from agentqueue.model.dead_letter import DeadLetter

GROUP_COLUMNS = ("queue", "fingerprint", "count", "reason", "job", "newest", "last error")
"""Columns of `dead list`."""
GROUP_OPTIONAL = ("newest", "reason", "job", "queue", "count")
"""Columns that a narrow terminal drops, the least important one first."""
DEAD_LETTER_COLUMNS = ("id", "job", "reason", "attempts", "died", "fingerprint", "error")
"""Columns of `dead list --ids`."""
DEAD_LETTER_OPTIONAL = ("fingerprint", "attempts", "reason", "died", "job")
"""Columns that a narrow terminal drops, the least important one first."""
MAX_SHOWN = 20
"""Maximum number of jobs that `dead replay` names for one problem. The others are counted."""

QueueArgument = Annotated[str | None, typer.Argument(metavar="QUEUE", help="Default: all queues.")]
IdsArgument = Annotated[list[str] | None, typer.Argument(metavar="ID")]
All = Annotated[bool, typer.Option("--all", help="All dead letters of this moment.")]
Fingerprint = Annotated[
    str | None,
    typer.Option("--fingerprint", metavar="FINGERPRINT", help="Dead letters of this kind, as `dead list` names it."),
]


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(no_args_is_help=True, help="Dead letters: jobs that will not run again by themselves.")
    group.command("list")(list_dead)
    group.command("show")(show)
    group.command("replay")(replay)
    group.command("discard")(discard)
    app.add_typer(group, name="dead")


def list_dead(
    queue: QueueArgument = None,
    ids: Annotated[bool, typer.Option("--ids", help="One line per dead letter instead of one per kind.")] = False,
    fingerprint: Fingerprint = None,
    limit: Annotated[int, typer.Option("--limit", "-n", help="Number of dead letters, up to 1000.")] = 100,
    cursor: Annotated[str | None, typer.Option("--cursor", help="The cursor at the end of the previous page.")] = None,
    fields: Annotated[
        str, typer.Option("--fields", metavar="data", help="With --ids and --json: the payloads, too.")
    ] = "",
    as_json: AsJson = False,
    redis: RedisOption = None,
) -> None:
    """List dead letters by kind: same reason, job and error, except for numbers, IDs and quoted words."""
    from agentqueue.clock import now_ms  # noqa: PLC0415
    from agentqueue.model.dead_letter import dead_letter_to_json  # noqa: PLC0415
    from agentqueue.model.times import from_ms  # noqa: PLC0415

    if not (ids or fingerprint is not None or cursor is not None):
        _list_kinds(queue, as_json=as_json, redis=redis)
        return
    if queue is None:
        raise UsageError("dead list --ids, --fingerprint and --cursor need a QUEUE")
    words = [word for word in fields.split(",") if word and as_json]

    async def read(client: Client) -> Page[DeadLetter]:
        await check_queue_known(client, queue)
        whole = None if fingerprint is None else await find_fingerprint(client, queue, fingerprint)
        return await client.dead_letters(queue, fingerprint=whole, cursor=cursor, limit=limit, fields=words)

    page = with_client(redis, read)
    if as_json:
        print_json({"dead": [dead_letter_to_json(it) for it in page], "cursor": page.cursor})
        return
    now = from_ms(now_ms())
    rows = [
        (it.id, it.name, it.reason, it.attempts, format_age(from_ms(it.died_ms), now), it.fingerprint, it.error)
        for it in page
    ]
    print_table(DEAD_LETTER_COLUMNS, rows, empty=f"no dead letters in {queue}", optional_columns=DEAD_LETTER_OPTIONAL)
    if page.cursor is not None:
        warn(f"there are more: --cursor {page.cursor}")


def _list_kinds(queue: str | None, *, as_json: bool, redis: str | None) -> None:
    """Print the dead letters of a queue, or of all queues, by kind."""
    from agentqueue.clock import now_ms  # noqa: PLC0415
    from agentqueue.model.times import from_ms, iso  # noqa: PLC0415

    async def read(client: Client) -> list[DeadGroup]:
        return [group for name in await _queues(client, queue) for group in await client.dead_groups(name)]

    groups = [(group, group.newest) for group in with_client(redis, read)]
    if as_json:
        shown = [
            {
                "queue": newest.queue,
                "fingerprint": group.fingerprint,
                "count": group.count,
                "reason": newest.reason,
                "name": newest.name,
                "error": newest.error,
                "newestId": newest.id,
                "newestAt": iso(from_ms(newest.died_ms)),
            }
            for group, newest in groups
        ]
        print_json({"groups": shown})
        return
    now = from_ms(now_ms())
    rows = [
        (it.queue, group.fingerprint, group.count, it.reason, it.name, format_age(from_ms(it.died_ms), now), it.error)
        for group, it in groups
    ]
    # With one queue, its name is the same in all rows, so its column is dropped first.
    optional = GROUP_OPTIONAL if queue is None else ("queue", *(name for name in GROUP_OPTIONAL if name != "queue"))
    print_table(GROUP_COLUMNS, rows, empty="no dead letters", optional_columns=optional)


async def _queues(client: Client, queue: str | None) -> Sequence[str]:
    """Return the queue if it is known. Without one, return all queues that have dead letters."""
    if queue is None:
        return [stats.name for stats in await client.stats() if stats.dead]
    await check_queue_known(client, queue)
    return [queue]


def show(
    queue: Annotated[str, typer.Argument(metavar="QUEUE")],
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID", help="Default: the newest.")] = None,
    fingerprint: Fingerprint = None,
    as_json: AsJson = False,
    redis: RedisOption = None,
) -> None:
    """Show dead letters in full: the payload, and the error of each attempt with its traceback."""
    from agentqueue.model.dead_letter import dead_letter_to_json  # noqa: PLC0415

    async def read(client: Client) -> Sequence[DeadLetter]:
        if ids:
            found = [await client.dead_letter(job_id) for job_id in ids]
            elsewhere = next((it for it in found if it.queue != queue), None)
            if elsewhere is not None:
                raise NotFound(f"job {elsewhere.id} died in queue {elsewhere.queue!r}, not in {queue!r}")
            return found
        await check_queue_known(client, queue)
        whole = None if fingerprint is None else await find_fingerprint(client, queue, fingerprint)
        newest = await client.dead_letters(queue, fingerprint=whole, limit=1, fields=["data"])
        if not newest:
            raise NotFound(f"queue {queue!r} has no dead letters")
        return newest

    shown = [dead_letter_to_json(it) for it in with_client(redis, read)]
    if as_json:
        print_json(shown[0] if len(shown) == 1 else shown)
        return
    for number, fields in enumerate(shown):
        if number:
            print()
        errors, replayable = fields.pop("errors"), fields.pop("replayable")
        fields["tags"] = fields["tags"] or None
        print_fields(fields | {"replayable": None if replayable else "no: it died without a record"})
        for error in errors:
            line = f"attempt {error['attempt']} at {error['at']}: {error['type']}: {error['message']}"
            print_line(line, style="bold")
            if error["traceback"]:
                print(printable(error["traceback"].rstrip(), lines=True))


def replay(
    queue: QueueArgument = None,
    ids: IdsArgument = None,
    every: All = False,
    fingerprint: Fingerprint = None,
    from_start: Annotated[
        bool, typer.Option("--from-start", help="Forget their checkpoints and steps: everything runs again.")
    ] = False,
    from_step: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Forget this step (`plan`, or `plan#2`) and all that was recorded later."),
    ] = None,
    as_json: AsJson = False,
    redis: RedisOption = None,
) -> None:
    """Send dead letters again. Their attempts start from zero, and they go on after their last step.

    Without a QUEUE, --all means all queues. Exits with 1 if one could not be sent, with 3 if none was found.
    """
    selection = Selection.of(queue, ids, every, fingerprint)

    async def send(client: Client) -> Replayed:
        from agentqueue.client import Replayed  # noqa: PLC0415

        total = Replayed()
        for name in await _queues(client, queue):
            arguments = await selection.arguments(client, name)
            with progress_bar(f"replaying {name}", show=not as_json) as advance:
                total += await client.replay(
                    name, **arguments, from_start=from_start, from_step=from_step, progress=advance
                )
        return total

    replayed = with_client(redis, send)
    if as_json:
        left = {"unknown": replayed.not_found, "live": replayed.already_queued, "bare": replayed.no_record}
        if replayed.no_step:
            left["noStep"] = replayed.no_step
        print_json({"replayed": replayed.count, **left})
    else:
        print_line(f"{counted(replayed.count, 'job')} sent again")
        for left_ids, reason in (
            (replayed.not_found, "not a dead letter of this queue (any more)"),
            (replayed.already_queued, "is in the queue again already, under the same ID"),
            (replayed.no_record, "died without a record, so it cannot run: discard it"),
            (replayed.no_step, f"has no step {from_step} in its journal; `agentqueue status` lists its steps"),
        ):
            for job_id in left_ids[:MAX_SHOWN]:
                warn(f"{job_id}: {reason}")
            if len(left_ids) > MAX_SHOWN:
                warn(f"{len(left_ids) - MAX_SHOWN:,} more: {reason}")
    if replayed.left:
        raise typer.Exit(3 if len(replayed.not_found) == replayed.left and not replayed.count else 1)


def discard(
    queue: QueueArgument = None,
    ids: IdsArgument = None,
    every: All = False,
    fingerprint: Fingerprint = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask, on a terminal.")] = False,
    as_json: AsJson = False,
    redis: RedisOption = None,
) -> None:
    """Discard dead letters. They can't be replayed any more. Without a QUEUE, --all means all queues."""
    selection = Selection.of(queue, ids, every, fingerprint)
    if not (yes or ids) and on_terminal() and sys.stdin.isatty():
        typer.confirm(f"Discard {selection}?", abort=True)

    async def remove(client: Client) -> int:
        total = 0
        for name in await _queues(client, queue):
            arguments = await selection.arguments(client, name)
            with progress_bar(f"discarding {name}", show=not as_json) as advance:
                total += await client.discard(name, **arguments, progress=advance)
        return total

    discarded = with_client(redis, remove)
    print_json({"discarded": discarded}) if as_json else print_line(f"{counted(discarded, 'dead letter')} discarded")
    if ids and discarded < len(set(ids)):
        warn(f"{counted(len(set(ids)) - discarded, 'job')} had no dead letter in {queue}")
        raise typer.Exit(1 if discarded else 3)


@dataclass(frozen=True, slots=True)
class Selection:
    """The dead letters that `dead replay` and `dead discard` act on."""

    queue: str | None
    ids: list[str] | None
    every: bool
    fingerprint: str | None

    @classmethod
    def of(cls, queue: str | None, ids: list[str] | None, every: bool, fingerprint: str | None) -> Selection:
        """Return the selection on the command line.

        Raises:
            UsageError: It is not exactly one of ids, --all and --fingerprint, or it needs a queue.
        """
        if bool(ids) + every + (fingerprint is not None) != 1:
            raise UsageError("name the dead letters: QUEUE ID..., QUEUE --fingerprint FINGERPRINT, or [QUEUE] --all")
        if queue is None and not every:
            raise UsageError("name the QUEUE: it can be left out with --all only")
        return cls(queue, ids, every, fingerprint)

    def __str__(self) -> str:
        where = "of all queues" if self.queue is None else f"of {self.queue}"
        if self.fingerprint is not None:
            return f"the dead letters with fingerprint {self.fingerprint} {where}"
        return f"all dead letters {where}" if self.every else f"{counted(len(self.ids or ()), 'dead letter')} {where}"

    async def arguments(self, client: Client, queue: str) -> dict[str, Any]:
        """Return the keyword arguments for `Client.replay` and `Client.discard`."""
        if self.ids:
            return {"ids": self.ids}
        if self.fingerprint is not None:
            return {"fingerprint": await find_fingerprint(client, queue, self.fingerprint)}
        return {"all": True}


async def find_fingerprint(client: Client, queue: str, prefix: str) -> str:
    """Return the fingerprint in the queue that starts with `prefix`.

    Raises:
        NotFound: No fingerprint starts with it. The message names the most similar one.
        UsageError: More than one fingerprint starts with it.
    """
    known = await client.store.fingerprints(queue)
    found = [name for name in known if name.startswith(prefix)]
    if not found:
        hint = nearest(prefix, known) if known else "it has none at all"
        raise NotFound(f"queue {queue!r} has no dead letters with fingerprint {prefix!r}; {hint}")
    if len(found) > 1 and prefix not in found:
        raise UsageError(f"ambiguous fingerprint prefix {prefix!r}: add characters ({', '.join(sorted(found))})")
    return prefix if prefix in found else found[0]
