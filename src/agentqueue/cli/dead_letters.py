"""`agentqueue dead list|show|replay|discard`: the dead letters."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentqueue.cli.connection import RedisOption, with_client
from agentqueue.cli.output import (
    AsJson,
    ago,
    clean,
    counted,
    on_terminal,
    print_fields,
    print_json,
    print_line,
    print_table,
    warn,
)
from agentqueue.cli.submit import progress_bar
from agentqueue.client.known_names import nearest
from agentqueue.client.suggestions import check_queue_known
from agentqueue.errors import NotFound, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from agentqueue.client import Client, DeadGroup, Page, Replayed
    from agentqueue.model.dead_letter import DeadLetter

GROUP_COLUMNS = ("queue", "fingerprint", "count", "reason", "job", "newest", "last error")
DEAD_LETTER_COLUMNS = ("id", "job", "reason", "attempts", "died", "fingerprint", "error")
GROUP_OPTIONAL = ("newest", "reason", "job", "queue", "count")
DEAD_LETTER_OPTIONAL = ("fingerprint", "attempts", "reason", "died", "job")
"""What a narrow terminal does without, the first first."""

QueueArgument = Annotated[str | None, typer.Argument(metavar="QUEUE", help="Default: all queues.")]
IdsArgument = Annotated[list[str] | None, typer.Argument(metavar="ID")]
All = Annotated[bool, typer.Option("--all", help="All that are dead now.")]
Fingerprint = Annotated[
    str | None, typer.Option("--fingerprint", metavar="FINGERPRINT", help="Those of one kind, as `dead list` names it.")
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
    limit: Annotated[int, typer.Option("--limit", "-n", help="How many letters, up to 1000.")] = 100,
    cursor: Annotated[str | None, typer.Option("--cursor", help="Where the page before ended.")] = None,
    fields: Annotated[
        str, typer.Option("--fields", metavar="data", help="With --ids and --json: the payloads, too.")
    ] = "",
    as_json: AsJson = False,
    redis: RedisOption = None,
) -> None:
    """List dead letters by kind: same reason, job and error, but for numbers, ids and quoted words."""
    words = [word for word in fields.split(",") if word and as_json]
    if ids or fingerprint is not None or cursor is not None:
        if queue is None:
            raise UsageError("dead list --ids, --fingerprint and --cursor need a QUEUE")
        page, now = with_client(redis, lambda client: _letters(client, queue, fingerprint, cursor, limit, words))
        _print_letters(page, now, queue, as_json=as_json)
    else:
        groups, now = with_client(redis, lambda client: _groups(client, queue))
        optional = sorted(GROUP_OPTIONAL, key=lambda name: queue is not None and name != "queue")
        _print_groups(groups, now, optional, as_json=as_json)


async def _letters(
    client: Client, queue: str, fingerprint: str | None, cursor: str | None, limit: int, fields: list[str]
) -> tuple[Page[DeadLetter], datetime]:
    from agentqueue.clock import now_ms  # noqa: PLC0415
    from agentqueue.model.times import from_ms  # noqa: PLC0415

    await check_queue_known(client, queue)
    if fingerprint is not None:
        fingerprint = await find_fingerprint(client, queue, fingerprint)
    page = await client.dead_letters(queue, fingerprint=fingerprint, cursor=cursor, limit=limit, fields=fields)
    return page, from_ms(now_ms())


async def _groups(client: Client, queue: str | None) -> tuple[list[DeadGroup], datetime]:
    from agentqueue.clock import now_ms  # noqa: PLC0415
    from agentqueue.model.times import from_ms  # noqa: PLC0415

    queues = await _queues(client, queue)
    return [group for name in queues for group in await client.dead_groups(name)], from_ms(now_ms())


async def _queues(client: Client, queue: str | None) -> Sequence[str]:
    if queue is None:
        return [stats.name for stats in await client.stats() if stats.dead]
    await check_queue_known(client, queue)
    return [queue]


def _print_letters(page: Page[DeadLetter], now: datetime, queue: str, *, as_json: bool) -> None:
    from agentqueue.model.dead_letter import dead_letter_to_json  # noqa: PLC0415
    from agentqueue.model.times import from_ms  # noqa: PLC0415

    if as_json:
        print_json({"dead": [dead_letter_to_json(letter) for letter in page], "cursor": page.cursor})
        return
    rows = [
        (it.id, it.name, it.reason, it.attempts, ago(from_ms(it.died_ms), now), it.fingerprint, it.error) for it in page
    ]
    print_table(DEAD_LETTER_COLUMNS, rows, empty=f"no dead letters in {queue}", optional_columns=DEAD_LETTER_OPTIONAL)
    if page.cursor is not None:
        warn(f"there are more: --cursor {page.cursor}")


def _print_groups(groups: Sequence[DeadGroup], now: datetime, optional: Sequence[str], *, as_json: bool) -> None:
    from agentqueue.model.times import from_ms  # noqa: PLC0415

    if as_json:
        print_json({"groups": [_group_to_json(group) for group in groups]})
        return
    rows = []
    for group in groups:
        it = group.newest
        died = ago(from_ms(it.died_ms), now)
        rows.append((it.queue, group.fingerprint, group.count, it.reason, it.name, died, it.error))
    print_table(GROUP_COLUMNS, rows, empty="no dead letters", optional_columns=optional)


def _group_to_json(group: DeadGroup) -> dict[str, Any]:
    from agentqueue.model.times import from_ms, iso  # noqa: PLC0415

    it = group.newest
    return {
        "queue": it.queue,
        "fingerprint": group.fingerprint,
        "count": group.count,
        "reason": it.reason,
        "name": it.name,
        "error": it.error,
        "newestId": it.id,
        "newestAt": iso(from_ms(it.died_ms)),
    }


def show(
    queue: Annotated[str, typer.Argument(metavar="QUEUE")],
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID", help="Default: the newest.")] = None,
    fingerprint: Fingerprint = None,
    as_json: AsJson = False,
    redis: RedisOption = None,
) -> None:
    """Show dead letters in full: payload, and every attempt's error with its traceback."""
    from agentqueue.model.dead_letter import dead_letter_to_json  # noqa: PLC0415

    letters = with_client(redis, lambda client: _read(client, queue, ids, fingerprint))
    wire = [dead_letter_to_json(letter) for letter in letters]
    if as_json:
        print_json(wire[0] if len(wire) == 1 else wire)
        return
    for number, letter in enumerate(wire):
        if number:
            print()
        _print_letter(letter)


async def _read(client: Client, queue: str, ids: list[str] | None, fingerprint: str | None) -> Sequence[DeadLetter]:
    if ids:
        letters = [await client.dead_letter(job_id) for job_id in ids]
        strange = next((letter for letter in letters if letter.queue != queue), None)
        if strange is not None:
            raise NotFound(f"job {strange.id} died in queue {strange.queue!r}, not in {queue!r}")
        return letters
    await check_queue_known(client, queue)
    if fingerprint is not None:
        fingerprint = await find_fingerprint(client, queue, fingerprint)
    letters = await client.dead_letters(queue, fingerprint=fingerprint, limit=1, fields=["data"])
    if not letters:
        raise NotFound(f"queue {queue!r} has no dead letters")
    return letters


def _print_letter(letter: dict[str, Any]) -> None:
    errors = letter.pop("errors")
    replayable = letter.pop("replayable")
    letter["tags"] = letter["tags"] or None
    print_fields(letter | {"replayable": None if replayable else "no: it died without a record"})
    for error in errors:
        print_line(f"attempt {error['attempt']} at {error['at']}: {error['type']}: {error['message']}", style="bold")
        if error["traceback"]:
            print(clean(error["traceback"].rstrip(), lines=True))


def replay(
    queue: QueueArgument = None,
    ids: IdsArgument = None,
    every: All = False,
    fingerprint: Fingerprint = None,
    as_json: AsJson = False,
    redis: RedisOption = None,
) -> None:
    """Send dead letters again, with their attempts counted anew.

    Without a QUEUE, --all takes all queues. Exits with 1 if one could not be sent, 3 if there are none such.
    """
    choice = Choice.of(queue, ids, every, fingerprint)
    report = with_client(redis, lambda client: _replay(client, choice, quiet=as_json))
    if as_json:
        left = {"unknown": report.not_found, "live": report.already_queued, "bare": report.no_record}
        print_json({"replayed": report.count, **left})
    else:
        _tell_replayed(report)
    if report.left:
        raise typer.Exit(3 if len(report.not_found) == report.left and not report.count else 1)


def discard(
    queue: QueueArgument = None,
    ids: IdsArgument = None,
    every: All = False,
    fingerprint: Fingerprint = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask, on a terminal.")] = False,
    as_json: AsJson = False,
    redis: RedisOption = None,
) -> None:
    """Forget dead letters: they can't be replayed any more. Without a QUEUE, --all takes all queues."""
    choice = Choice.of(queue, ids, every, fingerprint)
    if not (yes or ids) and on_terminal() and sys.stdin.isatty():
        typer.confirm(f"Forget {choice}?", abort=True)
    gone = with_client(redis, lambda client: _discard(client, choice, quiet=as_json))
    print_json({"discarded": gone}) if as_json else print_line(f"{counted(gone, 'dead letter')} discarded")
    if ids and gone < len(set(ids)):
        warn(f"{counted(len(set(ids)) - gone, 'job')} had no dead letter in {queue}")
        raise typer.Exit(1 if gone else 3)


@dataclass(frozen=True, slots=True)
class Choice:
    """Which dead letters a command is about."""

    queue: str | None
    ids: list[str] | None
    every: bool
    fingerprint: str | None

    @classmethod
    def of(cls, queue: str | None, ids: list[str] | None, every: bool, fingerprint: str | None) -> Choice:
        """The choice on the command line.

        Raises:
            UsageError: not exactly one of ids, --all and --fingerprint; or no queue where one is needed.
        """
        if bool(ids) + every + (fingerprint is not None) != 1:
            raise UsageError("name the dead letters: QUEUE ID..., QUEUE --fingerprint FINGERPRINT, or [QUEUE] --all")
        if queue is None and not every:
            raise UsageError("which queue? QUEUE may be left out with --all only")
        return cls(queue, ids, every, fingerprint)

    def __str__(self) -> str:
        where = "of all queues" if self.queue is None else f"of {self.queue}"
        if self.fingerprint is not None:
            return f"the dead letters with fingerprint {self.fingerprint} {where}"
        return f"all dead letters {where}" if self.every else f"{counted(len(self.ids or ()), 'dead letter')} {where}"

    async def arguments(self, client: Client, queue: str) -> dict[str, Any]:
        """The keywords of `Client.replay` and `Client.discard`."""
        if self.ids:
            return {"ids": self.ids}
        if self.fingerprint is not None:
            return {"fingerprint": await find_fingerprint(client, queue, self.fingerprint)}
        return {"all": True}


async def _replay(client: Client, choice: Choice, *, quiet: bool) -> Replayed:
    from agentqueue.client import Replayed  # noqa: PLC0415

    report = Replayed()
    for queue in await _queues(client, choice.queue):
        arguments = await choice.arguments(client, queue)
        with progress_bar(f"replaying {queue}", show=not quiet) as advance:
            report += await client.replay(queue, **arguments, progress=advance)
    return report


async def _discard(client: Client, choice: Choice, *, quiet: bool) -> int:
    gone = 0
    for queue in await _queues(client, choice.queue):
        arguments = await choice.arguments(client, queue)
        with progress_bar(f"discarding {queue}", show=not quiet) as advance:
            gone += await client.discard(queue, **arguments, progress=advance)
    return gone


def _tell_replayed(report: Replayed) -> None:
    print_line(f"{counted(report.count, 'job')} sent again")
    for ids, why in (
        (report.not_found, "not a dead letter of this queue (any more)"),
        (report.already_queued, "runs again already, under the same id"),
        (report.no_record, "died without a record: there is nothing to run; discard it"),
    ):
        for job_id in ids[:20]:
            warn(f"{job_id}: {why}")
        if len(ids) > 20:
            warn(f"{len(ids) - 20:,} more: {why}")


async def find_fingerprint(client: Client, queue: str, start: str) -> str:
    """The one known fingerprint that starts so.

    Raises:
        NotFound: none does; with what there is. UsageError: several do.
    """
    known = await client.store.fingerprints(queue)
    found = [name for name in known if name.startswith(start)]
    if not found:
        hint = nearest(start, known) if known else "it has none at all"
        raise NotFound(f"queue {queue!r} has no dead letters with fingerprint {start!r}; {hint}")
    if len(found) > 1 and start not in found:
        raise UsageError(f"{start!r} stands for several kinds: {', '.join(sorted(found))}; write more of it")
    return start if start in found else found[0]
